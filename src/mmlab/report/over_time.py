"""Figures of the account over time. A row of `state` holds until the next one, and the last one for no time at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.report.exact import Ints, dot, quantum_grid, whole

MINUTES_A_YEAR = 525_960  # 365.25 days
ROOT = 2**31  # below it squares can be counted
DENSE = 1 << 20  # positions, in lots, that are counted in a table of all that lie between the least and the largest


def held_ns(state: pl.DataFrame) -> Ints:
    """How long each row of `state` held."""
    return np.diff(state["recv_ns"].to_numpy(), append=state["recv_ns"][-1])


def share(state: pl.DataFrame, holds: pl.Expr) -> float | None:
    """The part of the time during which `holds`; None if no time passed."""
    held = held_ns(state)
    return part(int(held[state.select(holds).to_series().to_numpy()].sum()), int(held.sum()))


def part(ns: int, passed_ns: int) -> float | None:
    """One time as part of another; None if no time passed."""
    return ns / passed_ns if passed_ns else None


def quoted(state: pl.DataFrame) -> dict[str, float | None]:
    """The part of the time with an own bid at work, with an own ask, and with both at once.

    At work: sent, and not being cancelled. What ends between two rows of `state` counts until the next one.
    """
    bid, ask = pl.col("bid_px").is_not_null(), pl.col("ask_px").is_not_null()
    return {name: share(state, holds) for name, holds in (("bid", bid), ("ask", ask), ("both", bid & ask))}


def sharpe(state: pl.DataFrame, instrument: Instrument) -> float | None:
    """Mean / deviation of the minutes' profits, times the root of the minutes of a year (365.25 days).

    The account is looked at (`mtm_value`, quote currency) at the first row of `state` and every 60 s after it, each
    time as the last row at or before that instant says; a profit is the change between two looks. The clock does not
    stop where nothing was recorded: such minutes have profit 0. The deviation is that of a sample (n - 1), no
    interest is taken off, and a part of a minute at the end is left out. None if there are fewer than two
    profits, or if all are the same.
    """
    ns = state["recv_ns"].to_numpy()
    looks = np.arange(ns[0], ns[-1] + 1, NS_PER_MIN)
    return sharpe_of(state["mtm_value"].to_numpy()[np.searchsorted(ns, looks, side="right") - 1], instrument)


def sharpe_of(value: npt.NDArray[np.float64], instrument: Instrument) -> float | None:
    """`sharpe` of the account's values as they were looked at, shape (looks,)."""
    exact = whole(value, quantum_grid(instrument, 2)).tolist()
    profits = [after - before for before, after in pairwise(exact)]
    n, earned = len(profits), sum(profits)
    spread = n * sum(p * p for p in profits) - earned * earned  # n (n - 1) variances
    if n < 2 or spread == 0:
        return None
    return math.copysign(math.sqrt(Fraction(earned * earned * (n - 1) * MINUTES_A_YEAR, n * spread)), earned)


def max_drawdown(state: pl.DataFrame, instrument: Instrument) -> float:
    """Largest fall of the mark-to-market value from its highest so far, as a positive number."""
    value = state["mtm_value"].to_numpy()
    highest = np.maximum.accumulate(value)
    at = int(np.argmax(highest - value))
    return fall(float(highest[at]), float(value[at]), instrument)


def fall(high: float, low: float, instrument: Instrument) -> float:
    """How far it is from one value of the account to another, exactly, rounded once."""
    grid = quantum_grid(instrument, 2)
    steps = whole(np.array([high, low]), grid)
    return float(Fraction(int(steps[0]) - int(steps[1]), grid.den))


def drawdown_duration(state: pl.DataFrame) -> float:
    """Longest unbroken time, in seconds, for which the mark-to-market value lay below its highest so far."""
    ns, value = state["recv_ns"].to_numpy(), state["mtm_value"]
    below = (value < value.cum_max()).to_numpy()
    change = np.diff(np.concatenate([[False], below, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    until = ns[np.minimum(ends, ns.size - 1)]  # a fall that lasts ends with the run
    return int((until - ns[starts]).max(initial=0)) / NS_PER_S


@dataclass(frozen=True)
class Positions:
    """How long each position was held: lots ascending, ns > 0."""

    lots: Ints
    ns: Ints
    unit: Fraction  # base currency in a lot

    @classmethod
    def of(cls, state: pl.DataFrame, instrument: Instrument) -> Positions:
        """From a `state` table."""
        held = state["inventory"].to_numpy()
        first = np.flatnonzero(np.diff(held, prepend=np.nan) != 0)  # rows at which the position changed
        changed_ns = state["recv_ns"].to_numpy()[first]
        return cls.since(changed_ns, whole(held[first], instrument.lots), state["recv_ns"][-1], instrument)

    @classmethod
    def since(cls, ns: Ints, lots: Ints, end_ns: int, instrument: Instrument) -> Positions:
        """From the times at which a position was taken, and the position from then on, shape (changes,)."""
        held, low = np.diff(ns, append=end_ns), int(lots.min())
        if int(lots.max()) - low < DENSE:
            sums = np.zeros(int(lots.max()) - low + 1, np.int64)
            np.add.at(sums, lots - low, held)
            found = np.flatnonzero(sums)
            kept, spent = found + low, sums[found]
        else:
            kept, which = np.unique(lots, return_inverse=True)
            spent = np.zeros(kept.size, np.int64)
            np.add.at(spent, which, held)
            kept, spent = kept[spent > 0], spent[spent > 0]
        return cls(kept, spent, Fraction(instrument.lots.num, instrument.lots.den))

    def figures(self) -> dict[str, float | None]:
        """Mean, deviation and quantiles, weighted by time, in base currency; all None if no time passed."""
        if not self.ns.size:
            return dict.fromkeys(("mean", "std", "p05", "p50", "p95"))
        return {"mean": self.mean(), "std": self.deviation(), **{f"p{p:02}": self.quantile(p) for p in (5, 50, 95)}}

    def mean(self) -> float:
        """The position's mean over time."""
        return float(self.unit * Fraction(dot(self.lots, self.ns), int(self.ns.sum())))

    def deviation(self) -> float:
        """The root of the position's mean squared distance from its mean over time."""
        passed, first = int(self.ns.sum()), dot(self.lots, self.ns)
        second = self.squares()
        return math.sqrt(self.unit**2 * Fraction(second * passed - first * first, passed * passed))

    def squares(self) -> int:
        """The sum of lots * lots * ns, exactly, however large."""
        if np.abs(self.lots).max() < ROOT:
            return dot(self.lots * self.lots, self.ns)
        return sum(lots * lots * ns for lots, ns in zip(self.lots.tolist(), self.ns.tolist(), strict=True))

    def quantile(self, percent: int) -> float:
        """The smallest position such that for `percent` of the time it was that or less."""
        enough = -(-int(self.ns.sum()) * percent // 100)
        at: npt.NDArray[np.intp] = np.searchsorted(np.cumsum(self.ns), [enough])
        return float(self.unit * int(self.lots[at[0]]))
