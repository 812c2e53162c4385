"""Prints x probe intervals -> exposure and hits per time bucket, side and distance.

The only file that looks forward in time. Every print joins, as-of backward in (recv_ns, recv_seq),
the interval it fell into; its reach is the largest distance in ticks from the anchor mid at which a
probe would have been hit. A print that reached 13 also reached 1, 2, 3, 5 and 8, so one number a
print serves all distances: what it adds to a range of distances is written as a difference at the
range's two ends and summed up once, and 200 distances cost what 6 cost.

    first_hit  a print counts at the distances that no earlier print of the interval reached;
               their probes' exposure ends there.
               For the disjoint rings a taker order counts once, where its furthest print lands;
               under sweeps too, once in each bucket of time in which it reaches further.
    sweeps     a print counts at the distances that no earlier print of its taker order (same venue
               time and side, consecutive ids) reached in this interval; exposure is the interval.
    all_hits   every print counts at every distance it reaches; exposure is the interval.

With `cycle`, interval i has a probe at distance number i modulo n_deltas only, so that the distances
share no interval and their hits are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.probes import Intervals, Ints, column
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import OFF_GRID, Instrument
from mmlab.core.kernels import kernel
from mmlab.core.schemas import COUNT_RULES

TRADE_COLUMNS = ("recv_ns", "recv_seq", "trade_ns", "trade_id", "price", "qty", "taker")
SIDES = ("bid", "ask")  # index 0 and 1 of every array below
FIRST_HIT, SWEEPS, ALL_HITS = range(len(COUNT_RULES))


@dataclass(frozen=True)
class Sums:
    """Additive sums: exposure_ns, hits, rings and lots, each of shape (n_buckets, 2 sides, n_deltas).

    `rings` counts hits that reached this distance and not the next (with `cycle`: all of them);
    `covered_ns`, shape (n_buckets,), is the time for which probes stood at all; `flow`, shape
    (n_buckets, 3), the tape's prints, their lots, and the lots whose taker bought. Bucket i covers
    [origin_ns + i * bucket_ns, origin_ns + (i + 1) * bucket_ns).
    """

    origin_ns: int
    bucket_ns: int
    deltas: tuple[float, ...]
    count: str
    instrument: Instrument
    covered_ns: Ints
    exposure_ns: Ints
    hits: Ints
    rings: Ints
    lots: Ints
    flow: Ints


class Counter:
    """Joins prints to intervals, chunk after chunk, and adds up what they hit in buckets of time.

    `intervals` is how many were counted; `held` are the sums, whose layout is this class's own affair.
    """

    def __init__(self, instrument: Instrument, spec: ProbeSpec, origin_ns: int, bucket_ns: int) -> None:
        self.instrument, self.spec = instrument, spec
        self.origin_ns, self.bucket_ns = origin_ns, bucket_ns
        self.intervals = 0
        self._rank_of = np.searchsorted(np.array(spec.deltas), np.arange(spec.deltas[-1] + 1), side="right")
        # off, hits and lots as differences along the distances; rings; flow; covered: by distance if they take turns
        n = len(spec.deltas)
        shapes = ((0, 2, n + 1),) * 3 + ((0, 2, n), (0, 3), (0, n if spec.cycle else 1))
        self.held = [np.zeros(shape, np.int64) for shape in shapes]

    @property
    def n_buckets(self) -> int:
        """Buckets held, from `origin_ns`."""
        return self.held[0].shape[0]

    def reserve(self, n_buckets: int) -> None:
        """Hold at least `n_buckets`."""
        more = n_buckets - self.n_buckets
        if more > 0:
            self.held = [np.concatenate([a, np.zeros((more, *a.shape[1:]), np.int64)]) for a in self.held]

    def drop(self, n_buckets: int) -> None:
        """Let go of the first `n_buckets`, which are done with."""
        self.held = [a[n_buckets:].copy() for a in self.held]
        self.origin_ns += n_buckets * self.bucket_ns

    def add(self, laid: Intervals, trades: pl.DataFrame) -> None:
        """Count `trades` (TRADE_COLUMNS, in time order) against `laid`; an interval needs all its prints at once.

        Raises DataError if rows are not in time order, TableError for a price or quantity off its grid.
        """
        if laid.start_ns.size and laid.start_ns[0] < self.origin_ns:
            raise ValueError("origin_ns lies after the first interval's start")
        off, hits, lots, rings, flow, covered = self.held
        base = self.intervals if self.spec.cycle else -1
        _cover(laid.start_ns, laid.end_ns, covered, base, self.origin_ns, self.bucket_ns)
        bad = _count(
            (laid.start_ns, laid.start_seq, laid.end_ns, laid.end_seq, laid.mid2),
            tuple(column(trades, name) for name in ("recv_ns", "recv_seq", "trade_ns", "trade_id")),
            column(trades, "price"),
            column(trades, "qty"),
            column(trades, "taker"),
            (self.instrument.ticks.per_unit, self.instrument.lots.per_unit),
            self._rank_of,
            (off, hits, lots, rings, flow),
            (self.origin_ns, self.bucket_ns, base),
            COUNT_RULES.index(self.spec.count),
            self.spec.reach == "through",
            self.spec.taker_side,
        )
        self.intervals += laid.start_ns.size
        if bad >= 0:
            self.instrument.ticks.to_steps(column(trades, "price"))  # these name the price or quantity off its grid
            self.instrument.lots.to_steps(column(trades, "qty"))
            raise DataError(f"trades row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")

    def sums(self, first: int, last: int) -> Sums:
        """What buckets [first, last) hold."""
        off, hits, lots, rings, flow, covered = (a[first:last] for a in self.held)
        hits, lots, off = (np.cumsum(a, axis=2)[:, :, :-1] for a in (hits, lots, off))
        if self.spec.cycle:
            rings = hits
        elif self.spec.count == "all_hits":
            rings = hits - np.concatenate([hits[:, :, 1:], np.zeros_like(hits[:, :, :1])], axis=2)
        exposure = covered[:, None, :] - off
        origin = self.origin_ns + first * self.bucket_ns
        stood = covered.sum(axis=1)
        spec = self.spec
        return Sums(
            origin, self.bucket_ns, spec.deltas, spec.count, self.instrument,
            stood, exposure, hits, rings.copy(), lots, flow.copy(),
        )  # fmt: skip


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
    counter = Counter(instrument, spec, origin_ns, bucket_ns)
    counter.reserve(n_buckets)
    counter.add(laid, trades)
    return counter.sums(0, n_buckets)


@kernel
def add_span(into: Ints, from_ns: int, to_ns: int, sign: int, origin_ns: int, bucket_ns: int) -> None:
    """Add (`sign` 1) or take away (-1) the time [from_ns, to_ns) in the buckets it falls into."""
    while from_ns < to_ns:
        b = (from_ns - origin_ns) // bucket_ns
        edge = min(to_ns, origin_ns + (b + 1) * bucket_ns)
        into[b] += sign * (edge - from_ns)
        from_ns = edge


@kernel
def _add_flow(flow: Ints, b: int, lots: int, taker: int) -> None:
    """One print of the tape, in a probe's interval or not; those outside the buckets are left out."""
    if 0 <= b < flow.shape[0]:
        flow[b, 0] += 1
        flow[b, 1] += lots
        flow[b, 2] += lots if taker == 1 else 0


@kernel
def _cover(start_ns: Ints, end_ns: Ints, covered: Ints, base: int, origin_ns: int, bucket_ns: int) -> None:
    """Add the time for which probes stood: at all distances (base -1), or in turn, from interval number `base`."""
    n_deltas = covered.shape[1]
    for i in range(start_ns.size):
        column = 0 if base < 0 else (base + i) % n_deltas
        add_span(covered[:, column], start_ns[i], end_ns[i], 1, origin_ns, bucket_ns)


@kernel
def _count(
    laid: tuple[Ints, Ints, Ints, Ints, Ints],
    tape: tuple[Ints, ...],
    price: npt.NDArray[np.float64],
    qty: npt.NDArray[np.float64],
    taker: npt.NDArray[np.int8],
    per_unit: tuple[float, float],
    rank_of: Ints,
    into: tuple[Ints, Ints, Ints, Ints, Ints],
    where: tuple[int, int, int],
    rule: int,
    through: bool,
    taker_side: bool,
) -> int:
    """One pass over the prints: time off risk, hits and lots as differences along the distances, rings, flow.

    `where` is origin_ns, bucket_ns, and the number of the first interval in the cycle (-1: no cycle).
    Returns the first print out of time order or off its grid, -1 if none.
    """
    start_ns, start_seq, end_ns, end_seq, mid2 = laid
    recv_ns, recv_seq, trade_ns, trade_id = tape
    off, hits, volume, rings, flow = into
    origin_ns, bucket_ns, base = where
    n_deltas = rings.shape[2]
    best, mark = np.zeros(2, np.int64), np.full((2, 2), -1)  # a side: distances reached; order, bucket of the record
    j, order = -1, 0
    for i in range(recv_ns.size):
        t = recv_ns[i]
        if i > 0 and (t < recv_ns[i - 1] or (t == recv_ns[i - 1] and recv_seq[i] <= recv_seq[i - 1])):
            return i
        ticks, lots = np.rint(price[i] * per_unit[0]), np.rint(qty[i] * per_unit[1])
        if not (abs(price[i] * per_unit[0] - ticks) <= OFF_GRID and abs(qty[i] * per_unit[1] - lots) <= OFF_GRID):
            return i
        b = (t - origin_ns) // bucket_ns
        _add_flow(flow, b, int(lots), taker[i])
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
        first, low, rank = 0, best[side], rank_of[min(reach, rank_of.size - 1)]
        best[side] = max(low, rank)
        if base >= 0:  # only one distance has a probe
            first = (base + j) % n_deltas
            low, rank = max(low, first), min(rank, first + 1)
        if rule != FIRST_HIT and rank > first:
            volume[b, side, first] += int(lots)
            volume[b, side, rank] -= int(lots)
        if rank <= low:
            continue
        hits[b, side, low] += 1
        hits[b, side, rank] -= 1
        if rule == FIRST_HIT:
            volume[b, side, low] += int(lots)
            volume[b, side, rank] -= int(lots)
            add_span(off[:, side, low], t, end_ns[j], 1, origin_ns, bucket_ns)
            add_span(off[:, side, rank], t, end_ns[j], -1, origin_ns, bucket_ns)
        if mark[side, 0] == order and mark[side, 1] == b:  # the same taker order reaches further
            rings[b, side, low - 1] -= 1
        rings[b, side, rank - 1] += 1
        mark[side, 0], mark[side, 1] = order, b
    return -1
