"""One symbol's market as its messages tell it, in the order of receipt: book, prints, ledger, holes.

The owner moves `now_ns` and `seq` (receive time and number of the message at hand) and calls the method
for what was received; rows collect in `out`. `epoch_id` tells the state after the message: 0 is unsynced.
An import and a recorder differ in what may come twice or late: see `recording`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import msgspec

from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_S, day_of_ns
from mmlab.tape.books import Book
from mmlab.tape.findings import Findings
from mmlab.tape.holes import Hole, Ids, without
from mmlab.tape.outbox import Outbox
from mmlab.tape.prints import Prints
from mmlab.venues.binance import AggTrade, BookTicker, DepthUpdate, Feed, Printed, Snapshot, Trade, to_ns
from mmlab.venues.book_sync import Action, BookSync, State, Step

RECENT = 512  # updates remembered to know a repeat by: a minute of the stream, while an overlap takes seconds
PROMPT_NS = 60 * NS_PER_S  # a recording that begins this soon after its window opened is complete
BACKWARDS = 20  # updates in a row that are older than the book, before ids are taken to have been set back


class Market:
    """The fold. `recording`: connections may overlap (repeats are dropped), prints may be filled in by REST."""

    def __init__(self, feed: Feed, instrument: Instrument, levels: int, recording: bool = False) -> None:
        self.feed, self.instrument, self.recording = feed, instrument, recording
        self.findings = Findings()
        self.out = Outbox(instrument, levels, self.findings)
        self.trades = Prints("trade", schemas.TRADES, self.out, recording)
        self.agg_trades = Prints("aggTrade", schemas.AGG_TRADES, self.out, recording)
        self.out.carry(self.trades.rows, self.agg_trades.rows)
        self.now_ns = self.seq = 0
        self.epoch_id = 0
        self.generation = 1  # counts the books that were asked for; an answer for an older one is of no use
        self.sync: BookSync[DepthUpdate] = BookSync(feed.rules)
        self.book = Book(instrument.ticks)
        self.good_ns = 0  # when the book was last known to be right
        self.raw_id: int | None = None  # newest update received, in a right book or not
        self._fresh = False  # the next update is the first of a connection that followed none
        self._one_sided = False
        self._hole: Hole | None = None
        self._missing: list[Ids] = []  # updates that never came, since the hole began
        self._recent: dict[int, None] = {}  # last ids of recent updates, oldest first
        self._stale = 0
        self._ticker_id, self._ticker_ns = -1, 0
        self._lost: dict[str, int] = {}  # stream -> since when; until a message shows what was missed

    # -- ledger --------------------------------------------------------------------------------------

    def event(self, kind: str, **details: Any) -> int:
        """Write a ledger entry for now; returns its id."""
        return self.out.event(self.now_ns, self.epoch_id, kind, details)

    def degrade(self, why: str) -> None:
        """Count a fault of today's data."""
        self.findings.degrade(day_of_ns(self.now_ns), why)

    def begin(self, from_ns: int, reason: str, after_id: int | None) -> None:
        """Nothing was recorded since `from_ns`: a hole until the first frame."""
        self._hole = Hole(from_ns, reason, start=True)
        self.raw_id, self._fresh = after_id, True

    def close(self) -> None:
        """The run is over: declare what is open."""
        for stream, since_ns in sorted(self._lost.items()):
            reason = "connection lost, and nothing came after it"
            self.out.gap(stream, since_ns, self.now_ns, None, reason, f"gaps in {stream}")
        self._lost.clear()
        if self._hole is not None:
            self._close_hole(self._hole)
        self.trades.give_up_all()
        self.agg_trades.give_up_all()

    # -- the book ------------------------------------------------------------------------------------

    @property
    def lacks_snapshot(self) -> bool:
        """True if updates wait for a snapshot."""
        return self.sync.state is State.NO_SNAPSHOT

    @property
    def synced(self) -> bool:
        """True if the book is right."""
        return self.sync.state is State.SYNCED

    def on_depth(self, update: DepthUpdate) -> None:
        """One update of the book."""
        exch_ns = to_ns(update.event_time)
        self._lost.pop("depth", None)
        if self.recording and self._is_repeat(update):
            return
        self._follow(update)
        step = self.sync.on_update(update)
        if step.action in (Action.APPLY, Action.SYNC):
            self._apply(step, update.event_time)
        elif step.action is Action.RESYNC:
            self._lose("updates were missed", step.missing)
        elif step.action is Action.REFUSE:
            self.event("resync", reason="snapshot is older than the updates after it")
        self._watch_ids(step.action, update)
        head = (self.now_ns, exch_ns, self.seq, self.epoch_id, update.first_id, update.last_id, update.prev_id)
        self.out.diffs.add(head, update.bids, update.asks)

    def _is_repeat(self, update: DepthUpdate) -> bool:
        """True for an update received before, by this connection or by another."""
        if update.last_id in self._recent:
            self.findings.repeats["depth"] += 1
            return True
        self._recent[update.last_id] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        return False

    def _follow(self, update: DepthUpdate) -> None:
        """Follow the ids of all updates received, book or no book: what never came; one that comes late did."""
        before = update.first_id - 1 if update.prev_id is None else update.prev_id
        if self._fresh and self.raw_id is not None and update.last_id < self.raw_id:
            self.raw_id = None  # what is sent now is new: the venue has set its ids back
        self._fresh = False
        if self.raw_id is None or update.last_id > self.raw_id:
            if self.raw_id is not None and before > self.raw_id:
                self._missing.append((self.raw_id + 1, before))
            self.raw_id = update.last_id
        else:
            self._missing = without(self._missing, (update.first_id, update.last_id))

    def _watch_ids(self, action: Action, update: DepthUpdate) -> None:
        """Ids that were set back for good are no late updates: the book is lost."""
        self._stale = self._stale + 1 if action is Action.IGNORE and self.synced else 0
        if self._stale >= BACKWARDS:
            self._lose("update ids were set back", None)
            self.sync.reset(keep=update)
            self.raw_id, self._stale = update.last_id, 0
        if self._hole is None:
            self._missing = []  # before the first book there is nothing to be missing from

    def on_snapshot(self, snapshot: Snapshot) -> Action:
        """A snapshot of the book; REFUSE and RESYNC ask for another one."""
        if snapshot.event_time is not None:
            to_ns(snapshot.event_time)
        step = self.sync.on_snapshot(snapshot.last_update_id)
        event_id = self.event("snapshot_loaded", **snapshot.described(), action=step.action.name.lower())
        head = (self.now_ns, self.seq, event_id, snapshot.last_update_id)
        for side, levels in ((1, snapshot.bids), (-1, snapshot.asks)):
            for price, qty in dict(levels).items():
                self.out.snapshots.append((*head, side, price, qty))
        if step.action in (Action.LOAD, Action.SYNC):
            self.book.load(snapshot.bids, snapshot.asks)
        if step.action is Action.SYNC:
            self._apply(step, step.updates[-1].event_time)
        elif step.action is Action.REFUSE:
            self.event("resync", reason="snapshot is older than the buffered updates")
        elif step.action is Action.RESYNC:
            self.event("resync", reason="updates are missing between the buffered ones", missing=step.missing)
        return step.action

    def lose_connection(self, streams: Iterable[str]) -> None:
        """Nothing more comes by these streams for now.

        A book in sync stays: the next update shows by its ids whether any was missed, as prints do by
        theirs; if none comes until the end, the time is a hole. Buffered updates have no such proof and go.
        Tickers have no ids that run on: theirs is a hole in any case.
        """
        for stream in streams:
            since_ns = self.good_ns if stream == "depth" else self._ticker_ns if stream == "bookTicker" else None
            if since_ns is None:
                last = self.prints(stream).last
                since_ns = last[1] if last else 0
            self._lost.setdefault(stream, since_ns or self.now_ns)
            if stream in ("trade", "aggTrade"):
                self.prints(stream).fresh = True
            self._fresh |= stream == "depth"
            if stream == "depth" and not self.synced:
                self.generation += 1
                self.sync.reset()

    def _apply(self, step: Step[DepthUpdate], event_time: int) -> None:
        """Bring the book forward by the step's updates, and write its frame if it is fit for one."""
        for update in step.updates:
            self.book.apply(update.bids, update.asks)
        last = step.updates[-1]
        if step.action is Action.SYNC:
            self.findings.epochs += 1
            self.epoch_id = self.findings.epochs
            self.event("sync", update_id=last.last_id)
        if self.book.crossed:
            self._lose(f"update {last.last_id} crossed the book", None)
            self.sync.reset(keep=last)
            return
        if self._hole is not None and not self.book.one_sided:
            self._close_hole(self._hole)
        self.good_ns = self.now_ns
        if not self.book.one_sided:
            exch_ns = to_ns(event_time)
            self.out.depth.add(self.now_ns, exch_ns, self.seq, self.epoch_id, last.last_id, self.book)
        elif not self._one_sided:
            self.event("one_sided", update_id=last.last_id)
        self._one_sided = self.book.one_sided

    def _lose(self, reason: str, missing: tuple[int, int] | None) -> None:
        """The book is thrown away: from now on it is unsynced. Losses before the next frame make one hole."""
        ended, self.epoch_id = self.epoch_id, 0
        self._one_sided = False
        self.generation += 1
        self.event("gap", stream="depth", reason=reason, missing=missing, ended_epoch=ended)
        self.event("resync", reason=reason)
        self.degrade("book lost")
        if self._hole is None and self.good_ns:
            self._hole = Hole(self.good_ns, reason)

    def _close_hole(self, hole: Hole) -> None:
        """One row for each stretch of updates that never came, or one of time."""
        self._hole = None
        prompt = hole.start and not self._missing and self.now_ns - hole.from_ns <= PROMPT_NS
        for missing in self._missing or (None,):
            why = "" if prompt else "gaps in depth"
            self.out.gap("depth", hole.from_ns, self.now_ns, missing, hole.reason, why)
        self._missing = []

    # -- prints and tickers --------------------------------------------------------------------------

    def on_trade(self, trade: Trade | AggTrade) -> str:
        """One print; returns why it is none, "" if it is one."""
        prints = self.trades if isinstance(trade, Trade) else self.agg_trades
        to_ns(trade.event_time), to_ns(trade.trade_time)
        reason = self.feed.not_a_print(trade)
        missing = prints.take(self.now_ns, self.seq, trade, reason)
        self._lost.pop(prints.stream, None)
        if missing:
            self.event("gap", stream=prints.stream, reason="trade ids jump", missing=missing)
        return reason

    def fill(self, stream: str, first: int, last: int, printed: list[Printed], final: bool) -> None:
        """Prints that REST gave for the ids [first, last], ascending from the first.

        An id that it skipped does not exist, or not for us: it stays missing. One beyond its last may
        still come, unless this was the `final` try.
        """
        prints = self.prints(stream)
        wanted = [p for p in printed if first <= p.trade_id <= last]
        n = prints.fill(self.now_ns, self.seq, wanted)
        self.seq += len(wanted)
        until = last if final else min(max((p.trade_id for p in printed), default=first - 1), last)
        prints.give_up(first, until)
        self.event("backfill", stream=stream, first=first, last=last, filled=n, until=until)

    def probe(self, stream: str, printed: list[Printed]) -> bool:
        """Prints that REST has beyond the last one received: True if there are, so the stream was dead."""
        prints = self.prints(stream)
        if prints.last is None:
            return False
        self._lost.pop(stream, None)
        later = [p for p in printed if p.trade_id > prints.last[0]]
        if not later:
            return False
        first, last = prints.last[0] + 1, later[-1].trade_id
        prints.missed(last, self.now_ns)
        self.degrade("a stream fell silent")
        self.event("silence", stream=stream, missing=(first, last))
        self.fill(stream, first, last, later, final=True)
        return True

    def prints(self, stream: str) -> Prints:
        """The tape of a stream, `trade` or `aggTrade`."""
        return self.trades if stream == "trade" else self.agg_trades

    def on_ticker(self, ticker: BookTicker) -> None:
        """One best bid and ask."""
        if self.recording and ticker.update_id <= self._ticker_id and self._ticker_id - ticker.update_id < 10**6:
            self.findings.repeats["bookTicker"] += 1
            return
        if self._lost.pop("bookTicker", None) is not None and self._ticker_ns:
            self.out.gap("bookTicker", self._ticker_ns, self.now_ns, None, "connection lost", "gaps in tickers")
        self._ticker_id, self._ticker_ns = ticker.update_id, self.now_ns
        exch_ns = None if ticker.event_time is None else to_ns(ticker.event_time)
        touch = (ticker.bid_px, ticker.bid_qty, ticker.ask_px, ticker.ask_qty)
        self.out.tickers.append((self.now_ns, exch_ns, self.seq, ticker.update_id, *touch))

    # -- checkpoints ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that later rows depend on, as JSON can hold it; `restore` goes on from it."""
        return {
            "seq": self.seq, "epoch_id": self.epoch_id, "epochs": self.findings.epochs,
            "generation": self.generation, "good_ns": self.good_ns, "raw_id": self.raw_id, "fresh": self._fresh,
            "one_sided": self._one_sided, "hole": None if self._hole is None else asdict(self._hole),
            "missing": self._missing, "recent": list(self._recent), "stale": self._stale,
            "ticker_id": self._ticker_id, "ticker_ns": self._ticker_ns, "lost": self._lost,
            "event_id": self.out.event_id, "trades": self.trades.state(), "agg_trades": self.agg_trades.state(),
            "sync": {
                "state": self.sync.state.name, "book_id": self.sync.book_id,
                "buffer": [msgspec.to_builtins(update) for update in self.sync.buffer],
            },
            "book": [list(side.qty.items()) for side in (self.book.bids, self.book.asks)],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.seq, self.epoch_id, self.findings.epochs = state["seq"], state["epoch_id"], state["epochs"]
        self.generation, self.good_ns, self.raw_id = state["generation"], state["good_ns"], state["raw_id"]
        self._one_sided, self._stale, self._ticker_id = state["one_sided"], state["stale"], state["ticker_id"]
        self._ticker_ns, self._fresh = state["ticker_ns"], state.get("fresh", False)  # older journals have none
        self._lost = dict(state["lost"])
        self._hole = state["hole"] and Hole(**state["hole"])
        self._missing = [(a, b) for a, b in state["missing"]]
        self._recent = dict.fromkeys(state["recent"])
        self.out.event_id = state["event_id"]
        self.trades.restore(state["trades"])
        self.agg_trades.restore(state["agg_trades"])
        sync = state["sync"]
        self.sync.state, self.sync.book_id = State[sync["state"]], sync["book_id"]
        self.sync.buffer.clear()
        self.sync.buffer.extend(msgspec.convert(update, DepthUpdate, strict=False) for update in sync["buffer"])
        for side, levels in zip((self.book.bids, self.book.asks), state["book"], strict=True):
            side.qty = dict(levels)
            side.keys = sorted(side.qty)
