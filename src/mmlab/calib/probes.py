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
from numba import njit

from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument

Ints = npt.NDArray[np.int64]
LAST_SEQ = np.iinfo(np.int64).max
DEPTH_COLUMNS = ("recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "ask_px_1")
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


def intervals(depth: pl.DataFrame, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec) -> Intervals:
    """Lay the probe intervals over `depth` (DEPTH_COLUMNS, in time order); raises DataError if it is not."""
    ticks = instrument.ticks
    mid2 = ticks.to_steps(column(depth, "bid_px_1")) + ticks.to_steps(column(depth, "ask_px_1"))
    run, epoch = column(depth, "run_id"), column(depth, "epoch_id")
    breaks = np.ones(depth.height, np.bool_)
    breaks[1:] = (run[1:] != run[:-1]) | (epoch[1:] != epoch[:-1])
    gap_from, gap_to = holes(gaps)
    recv_ns, recv_seq = column(depth, "recv_ns"), column(depth, "recv_seq")
    *laid, bad = _lay(recv_ns, recv_seq, breaks, mid2, gap_from, gap_to, spec.dwell_ns, spec.threshold_half_ticks)
    if bad >= 0:
        raise DataError(f"depth row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
    return Intervals(*laid)


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


@njit(cache=True)
def _lay(
    recv_ns: Ints,
    recv_seq: Ints,
    breaks: npt.NDArray[np.bool_],
    mid2: Ints,
    gap_from: Ints,
    gap_to: Ints,
    dwell_ns: int,
    threshold2: int,
) -> tuple[Ints, Ints, Ints, Ints, Ints, int]:
    """The greedy walk: close what ends before or at a frame, then open at the frame unless in a hole."""
    n = recv_ns.size
    start_ns, start_seq = np.empty(n, np.int64), np.empty(n, np.int64)
    end_ns, end_seq = np.empty(n, np.int64), np.empty(n, np.int64)
    anchor2 = np.empty(n, np.int64)
    m, g, opened = 0, 0, False
    for i in range(n):
        t = recv_ns[i]
        if i > 0 and (t < recv_ns[i - 1] or (t == recv_ns[i - 1] and recv_seq[i] <= recv_seq[i - 1])):
            return start_ns, start_seq, end_ns, end_seq, anchor2, i
        if opened and breaks[i]:
            end_ns[m], end_seq[m] = recv_ns[i - 1], recv_seq[i - 1]
            m, opened = m + 1, False
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
    if opened:
        end_ns[m], end_seq[m] = recv_ns[n - 1], recv_seq[n - 1]
        m += 1
    return start_ns[:m], start_seq[:m], end_ns[:m], end_seq[:m], anchor2[:m], -1
