"""Candles from trades equal a plain loop over them, are made only where nothing is missing, and add up exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import TableError, UsageError
from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_MIN
from mmlab.tape.bars import cut_bars, from_trades, holes, resample, settlement_holes, spans_by_ids

MINUTE = NS_PER_MIN
HOUR = 60 * MINUTE
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SCHEMA = {"trade_ns": pl.Int64, "trade_id": pl.Int64, "price": pl.Float64, "qty": pl.Float64, "taker": pl.Int8}
EVER = [(0, 2**62)]


def trades(*rows: tuple[int, int, float, float, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


# steps in time (often none, sometimes bars long), jumps of the id, price in ticks, quantity in 1e-5, taker
step = st.tuples(
    st.sampled_from([0, 0, 1, 17, MINUTE // 3, MINUTE, 5 * MINUTE]),
    st.sampled_from([1, 1, 1, 1, 1, 1, 2, 9]),
    st.integers(1, 99_999),
    st.integers(1, 10**9),
    st.sampled_from([1, -1]),
)


@st.composite
def tapes(draw) -> pl.DataFrame:
    at, number, rows = 1000 * MINUTE + draw(st.integers(0, MINUTE)), draw(st.sampled_from([0, 1, 2, 500])), []
    for wait, jump, ticks, lots, taker in draw(st.lists(step, max_size=60)):
        at += wait
        rows.append((at, number, ticks / 100, lots / 100_000, taker))
        number += jump
    return trades(*rows)


def slow_spans(tape: pl.DataFrame) -> list[tuple[int, int]]:
    """Run by run: after the first instant, before the last, unless nothing can have been before."""
    runs, rows = [], tape.select("trade_id", "trade_ns").rows()
    for i, (number, at) in enumerate(rows):
        if i and number == rows[i - 1][0] + 1:
            runs[-1].append((number, at))
        else:
            runs.append([(number, at)])
    spans = [(0 if run is runs[0] and run[0][0] <= 1 else run[0][1] + 1, run[-1][1]) for run in runs]
    return [(a, b) for a, b in spans if a < b]


def slow_bars(tape: pl.DataFrame, interval: int, spans: list[tuple[int, int]]) -> list[tuple]:
    """Minute by minute, in exact fractions."""
    rows = tape.rows(named=True)
    if not rows:
        return []
    found, first, last = [], rows[0]["trade_ns"] // interval, rows[-1]["trade_ns"] // interval
    for bar in range(first, last + 1):
        start, end = bar * interval, (bar + 1) * interval
        if not any(a <= start and end <= b for a, b in spans):
            continue
        own = [r for r in rows if start <= r["trade_ns"] < end]
        before = [r["price"] for r in rows if r["trade_ns"] < start]
        if not own and not before:
            continue
        prices = [r["price"] for r in own] or [before[-1]]
        lots = [(round(Fraction(r["qty"]) * 100_000), r["taker"]) for r in own]
        volume = float(Fraction(sum(n for n, _ in lots), 100_000))
        bought = float(Fraction(sum(n for n, taker in lots if taker == 1), 100_000))
        found.append((start, prices[0], max(prices), min(prices), prices[-1], volume, bought, len(own)))
    return found


@given(tape=tapes(), interval=st.sampled_from([MINUTE, 5 * MINUTE]))
def test_candles_equal_the_plain_loop(tape, interval):
    spans = spans_by_ids(tape)
    assert spans == slow_spans(tape)
    made = BARS.check(from_trades(tape, interval, spans))
    assert made.rows() == slow_bars(tape, interval, spans)
    traded = {at // interval * interval for at in tape["trade_ns"]}
    assert cut_bars(tape, interval, spans) == sorted(traded - set(made["open_ns"]))


@given(tape=tapes(), drop=st.sets(st.integers(0, 59), max_size=4))
def test_a_trade_that_is_missing_never_makes_another_candle(tape, drop):
    """With trades taken out, each candle that is still made is the one that all of them make."""
    tape = tape.with_columns(trade_id=pl.int_range(7, 7 + pl.len(), dtype=pl.Int64))
    kept = tape.with_row_index("n").filter(~pl.col("n").is_in(list(drop))).drop("n")
    whole = from_trades(tape, MINUTE, EVER)
    made = from_trades(kept, MINUTE, spans_by_ids(kept))
    assert made.join(whole, on=BARS.schema.names(), how="anti", nulls_equal=True).is_empty()


def test_a_minute_without_trades_stays_at_the_price_before():
    """As the venue's own: open, high, low and close alike, nothing traded."""
    tape = trades((0, 5, 10.0, 1.0, 1), (MINUTE + 5, 6, 11.0, 2.0, -1), (4 * MINUTE, 7, 12.0, 1.0, 1))
    assert from_trades(tape, MINUTE, spans_by_ids(tape)).rows() == [
        (MINUTE, 11.0, 11.0, 11.0, 11.0, 2.0, 0.0, 1),
        (2 * MINUTE, 11.0, 11.0, 11.0, 11.0, 0.0, 0.0, 0),
        (3 * MINUTE, 11.0, 11.0, 11.0, 11.0, 0.0, 0.0, 0),
    ]
    assert cut_bars(tape, MINUTE, spans_by_ids(tape)) == [0, 4 * MINUTE]


def test_the_first_trade_ever_makes_a_whole_candle():
    """Nothing was before id 1; before any other there may have been something."""
    tape = trades((30, 1, 10.0, 1.0, 1), (MINUTE, 2, 11.0, 1.0, 1))
    assert from_trades(tape, MINUTE, spans_by_ids(tape))["open_ns"].to_list() == [0]
    later = tape.with_columns(pl.col("trade_id") + 1)
    assert from_trades(later, MINUTE, spans_by_ids(later)).is_empty()


def test_ids_that_were_set_back_are_no_proof():
    """A run that goes on by number, but back in time, is two."""
    tape = trades((2 * MINUTE, 5, 1.0, 1.0, 1), (9 * MINUTE, 6, 1.0, 1.0, 1), (0, 7, 1.0, 1.0, 1))
    assert spans_by_ids(tape) == [(2 * MINUTE + 1, 9 * MINUTE)]


def test_volumes_are_the_doubles_nearest_to_the_decimal_sum():
    """Ten times 0.1 is 1, however many digits the columns have; what has no few decimals is added as it stands."""
    tenth = trades(*((i, i, 1.0, 0.1, 1) for i in range(10)))
    assert from_trades(tenth, MINUTE, EVER)["volume"].to_list() == [1.0]
    many = trades(*((i, i, 1.0, math.pi, 1) for i in range(3)))
    assert from_trades(many, MINUTE, EVER)["volume"].to_list() == [pytest.approx(3 * math.pi)]
    huge = trades(*((i, i, 1.0, 9e15, 1) for i in range(3)))
    assert from_trades(huge, MINUTE, EVER)["volume"].to_list() == [2.7e16]


def bars(*minutes: int, length: int = MINUTE) -> pl.DataFrame:
    rows = [(m * length, 10.0 + m, 20.0 + m, 5.0 + m, 11.0 + m, m / 10, m / 20, m) for m in minutes]
    return pl.DataFrame(rows, schema=BARS.schema, orient="row")


@given(minutes=st.sets(st.integers(0, 60)), k=st.sampled_from([2, 5, 15]))
def test_longer_candles_are_made_of_whole_blocks_only(minutes, k):
    """The slow twin takes each block of the clock and looks whether all of it is there."""
    short = bars(*sorted(minutes))
    expected = []
    for block in range(0, 61, k):
        own = range(block, block + k)
        if set(own) <= minutes:
            expected.append((
                block * MINUTE, 10.0 + block, 20.0 + own[-1], 5.0 + block, 11.0 + own[-1],
                sum(own) / 10, sum(own) / 20, sum(own),
            ))  # fmt: skip
    assert BARS.check(resample(short, k * MINUTE, MINUTE)).rows() == expected


def test_trades_make_the_same_long_candles_as_short_ones_do():
    """Two ways to five minutes."""
    tape = trades(*((i * 7_000_000_000, i, 100 + (i * i % 37) / 10, (i % 13) / 1000, (-1) ** i) for i in range(300)))
    short = from_trades(tape, MINUTE, EVER)
    long = from_trades(tape, 5 * MINUTE, EVER)
    assert long.filter(pl.col("open_ns") < 30 * MINUTE).height == 6
    assert resample(short, 5 * MINUTE).equals(
        long.filter(pl.col("open_ns").is_in(resample(short, 5 * MINUTE)["open_ns"].implode()))
    )


def test_what_is_not_known_of_one_candle_is_not_known_of_the_long_one():
    short = bars(*range(10)).with_columns(n_trades=pl.when(pl.col("open_ns") != 7 * MINUTE).then("n_trades"))
    assert resample(short, 5 * MINUTE)["n_trades"].to_list() == [10, None]
    assert resample(short.with_columns(buy_volume=pl.lit(None, pl.Float64)), 5 * MINUTE)["buy_volume"].null_count() == 2


def test_candles_that_cannot_be_resampled_are_refused():
    with pytest.raises(UsageError, match="do not make"):
        resample(bars(0, 1, length=15 * MINUTE), 20 * MINUTE)
    with pytest.raises(UsageError, match="do not make"):
        resample(bars(0, 1, length=15 * MINUTE), MINUTE)
    with pytest.raises(TableError, match="do not start at a multiple of 1m"):
        resample(bars(0, 1).with_columns(pl.col("open_ns") + 5), 15 * MINUTE)
    assert resample(BARS.empty(), 15 * MINUTE).equals(BARS.empty())


@given(minutes=st.sets(st.integers(0, 40)))
def test_holes_are_the_minutes_that_are_not_there(minutes):
    found = holes(bars(*sorted(minutes)), MINUTE)
    lacking = [m * MINUTE for a, b, n in found for m in range(a // MINUTE, b // MINUTE)]
    assert lacking == [m * MINUTE for m in range(min(minutes, default=0), max(minutes, default=0)) if m not in minutes]
    assert [(b - a) // MINUTE for a, b, _ in found] == [n for _, _, n in found]
    assert all(b // MINUTE in minutes for _, b, _ in found)


def settled(*hours: float) -> pl.DataFrame:
    return pl.DataFrame({"ts_ns": [int(h * HOUR) for h in hours], "rate": [0.0] * len(hours)})


@pytest.mark.parametrize(
    ("hours", "missing"),
    [
        ((), []),
        ((0,), []),
        ((0, 8, 16, 24), []),
        ((0, 8, 24), [(16, 24, 1)]),
        ((0, 8, 48, 56), [(16, 48, 4)]),
        ((0, 24), [(8, 24, 2)]),
        ((0, 8, 16, 20, 24, 28), []),  # from every 8 hours to every 4
        ((0, 4, 8, 16, 24), []),  # and back
        ((0, 4, 8, 16, 20), [(12, 16, 1)]),  # one of every 4 hours
        ((0, 1, 2, 5, 6), [(3, 5, 2)]),
    ],
)
def test_settlements_that_are_missing_show_by_their_distance(hours, missing):
    assert settlement_holes(settled(*hours)) == [(a * HOUR, b * HOUR, n) for a, b, n in missing]


@pytest.mark.skipif(not (DATA / "BTCUSDT_usdm_1m.parquet").exists(), reason=f"the real candles are not in {DATA}")
def test_real_minutes_make_the_real_quarters_exactly():
    """A month of BTCUSDT: every price and every volume, bit for bit."""
    short, long = (
        BARS.conform(pl.read_parquet(DATA / f"BTCUSDT_usdm_{n}.parquet").select(
            (pl.col("timestamp") * 1_000_000).alias("open_ns"), "open", "high", "low", "close", "volume",
            pl.lit(None).alias("buy_volume"), pl.lit(None).alias("n_trades"),
        ))
        for n in ("1m", "15m")
    )  # fmt: skip
    made = resample(short, 15 * MINUTE)
    assert made.height == 2879
    assert made.equals(long.filter(pl.col("open_ns").is_between(made["open_ns"][0], made["open_ns"][-1])))
    assert holes(short, MINUTE) == holes(long, 15 * MINUTE) == []
