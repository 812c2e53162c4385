"""A parameter grid: texts like `gamma=0.05:1:20` -> axes of typed values, and the specification of each combination."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from itertools import product
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmlab.core.errors import UsageError
from mmlab.sim.spec import BacktestSpec

MOST_RUNS = 100_000
TYPES = (bool, int, float, str)
PLAIN = ("model", "A", "k", "reach")  # say too little by themselves: quote_model, quote_A, quote_k, fill_reach
EXAMPLE = "write NAME=LOW:HIGH:N, NAME=LOW:HIGH:N:log or NAME=V1,V2,..., like gamma=0.05:1:20"
Value = bool | int | float | str | None


@dataclass(frozen=True)
class Parameter:
    """One field of the specification that can be swept; `path` leads to it from the top."""

    name: str
    path: tuple[str, ...]
    type: type
    optional: bool


@dataclass(frozen=True)
class Axis:
    """A parameter and the values that it takes, in order."""

    parameter: Parameter
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Grid:
    """The product of the axes; the last one varies fastest, as in nested loops."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"--sweep gives {twice[0]} twice", remedy="give all of its values in one --sweep")
        if len(self) > MOST_RUNS:
            size = " x ".join(str(len(axis.values)) for axis in self.axes)
            raise UsageError(f"--sweep makes {size} = {len(self):,} runs", remedy=f"give at most {MOST_RUNS:,}")

    def __len__(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def names(self) -> list[str]:
        """The parameters, in the order of the axes."""
        return [axis.parameter.name for axis in self.axes]

    def points(self) -> Iterator[tuple[Value, ...]]:
        """Every combination of values, in the order of the runs."""
        return product(*(axis.values for axis in self.axes))

    def said(self, values: Sequence[Value]) -> str:
        """One combination in words."""
        return ", ".join(f"{name}={text(value)}" for name, value in zip(self.names, values, strict=True))

    def spec(self, base: BacktestSpec, values: Sequence[Value]) -> BacktestSpec:
        """`base` with one combination; raises UsageError naming the combination that a specification refuses."""
        tree: dict[str, Any] = {}
        for axis, value in zip(self.axes, values, strict=True):
            *rooms, name = axis.parameter.path
            place = tree
            for room in rooms:
                place = place.setdefault(room, {})
            place[name] = value
        try:
            spec: BacktestSpec = _changed(base, tree)
        except UsageError as error:
            raise UsageError(f"--sweep {self.said(values)}: {error.message}", remedy=error.remedy) from None
        return spec

    def specs(self, base: BacktestSpec) -> Iterator[BacktestSpec]:
        """The specification of every run, in order; raises UsageError for the first that cannot be meant."""
        return (self.spec(base, values) for values in self.points())


def _changed(base: Any, tree: Mapping[str, Any]) -> Any:
    """A frozen dataclass with other values, those of its parts in mappings; each part is made once, and so checked."""
    made = {k: _changed(getattr(base, k), v) if isinstance(v, dict) else v for k, v in tree.items()}
    return dataclasses.replace(base, **made)


def parameters() -> dict[str, Parameter]:
    """What can be swept, by name, in the order of the specification."""
    found = list(_fields(BacktestSpec, ()))
    short = [path[-1] for path, _, _ in found]
    named = {}
    for path, kind, optional in found:
        alone = len(path) == 1 or (path[-1] not in PLAIN and short.count(path[-1]) == 1)
        name = path[-1] if alone else "_".join(path)
        named[name] = Parameter(name, path, kind, optional)
    return named


def _fields(spec: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type, bool]]:
    """Fields with a type that a text can give, those of the parts too."""
    hints = get_type_hints(spec)
    for field in dataclasses.fields(spec):
        kind, optional = _kind(hints[field.name])
        if dataclasses.is_dataclass(kind) and not optional:
            yield from _fields(kind, (*path, field.name))
        elif kind in TYPES:
            yield (*path, field.name), kind, optional


def _kind(hint: Any) -> tuple[Any, bool]:
    """`float | None` -> (float, True); anything else as it stands."""
    if get_origin(hint) in {Union, types.UnionType}:
        given = [part for part in get_args(hint) if part is not type(None)]
        if len(given) == 1:
            return given[0], len(given) < len(get_args(hint))
    return hint, False


def parse(texts: Sequence[str]) -> Grid:
    """The grid of several `NAME=VALUES`; raises UsageError naming the text that cannot be meant."""
    return Grid(tuple(_axis(given) for given in texts))


def _axis(given: str) -> Axis:
    """One `NAME=VALUES`."""
    name, equals, values = (part.strip() for part in given.partition("="))
    if not (name and equals and values):
        raise UsageError(f"--sweep is {given!r}", remedy=EXAMPLE)
    parameter = find(name)
    ranged = ":" in values and parameter.type in {int, float}
    made = _range(given, parameter, values) if ranged else [_value(given, parameter, v) for v in values.split(",")]
    seen: set[Value] = set()
    for value in made:
        if value in seen:
            raise UsageError(f"--sweep {given} gives {text(value)} twice", remedy="give each value once")
        seen.add(value)
    return Axis(parameter, tuple(made))


def find(name: str) -> Parameter:
    """The parameter of that name, written as a flag or as a field; raises UsageError listing all of them."""
    known = parameters()
    wanted = name.removeprefix("--").replace("-", "_")
    by_path = {"_".join(p.path): p for p in known.values()}
    found = known.get(wanted) or by_path.get(wanted)
    if found is None:
        names = ", ".join(p.replace("_", "-") for p in known)
        raise UsageError(f"--sweep {name}: there is no parameter of that name", remedy=f"choose one of {names}")
    return found


def _range(given: str, parameter: Parameter, values: str) -> list[Value]:
    """LOW:HIGH:N or LOW:HIGH:N:log; whole-number parameters take the nearest whole numbers."""
    parts = [part.strip() for part in values.split(":")]
    if len(parts) not in {3, 4} or (len(parts) == 4 and parts[3] != "log"):
        raise UsageError(f"--sweep is {given!r}", remedy=EXAMPLE)
    low, high = (_decimal(given, part) for part in parts[:2])
    n = _whole(given, parts[2])
    if not 2 <= n <= MOST_RUNS:
        raise UsageError(f"--sweep {given}: N is {n}", remedy=f"give from 2 to {MOST_RUNS:,} points")
    if not low < high:
        raise UsageError(f"--sweep {given}: {parts[0]} is not below {parts[1]}", remedy="write NAME=LOW:HIGH:N")
    if len(parts) == 4 and low <= 0:
        raise UsageError(f"--sweep {given}: {parts[0]} is not above 0", remedy="a log range starts above 0")
    points = geometric(low, high, n) if len(parts) == 4 else linear(low, high, n)
    if parameter.type is float:
        return [float(point) for point in points]
    for end in parts[:2]:
        _whole(given, end)
    return [math.floor(point + Fraction(1, 2)) for point in points]


def linear(low: Decimal, high: Decimal, n: int) -> list[Fraction]:
    """`n` evenly spaced points, ends included; exact, so that 0.05:1:20 gives 0.15 and nothing near it."""
    start, width = Fraction(low), Fraction(high) - Fraction(low)
    return [start + width * i / (n - 1) for i in range(n)]


def geometric(low: Decimal, high: Decimal, n: int) -> list[Fraction]:
    """`n` points, each the same multiple of the one before, to 12 digits; the ends as they were given."""
    first, last = math.log(low), math.log(high)
    inner = [math.exp(first + (last - first) * i / (n - 1)) for i in range(1, n - 1)]
    return [Fraction(low), *(Fraction(f"{x:.12g}") for x in inner), Fraction(high)]


def _value(given: str, parameter: Parameter, word: str) -> Value:
    """One value of a list, typed."""
    word = word.strip()
    if parameter.optional and word.lower() == "none":
        return None
    if not word:
        raise UsageError(f"--sweep {given} has an empty value", remedy=EXAMPLE)
    if parameter.type is bool:
        if word.lower() not in {"true", "false"}:
            raise UsageError(f"--sweep {given}: {word!r} is neither true nor false", remedy="give true,false")
        return word.lower() == "true"
    if parameter.type is int:
        return _whole(given, word)
    return word if parameter.type is str else float(_decimal(given, word))


def _whole(given: str, word: str) -> int:
    try:
        number = int(word)
    except ValueError:
        raise UsageError(f"--sweep {given}: {word!r} is not a whole number", remedy=EXAMPLE) from None
    if abs(number) >= 2**63:
        raise UsageError(f"--sweep {given}: {word} is beyond 2**63", remedy="give a smaller number")
    return number


def _decimal(given: str, word: str) -> Decimal:
    """An exact number; raises UsageError for what is none, and for nan and infinity."""
    try:
        number = Decimal(word)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise UsageError(f"--sweep {given}: {word!r} is not a number", remedy=EXAMPLE)
    return number


def text(value: Value) -> str:
    """A value as it is written in a --sweep."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
