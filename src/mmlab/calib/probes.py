"""Book frames -> probe intervals: from when to when a probe stood, and the mid it was anchored at.

A new interval starts at the first frame of an epoch, when the dwell has passed, or when the mid has
moved by the threshold. It never spans an epoch change or a declared hole: there it ends at the last
moment that is known (the epoch's last frame, the hole's start). The walk from probe to probe is
sequential (pass_kernels.py); everything after it is a join.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib import layout
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.native import native

Ints = npt.NDArray[np.int64]
DEPTH_COLUMNS = ("recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "ask_px_1")
PRICES = ("bid_px_1", "ask_px_1")
GAP_STREAMS = ("depth", "trade")  # holes in other streams do not touch probes
LEAST_ROWS = 8_192  # of a piece that is looked at by itself
AT_ONCE = 1_024  # rows whose prices are rounded at once: they stay in the processor's nearest cache

_frames = native("mmlab.calib.pass_kernels", "frames")


@dataclass(frozen=True)
class Watch:
    """Where the book's sums per bucket go, (n_buckets, 4), and where they stand; see collect.Market."""

    market: Ints
    at: Ints
    origin_ns: int = 0
    bucket_ns: int = 1


@dataclass(frozen=True)
class Intervals:
    """Probe intervals in time order, five arrays of shape (n_intervals,).

    A print belongs to interval i if start <= (recv_ns, recv_seq) < end, lexicographically.
    `mid2` is the anchor mid in half ticks: bid ticks + ask ticks.
    """

    start_ns: Ints
    start_seq: Ints
    end_ns: Ints
    end_seq: Ints
    mid2: Ints


NO_INTERVALS = Intervals(*np.empty((layout.LAID_WIDTH, 0), np.int64))


class Layer:
    """Lays probe intervals over a tape that comes in chunks, in time order.

    An interval that is open at the end of a chunk goes on in the next one, so that the chunks' edges
    (midnight, when days are read one by one) leave no trace. `at` (layout.OPEN .. LAST_FRAME_SEQ) is where the walk
    stands, `epoch` the last frame's run and epoch.
    """

    def __init__(self, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec) -> None:
        self._gap_from, self._gap_to = holes(gaps)
        self._ticks, self._spec = instrument.ticks, spec
        self.at = np.array([0, 0, 0, 0, -1, -1], np.int64)  # OPEN .. LAST_FRAME_SEQ
        self.epoch = np.array([-1, -1], np.int64)

    def add(self, depth: pl.DataFrame, watch: Watch | None = None) -> Intervals:
        """The intervals that end within `depth` (DEPTH_COLUMNS); what the book did is added up in `watch`, if given.

        Raises DataError if it is not in time order, TableError for a price off its grid.
        """
        rows, found = 0, [NO_INTERVALS]
        watch = watch or Watch(np.empty((0, layout.MARKET_WIDTH), np.int64), np.zeros(layout.WATCH_WIDTH, np.int64))
        for piece in pieces(depth):
            laid = self._lay(piece, watch)
            if isinstance(laid, int):
                for name in PRICES:
                    self._ticks.to_steps(column(depth, name))  # names the price that is off its grid
                raise DataError(
                    f"depth row {rows + laid} is earlier than the row before it", remedy="sort by recv_ns, recv_seq"
                )
            found.append(laid)
            rows += piece.height
        return joined(*found) if len(found) > 2 else found[-1]

    def _lay(self, depth: pl.DataFrame, watch: Watch) -> Intervals | int:
        """`add` of frames whose columns are one array each; the first row that is not in order, or off its grid."""
        laid = np.empty((layout.LAID_WIDTH, depth.height + 1), np.int64)
        n = _frames(
            *(column(depth, name) for name in DEPTH_COLUMNS), self._ticks.per_unit, self._gap_from, self._gap_to,
            self._spec.dwell_ns, self._spec.threshold_half_ticks, self.at, self.epoch, laid,
            watch.market, watch.at, watch.origin_ns, watch.bucket_ns, np.empty((2, AT_ONCE), np.int64),
        )  # fmt: skip
        return Intervals(*laid[:, :n].copy()) if n >= 0 else -1 - n

    @property
    def open_from(self) -> tuple[int, int] | None:
        """Start of the interval that is open, (recv_ns, recv_seq), or None."""
        return (int(self.at[layout.START_NS]), int(self.at[layout.START_SEQ])) if self.at[layout.OPEN] else None

    @property
    def last_frame(self) -> tuple[int, int]:
        """The newest frame, (recv_ns, recv_seq); (-1, -1) before the first."""
        return int(self.at[layout.LAST_NS]), int(self.at[layout.LAST_FRAME_SEQ])

    def close(self) -> Intervals:
        """The interval that is open at the end of the tape, ended at its last frame."""
        n = int(self.at[layout.OPEN])
        self.at[layout.OPEN] = 0
        start, end = (layout.START_NS, layout.START_SEQ), (layout.LAST_NS, layout.LAST_FRAME_SEQ)
        return Intervals(*(np.full(n, self.at[i], np.int64) for i in (*start, *end, layout.ANCHOR)))


def intervals(depth: pl.DataFrame, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec) -> Intervals:
    """Lay the probe intervals over `depth` (DEPTH_COLUMNS, in time order); raises DataError if it is not."""
    layer = Layer(gaps, instrument, spec)
    return joined(layer.add(depth), layer.close())


def joined(*parts: Intervals) -> Intervals:
    """Intervals of consecutive stretches as one."""
    names = Intervals.__dataclass_fields__
    return Intervals(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def holes(gaps: pl.DataFrame) -> tuple[Ints, Ints]:
    """Declared holes in book or tape as disjoint ascending (from_ns, to_ns), two arrays of shape (n_holes,)."""
    kept = gaps.filter(pl.col("stream").is_in(GAP_STREAMS)).sort("from_ns", "to_ns")
    end = pl.col("to_ns").cum_max()
    merged = (
        kept.with_columns(group=(pl.col("from_ns") > end.shift(1)).fill_null(True).cum_sum())
        .group_by("group", maintain_order=True)
        .agg(pl.col("from_ns").min(), pl.col("to_ns").max())
    )
    return column(merged, "from_ns"), column(merged, "to_ns")


def pieces(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The frame in pieces whose columns are one array each: those that it has, unless they are many and small."""
    lengths = {tuple(values.chunk_lengths()) for values in frame.iter_columns()}
    if len(lengths) > 1 or frame.height < LEAST_ROWS * len(next(iter(lengths))):
        yield frame.rechunk()
        return
    at = 0
    for n in lengths.pop():
        yield frame.slice(at, n)
        at += n


def column(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    """One column as a contiguous array, without a copy where it is one chunk already."""
    return np.ascontiguousarray(frame[name].to_numpy())


def key(rows: pl.DataFrame, row: int) -> tuple[int, int]:
    """(recv_ns, recv_seq) of a row."""
    return int(rows["recv_ns"][row]), int(rows["recv_seq"][row])


def first_late(ns: Ints, seq: Ints) -> int:
    """The first row whose (recv_ns, recv_seq) does not come after the row before it; there is one."""
    return int(np.argmax((ns[1:] < ns[:-1]) | ((ns[1:] == ns[:-1]) & (seq[1:] <= seq[:-1])))) + 1
