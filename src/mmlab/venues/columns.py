"""Columns of a CSV or Parquet file as numbers and instants, without losing which row said what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
import pyarrow
from pyarrow import parquet, types

from mmlab.core.errors import DataError

PLAIN = (types.is_integer, types.is_floating, types.is_string, types.is_large_string, types.is_timestamp)


class BadRow(NamedTuple):
    """A row that cannot be meant: its number in the file (a CSV's line, from 1), and what is wrong with it."""

    row: int
    reason: str


@dataclass(frozen=True)
class Raw:
    """A file's columns by lower-case name, as they stand, with `_row`; rows of another shape are in `bad`."""

    name: str
    unit: str  # what `_row` counts: line, row
    frame: pl.DataFrame
    bad: tuple[BadRow, ...] = ()
    unread: tuple[str, ...] = ()  # columns of another kind than numbers, texts and instants


def read_parquet(name: str, content: bytes) -> Raw:
    """A Parquet file's columns of numbers, texts and instants; raises DataError naming a torn one.

    Read by pyarrow: of a page that is torn Polars panics, and tells the user how.
    """
    try:
        table = parquet.read_table(pyarrow.BufferReader(content), page_checksum_verification=True)
        table.validate(full=True)
        plain = [n for n, column in enumerate(table.schema) if any(is_one(column.type) for is_one in PLAIN)]
        frame = pl.DataFrame(pl.from_arrow(table.select(plain)))
    except (pyarrow.ArrowException, pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        why = (str(error).splitlines() or ["unreadable"])[0]
        raise DataError(f"{name} is torn or no Parquet file: {why}", remedy="get the file again") from None
    names = _named(name, frame.columns)
    unread = tuple(column for column in table.column_names if column not in frame.columns)
    rows = frame.rename(dict(zip(frame.columns, names, strict=True))).with_row_index("_row", 1)
    return Raw(name, "row", rows, unread=unread)


def read_csv(name: str, content: bytes, headless: Sequence[str]) -> Raw:
    """A CSV file, every value as text; without a header it must have the columns `headless`.

    Raises DataError naming a file that is empty, or has neither a header nor so many columns.
    """
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace('"', "")
    lines = pl.DataFrame({"line": text.split("\n")}).with_row_index("_row", 1)
    lines = lines.filter(pl.col("line").str.strip_chars() != "")
    if lines.is_empty():
        raise DataError(f"{name} is empty", remedy="check that it is the right file")
    first = [cell.strip() for cell in lines["line"][0].split(",")]
    if _is_header(first):
        lines, columns = lines.slice(1), _named(name, first)
    elif len(first) == len(headless):
        columns = list(headless)
    else:
        raise DataError(
            f"{name} has no header, and {len(first)} columns instead of {len(headless)}",
            remedy=f"without a header the columns are {', '.join(headless)}",
        )
    cells = lines.with_columns(pl.col("line").str.split(",").alias("cells")).drop("line")
    n = pl.col("cells").list.len()
    bad = cells.filter(n != len(columns)).select("_row", n).iter_rows()
    values = [pl.col("cells").list.get(i).str.strip_chars().alias(column) for i, column in enumerate(columns)]
    frame = cells.filter(n == len(columns)).select("_row", *values)
    return Raw(name, "line", frame, tuple(BadRow(row, f"has {n} fields, not {len(columns)}") for row, n in bad))


def _is_header(cells: Sequence[str]) -> bool:
    """True unless the first cells are numbers."""
    try:
        float(cells[0])
    except ValueError:
        return True
    return False


def _named(name: str, columns: Sequence[str]) -> list[str]:
    """Columns by the names that are looked for; raises DataError for a name that comes twice."""
    names = [column.strip().lower() for column in columns]
    twice = [each for i, each in enumerate(names) if each in {"_row", *names[:i]}]
    if twice:
        raise DataError(f"{name} has column {twice[0]!r} twice", remedy="name each column once")
    return names


def numbers(name: str) -> pl.Expr:
    """A column as doubles, the ones nearest to their decimal text; null where it is no number."""
    return pl.col(name).cast(pl.Float64, strict=False)


def is_number(name: str, *, needed: bool) -> tuple[pl.Expr, pl.Expr]:
    """When a value of a column, whose text is in `raw:name`, is no finite number (empty may be, unless needed)."""
    text = pl.col(f"raw:{name}").cast(pl.String)
    value = pl.col(f"raw:{name}").cast(pl.Float64, strict=False)
    empty = text.is_null() | (text == "")
    broken = (~value.is_finite()).fill_null(True)
    return (
        broken if needed else broken & ~empty,
        pl.when(empty).then(pl.lit(f"{name} is empty")).otherwise(pl.format("{} is {}, no number", pl.lit(name), text)),
    )


def instants_ns(raw: Raw, name: str) -> tuple[pl.Expr, list[str]]:
    """A column of times as ns UTC, null where it is none; and a warning where a zone had to be supposed.

    Whole numbers are ms if they have 13 digits and microseconds if they have 16 (2001 to 2286).
    """
    dtype = raw.frame.schema[name]
    if isinstance(dtype, pl.Datetime):
        what = [] if dtype.time_zone else [f"{raw.name}: {name} has no time zone: taken for UTC"]
        return pl.col(name).dt.epoch("ns"), what
    text = pl.col(name)
    exact = text.cast(pl.Int64, strict=False)
    if dtype in (pl.String, pl.Float64, pl.Float32):  # 1672531200000.0
        double = text.cast(pl.Float64, strict=False)
        whole = pl.when(double.is_finite() & (double == double.round())).then(double).cast(pl.Int64, strict=False)
        exact = whole if dtype != pl.String else pl.coalesce(exact, whole)
    in_ms, in_us = exact.is_between(10**12, 10**13 - 1), exact.is_between(10**15, 10**16 - 1)
    return pl.when(in_ms).then(exact * 1_000_000).when(in_us).then(exact * 1_000), []
