"""Raw feed lines -> lake tables: split, decode, and hand each message to its market.

Fed one line at a time, in the order of receipt; gives up frames in bulk. Each line:
  1. is counted (`recv_seq`), split into the recorder's time and the message, decoded;
     what cannot be read is set aside in `quarantine`, and everything else goes on;
  2. moves the clock; a step back is an event and degrades the day, no time is ever rewritten;
  3. goes to the market (market.py), which keeps the book in sync and declares every hole.

Rows leave sorted by (recv_ns, recv_seq). Rows of the newest HOLD_NS wait for that, so a step back of
less is sorted in; a larger one (files in the wrong order, a clock set by hand) is a DataError.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from mmlab.core.errors import DataError, FeedError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.tape.findings import HARMLESS, Findings, fault_kind
from mmlab.tape.market import Market
from mmlab.tape.outbox import Batch
from mmlab.venues.binance import AggTrade, BookTicker, DepthUpdate, Feed, Message, Trade, to_ns

HOLD_NS = 60 * NS_PER_S


class Ingest:
    """One import run: `feed` each line, `drain` now and then; at the end `finish`, and drain the rest."""

    def __init__(self, feed: Feed, instrument: Instrument, levels: int) -> None:
        self.run_id = 0
        self._market = Market(feed, instrument, levels)
        self._sources: list[tuple[int, str]] = []  # (lines before it, name)
        self._early: list[str] = []  # faults before the run has started
        self._start_ns = self._latest_ns = 0

    @property
    def findings(self) -> Findings:
        """What was found besides data."""
        return self._market.findings

    # -- lines in ------------------------------------------------------------------------------------

    def feed(self, source: str, line_no: int, line: bytes) -> None:
        """Take one line, without its line end.

        Raises DataError for what makes the whole import meaningless: another symbol or venue, a clock
        that steps back by more than HOLD_NS.
        """
        self._count(source)
        try:
            recv_ns, message = read(self._market.feed, line)
            self._handle(recv_ns, message)
        except FeedError as error:
            self._note(source, line_no, line, error.message)
        except DataError as error:
            raise DataError(f"{source}, line {line_no}: {error.message}", remedy=error.remedy) from None

    def _handle(self, recv_ns: int, message: Message) -> None:
        """One message that could be read; its times are checked before it moves the clock."""
        market = self._market
        if isinstance(message, DepthUpdate):
            to_ns(message.event_time)
            self._arrived(recv_ns, message.symbol)
            market.on_depth(message)
        elif isinstance(message, Trade | AggTrade):
            to_ns(message.event_time), to_ns(message.trade_time)
            self._arrived(recv_ns, message.symbol)
            if reason := market.on_trade(message):
                raise FeedError(reason)
        elif isinstance(message, BookTicker):
            if message.event_time is not None:
                to_ns(message.event_time)
            self._arrived(recv_ns, message.symbol)
            market.on_ticker(message)
        else:
            if message.event_time is not None:
                to_ns(message.event_time)
            self._arrived(recv_ns, None)
            market.on_snapshot(message)

    def set_aside(self, source: str, line_no: int, raw: bytes, reason: str) -> None:
        """Keep a line that never came to be one (the torn end of a file), byte for byte."""
        self._count(source)
        self._note(source, line_no, raw, reason)

    def finish(self) -> None:
        """The input is over: close what is open. Raises DataError if no line could be read."""
        if not self.run_id:
            raise DataError(f"none of {self.findings.lines} lines could be read", remedy="check --venue and the files")
        self._market.close()
        self._market.event("run_stop", lines=self.findings.lines)

    def drain(self, final: bool = False) -> Iterator[Batch]:
        """Rows that are ready, `final` all of them; raises DataError for a decimal off the grid, with its line."""
        if self.run_id:
            until_ns = None if final else self._latest_ns - HOLD_NS
            yield from self._market.out.drain(self.run_id, self._start_ns, until_ns, self._where)

    def _where(self, recv_seq: int) -> str:
        """File and line of a message."""
        before, source = self._sources[bisect_left(self._sources, (recv_seq,)) - 1]
        return f"{source}, line {recv_seq - before}"

    def _count(self, source: str) -> None:
        if not self._sources or self._sources[-1][1] != source:
            self._sources.append((self.findings.lines, source))
        self.findings.lines += 1
        self._market.seq = self.findings.lines

    def _note(self, source: str, line_no: int, raw: bytes, reason: str) -> None:
        kind = fault_kind(reason)
        first = kind not in self.findings.set_aside
        self.findings.note(kind, source, line_no)
        self._market.out.set_aside(self._market.now_ns, source, line_no, reason, raw)
        if not kind.startswith(HARMLESS):
            self._degrade(f"lines set aside, {kind}")
        if first:
            self._market.event("quarantine", source=source, line_no=line_no, reason=reason)

    # -- the clock -----------------------------------------------------------------------------------

    def _arrived(self, recv_ns: int, symbol: str | None) -> None:
        """A message that was read: check that it is ours, start the run with the first one, move the clock."""
        market = self._market
        if symbol is not None and symbol != market.instrument.symbol:
            raise DataError(f"the message is about {symbol}", remedy=f"give --symbol {symbol}, or other files")
        if not self.run_id:
            self._start(recv_ns)
        elif recv_ns < market.now_ns:
            self._step_back(recv_ns)
        market.now_ns = recv_ns
        self._latest_ns = max(self._latest_ns, recv_ns)

    def _start(self, recv_ns: int) -> None:
        market = self._market
        self.run_id, self._start_ns, market.now_ns = recv_ns // NS_PER_MS, recv_ns, recv_ns
        for why in self._early:
            self._degrade(why)
        market.event("run_start", venue=market.instrument.venue, symbol=market.instrument.symbol)

    def _step_back(self, recv_ns: int) -> None:
        behind_ns = self._latest_ns - recv_ns
        if behind_ns > HOLD_NS:
            raise DataError(
                f"its time is {behind_ns / NS_PER_S:.3f} s before an earlier line's",
                remedy="give the files in the order of recording, and import other clocks' recordings apart",
            )
        self._market.event("clock_step", from_ns=self._market.now_ns, to_ns=recv_ns)
        self._degrade("the clock stepped back")

    def _degrade(self, why: str) -> None:
        if self.run_id:
            self._market.degrade(why)
        else:
            self._early.append(why)


def read(feed: Feed, line: bytes) -> tuple[int, Message]:
    """Receive time in ns and message of one line `<local ns> <json>`; raises FeedError for what cannot be read."""
    stamp, _, payload = line.partition(b" ")
    if len(stamp) != 19 or not stamp.isdigit():
        raise FeedError("no timestamp: a line starts with the time of receipt, 19 digits of ns")
    return int(stamp), feed.decode(payload)
