"""Journal records -> markets: what a recorder received, read in order, live and again when tables are made.

The one fold serves both: live it keeps no rows and tells the session what is wanted (a snapshot, missing
prints, a connection that may go); from a sealed journal it makes the rows. Both see the same records, so
they come to the same book, epochs and holes. A `checkpoint` mark opens every journal segment: a fold that
starts there goes on as if it had seen all before.

Hand-over: a standby connection's frames are held until every stream of it joins what the primary has
delivered (by ids, at least OVERLAP_NS after it opened); then it becomes the primary, without a resync.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mmlab.core.errors import DataError, FeedError
from mmlab.core.instrument import Instrument
from mmlab.core.record import Kind, Record, split_answer
from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.tape.findings import HARMLESS, fault_kind
from mmlab.tape.market import Market
from mmlab.tape.outbox import Batch
from mmlab.venues.binance import (
    AggTrade,
    BookTicker,
    DepthUpdate,
    Message,
    Printed,
    Snapshot,
    Trade,
    drifted,
    stream_of,
)
from mmlab.venues.endpoints import Venue, read_info, read_prints, read_snapshot

OVERLAP_NS = NS_PER_S  # a standby is held at least this long
PATIENCE_NS = 10 * NS_PER_S  # ... and at most this long
DEGRADING = {
    "clock_step": "the clock stepped",
    "crash_recovered": "the recorder crashed",
    "overload": "messages dropped under overload",
    "disk_low": "the disk was full",
    "silence": "a stream fell silent",
}


@dataclass
class Conn:
    """One connection: what it carries, and, while it stands by, its frames and where its streams begin."""

    line: str
    standby: bool
    since_ns: int
    ending: bool = False  # the venue said that it will close it
    held: list[tuple[Kind, bytes]] = field(default_factory=list)
    begins: dict[tuple[str, str], int] = field(default_factory=dict)  # (symbol, stream) -> id it must join


class Replay:
    """All markets of one run. `keep` rows for tables, or only know the state; `heard` gets ledger entries."""

    def __init__(
        self, venue: Venue, levels: int, keep: bool, heard: Callable[[str, str, dict[str, Any]], None] | None = None
    ) -> None:
        self.venue, self.levels, self.keep, self._heard = venue, levels, keep, heard
        self.markets: dict[str, Market] = {}
        self.status: dict[str, str] = {}
        self.conns: dict[int, Conn] = {}
        self.retired: list[int] = []  # connections that have handed over
        self.changed: dict[str, Instrument] = {}  # filters that are no longer the run's
        self.faults: list[str] = []  # checkpoints that the records before them do not lead to
        self.run_id = self.now_ns = 0
        self.frames = 0
        self._heard_last: dict[tuple[str, str], tuple[int, int]] = {}  # (symbol, stream) -> when, prints until then
        self._printed: dict[str, int] = {}  # symbol -> prints
        self._muted: set[tuple[str, str]] = set()  # streams that REST knows more of than they brought
        self._latency: dict[tuple[str, str], array[int]] = {}
        self._minute = 0
        self._closing = False
        self._marks: dict[str, Callable[[dict[str, Any]], None]] = {
            "run_start": self._on_start, "checkpoint": self._on_checkpoint, "connect": self._on_connect,
            "disconnect": self._on_disconnect, "run_stop": self._on_stop, "lag": self._on_lag,
            "backfill_failed": self._on_backfill_failed, "resume": self._on_resume, "window_close": self._on_close,
            "crash_recovered": self._on_crash,
        }  # fmt: skip

    def take(self, record: Record) -> None:
        """One record, in the order of receipt."""
        self.now_ns = record.recv_ns
        if record.recv_ns // NS_PER_MIN != self._minute:
            self._flush_latency()
            self._minute = record.recv_ns // NS_PER_MIN
        if record.kind is Kind.FRAME or record.kind is Kind.BINARY:
            self._on_frame(record)
        elif record.kind is Kind.ANSWER:
            self._on_answer(*split_answer(record.payload))
        else:
            details = msgspec.json.decode(record.payload)
            self._on_mark(details.pop("mark"), details)

    # -- what is wanted ------------------------------------------------------------------------------

    def wants_snapshot(self) -> Iterator[tuple[str, int, bool]]:
        """(symbol, generation, updates wait) of each book that needs a snapshot."""
        for symbol, market in self.markets.items():
            if market.lacks_snapshot:
                yield symbol, market.generation, bool(market.sync.buffer)

    def wants_prints(self) -> Iterator[tuple[str, str, int, int]]:
        """(symbol, stream, first, last) of the first stretch of ids that may still be filled, for each tape."""
        for symbol, market in self.markets.items():
            for prints in (market.trades, market.agg_trades):
                if prints.missing:
                    yield symbol, prints.stream, *prints.missing[0].left()[0]

    def silent(self, now_ns: int, after_ns: int, peers: int) -> Iterator[tuple[str, str]]:
        """(symbol, stream) that brought nothing for `after_ns`, while `peers` prints of the symbol came."""
        yield from self._muted
        self._muted.clear()
        for (symbol, stream), (last_ns, prints) in self._heard_last.items():
            if now_ns - last_ns >= after_ns and self._printed.get(symbol, 0) - prints >= peers:
                yield symbol, stream

    def quiet(self, now_ns: int, after_ns: int) -> Iterator[tuple[str, str, int]]:
        """(symbol, stream, last id) of tapes that brought nothing for `after_ns`: only REST knows if there was any."""
        for (symbol, stream), (last_ns, _) in self._heard_last.items():
            if stream in ("trade", "aggTrade") and now_ns - last_ns >= after_ns:
                last = self.markets[symbol].prints(stream).last
                if last is not None:
                    yield symbol, stream, last[0]

    # -- frames --------------------------------------------------------------------------------------

    def _on_frame(self, record: Record) -> None:
        self.frames += 1
        conn = self.conns.get(record.conn)
        if conn is None or not conn.standby:
            self._read(record.kind, record.payload, record.conn)
            if len(self.conns) > 1:
                self._hand_over()
            return
        conn.held.append((record.kind, record.payload))
        if self._notice(record.payload, conn):
            return
        try:
            message = self.venue.feed.decode(record.payload)
        except DataError:
            return  # read again, and set aside, when the connection takes over
        if isinstance(message, DepthUpdate):
            conn.begins.setdefault((message.symbol, "depth"), message.prev_id or message.first_id - 1)
        elif isinstance(message, Trade | AggTrade):
            conn.begins.setdefault((message.symbol, stream_of(message)), message.trade_id - 1)
        self._hand_over()

    def _read(self, kind: Kind, payload: bytes, conn_id: int) -> None:
        """One frame that counts: decode it, and tell its market."""
        try:
            if kind is Kind.BINARY:
                raise FeedError("binary frame: the streams recorded are text")
            message = self.venue.feed.decode(payload)
            market = self.markets.get(message.symbol) if not isinstance(message, Snapshot) else None
            if market is None:
                raise FeedError("unknown symbol: nobody subscribed to it")
        except DataError as error:
            conn = self.conns.get(conn_id)
            if conn is None or not self._notice(payload, conn):
                self._set_aside(payload, conn_id, error.message)
            return
        market.now_ns = self.now_ns
        market.seq += 1
        try:
            self._tell(market, message)
        except DataError as error:
            self._note(market, payload, conn_id, error.message)

    def _tell(self, market: Market, message: Message) -> None:
        stream = stream_of(message)
        key = (market.instrument.symbol, stream)
        if not self.keep:
            if isinstance(message, Trade | AggTrade):
                self._printed[market.instrument.symbol] = self._printed.get(market.instrument.symbol, 0) + 1
            self._heard_last[key] = (self.now_ns, self._printed.get(market.instrument.symbol, 0))
        if drift := drifted(message):
            self._drift(market, drift)
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
        event_time = message.event_time or 0
        delay = self.now_ns - event_time * (1000 if event_time >= 10**15 else 1_000_000)
        timed = self._latency.get(key)
        if timed is None:
            timed = self._latency[key] = array("q")
        timed.append(delay)

    def _check_unit(self, market: Market, time: int) -> None:
        """Microseconds were asked for: say so once if the venue answers with another unit."""
        if (time >= 10**15) != self.venue.microseconds and "unit" not in market.findings.drifts:
            market.findings.drifts.add("unit")
            got = "us" if time >= 10**15 else "ms"
            market.event("schema_drift", stream="depth", what=f"times are in {got}, which was not asked for")

    def _drift(self, market: Market, stream: str) -> None:
        if stream not in market.findings.drifts:
            market.findings.drifts.add(stream)
            market.event("schema_drift", stream=stream, what="fields differ from those that are known")

    def _notice(self, payload: bytes, conn: Conn) -> bool:
        """True for a message that is no data: the answer to a subscription, or the venue's notice of closing."""
        if b"serverShutdown" in payload[:64]:
            conn.ending = True
            self._event_all("disconnect", announced=True, reason="serverShutdown")
            return True
        return payload.startswith(b'{"result":null')

    def _set_aside(self, payload: bytes, conn_id: int, reason: str) -> None:
        """A frame whose market is not known goes with the symbol that it names, or else with all."""
        head = payload[:256].lower()
        named = [m for s, m in self.markets.items() if s.lower().encode() in head] or list(self.markets.values())
        for market in named:
            market.now_ns = self.now_ns
            market.seq += 1
            self._note(market, payload, conn_id, reason)

    def _note(self, market: Market, payload: bytes, conn_id: int, reason: str) -> None:
        kind, source = fault_kind(reason), f"connection {conn_id}"
        first = kind not in market.findings.set_aside
        market.findings.note(kind, source, market.seq)
        market.out.set_aside(self.now_ns, source, market.seq, reason, payload)
        if not kind.startswith(HARMLESS):
            market.degrade(f"messages set aside, {kind}")
        if first:
            market.event("quarantine", source=source, line_no=market.seq, reason=reason)

    # -- hand-over -----------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        for conn_id, conn in list(self.conns.items()):
            waited = self.now_ns - conn.since_ns
            if not conn.standby or waited < OVERLAP_NS:
                continue
            if waited >= PATIENCE_NS or all(self._joins(key, at) for key, at in conn.begins.items()):
                self._promote(conn_id, conn)

    def _joins(self, key: tuple[str, str], at: int) -> bool:
        """True if the market has come to where the standby begins."""
        symbol, stream = key
        market = self.markets.get(symbol)
        if market is None:
            return True
        if stream == "depth":
            return not market.synced or (market.sync.book_id or 0) >= at
        last = market.prints(stream).last
        return last is None or last[0] >= at

    def _promote(self, conn_id: int, conn: Conn) -> None:
        """Make a standby the primary: read what it held; what the old one has brought is known by its ids."""
        before = [i for i, other in self.conns.items() if i != conn_id and other.line == conn.line]
        conn.standby = False
        held, conn.held = conn.held, []
        for kind, payload in held:
            self._read(kind, payload, conn_id)
        self._event_all("handover", to=conn_id, line=conn.line, **{"from": before})
        self.retired += before

    # -- answers -------------------------------------------------------------------------------------

    def _on_answer(self, about: dict[str, Any], body: bytes) -> None:
        purpose = about["purpose"]
        if purpose == "info":
            self._on_info(about, body)
            return
        market = self.markets[about["symbol"]]
        market.now_ns = self.now_ns
        market.seq += 1
        try:
            if about["status"] != 200:
                raise FeedError(f"HTTP {about['status']}")
            if purpose == "snapshot":
                self._on_snapshot(market, about, body)
            else:
                self._on_prints(market, about, read_prints(about["stream"], body))
        except FeedError as error:
            kind = "snapshot_failed" if purpose == "snapshot" else "backfill"
            market.event(kind, reason=error.message, status=about["status"])

    def _on_snapshot(self, market: Market, about: dict[str, Any], body: bytes) -> None:
        snapshot = read_snapshot(body)
        if about["generation"] != market.generation and not about.get("check"):
            market.event(
                "snapshot_discarded", last_update_id=snapshot.last_update_id, reason="the book it was for is gone"
            )
            return
        market.on_snapshot(snapshot)

    def _on_prints(self, market: Market, about: dict[str, Any], printed: list[Printed]) -> None:
        stream = about["stream"]
        if about["purpose"] == "prints":
            market.fill(stream, about["first"], about["last"], printed, about["final"])
        elif market.probe(stream, printed):
            self._muted.add((market.instrument.symbol, stream))

    def _on_info(self, about: dict[str, Any], body: bytes) -> None:
        """Filters and status as they are now; a change is an entry of the ledger."""
        if about["status"] != 200:
            return
        try:
            listed = read_info(self.venue.name, body)
        except FeedError:
            return
        for symbol, market in self.markets.items():
            listing = listed.get(symbol)
            status = listing.status if listing else "DELISTED"
            market.now_ns = self.now_ns
            if status != self.status.get(symbol):
                market.event("status_change", status=status, was=self.status.get(symbol))
                self.status[symbol] = status
            if listing and listing.instrument != market.instrument and self.changed.get(symbol) != listing.instrument:
                self.changed[symbol] = listing.instrument
                market.event("status_change", filters=msgspec.to_builtins(listing.instrument))
                market.degrade("filters changed")

    # -- marks ---------------------------------------------------------------------------------------

    def _on_mark(self, name: str, details: dict[str, Any]) -> None:
        special = self._marks.get(name)
        if special is not None:
            special(details)
            return
        symbol = details.pop("symbol", None)
        for market in self.markets.values() if symbol is None else [self.markets[symbol]]:
            market.now_ns = self.now_ns
            if name in DEGRADING:
                market.degrade(DEGRADING[name])
            market.event(name, **details)

    def _event_all(self, kind: str, **details: Any) -> None:
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.event(kind, **details)

    def _open_market(self, instrument: Instrument, status: str) -> Market:
        market = Market(self.venue.feed, instrument, self.levels, recording=True)
        market.now_ns = self.now_ns
        if not self.keep:
            market.out.keep_nothing()
        market.out.heard = lambda kind, details: self._heard and self._heard(instrument.symbol, kind, details)
        self.markets[instrument.symbol] = market
        self.status[instrument.symbol] = status
        return market

    def _on_start(self, details: dict[str, Any]) -> None:
        self.run_id = details["run_id"]
        for row in details["instruments"]:
            status = row.pop("status")
            market = self._open_market(Instrument(**row), status)
            shown = {k: v for k, v in details.items() if k != "instruments"}
            market.event("run_start", symbol=row["symbol"], status=status, **shown)
            for stream in details["streams"]:
                self._heard_last[row["symbol"], stream.partition("@")[0]] = (self.now_ns, 0)

    def _on_resume(self, details: dict[str, Any]) -> None:
        """What is known of the time before the run: since when nothing was recorded, and the last ids."""
        market = self.markets[details["symbol"]]
        market.now_ns = self.now_ns
        market.begin(details["from_ns"], details["reason"], details.get("depth"))
        for stream in ("trade", "aggTrade"):
            if details.get(stream) is not None:
                market.prints(stream).resume(details[stream], details["from_ns"])
        market.event("window_open", hole_from_ns=details["from_ns"], reason=details["reason"])

    def _on_connect(self, details: dict[str, Any]) -> None:
        self.conns[details["conn"]] = Conn(details["line"], details["standby"], self.now_ns)
        for market in self.markets.values():
            market.gain_connection(details["line"].split()[1:])
        self._event_all("connect", **details)

    def _on_disconnect(self, details: dict[str, Any]) -> None:
        conn = self.conns.pop(details["conn"], None)
        self._event_all("disconnect", **details)
        if conn is None or conn.standby:
            return
        others = [(i, c) for i, c in self.conns.items() if c.line == conn.line]
        if any(not other.standby for _, other in others):
            return
        for conn_id, other in others:
            self._promote(conn_id, other)
            self.retired.clear()
            return
        streams = conn.line.split()[1:]
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.lose_connection(streams if not self._closing else [])

    def _on_close(self, details: dict[str, Any]) -> None:
        """The recorder is about to close its connections, which is no loss."""
        self._closing = True
        self._event_all("window_close", **details)

    def _on_stop(self, details: dict[str, Any]) -> None:
        self._flush_latency()
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.close()
            market.event("run_stop", **details)

    def _on_crash(self, details: dict[str, Any]) -> None:
        """The run ended here without a word: what it was still waiting for is declared."""
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.close()
            market.degrade(DEGRADING["crash_recovered"])
            market.event("crash_recovered", **details)

    def _on_backfill_failed(self, details: dict[str, Any]) -> None:
        market = self.markets[details["symbol"]]
        market.now_ns = self.now_ns
        market.prints(details["stream"]).give_up(details["first"], details["last"])
        market.event("backfill", filled=0, **details)

    # -- latency -------------------------------------------------------------------------------------

    def _on_lag(self, details: dict[str, Any]) -> None:
        """The journal's own delay, measured by the recorder; every symbol gets the row."""
        for market in self.markets.values():
            row = (details["n"], details["p50"], details["p90"], details["p99"], details["p999"], details["max"])
            market.out.latency.append((self.now_ns, market.seq, "all", "journal", *row))

    def _flush_latency(self) -> None:
        for (symbol, stream), delays in self._latency.items():
            if delays:
                market = self.markets[symbol]
                row = (market.now_ns, market.seq, stream, "venue", len(delays), *quantiles(delays))
                market.out.latency.append(row)
        self._latency.clear()

    # -- checkpoints and rows ------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, Any]:
        """All that later rows depend on, as JSON can hold it."""
        return {
            "run_id": self.run_id,
            "frames": self.frames,
            "conns": {
                str(i): {
                    "line": c.line, "standby": c.standby, "since_ns": c.since_ns, "ending": c.ending,
                    "held": [(int(kind), payload.hex()) for kind, payload in c.held],
                    "begins": [(symbol, stream, at) for (symbol, stream), at in c.begins.items()],
                }
                for i, c in self.conns.items()
            },
            "markets": {
                symbol: {
                    "instrument": msgspec.to_builtins(market.instrument), "status": self.status[symbol],
                    "state": market.state(),
                }
                for symbol, market in self.markets.items()
            },
        }  # fmt: skip

    def _on_checkpoint(self, saved: dict[str, Any]) -> None:
        """Start from a checkpoint, or hold one against what the records before it led to."""
        self._flush_latency()
        if self.markets:
            if msgspec.json.decode(msgspec.json.encode(self.checkpoint())) != saved:
                self.faults.append(f"the checkpoint of {self.now_ns} differs from what was recorded before it")
            return
        self.run_id, self.frames = saved["run_id"], saved["frames"]
        for i, c in saved["conns"].items():
            begins = {(symbol, stream): at for symbol, stream, at in c["begins"]}
            held = [(Kind(kind), bytes.fromhex(payload)) for kind, payload in c["held"]]
            self.conns[int(i)] = Conn(c["line"], c["standby"], c["since_ns"], c["ending"], held, begins)
        for row in saved["markets"].values():
            self._open_market(Instrument(**row["instrument"]), row["status"]).restore(row["state"])

    def end_segment(self) -> None:
        """The records end here: rows that wait for their minute to be over come now."""
        self._flush_latency()

    def drain(self, final: bool) -> Iterator[tuple[str, Batch]]:
        """(symbol, rows) that are ready, `final` all of them, gaps included."""
        for symbol, market in self.markets.items():
            until_ns = None if final else self.now_ns
            for batch in market.out.drain(self.run_id, self.now_ns, until_ns, lambda seq: f"message {seq}"):
                yield symbol, batch


def quantiles(delays: array[int]) -> list[int]:
    """p50, p90, p99, p999 and the largest: shape (5,), nearest ranks of what was measured."""
    found = np.sort(np.frombuffer(delays, np.int64))
    ranks = np.minimum((np.array([0.5, 0.9, 0.99, 0.999, 1.0]) * found.size).astype(np.int64), found.size - 1)
    return [int(value) for value in found[ranks]]
