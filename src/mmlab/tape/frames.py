"""One WebSocket frame -> its market: decoded, told, timed; or set aside byte for byte with the reason why."""

from __future__ import annotations

from collections.abc import Mapping

from mmlab.core.errors import DataError, FeedError
from mmlab.tape.findings import HARMLESS, fault_kind
from mmlab.tape.latency import US_DIGITS, Latency
from mmlab.tape.market import Market
from mmlab.tape.pulse import Pulse
from mmlab.venues.binance import AggTrade, BookTicker, DepthUpdate, Message, Snapshot, Trade, drifted, stream_of
from mmlab.venues.endpoints import Venue


class Frames:
    """Reads the frames of all markets of a run."""

    def __init__(self, venue: Venue, markets: Mapping[str, Market], latency: Latency, pulse: Pulse | None) -> None:
        self._venue, self._markets, self._latency, self._pulse = venue, markets, latency, pulse

    def read(self, payload: bytes, conn_id: int, now_ns: int) -> None:
        """One frame that counts."""
        try:
            message = self._venue.feed.decode(payload)
            market = self._markets.get(message.symbol) if not isinstance(message, Snapshot) else None
            if market is None:
                raise FeedError("unknown symbol: nobody subscribed to it")
        except DataError as error:
            self._set_aside(payload, conn_id, now_ns, error.message)
            return
        market.now_ns = now_ns
        market.seq += 1
        try:
            self._tell(market, message, now_ns)
        except DataError as error:
            _note(market, payload, conn_id, error.message)

    def _tell(self, market: Market, message: Message, now_ns: int) -> None:
        symbol, stream = market.instrument.symbol, stream_of(message)
        if self._pulse is not None:
            self._pulse.beat(symbol, stream, now_ns)
        if drift := drifted(message):
            _tell_once(market, drift, drift, "fields differ from those that are known")
        if isinstance(message, DepthUpdate):
            self._check_unit(market, message.event_time)
            market.on_depth(message)
        elif isinstance(message, Trade | AggTrade):
            if reason := market.on_trade(message):
                raise FeedError(reason)
        elif isinstance(message, BookTicker):
            market.on_ticker(message)
            if message.event_time is None:
                return
        self._latency.take(symbol, stream, now_ns, message.event_time or 0)

    def _check_unit(self, market: Market, time: int) -> None:
        """Microseconds were asked for, or not: say so once if the venue answers with another unit."""
        if (time >= US_DIGITS) != self._venue.microseconds:
            got = "us" if time >= US_DIGITS else "ms"
            _tell_once(market, "unit", "depth", f"times are in {got}, which was not asked for")

    def _set_aside(self, payload: bytes, conn_id: int, now_ns: int, reason: str) -> None:
        """A frame whose market is not known goes with the symbol that it names, or else with all."""
        head = payload[:256].lower()
        named = [m for s, m in self._markets.items() if s.lower().encode() in head] or list(self._markets.values())
        for market in named:
            market.now_ns = now_ns
            market.seq += 1
            _note(market, payload, conn_id, reason)


def _tell_once(market: Market, key: str, stream: str, what: str) -> None:
    """A drift of the venue's format, in the ledger once."""
    if key not in market.findings.drifts:
        market.findings.drifts.add(key)
        market.event("schema_drift", stream=stream, what=what)


def _note(market: Market, payload: bytes, conn_id: int, reason: str) -> None:
    """Keep a frame that could not be read; the first of each kind is in the ledger."""
    kind, source = fault_kind(reason), f"connection {conn_id}"
    first = kind not in market.findings.set_aside
    market.findings.note(kind, source, market.seq)
    market.out.set_aside(market.now_ns, source, market.seq, reason, payload)
    if not kind.startswith(HARMLESS):
        market.degrade(f"messages set aside, {kind}")
    if first:
        market.event("quarantine", source=source, line_no=market.seq, reason=reason)
