"""The journal's writer: a thread that takes records from a bounded queue, writes and syncs them on two cadences.

What it promises: a record given to `append` is in the file's page cache `flush_ms` later (a killed process
loses no more than that) and on the disk `fsync_ms` later (a power cut loses no more). A write that fails
(disk full) is tried again from the last whole block; meanwhile records queue up to `queue_bytes`, and what
does not fit is refused, so that the caller can say what was dropped.
"""

from __future__ import annotations

import errno
import os
import threading
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from mmlab.core.record import Kind, Record
from mmlab.core.spans import NS_PER_MS
from mmlab.store import journal_file
from mmlab.store.crash import step
from mmlab.store.journal_file import Seal, Segment
from mmlab.store.parts import sync

BLOCK_BYTES = 1 << 20
RETRY_S = 0.5


@dataclass(frozen=True)
class Promise:
    """How much may be lost: ms to the page cache, ms to the disk; bytes that may wait for a slow disk."""

    flush_ms: int = 100
    fsync_ms: int = 1000
    queue_bytes: int = 64 << 20


@dataclass
class Roll:
    """A request to seal the open segment and, if there is one, to open the next."""

    segment: Segment | None
    now_ns: int
    why: str
    done: threading.Event
    sealed: Path | None = None


class Journal:
    """One run's journal: segments in `folder`, written by a thread of its own."""

    def __init__(self, folder: Path, promise: Promise, clock_ns: Callable[[], int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        self.folder, self.promise = folder, promise
        self.fault: OSError | None = None  # why nothing can be written at the moment
        self.over = False  # the last `roll` has been asked for: there is no segment for what may still come in
        self.lags = array("q")  # ns from receipt to the page cache, of records written since the last `take_lags`
        self._queue: deque[Record | Roll] = deque()
        self._clock_ns = clock_ns
        self._put_bytes = self._done_bytes = 0  # each written by one thread only
        self._wake = threading.Event()
        self._stop = False
        self._file: BinaryIO | None = None
        self._path = folder
        self._good = self._synced = 0  # bytes: whole blocks, and of these on the disk
        self._synced_ns = 0
        self._counts = [0, 0, 0, 0]  # records, frames, first_ns, last_ns
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._put_bytes - self._done_bytes

    @property
    def alive(self) -> bool:
        """True while the writer runs."""
        return self._thread.is_alive()

    @property
    def durable(self) -> tuple[Path, int]:
        """The open segment, and how many of its bytes a power cut would leave."""
        return self._path, self._synced

    def append(self, record: Record) -> bool:
        """Queue a record; False if it was not taken: all is `over`, or the queue is full. A full queue takes marks."""
        if self.over:
            return False
        size = len(record.payload) + journal_file.RECORD.size
        if self._put_bytes - self._done_bytes + size > self.promise.queue_bytes and record.kind is not Kind.MARK:
            return False
        self._put_bytes += size
        self._queue.append(record)
        return True

    def roll(self, segment: Segment | None, now_ns: int, why: str) -> Roll:
        """Seal what is open, saying why, and open `segment` (none: the run is over); the answer tells when."""
        request = Roll(segment, now_ns, why, threading.Event())
        self._queue.append(request)
        self.over = segment is None
        self._wake.set()
        return request

    def close(self, timeout_s: float | None = None) -> None:
        """Write what is queued and end the thread; call after the last `roll`."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout_s)

    def take_lags(self) -> array[int]:
        """ns from receipt to the page cache of what was written since the last call."""
        lags, self.lags = self.lags, array("q")
        return lags

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._stop and not self._queue):
            self._wake.wait(self.promise.flush_ms / 1000)
            self._wake.clear()
            try:
                while self._queue:
                    self._write_some()
                self._sync_if_due()
                self.fault = None
            except OSError as error:
                self.fault = error
                if self._stop and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                    return
                threading.Event().wait(RETRY_S)

    def _write_some(self) -> None:
        """Write records up to a block's size, or carry out a roll; what fails stays at the head of the queue."""
        batch: list[Record] = []
        size = 0
        for item in list(self._queue) if len(self._queue) < 4096 else self._head():
            if isinstance(item, Roll):
                break
            batch.append(item)
            size += len(item.payload) + journal_file.RECORD.size
            if size >= BLOCK_BYTES:
                break
        if not batch:
            request = self._queue[0]
            assert isinstance(request, Roll)
            self._carry_out(request)
            self._queue.popleft()
            request.done.set()
            return
        self._write(journal_file.block(*journal_file.encode(batch)))
        now_ns = self._clock_ns()
        for record in batch:
            self._queue.popleft()
            self._counts[0] += 1
            self._counts[1] += record.kind is Kind.FRAME
            self.lags.append(now_ns - record.mono_ns)
        self._counts[2] = self._counts[2] or batch[0].recv_ns
        self._counts[3] = batch[-1].recv_ns
        self._done_bytes += size

    def _head(self) -> list[Record | Roll]:
        """The first records of a long queue."""
        return [self._queue[i] for i in range(4096)]

    def _write(self, data: bytes) -> None:
        """Append a block whole, or leave the file as it was."""
        assert self._file is not None
        try:
            left = memoryview(data)
            while left:  # an unbuffered file may take less than it is given
                left = left[self._file.write(left) :]
        except OSError:
            self._restore()
            raise
        self._good += len(data)

    def _restore(self) -> None:
        """Go back to the last whole block."""
        path, good = self._path, self._good
        try:
            if self._file is not None:
                self._file.close()
        except OSError:
            pass  # its buffer cannot be written either; the file is cut below
        self._file = path.open("r+b", buffering=0)
        self._file.truncate(good)
        self._file.seek(good)

    def _sync_if_due(self, force: bool = False) -> None:
        due = self._clock_ns() - self._synced_ns >= self.promise.fsync_ms * NS_PER_MS
        if self._file is not None and self._synced < self._good and (due or force):
            good = self._good
            os.fsync(self._file.fileno())
            self._synced, self._synced_ns = good, self._clock_ns()

    def _carry_out(self, request: Roll) -> None:
        if self._file is not None:
            step("seal-before")
            seal = Seal(self._counts[0], self._counts[1], self._counts[2], self._counts[3], request.why)
            self._write(journal_file.block(msgspec.json.encode(seal), 0, journal_file.SEAL))
            self._sync_if_due(force=True)
            step("seal-synced")
            self._file.close()
            request.sealed = journal_file.put_in_place(self._path)
            step("seal-named")
            self._file = None
        if request.segment is not None:
            self._path = self.folder / f"{request.segment.index:05d}.open"
            self._file = self._path.open("xb", buffering=0)
            self._good, self._synced, self._counts = 0, 0, [0, 0, 0, 0]
            self._write(journal_file.opening(request.segment, request.now_ns))
            sync(self.folder)
