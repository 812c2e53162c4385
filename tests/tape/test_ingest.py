"""Lines become tables: sync, holes, faults and clocks, each declared where it happened."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_DAY, NS_PER_S
from mmlab.tape.ingest import HOLD_NS, Ingest
from mmlab.venues import binance_spot, binance_usdm
from reference import book as slow
from reference.raw_feed import START_NS, depth, event, line, snapshot, ticker, trade

BOOK = ([("99.00", "1.0"), ("98.00", "2.0")], [("101.00", "1.0"), ("102.00", "2.0")])
DAY = date(2025, 1, 1)


def start(usdm: bool = False, levels: int = 3) -> Ingest:
    feed = binance_usdm.FEED if usdm else binance_spot.FEED
    return Ingest(feed, Instrument(feed.name, "BTCUSDT", "0.01", "0.00001"), levels)


def take(
    lines: list[bytes], ingest: Ingest | None = None, every: int = 10**9
) -> tuple[Ingest, dict[str, pl.DataFrame]]:
    """Feed all lines, drain after each `every` of them, check every table, and return them by name."""
    ingest = ingest or start()
    batches = []
    for n, text in enumerate(lines, 1):
        ingest.feed("a.raw", n, text)
        if n % every == 0:
            batches += list(ingest.drain())
    ingest.finish()
    batches += list(ingest.drain(final=True))
    frames: dict[str, list[pl.DataFrame]] = {}
    for batch in batches:
        frames.setdefault(batch.table.name, []).append(batch.frame)
    tables = {batch.table.name: batch.table for batch in batches}
    return ingest, {name: tables[name].check(pl.concat(parts)) for name, parts in frames.items()}


def timed(messages: list[dict[str, Any]]) -> list[bytes]:
    """One message a second."""
    return [line(i * NS_PER_S, message) for i, message in enumerate(messages, 1)]


def kinds(tables: dict[str, pl.DataFrame]) -> list[str]:
    return tables["events"]["kind"].to_list()


def rows_of(frame: pl.DataFrame, levels: int) -> list[slow.Frame]:
    """Depth rows as the twin writes them."""

    def side(row: dict[str, Any], name: str) -> list[tuple[float, float]]:
        pairs = [(row[f"{name}_px_{i}"], row[f"{name}_qty_{i}"]) for i in range(1, levels + 1)]
        return [(p, q) for p, q in pairs if p is not None]

    return [
        slow.Frame(row["recv_seq"], row["update_id"], side(row, "bid"), side(row, "ask"))
        for row in frame.iter_rows(named=True)
    ]


@st.composite
def streams(draw: st.DrawFn, usdm: bool) -> list[dict[str, Any]]:
    """A venue's true stream, of which some updates are lost, doubled or swapped, with snapshots old and new."""
    books, updates = [({}, {})], []
    for i in range(draw(st.integers(1, 25))):
        bids = draw(st.dictionaries(st.integers(90, 99), st.integers(0, 3), max_size=3))
        asks = draw(st.dictionaries(st.integers(101, 110), st.integers(0, 3), max_size=3))
        last = books[-1]
        books.append(
            tuple({p: q for p, q in (old | new).items() if q} for old, new in zip(last, (bids, asks), strict=True))
        )
        text = [[(f"{p}.00", f"{q}.0") for p, q in side.items()] for side in (bids, asks)]
        first = 10 * i + draw(st.integers(1, 3)) if usdm else 10 * i + 1
        updates.append(depth(first, 10 * i + 10, *text, pu=10 * i if usdm else None))
    sent = []
    for i, update in enumerate(updates):
        fate = draw(st.sampled_from(["sent"] * 8 + ["lost", "doubled", "swapped"]))
        sent += {"lost": 0, "doubled": 2}.get(fate, 1) * [update]
        if fate == "swapped" and len(sent) > 1:
            sent[-2:] = sent[:-3:-1]
        if draw(st.integers(0, 3)) == 0:
            at = draw(st.integers(max(0, i - 3), min(i + 3, len(updates) - 1)))
            text = [[(f"{p}.00", f"{q}.0") for p, q in side.items()] for side in books[at]]
            sent.append(snapshot(10 * at, *text))
    return sent


@pytest.mark.parametrize("usdm", [False, True])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_frames_equal_the_slow_twins_whatever_is_lost_doubled_or_swapped(usdm, data):
    """Message by message, level by level, whether drained once or all the time."""
    messages = data.draw(streams(usdm))
    expected = slow.frames(messages, usdm, 3)
    for every in (10**9, 10):
        _, tables = take(timed([*messages, ticker(1)]), start(usdm), every)
        assert rows_of(tables["depth"], 3) == expected if "depth" in tables else not expected


def test_an_epochs_first_frame_stands_at_its_snapshot_after_the_buffered_updates():
    """The straddling update that came before the snapshot is in it, the stale one is not."""
    messages = [
        depth(1, 4, [("50.00", "9.0")]),
        depth(5, 12, [("97.00", "3.0"), ("99.00", "5.0")]),
        snapshot(10, *BOOK),
        depth(13, 14, [("99.00", "0.0")]),
    ]
    _, tables = take(timed(messages))
    frames = tables["depth"]
    assert frames["recv_seq"].to_list() == [3, 4]
    assert frames["recv_ns"].to_list() == [START_NS + 3 * NS_PER_S, START_NS + 4 * NS_PER_S]
    assert frames["update_id"].to_list() == [12, 14]
    assert rows_of(frames, 3)[0].bids == [(99.0, 5.0), (98.0, 2.0), (97.0, 3.0)]
    assert tables["diffs"]["epoch_id"].to_list() == [0, 0, 0, 1]
    assert frames["epoch_id"].to_list() == [1, 1]
    assert tables["snapshots"].height == 4
    loaded = tables["events"].row(by_predicate=pl.col("kind") == "snapshot_loaded", named=True)
    assert tables["snapshots"]["event_id"].unique().to_list() == [loaded["event_id"]]
    assert json.loads(loaded["details"])["lowest_bid"] == 98.0


def test_a_snapshot_that_nothing_joins_yet_gets_its_first_frame_with_the_update_that_does():
    """And the snapshot's own levels are in that frame."""
    _, tables = take(timed([snapshot(10, *BOOK), depth(9, 10), depth(11, 12, [("98.50", "1.0")])]))
    assert tables["depth"]["recv_seq"].to_list() == [3]
    assert rows_of(tables["depth"], 3)[0].bids == [(99.0, 1.0), (98.5, 1.0), (98.0, 2.0)]
    assert tables["diffs"]["epoch_id"].to_list() == [0, 1]


def test_a_repeated_update_is_kept_in_diffs_but_writes_no_frame():
    """Spot, u <= id."""
    _, tables = take(timed([snapshot(10, *BOOK), depth(11, 12), depth(11, 12), depth(13, 13)]))
    assert tables["depth"]["update_id"].to_list() == [12, 13]
    assert tables["diffs"]["last_id"].to_list() == [12, 12, 13]


def test_missing_updates_are_one_gap_with_its_ids_and_times():
    """From the last update applied to the first frame of the next epoch; the days are degraded."""
    messages = [
        snapshot(10, *BOOK), depth(11, 12), trade(1), depth(20, 21), trade(2), depth(22, 23), snapshot(21, *BOOK),
        depth(24, 25),
    ]  # fmt: skip
    ingest, tables = take(timed(messages))
    [gap] = tables["gaps"].rows(named=True)
    assert (gap["stream"], gap["first_missing"], gap["last_missing"]) == ("depth", 13, 19)
    assert (gap["from_ns"], gap["to_ns"]) == (START_NS + 2 * NS_PER_S, START_NS + 7 * NS_PER_S)
    assert tables["depth"].select("recv_seq", "epoch_id").rows() == [(2, 1), (7, 2), (8, 2)]
    assert tables["diffs"]["epoch_id"].to_list() == [1, 0, 0, 2]
    assert tables["trades"]["trade_id"].to_list() == [1, 2]
    assert kinds(tables) == [
        "run_start", "snapshot_loaded", "sync", "gap", "resync", "snapshot_loaded", "sync", "run_stop",
    ]  # fmt: skip
    assert ingest.findings.reasons() == {DAY: ["book lost: 1", "gaps in depth: 1"]}
    assert ingest.findings.epochs == 2


def test_a_gap_that_nothing_closes_ends_with_the_run():
    """To the last line's time."""
    _, tables = take(timed([snapshot(10, *BOOK), depth(11, 12), depth(20, 21), trade(1)]))
    assert tables["gaps"].select("from_ns", "to_ns").rows() == [(START_NS + 2 * NS_PER_S, START_NS + 4 * NS_PER_S)]


def test_a_gap_over_midnight_is_declared_on_both_days():
    """A day's folder is whole in itself."""
    ingest = start()
    late = NS_PER_DAY - NS_PER_S
    lines = [line(late, snapshot(10, *BOOK)), line(late, depth(11, 12)), line(late + 3 * NS_PER_S, depth(20, 21))]
    for n, text in enumerate(lines, 1):
        ingest.feed("a.raw", n, text)
    ingest.finish()
    gaps = [batch for batch in ingest.drain(final=True) if batch.table.name == "gaps"]
    assert [batch.day for batch in gaps] == [DAY, date(2025, 1, 2)]
    assert gaps[0].frame.equals(gaps[1].frame)
    assert set(ingest.findings.reasons()) == {DAY, date(2025, 1, 2)}


def test_the_time_before_the_first_sync_is_no_gap():
    """A snapshot that comes too late for the buffer is refused and said so."""
    ingest, tables = take(timed([depth(20, 21), snapshot(10, *BOOK), snapshot(20, *BOOK)]))
    assert "gaps" not in tables
    assert kinds(tables)[:4] == ["run_start", "snapshot_loaded", "resync", "snapshot_loaded"]
    assert ingest.findings.reasons() == {}


def test_a_day_whose_book_never_came_in_sync_is_degraded():
    """Updates without a snapshot."""
    ingest, tables = take(timed([depth(20, 21), depth(22, 23)]))
    assert "depth" not in tables
    assert ingest.findings.reasons() == {DAY: ["no book: no update could be joined to a snapshot"]}


def test_a_crossed_book_is_thrown_away_until_the_next_snapshot():
    """The update that crossed it is kept: the next snapshot may hold it."""
    crossing = depth(13, 14, [("101.00", "1.0")])
    healed = ([("99.00", "1.0")], [("102.00", "2.0")])
    messages = [snapshot(10, *BOOK), depth(11, 12), crossing, depth(15, 16), snapshot(14, *healed)]
    ingest, tables = take(timed(messages))
    assert tables["depth"].select("recv_seq", "epoch_id").rows() == [(2, 1), (5, 2)]
    [gap] = tables["gaps"].rows(named=True)
    assert (gap["first_missing"], gap["last_missing"]) == (None, None)
    assert "14 crossed" in gap["reason"]
    assert (gap["from_ns"], gap["to_ns"]) == (START_NS + 2 * NS_PER_S, START_NS + 5 * NS_PER_S)
    assert DAY in ingest.findings.reasons()


def test_one_sided_frames_are_not_written_but_said_once():
    """One event for a run of them."""
    empty = [depth(11, 12, [("99.00", "0"), ("98.00", "0")]), depth(13, 14), depth(15, 16, [("97.00", "1.0")])]
    again = depth(17, 18, [("97.00", "0")])
    _, tables = take(timed([snapshot(10, *BOOK), *empty, again]))
    assert tables["depth"]["update_id"].to_list() == [16]
    assert kinds(tables).count("one_sided") == 2


def test_a_snapshot_while_in_sync_is_stored_and_changes_nothing():
    """Its levels are in the table, its event in the ledger."""
    _, tables = take(timed([snapshot(10, *BOOK), depth(11, 12), snapshot(12, [("1.00", "1.0")]), depth(13, 14)]))
    assert tables["snapshots"].height == 5
    assert rows_of(tables["depth"], 3)[-1].bids == [(99.0, 1.0), (98.0, 2.0)]
    assert tables["depth"]["epoch_id"].to_list() == [1, 1]


def test_a_jump_of_trade_ids_is_a_gap_between_the_prints_around_it():
    """With the ids that never came."""
    ingest, tables = take(timed([trade(5), trade(6), ticker(1), trade(10)]))
    [gap] = tables["gaps"].rows(named=True)
    assert (gap["stream"], gap["first_missing"], gap["last_missing"]) == ("trade", 7, 9)
    assert (gap["from_ns"], gap["to_ns"]) == (START_NS + 2 * NS_PER_S, START_NS + 4 * NS_PER_S)
    assert ingest.findings.gaps == {"trade": 1}


def test_a_repeated_trade_is_set_aside():
    """A print counts once."""
    ingest, tables = take(timed([trade(5), trade(5), trade(4), trade(6)]))
    assert tables["trades"]["trade_id"].to_list() == [5, 6]
    assert ingest.findings.set_aside["repeated trade id"].count == 2
    assert "gaps" not in tables


def test_a_futures_row_that_is_no_print_keeps_its_id_but_not_its_place_on_the_tape():
    """Its id is not missing, and the day is not degraded for it."""
    messages = [trade(5), trade(6, X="INSURANCE_FUND"), trade(7, price="0", qty="0", X="NA"), trade(8, X="MARKET")]
    ingest, tables = take(timed(messages), start(usdm=True))
    assert tables["trades"]["trade_id"].to_list() == [5, 8]
    assert tables["quarantine"].height == 2
    assert ingest.findings.gaps == {}
    assert ingest.findings.reasons() == {}


def test_what_cannot_be_read_is_kept_byte_for_byte_and_the_rest_goes_on():
    """Counted by kind, with the first places; every line has its number in the run."""
    bad = [
        b"\xff\xfe", b"", b"12 {}", line(0, trade(1)) + b"x", b"%d {" % START_NS,
        line(0, event("kline_1m", trade(9)["data"])), b'%d {"s":"\xff"}' % START_NS,
    ]  # fmt: skip
    good = timed([trade(1), trade(2)])
    ingest, tables = take([*bad[:3], good[0], *bad[3:], good[1]])
    kept = tables["quarantine"]
    assert kept["raw"].to_list() == bad
    assert kept["line_no"].to_list() == [1, 2, 3, 5, 6, 7, 8]
    assert set(kept["source"]) == {"a.raw"}
    assert tables["trades"]["recv_seq"].to_list() == [4, 9]
    found = ingest.findings.set_aside
    assert {kind: aside.count for kind, aside in found.items()} == {
        "no timestamp": 3, "bad JSON": 2, "unknown stream kline_1m": 1, "not UTF-8": 1,
    }  # fmt: skip
    assert found["bad JSON"].first == [("a.raw", 5), ("a.raw", 6)]
    assert kinds(tables).count("quarantine") == 4
    assert set(tables["quarantine"]["run_id"]) == {(START_NS + NS_PER_S) // 10**6}
    assert len(ingest.findings.reasons()[DAY]) == 3  # a stream that is not imported is no fault of the data


def test_a_line_that_is_lost_to_a_fault_is_declared_missing():
    """A malformed update is a hole in the ids."""
    lines = timed([snapshot(10, *BOOK), depth(11, 12), depth(13, 14), depth(15, 16)])
    _, tables = take([*lines[:2], lines[2][:-1], lines[3]])
    assert tables["gaps"].select("first_missing", "last_missing").rows() == [(13, 14)]


@pytest.mark.parametrize("every", [1, 2, 10**9])
def test_a_clock_that_steps_back_is_never_rewritten_only_sorted_in_and_said(every):
    """The same rows however the input is cut into batches."""
    times = [0, 10, 5, 6, 20, 19]
    lines = [line(ns * NS_PER_S, trade(i)) for i, ns in enumerate(times, 1)]
    ingest, tables = take(lines, every=every)
    assert tables["trades"]["recv_ns"].to_list() == [START_NS + ns * NS_PER_S for ns in sorted(times)]
    assert tables["trades"]["recv_seq"].to_list() == [1, 3, 4, 2, 6, 5]
    assert kinds(tables).count("clock_step") == 2
    assert ingest.findings.reasons() == {DAY: ["the clock stepped back: 2"]}


def test_a_clock_that_steps_back_too_far_stops_the_import_naming_the_line():
    """More than the rows that are held back; files in the wrong order look like that."""
    ingest = start()
    ingest.feed("a.raw", 1, line(HOLD_NS + 1, trade(1)))
    with pytest.raises(DataError, match=r"b\.raw, line 1: .*60\.000 s before") as caught:
        ingest.feed("b.raw", 1, line(0, trade(2)))
    assert "in the order of recording" in caught.value.remedy


@pytest.mark.parametrize(
    ("message", "text", "flag"),
    [
        (trade(1, price="100.005"), "price 100.005", "--tick-size"),
        (trade(1, qty="0.000001"), "qty 1e-06", "--lot-size"),
        (depth(1, 2, [("99.001", "1")]), "price 99.001", "--tick-size"),
        (depth(1, 2, [], [("99.001", "0")]), "price 99.001", "--tick-size"),
        (ticker(1, "99.001"), "bid_px 99.001", "--tick-size"),
        (snapshot(1, [("99.001", "1")]), "price 99.001", "--tick-size"),
    ],
)
def test_a_decimal_off_the_grid_stops_the_import_naming_value_line_and_flag(message, text, flag):
    """Nothing has been given out then."""
    ingest = start()
    ingest.feed("a.raw", 1, line(0, trade(0)))
    ingest.feed("b.raw", 1, line(0, ticker(5)))
    ingest.feed("b.raw", 2, line(0, message))
    with pytest.raises(DataError) as caught:
        list(ingest.drain())
    assert f"b.raw, line 2: {text} is not a multiple" in caught.value.message
    assert flag in caught.value.remedy


def test_an_odd_quantity_resting_in_the_book_is_kept_as_it_is():
    """Orders older than the last change of the lot size (the real recording has them)."""
    _, tables = take(timed([snapshot(10, *BOOK), depth(11, 12, [("90.00", "25.426189")])]))
    assert 25.426189 in tables["diffs"]["qty"].to_list()


def test_another_symbol_stops_the_import_naming_the_flag():
    """Every message but the snapshot carries its symbol."""
    for message in (trade(1, s="ETHUSDT"), depth(1, 2, s="ETHUSDT"), ticker(1, s="ETHUSDT")):
        with pytest.raises(DataError, match=r"a\.raw, line 7: the message is about ETHUSDT") as caught:
            start().feed("a.raw", 7, line(0, message))
        assert "--symbol ETHUSDT" in caught.value.remedy


def test_diffs_hold_every_level_and_one_row_for_an_update_that_changes_none():
    """A price named twice keeps its last quantity, as in the book."""
    twice = depth(11, 12, [("99.00", "1.0"), ("98.00", "2.0"), ("99.00", "3.0")], [("101.00", "0")], pu=10)
    _, tables = take(timed([twice, depth(13, 14, pu=12)]), start(usdm=True))
    assert tables["diffs"].select("side", "price", "qty", "prev_id").rows() == [
        (1, 99.0, 3.0, 10), (1, 98.0, 2.0, 10), (-1, 101.0, 0.0, 10), (0, None, None, 12),
    ]  # fmt: skip


def test_prints_and_tickers_carry_the_venues_times_and_the_takers_side():
    """m says that the buyer was the maker."""
    ms, us = 1_735_689_600_123, 1_735_689_600_123_456
    _, tables = take(timed([trade(1, E=ms, T=us, m=False), trade(2), ticker(3), ticker(4, E=ms)]))
    assert tables["trades"]["taker"].to_list() == [1, -1]
    assert tables["trades"].select("exch_ns", "trade_ns").row(0) == (ms * 10**6, us * 10**3)
    assert tables["book_ticker"]["exch_ns"].to_list() == [None, ms * 10**6]


def test_a_run_without_a_readable_line_is_an_error():
    """There is no run then."""
    ingest = start()
    ingest.feed("a.raw", 1, b"nothing")
    assert list(ingest.drain()) == []
    with pytest.raises(DataError, match="none of 1 lines"):
        ingest.finish()


def test_every_stretch_of_missed_updates_is_declared_also_while_there_is_no_book():
    """Two holes before the next snapshot, one of which it has no need of: two rows, each with its ids."""
    messages = [snapshot(10, *BOOK), depth(11, 12), depth(15, 16), depth(20, 21), snapshot(30, *BOOK), depth(31, 32)]
    _, tables = take(timed(messages))
    assert tables["gaps"].select("first_missing", "last_missing").rows() == [(13, 14), (17, 19), (22, 30)]
