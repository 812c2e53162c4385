"""Rows while they come in one by one, turned into frames in bulk; and the check that decimals lie on the grid."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from mmlab.core.errors import DataError
from mmlab.core.instrument import OFF_GRID, Grid, Instrument
from mmlab.core.schemas import DIFFS
from mmlab.core.table import Table
from mmlab.tape.books import Level


class Buffer(Protocol):
    """What collects the rows of one table and gives them up as a frame."""

    table: Table

    def frame(self, run_id: int) -> pl.DataFrame:
        """The rows since the last call."""
        ...

    def drop(self) -> None:
        """Take no rows from now on."""
        ...


class Rows:
    """Rows of a table as tuples, in the order of its columns without `run_id`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: list[tuple[object, ...]] = []
        self.append: Callable[[tuple[object, ...]], None] = self._rows.append

    def drop(self) -> None:
        """Take no rows from now on."""
        self.append = _nothing

    def frame(self, run_id: int) -> pl.DataFrame:
        """The rows since the last call, as a frame of the table's columns."""
        if not self._rows:
            return self.table.empty()
        given = [c for c in self.table.columns if c.name != "run_id"]
        values = zip(*self._rows, strict=True)
        frame = pl.DataFrame([pl.Series(c.name, v, c.dtype()) for c, v in zip(given, values, strict=True)])
        self._rows.clear()
        return with_run(frame, run_id, self.table)


class DiffRows:
    """Rows of `diffs`: one head for each update, its levels in flat buffers, expanded in bulk."""

    table = DIFFS

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._heads: list[tuple[int | None, ...]] = []
        self._sides: list[int] = []
        self._counts: list[int] = []
        self._prices = array("d")
        self._quantities = array("d")

    def add(self, head: tuple[int | None, ...], bids: Sequence[Level], asks: Sequence[Level]) -> None:
        """One update: `head` is recv_ns, exch_ns, recv_seq, epoch_id, first_id, last_id, prev_id.

        Of a price that an update names twice the last quantity holds, as in the book.
        """
        for side, levels in ((1, bids), (-1, asks)):
            if levels:
                last = dict(levels)
                self._prices.extend(last)
                self._quantities.extend(last.values())
                self._part(head, side, len(last))
        if not bids and not asks:
            self._prices.append(np.nan)
            self._quantities.append(np.nan)
            self._part(head, 0, 1)

    def drop(self) -> None:
        """Take no rows from now on."""
        self.add = _nothing  # type: ignore[method-assign, assignment]

    def _part(self, head: tuple[int | None, ...], side: int, count: int) -> None:
        self._heads.append(head)
        self._sides.append(side)
        self._counts.append(count)

    def frame(self, run_id: int) -> pl.DataFrame:
        """The rows since the last call, as a frame of the table's columns."""
        if not self._heads:
            return self.table.empty()
        names = ("recv_ns", "exch_ns", "recv_seq", "epoch_id", "first_id", "last_id", "prev_id")
        heads = pl.DataFrame(self._heads, dict.fromkeys(names, pl.Int64), orient="row")
        rows = np.repeat(np.arange(len(self._heads)), self._counts)
        frame = heads.with_columns(pl.Series("side", self._sides, pl.Int8))[rows].with_columns(
            pl.Series("price", np.array(self._prices), pl.Float64, nan_to_null=True),
            pl.Series("qty", np.array(self._quantities), pl.Float64, nan_to_null=True),
        )
        self._clear()
        return with_run(frame, run_id, self.table)


def _nothing(*_row: object) -> None:
    """What a dropped row is given to."""


def with_run(frame: pl.DataFrame, run_id: int, table: Table) -> pl.DataFrame:
    """`frame` with the run's id, in the table's order of columns."""
    return frame.with_columns(pl.lit(run_id, pl.Int64).alias("run_id")).select(table.schema.names())


def check_grid(frame: pl.DataFrame, instrument: Instrument, where: Callable[[int], str]) -> None:
    """Every price on the tick grid, every print's quantity on the lot grid.

    Quantities that rest in the book are left as they are: orders that are older than the venue's last
    change of lot size keep their odd quantities for years (real: 25.426189 BTC at a lot of 0.00001).
    Raises DataError naming the first fault, its line (`where` tells it from recv_seq) and the flag to change.
    """
    prices = [(name, instrument.ticks, "--tick-size") for name in ("price", "bid_px", "ask_px")]
    quantities = [("qty", instrument.lots, "--lot-size")] if "taker" in frame.columns else []
    for name, grid, flag in prices + quantities:
        row = -1 if name not in frame.columns else _first_off(frame[name], grid)
        if row >= 0:
            raise DataError(
                f"{where(frame['recv_seq'][row])}: {name} {frame[name][row]!r} "
                f"is not a multiple of the {grid.name} {grid.num / grid.den!r}",
                remedy=f"give the instrument's own {flag} (the finer one, if it changed)",
            )


def _first_off(values: pl.Series, grid: Grid) -> int:
    """Row of the first value off the grid, -1 if none."""
    exact = values.fill_null(0.0).to_numpy() * (grid.den / grid.num)
    off = np.abs(exact - np.rint(exact)) > OFF_GRID
    return int(off.argmax()) if off.any() else -1
