"""The order book in memory, and its top levels as rows of `depth`.

A side keeps its prices as sorted integers with the best one last (asks negated), so that the touch,
where nearly everything happens, is the cheap end of the list. Nothing here knows update ids.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.instrument import Grid, Instrument
from mmlab.core.schemas import depth

Level = tuple[float, float]  # price, quantity


class Side:
    """One side of a book. `keys` is ascending, best last: ticks for bids, minus ticks for asks."""

    def __init__(self, per_unit: float) -> None:
        self.keys: list[int] = []
        self.qty: dict[int, float] = {}
        self.per_unit = per_unit

    def load(self, levels: Iterable[Level]) -> None:
        """Replace the whole side."""
        self.qty = {round(price * self.per_unit): qty for price, qty in levels if qty > 0}
        self.keys = sorted(self.qty)

    def apply(self, levels: Iterable[Level]) -> None:
        """Set absolute quantities; 0 removes, and removing an absent price changes nothing."""
        keys, quantities, per_unit = self.keys, self.qty, self.per_unit
        for price, qty in levels:
            key = round(price * per_unit)
            if qty > 0:
                if key not in quantities:
                    insort(keys, key)
                quantities[key] = qty
            elif quantities.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]


class Book:
    """Two sides, in the ticks of one instrument; prices are taken to lie on its grid."""

    def __init__(self, ticks: Grid) -> None:
        per_unit = ticks.den / ticks.num
        self.bids = Side(per_unit)
        self.asks = Side(-per_unit)

    def load(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """The book of a snapshot."""
        self.bids.load(bids)
        self.asks.load(asks)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """The book after one update."""
        self.bids.apply(bids)
        self.asks.apply(asks)

    @property
    def one_sided(self) -> bool:
        """True if a side is empty."""
        return not (self.bids.keys and self.asks.keys)

    @property
    def crossed(self) -> bool:
        """True if the best bid is at or above the best ask, which no venue's book ever is."""
        return not self.one_sided and self.bids.keys[-1] >= -self.asks.keys[-1]


class DepthRows:
    """Rows of `depth` in flat buffers: one call of `add` for each frame, one frame of columns at the end."""

    def __init__(self, instrument: Instrument, levels: int) -> None:
        self.table = depth(levels)
        self._ticks = instrument.ticks
        self._levels = levels
        self._clear()

    def _clear(self) -> None:
        self._heads: list[tuple[int, int | None, int, int, int]] = []
        self._keys = {side: array("q") for side in ("bid", "ask")}
        self._qty = {side: array("d") for side in ("bid", "ask")}

    def add(self, recv_ns: int, exch_ns: int | None, recv_seq: int, epoch_id: int, update_id: int, book: Book) -> None:
        """The top levels of `book` as they stand; absent levels become null."""
        self._heads.append((recv_ns, exch_ns, recv_seq, epoch_id, update_id))
        for name, side in (("bid", book.bids), ("ask", book.asks)):
            best = side.keys[: -self._levels - 1 : -1]
            self._keys[name].extend(best)
            self._qty[name].extend(map(side.qty.__getitem__, best))
            if len(best) < self._levels:
                absent = self._levels - len(best)
                self._keys[name].extend([0] * absent)
                self._qty[name].extend([np.nan] * absent)

    def drop(self) -> None:
        """Take no rows from now on."""
        self.add = lambda *_row: None  # type: ignore[method-assign]

    def frame(self, run_id: int) -> pl.DataFrame:
        """The rows since the last call, as a frame of the table's columns."""
        if not self._heads:
            return self.table.empty()
        names = ("recv_ns", "exch_ns", "recv_seq", "epoch_id", "update_id")
        heads = pl.DataFrame(self._heads, dict.fromkeys(names, pl.Int64), orient="row")
        ladder = self._ladder("bid", 1) + self._ladder("ask", -1)
        self._clear()
        frame = heads.with_columns(pl.lit(run_id, pl.Int64).alias("run_id"), *ladder)
        return frame.select(self.table.schema.names())

    def _ladder(self, name: str, sign: int) -> list[pl.Series]:
        """Price and quantity columns of one side."""
        shape = (-1, self._levels)
        keys: npt.NDArray[np.int64] = np.array(self._keys[name], np.int64).reshape(shape)
        qty = np.array(self._qty[name], np.float64).reshape(shape)
        price = np.where(np.isnan(qty), np.nan, self._ticks.to_decimal(sign * keys))
        return [
            pl.Series(f"{name}_{kind}_{i + 1}", np.ascontiguousarray(values[:, i]), pl.Float64, nan_to_null=True)
            for i in range(self._levels)
            for kind, values in (("px", price), ("qty", qty))
        ]
