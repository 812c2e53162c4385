"""What is measured on one seed, one function a part: rows of `fits` beside the truth that they should cover."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl

from benchmarks.coverage import markets
from mmlab.calib.families import fits
from mmlab.calib.fit import curves
from mmlab.calib.own import from_orders
from mmlab.calib.points import BLOCKS, windows
from mmlab.calib.run import Tape, bucketed, ladder, rolling
from mmlab.calib.schedule import dispersion
from mmlab.calib.spec import DEFAULT_DELTAS, FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.schemas import COUNT_RULES, FIT_METHODS
from mmlab.core.spans import NS_PER_MIN
from mmlab.sim import events
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.tape.synth import chunks

COUNTS = ("first_hit", "sweeps")
NESTED = "nested_mle"
PRINTS_PER_ORDER = (1, 3, 10, 30)
LONG_H, LONG_PRINTS_PER_S = 24.0, 12.0  # a million prints
SKEWED = QuoteSpec("inventory_skew", half_spread_ticks=6.0, skew_ticks=1.0)
HELD = QuoteSpec("ladder", deltas=tuple(float(delta) for delta in DEFAULT_DELTAS))
AT_ONCE: dict[str, Any] = {
    "account": "margin", "entry_latency_ms": 0, "cancel_latency_ms": 0, "maker_fee": 0.0, "requote_interval_ms": 1,
}  # fmt: skip
INSIDE, ACROSS = ScheduleSpec(5, 5), ScheduleSpec(20, 10)  # spans within a piece, and over two of them


def labelled(frame: pl.DataFrame, **values: object) -> pl.DataFrame:
    """The same rows with constant columns; truths are called true_A and true_k."""
    return frame.with_columns(pl.lit(value).alias(name) for name, value in values.items())


def quick(tape: Tape, count: str, method: str) -> pl.DataFrame:
    """`ladder`'s rows of the exponential without its other tables, and the burstiness of the nearest hits."""
    start, end = tape.span_ns
    probes, how = ProbeSpec(count=count), FitSpec(method)
    sums, _ = bucketed(tape, probes, start, -(-(end - start + 1) // BLOCKS))
    window = windows(sums, np.array([0]), np.array([sums.covered_ns.size]))
    spans = np.array([start]), np.array([end + 1])
    shown = fits(curves(window, probes.deltas, how), window, spans, how, count)
    return labelled(shown, burstiness=float(dispersion(window)[0]))


def constant(seed: int) -> pl.DataFrame:
    """Half an hour of constant (A, k): every family, estimator and side."""
    tape = markets.tape(markets.spec(seed))
    made = [ladder(tape, ProbeSpec(count=c), FitSpec(m)).fits for c in COUNTS for m in FIT_METHODS]
    return labelled(pl.concat(made), seed=seed, true_A=markets.A, true_k=markets.K)


def changing(seed: int) -> pl.DataFrame:
    """An hour whose (A, k) changes every ten minutes: windows inside one piece, and across two."""
    market = markets.spec(seed, len(markets.PIECES) * markets.PIECE_MIN / 60, ak_schedule=markets.PIECES)
    tape = markets.tape(market)
    jobs = [("inside", count, INSIDE) for count in COUNTS] + [("across", "sweeps", ACROSS)]
    parts = []
    for what, count, schedule in jobs:
        found = rolling(tape, ProbeSpec(count=count), FitSpec(NESTED), schedule).fits
        found = found.filter(pl.col("side") == "both")
        spans = [
            tuple(int((row[name] - market.start_ns) // NS_PER_MIN) for name in ("train_start_ns", "train_end_ns"))
            for row in found.iter_rows(named=True)
        ]
        truths = [truth(a, b) for a, b in spans]
        columns = [
            pl.Series(f"true_{name}", values) for name, values in zip("Ak", zip(*truths, strict=True), strict=True)
        ]
        first = pl.Series("piece", [a // markets.PIECE_MIN for a, _ in spans])
        parts.append(labelled(found.with_columns(first, *columns), what=what))
    return pl.concat(parts)


def truth(start_min: int, end_min: int) -> tuple[float, float]:
    """(A, k) of whole minutes [start, end) of the changing market: a piece's own, or the mixture's."""
    last = -(-end_min // markets.PIECE_MIN)
    pieces = [(A, k) for _, A, k in markets.PIECES[start_min // markets.PIECE_MIN : last]]
    return pieces[0] if len(pieces) == 1 else markets.mixture(pieces)


def bursts(seed: int) -> pl.DataFrame:
    """Markets that are quiet or busy, for each length of stay."""
    parts = []
    for stay_s, hours in markets.BURSTS:
        market = markets.bursting(seed, stay_s, hours)
        tape = markets.tape(market)
        for count, method in itertools.product(COUNTS, (NESTED, "poisson_mle")):
            found = quick(tape, count, method).filter(pl.col("side") == "both")
            known = {"true_A": markets.A, "true_k": markets.K, "realised_A": markets.realised(market)}
            parts.append(labelled(found, stay_s=stay_s, hours=hours, **known))
    return pl.concat(parts)


def sweeps(seed: int) -> pl.DataFrame:
    """The same orders with ever more prints each, under every counting rule."""
    parts = []
    for prints in PRINTS_PER_ORDER:
        tape = markets.tape(markets.spec(seed, prints_per_s=prints * markets.orders_per_s()))
        for count in COUNT_RULES:
            found = quick(tape, count, NESTED).filter(pl.col("side") == "both")
            parts.append(labelled(found, seed=seed, prints_per_order=prints, prints=tape.trades.height))
    return pl.concat(parts)


def million(seed: int) -> pl.DataFrame:
    """A day of a million prints under every estimator."""
    tape = markets.tape(markets.spec(seed, LONG_H, prints_per_s=LONG_PRINTS_PER_S))
    made = [quick(tape, count, method) for count in COUNTS for method in FIT_METHODS]
    both = pl.concat(made).filter(pl.col("side") == "both")
    return labelled(both, prints=tape.trades.height, true_A=markets.A, true_k=markets.K)


def own(seed: int) -> pl.DataFrame:
    """Half an hour in which orders are filled by the clocks of a known (A, k), calibrated on those orders: one a side
    that goes whenever the mid moves, and a ladder whose levels take over orders as it does."""
    market = markets.spec(seed)
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(market), strict=True))
    tape = events.tape(depth, trades, market.instrument)
    parts = []
    for quotes in (SKEWED, HELD):
        spec = BacktestSpec(quotes, FillSpec("poisson", seed=seed), **AT_ONCE)
        found = run(tape, spec, Intensity.constant(markets.A, markets.K))
        made = from_orders(found.orders, found.fills, found.state, market.instrument, FitSpec()).fits
        parts.append(labelled(made.filter(pl.col("side") == "both"), quotes=quotes.model, fills=found.fills.height))
    return labelled(pl.concat(parts), seed=seed, true_A=markets.A, true_k=markets.K)
