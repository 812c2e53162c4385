"""A sweep is many backtests over one tape: the same figures, in a stated order, whatever the number of threads."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmlab.core import schemas
from mmlab.core.errors import DataError, UsageError
from mmlab.core.spans import Days
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.report import make_report
from mmlab.flows.run import Job
from mmlab.flows.sweep import in_order, one, sweep
from mmlab.flows.synth import synth
from mmlab.report.sweep_cells import wide
from mmlab.sim import events
from mmlab.sim.axes import parse
from mmlab.sim.intensity import Intensity
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake
from mmlab.store.runs import read_table
from mmlab.store.sql import connect
from mmlab.tape.synth_spec import SynthSpec

BASE = BacktestSpec(QuoteSpec(sigma_window_s=30), FillSpec("trade_cross"), initial_inventory=0.2)
SOURCE = IntensitySource(1.5, 0.25)


def job(root: Path, run_id: str) -> Job:
    return Job("SYNTH", Days.parse("20250101"), data_root=root / "data", out_root=root / "out", run_id=run_id)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sweep")
    synth(SynthSpec(hours=0.1, seed=4), path / "data", replace=False)
    return path


def test_every_run_has_the_figures_of_the_same_backtest_by_itself(root):
    """Twelve combinations of four parameters; to the last bit."""
    grid = parse(["gamma=0.05:1:3", "fill-model=trade_cross,poisson", "entry-latency-ms=0,200"])
    made = sweep(job(root, "twins"), BASE, grid, SOURCE)
    assert made.path == root / "out/sweep/symbol=SYNTH/day=20250101/run=twins"
    twin = [(g, f, ms) for g in (0.05, 0.525, 1.0) for f in ("trade_cross", "poisson") for ms in (0, 200)]
    assert made.sweep["number"].unique().to_list() == list(range(1, 13))
    seen = set()
    for number, (gamma, model, latency) in enumerate(twin, 1):
        spec = replace(
            BASE, quote=replace(BASE.quote, gamma=gamma), fill=replace(BASE.fill, model=model), entry_latency_ms=latency
        )
        alone = backtest(job(root, f"alone-{number}"), spec, SOURCE).metrics
        rows = made.sweep.filter(number=number)
        assert rows.filter(role="metric").select(metric="name", value="value", unit="unit").equals(alone)
        set_to = rows.filter(role="parameter").select("name", "value", "text").rows()
        assert set_to == [
            ("gamma", gamma, str(gamma)), ("fill_model", None, model),
            ("entry_latency_ms", float(latency), str(latency)),
        ]  # fmt: skip
        seen.add(alone["value"][0])
    assert len(seen) == 12, "all runs gave one figure: nothing was swept"


def test_every_run_sees_only_its_own_levels_of_the_book(root):
    """The tape is read once, as deep as the deepest run needs; slow twin: each tape read for its run alone."""
    base = replace(
        BASE, quote=QuoteSpec("fixed_spread", 0.0), fill=FillSpec("price_cross"), qty=5.0, account="margin",
        post_only=False,
    )  # fmt: skip
    made = sweep(job(root, "levels"), base, parse(["book-levels=1,2,5"]), SOURCE)
    lake = Lake(root / "data")
    refs = lake.find("SYNTH", Days.parse("20250101"))
    seen = set()
    for number, levels in enumerate((1, 2, 5), 1):
        depth = lake.read(refs, schemas.DEPTH, events.depth_columns(levels))
        tape = events.tape(depth, lake.live_prints(refs, events.TRADE_COLUMNS), lake.instrument(refs))
        twin = one(tape, replace(base, fill=replace(base.fill, book_levels=levels)), Intensity.none())
        found = made.sweep.filter(number=number, role="metric").select(metric="name", value="value", unit="unit")
        assert found.equals(twin)
        seen.add(twin["value"][0])
    assert len(seen) == 3


def test_measured_latencies_are_refused_rather_than_left_out(root):
    with pytest.raises(UsageError, match="--latency-file and --sweep are both given"):
        sweep(job(root, "file"), replace(BASE, latency_file="latency.csv"), parse(["gamma=1,2"]), SOURCE)


def test_the_bytes_do_not_depend_on_the_number_of_threads(root):
    """Table and CSV of one thread and of several are the same files."""
    grid = parse(["half-spread-ticks=1,2,5", "seed=1:4:4"])
    base = replace(BASE, quote=QuoteSpec("fixed_spread"), fill=FillSpec("poisson"))
    paths = [sweep(job(root, f"threads-{n}"), base, grid, SOURCE, threads=n).path for n in (1, 2, 5)]
    for name in ("sweep.parquet", "sweep.csv"):
        first, *others = [(path / name).read_bytes() for path in paths]
        assert all(other == first for other in others)


def test_only_figures_are_kept_and_the_csv_is_the_table_laid_out(root):
    grid = parse(["gamma=0.1,0.2"])
    seen: list[tuple[str, int, int]] = []
    made = sweep(job(root, "kept"), BASE, grid, SOURCE, progress=lambda *what: seen.append(what))
    assert sorted(p.name for p in made.path.iterdir()) == ["manifest.json", "sweep.csv", "sweep.parquet"]
    assert seen == [("sweep", 1, 2), ("sweep", 2, 2)]
    rows = pl.read_csv(made.path / "sweep.csv", schema=wide(made.sweep).schema)
    assert rows.equals(wide(made.sweep))
    kept = read_table(made.path, schemas.SWEEP)
    assert kept is not None
    assert kept.equals(made.sweep)
    spec = json.loads((made.path / "manifest.json").read_text())["spec"]
    assert spec["sweep"] == [{"name": "gamma", "values": ["0.1", "0.2"]}]
    assert (spec["quote"]["gamma"], spec["quote"]["horizon_s"], spec["runs"]) == ("swept", 1.0, 2)


def test_sql_turns_the_table_by_one_pivot(root):
    made = sweep(job(root, "pivot"), BASE, parse(["gamma=0.1,0.2,0.4"]), SOURCE)
    con = connect(root / "data", root / "out")
    rows = con.sql("PIVOT (SELECT number, name, value FROM sweep WHERE run = 'pivot') ON name USING first(value)").pl()
    twin = wide(made.sweep).with_columns(pl.col("gamma").cast(pl.Float64))
    assert rows.sort("number").select(twin.columns).equals(twin)


def test_a_refused_combination_stops_the_sweep_before_anything_is_read(root):
    """Not even the symbol is looked up; the message names the combination."""
    nowhere = replace(job(root, "refused"), symbol="NOWHERE")
    with pytest.raises(UsageError, match=r"--sweep gamma=0\.0, qty=1\.0: --gamma is 0\.0"):
        sweep(nowhere, BASE, parse(["gamma=1,0", "qty=1"]), SOURCE)
    assert not list((root / "out").rglob("*refused*"))


def test_what_only_the_market_refuses_is_named_too_and_leaves_nothing(root):
    """Less than a lot, by the instrument of the day."""
    with pytest.raises(UsageError, match=r"--sweep qty=1e-09: --qty 1e-09 is less than a lot"):
        sweep(job(root, "lot"), BASE, parse(["qty=0.001,0.000000001"]), SOURCE)
    assert not list((root / "out" / "sweep").rglob("*lot*"))


def test_an_intensity_that_one_run_needs_is_asked_for_before_any_run(root):
    """Of four runs the third is the first that needs one."""
    base = replace(BASE, quote=QuoteSpec("fixed_spread"))
    seen: list[int] = []
    with pytest.raises(UsageError, match=r"--sweep fill_model=poisson, gamma=1\.0: poisson fills need"):
        sweep(
            job(root, "needs"), base, parse(["fill-model=trade_cross,poisson", "gamma=1,2"]), IntensitySource(),
            progress=lambda *_: seen.append(1),
        )  # fmt: skip
    assert not seen


def test_a_schedule_that_covers_a_part_is_warned_of_once(root, tmp_path):
    start = 1_735_689_600_000
    file = tmp_path / "poisson_schedule.json"
    file.write_text(json.dumps([{"start_ms": start, "end_ms": start + 60_000, "A": 1.5, "k": 0.25}]))
    made = sweep(
        job(root, "part"), BASE, parse(["fill-model=poisson,trade_cross", "gamma=1,2"]), IntensitySource(file=file)
    )
    assert len([text for text in made.warnings if "the intensity covers 16.7% of the data" in text]) == 1
    file.write_text(json.dumps([{"start_ms": 1, "end_ms": 2, "A": 1.5, "k": 0.25}]))
    with pytest.raises(DataError, match=r"--sweep gamma=1\.0: the schedule covers 1 to 2 ms"):
        sweep(job(root, "none"), BASE, parse(["gamma=1,2"]), IntensitySource(file=file))


def test_runs_without_a_fill_are_counted(root):
    made = sweep(job(root, "idle"), replace(BASE, quote=QuoteSpec("fixed_spread")),
                 parse(["half-spread-ticks=1,5000,6000"]), SOURCE)  # fmt: skip
    assert made.warnings == ["no order was filled in 2 of 3 runs"]
    assert wide(made.sweep)["fill_ratio"].to_list()[1:] == [0.0, 0.0]


def test_an_unknown_metric_to_sort_by_ends_the_sweep_at_its_first_run(root):
    seen: list[int] = []
    with pytest.raises(UsageError, match="--sort-by is 'profit'"):
        sweep(job(root, "sort"), BASE, parse(["gamma=1:2:50"]), SOURCE, "profit", lambda *_: seen.append(1))
    assert not seen
    assert not list((root / "out" / "sweep").rglob("*sort*"))


def test_work_comes_back_in_order_and_few_results_wait():
    """The first item is the slowest; the work never runs more than twice the threads ahead of what was taken."""
    begun, most, taken, lock = [0], [0], [0], threading.Lock()

    def work(i: int) -> int:
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0] - taken[0])
        time.sleep(0.05 if i == 0 else 0.001)
        return i * i

    got = []
    for value in in_order(work, range(60), 3):
        with lock:
            taken[0] += 1
        got.append(value)
    assert got == [i * i for i in range(60)]
    assert most[0] <= 2 * 3 + 1


def test_the_report_has_the_heat_map_and_the_ranking(root):
    """One page; the same figure as a PNG file beside it."""
    pytest.importorskip("matplotlib")
    made = sweep(job(root, "page"), BASE, parse(["gamma=0.1,0.2", "qty=0.001,0.002"]), SOURCE, "fills")
    page = make_report(made.path).read_text()
    assert "Heat map" in page
    assert "Highest fills" in page
    first = (made.path / "heat_map.png").read_bytes()
    make_report(made.path)
    assert (made.path / "heat_map.png").read_bytes() == first
