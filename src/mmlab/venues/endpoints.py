"""Where a venue is reached and what it demands, as data: URLs, paths, weights, streams; and its REST answers read.

Binance spot: https://developers.binance.com, Web Socket Streams and REST API. USD-M since its URLs were
split (2026-03): books and trades under /public, aggregates under /market, a connection for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from mmlab.core.errors import FeedError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.venues import binance_spot, binance_usdm
from mmlab.venues.binance import Feed, Printed, RestAggTrade, RestTrade, Snapshot

KINDS = ("depth", "trade", "aggTrade", "bookTicker")
TRADES_LIMIT = 1000  # prints in one answer, at most


@dataclass(frozen=True)
class Request:
    """One REST request: path with its query, and what it costs of the weight that a minute allows."""

    path: str
    weight: int


@dataclass(frozen=True)
class Venue:
    """One venue as its clients see it. `routes`: kind of stream -> path of the socket that carries it."""

    feed: Feed
    ws_url: str
    rest_url: str
    routes: Mapping[str, str]
    api: str  # prefix of the REST paths
    query: str  # added to the socket's query
    headers: Mapping[str, str]  # sent with every request
    microseconds: bool  # times are asked for in us
    snapshot_limit: int
    snapshot_weight: int
    trades_weight: int
    agg_weight: int
    info_weight: int
    weight_per_min: int

    @property
    def name(self) -> str:
        """As folders are named by."""
        return self.feed.name

    def lines(self, symbols: Sequence[str], streams: Sequence[str]) -> dict[str, list[str]]:
        """Route -> the streams that one connection carries, for all symbols."""
        found: dict[str, list[str]] = {}
        for symbol in symbols:
            for stream in streams:
                route = self.routes[stream.partition("@")[0]]
                found.setdefault(route, []).append(f"{symbol.lower()}@{stream}")
        return found

    def socket_path(self, route: str, streams: Sequence[str]) -> str:
        """Path of a combined stream."""
        return f"{route}/stream?streams={'/'.join(quote(s, safe='@') for s in streams)}{self.query}"

    def depth(self, symbol: str) -> Request:
        """A snapshot of the book."""
        return self._get("depth", self.snapshot_weight, symbol=symbol, limit=self.snapshot_limit)

    def prints(self, stream: str, symbol: str, first: int, last: int) -> Request:
        """Prints from an id on."""
        limit = min(TRADES_LIMIT, last - first + 1)
        if stream == "trade":
            return self._get("historicalTrades", self.trades_weight, symbol=symbol, fromId=first, limit=limit)
        return self._get("aggTrades", self.agg_weight, symbol=symbol, fromId=first, limit=limit)

    def info(self, symbols: Sequence[str]) -> Request:
        """Filters and status. USD-M has no choice of symbols: it answers with all."""
        if self.feed is binance_usdm.FEED:
            return Request(f"{self.api}/exchangeInfo", self.info_weight)
        listed = "[" + ",".join(f'"{symbol}"' for symbol in symbols) + "]"
        return Request(f"{self.api}/exchangeInfo?symbols={quote(listed)}", self.info_weight)

    def _get(self, what: str, weight: int, **query: Any) -> Request:
        text = "&".join(f"{key}={quote(str(value))}" for key, value in query.items())
        return Request(f"{self.api}/{what}?{text}", weight)


SPOT = Venue(
    binance_spot.FEED, "wss://stream.binance.com:9443", "https://api.binance.com", dict.fromkeys(KINDS, ""),
    "/api/v3", "&timeUnit=MICROSECOND", {"X-MBX-TIME-UNIT": "MICROSECOND"}, True, 5000, 250, 25, 4, 20, 6000,
)  # fmt: skip
USDM = Venue(
    binance_usdm.FEED, "wss://fstream.binance.com", "https://fapi.binance.com",
    {"depth": "/public", "trade": "/public", "bookTicker": "/public", "aggTrade": "/market"},
    "/fapi/v1", "", {}, False, 1000, 20, 20, 20, 1, 2400,
)  # fmt: skip
VENUES = {venue.name: venue for venue in (SPOT, USDM)}


def parse_streams(text: str) -> tuple[str, ...]:
    """`depth@100ms,trade` as stream names; raises UsageError for a kind that is not recorded."""
    streams = tuple(part.strip() for part in text.split(",") if part.strip())
    kinds = [stream.partition("@")[0] for stream in streams]
    for stream, kind in zip(streams, kinds, strict=True):
        if kind not in KINDS:
            raise UsageError(f"--streams names {stream!r}", remedy=f"known kinds: {', '.join(KINDS)}, like depth@100ms")
    if not streams or len(set(kinds)) < len(kinds):
        raise UsageError(f"--streams is {text!r}", remedy="name each kind once, like depth@100ms,trade")
    return streams


# -- what REST answers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """A symbol's filters and status, as exchangeInfo tells them."""

    instrument: Instrument
    status: str


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    filters: list[Any]


class _Info(msgspec.Struct):
    symbols: list[_Symbol]


_SNAPSHOT = msgspec.json.Decoder(Snapshot, strict=False)
_PRINTS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "trade": msgspec.json.Decoder(list[RestTrade], strict=False),
    "aggTrade": msgspec.json.Decoder(list[RestAggTrade], strict=False),
}
_INFO = msgspec.json.Decoder(_Info)


def read_snapshot(body: bytes) -> Snapshot:
    """The answer of `depth`; raises FeedError for what is none (an HTML page, a torn body)."""
    snapshot: Snapshot = _read(_SNAPSHOT, body)
    return snapshot


def read_prints(stream: str, body: bytes) -> list[Printed]:
    """The answer of `historicalTrades` or `aggTrades`, ids ascending; raises FeedError for what is none."""
    return sorted(_read(_PRINTS[stream], body), key=lambda printed: printed.trade_id)


def read_info(venue: str, body: bytes, wanted: Sequence[str]) -> dict[str, Listing]:
    """Filters and status of the `wanted` symbols that are listed.

    Raises FeedError for what is no exchangeInfo, and for filters of a wanted symbol that cannot be meant.
    """
    found = {}
    for row in _read(_INFO, body).symbols:
        if row.symbol in wanted:
            try:
                found[row.symbol] = _listing(venue, row)
            except KeyError as error:
                raise FeedError(f"bad field: exchangeInfo of {row.symbol} lacks {error}") from None
            except (TypeError, AttributeError, UsageError) as error:
                raise FeedError(f"bad field: exchangeInfo of {row.symbol}: {error}") from None
    return found


def _listing(venue: str, row: _Symbol) -> Listing:
    filters = {each["filterType"]: each for each in row.filters if isinstance(each, dict) and "filterType" in each}
    tick, lot = plain(filters["PRICE_FILTER"]["tickSize"]), plain(filters["LOT_SIZE"]["stepSize"])
    smallest = filters.get("NOTIONAL", filters.get("MIN_NOTIONAL", {}))
    notional = plain(str(smallest.get("minNotional", smallest.get("notional", "0"))))
    return Listing(Instrument(venue, row.symbol, tick, lot, notional), row.status)


def plain(text: str) -> str:
    """A decimal without trailing zeros: 0.01000000 -> 0.01."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"bad answer: {error}") from None
