"""Kernels as machine code: numba compiles them once a machine, every later process loads them by llvmlite alone.

Importing numba takes a second, several times a day's calibration; llvmlite takes a twentieth of that. Where nothing is
kept yet, or by other sources, another compiler or another processor, the kernels are compiled (core/object_code.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

# what an entry may take, beside int, float and bool: C-contiguous arrays of one, two or three dimensions
Bytes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Ints2 = npt.NDArray[np.int64]
Ints3 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats2 = npt.NDArray[np.float64]
Floats3 = npt.NDArray[np.float64]

CORE = Path(__file__).parent
MARKS = (b"@kernel", b"@unlocked", b"@inner", b"@hot", b"@entry")
SYMBOL = "mmlab_"  # before an entry's name in the object code
HOME = Path("~/.cache/mmlab")
KINDS: dict[str, tuple[type[np.generic], int]] = {  # their dtypes and dimensions, by the annotation
    "Bytes": (np.int8, 1),
    "Flags": (np.bool_, 1),
    "Ints": (np.int64, 1),
    "Ints2": (np.int64, 2),
    "Ints3": (np.int64, 3),
    "Floats": (np.float64, 1),
    "Floats2": (np.float64, 2),
    "Floats3": (np.float64, 3),
}
NUMBERS: dict[str, type[Any]] = {"int": ctypes.c_int64, "float": ctypes.c_double, "bool": ctypes.c_bool}
LOCK = RLock()
INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")  # numba's own switch, for looking into kernels


@cache
def stamp(folder: Path) -> str:
    """Changes with any file of `folder` or of core/ that holds kernels, or constants beside them."""
    texts = (file.read_bytes() for file in sorted({*folder.glob("*.py"), *CORE.glob("*.py")}))
    return hashlib.sha256(b"".join(text for text in texts if any(mark in text for mark in MARKS))).hexdigest()


@dataclass(frozen=True)
class Native:
    """The entry `name` of a module of kernels, loaded, or compiled, at its first call; it returns an int.

    It is called without the GIL, with what its annotations name. Arrays are C-contiguous, of the annotated dtype and
    dimensions, which is checked; the caller sees to it that none is read-only that the kernel writes to. Raises
    TypeError for another array.
    """

    module: str
    name: str

    def __call__(self, *arguments: Any) -> int:
        """Run it."""
        if INTERPRETED:
            return int(self._source(*arguments))
        function, kinds = self._loaded
        if len(arguments) != len(kinds):
            raise TypeError(f"{self.name} takes {len(kinds)} arguments, not {len(arguments)}")
        found, raised = ctypes.c_int64(), ctypes.c_void_p()
        plain: list[Any] = [ctypes.byref(found), ctypes.byref(raised)]
        for number, (kind, value) in enumerate(zip(kinds, arguments, strict=True)):
            plain += _plain(kind, value, f"{self.name}'s argument {number}")
        if function(*plain):
            raise RuntimeError(f"{self.module}.{self.name} failed; kernels may raise nothing")
        return found.value

    @cached_property
    def _loaded(self) -> tuple[Any, tuple[str, ...]]:
        """The function and what it takes."""
        code = code_of(self.module)
        kinds = code.entries[self.name]
        types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, *(each for kind in kinds for each in _types(kind))]
        return ctypes.CFUNCTYPE(ctypes.c_int32, *types)(code.address(self.name)), kinds

    @cached_property
    def _source(self) -> Callable[..., int]:
        """The plain function."""
        source: Callable[..., int] = getattr(importlib.import_module(self.module), self.name).function
        return source


@dataclass(frozen=True)
class Code:
    """Object code of a module of kernels: `entries` are the names of those to call, and what their arguments are."""

    entries: dict[str, tuple[str, ...]]
    image: bytes = field(repr=False)

    @classmethod
    def read(cls, data: bytes) -> Code:
        """What `write` made; raises ValueError where it is torn."""
        head, image = data.split(b"\n", 1)
        digest, entries = json.loads(head)
        if digest != hashlib.sha256(image).hexdigest():
            raise ValueError("object code is torn")
        return cls({name: tuple(kinds) for name, kinds in entries.items()}, image)

    def write(self) -> bytes:
        """As it lies on disk: a line of JSON, and the object file."""
        return json.dumps([hashlib.sha256(self.image).hexdigest(), self.entries]).encode() + b"\n" + self.image

    def address(self, name: str) -> int:
        """Where an entry begins in this process."""
        return int(self._library[SYMBOL + name])

    @cached_property
    def _library(self) -> Any:
        """The linked code; it and the linker live as long as this."""
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        builder = llvm.JITLibraryBuilder().add_object_img(self.image).add_current_process()
        for name in self.entries:
            builder = builder.export_symbol(SYMBOL + name)
        return builder.link(llvm.create_lljit_compiler(), "kernels")


@cache
def code_of(module: str) -> Code:
    """A module's kernels, compiled if they are not kept; where they cannot be kept, each process compiles them."""
    with LOCK:  # so that two threads do not compile the same
        return _kept(module) or _compiled(module)


def is_kept(module: str) -> bool:
    """Whether a module's kernels need not be compiled."""
    return _kept(module) is not None


@cache
def _paths(module: str) -> list[Path]:
    """Where a module's code is looked for, and kept in the first place that can be written to."""
    return [folder / f"{module}.{_version(module)}.kernels" for folder in _folders(module)]


def _kept(module: str) -> Code | None:
    """A module's code from disk, if it is there and whole."""
    for path in _paths(module):
        try:
            return Code.read(path.read_bytes())
        except (OSError, ValueError):
            continue
    return None


def _compiled(module: str) -> Code:
    """A module's code, made now and kept."""
    compiler = importlib.import_module("mmlab.core.object_code")  # with numba
    made = Code(*compiler.object_code(importlib.import_module(module)))
    for path in _paths(module):
        try:
            _keep(made.write(), path)
        except OSError:
            continue
        break
    return made


def native(module: str, name: str) -> Native:
    """The entry `name` of a module of kernels."""
    return Native(module, name)


def _folders(module: str) -> list[Path]:
    """Where code is kept: where numba keeps its own; else beside the source, or in the user's cache."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    return [Path(given)] if given else [_source(module).parent / "__pycache__", HOME.expanduser()]


def _source(module: str) -> Path:
    """A module's file, without importing it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin)


def _version(module: str) -> str:
    """Changes with the sources, the compiler, Python and the processor."""
    numba = _source("numba").with_name("_version.py").read_text()
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    parts = (stamp(_source(module).parent), numba, llvmlite.__version__, *machine, sys.version)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _keep(data: bytes, path: Path) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _types(kind: str) -> Sequence[Any]:
    """An argument as C sees it: a number, or an array's address and shape."""
    if kind in NUMBERS:
        return (NUMBERS[kind],)
    return (ctypes.c_void_p, *(ctypes.c_int64 for _ in range(KINDS[kind][1])))


def _plain(kind: str, value: Any, what: str) -> Sequence[Any]:
    """An argument as numbers."""
    if kind in NUMBERS:
        return (value,)
    dtype, dimensions = KINDS[kind]
    if value.dtype != dtype or value.ndim != dimensions or not value.flags.c_contiguous:
        raise TypeError(f"{what} is {value.ndim}-d {value.dtype}, not contiguous {kind}")
    return value.__array_interface__["data"][0], *value.shape
