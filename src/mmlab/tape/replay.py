"""Journal records -> markets: what a recorder received, read in order, live and again when tables are made.

The one fold serves both: live it keeps no rows and tells the session what is wanted (a snapshot, missing
prints, a connection that may go); from a sealed journal it makes the rows. Both see the same records, so
they come to the same book, epochs and holes. A `checkpoint` mark opens every journal segment: a fold that
starts there goes on as if it had seen all before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.record import Kind, Record, split_answer
from mmlab.tape.answers import listings, take_answer
from mmlab.tape.conns import Conn
from mmlab.tape.frames import Frames
from mmlab.tape.latency import Latency, journal_row
from mmlab.tape.market import Market
from mmlab.tape.outbox import Batch
from mmlab.tape.pulse import Pulse
from mmlab.venues.endpoints import Venue

DEGRADING = {
    "clock_step": "the clock stepped",
    "crash_recovered": "the recorder crashed",
    "overload": "messages dropped under overload",
    "disk_low": "the disk was full",
    "silence": "a stream fell silent",
}


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
        self._pulse, self._latency = Pulse(), Latency()
        self._reader = Frames(venue, self.markets, self._latency, None if keep else self._pulse)
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
        if self._latency.is_over(record.recv_ns):
            self._latency.flush(self.markets)
        if record.kind is Kind.FRAME:
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
        """(symbol, stream) that should have spoken."""
        return self._pulse.silent(now_ns, after_ns, peers)

    def quiet(self, now_ns: int, after_ns: int) -> Iterator[tuple[str, str, int]]:
        """(symbol, stream, last id) of tapes of which only REST knows whether there was anything."""
        for symbol, stream in self._pulse.quiet(now_ns, after_ns):
            last = self.markets[symbol].prints(stream).last
            if last is not None:
                yield symbol, stream, last[0]

    # -- frames --------------------------------------------------------------------------------------

    def _on_frame(self, record: Record) -> None:
        self.frames += 1
        conn = self.conns.get(record.conn)
        if conn is not None and self._is_notice(record.payload, conn):
            return
        if conn is None or not conn.standby:
            self._reader.read(record.payload, record.conn, self.now_ns)
            if len(self.conns) > 1:
                self._hand_over()
            return
        conn.held.append(record.payload)
        try:
            conn.note(self.venue.feed.decode(record.payload))
        except DataError:
            return  # read again, and set aside, when the connection takes over
        self._hand_over()

    def _is_notice(self, payload: bytes, conn: Conn) -> bool:
        """True for a message that is no data: the answer to a subscription, or the venue's notice of closing."""
        if b"serverShutdown" in payload[:64]:
            conn.ending = True
            self._event_all("disconnect", announced=True, reason="serverShutdown")
            return True
        return payload.startswith(b'{"result":null')

    # -- hand-over -----------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        for conn_id, conn in list(self.conns.items()):
            if conn.may_take_over(self.now_ns, self.markets):
                self._promote(conn_id, conn)

    def _promote(self, conn_id: int, conn: Conn) -> None:
        """Make a standby the primary: read what it held; what the old one has brought is known by its ids."""
        before = [i for i, other in self.conns.items() if i != conn_id and other.line == conn.line]
        conn.standby = False
        held, conn.held = conn.held, []
        for payload in held:
            self._reader.read(payload, conn_id, self.now_ns)
        self._event_all("handover", to=conn_id, line=conn.line, **{"from": before})
        self.retired += before

    # -- answers -------------------------------------------------------------------------------------

    def _on_answer(self, about: dict[str, Any], body: bytes) -> None:
        if about["purpose"] == "info":
            self._on_info(about, body)
            return
        market = self.markets[about["symbol"]]
        market.now_ns = self.now_ns
        market.seq += 1
        if take_answer(market, about, body):
            self._pulse.muted.add((about["symbol"], about["stream"]))

    def _on_info(self, about: dict[str, Any], body: bytes) -> None:
        """Filters and status as they are now; a change is an entry of the ledger."""
        listed = listings(self.venue.name, about, body, list(self.markets))
        for symbol, market in self.markets.items() if listed else ():
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
            self._pulse.expect(row["symbol"], [s.partition("@")[0] for s in details["streams"]], self.now_ns)

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
            return
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.lose_connection(conn.streams if not self._closing else [])

    def _on_close(self, details: dict[str, Any]) -> None:
        """The recorder is about to close its connections, which is no loss."""
        self._closing = True
        self._event_all("window_close", **details)

    def _on_stop(self, details: dict[str, Any]) -> None:
        self._latency.flush(self.markets)
        for market in self.markets.values():
            market.now_ns = self.now_ns
            market.close()
            market.event("run_stop", **details)

    def _on_lag(self, details: dict[str, Any]) -> None:
        for market in self.markets.values():
            market.now_ns = self.now_ns
            journal_row(market, details)

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

    # -- checkpoints and rows ------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, Any]:
        """All that later rows depend on, as JSON can hold it."""
        return {
            "run_id": self.run_id,
            "frames": self.frames,
            "conns": {str(i): conn.state() for i, conn in self.conns.items()},
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
        self._latency.flush(self.markets)
        if self.markets:
            if msgspec.json.decode(msgspec.json.encode(self.checkpoint())) != saved:
                self.faults.append(f"the checkpoint of {self.now_ns} differs from what was recorded before it")
            return
        self.run_id, self.frames = saved["run_id"], saved["frames"]
        self.conns = {int(i): Conn.restored(state) for i, state in saved["conns"].items()}
        for row in saved["markets"].values():
            self._open_market(Instrument(**row["instrument"]), row["status"]).restore(row["state"])

    def end_segment(self) -> None:
        """The records end here: rows that wait for their minute to be over come now."""
        self._latency.flush(self.markets)

    def drain(self, final: bool) -> Iterator[tuple[str, Batch]]:
        """(symbol, rows) that are ready, `final` all of them, gaps included."""
        for symbol, market in self.markets.items():
            until_ns = None if final else self.now_ns
            for batch in market.out.drain(self.run_id, self.now_ns, until_ns, lambda seq: f"message {seq}"):
                yield symbol, batch
