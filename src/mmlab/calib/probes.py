"""Book frames -> probe intervals: from when to when a probe stood, and the mid it was anchored at.

A new interval starts at the first frame of an epoch, when the dwell has passed, or when the mid has
moved by the threshold. It never spans an epoch change or a declared hole: there it ends at the last
moment that is known (the epoch's last frame, the hole's start). The greedy walk is sequential, one
compiled pass; everything after it is a join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.kernels import kernel

Ints = npt.NDArray[np.int64]
LAST_SEQ = np.iinfo(np.int64).max
DEPTH_COLUMNS = ("recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "ask_px_1")
OPEN, START_NS, START_SEQ, ANCHOR, LAST_NS, LAST_FRAME_SEQ, GAP_AT = range(7)  # where the walk stands
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
    (midnight, when days are read one by one) leave no trace. `at` (OPEN .. GAP_AT) is where the walk stands,
    `epoch` the last frame's run and epoch.
    """

    def __init__(self, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec) -> None:
        self._gap_from, self._gap_to = holes(gaps)
        self._ticks, self._spec = instrument.ticks, spec
        self.at = np.array([0, 0, 0, 0, -1, -1, 0], np.int64)  # OPEN .. GAP_AT
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
        times, spec = (column(depth, "recv_ns"), column(depth, "recv_seq")), self._spec
        *laid, bad = _lay(
            *times, breaks, mid2, self._gap_from, self._gap_to, spec.dwell_ns, spec.threshold_half_ticks, self.at
        )
        if bad >= 0:
            raise DataError(f"depth row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
        return Intervals(*laid)

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


@kernel
def _lay(
    recv_ns: Ints,
    recv_seq: Ints,
    breaks: npt.NDArray[np.bool_],
    mid2: Ints,
    gap_from: Ints,
    gap_to: Ints,
    dwell_ns: int,
    threshold2: int,
    at: Ints,
) -> tuple[Ints, Ints, Ints, Ints, Ints, int]:
    """The greedy walk: close what ends before or at a frame, then open at the frame unless in a hole.

    `at` is where the walk stands (OPEN .. GAP_AT), brought forward. The last value is a row out of order, or -1.
    """
    n = recv_ns.size + 1  # one may be open from before
    start_ns, start_seq = np.empty(n, np.int64), np.empty(n, np.int64)
    end_ns, end_seq = np.empty(n, np.int64), np.empty(n, np.int64)
    anchor2 = np.empty(n, np.int64)
    m, g, opened = 0, at[GAP_AT], at[OPEN] == 1
    start_ns[0], start_seq[0], anchor2[0] = at[START_NS], at[START_SEQ], at[ANCHOR]
    before_ns, before_seq = at[LAST_NS], at[LAST_FRAME_SEQ]
    for i in range(recv_ns.size):
        t = recv_ns[i]
        if t < before_ns or (t == before_ns and recv_seq[i] <= before_seq):
            return start_ns, start_seq, end_ns, end_seq, anchor2, i
        if opened and breaks[i]:
            end_ns[m], end_seq[m] = before_ns, before_seq
            m, opened = m + 1, False
        before_ns, before_seq = t, recv_seq[i]
        while g < gap_from.size and gap_from[g] < t:
            if opened:
                end_ns[m], end_seq[m] = gap_from[g], LAST_SEQ
                m, opened = m + 1, False
            if t < gap_to[g]:
                break
            g += 1
        if g < gap_from.size and gap_from[g] < t:
            continue
        if opened:
            moved = abs(mid2[i] - anchor2[m])
            if t - start_ns[m] < dwell_ns and (threshold2 == 0 or moved < threshold2):
                continue
            end_ns[m], end_seq[m] = t, recv_seq[i]
            m += 1
        start_ns[m], start_seq[m], anchor2[m], opened = t, recv_seq[i], mid2[i], True
    at[OPEN], at[LAST_NS], at[LAST_FRAME_SEQ], at[GAP_AT] = opened, before_ns, before_seq, g
    if opened:
        at[START_NS], at[START_SEQ], at[ANCHOR] = start_ns[m], start_seq[m], anchor2[m]
    return start_ns[:m], start_seq[:m], end_ns[:m], end_seq[:m], anchor2[:m], -1
