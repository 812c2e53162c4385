"""`mmlab record`: every frame into the journal, then to the fold that says what is wanted; segments to the lake.

One run records one window (or, always, until it is stopped). Its order, for each message:
  1. the clocks are read once, a new day or a full segment rolls the journal;
  2. the record goes to the journal's queue; what does not fit is counted, and said in the next mark;
  3. the fold reads it; a timer asks the session what is to be done, and the client does it.
Sealed segments are compacted by a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlab.core.record import Kind, Record, answer, mark
from mmlab.core.spans import NS_PER_DAY, NS_PER_MS, NS_PER_S, day_of_ns
from mmlab.flows import record_start as start
from mmlab.flows.compact import journal_root, keep_marker, recover
from mmlab.flows.compactor import Compactor
from mmlab.record.client import Client
from mmlab.record.clock import SteadyClock
from mmlab.record.commands import Close, Command, Fetch, Note, Open
from mmlab.record.health import Health
from mmlab.record.session import Session
from mmlab.record.spec import RecordSpec
from mmlab.store.journal import Journal, Promise, Roll
from mmlab.store.journal_file import Segment
from mmlab.store.locks import Lock
from mmlab.tape.latency import NAMES, quantiles
from mmlab.tape.replay import Replay
from mmlab.venues.endpoints import Listing

POLL_S = 0.02
TICK_S = 1.0  # health, disk space, rates
LAG_S = 60
FINAL_S = 3.0  # for the last snapshot
CLOSING_S, HASTY_S = 3.0, 1.0  # for connections to end; the latter after a second signal
LEAD_NS = 5 * NS_PER_S  # before its window opens, a recorder connects
WARNINGS = ("gap", "overload", "disk_low", "clock_step", "silence", "rest_wait", "schema_drift", "quarantine")


@dataclass(frozen=True)
class Clocks:
    """The wall clock and the monotonic one, ns."""

    wall_ns: Callable[[], int] = time.time_ns
    mono_ns: Callable[[], int] = time.monotonic_ns


REAL = Clocks()


class Recorder:
    """One run of one window, from its first connection to its sealed journal."""

    def __init__(
        self, spec: RecordSpec, span: tuple[int, int], floor_ns: int, log: logging.Logger, health: Health,
        clocks: Clocks = REAL,
    ) -> None:  # fmt: skip
        self._clocks = clocks
        self.spec, self.span, self.log, self.health = spec, span, log, health
        self.root = Path(spec.data_root)
        self.stop_asked = 0  # signals received
        self.fault = ""  # why the run ended by itself
        self._clock = SteadyClock(floor_ns)
        self._session = Session(spec.at, spec.symbols, spec.streams, spec.settings, seed=self._clocks.wall_ns())
        self._session.blocked_wall_ns = start.read_ban(spec)
        self._fold = Replay(spec.at, spec.levels, keep=False, heard=self._heard)
        self._client = Client(
            start.wire(spec), self._on_frame, self._on_open, self._on_close, self._on_answer, self._on_fault
        )
        self._recv_ns = self._clock.read(self._clocks.wall_ns(), self._clocks.mono_ns())[0]
        self.run_id = self._recv_ns // NS_PER_MS
        self._folder = journal_root(self.root, spec.venue) / str(self.run_id)
        self._lock = Lock(self._folder / "lock", str(self._folder))
        if spec.keep_raw:
            keep_marker(self._folder).touch()
        promise = Promise(spec.flush_ms, spec.fsync_ms, int(spec.queue_mb * (1 << 20)))
        self.journal = Journal(self._folder, promise, clocks.mono_ns)
        self._index = self._segment_bytes = 0
        self._roll_ns = self._day_end_ns = 0
        self._rolls: list[Roll] = []
        self._compactor = Compactor(self.root, spec.keep_raw, log)
        self._dropped: list[int] = []  # receive times of frames that found the queue full: count, first, last
        self._final: set[str] = set()
        self._frames_before = 0
        self._handed_over: set[int] = set()  # connections that were closed because another took over

    # -- records in ----------------------------------------------------------------------------------

    def _on_frame(self, conn: int, payload: bytes) -> None:
        self.health.frames += 1
        self.health.bytes += len(payload)
        self._record(Kind.FRAME, conn, payload)

    def _record(self, kind: Kind, conn: int, payload: bytes) -> None:
        """Journal, then fold. A step of the clock, and what was dropped before, are said first."""
        if self.journal.over:  # it came in after the run's last record
            return
        wall_ns, mono_ns = self._clocks.wall_ns(), self._clocks.mono_ns()
        recv_ns, step_ns = self._clock.read(wall_ns, mono_ns)
        self._recv_ns = recv_ns
        if recv_ns >= self._roll_ns or self._segment_bytes >= self.spec.segment_mb << 20:
            self._roll(recv_ns, wall_ns, mono_ns)
        if step_ns:
            self._put(Record(Kind.MARK, 0, recv_ns, wall_ns, mono_ns, mark("clock_step", delta_ns=step_ns)))
        record = Record(kind, conn, recv_ns, wall_ns, mono_ns, payload)
        if self._dropped and self.journal.waiting_bytes < self.journal.promise.queue_bytes // 2:
            count, first_ns, last_ns = self._dropped
            self._dropped = []
            details = mark("overload", count=count, from_ns=first_ns, to_ns=last_ns)
            self._put(Record(Kind.MARK, 0, recv_ns, wall_ns, mono_ns, details))
        if self._dropped and kind is not Kind.MARK:
            self._drop(recv_ns)
        else:
            self._put(record)

    def _put(self, record: Record) -> None:
        if not self.journal.append(record):
            self._drop(record.recv_ns)
            return
        self._segment_bytes += len(record.payload)
        self._fold.take(record)

    def _drop(self, recv_ns: int) -> None:
        """The disk does not keep up: the frame is lost, and will be declared."""
        self.health.dropped += 1
        if not self._dropped:
            self._dropped = [0, recv_ns, recv_ns]
            self.log.error("the journal's queue is full: messages are dropped until it is half empty")
        self._dropped[0] += 1
        self._dropped[2] = recv_ns

    def _mark(self, name: str, **details: Any) -> None:
        self._record(Kind.MARK, 0, mark(name, **details))

    # -- segments ------------------------------------------------------------------------------------

    def _roll(self, recv_ns: int, wall_ns: int, mono_ns: int) -> None:
        """Seal the open segment and begin the next with a checkpoint."""
        why = "day" if self._index and recv_ns >= self._day_end_ns else "size"
        self._index += 1
        self._segment_bytes = 0
        self._day_end_ns = recv_ns - recv_ns % NS_PER_DAY + NS_PER_DAY
        self._roll_ns = min(recv_ns + int(self.spec.segment_min * 60 * NS_PER_S), self._day_end_ns)
        closes_ns = self._day_end_ns if self.spec.hours.always else self.span[1]
        segment = Segment(
            self.spec.venue, self.run_id, self._index, f"{day_of_ns(recv_ns):%Y%m%d}", self.spec.levels,
            list(self.spec.symbols), list(self.spec.streams), closes_ns,
        )  # fmt: skip
        self._rolls.append(self.journal.roll(segment, recv_ns, why))
        if self._fold.markets:
            details = mark("checkpoint", **self._fold.checkpoint())
            self._put(Record(Kind.MARK, 0, recv_ns, wall_ns, mono_ns, details))

    def _compact_sealed(self) -> None:
        while self._rolls and self._rolls[0].done.is_set():
            sealed = self._rolls.pop(0).sealed
            if sealed is not None:
                self._compactor.submit(sealed)
        self._compactor.report()

    # -- what the client reports ---------------------------------------------------------------------

    def _on_open(self, conn: int) -> None:
        self._note(self._session.opened(conn, self._clocks.mono_ns()))
        self.health.connections += 1

    def _on_close(self, conn: int, code: int, reason: str) -> None:
        if conn in self._fold.conns:
            self.health.connections -= 1
            self.health.reconnects += not self._session.stopping and conn not in self._handed_over
        self._note(self._session.closed(conn, self._clocks.mono_ns(), code, reason))
        self.log.info("connection %d closed: %d %s", conn, code, reason)

    def _on_answer(self, about: dict[str, Any], status: int, headers: Mapping[str, str], body: bytes) -> None:
        wall_ns = self._clocks.wall_ns()
        if about.get("last_one"):
            self._final.discard(about["symbol"])
        kept = {"status": status, **{k: v for k, v in headers.items() if k in ("retry-after", "x-mbx-used-weight-1m")}}
        self._record(Kind.ANSWER, 0, answer({**about, **kept}, body))
        for note in self._session.answered(about, status, headers, self._clocks.mono_ns(), wall_ns):
            self._note(note)
            if note.name == "rest_wait":
                start.write_ban(self.spec, self._session.blocked_wall_ns, status)

    def _on_fault(self, error: BaseException) -> None:
        """Something that must not happen: stop, sealed, and say it, rather than go on without a connection."""
        self.log.error("internal error", exc_info=error)
        self.fault = f"internal error: {error!r}"

    def _note(self, note: Note) -> None:
        self._mark(note.name, **note.details)

    def _heard(self, symbol: str, kind: str, details: dict[str, Any]) -> None:
        """A ledger entry of the fold: into the log, and counted."""
        level = logging.WARNING if kind in WARNINGS else logging.INFO
        self.log.log(level, "%s %s %s", symbol, kind, details)
        self.health.gaps += kind == "gap"
        self.health.resyncs += kind == "resync"

    # -- the loop ------------------------------------------------------------------------------------

    async def run(self, listings: dict[str, Listing], status: Callable[[str], None]) -> None:
        """Record until the window closes, a stop is asked for, or nothing can be written any more."""
        spec = self.spec
        opens_ns, closes_ns = self.span
        resume = start.resume_details(spec, self._recv_ns, opens_ns)
        self._mark("run_start", **start.start_details(spec, self.run_id, listings, opens_ns, closes_ns))
        for details in resume:
            self._mark("resume", **details)
        ends_ns = closes_ns if not spec.hours.always else 1 << 62
        began = tick = lag = time.monotonic()
        while not (self.stop_asked or self.fault or self._fold.changed) and self._recv_ns < ends_ns:
            now = time.monotonic()
            self._obey(self._session.poll(self._clocks.mono_ns(), self._clocks.wall_ns(), self._recv_ns, self._fold))
            self._compact_sealed()
            if now - tick >= TICK_S:
                self._look(now - tick)
                tick = now
                status(self.health.line(self._recv_ns))
            if now - lag >= LAG_S:
                lag = now
                self._write_lag()
            if spec.duration_s is not None and now - began >= spec.duration_s:
                break
            if not self._session.stopping and self._clocks.wall_ns() >= ends_ns:
                break
            await asyncio.sleep(POLL_S)
        changed = bool(self._fold.changed) and not self.stop_asked
        await self._finish("window" if self._clocks.wall_ns() >= ends_ns else "filters" if changed else "stop")

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Open):
                self._client.open(command)
            elif isinstance(command, Close):
                self._handed_over.add(command.conn)
                self._client.close(command.conn)
            elif isinstance(command, Fetch):
                self._client.fetch(command)
            else:
                self._note(command)

    def _look(self, seconds: float) -> None:
        """Once a second: rates, books, the disk."""
        health = self.health
        health.rate = (self._fold.frames - self._frames_before) / seconds
        self._frames_before = self._fold.frames
        health.waiting_bytes = self.journal.waiting_bytes
        health.state = "recording"
        for symbol, market in self._fold.markets.items():
            health.synced[symbol], health.book_ns[symbol] = market.synced, market.good_ns
        health.free_bytes = shutil.disk_usage(self.root).free
        fault = self.journal.fault
        if fault is not None:
            self.log.error("the journal cannot be written: %s", fault)
        if not self.journal.alive:
            self.fault = "the journal's writer has died"
        if health.free_bytes < self.spec.min_free_mb << 20:
            self.fault = f"only {health.free_bytes >> 20} MiB are free under {self.root}"
            self._mark("disk_low", free_bytes=health.free_bytes)

    def _write_lag(self) -> None:
        lags = self.journal.take_lags()
        if lags:
            found = dict(zip(NAMES, quantiles(lags), strict=True))
            self.health.lag_p99_ms = found["p99"] / NS_PER_MS
            self.log.info("receipt to journal: %s", {k: f"{v / NS_PER_MS:.1f} ms" for k, v in found.items()})
            self._mark("lag", n=len(lags), **found)

    async def _finish(self, why: str) -> None:
        """Final snapshot, close, seal, compact. A second signal leaves out all but a short close and the seal."""
        self.health.state = "sealing"
        if self.stop_asked < 2 and not self.fault and self._clocks.wall_ns() >= self._session.blocked_wall_ns:
            await self._last_snapshots()
        self._session.stopping = True
        self._mark("window_close", closes_ns=self.span[1], why=why)
        await self._client.shut(CLOSING_S if self.stop_asked < 2 else HASTY_S)  # what was sent before is still read
        self._write_lag()
        self._mark("run_stop", why=why, frames=self.health.frames, dropped=self.health.dropped)
        self._rolls.append(self.journal.roll(None, self._recv_ns, why))
        await asyncio.to_thread(self.journal.close, 30)
        if self.stop_asked < 2:
            await asyncio.to_thread(self._compact_all)
        self._compactor.close(wait=self.stop_asked < 2)
        self._lock.release()

    async def _last_snapshots(self) -> None:
        """A snapshot of every book that is in sync, to check the day by; and prints that REST still has."""
        for symbol, market in self._fold.markets.items():
            if market.synced and "depth" in " ".join(self.spec.streams):
                self._final.add(symbol)
                about = {"purpose": "snapshot", "symbol": symbol, "generation": 0, "check": True, "last_one": True}
                self._client.fetch(Fetch(self.spec.at.depth(symbol), about))
        ends = time.monotonic() + FINAL_S
        while (self._final or any(self._fold.wants_prints())) and time.monotonic() < ends and self.stop_asked < 2:
            self._obey(self._session.poll(self._clocks.mono_ns(), self._clocks.wall_ns(), self._recv_ns, self._fold))
            await asyncio.sleep(POLL_S)

    def _compact_all(self) -> None:
        self._compact_sealed()
        self._compactor.report(wait=True)

    def tidy(self) -> None:
        """Remove the run's folder if nothing is left in it."""
        for _ in recover(self.root, self.spec.venue, self.spec.keep_raw) if self.stop_asked < 2 else ():
            pass
