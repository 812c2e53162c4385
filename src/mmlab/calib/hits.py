"""Prints x probe intervals -> exposure and hits per time bucket, side and distance.

The only file that looks forward in time. Every print joins, as-of backward in (recv_ns, recv_seq),
the interval it fell into; its reach is the largest distance in ticks from the anchor mid at which a
probe would have been hit. A print that reached 13 also reached 1, 2, 3, 5 and 8, so one number a
print serves all distances: what it adds to a range of distances is written as a difference at the
range's two ends and summed up once, and 200 distances cost what 6 cost. What earlier prints of an
interval reached is a running maximum, and only prints that go beyond it are looked at one by one.

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

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.buckets import add_cells, add_ranges, add_times, totals
from mmlab.calib.probes import Intervals, Ints, column, out_of_order
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import COUNT_RULES

TRADE_COLUMNS = ("recv_ns", "recv_seq", "trade_ns", "trade_id", "price", "qty", "taker")
SIDES = ("bid", "ask")  # index 0 and 1 of every array below
FIRST_HIT, SWEEPS, ALL_HITS = COUNT_RULES
# what a Counter holds; OFF (time off risk), HITS and LOTS as differences along the distances, COVERED by distance
# if they take turns
OFF, HITS, LOTS, RINGS, COVERED, FLOW = range(6)
BLOCK = 1 << 16  # prints that are looked at together, so that what is made of them stays in the cache


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


@dataclass(frozen=True)
class Tape:
    """Prints in time order, six arrays of shape (n_prints,): times in ns, price in ticks, quantity in lots."""

    recv_ns: Ints
    ticks: Ints
    lots: Ints
    trade_ns: Ints
    trade_id: Ints
    taker: npt.NDArray[np.int8]

    def order(self, rows: slice) -> Ints:
        """Number of each print's taker order: another venue time or side, or a gap in ids, begins the next."""
        ns, number, taker = self.trade_ns[rows], self.trade_id[rows], self.taker[rows]
        begins = np.ones(ns.size, np.bool_)
        begins[1:] = (ns[1:] != ns[:-1]) | (taker[1:] != taker[:-1]) | (number[1:] != number[:-1] + 1)
        return np.cumsum(begins)


class Reached(NamedTuple):
    """Prints that reached a side's distances: row on the tape, interval, taker order, number of distances reached."""

    at: Ints
    owner: Ints
    order: Ints
    rank: Ints


class Counter:
    """Joins prints to intervals, chunk after chunk, and adds up what they hit in buckets of time.

    `intervals` is how many were counted; `held` are the sums, whose layout is this class's own affair.
    """

    def __init__(self, instrument: Instrument, spec: ProbeSpec, origin_ns: int, bucket_ns: int) -> None:
        self.instrument, self.spec = instrument, spec
        self.origin_ns, self.bucket_ns = origin_ns, bucket_ns
        self.intervals = 0
        beyond = spec.reach == "through"  # a tick farther
        behind = np.arange(2 * (spec.deltas[-1] + beyond) + 1)  # half ticks from the anchor, on a side
        self._rank_of = np.searchsorted(np.array(spec.deltas), behind // 2 - beyond, side="right")
        self._least = 2 * (1 + beyond)
        n = len(spec.deltas)
        shapes = ((0, 2, n + 1),) * 3 + ((0, 2, n), (0, n if spec.cycle else 1), (0, 3))
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
        recv_ns, recv_seq = column(trades, "recv_ns"), column(trades, "recv_seq")
        bad = out_of_order(recv_ns, recv_seq)
        if bad >= 0:
            raise DataError(f"trades row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
        tape = Tape(
            recv_ns,
            self.instrument.ticks.to_steps(column(trades, "price")),
            self.instrument.lots.to_steps(column(trades, "qty")),
            *(column(trades, name) for name in ("trade_ns", "trade_id", "taker")),
        )
        self._add_flow(tape)
        numbers = self.intervals + np.arange(laid.start_ns.size)
        turns = numbers % len(self.spec.deltas) if self.spec.cycle else np.zeros(laid.start_ns.size, np.int64)
        add_times(self.held[COVERED], turns, laid.start_ns, laid.end_ns, self.origin_ns, self.bucket_ns)
        low, high = _prints_of(laid, recv_ns, recv_seq)
        cuts = sorted({*np.searchsorted(low, np.arange(0, recv_ns.size, BLOCK)).tolist(), low.size})
        for part in itertools.starmap(slice, itertools.pairwise(cuts)):
            for side, found in enumerate(self._reached(tape, laid, part, low, high)):
                self._count(side, tape, laid, turns, found)
        self.intervals += laid.start_ns.size

    def _add_flow(self, tape: Tape) -> None:
        """Every print of the tape, in a probe's interval or not; those outside the buckets are left out."""
        flow = self.held[FLOW]
        edges = np.searchsorted(tape.recv_ns, self.origin_ns + self.bucket_ns * np.arange(flow.shape[0] + 1))
        flow[:, 0] += np.diff(edges)
        flow[:, 1] += totals(tape.lots, edges)
        flow[:, 2] += totals(np.where(tape.taker == 1, tape.lots, 0), edges)

    def _reached(self, tape: Tape, laid: Intervals, part: slice, low: Ints, high: Ints) -> list[Reached]:
        """Prints of some consecutive intervals that may count on either side; a print reaches one at most."""
        rows = slice(int(low[part.start]), int(high[part.stop - 1]))
        if rows.start == rows.stop:
            return []
        n = np.diff(np.append(low[part], rows.stop))  # with those between an interval's end and the next one's start
        most = self._rank_of.size  # what lies farther reaches no more
        base = np.repeat(np.arange(0, n.size * most, most), n)
        below = np.repeat(laid.mid2[part], n) - 2 * tape.ticks[rows]
        if (n > (high - low)[part]).any():
            below[np.arange(rows.start, rows.stop) >= np.repeat(high[part], n)] = 0  # in no interval
        order, found = tape.order(rows), []
        for sign, taker in ((1, -1), (-1, 1)):
            behind = np.clip(sign * below, 0, most - 1)
            if self.spec.taker_side:
                behind[tape.taker[rows] != taker] = 0
            reached = behind >= self._least
            if self.spec.count == FIRST_HIT:
                reached &= _goes_beyond(base + behind)
            at = np.flatnonzero(reached)
            owner, rank = part.start + base[at] // most, self._rank_of[behind[at]]
            found.append(Reached(rows.start + at, owner, order[at], rank))
        return found

    def _count(self, side: int, tape: Tape, laid: Intervals, turns: Ints, found: Reached) -> None:
        """Count the prints that reached a side's distances."""
        if found.at.size == 0:
            return
        off, hits, lots, rings = (a.reshape(self.n_buckets, -1, copy=False) for a in self.held[:COVERED])
        n = len(self.spec.deltas)
        far, ring, where = side * (n + 1), side * n, (self.origin_ns, self.bucket_ns)  # this side's first columns
        rule, (at, owner, order, rank) = self.spec.count, found
        low, turn = _reached_before(rule, found), np.zeros_like(rank)
        if self.spec.cycle:  # only one distance has a probe
            turn = turns[owner]
            low, rank = np.maximum(low, turn), np.minimum(rank, turn + 1)
        if rule != FIRST_HIT:
            some = np.flatnonzero(rank > turn)
            add_ranges(lots, self._bucket(tape, at[some]), far + turn[some], far + rank[some], tape.lots[at[some]])
        record = np.flatnonzero(rank > low)
        at, owner, order, low, rank = (a[record] for a in (at, owner, order, low, rank))
        bucket = self._bucket(tape, at)
        add_ranges(hits, bucket, far + low, far + rank, 1)
        if rule == FIRST_HIT:
            add_ranges(lots, bucket, far + low, far + rank, tape.lots[at])
            add_times(off, far + low, tape.recv_ns[at], laid.end_ns[owner], *where, far + rank)
        add_cells(rings, bucket, ring + rank - 1, 1)
        further = np.flatnonzero((np.diff(owner) == 0) & (np.diff(order) == 0) & (np.diff(bucket) == 0)) + 1
        add_cells(rings, bucket[further], ring + low[further] - 1, -1)  # the same taker order reaches further

    def _bucket(self, tape: Tape, at: Ints) -> Ints:
        """Into which buckets rows of the tape fall."""
        return np.asarray((tape.recv_ns[at] - self.origin_ns) // self.bucket_ns, np.int64)

    def sums(self, first: int, last: int) -> Sums:
        """What buckets [first, last) hold."""
        off, hits, lots, rings, covered, flow = (a[first:last] for a in self.held)
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


def _prints_of(laid: Intervals, recv_ns: Ints, recv_seq: Ints) -> tuple[Ints, Ints]:
    """Each interval's first print, and the first after it."""
    low = _before(recv_ns, recv_seq, laid.start_ns, laid.start_seq)
    high = np.roll(low, -1)  # most intervals end where the next one starts
    other = np.ones(low.size, np.bool_)
    other[:-1] = (laid.end_ns[:-1] != laid.start_ns[1:]) | (laid.end_seq[:-1] != laid.start_seq[1:])
    high[other] = _before(recv_ns, recv_seq, laid.end_ns[other], laid.end_seq[other])
    return low, high


def _before(recv_ns: Ints, recv_seq: Ints, ns: Ints, seq: Ints) -> Ints:
    """How many rows, in order of (recv_ns, recv_seq), come before each (ns, seq)."""
    n = np.searchsorted(recv_ns, ns)
    while True:  # rows of one time, one after the other
        at = np.minimum(n, recv_ns.size - 1)
        earlier = (n < recv_ns.size) & (recv_ns[at] == ns) & (recv_seq[at] < seq) if recv_ns.size else n < 0
        if not earlier.any():
            return n
        n += earlier


def _goes_beyond(values: Ints) -> npt.NDArray[np.bool_]:
    """Which values are above all before them."""
    beyond = np.ones(values.size, np.bool_)
    np.greater(values[1:], np.maximum.accumulate(values)[:-1], out=beyond[1:])
    return beyond


def _reached_before(rule: str, found: Reached) -> Ints:
    """How many distances earlier prints have reached, by the counting rule: in the interval, or of the taker order."""
    if rule == ALL_HITS:
        return np.zeros_like(found.rank)
    group = found.owner - found.owner[0]
    if rule == SWEEPS:
        group = group + found.order  # both ascend, so that a change of either shows
    base = group * (int(found.rank.max()) + 1)
    best = np.maximum.accumulate(base + found.rank)
    low: Ints = np.zeros_like(base)
    np.subtract(best[:-1], base[1:], out=low[1:])
    np.maximum(low, 0, out=low)
    return low
