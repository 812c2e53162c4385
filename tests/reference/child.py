"""A recorder in a process of its own, to be killed; forked from a server that has imported everything."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlab.flows.compact import compact
from mmlab.flows.record import record
from mmlab.record.spec import RecordSpec
from mmlab.serve.venue import Venue

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mmlab.flows.record", "reference.child"])


def start(spec: RecordSpec, crash_at: str = "", file_bytes: int = 0, free_after_s: float = 0.0) -> Any:
    """A recording process. `file_bytes` limits the size of its files, until `free_after_s`."""
    process = CONTEXT.Process(target=_record, args=(spec, crash_at, file_bytes, free_after_s))
    process.start()
    return process


def _record(spec: RecordSpec, crash_at: str, file_bytes: int, free_after_s: float) -> None:
    if crash_at:
        os.environ["MMLAB_CRASH_AT"] = crash_at
    if file_bytes:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
        threading.Timer(free_after_s, resource.setrlimit, (resource.RLIMIT_FSIZE, (hard, hard))).start()
    record(spec, logging.getLogger("mmlab.test.child"), lambda _line: None)


def start_compact(path: Path, root: Path, crash_at: str) -> Any:
    """A compacting process that kills itself at a step."""
    process = CONTEXT.Process(target=_compact, args=(path, root, crash_at))
    process.start()
    return process


def _compact(path: Path, root: Path, crash_at: str) -> None:
    os.environ["MMLAB_CRASH_AT"] = crash_at
    compact(path, root, keep_raw=False)


@dataclass
class Standing:
    """A venue that plays in a thread of its own, while the test kills recorders."""

    venue: Venue
    stop: Callable[[], None]


def stand(make: Callable[[], Venue]) -> Standing:
    """Start a venue; call `stop` at the end."""
    ready, over = threading.Event(), threading.Event()
    made: list[Venue] = []

    async def play() -> None:
        async with make() as venue:
            made.append(venue)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(play()), daemon=True)
    thread.start()
    assert ready.wait(10)

    def stop() -> None:
        over.set()
        thread.join(10)

    return Standing(made[0], stop)


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until `what` holds."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)
