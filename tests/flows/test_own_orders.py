"""Intensity from a run's own orders: of any backtest or walk-forward, with the lake or without, and the truth."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmlab.calib.orders import exposures
from mmlab.calib.own import from_orders
from mmlab.calib.probes import holes
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.errors import DataError, LakeError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_MIN, NS_PER_S, Days
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.calibrate import CalibrateSpec, LadderResult, calibrate_ladder
from mmlab.flows.own_orders import Source, calibrate_orders
from mmlab.flows.run import Job
from mmlab.flows.schedule import calibrate_schedule
from mmlab.flows.synth import synth
from mmlab.flows.walkforward import walkforward
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake
from mmlab.store.runs import read_json, read_table
from mmlab.tape.synth_spec import SynthSpec

A, K = 1.5, 0.25
MARKET = SynthSpec(symbol="X", hours=0.5, frame_ms=500, levels=1, seed=6)
DAYS = Days.parse("20250101")
STRATEGY = BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=3), FillSpec(), account="margin", initial_cash=0.0)
OWN = (schemas.ORDERS, schemas.FILLS, schemas.STATE)


def job(root: Path, run_id: str, symbol: str = "X") -> Job:
    return Job(symbol, DAYS, data_root=root / "data", out_root=root / "out", run_id=run_id)


def gapped(root: Path, symbol: str, from_ns: int, to_ns: int) -> None:
    """The market once more under another name, with a declared hole in its trades."""
    lake = Lake(root / "data")
    refs = lake.find("X", DAYS)
    hole = {"from_ns": from_ns, "to_ns": to_ns, "run_id": 1, "stream": "trade", "first_missing": None,
            "last_missing": None, "reason": "test"}  # fmt: skip
    instrument = Instrument("synth", symbol, MARKET.tick_size, MARKET.lot_size)
    writer = lake.writer(instrument, levels=1, replace=False, created_by={})
    with writer:
        for table in (schemas.depth(1), schemas.TRADES):
            writer.append(table, lake.read(refs, table, table.schema.names()))
        writer.append(schemas.GAPS, pl.DataFrame([hole], schema=schemas.GAPS.schema))
        writer.commit()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market, the same with a hole of five minutes, and a run of each kind: bt and gap, wf, ladder, steps."""
    path = tmp_path_factory.mktemp("own")
    synth(MARKET, path / "data", replace=False)
    gapped(path, "HOLE", MARKET.start_ns + 10 * NS_PER_MIN, MARKET.start_ns + 15 * NS_PER_MIN)
    backtest(job(path, "bt"), STRATEGY, IntensitySource())
    backtest(job(path, "gap", "HOLE"), STRATEGY, IntensitySource())
    calibration = CalibrateSpec(ProbeSpec(), FitSpec())
    quoting = replace(STRATEGY, quote=QuoteSpec(sigma=0.3), fill=FillSpec("poisson"), maker_fee=0.0)
    walkforward(job(path, "wf"), calibration, ScheduleSpec(10, 5), quoting)
    calibrate_ladder(job(path, "ladder"), calibration)
    calibrate_schedule(job(path, "steps"), calibration, ScheduleSpec(10, 5))
    return path


def source(root: Path, run: str, run_id: str, out: Path | None = None) -> Source:
    return Source(run, root / "data", out or root / "out", run_id=run_id)


def orders(given: Source, low: float = 0.0, high: float | None = 50.0, fit: FitSpec | None = None) -> LadderResult:
    return calibrate_orders(given, fit or FitSpec(min_exposure_s=1.0), low, high)


def own(place: Path) -> list[pl.DataFrame]:
    """A run's orders, fills and state."""
    return [frame for table in OWN if (frame := read_table(place, table)) is not None]


PLACES = {"bt": "backtest/symbol=X/day=20250101/run=bt", "wf": "walkforward/symbol=X/day=20250101/run=wf"}


@pytest.mark.parametrize("run", PLACES)
def test_any_run_with_orders_is_calibrated_by_its_id_and_by_its_path(root, run):
    """Both give the same tables, those that the engine's own orders make, and lie beside other calibrations."""
    place = root / "out" / PLACES[run]
    named = orders(source(root, run, f"{run}-by-id"))
    by_path = orders(source(root, str(place), f"{run}-by-path"))
    assert named.path == root / f"out/calibration/method=orders/symbol=X/day=20250101/run={run}-by-id"
    assert named.points.equals(by_path.points)
    assert named.fits.equals(by_path.fits)
    instrument = Instrument(**read_json(place / "manifest.json")["instrument"])
    whole = from_orders(*own(place), instrument, FitSpec(min_exposure_s=1.0))
    for table, frame in ((schemas.POINTS, whole.points), (schemas.FITS, whole.fits), (schemas.CURVES, whole.curves)):
        got = read_table(named.path, table)
        assert got is not None
        assert got.equals(frame), table.name
    assert whole.points["fills_total"].sum() > 200
    assert sorted(p.name for p in named.path.iterdir()) == [
        "curves.parquet", "fits.parquet", "manifest.json", "points.parquet", "poisson_fit.json",
    ]  # fmt: skip


@pytest.mark.parametrize("run", PLACES)
def test_the_manifest_names_the_run_that_was_calibrated(root, run):
    """Its folder, its symbol and days, the days' checksums where the lake is here, and the bounds."""
    made = orders(source(root, run, f"{run}-manifest"), 0.5, 20.0)
    manifest = read_json(made.path / "manifest.json")
    before = read_json(root / "out" / PLACES[run] / "manifest.json")
    assert manifest["kind"] == "calibration/orders"
    spec = manifest["spec"]
    assert (spec["method"], Path(spec["of"])) == ("orders", root / "out" / PLACES[run])
    assert (spec["symbol"], spec["day"]) == ("X", "20250101")
    assert (spec["min_delta_ticks"], spec["max_delta_ticks"]) == (0.5, 20.0)
    assert manifest["inputs"] == before["inputs"]
    assert manifest["instrument"] == before["instrument"]
    assert manifest["truth"] == before["truth"]
    fit = read_json(made.path / "poisson_fit.json")
    assert (fit["method"], fit["symbol"], fit["tick_size"]) == ("orders", "X", "0.01")
    assert fit["deltas"] == made.points["delta_ticks"].unique().sort().to_list()


def test_the_manifest_has_no_probes(root):
    """Orders were measured where they were: a list of other distances, dwell and mid moves says what is not so."""
    made = orders(source(root, "bt", "no-probes"))
    spec = read_json(made.path / "manifest.json")["spec"]
    assert "dwell_ms" not in spec
    assert spec.get("deltas") in (None, made.points["delta_ticks"].unique().sort().to_list())


def test_an_order_is_measured_at_its_distance_from_activation_to_its_first_end(root):
    """Exposure and hits of a fixed quote at 3 ticks, from the run's tables alone."""
    made = orders(source(root, "bt", "by-hand"))
    steps, fills, state = own(root / "out" / PLACES["bt"])
    ends = {
        row["order_id"]: row["recv_ns"]
        for row in steps.filter(pl.col("action").is_in(["CANCEL_ACK", "FILL"])).reverse().iter_rows(named=True)
    }
    refused = set(steps.filter(pl.col("action") == "REJECT")["order_id"])
    placed = steps.filter((pl.col("action") == "PLACE") & ~pl.col("order_id").is_in(refused))
    last = state["recv_ns"].max()
    exposure = sum(
        max(ends.get(row["order_id"], last) - row["active_recv_ns"], 0) for row in placed.iter_rows(named=True)
    )
    both = made.points.filter(pl.col("side") == "both")
    assert both["exposure_ns"].sum() == exposure
    assert both["fills_total"].sum() == fills["order_id"].n_unique()
    near = both.filter(pl.col("delta_ticks") == 3)
    assert near["exposure_ns"][0] > 0.8 * exposure, "most orders rest where they were meant to"


# ---- without the lake

NO_LAKE = "the days are not in the lake: time at risk in declared holes is not taken off"


def test_without_the_lake_it_works_and_warns(root, tmp_path):
    """A run may be looked at elsewhere: no inputs, no holes, and a sentence about them."""
    place = shutil.copytree(root / "out" / PLACES["wf"], tmp_path / "taken/run=wf")
    made = orders(Source(str(place), tmp_path / "nothing", tmp_path / "out", run_id="away"))
    assert made.warnings[0] == NO_LAKE
    manifest = read_json(made.path / "manifest.json")
    assert (manifest["inputs"], manifest["warnings"]) == ([], made.warnings)
    assert manifest["spec"]["of"] == str(place)
    here = orders(Source(str(place), root / "data", tmp_path / "out", run_id="here"))
    assert here.warnings == made.warnings[1:]
    assert made.points.equals(here.points)


def test_holes_are_taken_off_where_the_lake_is_here(root, tmp_path):
    """Five minutes of unknown trades: their time at risk is gone, and so are the fills in them."""
    here = orders(source(root, "gap", "gap-here"))
    away = orders(
        Source(str(root / "out/backtest/symbol=HOLE/day=20250101/run=gap"), tmp_path / "no", tmp_path / "out")
    )
    assert NO_LAKE in away.warnings
    assert NO_LAKE not in here.warnings
    tables = own(root / "out/backtest/symbol=HOLE/day=20250101/run=gap")
    instrument = Instrument("synth", "HOLE", MARKET.tick_size, MARKET.lot_size)
    from_ns, to_ns = (MARKET.start_ns + n * NS_PER_MIN for n in (10, 15))
    gaps = pl.DataFrame({"from_ns": [from_ns], "to_ns": [to_ns], "stream": ["trade"]})
    rows = [exposures(*tables, instrument, known) for known in (holes(gaps), (np.empty(0, int), np.empty(0, int)))]
    sums = [
        made.points.filter(pl.col("side") != "both")["exposure_ns", "fills_total"].sum().row(0) for made in (here, away)
    ]
    assert sums == [(each["exposure_ns"].sum(), each["hit"].sum()) for each in rows]
    hidden = rows[1].filter(pl.col("hit_ns").is_between(from_ns, to_ns, closed="none"))
    assert sums[1][1] - sums[0][1] == hidden.height > 20
    lost_s = (sums[1][0] - sums[0][0]) / NS_PER_S
    assert 300 < lost_s <= 2 * 300, "two sides, each at risk for most of the hole"


# ---- what cannot be calibrated


@pytest.mark.parametrize("run", ["ladder", "steps"])
def test_a_run_without_orders_is_refused(root, run, tmp_path):
    """A calibration has none: the message names its folder and says what to give."""
    given = Source(str(next((root / "out").rglob(f"run={run}"))), root / "data", tmp_path)
    with pytest.raises(LakeError, match=rf"run={run} has no orders") as caught:
        orders(given)
    assert "mmlab backtest" in caught.value.remedy
    assert "walkforward" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_an_unknown_run_is_refused_with_the_latest_ones(root):
    """There is none of that name."""
    with pytest.raises(LakeError, match="no run 'nothing' under") as caught:
        orders(source(root, "nothing", "x"))
    assert "wf" in caught.value.remedy


def test_a_name_that_two_runs_have_needs_a_path(root, tmp_path):
    """The paths are in the remedy."""
    shutil.copytree(root / "out/backtest", tmp_path / "backtest")
    shutil.copytree(root / "out" / PLACES["bt"], tmp_path / "walkforward/symbol=X/day=20250101/run=bt")
    with pytest.raises(UsageError, match="2 runs are named bt") as caught:
        orders(source(root, "bt", "x", tmp_path))
    assert str(tmp_path / "walkforward/symbol=X/day=20250101/run=bt") in caught.value.remedy


def test_distances_at_which_no_order_was_are_told(root, tmp_path):
    """The bounds and the flags are named, and nothing is written."""
    place = str(root / "out" / PLACES["bt"])
    with pytest.raises(DataError, match="no order was at risk from 30 to 40 ticks from the mid") as caught:
        orders(Source(place, root / "data", tmp_path), 30.0, 40.0)
    assert "--min-delta-ticks" in caught.value.remedy
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_bounds_leave_the_others_as_they_were(root):
    """Points between the bounds are those of all orders."""
    whole, some = orders(source(root, "wf", "whole")), orders(source(root, "wf", "some"), 2.0, 4.5)
    inside = pl.col("delta_ticks").is_between(2.0, 4.5)
    columns = ("side", "delta_ticks", "exposure_ns", "fills_total")
    assert whole.points["delta_ticks"].n_unique() > some.points["delta_ticks"].n_unique()
    assert some.points.select(columns).equals(whole.points.filter(inside).select(columns))


def test_nested_estimates_are_refused(root, tmp_path):
    """Different distances were different orders: they share no prints, and have no rings."""
    given = Source(str(root / "out" / PLACES["bt"]), root / "data", tmp_path)
    with pytest.raises(UsageError, match="--fit-method nested_mle is for probes") as caught:
        orders(given, fit=FitSpec("nested_mle"))
    assert "poisson_mle" in caught.value.remedy
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_run_without_any_resting_order_is_told(root):
    """Quotes too far to be sent, like those of a spot account without money, leave nothing to measure."""
    backtest(job(root, "poor"), replace(STRATEGY, account="spot"), IntensitySource())
    with pytest.raises(DataError, match="no order was ever at risk"):
        orders(source(root, "poor", "x"))


def test_a_run_under_another_tick_size_keeps_it(root, tmp_path):
    """Distances are counted in the ticks that the run was made with."""
    given = replace(job(root, "half"), tick_size="0.005", out_root=tmp_path)
    backtest(given, replace(STRATEGY, quote=QuoteSpec("fixed_spread", half_spread_ticks=6)), IntensitySource())
    made = orders(source(root, "half", "x", tmp_path))
    assert read_json(made.path / "poisson_fit.json")["tick_size"] == "0.005"
    at = made.points.filter(pl.col("side") == "both").sort("exposure_ns")["delta_ticks"][-1]
    assert at == 6.0


# ---- the truth


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> LadderResult:
    """Two hours of a mid that stands still, quoted by avellaneda_stoikov: a tick away for each order held."""
    path = tmp_path_factory.mktemp("still")
    spec = SynthSpec(symbol="STILL", hours=2, frame_ms=1000, levels=1, seed=9, mid_moves_per_s=0.0)
    synth(spec, path / "data", replace=False)
    quotes = QuoteSpec(gamma=0.1, sigma=0.3, horizon_s=1.0)  # 0.1 * 0.3^2 / tick = 0.9 ticks an order
    strategy = BacktestSpec(
        quotes, FillSpec("poisson", seed=3), account="margin", initial_cash=0.0, maker_fee=0.0, taker_fee=0.0
    )
    backtest(job(path, "as", "STILL"), strategy, IntensitySource(A, K))
    return orders(source(path, "as", "fit"))


def test_inventory_gives_several_distances(still):
    """One run is enough for a curve."""
    both = still.points.filter((pl.col("side") == "both") & (pl.col("fills_total") > 20))
    assert both.height >= 6
    assert still.points["fills_total"].sum() > 2000


def test_poisson_fills_on_a_still_mid_come_at_the_true_rate_of_each_distance(still):
    """Nothing moves, so an order's distance is the same all its life: hits are Poisson(exposure A exp(-k delta)).

    That holds whatever the strategy does, since it does not see the fills that are to come: 4 errors a cell.
    """
    checked = 0
    for row in still.points.filter(pl.col("side") != "both").iter_rows(named=True):
        expected = row["exposure_s_total"] * A * math.exp(-K * row["delta_ticks"])
        if expected > 10:
            assert abs(row["fills_total"] - expected) < 4 * math.sqrt(expected), row
            checked += 1
    assert checked >= 8


def test_the_fitted_curve_is_the_one_that_made_the_fills(still):
    """ln A and k of both sides are within 3 of their own errors, by Fisher's and by the robust ones."""
    rows = still.fits.filter(pl.col("family") == "exponential").iter_rows(named=True)
    for row in rows:
        assert row["ok"], row["reason"]
        for suffix in ("", "_robust"):
            assert abs(math.log(row["A"] / A)) < 3 * row[f"se_log_A{suffix}"], (row["side"], suffix)
            assert abs(row["k"] - K) < 3 * row[f"se_k{suffix}"], (row["side"], suffix)
        assert row["se_k"] < 0.1 * K
    both = still.fits.filter((pl.col("side") == "both") & pl.col("aic").is_not_null())
    best = both.filter(pl.col("family").is_in(["exponential", "power_law"])).sort("aic")["family"][0]
    assert best == "exponential"


def test_a_fixed_quote_has_one_distance_and_no_curve(tmp_path):
    """The rate at that distance is right all the same; the fit says why it is none."""
    spec = SynthSpec(symbol="STILL", hours=1, frame_ms=1000, levels=1, seed=9, mid_moves_per_s=0.0)
    synth(spec, tmp_path / "data", replace=False)
    fixed = replace(STRATEGY, fill=FillSpec("poisson", seed=5), maker_fee=0.0)
    backtest(job(tmp_path, "bt", "STILL"), fixed, IntensitySource(A, K))
    made = orders(source(tmp_path, "bt", "fit"))
    (row,) = made.points.filter(pl.col("side") == "both").iter_rows(named=True)
    expected = row["exposure_s_total"] * A * math.exp(-K * 3)
    assert abs(row["fills_total"] - expected) < 4 * math.sqrt(expected)
    assert made.warnings[0].startswith("no curve: fewer than two distances with enough exposure")
    fit = read_json(made.path / "poisson_fit.json")
    assert (fit["A"], fit["k"], fit["ok"]) == (None, None, False)


def test_a_warning_names_no_flag_that_the_command_does_not_have(root):
    """A run's orders are where they are: other distances need another run."""
    made = orders(source(root, "bt", "one-distance"), 3.0, 3.0)
    assert made.warnings
    assert "--deltas" not in " ".join(made.warnings)
