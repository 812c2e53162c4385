"""Every table is a view, written or not; Hive keys are columns, times are readable, faults have words."""

from __future__ import annotations

import io
import json
from datetime import date, datetime

import polars as pl
import pytest

from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import FITS, METRICS, ORDERS, TABLES, TRADES, depth
from mmlab.core.spans import day_start_ns
from mmlab.store.lake import Lake
from mmlab.store.runs import RunFolder
from mmlab.store.sql import connect, render, run

DAY = date(2025, 1, 1)


@pytest.fixture
def roots(tmp_path):
    """A lake of two symbols with books of two depths, and three runs of three kinds; a quote in the path."""
    data, out = tmp_path / "it's data", tmp_path / "out"
    for symbol, levels in (("AAA", 3), ("BBB", 5)):
        table = depth(levels)
        at = pl.int_range(day_start_ns(DAY), day_start_ns(DAY) + 4, dtype=pl.Int64)
        instrument = Instrument("binance-spot", symbol, "0.01", "0.00001")
        with Lake(data).writer(instrument, levels=levels, replace=False, created_by={}) as writer:
            writer.append(table, table.sample(4, 1).with_columns(recv_ns=at))
            writer.append(TRADES, TRADES.sample(4, 1).with_columns(recv_ns=at))
            writer.commit()
    for kind, method in (("backtest", None), ("walkforward", None), ("calibration", "ladder")):
        folder = RunFolder.create(out, kind, method, "AAA", "20250101", "r1")
        folder.write_table(METRICS, METRICS.sample(2, 1))
        folder.write_table(FITS, FITS.sample(2, 1))
        if kind == "backtest":
            folder.write_table(ORDERS, ORDERS.sample(5, 1))
        folder.commit({})
    return data, out


def rows(roots, query):
    return run(connect(*roots), query).rows()


def test_every_table_is_a_view_even_in_an_empty_lake(tmp_path):
    """A query before the first recording says 0 rows, not an error; the columns are the contract's."""
    con = connect(tmp_path / "data", tmp_path / "out")
    for table in TABLES.values():
        frame = run(con, f'SELECT * FROM "{table.name}"')
        assert frame.height == 0
        assert set(table.schema) <= set(frame.columns)


def test_hive_keys_are_text_columns(roots):
    """venue, symbol and day come from the path."""
    assert rows(roots, "SELECT DISTINCT venue, symbol, day FROM trades ORDER BY ALL") == [
        ("binance-spot", "AAA", "20250101"),
        ("binance-spot", "BBB", "20250101"),
    ]


def test_books_of_different_depth_are_one_view(roots):
    """What a shallower book has not is null."""
    query = "SELECT symbol, count(bid_px_1), count(bid_px_4) FROM depth GROUP BY ALL ORDER BY ALL"
    assert rows(roots, query) == [("AAA", 4, 0), ("BBB", 4, rows(roots, "SELECT count(bid_px_4) FROM depth")[0][0])]


def test_runs_of_all_kinds_are_one_view(roots):
    """kind and method say where a row comes from."""
    assert rows(roots, "SELECT kind, method, run, count(*) FROM fits GROUP BY ALL ORDER BY ALL") == [
        ("backtest", None, "r1", 2),
        ("calibration", "ladder", "r1", 2),
        ("walkforward", None, "r1", 2),
    ]


def test_instants_have_a_readable_time_and_the_documents_ms(roots):
    """recv_time is a timestamp; orders, fills and state also have recv_ms."""
    [(time,)] = rows(roots, "SELECT min(recv_time)::TIMESTAMP FROM trades")
    assert time == datetime(2025, 1, 1)
    assert rows(roots, "SELECT count(*) FROM orders WHERE active_recv_ms = active_recv_ns // 1000000") == [(5,)]


def test_values_are_those_of_the_files(roots):
    """SQL sees what Polars wrote."""
    frame = run(connect(*roots), "SELECT price, qty FROM trades WHERE symbol = 'AAA' ORDER BY recv_ns")
    assert frame.equals(TRADES.sample(4, 1).select("price", "qty"))


def test_files_in_the_making_are_not_seen(roots):
    """Staged folders and temporary files match no view."""
    data, _ = roots
    day = next(data.glob("venue=*/symbol=AAA/day=*"))
    (day / "trades" / ".part-00009.parquet.tmp").write_bytes(b"half")
    staged = day.parent / ".staging-1" / "day=20250102" / "trades"
    staged.mkdir(parents=True)
    (staged / "part-00000.parquet").write_bytes(b"half")
    assert rows(roots, "SELECT count(*) FROM trades") == [(8,)]


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT nothing FROM trades", "SELECT * FROM trade"])
def test_a_query_that_cannot_be_meant_is_the_users_fault(roots, query):
    """DuckDB's own words, and where to look."""
    with pytest.raises(UsageError) as caught:
        rows(roots, query)
    assert "mmlab tables" in caught.value.remedy


def test_a_torn_file_is_a_fault_of_the_data_that_names_it(roots):
    """The path is in the message."""
    path = next(roots[0].glob("venue=*/symbol=AAA/day=*/trades/part-00000.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"trades/part-00000\.parquet"):
        rows(roots, "SELECT count(*) FROM trades")


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_a_result_is_rendered_in_each_format(format):
    """All four hold the same rows."""
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    shown = render(frame, format)
    if format == "parquet":
        assert pl.read_parquet(io.BytesIO(shown)).equals(frame)
    elif format == "json":
        assert json.loads(shown) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    elif format == "csv":
        assert shown == "a,b\n1,x\n2,\n"
    else:
        assert "2 rows" in shown
        assert "x" in shown
