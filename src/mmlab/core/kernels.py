"""`kernel`: numba's njit, kept on disk until a file that it may have been made from changes.

numba alone looks at the kernel's own file, so that a kernel which takes in another file's kernels or constants would
outlive a change there. Here every file of its folder and of core/ that holds kernels counts: by the ranks of the
folders it uses no other, and the constants that kernels take in live in such files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numba.extending import intrinsic, overload

from mmlab.core.native import stamp

F = TypeVar("F", bound=Callable[..., Any])
Array = TypeVar("Array", bound=np.ndarray)
NAMED = 12  # letters of the stamp in a file's name


def kernel(function: F) -> F:
    """`function` compiled at its first call in any process; its `py_func` is the plain function."""
    return _compiled(function, {})


def unlocked(function: F) -> F:
    """A kernel without the GIL, for threads that share nothing that they write to."""
    return _compiled(function, {"nogil": True})


def inner(function: F) -> F:
    """The same for a function that only kernels call: without the way in from Python it compiles in half the time."""
    return _compiled(function, {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})


def hot(function: F) -> F:
    """An inner function that is taken into its callers whole: for what runs at every event."""
    return _compiled(function, {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True})


def _compiled(function: F, options: dict[str, bool]) -> F:
    made: Any = njit(cache=True, **options)(function)  # type: ignore[call-overload]
    try:
        file = made._cache._cache_file
        file._source_stamp = stamp(Path(function.__code__.co_filename).parent)
        _rename(file, file._source_stamp[:NAMED])
        file._load_index = _forgiving(file._load_index)
    except AttributeError:  # another numba, or one that compiles nothing: rather slow than stale
        made = njit(**options)(function)  # type: ignore[call-overload]
    kept: F = made
    return kept


def _rename(file: Any, version: str) -> None:
    """Keep each version's kernels in files of their own.

    numba writes a new index before the kernel that it names, under the name of the old one: a process that started at
    the same time after a change would have loaded old code as new.
    """
    file._index_name = f"{file._index_name.removesuffix('.nbi')}.{version}.nbi"
    file._index_path = os.path.join(file._cache_path, file._index_name)
    file._data_name_pattern = file._data_name_pattern.replace(".{number", f".{version}.{{number")


def _forgiving(load: Callable[[], dict[Any, Any]]) -> Callable[[], dict[Any, Any]]:
    """numba's index of kept kernels names types of the version that wrote it; where these are gone, it is empty."""

    def index() -> dict[Any, Any]:
        try:
            return load()
        except (AttributeError, ImportError):
            return {}

    return index


def borrowed(array: Array) -> Array:
    """`array` for a kernel that does not count who holds it; whoever calls the kernel holds it all the while."""
    return array


@overload(borrowed)
def _borrowed_in_kernels(array):  # type: ignore[no-untyped-def]  # noqa: ARG001 - numba wants both signatures alike
    return lambda array: _uncounted(array)  # type: ignore[call-arg]  # noqa: PLW0108 - numba compiles a function


@intrinsic
def _uncounted(context: Any, array: Any) -> Any:  # noqa: ARG001 - numba gives it
    """The array's struct with no memory to count and no parent."""

    def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = target.make_array(signature.return_type)(target, builder, arguments[0])
        made.meminfo = made.meminfo.type(None)
        made.parent = made.parent.type(None)
        return made._getvalue()

    return array(array), build
