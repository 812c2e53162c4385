"""`kernel`: numba's njit without the GIL, kept on disk until a file that it may have been made from changes.

numba alone looks at the kernel's own file, so that a kernel which takes in another file's kernels or constants would
outlive a change there. Here every file of its folder and of core/ that holds kernels counts: by the ranks of the
folders it uses no other, and the constants that kernels take in live in such files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
CORE = Path(__file__).parent


def kernel(function: F) -> F:
    """`function` compiled at its first call in any process; its `py_func` is the plain function."""
    made: Any = njit(cache=True, nogil=True)(function)
    try:
        made._cache._cache_file._source_stamp = stamp(Path(function.__code__.co_filename).parent)
    except AttributeError:  # another numba, or one that compiles nothing: rather slow than stale
        made = njit(nogil=True)(function)
    kept: F = made
    return kept


@cache
def stamp(folder: Path) -> str:
    """Changes with any file of `folder` or of core/ that holds kernels."""
    texts = (file.read_bytes() for file in sorted({*folder.glob("*.py"), *CORE.glob("*.py")}))
    return hashlib.sha256(b"".join(text for text in texts if b"@kernel" in text)).hexdigest()
