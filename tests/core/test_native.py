"""Kernels as object code: what a second process runs without numba is what the first compiled, or is compiled anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib import pass_kernels
from mmlab.core import native as module
from mmlab.core.native import Code, native

SOURCE = Path(module.__file__).parents[2]
A = """
from __future__ import annotations

import math

from mmlab.core.object_code import entry
from mmlab.core.native import *
from tiny.b import FACTOR, added

@entry
def all_kinds(
    b: Bytes, f: Flags, i: Ints, i2: Ints2, i3: Ints3, x: Floats, x2: Floats2, x3: Floats3, n: int, y: float, on: bool
) -> int:
    total = n + on
    for j in range(b.size):
        total += b[j] + 100 * f[j] + 10_000 * i[j]
        x[j] = math.exp(-x[j]) / y
    for r in range(i2.shape[0]):
        added(i2[r], x2[r])
        for c in range(i2.shape[1]):
            i3[1, r, c] = FACTOR * i2[r, c]
            x3[r, c, 0] = x2[r, c]
    return total

@entry
def other(n: int) -> int:
    return -n
"""
B = """
from mmlab.core.kernels import inner

FACTOR = 2

@inner
def added(row, to):
    for j in range(row.size):
        to[j] += row[j]
"""
CHILD = """
import json, sys
import numpy as np
from mmlab.core.native import native

run = native("tiny.a", "all_kinds")
i2, i3 = np.arange(6).reshape(2, 3), np.zeros((2, 2, 3), np.int64)
x, x2, x3 = np.array([0.0, 1.0]), np.full((2, 3), 0.5), np.zeros((2, 3, 1))
found = run(
    np.array([3, -2], np.int8), np.array([True, False]), np.array([7, 8]), i2, i3, x, x2, x3, 40, 0.0, True
)
print(json.dumps([found, i3.ravel().tolist(), x.tolist(), x3.ravel().tolist(), native("tiny.a", "other")(5)]))
print(json.dumps("numba" in sys.modules))
"""
ANSWER = [
    40 + 1 + (3 - 2) + 100 + 10_000 * 15,
    [0] * 6 + [0, 2, 4, 6, 8, 10],
    [float("inf"), float("inf")],
    [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
    -5,
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, text in (("__init__.py", ""), ("a.py", A), ("b.py", B)):
        (folder / name).write_text(text)
    return folder


def child(package: Path, kept: Path | None = None, script: str = CHILD) -> tuple[list, bool]:
    """The kernel's answer, and whether numba was loaded, in a fresh process."""
    path = os.pathsep.join([str(package.parent), str(SOURCE)])
    env = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(kept or package.parent / "cache")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    answer, numba = (json.loads(line) for line in done.stdout.splitlines())
    return answer, numba


def files(package: Path) -> list[Path]:
    return sorted((package.parent / "cache").glob("*.kernels"))


def test_a_second_process_gives_the_same_without_numba(package):
    """Every kind of argument, by hand; division by 0 is inf, as everywhere in numpy."""
    assert child(package) == (ANSWER, True)
    assert child(package) == (ANSWER, False)
    assert len(files(package)) == 1


def test_a_constant_that_changes_in_another_file_is_seen(package):
    child(package)
    (package / "b.py").write_text(B.replace("FACTOR = 2", "FACTOR = 5"))
    five = [ANSWER[0], [0] * 6 + [0, 5, 10, 15, 20, 25], *ANSWER[2:]]
    assert child(package) == (five, True)
    assert child(package) == (five, False)
    assert len(files(package)) == 2


@pytest.mark.parametrize("keep", [0, 10, 400, -1])
def test_what_was_torn_is_compiled_anew(package, keep):
    """Cut off at its start, in its first line, in its code, or by a byte."""
    child(package)
    [file] = files(package)
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    assert child(package) == (ANSWER, True)
    assert set(Code.read(file.read_bytes()).entries) == {"all_kinds", "other"}
    assert child(package) == (ANSWER, False)


def test_a_byte_that_changed_is_never_run(package):
    child(package)
    [file] = files(package)
    whole = bytearray(file.read_bytes())
    whole[-200] ^= 1
    file.write_bytes(whole)
    assert child(package) == (ANSWER, True)


def test_where_nothing_can_be_kept_each_process_compiles(package):
    """A folder that cannot be made: slow, and right."""
    nowhere = package / "a.py" / "cache"
    assert child(package, nowhere) == (ANSWER, True)
    assert child(package, nowhere) == (ANSWER, True)


def test_a_kernel_that_allocates_or_raises_is_refused(package):
    """It would need numba at run time; the message says which kernel, and what it calls."""
    for body in ("return np.empty(n).size", "return np.zeros(n).sum()", "return len([n])"):
        text = A.split("@entry", maxsplit=1)[0] + f"import numpy as np\n@entry\ndef whole(n: int) -> int:\n    {body}\n"
        (package / "a.py").write_text(text)
        script = "from mmlab.core.native import native\nnative('tiny.a', 'whole')(3)"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            child(package, script=script)
        assert "kernel whole allocates or raises: it calls NRT_" in caught.value.stderr


def test_threads_that_call_first_at_once_share_one_code(package):
    script = CHILD.replace(
        "found = run(",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    assert list(pool.map(native('tiny.a', 'other'), range(50))) == [-n for n in range(50)]\n"
        "found = run(",
    )
    assert child(package, script=script) == (ANSWER, True)
    assert child(package, script=script) == (ANSWER, False)
    assert len(files(package)) == 1


FRAMES = native("mmlab.calib.pass_kernels", "frames")


def frames_of(n: int) -> list:
    """Arguments of a real kernel: n frames a second apart, the mid two ticks up at each."""
    ns, one = np.arange(n) * 10**9, np.ones(n, np.int64)
    none, up = np.empty(0, np.int64), 100.0 + np.arange(n)
    walk = (np.array([0, 0, 0, 0, -1, -1]), np.array([-1, -1]), np.zeros((5, n + 1), np.int64))
    market = (np.zeros((n, 4), np.int64), np.array([-1, 0, -1, 0]), 0, 10**9)
    return [
        ns,
        one.cumsum(),
        one,
        one,
        up,
        up + 1,
        1.0,
        none,
        none,
        10**12,
        2,
        *walk,
        *market,
        np.empty((2, 3), np.int64),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a: a[:-1], "frames takes 19 arguments, not 18"),
        (lambda a: [a[0].astype(np.int32), *a[1:]], "argument 0 is 1-d int32, not contiguous Ints"),
        (lambda a: [a[0][::2], *a[1:]], "argument 0 is 1-d int64, not contiguous Ints"),
        (lambda a: [a[0][None], *a[1:]], "argument 0 is 2-d int64, not contiguous Ints"),
        (lambda a: [*a[:4], a[4].astype(np.float32), *a[5:]], "argument 4 is 1-d float32, not contiguous Floats"),
    ],
)
def test_arguments_that_the_code_was_not_made_for_never_reach_it(wrong, message):
    with pytest.raises(TypeError, match=message):
        FRAMES(*wrong(frames_of(4)))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 9), threads=st.integers(1, 4))
def test_compiled_code_does_what_its_own_source_says(n, threads):
    """The same function, run by Python; and by threads at once, since the lock is let go."""
    plain, compiled = frames_of(n), [frames_of(n) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda a: FRAMES(*a), compiled))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_steps", "_past", "_watch"):
            patch.setattr(pass_kernels, name, getattr(pass_kernels, name).py_func)
        assert found == [pass_kernels.frames.function(*plain)] * threads
    for arguments in compiled:
        for got, want in zip(arguments[11:16], plain[11:16], strict=True):
            np.testing.assert_array_equal(got, want)


def test_code_on_disk_reads_back_as_it_was():
    code = Code({"one": ("Ints", "int"), "two": ()}, b"\x00\nimage\n")
    assert Code.read(code.write()) == code
