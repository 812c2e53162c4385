"""Plain values of flags, read without typer's own reader: it is pydantic, whose import takes longer than the rest.

What is not plain goes to typer, so that every value and every message is typer's.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import typer
from typer.models import ParameterInfo

DEMANDS = (  # what an option may ask of a value; only typer knows how to answer
    "parser", "click_type", "min", "max", "clamp", "formats", "exists", "file_okay", "dir_okay", "writable", "readable",
    "resolve_path", "allow_dash", "path_type",
)  # fmt: skip
UNDEMANDING = typer.Option()
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,2})?")


def read_plainly(command: Any, function: Callable[..., None] | None = None) -> None:
    """Let `command` read plain values of its flags, by their annotations in `function`, and flags not given."""
    annotated = {} if function is None else inspect.signature(function).parameters
    for flag in (*command.params, command.get_help_option(typer.Context(command))):
        if flag is not None and not isinstance(flag.process_value, partial):
            kind = annotated[flag.name].annotation if flag.name in annotated else None
            read = _nothing if demanding(kind) else READERS.get(bare(kind), _nothing)
            flag.process_value = partial(_process, flag, read, flag.process_value)


def bare(annotation: Any) -> Any:
    """`int` of `Annotated[int | None, ...]`."""
    kind = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    kinds = [each for each in get_args(kind) if each is not NoneType] if NoneType in get_args(kind) else [kind]
    return kinds[0] if len(kinds) == 1 else kind


def demanding(annotation: Any) -> bool:
    """Whether an option or argument asks more of a value than its type: a range, or a file that exists."""
    return any(
        getattr(info, name, None) != getattr(UNDEMANDING, name, None)
        for info in getattr(annotation, "__metadata__", ())
        if isinstance(info, ParameterInfo)
        for name in DEMANDS
    )


def _process(flag: Any, read: Callable[[Any], Any], typers: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """The flag's value: nothing if it is not given, what `read` makes of a plain value, or else what typer does."""
    if value is None and not flag.required:
        made: Any = () if getattr(flag, "multiple", False) or flag.nargs == -1 else None
    elif value is None or (made := read(value)) is None:
        return typers(ctx, value)
    return made if flag.callback is None else flag.callback(ctx, flag, made)


def _nothing(_: object) -> None:
    return None


def text(value: object) -> str | None:
    """A text as it is; one with unusual characters is not plain."""
    return value if isinstance(value, str) and value.isprintable() else None


def integer(value: object) -> int | None:
    """A whole number as it is written in a program."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and INTEGER.fullmatch(value) else None


def decimal(value: object) -> float | None:
    """A decimal number."""
    if type(value) in {int, float}:
        return float(value)  # type: ignore[arg-type]
    return float(value) if isinstance(value, str) and DECIMAL.fullmatch(value) else None


def path(value: object) -> Path | None:
    """A path that is not there, or that may be read; typer refuses the others."""
    made = Path(value) if isinstance(value, str | Path) and str(value).isprintable() else None
    return None if made is None or (made.exists() and not os.access(made, os.R_OK)) else made


READERS: dict[Any, Callable[[Any], Any]] = {str: text, int: integer, float: decimal, Path: path}
