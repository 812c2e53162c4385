"""The venue's answers, from its state: REST (books, prints, filters, candles, funding), its weights, and SUBSCRIBE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.serve import history
from mmlab.serve.candles import Candles
from mmlab.serve.market import Event, State, encode

WEIGHTS = {"depth": 250, "exchangeInfo": 20, "time": 1, "ping": 1, "aggTrades": 4, "historicalTrades": 25}
HISTORY = ("klines", "fundingRate")
MS, US = 1_000_000, 1_000


@dataclass(frozen=True)
class Answer:
    """Status, headers and body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Desk:
    """Answers REST, and counts by the minute what it costs; over `per_minute` (0: no limit) it refuses."""

    states: Mapping[str, State]
    candles: Candles | None = None
    per_minute: int = 0
    minute: int = 0
    used: int = 0

    def answer(self, path: str, time_unit: str, now_ns: int, stale: Mapping[str, Any] | None) -> Answer:
        """The answer to a GET, with the weight used so far. `time_unit` is the header X-MBX-TIME-UNIT."""
        parts = urlsplit(path)
        what = parts.path.rpartition("/")[2]
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        usdm = self.candles is not None and self.candles.spec.usdm
        weight = history.weight(what, query, usdm) if what in HISTORY else WEIGHTS.get(what, 1)
        if now_ns // NS_PER_MIN != self.minute:
            self.minute, self.used = now_ns // NS_PER_MIN, 0
        self.used += weight
        unit_ns = US if time_unit.upper() == "MICROSECOND" else MS
        if self.per_minute and self.used > self.per_minute:
            found = _error(-1003, "Too much request weight used.", 429)
            found.headers["Retry-After"] = str(-(-(NS_PER_MIN - now_ns % NS_PER_MIN) // NS_PER_S))
        elif what in HISTORY:
            rows = history.respond(what, query, self.candles, unit_ns, now_ns)
            found = _error(rows.code, rows.text) if isinstance(rows, history.Refusal) else _rows(rows)
        else:
            found = respond(path, self.states, unit_ns, now_ns, stale)
        return replace(found, headers={**found.headers, "X-MBX-USED-WEIGHT-1M": str(self.used)})


def respond(
    path: str, states: Mapping[str, State], unit_ns: int, now_ns: int, stale: Mapping[str, Any] | None
) -> Answer:
    """Answer a GET. `stale` is an old snapshot to give instead of the book as it is."""
    parts = urlsplit(path)
    what = parts.path.rpartition("/")[2]
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if what in ("ping", "time"):
        return _json({} if what == "ping" else {"serverTime": now_ns // unit_ns})
    if what == "exchangeInfo":
        return _info(query, states)
    if what not in WEIGHTS:
        return _rows(None)
    state = states.get(query.get("symbol", ""))
    if state is None:
        return _error(-1121, "Invalid symbol.")
    limit = int(query["limit"]) if query.get("limit", "").isdigit() else 500
    if what == "depth":
        return _json(stale or state.snapshot(min(limit, 5000)))
    first = int(query["fromId"]) if query.get("fromId", "").isdigit() else None
    events = state.aggregates if what == "aggTrades" else state.trades
    chosen = events[-min(limit, 1000) :] if first is None else _from(events, first)[: min(limit, 1000)]
    row = _aggregate if what == "aggTrades" else _trade
    return _json([row(event, unit_ns) for event in chosen])


def control(streams: set[str], message: str | bytes) -> dict[str, Any]:
    """Carry out SUBSCRIBE and its kin on a connection's streams; returns what the venue answers."""
    try:
        asked = msgspec.json.decode(message, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {"code": 3, "msg": "Invalid JSON"}
    method, params, number = asked.get("method"), asked.get("params", []), asked.get("id")
    if method == "SUBSCRIBE":
        streams |= set(params)
    elif method == "UNSUBSCRIBE":
        streams -= set(params)
    elif method == "LIST_SUBSCRIPTIONS":
        return {"result": sorted(streams), "id": number}
    else:
        return {"error": {"code": 2, "msg": f"Invalid request: unknown method {method}"}, "id": number}
    return {"result": None, "id": number}


def _from(events: list[Event], first: int) -> list[Event]:
    """Events from an id on; ids ascend."""
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        if events[middle].last_id < first:
            low = middle + 1
        else:
            high = middle
    return events[low : low + 1000]


def _trade(event: Event, unit_ns: int) -> dict[str, Any]:
    data = event.data
    return {
        "id": event.last_id, "price": data["p"], "qty": data["q"], "quoteQty": "0", "time": event.at_ns // unit_ns,
        "isBuyerMaker": data["m"], "isBestMatch": True,
    }  # fmt: skip


def _aggregate(event: Event, unit_ns: int) -> dict[str, Any]:
    kept = {key: event.data[key] for key in ("a", "p", "q", "f", "l", "m")}
    return {**kept, "T": event.at_ns // unit_ns, "M": True}


def _info(query: Mapping[str, str], states: Mapping[str, State]) -> Answer:
    wanted = list(states)
    if "symbol" in query:
        wanted = [query["symbol"]]
    elif "symbols" in query:
        try:
            wanted = msgspec.json.decode(query["symbols"].encode(), type=list[str])
        except msgspec.MsgspecError:
            return _error(-1100, "Illegal characters found in parameter 'symbols'.")
    if any(symbol not in states for symbol in wanted):
        return _error(-1121, "Invalid symbol.")
    return _json({"timezone": "UTC", "rateLimits": [], "symbols": [_symbol(states[symbol]) for symbol in wanted]})


def _symbol(state: State) -> dict[str, Any]:
    listing = state.listing
    filters = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": listing.tick_size,
            "maxPrice": "1000000",
            "tickSize": listing.tick_size,
        },
        {"filterType": "LOT_SIZE", "minQty": listing.lot_size, "maxQty": "9000", "stepSize": listing.lot_size},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
    ]
    return {"symbol": listing.symbol, "status": listing.status, "filters": filters}


def _json(content: Any) -> Answer:
    return Answer(200, encode(content), {"Content-Type": "application/json;charset=UTF-8"})


def _rows(rows: list[Any] | None) -> Answer:
    """Rows, or no such path."""
    return Answer(404, b"<html><body>not found</body></html>") if rows is None else _json(rows)


def _error(code: int, text: str, status: int = 400) -> Answer:
    return Answer(status, encode({"code": code, "msg": text}), {"Content-Type": "application/json;charset=UTF-8"})
