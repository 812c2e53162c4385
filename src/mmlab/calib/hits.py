"""Prints x probe intervals -> exposure and hits per time bucket, side and distance.

The only file that looks forward in time. Every print joins, as-of backward in (recv_ns, recv_seq),
the interval it fell into; its reach is the largest distance in ticks from the anchor mid at which a
probe would have been hit. A print that reached 13 also reached 1, 2, 3, 5 and 8, so one number a
print serves all distances: what it adds to a range of distances is written as a difference at the
range's two ends and summed up once, and 200 distances cost what 6 cost.

    first_hit  a print counts at the distances that no earlier print of the interval reached;
               their probes' exposure ends there.
               For the disjoint rings a taker order counts once, where its furthest print lands.
    sweeps     a print counts at the distances that no earlier print of its taker order (same venue
               time and side, consecutive ids) reached in this interval; exposure is the interval.
    all_hits   every print counts at every distance it reaches; exposure is the interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from mmlab.calib.probes import Intervals, Ints, column
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import OFF_GRID, Instrument
from mmlab.core.schemas import COUNT_RULES

TRADE_COLUMNS = ("recv_ns", "recv_seq", "trade_ns", "trade_id", "price", "qty", "taker")
SIDES = ("bid", "ask")  # index 0 and 1 of every array below
FIRST_HIT, SWEEPS, ALL_HITS = range(len(COUNT_RULES))


@dataclass(frozen=True)
class Sums:
    """Additive sums: exposure_ns, hits, rings and lots, each of shape (n_buckets, 2 sides, n_deltas).

    `rings` counts hits that reached this distance and not the next; `covered_ns`, shape
    (n_buckets,), is the time for which probes stood at all. Bucket i covers
    [origin_ns + i * bucket_ns, origin_ns + (i + 1) * bucket_ns).
    """

    origin_ns: int
    bucket_ns: int
    spec: ProbeSpec
    instrument: Instrument
    covered_ns: Ints
    exposure_ns: Ints
    hits: Ints
    rings: Ints
    lots: Ints


def sums(
    laid: Intervals,
    trades: pl.DataFrame,
    instrument: Instrument,
    spec: ProbeSpec,
    *,
    origin_ns: int,
    bucket_ns: int,
    n_buckets: int,
) -> Sums:
    """Join `trades` (TRADE_COLUMNS, in time order) to the probes; raises DataError if they are not in order."""
    if laid.start_ns.size and laid.start_ns[0] < origin_ns:
        raise ValueError("origin_ns lies after the first interval's start")
    deltas = np.array(spec.deltas, np.int64)
    rank_of = np.searchsorted(deltas, np.arange(deltas[-1] + 1), side="right")  # reach -> distances reached
    covered = _covered(laid.start_ns, laid.end_ns, origin_ns, bucket_ns, n_buckets)
    off, hits, rings, lots, bad = _count(
        (laid.start_ns, laid.start_seq, laid.end_ns, laid.end_seq, laid.mid2),
        tuple(column(trades, name) for name in ("recv_ns", "recv_seq", "trade_ns", "trade_id")),
        column(trades, "price"),
        column(trades, "qty"),
        column(trades, "taker"),
        (instrument.ticks.per_unit, instrument.lots.per_unit),
        rank_of,
        (origin_ns, bucket_ns, n_buckets, deltas.size),
        COUNT_RULES.index(spec.count),
        spec.reach == "through",
        spec.taker_side,
    )
    if bad >= 0:
        instrument.ticks.to_steps(column(trades, "price"))  # these name the price or quantity off its grid
        instrument.lots.to_steps(column(trades, "qty"))
        raise DataError(f"trades row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
    hits, lots, off = (np.cumsum(a, axis=2)[:, :, :-1] for a in (hits, lots, off))
    if spec.count != "first_hit":
        rings = hits - np.concatenate([hits[:, :, 1:], np.zeros_like(hits[:, :, :1])], axis=2)
    exposure = covered[:, None, None] - off
    return Sums(origin_ns, bucket_ns, spec, instrument, covered, exposure, hits, rings, lots)


@njit(cache=True)
def _add_span(into: Ints, from_ns: int, to_ns: int, sign: int, origin_ns: int, bucket_ns: int) -> None:
    """Add (`sign` 1) or take away (-1) the time [from_ns, to_ns) in the buckets it falls into."""
    while from_ns < to_ns:
        b = (from_ns - origin_ns) // bucket_ns
        edge = min(to_ns, origin_ns + (b + 1) * bucket_ns)
        into[b] += sign * (edge - from_ns)
        from_ns = edge


@njit(cache=True)
def _covered(start_ns: Ints, end_ns: Ints, origin_ns: int, bucket_ns: int, n_buckets: int) -> Ints:
    """Time per bucket during which a probe stood, shape (n_buckets,)."""
    covered = np.zeros(n_buckets, np.int64)
    for i in range(start_ns.size):
        _add_span(covered, start_ns[i], end_ns[i], 1, origin_ns, bucket_ns)
    return covered


@njit(cache=True)
def _count(
    laid: tuple[Ints, Ints, Ints, Ints, Ints],
    tape: tuple[Ints, ...],
    price: npt.NDArray[np.float64],
    qty: npt.NDArray[np.float64],
    taker: npt.NDArray[np.int8],
    per_unit: tuple[float, float],
    rank_of: Ints,
    shape: tuple[int, int, int, int],
    rule: int,
    through: bool,
    taker_side: bool,
) -> tuple[Ints, Ints, Ints, Ints, int]:
    """One pass over the prints: time off risk, hits, lots as differences along the distances, and rings.

    The last value is the first print out of time order or off its grid, -1 if none.
    """
    start_ns, start_seq, end_ns, end_seq, mid2 = laid
    recv_ns, recv_seq, trade_ns, trade_id = tape
    origin_ns, bucket_ns, n_buckets, n_deltas = shape
    off = np.zeros((n_buckets, 2, n_deltas + 1), np.int64)
    hits, volume = np.zeros_like(off), np.zeros_like(off)
    rings = np.zeros((n_buckets, 2, n_deltas), np.int64)
    best, mark = np.zeros(2, np.int64), np.full((2, 2), -1)  # a side: distances reached; order, bucket of the record
    j, order = -1, 0
    for i in range(recv_ns.size):
        t = recv_ns[i]
        if i > 0 and (t < recv_ns[i - 1] or (t == recv_ns[i - 1] and recv_seq[i] <= recv_seq[i - 1])):
            return off, hits, rings, volume, i
        ticks, lots = np.rint(price[i] * per_unit[0]), np.rint(qty[i] * per_unit[1])
        if not (abs(price[i] * per_unit[0] - ticks) <= OFF_GRID and abs(qty[i] * per_unit[1] - lots) <= OFF_GRID):
            return off, hits, rings, volume, i
        # as-of backward: the last interval that starts at or before this print
        while j + 1 < start_ns.size and (
            start_ns[j + 1] < t or (start_ns[j + 1] == t and start_seq[j + 1] <= recv_seq[i])
        ):
            j += 1
            best[:], mark[:] = 0, -1
        same_order = (
            i > 0 and trade_ns[i] == trade_ns[i - 1] and taker[i] == taker[i - 1] and trade_id[i] == trade_id[i - 1] + 1
        )
        order += not same_order
        if j < 0 or t > end_ns[j] or (t == end_ns[j] and recv_seq[i] >= end_seq[j]):
            continue
        # what earlier prints have already reached, by the counting rule
        if rule == ALL_HITS or (rule == SWEEPS and not same_order):
            best[:] = 0
        # reach in whole ticks from the anchor; at most one side's is positive
        below = mid2[j] - 2 * int(ticks)
        side = 0 if below > 0 else 1
        reach = abs(below) // 2 - (1 if through else 0)
        if reach < 1 or (taker_side and taker[i] != (-1 if side == 0 else 1)):
            continue
        rank = rank_of[min(reach, rank_of.size - 1)]
        b = (t - origin_ns) // bucket_ns
        if rule != FIRST_HIT and rank > 0:
            volume[b, side, 0] += int(lots)
            volume[b, side, rank] -= int(lots)
        before = best[side]
        if rank <= before:
            continue
        best[side] = rank
        hits[b, side, before] += 1
        hits[b, side, rank] -= 1
        if rule == FIRST_HIT:
            volume[b, side, before] += int(lots)
            volume[b, side, rank] -= int(lots)
            _add_span(off[:, side, before], t, end_ns[j], 1, origin_ns, bucket_ns)
            _add_span(off[:, side, rank], t, end_ns[j], -1, origin_ns, bucket_ns)
            if mark[side, 0] == order and mark[side, 1] == b:  # the same taker order reaches further
                rings[b, side, before - 1] -= 1
            rings[b, side, rank - 1] += 1
            mark[side, 0], mark[side, 1] = order, b
    return off, hits, rings, volume, -1
