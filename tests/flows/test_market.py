"""What a backtest runs on: files of the user's, books as deep as asked, and their bytes told in the manifest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmlab.core.errors import UsageError
from mmlab.core.spans import Days
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.market import read_series
from mmlab.flows.run import Job
from mmlab.flows.sweep import sweep
from mmlab.flows.synth import synth
from mmlab.flows.walkforward import walkforward
from mmlab.sim.axes import parse
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.runs import read_json
from mmlab.tape.synth_spec import SynthSpec

NONE, GIVEN = IntensitySource(), IntensitySource(1.5, 0.25)
FREE = {"account": "margin", "maker_fee": 0.0}
LEAN = """
def quotes(view):
    centre = view.mid - view.inventory / view.qty * view.tick_size
    return centre - 3 * view.tick_size, centre + 3 * view.tick_size

def odd(view):
    words = {"mid": view.mid}
    words[1] = "one"
    return words["mid"] - 1, words["mid"] + 1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("market")
    synth(SynthSpec(hours=0.1, seed=4, levels=3), path / "data", replace=False)
    (path / "lean.py").write_text(LEAN)
    return path


def job(root: Path, run_id: str) -> Job:
    return Job("SYNTH", Days.parse("20250101"), data_root=root / "data", out_root=root / "out", run_id=run_id)


def read_table(path: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(path / f"{name}.parquet", hive_partitioning=False)


def tables(path: Path) -> list[pl.DataFrame]:
    return [read_table(path, name) for name in ("orders", "fills", "state")]


def test_a_strategy_of_the_users_own_is_run_and_its_bytes_are_told(root):
    """The function that says what inventory_skew says gives the same rows; the manifest has the file's sha256."""
    quote = QuoteSpec("strategy", strategy=f"{root / 'lean.py'}:quotes")
    mine = backtest(job(root, "mine"), BacktestSpec(quote, **FREE), NONE)
    skew = QuoteSpec("inventory_skew", half_spread_ticks=3.0, skew_ticks=1.0)
    ours = backtest(job(root, "ours"), BacktestSpec(skew, **FREE), NONE)
    assert all(a.equals(b) for a, b in zip(tables(mine.path), tables(ours.path), strict=True))
    assert mine.metrics.equals(ours.metrics)
    spec = read_json(mine.path / "manifest.json")["spec"]
    assert spec["strategy_sha256"] == hashlib.sha256(LEAN.encode()).hexdigest()
    assert spec["strategy_compiled"] is True
    assert "strategy_sha256" not in read_json(ours.path / "manifest.json")["spec"]


def test_a_strategy_that_cannot_be_compiled_is_run_all_the_same_and_a_warning_says_so(root):
    """Slower, but run."""
    quote = QuoteSpec("strategy", strategy=f"{root / 'lean.py'}:odd")
    made = backtest(job(root, "odd"), BacktestSpec(quote, **FREE), NONE)
    assert any("runs uncompiled" in warning for warning in made.warnings)
    assert read_table(made.path, "orders").filter(action="PLACE").height > 10


def test_measured_latencies_take_the_place_of_constants(root):
    """The last measurement by the time of sending; what is not measured stays as it is."""
    start = read_table(backtest(job(root, "plain"), BacktestSpec(**FREE), GIVEN).path, "orders")["recv_ns"][0]
    file = root / "latency.csv"
    half = start + 180_000_000_000
    pl.DataFrame({"recv_ns": [start - 5, half], "entry_ms": [7.5, 120.25]}).write_csv(file)
    spec = BacktestSpec(QuoteSpec("fixed_spread"), latency_file=str(file), cancel_latency_ms=11, **FREE)
    made = backtest(job(root, "measured"), spec, NONE)
    orders = read_table(made.path, "orders")
    placed = orders.filter(action="PLACE")
    waited = (placed["active_recv_ns"] - placed["recv_ns"]).to_list()
    assert waited == [7_500_000 if t < half else 120_250_000 for t in placed["recv_ns"]]
    assert len(set(waited)) == 2
    asked = orders.filter(action="CANCEL_REQ")
    assert (asked["cancel_effective_ns"] - asked["cancel_req_ns"]).unique().to_list() == [11_000_000]
    kept = read_json(made.path / "manifest.json")["spec"]
    assert kept["latency_file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recv_ms,entry_ms\n1,5\n2,-1\n", "row 2 has entry_ms -1"),
        ("recv_ms,entry_ms\n2,5\n1,5\n", "row 2 is earlier than the one before"),
        ("recv_ms,entry_ms\n1,5\n2,\n", "row 2 has entry_ms None"),
        ("recv_ms,entry_ms\n1,fast\n", "entry_ms holds String, no numbers"),
        ("time,entry_ms\n1,5\n", "has columns time, entry_ms"),
        ("recv_ms,delay\n1,5\n", "has columns recv_ms, delay"),
        ("recv_ms,entry_ms\n", "no rows"),
        ("", "give a CSV or Parquet file"),
    ],
)
def test_a_latency_file_that_cannot_be_meant_is_named(tmp_path, text, message):
    """With its row, and a remedy."""
    file = tmp_path / "l.csv"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_series(file)
    assert message in f"{caught.value.message} {caught.value.remedy}"
    assert str(file) in caught.value.message
    assert caught.value.remedy


def test_a_parquet_of_latencies_is_that_of_the_csv(tmp_path):
    """Either kind."""
    frame = pl.DataFrame({"recv_ms": [1, 2], "cancel_ms": [1.5, 2.5], "response_ms": [0.25, 3.0]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        found = read_series(tmp_path / name)
        assert found.ns.tolist() == [1_000_000, 2_000_000]
        assert found.entry is None
        assert found.cancel is not None
        assert found.cancel.tolist() == [1_500_000, 2_500_000]


def test_a_deeper_book_fills_larger_orders_and_a_book_that_is_not_there_is_refused(root):
    """Three levels are there; taking one, an order of many lots is filled in part."""
    quote = QuoteSpec("fixed_spread", half_spread_ticks=0.0)
    filled = {}
    for levels in (1, 3):
        spec = BacktestSpec(quote, FillSpec("price_cross", book_levels=levels), qty=5.0, **FREE)
        filled[levels] = backtest(job(root, f"deep-{levels}"), spec, NONE).metrics.filter(metric="turnover")["value"][0]
    assert filled[3] > filled[1] > 0
    with pytest.raises(UsageError, match="--book-levels is 30, the days have fewer"):
        backtest(job(root, "deepest"), BacktestSpec(quote, FillSpec("price_cross", book_levels=30), **FREE), NONE)
    assert not list((root / "out").glob("**/run=deepest"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BacktestSpec(QuoteSpec("glft"), **FREE), "glft quotes need A and k"),
        (BacktestSpec(QuoteSpec("glft", k=0.25), **FREE), "glft quotes need A"),
        (BacktestSpec(QuoteSpec("fixed_spread"), FillSpec("hybrid"), **FREE), "hybrid fills need"),
    ],
)
def test_what_needs_an_intensity_says_so(root, spec, message):
    """Before anything is simulated."""
    with pytest.raises(UsageError, match=message) as caught:
        backtest(job(root, "needs"), spec, NONE)
    assert "--A and --k" in caught.value.remedy


def test_glft_quotes_run_by_their_own_numbers_alone(root):
    """--quote-A and --quote-k are enough."""
    spec = BacktestSpec(QuoteSpec("glft", A=1.5, k=0.25, sigma=0.05), **FREE)
    assert backtest(job(root, "alone"), spec, NONE).metrics.filter(metric="orders_placed")["value"][0] > 10


def test_feed_latency_by_the_recorded_clocks_delays_orders_as_much_as_the_feed(root):
    """Each order's way is its entry latency and the age of the frame that it was decided on."""
    spec = BacktestSpec(QuoteSpec("fixed_spread"), feed_latency="recorded", feed_floor_ms=3, **FREE)
    made = backtest(job(root, "feed"), spec, NONE)
    placed = read_table(made.path, "orders").filter(action="PLACE")
    way = (placed["active_recv_ns"] - placed["recv_ns"]).to_numpy() - 50_000_000
    assert way.min() >= 3_000_000
    depth = pl.read_parquet(
        next((root / "data").glob("**/depth/part-*.parquet")), columns=["recv_ns", "exch_ns"], hive_partitioning=False
    )
    age = dict(zip(depth["recv_ns"], (depth["recv_ns"] - depth["exch_ns"]).to_list(), strict=True))
    ages = [age[t] for t in placed["recv_ns"]]
    running = [min(a for t, a in age.items() if t <= at) for at in placed["recv_ns"]]
    assert way.tolist() == [a - least + 3_000_000 for a, least in zip(ages, running, strict=True)]


def test_a_walk_forward_takes_the_users_strategy_too(root):
    """It sees the A and k in force, nan before the first fit."""
    from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
    from mmlab.flows.calibrate import CalibrateSpec

    (root / "seen.py").write_text(
        "import math\n"
        "def quotes(view):\n"
        "    if math.isnan(view.k):\n"
        "        return math.nan, math.nan\n"
        "    half = view.tick_size / view.k\n"
        "    return view.mid - half, view.mid + half\n"
    )
    spec = BacktestSpec(QuoteSpec("strategy", strategy=f"{root / 'seen.py'}:quotes"), FillSpec("poisson"), **FREE)
    calibration = CalibrateSpec(ProbeSpec((1, 2, 3, 5)), FitSpec(min_exposure_s=1.0))
    made = walkforward(job(root, "wf"), calibration, ScheduleSpec(2, 1), spec)
    placed = read_table(made.path, "orders").filter(action="PLACE")
    assert placed.height > 10
    assert placed["recv_ns"][0] >= made.windows["start_ns"][0]


def test_a_sweep_over_a_strategy_of_the_users_has_the_figures_of_single_runs(root):
    """Its file is loaded once; what is swept are orders and venue."""
    base = BacktestSpec(QuoteSpec("strategy", strategy=f"{root / 'lean.py'}:quotes"), **FREE)
    made = sweep(job(root, "sweep"), base, parse(["entry-latency-ms=0,100"]), NONE)
    for number, ms in enumerate((0, 100), 1):
        alone = backtest(job(root, f"swept-{ms}"), replace(base, entry_latency_ms=ms), NONE).metrics
        rows = made.sweep.filter(number=number, role="metric")
        assert rows.select(metric="name", value="value", unit="unit").equals(alone)
    assert read_json(made.path / "manifest.json")["spec"]["strategy_compiled"] is True


def test_a_strategy_that_remembers_is_loaded_anew_for_each_run_of_a_sweep(root):
    """What could not be compiled may keep state in its file: no run finds another's."""
    text = "seen = []\ndef quotes(view):\n    seen.append(view)\n    edge = len(seen) * view.tick_size\n"
    (root / "remembers.py").write_text(text + "    return view.mid - edge, view.mid + edge\n")
    base = BacktestSpec(QuoteSpec("strategy", strategy=f"{root / 'remembers.py'}:quotes"), **FREE)
    made = sweep(job(root, "remembers"), base, parse(["entry-latency-ms=0,1"]), NONE)
    first = made.sweep.filter(role="metric", name="fills")["value"]
    again = backtest(job(root, "again"), replace(base, entry_latency_ms=1), NONE).metrics.filter(metric="fills")[
        "value"
    ]
    assert first[-1] == again[0] > 0
