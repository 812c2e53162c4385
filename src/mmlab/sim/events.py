"""Book frames and prints -> the arrays that the engine walks in one order of (recv_ns, recv_seq)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.kernels import kernel

DEPTH_COLUMNS = (
    "recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "bid_qty_1", "ask_px_1", "ask_qty_1",
)  # fmt: skip
TRADE_COLUMNS = ("recv_ns", "recv_seq", "price", "qty")
Ints = npt.NDArray[np.int64]
SIDES = ("bid", "ask")
GAP_PRINTS, GAP_HIGH, GAP_LOW = range(3)


def depth_columns(levels: int = 1, event_time: bool = False) -> tuple[str, ...]:
    """What `tape` reads of `depth`: so many levels of the book, and the venue's event time if asked."""
    deeper = (f"{side}_{what}_{i}" for i in range(2, levels + 1) for side in SIDES for what in ("px", "qty"))
    return (*DEPTH_COLUMNS, *deeper, *(("exch_ns",) if event_time else ()))


@dataclass(frozen=True)
class Tape:
    """One tape: frame arrays of shape (n_frames,), print arrays of shape (n_prints,); ticks, lots, ns.

    exch_ns: the venue's event time of each frame, if it was read and all have one. deep: levels of the book from the
    touch on, if they were, shape (n_frames, 4 * levels): bid, its lots, ask, its lots; 0 where there is none.
    """

    instrument: Instrument
    frame_ns: Ints
    frame_seq: Ints
    breaks: npt.NDArray[np.bool_]
    bid: Ints
    bid_lots: Ints
    ask: Ints
    ask_lots: Ints
    print_ns: Ints
    print_seq: Ints
    price: Ints
    lots: Ints
    exch_ns: Ints | None = None
    deep: Ints = field(default_factory=lambda: np.empty((0, 0), np.int64))

    @cached_property
    def frames(self) -> Ints:
        """As the engine walks them, shape (n_frames, 7)."""
        columns = (self.frame_ns, self.frame_seq, self.breaks, self.bid, self.bid_lots, self.ask, self.ask_lots)
        return stacked(columns)

    @cached_property
    def prints(self) -> Ints:
        """The same of those since the first frame, shape (n_prints, 4): earlier ones meet no order."""
        first = self.print_ns.searchsorted(self.frame_ns[0])
        columns = (self.print_ns, self.print_seq, self.price, self.lots)
        return stacked([column[first:] for column in columns])

    @cached_property
    def gaps(self) -> Ints:
        """What is printed between the frame before and each frame, shape (n_frames, 3): how many of `prints` there are
        before the frame, and the highest and lowest price of those since the frame before."""
        return _gaps(self.frames, self.prints)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First frame and last event."""
        last = max(int(self.frame_ns[-1]), int(self.print_ns[-1]) if self.print_ns.size else 0)
        return int(self.frame_ns[0]), last


@kernel
def _gaps(frames: Ints, prints: Ints) -> Ints:
    """`Tape.gaps`: one walk along both."""
    gaps, p = np.empty((frames.shape[0], 3), np.int64), 0
    for i in range(frames.shape[0]):
        high, low, ns = -(2**62), 2**62, frames[i, 0]
        while p < prints.shape[0] and (prints[p, 0] < ns or (prints[p, 0] == ns and prints[p, 1] < frames[i, 1])):
            high, low = max(high, prints[p, 2]), min(low, prints[p, 2])
            p += 1
        gaps[i, GAP_PRINTS], gaps[i, GAP_HIGH], gaps[i, GAP_LOW] = p, high, low
    return gaps


def tape(depth: pl.DataFrame, trades: pl.DataFrame, instrument: Instrument) -> Tape:
    """Tape of `depth` (DEPTH_COLUMNS) and `trades` (TRADE_COLUMNS), both in time order; raises DataError."""
    if depth.is_empty():
        raise DataError("there are no book frames", remedy="import or record depth for these days")
    for name, frame in (("depth", depth), ("trades", trades)):
        if not sorted_in_time(frame):
            raise DataError(f"{name} rows are not in time order", remedy="sort by recv_ns, recv_seq")
    ticks, lots = instrument.ticks, instrument.lots
    run, epoch = array(depth, "run_id"), array(depth, "epoch_id")
    timed = "exch_ns" in depth.columns and not depth["exch_ns"].has_nulls()
    breaks = np.zeros(depth.height, np.bool_)
    breaks[1:] = (run[1:] != run[:-1]) | (epoch[1:] != epoch[:-1])
    return Tape(
        instrument,
        array(depth, "recv_ns"),
        array(depth, "recv_seq"),
        breaks,
        ticks.to_steps(array(depth, "bid_px_1")),
        shown_lots(depth, "bid_qty_1", instrument),
        ticks.to_steps(array(depth, "ask_px_1")),
        shown_lots(depth, "ask_qty_1", instrument),
        array(trades, "recv_ns"),
        array(trades, "recv_seq"),
        ticks.to_steps(array(trades, "price")),
        lots.to_steps(array(trades, "qty")),
        array(depth, "exch_ns") if timed else None,
        _deep(depth, instrument),
    )


def _deep(depth: pl.DataFrame, instrument: Instrument) -> Ints:
    """All levels that were read, if there are more than the touch."""
    levels = next(i for i in itertools.count(1) if f"bid_px_{i + 1}" not in depth.columns)
    if levels == 1:
        return np.empty((0, 0), np.int64)
    made = []
    for i in range(1, levels + 1):
        for side in SIDES:
            names = f"{side}_px_{i}", f"{side}_qty_{i}"
            known = depth.select(names).fill_null(0.0)
            made += [instrument.ticks.to_steps(array(known, names[0])), shown_lots(known, names[1], instrument)]
    return stacked(made)


def shown_lots(depth: pl.DataFrame, name: str, instrument: Instrument) -> Ints:
    """Whole lots in a displayed quantity; old orders may leave a level with a fraction of a lot, which nobody gets."""
    return np.floor(array(depth, name) * instrument.lots.per_unit + 1e-6).astype(np.int64)


def sorted_in_time(frame: pl.DataFrame) -> bool:
    """True if no row is earlier in (recv_ns, recv_seq) than the one before it."""
    ns, seq = array(frame, "recv_ns"), array(frame, "recv_seq")
    return bool(np.all((ns[1:] > ns[:-1]) | ((ns[1:] == ns[:-1]) & (seq[1:] > seq[:-1]))))


def array(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    """One column as a contiguous array."""
    return np.ascontiguousarray(frame[name].to_numpy())


def stacked(columns: Sequence[npt.NDArray[Any]]) -> Ints:
    """Columns side by side as whole numbers; numpy's own column_stack takes four times as long."""
    made = np.empty((columns[0].size, len(columns)), np.int64)
    for place, column in enumerate(columns):
        made[:, place] = column
    return made
