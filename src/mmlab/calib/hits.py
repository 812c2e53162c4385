"""Prints x probe intervals -> exposure and hits per time bucket, side and distance.

The only file, with pass_kernels.py that it calls, that looks forward in time. Every print joins, as-of backward in
(recv_ns, recv_seq), the interval it fell into; its reach is the largest distance in ticks from the anchor mid at
which a probe would have been hit. A print that reached 13 also reached 1, 2, 3, 5 and 8, so one number a print serves
all distances: what it adds to a range of distances is written as a difference at the range's two ends and summed up
once, and 200 distances cost what 6 cost.

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
import polars as pl

from mmlab.calib.layout import FLOW_WIDTH, JOIN_WIDTH
from mmlab.calib.probes import AT_ONCE, Intervals, Ints, column, first_late, key
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.native import native
from mmlab.core.schemas import COUNT_RULES

TRADE_COLUMNS = ("recv_ns", "recv_seq", "trade_ns", "trade_id", "price", "qty", "taker")
SIDES = ("bid", "ask")  # index 0 and 1 of every array below

_prints = native("mmlab.calib.pass_kernels", "prints")


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

    `intervals` is how many were counted. `held` are the sums: time off risk, hits and lots as differences along the
    distances; rings; time covered, by distance if they take turns; flow. What is in them is this class's own affair.
    """

    def __init__(self, instrument: Instrument, spec: ProbeSpec, origin_ns: int, bucket_ns: int) -> None:
        self.instrument, self.spec = instrument, spec
        self.origin_ns, self.bucket_ns = origin_ns, bucket_ns
        self.intervals = 0
        self._newest = (-1, -1)  # the last print that was counted
        self._rank_of = np.searchsorted(np.array(spec.deltas), np.arange(spec.deltas[-1] + 1), side="right")
        n = len(spec.deltas)
        shapes = ((0, 2, n + 1),) * 3 + ((0, 2, n), (0, n if spec.cycle else 1), (0, FLOW_WIDTH))
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
        until_ns = self.origin_ns + self.n_buckets * self.bucket_ns
        if laid.start_ns.size and (laid.start_ns.min() < self.origin_ns or laid.end_ns.max() > until_ns):
            raise ValueError("intervals lie outside the buckets")
        off, hits, lots, rings, covered, flow = self.held
        spec, steps = self.spec, (self.instrument.ticks, self.instrument.lots)
        faulty = _prints(
            *(column(trades, name) for name in TRADE_COLUMNS), *(grid.per_unit for grid in steps), *vars(laid).values(),
            self._rank_of, covered[:, None], off, hits, lots, rings, flow,
            self.origin_ns, self.bucket_ns, self.intervals if spec.cycle else -1,
            COUNT_RULES.index(spec.count), spec.reach == "through", spec.taker_side,
            np.empty(JOIN_WIDTH, np.int64), np.empty((2, AT_ONCE), np.int64),
        )  # fmt: skip
        bad = 0 if trades.height and key(trades, 0) <= self._newest else -1
        if faulty:
            for grid, name in zip(steps, ("price", "qty"), strict=True):
                grid.to_steps(column(trades, name))  # names the one that is off its grid
            bad = first_late(column(trades, "recv_ns"), column(trades, "recv_seq"))
        if bad >= 0:
            raise DataError(f"trades row {bad} is earlier than the row before it", remedy="sort by recv_ns, recv_seq")
        self.intervals += laid.start_ns.size
        self._newest = key(trades, -1) if trades.height else self._newest

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
