"""The book keeps exact prices, best first, and its frames say what is absent."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.instrument import Instrument
from mmlab.core.schemas import depth
from mmlab.tape.books import Book, DepthRows

INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.00001")

prices = st.integers(1, 10_000_000).map(lambda ticks: ticks / 100)
quantities = st.sampled_from([0.0, 0.00001, 1.5, 25.426189])


def frame_of(book: Book, levels: int) -> pl.DataFrame:
    rows = DepthRows(INSTRUMENT, levels)
    rows.add(1, None, 1, 1, 7, book)
    return depth(levels).check(rows.frame(5))


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(prices, quantities), max_size=12), max_size=12))
def test_a_side_equals_a_dict_sorted_anew(updates):
    """After any updates, repeated prices in one update included; the prices come back to the last bit."""
    book, twin = Book(INSTRUMENT.ticks), {}
    for levels in updates:
        book.apply(levels, levels)
        twin = {p: q for p, q in (twin | dict(levels)).items() if q > 0}
    for side, sign in ((book.bids, 1), (book.asks, -1)):
        best_first = side.keys[::-1]
        assert [sign * key / 100 for key in best_first] == sorted(twin, reverse=sign > 0)
        assert [side.qty[key] for key in best_first] == [twin[p] for p in sorted(twin, reverse=sign > 0)]


def test_levels_that_a_side_does_not_have_are_null():
    """Never zero, which would be a price."""
    book = Book(INSTRUMENT.ticks)
    book.load([(99.99, 1.0), (99.97, 2.0)], [(100.01, 3.0)])
    row = frame_of(book, 3).row(0, named=True)
    assert [row[f"bid_px_{i}"] for i in (1, 2, 3)] == [99.99, 99.97, None]
    assert [row[f"bid_qty_{i}"] for i in (1, 2, 3)] == [1.0, 2.0, None]
    assert [row[f"ask_px_{i}"] for i in (1, 2, 3)] == [100.01, None, None]
    assert row["exch_ns"] is None
    assert (row["run_id"], row["update_id"]) == (5, 7)


def test_a_snapshot_replaces_all_and_its_empty_levels_are_no_levels():
    """What was there before is gone."""
    book = Book(INSTRUMENT.ticks)
    book.apply([(1.0, 1.0)], [(2.0, 1.0)])
    book.load([(3.0, 1.0), (3.5, 0.0)], [])
    assert book.bids.keys == [300]
    assert book.one_sided
    assert not book.crossed


def test_a_touching_book_is_crossed():
    """No venue's book stands with its best bid at its best ask."""
    book = Book(INSTRUMENT.ticks)
    for ask, crossed in ((100.01, False), (100.00, True), (99.99, True)):
        book.load([(100.00, 1.0)], [(ask, 1.0)])
        assert book.crossed is crossed


def test_frames_are_given_up_once():
    """The buffer is empty afterwards."""
    book, rows = Book(INSTRUMENT.ticks), DepthRows(INSTRUMENT, 2)
    book.load([(1.0, 1.0)], [(2.0, 1.0)])
    rows.add(1, 2, 3, 4, 5, book)
    assert rows.frame(1).height == 1
    assert rows.frame(1).height == 0
