"""A run's profit in parts that add up to it exactly: spread earned, adverse selection, inventory and fees.

A fill of `qty` at `price`, side +1 bought or -1 sold, is followed for a horizon h:

- spread_earned: side * (mid at the fill - price) * qty
- adverse_selection: side * (mid at h after the fill - mid at the fill) * qty, the fill's markout
- inventory: side * (last mid - mid at h after the fill) * qty, what holding it for longer brought;
  and the whole move of the mid on the position that was held at the start
- fees: what was paid, as a loss

The mid of an instant is that of the last book frame received at or before it, also where the book stood still because
nothing was recorded. A fill less than h before the end is followed to the last mid, and counted in `fills_cut`. The
first and the last mid are those of `state`. All is computed in half quanta, and becomes a decimal in the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Money
from mmlab.core.schemas import ATTRIBUTION, COMPONENTS, HORIZONS_S, MARKOUTS
from mmlab.core.spans import NS_PER_S
from mmlab.report.exact import Ints, Trades, dot, half_tick_grid, total
from mmlab.report.metrics import half_ticks, profit, quote_unit, whole_lots


@dataclass(frozen=True)
class Mids:
    """The mid of every book frame, arrays of shape (n_frames,): when it was received (ascending), half ticks."""

    ns: Ints
    mid2: Ints

    def at(self, ns: Ints) -> Ints:
        """Mids in force at these instants, none of them before the first frame."""
        return self.mid2[np.searchsorted(self.ns, ns, side="right") - 1]


@dataclass(frozen=True)
class Parts:
    """Profit of some fills in half quanta, how many they are, and how many of them were cut short by the end."""

    values: tuple[int, int, int, int]  # as COMPONENTS
    fills: int = 0
    cut: int = 0

    def __add__(self, other: Parts) -> Parts:
        a, b, c, d = (x + y for x, y in zip(self.values, other.values, strict=True))
        return Parts((a, b, c, d), self.fills + other.fills, self.cut + other.cut)


def attribution(fills: pl.DataFrame, state: pl.DataFrame, mids: Mids, instrument: Instrument) -> pl.DataFrame:
    """The `attribution` table: for each horizon, the parts of the bid's fills, the ask's, the opening position, all."""
    trades = Trades.of(fills, instrument)
    earned = profit(trades, state, instrument).total
    held = opening_parts(state, instrument)
    rows: list[tuple[int, str, str, float, int, int]] = []
    for horizon_s in HORIZONS_S:
        bid, ask = (fill_parts(trades, side, horizon_s, state, mids, instrument) for side in (1, -1))
        whole = bid + ask + held
        check_sum(whole, earned)
        for name, parts in (("bid", bid), ("ask", ask), ("opening", held), ("both", whole)):
            values = (value / quote_unit(instrument) for value in parts.values)
            rows += [
                (horizon_s, name, component, value, parts.fills, parts.cut)
                for component, value in zip(COMPONENTS, values, strict=True)
            ]
    return ATTRIBUTION.conform(pl.DataFrame(rows, schema=ATTRIBUTION.schema.names(), orient="row", strict=False))


def check_sum(parts: Parts, earned: int) -> None:
    """Raise DataError if the parts miss anything of the profit, to the half quantum."""
    if sum(parts.values) != earned:
        raise DataError(
            f"the parts of the profit add up to {sum(parts.values)} half quanta, and it is {earned}",
            remedy="this is a fault of mmlab: please report it with the run's manifest",
        )


def fill_parts(
    trades: Trades, side: int, horizon_s: int, state: pl.DataFrame, mids: Mids, instrument: Instrument
) -> Parts:
    """The parts of the fills on one side, each computed on its own."""
    chosen = trades.where(trades.side == side)
    last_ns, last_mid2 = state["recv_ns"][-1], half_ticks(state["mid"][-1], instrument)
    until = chosen.ns + horizon_s * NS_PER_S
    cut = until > last_ns
    later = np.where(cut, last_mid2, mids.at(until))
    per = Money.of(instrument).per_tick_lot
    moves = (chosen.mid2 - 2 * chosen.ticks, later - chosen.mid2, last_mid2 - later)
    spread, adverse, inventory = (per * side * dot(move, chosen.lots) for move in moves)
    return Parts((spread, adverse, inventory, -2 * total(chosen.fee)), chosen.ns.size, int(cut.sum()))


def opening_parts(state: pl.DataFrame, instrument: Instrument) -> Parts:
    """The position held at the start: all of its move is inventory, at every horizon."""
    lots = whole_lots(state["inventory"][0], instrument)
    first, last = (half_ticks(state["mid"][i], instrument) for i in (0, -1))
    return Parts((0, 0, lots * (last - first) * Money.of(instrument).per_tick_lot, 0))


def markouts(fills: pl.DataFrame, state: pl.DataFrame, mids: Mids, instrument: Instrument) -> pl.DataFrame:
    """The `markouts` table: fill by fill, in the order of `fills`, in quote currency for one unit."""
    trades, grid, end = Trades.of(fills, instrument), half_tick_grid(instrument), state["recv_ns"][-1]
    columns = [pl.Series("spread_earned", grid.to_decimal(trades.side * (trades.mid2 - 2 * trades.ticks)))]
    for horizon_s in HORIZONS_S:
        until = trades.ns + horizon_s * NS_PER_S
        moved = pl.Series(f"markout_{horizon_s}s", grid.to_decimal(trades.side * (mids.at(until) - trades.mid2)))
        columns.append(moved.to_frame().select(pl.when(pl.Series(until <= end)).then(moved.name)).to_series())
    return MARKOUTS.conform(fills.with_columns(columns))
