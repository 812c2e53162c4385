"""From the lake to the outputs: what a walk-forward run writes, and what it could not have known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.spans import NS_PER_MIN, Days, day_start_ns
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.calibrate import CalibrateSpec
from mmlab.flows.run import Job
from mmlab.flows.synth import synth
from mmlab.flows.walkforward import walkforward
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake
from mmlab.store.runs import read_table
from mmlab.tape.synth_spec import SynthSpec

CALIBRATION = CalibrateSpec(ProbeSpec(), FitSpec())
ROLLING = ScheduleSpec(10, 5)
SPEC = BacktestSpec(QuoteSpec(sigma_window_s=60), FillSpec("poisson"), initial_inventory=0.2)


def job(root: Path, run_id: str, day: str = "20250101") -> Job:
    return Job("SYNTH", Days.parse(day), data_root=root / "data", out_root=root / "out", run_id=run_id)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("flows")
    synth(SynthSpec(hours=0.75, seed=4), path / "data", replace=False)
    return path


def test_a_walk_forward_run_writes_what_the_documents_list(root):
    """Schedule, manifest and backtest tables in one folder, with inputs by checksum."""
    made = walkforward(job(root, "a"), CALIBRATION, ROLLING, SPEC)
    assert made.path == root / "out/walkforward/symbol=SYNTH/day=20250101/run=a"
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["kind"] == "walkforward"
    assert manifest["seed"] == 42
    assert manifest["spec"]["calibration"]["deltas"] == [1, 2, 3, 5, 8, 13]
    assert set(manifest["inputs"][0]["parts"]) == {
        "depth/part-00000.parquet", "events/part-00000.parquet", "trades/part-00000.parquet",
    }  # fmt: skip
    schedule = json.loads((made.path / "poisson_schedule.json").read_text())
    start = day_start_ns(date(2025, 1, 1)) // 10**6
    for i, entry in enumerate(schedule):
        assert entry["start_ms"] == start + (10 + 5 * i) * 60_000
        assert entry["end_ms"] - entry["start_ms"] == 300_000
        assert entry["train_end_ms"] == entry["start_ms"]
        assert entry["start_ms"] - entry["train_start_ms"] == 600_000
        assert entry["source"] == "fit"
        assert entry["A"] == pytest.approx(1.5, rel=0.3)


def test_nothing_is_quoted_or_filled_before_the_first_fit(root):
    """Ten minutes of training, and the first order comes after them."""
    made = walkforward(job(root, "b"), CALIBRATION, ROLLING, SPEC)
    first = day_start_ns(date(2025, 1, 1)) + 10 * NS_PER_MIN
    orders, fills = (read_table(made.path, t) for t in (schemas.ORDERS, schemas.FILLS))
    assert orders is not None
    assert fills is not None
    placed = orders.filter(pl.col("action") == "PLACE")
    assert placed["recv_ns"].to_numpy().min() == first
    assert fills["recv_ns"].to_numpy().min() > first


def test_cash_inventory_and_fees_tie_out_with_a_fold_over_the_fills(root):
    """Decimal arithmetic on the printed values, independent of the ledger: equal to the last digit at every fill."""
    for name, fill in (("c1", "poisson"), ("c2", "trade_cross")):
        made = walkforward(job(root, name), CALIBRATION, ROLLING, replace(SPEC, fill=FillSpec(fill)))
        fills, state = (read_table(made.path, t) for t in (schemas.FILLS, schemas.STATE))
        assert fills is not None
        assert state is not None
        assert fills.height > 20
        cash, held, fees = Decimal("1000"), Decimal("0.2"), Decimal(0)
        after = state.join(fills.select("recv_ns").unique(), on="recv_ns", maintain_order="left").iter_rows(named=True)
        for row in fills.iter_rows(named=True):
            price, qty, fee = (Decimal(repr(row[n])) for n in ("price", "qty", "fee"))
            assert fee == (price * qty * Decimal("0.001")).quantize(Decimal("1e-8"), ROUND_HALF_UP)
            cash, held, fees = cash - row["side"] * price * qty - fee, held + row["side"] * qty, fees + fee
            seen = next(after)
            assert (Decimal(repr(seen["cash"])), Decimal(repr(seen["inventory"]))) == (cash, held)
        figures = dict(made.metrics.select("metric", "value").iter_rows())
        assert Decimal(repr(figures["fees"])) == fees
        change = Decimal(repr(state["mtm_value"][-1])) - Decimal(repr(state["mtm_value"][0]))
        assert Decimal(repr(figures["pnl_total"])) == pytest.approx(change, abs=Decimal("1e-8"))


def test_a_run_knows_nothing_of_what_follows(tmp_path, root):
    """With everything after minute 30 replaced by another market, all that was written before it is the same."""
    synth(SynthSpec(hours=0.75, seed=77), tmp_path / "other", replace=False)
    cut = day_start_ns(date(2025, 1, 1)) + 30 * NS_PER_MIN
    days = Days.parse("20250101")
    lakes = [Lake(root / "data"), Lake(tmp_path / "other")]
    refs = [lake.find("SYNTH", days) for lake in lakes]
    depth = schemas.depth(5)
    writer = Lake(tmp_path / "data").writer(lakes[0].instrument(refs[0]), levels=5, replace=False, created_by={})
    with writer:
        for table, base in ((depth, 0), (schemas.TRADES, 10**9)):
            both = [lake.read(ref, table, table.schema.names()) for lake, ref in zip(lakes, refs, strict=True)]
            kept = [both[0].filter(pl.col("recv_ns") < cut), both[1].filter(pl.col("recv_ns") >= cut)]
            seq = pl.when(pl.col("recv_ns") < cut).then("recv_seq").otherwise(10**7 + base + pl.int_range(pl.len()))
            writer.append(table, pl.concat(kept).with_columns(recv_seq=seq))
        writer.commit()
    for fill in ("poisson", "trade_cross"):
        spec = replace(SPEC, fill=FillSpec(fill))
        paths = [walkforward(job(place, f"past-{fill}"), CALIBRATION, ROLLING, spec).path for place in (root, tmp_path)]
        for table, time in (
            (schemas.ORDERS, "recv_ns"), (schemas.FILLS, "recv_ns"), (schemas.STATE, "recv_ns"),
            (schemas.WINDOWS, "train_end_ns"), (schemas.FITS, "train_end_ns"), (schemas.POINTS, "bucket_end_ns"),
        ):  # fmt: skip
            frames = [read_table(path, table) for path in paths]
            past = [f.filter(pl.col(time) < cut) for f in frames if f is not None]
            assert past[0].height > 0
            assert past[0].equals(past[1]), table.name
            assert not frames[0].equals(frames[1]), table.name


def test_two_days_are_one_continuous_run(tmp_path):
    """A range is one run: the account and the schedule go on over midnight."""
    synth(SynthSpec(hours=24.5, seed=5, prints_per_s=3.0, frame_ms=1000), tmp_path / "data", replace=False)
    made = walkforward(job(tmp_path, "r", "20250101..20250102"), CALIBRATION, ScheduleSpec(60, 60), SPEC)
    assert made.path.parent.name == "day=20250101..20250102"
    midnight = day_start_ns(date(2025, 1, 2))
    orders, state = (read_table(made.path, t) for t in (schemas.ORDERS, schemas.STATE))
    assert orders is not None
    assert state is not None
    placed = orders.filter(pl.col("action") == "PLACE").select("recv_ns", "order_id")
    before, after = (
        placed.filter(late)["order_id"] for late in (pl.col("recv_ns") < midnight, pl.col("recv_ns") >= midnight)
    )
    assert before[-1] > 100
    assert after[0] == before[-1] + 1
    assert state.filter(pl.col("recv_ns") >= midnight)["cash"][0] != SPEC.initial_cash
    assert made.windows.filter(pl.col("start_ns") == midnight)["source"].to_list() == ["fit"]


def test_a_backtest_on_the_fit_of_the_same_day_recovers_its_intensity(root):
    """A fixed quote 3 ticks out under poisson fills is filled at A exp(-3k) per second while it rests."""
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=3), FillSpec("poisson"), initial_cash=1e6, initial_inventory=100.0,
        entry_latency_ms=0, cancel_latency_ms=0, requote_interval_ms=100,
    )  # fmt: skip
    made = backtest(job(root, "e"), spec, IntensitySource(1.5, 0.25))
    orders = read_table(made.path, schemas.ORDERS)
    assert orders is not None
    ends = orders.filter(pl.col("action").is_in(["CANCEL_ACK", "CLOSE_FILLED"]))
    exposure_s = (ends["recv_ns"] - ends["active_recv_ns"]).sum() / 1e9
    hits = ends.filter(pl.col("action") == "CLOSE_FILLED").height
    expected = 1.5 * 2.718281828 ** (-0.75)
    assert hits / exposure_s == pytest.approx(expected, abs=4 * (expected / exposure_s) ** 0.5)
