"""Kernels -> object code that needs neither Python nor numba at run time; loaded by core/native.py.

An entry's arrays come in as addresses and shapes, held by nobody, so that no code counts who holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj, numpy_support

from mmlab.core.native import KINDS, SYMBOL

njit: Any = numba.njit  # what is not typed there
types: Any = numba.types
unpack_tuple: Any = cgutils.unpack_tuple
populate_array: Any = arrayobj.populate_array
NUMBERS = {"int": types.int64, "float": types.float64, "bool": types.boolean}
LIBM = {"exp", "expm1", "lgamma", "log", "log1p", "memcpy", "memmove", "memset", "pow", "sqrt"}  # what entries may call


@dataclass(frozen=True)
class Entry:
    """A kernel that is kept as object code and called through core/native.py."""

    function: Callable[..., int]
    inlined: Callable[..., int]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The annotations of its arguments."""
        annotations = self.function.__annotations__
        return tuple(str(kind) for name, kind in annotations.items() if name != "return")


def entry(function: Callable[..., int]) -> Entry:
    """`@entry` makes a kernel for core/native.py: it takes what KINDS names, int, float and bool, and returns an int.

    It allocates nothing and raises nothing, nor do those it calls: it has to run where numba is not.
    """
    return Entry(function, _compiled(forceinline=True)(function))


def object_code(module: ModuleType) -> tuple[dict[str, tuple[str, ...]], bytes]:
    """The entries of a module, with the kinds of their arguments, and their object code; see native.Code."""
    entries = {name: made for name, made in vars(module).items() if isinstance(made, Entry)}
    whole = llvm.parse_assembly("")
    for name, made in entries.items():
        whole.link_in(_assembly(SYMBOL + name, made))
    machine = llvm.Target.from_default_triple().create_target_machine(
        llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), opt=3, reloc="pic", codemodel="small"
    )
    return {name: made.kinds for name, made in entries.items()}, machine.emit_object(whole)


def _assembly(symbol: str, made: Entry) -> llvm.ModuleRef:
    """An entry with all that it calls, as LLVM has it; it alone can be seen from outside."""
    unpack, flat = _unpacker(made.kinds)
    inlined = made.inlined

    def call(*plain):  # type: ignore[no-untyped-def]
        return inlined(*unpack(plain))

    whole = _compiled(types.int64(types.StarArgTuple(flat)), error_model="numpy")(call)
    [compiled] = whole.overloads.values()
    assembly = llvm.parse_assembly(str(compiled.library.get_llvm_str()))
    for function in assembly.functions:
        if function.name == compiled.fndesc.llvm_func_name:
            function.name = symbol
        elif not function.is_declaration:
            function.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    machine = llvm.Target.from_default_triple().create_target_machine()
    passes.run(assembly, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    missing = {f.name for f in assembly.functions if f.is_declaration and not f.name.startswith("llvm.")} - LIBM
    if missing:
        raise TypeError(f"kernel {made.function.__name__} allocates or raises: it calls {', '.join(sorted(missing))}")
    return assembly


def _compiled(*signature: Any, **options: Any) -> Any:
    """numba's njit, without the ways in from Python."""
    return njit(*signature, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)


def _unpacker(kinds: tuple[str, ...]) -> tuple[Any, list[Any]]:
    """An intrinsic that makes arrays of addresses and shapes, held by nobody; and the types of the plain numbers."""
    made = [NUMBERS.get(kind) or _array_type(kind) for kind in kinds]
    flat = [plain for kind in made for plain in _plain_types(kind)]

    @intrinsic
    def unpack(context: Any, plain: Any) -> Any:  # noqa: ARG001 - numba gives it
        def build(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            parts = iter(unpack_tuple(builder, arguments[0]))
            values = [_array(target, builder, kind, parts) if _is_array(kind) else next(parts) for kind in made]
            return target.make_tuple(builder, signature.return_type, values)

        return types.Tuple(made)(plain), build

    return unpack, flat


def _array_type(kind: str) -> Any:
    """numba's type of an array that an entry takes."""
    dtype, dimensions = KINDS[kind]
    return types.Array(numpy_support.from_dtype(np.dtype(dtype)), dimensions, "C")


def _is_array(kind: Any) -> bool:
    """Whether a type of numba's is an array."""
    return isinstance(kind, types.Array)


def _plain_types(kind: Any) -> list[Any]:
    """An argument's numbers: itself, or an address and a shape."""
    return [types.uintp, *[types.int64] * kind.ndim] if _is_array(kind) else [kind]


def _array(target: Any, builder: Any, kind: Any, parts: Any) -> Any:
    """An array's struct from its address and shape."""
    array = target.make_array(kind)(target, builder)
    address, shape = next(parts), [next(parts) for _ in range(kind.ndim)]
    size = target.get_constant(types.intp, numpy_support.as_dtype(kind.dtype).itemsize)
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
    return array._getvalue()
