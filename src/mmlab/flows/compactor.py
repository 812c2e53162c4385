"""Compaction beside a recorder: sealed segments go to a process of its own, which Ctrl-C does not end."""

from __future__ import annotations

import logging
import signal
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from mmlab.flows.compact import Compacted, compact
from mmlab.flows.owner import leave_with_owner


class Compactor:
    """Compacts segments one after the other. What fails is logged, and done again by the next start."""

    def __init__(self, data_root: Path, keep_raw: bool, log: logging.Logger) -> None:
        self._root, self._keep_raw, self._log = data_root, keep_raw, log
        self._pool: ProcessPoolExecutor | None = None
        self._work: list[Future[Compacted]] = []

    def submit(self, sealed: Path) -> None:
        """Queue a segment; the process is made anew if the last one was killed."""
        for _ in range(2):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)
            try:
                self._work.append(self._pool.submit(compact, sealed, self._root, self._keep_raw))
            except BrokenExecutor:
                self._pool = None
            else:
                return

    def report(self, wait: bool = False) -> None:
        """Log what is done; with `wait`, until all is."""
        while self._work and (wait or self._work[0].done()):
            work = self._work.pop(0)
            error = work.exception()
            if error is not None:
                self._log.error("a segment could not be compacted, its journal is kept: %s", error)
                continue
            done = work.result()
            days = ", ".join(f"{ref.symbol} {ref.day:%Y%m%d}" for ref in done.refs)
            self._log.info("segment %s: %d records to %s", done.segment, done.records, days)
            for fault in done.faults:
                self._log.error("segment %s: %s", done.segment, fault)

    def close(self, wait: bool) -> None:
        """End the process; without `wait` at once, since what it leaves half done is done again."""
        if self._pool is not None:
            for process in () if wait else list(self._pool._processes.values()):
                process.kill()
            self._pool.shutdown(wait=wait, cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches the whole group: the compacting process goes on until it is done, or its recorder was killed."""
    leave_with_owner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
