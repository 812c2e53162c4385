"""--strategy file.py:name -> a quote model of the user's own."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmlab.core.errors import UsageError
from mmlab.sim.strategy import Strategy, View
from mmlab.store.parts import sha256


def load(where: str) -> Strategy:
    """From `file.py:name`; raises UsageError for what is no such function."""
    path, function = _function(where)
    return Strategy.of(where, sha256(path), function)


def fresh(strategy: Strategy | None) -> Strategy | None:
    """One that remembers no other run: what could not be compiled may keep state in its file, which is run anew."""
    if strategy is None or strategy.compiled is not None:
        return strategy
    return replace(strategy, function=_function(strategy.name)[1])


def _function(where: str) -> tuple[Path, Callable[[View], Any]]:
    """The file and the function in it."""
    file, _, name = where.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise UsageError(f"--strategy is {where!r}", remedy="give file.py:name, a function in a Python file")
    module = _module(path)
    function = getattr(module, name, None)
    if not callable(function):
        own = {n: value for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
        there = [n for n, value in own.items() if callable(value)]
        raise UsageError(
            f"--strategy: {path} has no function {name!r}",
            remedy=f"it has {', '.join(there)}" if there else "define one that takes a view and returns bid, ask",
        )
    return path, function


def _module(path: Path) -> Any:
    """The file, run once; raises UsageError if that fails."""
    spec = importlib.util.spec_from_file_location(f"mmlab_strategy_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--strategy: {path} is no Python file", remedy="give file.py:name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and not lines:
            lines = [error.lineno]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UsageError(f"--strategy: {place}: {type(error).__name__}: {error}", remedy="mend the file") from error
    return module
