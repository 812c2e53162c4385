"""REST of the past: `klines` and `fundingRate` asked for as the venue documents them, with its errors and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmlab.core.spans import NS_PER_MIN
from mmlab.serve.candles import Candles, decimal, kline_rows

MINUTES = {
    "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480,
    "12h": 720, "1d": 1440,
}  # fmt: skip
FAR_NS = 1 << 62


@dataclass(frozen=True)
class Refusal:
    """An error of the venue: its code and text."""

    code: int
    text: str


def weight(what: str, query: Mapping[str, str], usdm: bool) -> int:
    """What a request costs: klines on USD-M by how many are asked for, funding nothing (it has a limit of its own)."""
    if what == "fundingRate":
        return 0
    if not usdm:
        return 2
    limit = _limit(query, 500, 1500)
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


def respond(
    what: str, query: Mapping[str, str], candles: Candles | None, unit_ns: int, now_ns: int
) -> list[Any] | Refusal | None:
    """Rows, the venue's error, or None where there is no such path: spot has no funding, a recorded day no candles."""
    if candles is None or (what == "fundingRate" and not candles.spec.usdm):
        return None
    symbol = query.get("symbol", "")
    if symbol not in candles.spec.symbols:
        return Refusal(-1121, "Invalid symbol.")
    start, end = (int(query[key]) if query.get(key, "").isdigit() else None for key in ("startTime", "endTime"))
    if start is not None and end is not None and end < start:
        return Refusal(-1023, "Start time is greater than end time.")
    to_ns = FAR_NS if end is None else (end + 1) * unit_ns  # endTime is inclusive
    if what == "fundingRate":
        limit = _limit(query, 100, 1000)
        from_ns = max(min(to_ns, now_ns) - 8 * 60 * NS_PER_MIN * limit, 0) if start is None else start * unit_ns
        return [
            {"symbol": symbol, "fundingTime": at // unit_ns, "fundingRate": decimal(rate), "markPrice": ""}
            for at, rate in candles.funding(symbol, from_ns, to_ns, limit, now_ns)
        ]
    if query.get("interval", "") not in MINUTES:
        return Refusal(-1120, "Invalid interval.")
    interval_ns = MINUTES[query["interval"]] * NS_PER_MIN
    limit = _limit(query, 500, 1500 if candles.spec.usdm else 1000)
    newest = min(to_ns - 1, now_ns) // interval_ns
    from_ns = max(newest - limit + 1, 0) * interval_ns if start is None else start * unit_ns
    bars = candles.bars(symbol, interval_ns, from_ns, to_ns, limit, now_ns)
    return kline_rows(candles, bars, interval_ns, unit_ns)


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    asked = query.get("limit", "")
    return min(max(int(asked), 1), most) if asked.isdigit() else default
