"""One writer per place: a lock file that the kernel lets go when its owner dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from mmlab.core.errors import UsageError


class Lock:
    """Holds `path` until `release`; raises UsageError naming the process that holds it already.

    With `wait` it waits for that process instead: for writers that are done in a moment.
    """

    def __init__(self, path: Path, what: str, *, wait: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = os.read(self._handle, 100).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise UsageError(
                f"{what} is being written already, by process {owner}", remedy=f"stop it first; its lock is {path}"
            ) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; the file stays, since removing it would let two owners lock two files of one name."""
        os.close(self._handle)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()
