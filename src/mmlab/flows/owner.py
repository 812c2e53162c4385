"""A worker process that goes when the process that began it is gone, killed or not."""

from __future__ import annotations

import multiprocessing as mp
import os
import threading
from multiprocessing.process import BaseProcess


def leave_with_owner() -> None:
    """Called in a worker: its owner's death ends it at once; what it leaves half done is done again."""
    owner = mp.parent_process()
    if owner is not None:
        threading.Thread(target=_leave_with, args=(owner,), daemon=True).start()


def _leave_with(owner: BaseProcess) -> None:
    owner.join()
    os._exit(1)
