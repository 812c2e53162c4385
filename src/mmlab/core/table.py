"""A table contract: columns, key, order and named rules, declared once and read by everyone.

From one `Table` follow the empty frame, the cast, the check, a valid random sample for tests,
the Parquet round trip and the page in docs/tables.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from mmlab.core.errors import TableError


@dataclass(frozen=True)
class Column:
    """One column: its type, what one value means, its unit, and whether it may be null."""

    name: str
    dtype: type[pl.DataType]
    doc: str
    unit: str = ""
    nullable: bool = False
    values: tuple[object, ...] = ()  # the only values allowed, if not empty
    low: float | None = None  # smallest value allowed


@dataclass(frozen=True)
class Rule:
    """A named condition that every row meets; `holds` is a boolean expression over the columns."""

    name: str
    holds: pl.Expr


@dataclass(frozen=True)
class Table:
    """A table's contract. `key` is unique, rows are sorted by `order`; either may be empty.

    `counters` go up by one or a few from row to row: files keep them as differences.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = field(default=(), compare=False)

    @property
    def schema(self) -> pl.Schema:
        """Column names and types, in order."""
        return pl.Schema({c.name: c.dtype() for c in self.columns})

    def empty(self) -> pl.DataFrame:
        """A frame with no rows and the right columns."""
        return pl.DataFrame(schema=self.schema)

    def match(self, got: pl.Schema, where: str = "") -> None:
        """Raise TableError naming every missing, unknown or wrongly typed column of `got`."""
        wanted = self.schema
        if got == wanted:
            return
        faults = [f"missing column {name!r}" for name in wanted if name not in got]
        faults += [f"unknown column {name!r}" for name in got if name not in wanted]
        faults += [
            f"column {name!r} is {got[name]}, expected {dtype}"
            for name, dtype in wanted.items()
            if name in got and got[name] != dtype
        ]
        if faults:
            raise TableError(f"table {self.name!r}{_at(where)}: " + "; ".join(faults), remedy=REMEDY)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with this table's columns, in its order, cast to its types; raises TableError."""
        missing = [c.name for c in self.columns if c.name not in frame.columns]
        if missing:
            raise TableError(f"table {self.name!r}: missing column {', '.join(map(repr, missing))}", remedy=REMEDY)
        try:
            return frame.select(pl.col(c.name).cast(c.dtype()) for c in self.columns)
        except pl.exceptions.PolarsError as error:
            raise TableError(f"table {self.name!r}: {error}", remedy=REMEDY) from error

    def check(self, frame: pl.DataFrame, where: str = "") -> pl.DataFrame:
        """`frame` itself, if it meets the whole contract; raises TableError naming rule, count and first row."""
        self.match(frame.schema, where)
        if frame.is_empty():
            return frame
        rules = self.all_rules()
        broken = [(~rule.holds).fill_null(True).sum().alias(str(i)) for i, rule in enumerate(rules)]
        repeated = pl.struct(self.key).is_duplicated().any() if self.key else pl.lit(False)
        *counts, twice, sorted_ = frame.select(*broken, twice=repeated, sorted=_sorted(self.order)).row(0)
        faults = [f"rule {rule.name!r} broken in {n} rows" for rule, n in zip(rules, counts, strict=True) if n]
        if twice:
            faults.append(f"key ({', '.join(self.key)}) is not unique")
        if not sorted_:
            faults.append(f"rows are not sorted by ({', '.join(self.order)})")
        if faults:
            raise TableError(f"table {self.name!r}{_at(where)}: " + "; ".join(faults), remedy=REMEDY)
        return frame

    def all_rules(self) -> list[Rule]:
        """The declared rules, and those that follow from the columns."""
        implied: list[Rule] = []
        for c in self.columns:
            col = pl.col(c.name)
            if not c.nullable:
                implied.append(Rule(f"{c.name} is given", col.is_not_null()))
            if c.values:
                implied.append(Rule(f"{c.name} in {c.values}", col.is_in(list(c.values)) | col.is_null()))
            if c.low is not None:
                implied.append(Rule(f"{c.name} >= {c.low:g}", (col >= c.low) | col.is_null()))
        return implied + list(self.rules)

    def sample(self, n: int, seed: int) -> pl.DataFrame:
        """`n` random rows that meet the contract (rows that break a declared rule are drawn again)."""
        rng = np.random.default_rng(seed)
        kept = self.empty()
        while kept.height < n:
            drawn = pl.DataFrame(
                {c.name: _draw(c, n, rng, c.name in self.key) for c in self.columns}, schema=self.schema
            )
            holds = [r.holds for r in self.rules] or [pl.lit(True)]
            kept = pl.concat([kept, drawn.filter(pl.all_horizontal(holds))])
            if self.key:
                kept = kept.unique(self.key, maintain_order=True)
        kept = kept.head(n)
        return kept.sort(self.order) if self.order else kept


REMEDY = "see docs/tables.md for the table's contract"


def is_sorted(frame: pl.DataFrame, by: tuple[str, ...]) -> bool:
    """True if the rows stand in non-decreasing lexicographic order of `by`."""
    return bool(frame.select(_sorted(by)).item())


def _sorted(by: tuple[str, ...]) -> pl.Expr:
    """The same as an expression, of one value."""
    tie, ok = pl.lit(True), pl.lit(True)
    for name in by:
        step, before = pl.col(name), pl.col(name).shift(1)
        ok = ok & (~tie | (step >= before))
        tie = tie & (step == before)
    return ok.fill_null(True).all()


def _at(where: str) -> str:
    return f" in {where}" if where else ""


def _draw(column: Column, n: int, rng: np.random.Generator, unique: bool) -> pl.Series:
    """`n` random values that one column allows."""
    dtype = column.dtype()
    if column.values:
        return pl.Series(column.name, [column.values[i] for i in rng.integers(len(column.values), size=n)], dtype=dtype)
    low = column.low or 0.0
    if dtype == pl.Float64:
        return pl.Series(column.name, np.round(low + rng.integers(1, 10_000, n) / 100, 2))
    if dtype == pl.Boolean:
        return pl.Series(column.name, rng.random(n) < 0.5)
    whole = int(low) + rng.integers(1, 10**9 if unique else 10**4, n)
    if dtype == pl.String:
        return pl.Series(column.name, [f"text-{i}" for i in whole])
    if dtype == pl.Binary:
        return pl.Series(column.name, [f"bytes-{i}".encode() for i in whole], dtype=pl.Binary)
    return pl.Series(column.name, whole, dtype=dtype)
