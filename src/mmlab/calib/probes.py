"""Book frames -> probe intervals: from when to when a probe stood, and the mid it was anchored at.

A new interval starts at the first frame of an epoch, when the dwell has passed, or when the mid has
moved by the threshold. It never spans an epoch change or a declared hole: there it ends at the last
moment that is known (the epoch's last frame, the hole's start). The walk from probe to probe is
sequential (walk.py); everything after it is a join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.spec import ProbeSpec
from mmlab.calib.walk import END, LAY, STAND, Does, walk
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument

Ints = npt.NDArray[np.int64]
LAST_SEQ = np.iinfo(np.int64).max
DEPTH_COLUMNS = ("recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "ask_px_1")
OPEN, START_NS, START_SEQ, ANCHOR, LAST_NS, LAST_FRAME_SEQ = range(6)  # where the walk stands
GAP_STREAMS = ("depth", "trade")  # holes in other streams do not touch probes


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


class Layer:
    """Lays probe intervals over a tape that comes in chunks, in time order.

    An interval that is open at the end of a chunk goes on in the next one, so that the chunks' edges
    (midnight, when days are read one by one) leave no trace. `at` (OPEN .. LAST_FRAME_SEQ) is where the walk
    stands, `epoch` the last frame's run and epoch.
    """

    def __init__(self, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec) -> None:
        self._gap_from, self._gap_to = holes(gaps)
        self._ticks, self._spec = instrument.ticks, spec
        self.at = np.array([0, 0, 0, 0, -1, -1], np.int64)  # OPEN .. LAST_FRAME_SEQ
        self.epoch = (-1, -1)

    def add(self, depth: pl.DataFrame) -> Intervals:
        """The intervals that end within `depth` (DEPTH_COLUMNS); raises DataError if it is not in time order."""
        bid, ask = (self._ticks.to_steps(column(depth, name)) for name in ("bid_px_1", "ask_px_1"))
        return self.lay(depth, bid + ask, self.breaks(depth))

    def breaks(self, depth: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Which frames are the first of an epoch or a run; remembers the last frame's."""
        run, epoch = column(depth, "run_id"), column(depth, "epoch_id")
        breaks = np.empty(depth.height, np.bool_)
        if depth.height:
            breaks[0] = (run[0], epoch[0]) != self.epoch
            breaks[1:] = (run[1:] != run[:-1]) | (epoch[1:] != epoch[:-1])
            self.epoch = (run[-1], epoch[-1])
        return breaks

    def lay(self, depth: pl.DataFrame, mid2: Ints, breaks: npt.NDArray[np.bool_]) -> Intervals:
        """`add`, with the mid in half ticks and the breaks already known."""
        ns, seq = column(depth, "recv_ns"), column(depth, "recv_seq")
        bad = out_of_order(ns, seq, self.last_frame)
        if bad >= 0:
            raise DataError(f"depth row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
        if ns.size == 0:
            return Intervals(*(np.empty(0, np.int64) for _ in Intervals.__dataclass_fields__))
        does, cuts = self._cuts(ns, seq, breaks)
        stands = (int(self.at[START_NS]), int(self.at[ANCHOR])) if self.at[OPEN] else None
        rows = walk(ns, mid2, does, self._spec.dwell_ns, self._spec.threshold_half_ticks, stands)
        laid = [a[rows] for a in (ns, seq, mid2)]
        if stands is not None:  # row -1, which began before these frames
            for values, name in zip(laid, (START_NS, START_SEQ, ANCHOR), strict=True):
                values[0] = self.at[name]
        ends = _ends(rows, ns, seq, cuts)
        self.at[OPEN] = does[-1] != END
        if self.at[OPEN]:
            self.at[[START_NS, START_SEQ, ANCHOR]] = [values[-1] for values in laid]
        self.at[[LAST_NS, LAST_FRAME_SEQ]] = ns[-1], seq[-1]
        n = rows.size - int(self.at[OPEN])
        start_ns, start_seq, mid2 = (values[:n] for values in laid)
        return Intervals(start_ns, start_seq, ends[0][:n], ends[1][:n], mid2)

    def _cuts(self, ns: Ints, seq: Ints, breaks: npt.NDArray[np.bool_]) -> tuple[Does, tuple[Ints, Ints, Ints]]:
        """What each frame does to the probes; and where it is not STAND: its row, and when those before it ended.

        At a break they end with the frame before, at a hole with its start.
        """
        first, last = np.searchsorted(ns, self._gap_from, "right"), np.searchsorted(ns, self._gap_to)
        fresh = (self._gap_from >= self.at[LAST_NS]) & (first < ns.size)  # others began among earlier frames, or later
        from_ns, acts_at = self._gap_from[fresh], first[fresh]
        does = np.where(breaks, LAY, STAND).astype(np.int8)
        does[acts_at] = LAY
        if not self.at[OPEN]:
            does[0] = LAY
        for a, z in zip(first, last, strict=True):
            if a < z:  # frames within the hole
                does[a:z] = END
                does[z : z + 1] = LAY
        rows = np.flatnonzero(does != STAND)
        before_ns, before_seq = (
            np.where(rows > 0, a[rows - 1], last) for a, last in zip((ns, seq), self.last_frame, strict=True)
        )
        hole = np.append(from_ns, LAST_SEQ)[np.searchsorted(acts_at, rows)]
        broken = breaks[rows]
        return does, (rows, np.where(broken, before_ns, hole), np.where(broken, before_seq, LAST_SEQ))

    @property
    def open_from(self) -> tuple[int, int] | None:
        """Start of the interval that is open, (recv_ns, recv_seq), or None."""
        return (int(self.at[START_NS]), int(self.at[START_SEQ])) if self.at[OPEN] else None

    @property
    def last_frame(self) -> tuple[int, int]:
        """The newest frame, (recv_ns, recv_seq); (-1, -1) before the first."""
        return int(self.at[LAST_NS]), int(self.at[LAST_FRAME_SEQ])

    def close(self) -> Intervals:
        """The interval that is open at the end of the tape, ended at its last frame."""
        at, n = self.at, int(self.at[OPEN])
        self.at[OPEN] = 0
        ends = (at[START_NS], at[START_SEQ], at[LAST_NS], at[LAST_FRAME_SEQ], at[ANCHOR])
        return Intervals(*(np.full(n, value, np.int64) for value in ends))


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


def column(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    """One column as a contiguous array, without a copy where it is one chunk already."""
    return np.ascontiguousarray(frame[name].to_numpy())


def out_of_order(ns: Ints, seq: Ints, before: tuple[int, int] | None = None) -> int:
    """The first row whose (recv_ns, recv_seq) does not come after the row before it, or after `before`; -1 if none."""
    if ns.size and before is not None and (int(ns[0]), int(seq[0])) <= before:
        return 0
    if (seq[1:] > seq[:-1]).all() and (ns[1:] >= ns[:-1]).all():
        return -1
    late = (ns[1:] < ns[:-1]) | ((ns[1:] == ns[:-1]) & (seq[1:] <= seq[:-1]))  # another run counts from 1 again
    return int(late.argmax()) + 1 if late.any() else -1


def _ends(rows: Ints, ns: Ints, seq: Ints, cuts: tuple[Ints, Ints, Ints]) -> tuple[Ints, Ints]:
    """When each interval laid at `rows` ended: at the next one's start, or where it was cut before; see Layer._cuts."""
    at, cut_ns, cut_seq = cuts
    following = np.append(rows[1:], ns.size)
    cut = np.searchsorted(at, rows, "right")  # the first after the start
    is_cut = np.append(at, ns.size + 1)[cut] <= following
    end_ns, end_seq = (a[np.minimum(following, ns.size - 1)] for a in (ns, seq))
    end_ns[is_cut], end_seq[is_cut] = cut_ns[cut[is_cut]], cut_seq[cut[is_cut]]
    return end_ns, end_seq
