"""Candles and funding of a seeded market: every minute is computed from its number alone, so any range is at hand.

The price at the start of minute m is mid * (1 + sum over k of a_k noise_k(m)): noise_k is drawn at every P_k-th
minute and straight in between (value noise), and a_k grows with the root of P_k, as a random walk's range does. A bar
of any interval is made of its minutes in whole ticks and lots, so bars of all intervals agree exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS

UNITS = 10**8  # of a price or quantity that is sent with eight places
PERIODS = tuple(8**k for k in range(7))  # minutes: 1 to 262,144, half a year
STEP = 0.0003  # a_k / sqrt(P_k)
FUNDING_NS = 8 * 60 * NS_PER_MIN
LISTED_NS = 1_567_900_800_000_000_000  # 2019-09-08
BLOCK = 1 << 17  # minutes computed at a time
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CandleSpec:
    """Which market. Nothing traded before `listed_ns`, nor in the `outages`, [from, to) in ns UTC."""

    symbols: tuple[str, ...]
    seed: int = 0
    tick_size: str = "0.01"
    lot_size: str = "0.00001"
    mid: float = 1000.0
    usdm: bool = False
    listed_ns: int = LISTED_NS
    outages: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.mid / float(self.tick_size) >= 100:
            raise UsageError(f"mid is {self.mid}", remedy=f"give at least 100 ticks of {self.tick_size}")


@dataclass(frozen=True)
class Bars:
    """Candles as whole numbers: times in ns, prices in ticks, quantities in lots; each array of shape (n,)."""

    open_ns: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints
    bought: Ints
    trades: Ints


class Candles:
    """The history of every symbol of a spec."""

    def __init__(self, spec: CandleSpec) -> None:
        self.spec = spec
        self.tick, self.lot = (int(Decimal(size) * UNITS) for size in (spec.tick_size, spec.lot_size))
        self._keys = {symbol: spec.seed * 1009 + n for n, symbol in enumerate(spec.symbols)}

    def bars(self, symbol: str, interval_ns: int, from_ns: int, to_ns: int, limit: int, now_ns: int) -> Bars:
        """The first `limit` bars that open in [from_ns, to_ns) and by `now_ns`; the newest may not be finished."""
        first = max(-(-from_ns // interval_ns), self.spec.listed_ns // interval_ns)
        end = min(-(-to_ns // interval_ns), now_ns // interval_ns + 1)
        step = max(min(limit, BLOCK * NS_PER_MIN // interval_ns), 1)
        found: list[Bars] = []
        count = 0
        while first < end and count < limit:
            found.append(self._block(symbol, interval_ns, first, min(first + step, end), now_ns))
            count += len(found[-1].open_ns)
            first += step
        names = Bars.__dataclass_fields__
        empty = [np.zeros(0, np.int64)]
        return Bars(**{name: np.concatenate([getattr(b, name) for b in found] or empty)[:limit] for name in names})

    def funding(self, symbol: str, from_ns: int, to_ns: int, limit: int, now_ns: int) -> list[tuple[int, int]]:
        """(settled at in ns, rate in units of 1e-8) of the first `limit` settlements in [from_ns, to_ns)."""
        first = max(from_ns // FUNDING_NS, -(-self.spec.listed_ns // FUNDING_NS))
        number = np.arange(first, min(to_ns, now_ns) // FUNDING_NS + 1, dtype=np.int64)
        late = _draw(self._keys[symbol], 90, number) % np.uint64(8)  # the venue's times are a few ms late
        rate = (_draw(self._keys[symbol], 91, number) % np.uint64(60_001)).astype(np.int64) - 25_000
        at = number * FUNDING_NS + late.astype(np.int64) * NS_PER_MS
        kept = (at >= from_ns) & (at < to_ns) & (at <= now_ns)
        return list(zip(at[kept][:limit].tolist(), rate[kept][:limit].tolist(), strict=True))

    def _block(self, symbol: str, interval_ns: int, first: int, end: int, now_ns: int) -> Bars:
        """Bars number `first` to `end`, without those in which nothing traded."""
        per = interval_ns // NS_PER_MIN
        running = now_ns // NS_PER_MIN
        minute = np.arange(first * per, min(end * per, running + 1), dtype=np.int64)
        at = minute * NS_PER_MIN
        traded = at >= self.spec.listed_ns
        for from_ns, to_ns in self.spec.outages:
            traded &= (at < from_ns) | (at >= to_ns)
        minute = minute[traded]
        made = self._minutes(self._keys[symbol], minute, running, now_ns % NS_PER_MIN / NS_PER_MIN)
        bar = minute // per
        starts = np.flatnonzero(np.diff(bar, prepend=-1))
        if not len(starts):
            return made
        last = np.append(starts[1:], len(bar)) - 1
        return Bars(
            bar[starts] * interval_ns,
            made.open[starts],
            np.maximum.reduceat(made.high, starts),
            np.minimum.reduceat(made.low, starts),
            made.close[last],
            *(np.add.reduceat(each, starts) for each in (made.volume, made.bought, made.trades)),
        )

    def _minutes(self, key: int, minute: Ints, running: int, elapsed: float) -> Bars:
        """One-minute bars; of the running one so much as has elapsed of it."""
        start, end = self._price(key, minute), self._price(key, minute + 1)
        wick = np.uint64(max(int(self.spec.mid / float(self.spec.tick_size) * 2 * STEP), 2))
        up, down, volume, bought, trades = (_draw(key, 80 + n, minute) for n in range(5))
        lots = 1 + (volume % np.uint64(10**6)).astype(np.int64)
        share = np.where(minute == running, elapsed, 1.0)  # 1.0 leaves whole numbers as they are
        close = start + np.floor((end - start) * share).astype(np.int64)
        total = np.ceil(lots * share).astype(np.int64)
        return Bars(
            minute * NS_PER_MIN,
            start,
            np.maximum(start, close) + np.floor((up % wick).astype(np.int64) * share).astype(np.int64),
            np.minimum(start, close) - np.floor((down % wick).astype(np.int64) * share).astype(np.int64),
            close,
            total,
            (bought % (total + 1).astype(np.uint64)).astype(np.int64),
            np.ceil((1 + (trades % np.uint64(200)).astype(np.int64)) * share).astype(np.int64),
        )

    def _price(self, key: int, minute: Ints) -> Ints:
        """Ticks at the start of a minute."""
        move = np.zeros(len(minute))
        for octave, period in enumerate(PERIODS):
            node = minute // period
            low, high = (_draw(key, octave, node + side) / 2.0**63 - 1.0 for side in (0, 1))
            move += STEP * period**0.5 * (low + (high - low) * (minute % period / period))
        return np.rint(self.spec.mid / float(self.spec.tick_size) * (1.0 + move)).astype(np.int64)


def _draw(key: int, what: int, number: Ints) -> NDArray[np.uint64]:
    """A draw for each number, uniform over 64 bits (splitmix64: Steele, Lea and Flood, OOPSLA 2014)."""
    seed = (key * 1_000_003 + what) * 0xD1342543DE82EF95 % 2**64
    z = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def decimal(units: int) -> str:
    """Units of 1e-8 as the venue writes them: 8 places."""
    sign, units = ("-", -units) if units < 0 else ("", units)
    return f"{sign}{units // UNITS}.{units % UNITS:08d}"


def kline_rows(candles: Candles, bars: Bars, interval_ns: int, unit_ns: int) -> list[list[Any]]:
    """The answer of `klines`: twelve columns, the same for spot and USD-M."""
    rows = []
    columns = (getattr(bars, name).tolist() for name in Bars.__dataclass_fields__)
    for at, first, high, low, last, volume, bought, trades in zip(*columns, strict=True):
        prices = [decimal(price * candles.tick) for price in (first, high, low, last)]
        mean = (high + low) * candles.tick // 2
        quote, paid = (decimal(mean * lots * candles.lot // UNITS) for lots in (volume, bought))
        rows.append([
            at // unit_ns, *prices, decimal(volume * candles.lot), (at + interval_ns) // unit_ns - 1, quote, trades,
            decimal(bought * candles.lot), paid, "0",
        ])  # fmt: skip
    return rows
