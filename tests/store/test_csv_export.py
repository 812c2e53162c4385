"""CSV files that a spreadsheet and a notebook read alike: plain decimals, times in ns and ms, the same bytes."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import polars as pl
import pytest

from mmlab.core.schemas import ATTRIBUTION, FILLS, MARKOUTS, METRICS, ORDERS, POINTS, STATE, TABLES
from mmlab.store.csv_export import csv_name, to_csv
from mmlab.store.instants import instants, ms_names

EXPORTED = (ORDERS, FILLS, STATE, METRICS, ATTRIBUTION, MARKOUTS)


def read(content: bytes) -> list[dict[str, str]]:
    """By Python's own reader."""
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("table", EXPORTED, ids=lambda table: table.name)
def test_every_value_is_read_back_as_it_was(table):
    """By Polars with the contract's types, and by Python's reader cell by cell."""
    frame = table.sample(50, 3)
    content = to_csv(table, frame)
    again = pl.read_csv(content, schema_overrides=table.schema, empty_string_is_null=False)
    assert again.select(table.schema.names()).equals(frame)
    assert again.columns == [*table.schema.names(), *ms_names(table).values()]
    for row, cells in zip(frame.iter_rows(named=True), read(content), strict=True):
        for name, value in row.items():
            assert (
                (Decimal(cells[name]) == Decimal(repr(value)))
                if isinstance(value, int | float)
                else (cells[name] == (value or ""))
            )
        for ns, ms in ms_names(table).items():
            assert cells[ms] == ("" if row[ns] is None else str(row[ns] // 10**6))
    assert to_csv(table, frame.clone()) == content


def test_the_documents_columns_are_there():
    """Times in ms under the names that the documents use."""
    assert list(ms_names(ORDERS).values()) == [
        "recv_ms", "active_recv_ms", "expire_recv_ms", "cancel_req_ms", "cancel_effective_ms",
    ]  # fmt: skip
    assert list(ms_names(FILLS).values()) == list(ms_names(STATE).values()) == ["recv_ms"]
    assert ms_names(POINTS) == {}
    assert "exposure_ns" not in [name for table in TABLES.values() for name in instants(table)]


def test_small_and_large_numbers_have_no_exponent():
    """1e-8 is written 0.00000001; nothing is written for null."""
    frame = pl.DataFrame(
        {"metric": ["a", "b", "c"], "value": [1e-8, 1e17, None], "unit": ["1", "1", "quote, or so"]},
        schema=METRICS.schema,
    )
    assert to_csv(METRICS, frame) == (b'metric,value,unit\na,0.00000001,1\nb,100000000000000000,1\nc,,"quote, or so"\n')


def test_a_file_is_named_by_table_and_symbol():
    """Also where the symbol cannot stand in a file's name."""
    assert csv_name(ORDERS, "BTCUSDT") == "orders_BTCUSDT.csv"
    assert csv_name(STATE, "BTC/USDT") == "state_BTC%2FUSDT.csv"
