"""SQL over the lake and all results: an in-memory DuckDB with one view for each table."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import duckdb
import polars as pl
from rich.console import Console
from rich.table import Table as RichTable

from mmlab.core.errors import DataError, UsageError
from mmlab.core.schemas import BARS, FUNDING, LAKE_TABLES, RUN_TABLES
from mmlab.core.table import Table
from mmlab.store.instants import instants, ms_names

LAKE_KEYS = ("venue", "symbol", "day")
CANDLE_KEYS = ("venue", "symbol", "interval", "month")
RUN_KEYS = ("kind", "method", "symbol", "day", "run")
KINDS = {"calibration": RUN_KEYS[1:], "grid": RUN_KEYS[1:], "backtest": RUN_KEYS[2:], "walkforward": RUN_KEYS[2:],
         "sweep": RUN_KEYS[2:]}  # fmt: skip
SQL_TYPES = {pl.Int64: "BIGINT", pl.Int8: "TINYINT", pl.Float64: "DOUBLE", pl.String: "VARCHAR", pl.Boolean: "BOOLEAN",
             pl.Binary: "BLOB"}  # fmt: skip


def connect(data_root: Path, out_root: Path) -> duckdb.DuckDBPyConnection:
    """A connection with a view for each table; a table that nobody has written yet is an empty view."""
    con = duckdb.connect()
    for table in LAKE_TABLES:
        own: tuple[str, ...] = CANDLE_KEYS if table in (BARS, FUNDING) else LAKE_KEYS
        folders = "/".join(f"{key}=*" for key in own)
        parts = sorted(data_root.resolve().glob(f"{folders}/{table.name}/part-*.parquet"))
        _view(con, table, [_select(parts, own)] if parts else [], own)
    for table in RUN_TABLES:
        selects = []
        for kind, keys in KINDS.items():
            depth = "/".join(f"{key}=*" for key in keys)
            files = sorted((out_root.resolve() / kind).glob(f"{depth}/{table.name}.parquet"))
            if files:
                selects.append(_select(files, keys, kind))
        _view(con, table, selects, RUN_KEYS)
    return con


def _select(files: Iterable[Path], keys: Iterable[str], kind: str | None = None) -> str:
    """A query over Parquet files, Hive keys read from their paths as text."""
    listed = ", ".join(_quoted(str(path)) for path in files)
    types = ", ".join(f"{_quoted(key)}: VARCHAR" for key in keys)
    head = f"{_quoted(kind)} AS kind, * " if kind else "* "
    return (
        f"SELECT {head}FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = true, "
        f"hive_types = {{{types}}})"
    )


def _view(con: duckdb.DuckDBPyConnection, table: Table, selects: list[str], keys: tuple[str, ...]) -> None:
    """Create the view: all selects, then the empty contract, so that every column is there and typed."""
    columns = [(key, "VARCHAR") for key in keys] + [(c.name, SQL_TYPES[c.dtype]) for c in table.columns]
    empty = "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns) + " WHERE false"
    extra = [f'make_timestamp_ns("{name}") AS "{name[:-3]}_time"' for name in instants(table)]
    extra += [f'"{ns}" // 1000000 AS "{ms}"' for ns, ms in ms_names(table).items()]
    query = " UNION ALL BY NAME ".join([empty, *selects])
    shown = ", ".join(["*", *extra])
    try:
        con.execute(f'CREATE VIEW "{table.name}" AS SELECT {shown} FROM ({query})')
    except duckdb.Error as error:
        raise _fault(error) from None


def run(con: duckdb.DuckDBPyConnection, query: str) -> pl.DataFrame:
    """A query's rows; raises UsageError for a query that cannot be meant, DataError for data that cannot be read."""
    try:
        relation = con.sql(query)
        frame: pl.DataFrame = pl.DataFrame() if relation is None else relation.pl()
        return frame
    except duckdb.Error as error:
        raise _fault(error) from None


def _fault(error: duckdb.Error) -> DataError | UsageError:
    """DuckDB's own words, as the user's fault or the data's."""
    if isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException):
        return UsageError(str(error), remedy="mmlab tables lists the tables, mmlab tables NAME their columns")
    return DataError(str(error), remedy="the file is torn: import the day, or make the run, again")


def render(frame: pl.DataFrame, format: str) -> str | bytes:
    """Rows as `table` (text), `csv`, `json` (a list of objects) or `parquet` (bytes)."""
    if format == "csv":
        return frame.write_csv()
    if format == "json":
        return frame.write_json()
    if format == "parquet":
        out = io.BytesIO()
        frame.write_parquet(out)
        return out.getvalue()
    shown = RichTable(*frame.columns)
    for row in frame.iter_rows():
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=max(80, 20 * len(frame.columns)), highlight=False).print(shown)
    return text.getvalue() + f"{frame.height} rows\n"


def _quoted(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"
