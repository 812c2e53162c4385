"""Tables of a backtest as whole numbers (ticks, half ticks, lots, quanta), and sums of them that cannot overflow."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.instrument import Grid, Instrument
from mmlab.core.ledger import Money

Ints = npt.NDArray[np.int64]
SURE = 2.0**38  # below it float noise stays far enough below a step for `Grid.to_steps`
ROOM = 2.0**62
LOW = 2**32
PART = 2**24


def half_tick_grid(instrument: Instrument) -> Grid:
    """The grid of mids."""
    ticks = instrument.ticks
    return Grid("half of the tick size", ticks.num, 2 * ticks.den)


def whole(values: npt.NDArray[np.float64], grid: Grid) -> Ints:
    """Shape (n,) decimals as (n,) whole steps, also where they are too large for `Grid.to_steps`."""
    if np.abs(values).max(initial=0.0) * grid.per_unit < SURE:
        return grid.to_steps(values)
    exact = [Decimal(repr(value)) * grid.den / grid.num for value in values.tolist()]
    return np.array([int(step.to_integral_value()) for step in exact], np.int64)


def dot(a: Ints, b: Ints) -> int:
    """The sum of a * b, exactly, however large."""
    most_a, most_b = (float(np.abs(x).max(initial=0)) for x in (a, b))
    if most_a * most_b < ROOM:
        return total(a * b)
    if most_a * max(most_b / PART + 1, PART) < ROOM:
        return total(a * (b // PART)) * PART + total(a * (b % PART))
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def total(a: Ints) -> int:
    """The sum of a, exactly: at once if it surely fits, or high and low halves apart, which fit below 2**31 rows."""
    if float(np.abs(a).max(initial=0)) * a.size < ROOM:
        return int(a.sum())
    return int((a // LOW).sum()) * LOW + int((a % LOW).sum())


@dataclass(frozen=True)
class Trades:
    """The rows of `fills`, arrays of shape (n,): side +1 bought, -1 sold; mid2 is the mid at the fill."""

    ns: Ints
    side: Ints
    ticks: Ints
    lots: Ints
    mid2: Ints
    fee: Ints  # quanta
    maker: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, fills: pl.DataFrame, instrument: Instrument) -> Trades:
        """From a `fills` table; raises TableError for a value off its grid."""
        column = {name: fills[name].to_numpy() for name in ("price", "qty", "mid", "fee")}
        return cls(
            fills["recv_ns"].to_numpy(),
            fills["side"].to_numpy().astype(np.int64),
            whole(column["price"], instrument.ticks),
            whole(column["qty"], instrument.lots),
            whole(column["mid"], half_tick_grid(instrument)),
            whole(column["fee"], quantum_grid(instrument)),
            (fills["liquidity"] == "maker").to_numpy(),
        )

    def where(self, chosen: npt.NDArray[np.bool_]) -> Trades:
        """Those of `chosen`."""
        ns, side, ticks, lots, mid2, fee = (
            column[chosen] for column in (self.ns, self.side, self.ticks, self.lots, self.mid2, self.fee)
        )
        return Trades(ns, side, ticks, lots, mid2, fee, self.maker[chosen])


def quantum_grid(instrument: Instrument, parts: int = 1) -> Grid:
    """The grid of money; `parts` 2 is that of half quanta."""
    return Grid("quantum of money", 1, parts * 10 ** Money.of(instrument).digits)
