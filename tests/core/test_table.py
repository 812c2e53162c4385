"""A table's one declaration makes its empty frame, its cast, its check and its sample."""

from __future__ import annotations

import polars as pl
import pytest

from mmlab.core.errors import TableError
from mmlab.core.schemas import DEPTH, EVENTS, TABLES, TRADES, depth
from mmlab.core.table import is_sorted


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_sample_meets_its_own_contract(table):
    """Every declared table can be made up at random, with no row that breaks a rule."""
    frame = table.check(table.sample(80, seed=3))
    assert frame.height == 80
    assert table.sample(80, seed=3).equals(frame)
    assert table.check(table.empty()).is_empty()


def test_all_faults_of_a_schema_are_told_at_once():
    """Missing, unknown and wrongly typed columns, each by name."""
    frame = TRADES.sample(3, 1).drop("price").with_columns(pl.col("qty").cast(pl.Float32), extra=pl.lit(1))
    with pytest.raises(TableError) as caught:
        TRADES.check(frame, "part-00000.parquet")
    for text in ("part-00000.parquet", "missing column 'price'", "unknown column 'extra'", "'qty' is Float32"):
        assert text in caught.value.message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (pl.lit(0.0).alias("price"), "rule 'price and qty are above 0' broken in 5 rows"),
        (pl.lit(0, pl.Int8).alias("taker"), "rule 'taker in (1, -1)' broken in 5 rows"),
        (pl.lit(None, pl.Int64).alias("trade_id"), "rule 'trade_id is given' broken in 5 rows"),
        (pl.lit(-1.0).alias("qty"), "rule 'qty >= 0' broken in 5 rows"),
        (pl.lit(7, pl.Int64).alias("recv_seq"), "key (recv_ns, recv_seq) is not unique"),
        (pl.col("recv_ns").reverse(), "rows are not sorted by (recv_ns, recv_seq)"),
    ],
)
def test_a_broken_rule_is_named_and_its_rows_counted(change, fault):
    """Rules that follow from a column and rules declared for the table alike."""
    frame = TRADES.sample(5, 2).with_columns(
        recv_ns=pl.int_range(5, 10, dtype=pl.Int64), recv_seq=pl.int_range(5, dtype=pl.Int64)
    )
    if "unique" in fault:
        frame = frame.with_columns(recv_ns=pl.lit(1, pl.Int64))
    with pytest.raises(TableError) as caught:
        TRADES.check(frame.with_columns(change))
    assert fault in caught.value.message


def test_a_crossed_book_breaks_the_depth_contract():
    """The one rule of a book."""
    frame = depth(2).sample(4, 1).with_columns(bid_px_1=pl.col("ask_px_1"))
    with pytest.raises(TableError, match="rule 'book is not crossed' broken in 4 rows"):
        depth(2).check(frame)


def test_conform_orders_and_casts_columns_and_drops_others():
    """A frame made in any order and width becomes the table."""
    frame = (
        EVENTS.sample(3, 1).select(reversed(EVENTS.schema.names())).with_columns(more=1, epoch_id=pl.lit(1, pl.Int8))
    )
    assert EVENTS.conform(frame).schema == EVENTS.schema
    with pytest.raises(TableError, match="missing column 'kind'"):
        EVENTS.conform(frame.drop("kind"))


def test_depth_has_as_many_levels_as_asked_for():
    """Level 1 is given, deeper levels may be absent."""
    assert len(DEPTH.columns) == 6 + 80
    assert [c.name for c in depth(2).columns if c.nullable and "px" in c.name] == ["bid_px_2", "ask_px_2"]


def test_sortedness_is_lexicographic():
    """Ties in the first column are decided by the second."""
    frame = pl.DataFrame({"a": [1, 1, 2], "b": [1, 2, 0]})
    assert is_sorted(frame, ("a", "b"))
    assert not is_sorted(frame, ("b", "a"))
    assert not is_sorted(frame.with_columns(b=pl.Series([2, 1, 0])), ("a", "b"))


def test_names_that_differ_only_by_case_are_nowhere():
    """DuckDB and Spark would mix them up without a word."""
    for table in TABLES.values():
        names = [c.name.lower() for c in table.columns]
        assert len(names) == len(set(names)), table.name
