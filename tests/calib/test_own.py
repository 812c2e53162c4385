"""Own orders of a real backtest become the points that the obvious loop adds up, and give back the intensity behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib.orders import exposures, tally
from mmlab.calib.own import from_orders, from_runs
from mmlab.calib.run import Ladder
from mmlab.calib.spec import FitSpec
from mmlab.core.errors import DataError, UsageError
from mmlab.core.schemas import CURVES, FITS, POINTS
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import Result, run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference import calib as slow
from reference import orders as slow_orders
from reference.backtest import Market
from reference.markets import MS, START, busy, cases, instrument, intensity, still, tape

FIT = FitSpec(min_exposure_s=0.5)
SHARED = ("log_likelihood", "aic", "deviance", "dispersion", "p_value")


def simulate(market: Market, spec: BacktestSpec) -> Result:
    return run(tape(market), spec, intensity(market))


def quotes(half: float, fill: FillSpec | None = None, **flags: Any) -> BacktestSpec:
    flags = {"qty": 0.005, "account": "margin", "maker_fee": 0.0, "taker_fee": 0.0, **flags}
    return BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=half), fill or FillSpec(), **flags)


BUSY = {
    "partial": quotes(2.0, requote_interval_ms=50, entry_latency_ms=30, cancel_latency_ms=300),
    "expiring": quotes(2.5, FillSpec("poisson"), ttl_ms=400, cancel_latency_ms=100),
    "near": quotes(0.5, post_only=False, entry_latency_ms=170),
}


def arrays(holes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([hole[i] for hole in holes], np.int64) for i in (0, 1))


def own(market: Market, got: Result, holes: Sequence[tuple[int, int]] = (), **more: Any) -> Ladder:
    fit = more.pop("fit", FIT)
    return from_orders(got.orders, got.fills, got.state, instrument(market), fit, holes=arrays(holes), **more)


def assert_points(market: Market, found: Ladder, rows: list[dict], low: float, high: float, fit: FitSpec) -> None:
    """The rows of `points`, side by side with the sums over the obvious loop's orders."""
    lot = Fraction(market.lot)
    POINTS.check(found.points)
    span = (min(r["active_ns"] for r in rows), max(r["end_ns"] for r in rows) + 1)
    wanted = sorted({r["distance2"] / 2 for r in rows if low <= r["distance2"] / 2 <= high})
    got = iter(found.points.to_dicts())
    for side in ("bid", "ask", "both"):
        for delta in wanted:
            sides = {"bid": (1,), "ask": (-1,), "both": (1, -1)}[side]
            cells = [slow_orders.cell(rows, s, delta, span) for s in sides]
            exposure, hits, lots = (sum(cell[i] for cell in cells) for i in range(3))
            seconds, qty = exposure / 1e9, float(lots * lot)
            assert next(got) == {
                "bucket_start_ns": span[0],
                "bucket_end_ns": span[1],
                "side": side,
                "delta_ticks": float(delta),
                "count_rule": "first_hit",
                "exposure_ns": exposure,
                "exposure_s_total": seconds,
                "fills_total": hits,
                "ring_fills": hits,
                "qty_total": qty,
                "lambda_total": hits / seconds if exposure else None,
                "lambda_qty": qty / seconds if exposure else None,
                "usable": exposure > 0 and seconds >= fit.min_exposure_s,
            }
    assert next(got, None) is None


@settings(max_examples=15, deadline=None)
@given(case=cases(60), low=st.sampled_from([0.0, 0.5, -5.0]), high=st.sampled_from([None, 2.0, 50.0]))
def test_points_of_any_backtest_equal_the_sums_of_the_obvious_loop(case, low, high):
    """Exposure, first fills, lots and rates at each distance and side; no orders or none there is a DataError."""
    market, spec = case
    got = simulate(market, spec)
    rows, _ = slow_orders.exposures(got.orders, got.fills, got.state, market.tick, market.lot, [])
    most = math.inf if high is None else high
    if not any(low <= row["distance2"] / 2 <= most for row in rows):
        with pytest.raises(DataError, match="was at risk" if rows else "no order was ever at risk"):
            own(market, got, min_delta_ticks=low, max_delta_ticks=high)
        return
    found = own(market, got, min_delta_ticks=low, max_delta_ticks=high)
    assert found.n_intervals == len(rows)
    assert_points(market, found, rows, low, most, FIT)


@pytest.mark.parametrize("name", BUSY)
def test_a_busy_market_with_holes_gives_the_points_of_the_loop_and_the_curve_of_the_points(name):
    """The fit is poisson_mle of hits that share nothing, as a general optimizer finds it."""
    market = busy(1)
    got = simulate(market, BUSY[name])
    holes = [(START + i * 3_000 * MS, START + i * 3_000 * MS + 700 * MS) for i in range(9)]
    rows, _ = slow_orders.exposures(got.orders, got.fills, got.state, market.tick, market.lot, holes)
    found = own(market, got, holes)
    assert_points(market, found, rows, 0.0, 50.0, FIT)
    for table, frame in ((FITS, found.fits), (CURVES, found.curves)):
        table.check(frame)
    usable = found.points.filter((pl.col("side") == "both") & pl.col("usable"))
    row = found.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    assert (row["train_start_ns"], row["train_end_ns"]) == usable.row(0)[:2]
    assert row["points_used"] == usable.height
    assert row["ring_excess"] is None
    whole = found.points.filter(pl.col("side") == "both")["exposure_s_total"].sum()
    assert row["exposure_s"] == pytest.approx(whole / 2, abs=1e-7)
    if row["A"] is not None:
        x, T, N = (usable[c].to_numpy().astype(float) for c in ("delta_ticks", "exposure_s_total", "fills_total"))
        A, k, likelihood = slow.best("exponential", slow.Points(x, T, N, N), N, nested=False)
        assert (row["A"], row["k"], row["log_likelihood"]) == pytest.approx((A, k, likelihood), rel=1e-4)


def test_blocks_of_time_are_sixteenths_of_the_orders_span():
    """From the first activation to the last end; a hole from just after its start over the next six leaves ten."""
    market = busy(3)
    got = simulate(market, BUSY["partial"])
    whole = own(market, got, fit=FitSpec(min_exposure_s=0.0))
    start, end = whole.fits.row(0)[:2]
    both = (pl.col("side") == "both") & (pl.col("family") == "exponential")
    assert whole.fits.filter(both)["blocks"].to_list() == [16]
    holed = own(market, got, [(start + 1, start + 7 * (end - start) // 16 + 9)], fit=FitSpec(min_exposure_s=0.0))
    assert holed.fits.filter(both)["blocks"].to_list() == [10]


# ---- runs side by side


def measured(market: Market, halves: Sequence[float], seed: int, fills: Intensity | None = None) -> list:
    """(distance, exposures) of one run a distance, each with fills of its own."""
    runs = []
    for i, half in enumerate(halves):
        spec = quotes(half, FillSpec("poisson", seed=1_000 * seed + i), requote_interval_ms=500)
        got = run(tape(market), spec, fills or intensity(market))
        runs.append((half, exposures(got.orders, got.fills, got.state, instrument(market))))
    return runs


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_side_by_side_have_the_points_of_each_run_alone(seed):
    """At the distance that was asked for, though the mid moved on and prices were rounded; one may have no orders."""
    market, halves = busy(seed), (0.5, 1.0, 2.5, 4.0)
    runs = [
        (half, f if half != 2.5 else f.clear()) for half, f in measured(market, halves, 1, Intensity.constant(5.0, 0.3))
    ]
    found = from_runs(runs, instrument(market), FIT)
    POINTS.check(found.points)
    assert found.n_intervals == sum(frame.height for _, frame in runs)
    start = min(frame["active_ns"].min() for _, frame in runs if frame.height)
    end = max(frame["end_ns"].max() for _, frame in runs if frame.height) + 1
    assert found.points["bucket_start_ns"].unique().to_list() == [start]
    assert found.points["bucket_end_ns"].unique().to_list() == [end]
    for delta, frame in runs:
        alone = tally(
            frame, min_delta_ticks=-1e9, max_delta_ticks=None, origin_ns=start, bucket_ns=end - start, n_buckets=1
        )
        for side, sides in (("bid", [0]), ("ask", [1]), ("both", [0, 1])):
            row = found.points.row(by_predicate=(pl.col("side") == side) & (pl.col("delta_ticks") == delta), named=True)
            want = [int(getattr(alone, name)[:, sides].sum()) for name in ("exposure_ns", "hits", "lots")]
            assert [row["exposure_ns"], row["fills_total"], row["ring_fills"]] == [want[0], want[1], want[1]]
            assert row["qty_total"] == float(want[2] * Fraction(market.lot))
            assert row["usable"] == (want[0] / 1e9 >= FIT.min_exposure_s)
            assert row["lambda_total"] == (want[1] / (want[0] / 1e9) if want[0] else None)


def test_runs_over_one_tape_state_no_likelihood():
    """The same prints filled the orders of all runs: what independent counts alone have is null, the rest is there."""
    found = from_runs(measured(busy(1), (1.0, 2.0, 4.0), 1, Intensity.constant(5.0, 0.3)), instrument(busy(1)), FIT)
    FITS.check(found.fits)
    assert all(found.fits[name].null_count() == found.fits.height for name in SHARED)
    row = found.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    assert None not in (row["A"], row["k"], row["se_k"], row["se_k_robust"], row["k_low_robust"])
    assert set(found.curves["family"]) == {"exponential", "power_law", "monotone"}


def test_poisson_fills_at_several_distances_give_back_the_intensity_that_made_them():
    """A still book, five runs a seed with fills of their own: A and k in either 95% interval for 16 of 20 seeds."""
    A, k, market, inside = 1.5, 0.25, still(600), np.zeros((2, 2))
    for seed in range(20):
        runs = measured(market, (1.0, 2.0, 3.0, 5.0, 8.0), seed, Intensity.constant(A, k))
        found = from_runs(runs, instrument(market), FitSpec())
        row = found.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
        assert row["ok"]
        for i, (name, truth) in enumerate((("A", A), ("k", k))):
            for j, kind in enumerate(("", "_robust")):
                inside[i, j] += row[f"{name}_low{kind}"] <= truth <= row[f"{name}_high{kind}"]
    assert (inside >= 16).all(), inside


# ---- what is refused


def test_rings_are_not_for_orders():
    """nested_mle is for probes that stand at all distances at once."""
    market = busy(1)
    got = simulate(market, BUSY["partial"])
    with pytest.raises(UsageError, match="nested_mle"):
        own(market, got, fit=FitSpec("nested_mle"))
    with pytest.raises(UsageError, match="nested_mle"):
        from_runs(measured(market, (1.0,), 1), instrument(market), FitSpec("nested_mle"))


def test_no_order_at_all_and_none_within_the_bounds_are_told_apart():
    """Each with what to do about it."""
    market = busy(1)
    got = simulate(market, BUSY["partial"])
    with pytest.raises(DataError, match="no order was at risk from 40 to 50 ticks") as caught:
        own(market, got, min_delta_ticks=40.0)
    assert "--min-delta-ticks" in caught.value.remedy
    with pytest.raises(DataError, match="no order was at risk from 40 to inf ticks"):
        own(market, got, min_delta_ticks=40.0, max_delta_ticks=None)
    nothing = Result(got.orders.clear(), got.fills.clear(), got.state)
    with pytest.raises(DataError, match="no order was ever at risk"):
        own(market, nothing)
    empty = exposures(nothing.orders, nothing.fills, nothing.state, instrument(market))
    with pytest.raises(DataError, match="no order was ever at risk"):
        from_runs([(1.0, empty), (2.0, empty)], instrument(market), FIT)


def test_a_bound_of_nothing_is_said_as_it_is():
    """--max-delta-ticks 0 asks for orders at the mid: the message says 0, not inf."""
    market = still(20)
    with pytest.raises(DataError, match="from 0 to 0 ticks"):
        own(market, simulate(market, BUSY["partial"]), max_delta_ticks=0.0)
