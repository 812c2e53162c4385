"""`check` finds what is wrong with a day, and nothing in a day that is right."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_S
from mmlab.tape.ingest import Ingest
from mmlab.tape.quality import Day, check_day, remarks
from mmlab.venues import binance_spot
from reference.raw_feed import depth, line, snapshot, trade

BOOK = ([("99.00", "1.0"), ("98.00", "2.0")], [("101.00", "1.0"), ("102.00", "2.0")])
LATER = ([("99.00", "3.0"), ("98.00", "2.0")], [("101.00", "9.0"), ("102.00", "2.0")])


def day(messages: list[dict]) -> Day:
    """A day of these messages, one a second."""
    instrument = Instrument("binance-spot", "BTCUSDT", "0.01", "0.00001")
    ingest = Ingest(binance_spot.FEED, instrument, 3)
    for n, message in enumerate(messages, 1):
        ingest.feed("a", n, line(n * NS_PER_S, message))
    ingest.finish()
    frames: dict[str, list[pl.DataFrame]] = {}
    for batch in ingest.drain(final=True):
        frames.setdefault(batch.table.name, []).append(batch.frame)
    names = ("depth", "diffs", "snapshots", "trades", "agg_trades", "events", "gaps")
    return Day(instrument, **{n: pl.concat(frames[n]) if n in frames else schemas.TABLES[n].empty() for n in names})


def good(*more: dict) -> Day:
    """Snapshot, three updates, four trades, and a snapshot that the book must equal."""
    before = [snapshot(10, *BOOK), depth(11, 12, [("99.00", "3.0")]), trade(1), trade(2)]
    after = [depth(13, 14, [], [("101.00", "9.0")]), trade(3), snapshot(14, *LATER), trade(4)]
    return day([*before, *after, depth(15, 16, [("98.00", "0.0")]), *more])


def test_a_day_that_is_right_has_no_faults():
    assert check_day(good()) == []


def test_declared_holes_are_no_faults():
    """A jump in trades, and one in updates with a resync."""
    found = good(trade(9), depth(30, 31), snapshot(31, *BOOK), depth(32, 33, [("99.00", "0.5")]))
    assert found.gaps.height == 2
    assert check_day(found) == []


def test_a_hole_that_nobody_declared_is_told_with_its_ids():
    """Of trades, and of updates."""
    found = good()
    trades = found.trades.filter(pl.col("trade_id") != 2)
    assert check_day(replace(found, trades=trades)) == [
        "trade: ids 2 to 2 are missing, and no hole is declared for them"
    ]
    diffs = found.diffs.filter(pl.col("last_id") != 14)
    assert "depth: updates 13 to 14 are missing, and no hole is declared for them" in check_day(
        replace(found, diffs=diffs)
    )


def test_an_id_that_comes_twice_is_told():
    found = good()
    twice = replace(found, trades=pl.concat([found.trades, found.trades.tail(1)]))
    assert check_day(twice) == ["trade: 1 ids come twice, the first is 4"]


@pytest.mark.parametrize("change", [("price", 99.0, 2.5), ("price", 101.0, 8.0)])
def test_a_book_that_is_not_the_venues_is_told_level_by_level(change):
    """One quantity of a raw update changed: the next snapshot says so."""
    found = good()
    column, price, qty = change
    diffs = found.diffs.with_columns(
        qty=pl.when((pl.col(column) == price) & (pl.col("last_id") < 15)).then(qty).otherwise(pl.col("qty"))
    )
    (fault,) = check_day(replace(found, diffs=diffs))
    assert fault.startswith(f"book: at update 14 the {'bid' if price < 100 else 'ask'} at {price:g} is {qty:g}")


def test_clocks_that_run_backwards_or_wait_are_told():
    found = good()
    backwards = found.trades.with_columns(recv_ns=pl.col("recv_ns").reverse())
    assert any("receive times of trades run backwards" in f for f in check_day(replace(found, trades=backwards)))
    late = found.trades.with_columns(
        exch_ns=pl.when(pl.col("trade_id") == 3).then(pl.col("recv_ns") - 60 * NS_PER_S).otherwise(pl.col("recv_ns"))
    )
    assert check_day(replace(found, trades=late)) == []
    assert any("1 trades came more than 10 s" in remark for remark in remarks(replace(found, trades=late)))
    assert remarks(found) == []
