"""A run's tables as CSV: the contract's columns, then the instants in ms; decimals are written out, nulls are empty."""

from __future__ import annotations

import io
from urllib.parse import quote

import polars as pl

from mmlab.core.spans import NS_PER_MS
from mmlab.core.table import Table
from mmlab.store.instants import ms_names


def csv_name(table: Table, symbol: str) -> str:
    """`orders_BTCUSDT.csv`; a symbol that cannot be a file's name is quoted as in the run's path."""
    return f"{table.name}_{quote(symbol, safe='')}.csv"


def to_csv(table: Table, frame: pl.DataFrame) -> bytes:
    """The same bytes for the same rows: UTF-8, one line a row, each decimal at its shortest and without exponent."""
    shown = frame.with_columns((pl.col(ns) // NS_PER_MS).alias(ms) for ns, ms in ms_names(table).items())
    out = io.BytesIO()
    shown.write_csv(out, float_scientific=False)
    return out.getvalue()
