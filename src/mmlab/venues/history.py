"""REST requests for a venue's past: candles, funding and its clock; their weights; and its refusals read.

Binance: `GET /api/v3/klines` (weight 2, 1000 at most), `GET /fapi/v1/klines` (weight by `limit`, 1500 at most) and
`GET /fapi/v1/fundingRate` (500 requests in five minutes, no weight); both answer with the oldest that the range has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from mmlab.core.errors import FeedError, UsageError
from mmlab.core.spans import NS_PER_MS
from mmlab.venues.endpoints import Request, Venue

ROWS = 1000  # of one answer: 1500 candles cost USD-M twice as much as 1000
INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
UNKNOWN_SYMBOL = -1121


def klines(venue: Venue, symbol: str, interval: str, start_ms: int, end_ms: int, limit: int) -> Request:
    """The oldest `limit` candles that open in [start_ms, end_ms], both ends included; raises UsageError."""
    if interval not in INTERVALS:
        raise UsageError(f"{venue.name} has no candles of {interval}", remedy=f"give one of {', '.join(INTERVALS)}")
    query = {"symbol": symbol, "interval": interval, "startTime": start_ms, "endTime": end_ms, "limit": limit}
    return _get(venue, "klines", _klines_weight(venue, limit), query)


def funding(venue: Venue, symbol: str, start_ms: int, end_ms: int, limit: int = ROWS) -> Request:
    """The oldest `limit` settlements in [start_ms, end_ms], both ends included; raises UsageError for spot."""
    if not has_funding(venue):
        raise UsageError(f"{venue.name} has no funding", remedy="give --venue binance-usdm")
    query = {"symbol": symbol, "startTime": start_ms, "endTime": end_ms, "limit": limit}
    return _get(venue, "fundingRate", 0, query)


def clock(venue: Venue) -> Request:
    """The venue's own time."""
    return Request(f"{venue.api}/time", 1)


def has_funding(venue: Venue) -> bool:
    """True for perpetuals."""
    return venue.api.startswith("/fapi")


def read_clock(body: bytes) -> int:
    """The answer of `time`, asked for in ms, as ns UTC; raises FeedError for what is none."""
    try:
        return int(msgspec.json.decode(body, type=dict[str, int])["serverTime"]) * NS_PER_MS
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise FeedError(f"bad answer: no serverTime: {error}") from None


def read_refusal(body: bytes) -> tuple[int, str]:
    """The venue's (code, text) of a request that it refused; code 0 with the start of the body where it has none."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
        return int(found["code"]), str(found["msg"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return 0, body[:200].decode(errors="replace").strip()


def _klines_weight(venue: Venue, limit: int) -> int:
    """Spot 2; USD-M 1, 2, 5 or 10 for up to 99, 499, 1000 or 1500 candles."""
    if not has_funding(venue):
        return 2
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def _get(venue: Venue, what: str, weight: int, query: Mapping[str, Any]) -> Request:
    text = "&".join(f"{key}={quote(str(value))}" for key, value in query.items())
    return Request(f"{venue.api}/{what}?{text}", weight)
