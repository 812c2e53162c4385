"""Where a crash is worth a test: a process told to by MMLAB_CRASH_AT kills itself at that step."""

from __future__ import annotations

import os
import signal


def step(name: str) -> None:
    """The process has come to `name`. SIGKILL, if MMLAB_CRASH_AT names it: what a power cut would leave."""
    if os.environ.get("MMLAB_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
