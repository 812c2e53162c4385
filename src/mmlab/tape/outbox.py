"""The tables of one run on their way out: filled row by row, drained in bulk, sorted and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any, NamedTuple

import msgspec
import polars as pl

from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_DAY, day_of_ns
from mmlab.core.table import Table
from mmlab.tape.books import DepthRows
from mmlab.tape.findings import Findings, days_between
from mmlab.tape.rows import Buffer, DiffRows, Rows, check_grid


class Batch(NamedTuple):
    """Rows of one table; `day` is given where the rows themselves do not tell it."""

    table: Table
    frame: pl.DataFrame
    day: date | None = None


class Outbox:
    """Every table's rows. Times of 0 are those before the run has started, and become its start."""

    def __init__(self, instrument: Instrument, levels: int, findings: Findings) -> None:
        self.depth = DepthRows(instrument, levels)
        self.diffs = DiffRows()
        self.snapshots = Rows(schemas.SNAPSHOTS)
        self.tickers = Rows(schemas.BOOK_TICKER)
        self.latency = Rows(schemas.LATENCY)
        self.event_id = 0
        self.heard: Callable[[str, dict[str, Any]], object] | None = None  # told of every ledger entry
        self._kept = True
        self._held: list[Held] = []
        self.carry(self.depth, self.diffs, self.snapshots, self.tickers, self.latency)
        self._instrument = instrument
        self._findings = findings
        self._events: list[tuple[Any, ...]] = []
        self._aside: list[tuple[Any, ...]] = []
        self._gaps: list[tuple[date, tuple[Any, ...]]] = []

    def carry(self, *buffers: Buffer) -> None:
        """Take rows of these along."""
        self._held += [Held(buffer) for buffer in buffers]

    def keep_nothing(self) -> None:
        """Drop all rows from now on: for whoever wants to know the state and not the tables."""
        self._kept = False
        for held in self._held:
            held.buffer.drop()

    def event(self, now_ns: int, epoch_id: int, kind: str, details: dict[str, Any]) -> int:
        """Write a ledger entry; returns its id."""
        self.event_id += 1
        if self._kept:
            self._events.append((now_ns, self.event_id, epoch_id, kind, msgspec.json.encode(details).decode()))
        if self.heard is not None:
            self.heard(kind, details)
        return self.event_id

    def set_aside(self, now_ns: int, source: str, line_no: int, reason: str, raw: bytes) -> None:
        """Keep a line that could not be read."""
        if self._kept:
            self._aside.append((now_ns, source, line_no, reason, raw))

    def gap(
        self, stream: str, from_ns: int, to_ns: int, missing: tuple[int, int] | None, reason: str, why: str
    ) -> None:
        """Declare a hole, on every day that it touches; `why` is what it degrades those days for, if anything."""
        begin_ns, end_ns = sorted((from_ns, to_ns))
        self._findings.gaps[stream] += 1
        for day in days_between(begin_ns, end_ns) if self._kept else ():
            self._gaps.append((day, (begin_ns, end_ns, stream, *(missing or (None, None)), reason)))
            if why:
                self._findings.degrade(day, why)

    def drain(self, run_id: int, start_ns: int, until_ns: int | None, where: Callable[[int], str]) -> Iterator[Batch]:
        """Rows received before `until_ns`; all of them, and the gaps, when it is None.

        Raises DataError for a decimal off the grid; `where` tells the line from its recv_seq.
        """
        batches = [
            Batch(held.buffer.table, held.take(run_id, until_ns, lambda new: check_grid(new, self._instrument, where)))
            for held in self._held
        ]
        events = [(ns or start_ns, *row) for ns, *row in self._events]
        batches.append(Batch(schemas.EVENTS, _frame(schemas.EVENTS, events, run_id)))
        aside = [(day_of_ns(ns or start_ns), tuple(row)) for ns, *row in self._aside]
        batches += _by_day(schemas.QUARANTINE, aside, run_id)
        self._events.clear()
        self._aside.clear()
        if until_ns is None:
            self._gaps.sort(key=lambda gap: gap[1][:3])
            batches += _by_day(schemas.GAPS, self._gaps, run_id)
            self._gaps.clear()
        for batch in batches:
            if not batch.frame.is_empty():
                self._count(batch)
                yield batch

    def _count(self, batch: Batch) -> None:
        """Add the batch's rows to the findings, by day."""
        if batch.day is not None:
            self._findings.rows[batch.day][batch.table.name] += batch.frame.height
            return
        for number, n in (batch.frame["recv_ns"] // NS_PER_DAY).value_counts().iter_rows():
            self._findings.rows[day_of_ns(number * NS_PER_DAY)][batch.table.name] += n


class Held:
    """Frames of one table, let go in the order of receipt.

    What was received after the instant asked for is kept, so that rows received under a clock that
    stepped back a little are sorted in, wherever the input happened to be cut into batches.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self._kept = buffer.table.empty()

    def take(self, run_id: int, until_ns: int | None, check: Callable[[pl.DataFrame], None]) -> pl.DataFrame:
        """Rows older than `until_ns`, sorted; all when it is None. `check` sees each row once."""
        fresh = self.buffer.frame(run_id)
        check(fresh)
        frame = pl.concat([self._kept, fresh]).sort("recv_ns", "recv_seq", maintain_order=True)
        done = frame.height if until_ns is None else int(frame["recv_ns"].search_sorted(until_ns))
        self._kept = frame[done:]
        return frame[:done]


def _frame(table: Table, rows: Iterable[tuple[Any, ...]], run_id: int) -> pl.DataFrame:
    buffer = Rows(table)
    for row in rows:
        buffer.append(row)
    return buffer.frame(run_id)


def _by_day(table: Table, rows: list[tuple[date, tuple[Any, ...]]], run_id: int) -> list[Batch]:
    """One batch for each day, in the rows' own order."""
    days: dict[date, list[tuple[Any, ...]]] = {}
    for day, row in rows:
        days.setdefault(day, []).append(row)
    return [Batch(table, _frame(table, of_day, run_id), day) for day, of_day in days.items()]
