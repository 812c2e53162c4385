"""Compiled kernels are kept on disk until a file that they were made from changes; in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmlab.core import kernels
from mmlab.core.kernels import borrowed, kernel, stamp

SOURCE = Path(kernels.__file__).parents[2]
A = """
from mmlab.core.kernels import kernel
from small.b import hidden, part

@kernel
def whole(x):
    return part(x) + hidden(x)
"""
B = """
from mmlab.core.kernels import hot, inner

FACTOR = 2

@inner
def part(x):
    return FACTOR * x

@hot
def hidden(x):
    return 1
"""
CHILD = """
from small.a import whole
print(whole(3), sum(whole.stats.cache_hits.values()), sum(whole.stats.cache_misses.values()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    for name, text in (("__init__.py", ""), ("a.py", A), ("b.py", B)):
        (folder / name).write_text(text)
    return folder


def child(package: Path, script: str = CHILD) -> list[int]:
    """Answer, cache hits and cache misses, in a fresh process."""
    path = os.pathsep.join([str(package.parent), str(SOURCE)])
    env = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(package.parent / "cache")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_a_second_process_compiles_nothing_and_a_change_in_another_file_is_seen(package):
    """An inner kernel, a hot one and a constant, all of another file than the kernel that is called."""
    assert child(package) == [7, 0, 1]
    assert child(package) == [7, 1, 0]
    b = package / "b.py"
    b.write_text(B.replace("FACTOR = 2", "FACTOR = 5"))
    assert child(package) == [16, 0, 1]
    b.write_text(B.replace("FACTOR = 2", "FACTOR = 5").replace("return 1", "return 4"))
    assert child(package) == [19, 0, 1]
    assert child(package) == [19, 1, 0]


def test_the_stamp_changes_with_files_that_hold_kernels_and_with_no_others(package):
    before = stamp(package)
    (package / "notes.py").write_text("x = 1\n")
    stamp.cache_clear()
    assert stamp(package) == before
    (package / "b.py").write_text(B + "\n")
    stamp.cache_clear()
    assert stamp(package) != before
    stamp.cache_clear()


@kernel
def doubled(values):  # type: ignore[no-untyped-def]
    """Writes through a borrowed view."""
    view = borrowed(values)
    for i in range(view.size):
        view[i] *= 2
    return view.sum()


def test_a_borrowed_array_is_the_same_array():
    for function in (doubled, doubled.py_func):
        values = np.arange(5)
        assert function(values) == 20
        assert values.tolist() == [0, 2, 4, 6, 8]
    assert borrowed(values) is values


def test_who_borrows_does_not_hold():
    """A thousand calls leave the count of holders as it was."""
    values = np.zeros(3)
    before = sys.getrefcount(values)
    for _ in range(1_000):
        doubled(values)
    assert sys.getrefcount(values) == before


def test_a_changed_kernel_never_takes_the_name_of_the_one_before(package):
    """numba writes the index first: under the old name another process would load old code as new in between."""
    assert child(package) == [7, 0, 1]
    kept = {path.name: path.read_bytes() for path in (package.parent / "cache").rglob("*.nb?")}
    (package / "b.py").write_text(B.replace("FACTOR = 2", "FACTOR = 5"))
    assert child(package) == [16, 0, 1]
    now = {path.name: path.read_bytes() for path in (package.parent / "cache").rglob("*.nb?")}
    assert len(now) == 2 * len(kept)
    assert kept.items() <= now.items()


PAIR = """
from typing import NamedTuple

class Pair(NamedTuple):
    x: int
"""


def test_kernels_kept_for_a_type_that_is_gone_are_compiled_anew(package):
    """A version later the class of an argument has another name: what was kept cannot even be read, and is let go."""
    (package / "c.py").write_text(PAIR)
    (package / "a.py").write_text(A.replace("return part(x) + hidden(x)", "return part(x.x) + hidden(x.x)"))
    (package / "b.py").write_text(B)
    call = CHILD.replace("whole(3)", "whole(Pair(3))")
    script = "from small.c import Pair" + call
    assert child(package, script) == [7, 0, 1]
    (package / "c.py").write_text(PAIR.replace("Pair", "Couple"))
    assert child(package, script.replace("Pair", "Couple")) == [7, 0, 1]
