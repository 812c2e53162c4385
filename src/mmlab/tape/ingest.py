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

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import msgspec
import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import DataError, FeedError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_MS, NS_PER_S, day_of_ns
from mmlab.tape.books import Book, DepthRows
from mmlab.tape.findings import HARMLESS, Findings, days_between, fault_kind
from mmlab.tape.rows import DiffRows, Held, Rows, check_grid
from mmlab.venues.binance import BookTicker, DepthUpdate, Feed, Message, Snapshot, Trade, to_ns
from mmlab.venues.book_sync import Action, BookSync, Step

HOLD_NS = 60 * NS_PER_S


class Batch(NamedTuple):
    """Rows for one table of the lake; `day` is given where the rows themselves do not tell it."""

    table: str
    frame: pl.DataFrame
    day: date | None = None


@dataclass(frozen=True)
class Hole:
    """A gap that is open until the next frame: since when, which ids are missing, why."""

    from_ns: int
    missing: tuple[int, int] | None
    reason: str


class Ingest:
    """One import run. `feed` each line, `drain` now and then, `finish` and `drain` at the end."""

    def __init__(self, feed: Feed, instrument: Instrument, levels: int) -> None:
        self.findings = Findings()
        self.run_id = 0
        self._feed = feed
        self._instrument = instrument
        self._sources: list[tuple[int, str]] = []  # (messages before it, name)
        self._now_ns = self._latest_ns = 0
        self._event_id = self._epoch_id = 0
        self._sync: BookSync[DepthUpdate] = BookSync(feed.rules)
        self._book = Book(instrument.ticks)
        self._good_ns = 0  # when the book was last known to be right
        self._one_sided = False
        self._hole: Hole | None = None
        self._trade: tuple[int, int] | None = None  # id and time of the last print
        self._depth, self._diffs = DepthRows(instrument, levels), DiffRows()
        self._snapshots, self._trades = Rows(schemas.SNAPSHOTS), Rows(schemas.TRADES)
        self._tickers, self._events = Rows(schemas.BOOK_TICKER), Rows(schemas.EVENTS)
        self._held = [
            Held(b, HOLD_NS) for b in (self._depth, self._diffs, self._snapshots, self._trades, self._tickers)
        ]
        self._gaps: list[tuple[Any, ...]] = []
        self._aside: list[tuple[int, str, int, str, bytes]] = []
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

    def _count(self, source: str) -> None:
        if not self._sources or self._sources[-1][1] != source:
            self._sources.append((self.findings.lines, source))
        self.findings.lines += 1

    def _note(self, source: str, line_no: int, raw: bytes, reason: str) -> None:
        kind = fault_kind(reason)
        first = kind not in self.findings.set_aside
        self.findings.note(kind, source, line_no)
        self._aside.append((self._now_ns, source, line_no, reason, raw))
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
        self.run_id, self._now_ns = recv_ns // NS_PER_MS, recv_ns
        early, self._early = self._early_events(), []
        self._event("run_start", venue=self._instrument.venue, symbol=self._instrument.symbol)

    def _step_back(self, recv_ns: int) -> None:
        behind = self._latest_ns - recv_ns
        if behind > HOLD_NS:
            raise DataError(
                f"its time is {behind / NS_PER_S:.3f} s before an earlier line's",
                remedy="give the files in the order of recording, and import what was recorded on another clock apart",
            )
        self._event("clock_step", from_ns=self._now_ns, to_ns=recv_ns)
        self._degrade("the clock stepped back")
