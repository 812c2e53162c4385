"""What the venue knows: events in the order in which they happen, and the book, prints and ids they lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any

import msgspec

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_S

Level = tuple[str, str]


@dataclass
class Event:
    """One thing that happened at the venue. `first_id` to `last_id` are its ids (a print has one)."""

    at_ns: int  # when it is sent, on the venue's clock
    symbol: str
    stream: str  # depth, trade, aggTrade or bookTicker
    first_id: int
    last_id: int
    data: dict[str, Any]  # the message's data, without times
    times: dict[str, int]  # its times, ns

    def message(self, unit_ns: int) -> dict[str, Any]:
        """The message's data, times in the unit asked for."""
        return {**self.data, **{name: ns // unit_ns for name, ns in self.times.items()}}

    def move(self, at_ns: int) -> None:
        """Let it happen at another time."""
        self.at_ns, self.times = at_ns, dict.fromkeys(self.times, at_ns)

    def shifted(self, by: int) -> Event:
        """The same with other update ids, after updates that were put in."""
        ids: dict[str, Any] = {key: self.data[key] + by for key in ("U", "u", "pu") if key in self.data}
        return replace(self, first_id=self.first_id + by, last_id=self.last_id + by, data={**self.data, **ids})


def _at(at_ns: int, names: str) -> dict[str, int]:
    return dict.fromkeys(names, at_ns)


@dataclass(frozen=True)
class Listing:
    """An instrument as exchangeInfo lists it."""

    symbol: str
    tick_size: str
    lot_size: str
    status: str = "TRADING"


def depth_event(
    at_ns: int, symbol: str, ids: tuple[int, int, int | None], bids: list[Level], asks: list[Level]
) -> Event:
    """A depthUpdate; `ids` are U, u and, on USD-M, pu."""
    first, last, prev = ids
    futures = {} if prev is None else {"pu": prev}
    data = {"e": "depthUpdate", "s": symbol, "U": first, "u": last, **futures, "b": bids, "a": asks}
    return Event(at_ns, symbol, "depth", first, last, data, _at(at_ns, "E" if prev is None else "ET"))


def trade_event(at_ns: int, symbol: str, trade_id: int, price: str, qty: str, seller_took: bool, usdm: bool) -> Event:
    """A trade."""
    extra = {"X": "MARKET"} if usdm else {"M": True}
    data = {"e": "trade", "s": symbol, "t": trade_id, "p": price, "q": qty, "m": seller_took, **extra}
    return Event(at_ns, symbol, "trade", trade_id, trade_id, data, _at(at_ns, "ET"))


def agg_event(
    at_ns: int, symbol: str, agg_id: int, price: str, qty: str, seller_took: bool, ids: tuple[int, int]
) -> Event:
    """An aggregate of the trades `ids[0]` to `ids[1]`."""
    data = {"e": "aggTrade", "s": symbol, "a": agg_id, "p": price, "q": qty, "f": ids[0], "l": ids[1], "m": seller_took}
    return Event(at_ns, symbol, "aggTrade", agg_id, agg_id, data, _at(at_ns, "ET"))


def ticker_event(at_ns: int, symbol: str, update_id: int, touch: tuple[str, str, str, str], usdm: bool) -> Event:
    """A bookTicker; spot sends neither event type nor time."""
    bid, bid_qty, ask, ask_qty = touch
    data = {"u": update_id, "s": symbol, "b": bid, "B": bid_qty, "a": ask, "A": ask_qty}
    extra: dict[str, Any] = {"e": "bookTicker"} if usdm else {}
    return Event(at_ns, symbol, "bookTicker", update_id, update_id, {**extra, **data}, _at(at_ns, "ET" if usdm else ""))


@dataclass
class State:
    """One symbol as the venue sees it. Books are dictionaries of decimal text, as they were sent."""

    listing: Listing
    last_id: int = 0
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)
    trades: list[Event] = field(default_factory=list)
    aggregates: list[Event] = field(default_factory=list)
    happened: int = 0
    shift: int = 0  # update ids that were put in by the fault script

    def apply(self, event: Event) -> None:
        """The event happens."""
        self.happened += 1
        if event.stream == "depth":
            for side, levels in ((self.bids, event.data["b"]), (self.asks, event.data["a"])):
                for price, qty in levels:
                    if Decimal(qty) == 0:
                        side.pop(price, None)
                    else:
                        side[price] = qty
            self.last_id = event.last_id
        elif event.stream == "trade":
            self.trades.append(event)
        elif event.stream == "aggTrade":
            self.aggregates.append(event)

    def levels(self, limit: int) -> tuple[list[Level], list[Level]]:
        """The best `limit` levels of both sides."""
        bids = sorted(self.bids.items(), key=lambda level: -float(level[0]))[:limit]
        return bids, sorted(self.asks.items(), key=lambda level: float(level[0]))[:limit]

    def snapshot(self, limit: int) -> dict[str, Any]:
        """The answer of `depth`."""
        bids, asks = self.levels(limit)
        return {"lastUpdateId": self.last_id, "bids": bids, "asks": asks}


@dataclass(frozen=True)
class SynthSpec:
    """A seeded market: books of `levels` a side around a mid that jumps, prints at both sides of it."""

    symbols: tuple[str, ...] = ("TESTUSDT",)
    seed: int = 0
    updates_per_s: float = 10.0
    prints_per_s: float = 8.0
    changes: int = 6  # levels that an update changes
    levels: int = 200
    tick_size: str = "0.01"
    lot_size: str = "0.00001"
    mid: float = 1000.0
    usdm: bool = False
    first_id: int = 1_000_000

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) < len(self.symbols):
            raise UsageError("--symbol names no symbol, or one twice", remedy="give each once, like --symbol TESTUSDT")
        for flag, rate in (("--updates-per-s", self.updates_per_s), ("--prints-per-s", self.prints_per_s)):
            if not 0 < rate <= 1e6:
                raise UsageError(f"{flag} is {rate}", remedy="give a rate above 0, at most a million")


class Synthetic:
    """The events of a seeded market without end; each symbol has a generator of its own."""

    def __init__(self, spec: SynthSpec, start_ns: int) -> None:
        self.spec = spec
        self.listings = [Listing(symbol, spec.tick_size, spec.lot_size) for symbol in spec.symbols]
        self._makers = [_Maker(spec, symbol, n, start_ns) for n, symbol in enumerate(spec.symbols)]

    def states(self) -> dict[str, State]:
        """The venue before anything happens: full books."""
        return {
            maker.symbol: State(listing, maker.update_id, dict(maker.text(1)), dict(maker.text(-1)))
            for listing, maker in zip(self.listings, self._makers, strict=True)
        }

    def events(self) -> Iterator[Event]:
        """All symbols' events in the order of time."""
        streams = [maker.events() for maker in self._makers]
        heads = [next(stream) for stream in streams]
        while True:
            n = min(range(len(heads)), key=lambda i: heads[i].at_ns)
            yield heads[n]
            heads[n] = next(streams[n])


class _Maker:
    """One symbol's endless life. Prices are ticks, quantities lots; both become text when they are sent."""

    def __init__(self, spec: SynthSpec, symbol: str, n: int, start_ns: int) -> None:
        self.spec, self.symbol = spec, symbol
        self.update_id, self.trade_id, self.agg_id = spec.first_id, 500, 300
        self._rng = Random(spec.seed * 1009 + n)
        self._tick, self._lot = Decimal(spec.tick_size), Decimal(spec.lot_size)
        self._mid = round(Decimal(str(spec.mid)) / self._tick)
        self._now_ns = start_ns
        self._book = {
            side: {self._mid - side * i: self._rng.randint(1, 10**6) for i in range(1, spec.levels + 1)}
            for side in (1, -1)
        }

    def text(self, side: int) -> list[Level]:
        """One side as text."""
        return [(self._price(p), self._qty(q)) for p, q in self._book[side].items()]

    def _price(self, ticks: int) -> str:
        return f"{ticks * self._tick:.8f}"

    def _qty(self, lots: int) -> str:
        return f"{lots * self._lot:.8f}"

    def events(self) -> Iterator[Event]:
        """Updates and prints, exponentially spaced."""
        rng, spec = self._rng, self.spec
        total = spec.updates_per_s + spec.prints_per_s
        while True:
            self._now_ns += max(int(rng.expovariate(total) * NS_PER_S), 1)
            if rng.random() * total < spec.updates_per_s:
                yield self._update()
                yield self._ticker()
            else:
                yield from self._print()

    def _update(self) -> Event:
        rng, spec = self._rng, self.spec
        if rng.random() < 0.1:
            self._mid += rng.choice((-1, 1))
        changed: dict[int, dict[int, int]] = {1: {}, -1: {}}
        for side, book in self._book.items():
            for ticks in [t for t in book if (self._mid - t) * side < 1]:
                changed[side][ticks] = 0
            changed[side].setdefault(self._mid - side, rng.randint(1, 10**6))
        for _ in range(spec.changes):
            side = rng.choice((1, -1))
            ticks = self._mid - side * rng.randint(1, spec.levels)
            gone = rng.random() < 0.3 and ticks != self._mid - side
            changed[side].setdefault(ticks, 0 if gone else rng.randint(1, 10**6))
        for side, levels in changed.items():
            for ticks, lots in levels.items():
                if lots:
                    self._book[side][ticks] = lots
                else:
                    self._book[side].pop(ticks, None)
        first, before = self.update_id + 1, self.update_id
        self.update_id += rng.randint(1, 5)
        bids, asks = ([(self._price(t), self._qty(q)) for t, q in changed[side].items()] for side in (1, -1))
        ids = (first, self.update_id, before if spec.usdm else None)
        return depth_event(self._now_ns, self.symbol, ids, bids, asks)

    def _ticker(self) -> Event:
        bid, ask = self._mid - 1, self._mid + 1
        touch = (self._price(bid), self._qty(self._book[1][bid]), self._price(ask), self._qty(self._book[-1][ask]))
        return ticker_event(self._now_ns, self.symbol, self.update_id, touch, self.spec.usdm)

    def _print(self) -> Iterator[Event]:
        """A taker order: one or more trades, and their aggregate."""
        rng = self._rng
        side = rng.choice((1, -1))
        price = self._price(self._mid - side * (1 + int(rng.expovariate(0.25))))
        first, total = self.trade_id + 1, 0
        for _ in range(1 if rng.random() < 0.7 else rng.randint(2, 4)):
            self.trade_id += 1
            lots = rng.randint(1, 10**5)
            total += lots
            yield trade_event(
                self._now_ns, self.symbol, self.trade_id, price, self._qty(lots), side == 1, self.spec.usdm
            )
        self.agg_id += 1
        ids = (first, self.trade_id)
        yield agg_event(self._now_ns, self.symbol, self.agg_id, price, self._qty(total), side == 1, ids)


def text(value: float) -> str:
    """A decimal as the venue writes it: 8 places at least."""
    return f"{Decimal(repr(value)):.8f}"


def encode(content: Any) -> bytes:
    """JSON bytes."""
    return msgspec.json.encode(content)
