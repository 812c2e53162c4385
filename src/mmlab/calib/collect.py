"""A tape that comes in chunks -> sums per bucket of time, as if it had come at once.

Days are read one by one, so that a month needs the memory of a day. What a chunk leaves open (the
interval that stands, the prints that may belong to the next one, the last frame) is carried into the
next chunk; `final_ns` tells up to when the sums cannot change any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.hits import TRADE_COLUMNS, Counter, Sums
from mmlab.calib.layout import MARKET_WIDTH
from mmlab.calib.probes import Intervals, Ints, Layer, Watch, column, key, pieces
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import TRADES

Arrays = npt.NDArray[Any]
Prints = pl.DataFrame | Iterable[pl.DataFrame]  # at once, or in pieces as they are read


@dataclass(frozen=True)
class Market:
    """What the book did, per bucket, each of shape (n_buckets,): sums that add up over buckets.

    spread_tick_us: spread in ticks times the time it stood, us; spread_us: that time.
    move2: squared moves of the mid in half ticks; move_us: the time between samples, which are taken at the first
    frame of each second of UTC, and of an epoch.
    """

    spread_tick_us: Ints
    spread_us: Ints
    move2: Ints
    move_us: Ints


class Collector:
    """Adds up a tape chunk by chunk; `add` in time order, then `close`, and `sums` at any time."""

    def __init__(
        self, gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec, origin_ns: int, bucket_ns: int
    ) -> None:
        self._layer = Layer(gaps, instrument, spec)
        self.counter = Counter(instrument, spec, origin_ns, bucket_ns)
        self._market = np.zeros((0, MARKET_WIDTH), np.int64)
        self._at = np.array([-1, 0, -1, 0], np.int64)
        self._waiting = TRADES.empty().select(TRADE_COLUMNS)  # prints whose interval has not ended yet
        self._newest = (-1, -1)  # the newest print

    def add(self, depth: pl.DataFrame, trades: Prints) -> None:
        """The next frames and prints (probes.DEPTH_COLUMNS, hits.TRADE_COLUMNS); raises DataError if out of order."""
        if depth.height:
            self._reserve(int(depth["recv_ns"][-1]))
        counter = self.counter
        laid = self._layer.add(depth, Watch(self._market, self._at, counter.origin_ns, counter.bucket_ns))
        for frame in [trades] if isinstance(trades, pl.DataFrame) else trades:
            for piece in pieces(frame):
                laid = self._count_ended(laid, piece)
        self._count(laid, self._waiting, self._stands_from)

    def close(self) -> None:
        """The tape is over: the interval that stands ends at its last frame."""
        laid = self._layer.close()
        if self._waiting.height or laid.start_ns.size:
            self.counter.add(laid, self._waiting)

    @property
    def final_ns(self) -> int:
        """Until when nothing that comes can change the sums."""
        return self._stands_from[0]

    @property
    def last_ns(self) -> int:
        """The newest frame, -1 before the first."""
        return self._layer.last_frame[0]

    @property
    def n_buckets(self) -> int:
        """Buckets held."""
        return self.counter.n_buckets

    def bucket_of(self, t: int) -> int:
        """Number of the bucket that begins at or holds an instant, at most `n_buckets`."""
        return min(max((t - self.counter.origin_ns) // self.counter.bucket_ns, 0), self.n_buckets)

    def sums(self, first: int, last: int) -> Sums:
        """What buckets [first, last) hold, counted from the counter's origin."""
        return self.counter.sums(first, last)

    def market(self, first: int, last: int) -> Market:
        """What the book did in buckets [first, last)."""
        return Market(*(self._market[first:last, i].copy() for i in range(MARKET_WIDTH)))

    def drop(self, n_buckets: int) -> None:
        """Let go of the first buckets, which are done with."""
        self.counter.drop(n_buckets)
        self._market = self._market[n_buckets:].copy()

    def state(self) -> dict[str, Arrays]:
        """All that later sums depend on; `restore` of a Collector made alike goes on from it."""
        waiting = {f"waiting.{name}": self._waiting[name].to_numpy() for name in self._waiting.columns}
        marks = np.array([*self._newest, *self._layer.epoch, self.counter.origin_ns, self.counter.intervals], np.int64)
        held = {f"held.{i}": a for i, a in enumerate(self.counter.held)}
        return {"marks": marks, "walk": self._layer.at, "watch": self._at, "market": self._market, **held, **waiting}

    def restore(self, state: Mapping[str, Arrays]) -> None:
        """Go on where `state` was taken."""
        ns, seq, run, epoch, self.counter.origin_ns, self.counter.intervals = (int(n) for n in state["marks"])
        self._newest, self._layer.epoch = (ns, seq), np.array([run, epoch], np.int64)
        self._layer.at, self._at, self._market = state["walk"], state["watch"], state["market"]
        self.counter.held = [state[f"held.{i}"] for i in range(len(self.counter.held))]
        prefix = "waiting."
        self._waiting = pl.DataFrame({n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)})

    def _reserve(self, until_ns: int) -> None:
        """Hold buckets up to an instant."""
        self.counter.reserve((until_ns - self.counter.origin_ns) // self.counter.bucket_ns + 1)
        more = self.counter.n_buckets - self._market.shape[0]
        self._market = np.concatenate([self._market, np.zeros((more, MARKET_WIDTH), np.int64)])

    def _count_ended(self, laid: Intervals, trades: pl.DataFrame) -> Intervals:
        """Count the intervals that ended before the last of these prints; returns the others, whose prints wait."""
        if trades.is_empty():
            return laid
        if key(trades, 0) <= self._newest:
            raise _late()
        self._newest = key(trades, -1)
        ended = _rank_of(laid.end_ns, laid.end_seq, self._newest)
        waiting = self._waiting
        if not ended:  # nothing to count yet: a long dwell copies nothing
            self._waiting = pl.concat([waiting, trades]) if waiting.height else trades
            return laid
        second = _start(laid, 1, self._stands_from)
        if waiting.height and key(waiting, -1) < second:
            n = _rank(trades, second)  # few: what waited is joined to them, not to the whole piece
            self._count(_part(laid, 0, 1), pl.concat([waiting, trades.head(n)]).rechunk(), second)
            if self._waiting.height:  # not all of them come before `second`
                raise _late()
            laid, trades, ended = _part(laid, 1, None), trades.slice(n), ended - 1
        elif waiting.height:
            trades = pl.concat([waiting, trades]).rechunk()
        self._count(_part(laid, 0, ended), trades, _start(laid, ended, self._stands_from))
        return _part(laid, ended, None)

    def _count(self, laid: Intervals, trades: pl.DataFrame, until: tuple[int, int]) -> None:
        """Count prints before `until`, those of these intervals and of none; the others wait."""
        if trades.height or laid.start_ns.size:
            n = _rank(trades, until)
            self.counter.add(laid, trades.head(n))
            self._waiting = trades.slice(n)

    @property
    def _stands_from(self) -> tuple[int, int]:
        """From when on prints may belong to an interval that has not ended."""
        return self._layer.open_from or self._layer.last_frame


def _late() -> DataError:
    """The error for prints out of order."""
    return DataError("trades are earlier than those before them", remedy="sort by recv_ns, recv_seq")


def _start(laid: Intervals, i: int, otherwise: tuple[int, int]) -> tuple[int, int]:
    """When interval i began, if there is one."""
    return (int(laid.start_ns[i]), int(laid.start_seq[i])) if i < laid.start_ns.size else otherwise


def _part(laid: Intervals, first: int, last: int | None) -> Intervals:
    """Intervals [first, last)."""
    return Intervals(*(getattr(laid, name)[first:last] for name in Intervals.__dataclass_fields__))


def _rank(trades: pl.DataFrame, key: tuple[int, int]) -> int:
    """How many rows come before (recv_ns, recv_seq)."""
    return _rank_of(column(trades, "recv_ns"), column(trades, "recv_seq"), key) if trades.height else 0


def _rank_of(ns: Ints, seq: Ints, key: tuple[int, int]) -> int:
    """How many of (ns, seq), which ascend, come before a key."""
    first, last = (int(np.searchsorted(ns, key[0], side)) for side in ("left", "right"))
    return first + int(np.searchsorted(seq[first:last], key[1]))
