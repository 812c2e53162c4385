"""The metrics of one run of a sweep from sums alone: the figures of the plain backtest, in a fraction of its time."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_S
from mmlab.report import over_time
from mmlab.report.exact import Ints, Trades
from mmlab.report.metrics import Course, Sent, figures, profit_of
from mmlab.sim import layout as at
from mmlab.sim.events import Tape
from mmlab.sim.fast import Sums, sums
from mmlab.sim.intensity import Intensity
from mmlab.sim.spec import BacktestSpec

TOLD_APART = 2**49  # below it a decimal in a table says which whole number it was made from


def quick_metrics(tape: Tape, spec: BacktestSpec, intensity: Intensity) -> pl.DataFrame | None:
    """What `metrics` says of the tables of this run; None where it takes the plain backtest to know."""
    found = sums(tape, spec, intensity)
    if found is None:
        return None
    trades = trades_of(found.fills)
    lots, first_mid2 = found.first
    held = np.cumsum(np.concatenate([[lots], trades.side * trades.lots]))
    if max(int(np.abs(column).max(initial=0)) for column in (found.fills[:, 1:], held)) >= TOLD_APART:
        return None
    earned = profit_of(trades, lots, first_mid2, found.last_mid2, tape.instrument)
    sent = Sent(found.placed, found.cancels, found.filled, found.waited_ns, found.filled)
    return figures(trades, earned, sent, course_of(found, trades.ns, held, tape.instrument), tape.instrument)


def trades_of(fills: Ints) -> Trades:
    """The kernel's rows by column."""
    ns, side, ticks, lots, mid2, fee = (np.ascontiguousarray(fills[:, i]) for i in (0, 2, 3, 4, 7, 5))
    return Trades(ns, side, ticks, lots, mid2, fee, np.array(at.LIQUIDITY)[fills[:, 6]] == "maker")


def course_of(found: Sums, fill_ns: Ints, held: Ints, instrument: Instrument) -> Course:
    """The account over time; `held` lots from the first row of `state` and from each fill on."""
    first_ns, last_ns = found.span_ns
    last, most = instrument.lots.to_decimal(np.array([held[-1], np.abs(held).max()])).tolist()
    quoted = zip(("bid", "ask", "both"), found.quoted_ns, strict=True)
    return Course(
        over_time.sharpe_of(found.looks, instrument),
        over_time.fall(*found.fall, instrument),
        found.below_ns / NS_PER_S,
        {name: over_time.part(ns, last_ns - first_ns) for name, ns in quoted},
        last,
        most,
        over_time.Positions.since(np.concatenate([[first_ns], fill_ns]), held, last_ns, instrument),
        last_ns - first_ns,
    )
