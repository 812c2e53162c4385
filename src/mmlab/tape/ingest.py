"""Raw feed lines -> lake tables: decode, keep the book in sync, declare every hole.

Fed one line at a time, in the order of receipt; gives up frames in bulk. Each line:
  1. is counted (`recv_seq`), split into the recorder's time and the message, decoded;
     what cannot be read is set aside in `quarantine`, and everything else goes on;
  2. moves the clock; a step back is an event and degrades the day, no time is ever rewritten;
  3. goes to its table; a depth update or snapshot first goes to the book's sync, which says what to do.

Rows leave sorted by (recv_ns, recv_seq). Rows of the newest HOLD_NS wait for that, so a step back of
less is sorted in; a larger one (files in the wrong order, a clock set by hand) is a DataError.
`epoch_id` tells the state after the message: 0 while unsynced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mmlab.core.errors import DataError, FeedError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_MS, NS_PER_S, day_of_ns
from mmlab.tape.books import Book
from mmlab.tape.findings import HARMLESS, Findings, fault_kind
from mmlab.tape.outbox import Batch, Outbox
from mmlab.venues.binance import BookTicker, DepthUpdate, Feed, Message, Snapshot, Trade, to_ns
from mmlab.venues.book_sync import Action, BookSync, Step

HOLD_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class Hole:
    """A gap that is open until the next frame: since when, which ids are missing, why."""

    from_ns: int
    missing: tuple[int, int] | None
    reason: str


class Ingest:
    """One import run: `feed` each line, `drain` now and then; at the end `finish`, and drain the rest."""

    def __init__(self, feed: Feed, instrument: Instrument, levels: int) -> None:
        self.findings = Findings()
        self.run_id = 0
        self._feed = feed
        self._instrument = instrument
        self._out = Outbox(instrument, levels, HOLD_NS, self.findings)
        self._sources: list[tuple[int, str]] = []  # (lines before it, name)
        self._early: list[str] = []  # faults before the run has started
        self._start_ns = self._now_ns = self._latest_ns = 0
        self._sync: BookSync[DepthUpdate] = BookSync(feed.rules)
        self._book = Book(instrument.ticks)
        self._epoch_id = 0
        self._good_ns = 0  # when the book was last known to be right
        self._one_sided = False
        self._hole: Hole | None = None
        self._trade: tuple[int, int] | None = None  # id and time of the last print
        self._handlers: dict[type, Callable[[int, Any], None]] = {
            DepthUpdate: self._on_depth,
            Snapshot: self._on_snapshot,
            Trade: self._on_trade,
            BookTicker: self._on_ticker,
        }

    # -- lines in ------------------------------------------------------------------------------------

    def feed(self, source: str, line_no: int, line: bytes) -> None:
        """Take one line, without its line end.

        Raises DataError for what makes the whole import meaningless: another symbol or venue, a clock
        that steps back by more than HOLD_NS.
        """
        self._count(source)
        try:
            recv_ns, message = read(self._feed, line)
            self._handlers[type(message)](recv_ns, message)
        except FeedError as error:
            self._note(source, line_no, line, error.message)
        except DataError as error:
            raise DataError(f"{source}, line {line_no}: {error.message}", remedy=error.remedy) from None

    def set_aside(self, source: str, line_no: int, raw: bytes, reason: str) -> None:
        """Keep a line that never came to be one (the torn end of a file), byte for byte."""
        self._count(source)
        self._note(source, line_no, raw, reason)

    def finish(self) -> None:
        """The input is over: close what is open. Raises DataError if no line could be read."""
        if not self.run_id:
            raise DataError(f"none of {self.findings.lines} lines could be read", remedy="check --venue and the files")
        if self._hole is not None:
            self._close_hole(self._hole)
        self._event("run_stop", lines=self.findings.lines)

    def drain(self, final: bool = False) -> Iterator[Batch]:
        """Rows that are ready, `final` all of them; raises DataError for a decimal off the grid, with its line."""
        if self.run_id:
            yield from self._out.drain(self.run_id, self._start_ns, None if final else self._latest_ns, self._where)

    def _where(self, recv_seq: int) -> str:
        """File and line of a message."""
        before, source = self._sources[bisect_left(self._sources, (recv_seq,)) - 1]
        return f"{source}, line {recv_seq - before}"

    def _count(self, source: str) -> None:
        if not self._sources or self._sources[-1][1] != source:
            self._sources.append((self.findings.lines, source))
        self.findings.lines += 1

    def _note(self, source: str, line_no: int, raw: bytes, reason: str) -> None:
        kind = fault_kind(reason)
        first = kind not in self.findings.set_aside
        self.findings.note(kind, source, line_no)
        self._out.set_aside(self._now_ns, source, line_no, reason, raw)
        if not kind.startswith(HARMLESS):
            self._degrade(f"lines set aside, {kind}")
        if first:
            self._event("quarantine", source=source, line_no=line_no, reason=reason)

    # -- clock and ledger ----------------------------------------------------------------------------

    def _arrived(self, recv_ns: int, symbol: str | None) -> None:
        """A message that was read: check that it is ours, start the run with the first one, move the clock."""
        if symbol is not None and symbol != self._instrument.symbol:
            raise DataError(f"the message is about {symbol}", remedy=f"give --symbol {symbol}, or other files")
        if not self.run_id:
            self._start(recv_ns)
        elif recv_ns < self._now_ns:
            self._step_back(recv_ns)
        self._now_ns = recv_ns
        self._latest_ns = max(self._latest_ns, recv_ns)

    def _start(self, recv_ns: int) -> None:
        self.run_id, self._start_ns, self._now_ns = recv_ns // NS_PER_MS, recv_ns, recv_ns
        for why in self._early:
            self._degrade(why)
        self._event("run_start", venue=self._instrument.venue, symbol=self._instrument.symbol)

    def _step_back(self, recv_ns: int) -> None:
        behind_ns = self._latest_ns - recv_ns
        if behind_ns > HOLD_NS:
            raise DataError(
                f"its time is {behind_ns / NS_PER_S:.3f} s before an earlier line's",
                remedy="give the files in the order of recording, and import other clocks' recordings apart",
            )
        self._event("clock_step", from_ns=self._now_ns, to_ns=recv_ns)
        self._degrade("the clock stepped back")

    def _event(self, kind: str, **details: Any) -> int:
        """Write a ledger entry for now; returns its id."""
        return self._out.event(self._now_ns, self._epoch_id, kind, details)

    def _degrade(self, why: str) -> None:
        if self.run_id:
            self.findings.degrade(day_of_ns(self._now_ns), why)
        else:
            self._early.append(why)

    # -- the book ------------------------------------------------------------------------------------

    def _on_depth(self, recv_ns: int, update: DepthUpdate) -> None:
        exch_ns = to_ns(update.event_time)
        self._arrived(recv_ns, update.symbol)
        step = self._sync.on_update(update)
        if step.action in (Action.APPLY, Action.SYNC):
            self._apply(step, update.event_time)
        elif step.action is Action.RESYNC:
            self._lose("updates were missed", step.missing)
        elif step.action is Action.REFUSE:
            self._event("resync", reason="snapshot is older than the updates after it")
        head = (recv_ns, exch_ns, self.findings.lines, self._epoch_id, update.first_id, update.last_id, update.prev_id)
        self._out.diffs.add(head, update.bids, update.asks)

    def _on_snapshot(self, recv_ns: int, snapshot: Snapshot) -> None:
        if snapshot.event_time is not None:
            to_ns(snapshot.event_time)
        self._arrived(recv_ns, None)
        step = self._sync.on_snapshot(snapshot.last_update_id)
        event_id = self._event("snapshot_loaded", **_describe(snapshot), action=step.action.name.lower())
        head = (recv_ns, self.findings.lines, event_id, snapshot.last_update_id)
        for side, levels in ((1, snapshot.bids), (-1, snapshot.asks)):
            for price, qty in dict(levels).items():
                self._out.snapshots.append((*head, side, price, qty))
        if step.action in (Action.LOAD, Action.SYNC):
            self._book.load(snapshot.bids, snapshot.asks)
        if step.action is Action.SYNC:
            self._apply(step, step.updates[-1].event_time)
        elif step.action is Action.REFUSE:
            self._event("resync", reason="snapshot is older than the buffered updates")
        elif step.action is Action.RESYNC:
            self._event("resync", reason="updates are missing between the buffered ones", missing=step.missing)

    def _apply(self, step: Step[DepthUpdate], event_time: int) -> None:
        """Bring the book forward by the step's updates, and write its frame if it is fit for one."""
        for update in step.updates:
            self._book.apply(update.bids, update.asks)
        last = step.updates[-1]
        if step.action is Action.SYNC:
            self.findings.epochs += 1
            self._epoch_id = self.findings.epochs
            self._event("sync", update_id=last.last_id)
        if self._book.crossed:
            self._lose(f"update {last.last_id} crossed the book", None)
            self._sync.reset(keep=last)
            return
        self._good_ns = self._now_ns
        if not self._book.one_sided:
            self._write_frame(to_ns(event_time), last.last_id)
        elif not self._one_sided:
            self._event("one_sided", update_id=last.last_id)
        self._one_sided = self._book.one_sided

    def _write_frame(self, exch_ns: int, update_id: int) -> None:
        if self._hole is not None:
            self._close_hole(self._hole)
        self._out.depth.add(self._now_ns, exch_ns, self.findings.lines, self._epoch_id, update_id, self._book)

    def _lose(self, reason: str, missing: tuple[int, int] | None) -> None:
        """The book is thrown away: from now on it is unsynced. Losses before the next frame make one hole."""
        ended, self._epoch_id = self._epoch_id, 0
        self._one_sided = False
        self._event("gap", stream="depth", reason=reason, missing=missing, ended_epoch=ended)
        self._event("resync", reason=reason)
        self._degrade("book lost")
        if self._hole is None and self._good_ns:
            self._hole = Hole(self._good_ns, missing, reason)

    def _close_hole(self, hole: Hole) -> None:
        self._hole = None
        self._out.gap("depth", hole.from_ns, self._now_ns, hole.missing, hole.reason, "gaps in depth")

    # -- trades and tickers --------------------------------------------------------------------------

    def _on_trade(self, recv_ns: int, trade: Trade) -> None:
        exch_ns, trade_ns = to_ns(trade.event_time), to_ns(trade.trade_time)
        self._arrived(recv_ns, trade.symbol)
        self._number(trade.trade_id)
        if reason := self._feed.not_a_print(trade):
            raise FeedError(reason)
        taker = -1 if trade.buyer_is_maker else 1
        row = (recv_ns, exch_ns, trade_ns, self.findings.lines, trade.trade_id, trade.price, trade.qty, taker, "ws")
        self._out.trades.append(row)

    def _number(self, trade_id: int) -> None:
        """Follow the trade ids: a jump is a hole; raises FeedError for an id that does not go on."""
        last_id, last_ns = self._trade or (trade_id - 1, self._now_ns)
        if trade_id <= last_id:
            raise FeedError(f"repeated trade id: {trade_id} after {last_id}")
        self._trade = (trade_id, self._now_ns)
        if trade_id > last_id + 1:
            missing = (last_id + 1, trade_id - 1)
            self._event("gap", stream="trade", reason="trade ids jump", missing=missing)
            self._out.gap("trade", last_ns, self._now_ns, missing, "trade ids jump", "gaps in trades")

    def _on_ticker(self, recv_ns: int, ticker: BookTicker) -> None:
        exch_ns = None if ticker.event_time is None else to_ns(ticker.event_time)
        self._arrived(recv_ns, ticker.symbol)
        touch = (ticker.bid_px, ticker.bid_qty, ticker.ask_px, ticker.ask_qty)
        self._out.tickers.append((recv_ns, exch_ns, self.findings.lines, ticker.update_id, *touch))


def read(feed: Feed, line: bytes) -> tuple[int, Message]:
    """Receive time in ns and message of one line `<local ns> <json>`; raises FeedError for what cannot be read."""
    stamp, _, payload = line.partition(b" ")
    if len(stamp) != 19 or not stamp.isdigit():
        raise FeedError("no timestamp: a line starts with the time of receipt, 19 digits of ns")
    return int(stamp), feed.decode(payload)


def _describe(snapshot: Snapshot) -> dict[str, Any]:
    """What consumers must know of a snapshot: its id, and how far down it reaches."""
    return {
        "last_update_id": snapshot.last_update_id,
        "bids": len(snapshot.bids),
        "asks": len(snapshot.asks),
        "lowest_bid": min((price for price, _ in snapshot.bids), default=None),
        "highest_ask": max((price for price, _ in snapshot.asks), default=None),
    }
