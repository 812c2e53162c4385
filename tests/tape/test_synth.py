"""The synthetic market has the (A, k), the print rate and the shape that its spec asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.schemas import EVENTS, TRADES, depth
from mmlab.core.spans import NS_PER_MS, NS_PER_S, day_of_ns
from mmlab.tape.synth import SynthSpec, chunks, events, parse_ak_schedule, truth

SHORT = SynthSpec(hours=0.05, seed=3)


def market(spec: SynthSpec) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All hours of a market in one frame each."""
    books, prints = zip(*chunks(spec), strict=True)
    return pl.concat(books), pl.concat(prints)


def mid_ticks(spec: SynthSpec, book: pl.DataFrame) -> np.ndarray:
    """The mid of every frame in ticks; the touch is one tick away on either side."""
    ticks = spec.instrument.ticks
    bid, ask = (ticks.to_steps(book[f"{side}_px_1"].to_numpy()) for side in ("bid", "ask"))
    np.testing.assert_array_equal(ask - bid, 2)
    return (bid + ask) // 2


def orders(spec: SynthSpec, book: pl.DataFrame, prints: pl.DataFrame) -> pl.DataFrame:
    """The obvious twin: group prints by instant and side, and measure how far each order got from the mid."""
    frame = np.searchsorted(book["recv_ns"].to_numpy(), prints["recv_ns"].to_numpy()) - 1
    price = spec.instrument.ticks.to_steps(prints["price"].to_numpy())
    away = (price - mid_ticks(spec, book)[frame]) * prints["taker"].to_numpy()
    return (
        prints.with_columns(away=away)
        .group_by("recv_ns", "taker")
        .agg(
            pl.col("away").max().alias("reach"),
            (pl.col("away").diff() >= 0).all().alias("outward"),
            pl.len().alias("n"),
            (pl.col("trade_id").max() - pl.col("trade_id").min() + 1).alias("id_span"),
            (pl.col("recv_seq").max() - pl.col("recv_seq").min() + 1).alias("seq_span"),
            pl.col("away").min().alias("nearest"),
            pl.col("trade_ns").n_unique().alias("times"),
        )
        .sort("recv_ns")
    )


def assert_rates(taken: pl.DataFrame, seconds: float, A: float, k: float) -> None:
    """Orders that reach delta are A exp(-k delta) a second and side, within four standard errors."""
    for taker in (1, -1):
        for delta in (1, 2, 3, 5, 8, 13):
            seen = taken.filter((pl.col("taker") == taker) & (pl.col("reach") >= delta)).height
            expected = A * math.exp(-k * delta) * seconds
            assert abs(seen - expected) < 4 * math.sqrt(expected), (taker, delta, seen, expected)


def test_orders_reach_each_distance_at_the_rate_of_the_curve_on_either_side() -> None:
    """Five hours, counted by the obvious twin."""
    spec = SynthSpec(hours=5, seed=1, mid_moves_per_s=2.0)
    taken = orders(spec, *market(spec))
    assert_rates(taken, 5 * 3600, spec.A, spec.k)


def test_print_rate_is_the_one_asked_for() -> None:
    """Both sides together, within four standard errors."""
    spec = SynthSpec(hours=4, seed=2, prints_per_s=12.0)
    _, prints = market(spec)
    per_order = 12.0 / (2 * spec.A * math.exp(-spec.k))
    spread = math.sqrt(12.0 * 4 * 3600 * (per_order + 1))  # a compound Poisson sum: E[n^2] <= mean * (mean + 1)
    assert abs(prints.height - 12.0 * 4 * 3600) < 4 * spread


def test_a_sweep_is_one_instant_of_consecutive_prints_from_the_touch_outward() -> None:
    """One time, consecutive ids and numbers, no step back."""
    taken = orders(SHORT, *market(SHORT))
    assert taken["outward"].all()
    assert (taken["times"] == 1).all()
    assert (taken["nearest"] >= 1).all()
    assert (taken["id_span"] == taken["n"]).all()
    assert (taken["seq_span"] == taken["n"]).all()
    assert (taken["n"] > 1).mean() > 0.5
    assert not taken["recv_ns"].is_duplicated().any()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    frame_ms=st.sampled_from([1, 10, 100, 1_000, 60_000]),
    frames=st.integers(1, 90),
    levels=st.integers(1, 6),
    A=st.floats(0.05, 5),
    k=st.floats(0.01, 3),
)
def test_any_market_keeps_the_contracts(seed: int, frame_ms: int, frames: int, levels: int, A: float, k: float) -> None:
    """Whatever the frame, depth, seed and curve."""
    spec = SynthSpec(
        hours=frames * frame_ms / 3_600_000,
        seed=seed,
        frame_ms=frame_ms,
        levels=levels,
        A=A,
        k=k,
        prints_per_s=4 * A * math.exp(-k),
        mid_moves_per_s=0.5 * min(1000 / frame_ms, 2),
    )
    book, prints = market(spec)
    assert book.height == frames
    _assert_contracts(spec, book, prints)


def test_hours_join_without_a_seam() -> None:
    """Numbers, ids and the mid go on from chunk to chunk, and no chunk crosses a day."""
    spec = SynthSpec(hours=25.5, seed=4, frame_ms=1_000, prints_per_s=3.0)
    parts = list(chunks(spec))
    book, prints = pl.concat(b for b, _ in parts), pl.concat(t for _, t in parts)
    assert len(parts) == 26
    assert book.height == 25.5 * 3600
    _assert_contracts(spec, book, prints)
    jumps = np.unique(np.diff(mid_ticks(spec, book)))
    assert jumps.tolist() == [-2, 0, 2]
    for part in parts:  # a chunk never crosses a UTC day
        days = {day_of_ns(t) for frame in part for t in (frame["recv_ns"][0], frame["recv_ns"][-1])}
        assert len(days) == 1


def _assert_contracts(spec: SynthSpec, book: pl.DataFrame, prints: pl.DataFrame) -> None:
    depth(spec.levels).check(book)
    TRADES.check(prints)
    seq = np.concatenate([book["recv_seq"].to_numpy(), prints["recv_seq"].to_numpy()])
    time = np.concatenate([book["recv_ns"].to_numpy(), prints["recv_ns"].to_numpy()])
    by_seq = np.argsort(seq)
    np.testing.assert_array_equal(seq[by_seq], np.arange(1, seq.size + 1))
    assert (np.diff(time[by_seq]) >= 0).all()
    assert not np.isin(prints["recv_ns"].to_numpy(), book["recv_ns"].to_numpy()).any()
    assert prints["trade_id"].to_list() == list(range(1, prints.height + 1))
    assert book["update_id"].to_list() == list(range(1, book.height + 1))
    assert (time < spec.end_ns).all()
    assert book["recv_ns"][0] == spec.start_ns


def test_prices_are_exact_decimals_of_the_tick() -> None:
    """They print shortest as the venue would write them."""
    spec = replace(SHORT, tick_size="0.1", mid=2000.3)
    book, prints = market(spec)
    assert all(len(repr(p).partition(".")[2]) == 1 for p in prints["price"])
    assert book["bid_px_1"][0] == 2000.2
    assert book["ask_px_5"][0] == 2000.8


def test_mid_does_not_depend_on_book_or_takers() -> None:
    """Its random stream is its own."""
    others = replace(SHORT, levels=9, prints_per_s=20.0, A=2.0, k=0.4)
    scheduled = replace(SHORT, ak_schedule=parse_ak_schedule("0=1/0.25,1=2/0.5"))
    path = mid_ticks(SHORT, market(SHORT)[0])
    assert np.ptp(path) > 0
    for spec in (others, scheduled):
        np.testing.assert_array_equal(mid_ticks(spec, market(spec)[0]), path)


def test_orders_do_not_depend_on_the_number_of_prints() -> None:
    """More prints an order, the same orders."""
    more = replace(SHORT, prints_per_s=30.0)
    few, many = (orders(s, *market(s)).select("recv_ns", "taker", "reach") for s in (SHORT, more))
    assert few.equals(many)


def test_same_seed_same_market_and_another_seed_or_day_another_one() -> None:
    """Seed, day and symbol name a market."""
    first = market(SHORT)
    assert all(a.equals(b) for a, b in zip(first, market(SHORT), strict=True))
    for other in (replace(SHORT, seed=4), replace(SHORT, day=date(2025, 1, 2)), replace(SHORT, symbol="B")):
        assert not first[1]["price"].equals(market(other)[1]["price"])


def test_mid_is_reflected_far_above_zero() -> None:
    """At 100 ticks, and the curve holds even where the bids' depth is bounded."""
    spec = SynthSpec(hours=0.5, mid=1.05, k=0.01, prints_per_s=10.0, mid_moves_per_s=10.0, mid_jump_ticks=3)
    book, prints = market(spec)
    path = mid_ticks(spec, book)
    assert path.min() >= 100
    assert path.min() <= 103
    assert set(np.unique(np.abs(np.diff(path)))) == {3}
    assert prints["price"].min() > 0
    assert_rates(orders(spec, book, prints), 1800, spec.A, spec.k)


def test_each_piece_of_a_schedule_has_its_own_curve_and_the_same_print_rate() -> None:
    """The change comes at the minute that was given."""
    spec = SynthSpec(hours=3, seed=5, ak_schedule=parse_ak_schedule("0=1.5/0.25,90=3/0.4"), prints_per_s=9.0)
    book, prints = market(spec)
    cut = spec.start_ns + 5400 * NS_PER_S
    for A, k, early in ((1.5, 0.25, True), (3.0, 0.4, False)):
        part = prints.filter((pl.col("recv_ns") < cut) == early)
        assert_rates(orders(spec, book, part), 5400, A, k)
        per_order = 9.0 / (2 * A * math.exp(-k))
        assert abs(part.height - 9.0 * 5400) < 4 * math.sqrt(9.0 * 5400 * (per_order + 1))


def test_truth_lists_the_pieces_of_the_span() -> None:
    """With absolute times in ms."""
    spec = SynthSpec(hours=2, ak_schedule=parse_ak_schedule("0=1.5/0.25,60=3/0.4"), prints_per_s=9.0)
    start = spec.start_ns // NS_PER_MS
    assert truth(spec)["pieces"] == [
        {"start_ms": start, "end_ms": start + 3_600_000, "A": 1.5, "k": 0.25},
        {"start_ms": start + 3_600_000, "end_ms": start + 7_200_000, "A": 3.0, "k": 0.4},
    ]
    assert [(p["A"], p["k"]) for p in truth(SHORT)["pieces"]] == [(1.5, 0.25)]


def test_events_tell_of_one_run_in_sync() -> None:
    """The last event belongs to the last day."""
    ledger = EVENTS.check(events(SHORT))
    assert ledger["kind"].to_list() == ["run_start", "sync", "run_stop"]
    assert ledger["epoch_id"].to_list() == [0, 1, 1]
    assert day_of_ns(events(SynthSpec(hours=24))["recv_ns"][-1]) == SynthSpec().day


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"symbol": ""}, "--symbol"),
        ({"seed": -1}, "--seed"),
        ({"levels": 0}, "--levels"),
        ({"tick_size": "x"}, "--tick-size"),
        ({"lot_size": "0"}, "--lot-size"),
        ({"A": 0.0}, "--A is 0"),
        ({"k": math.nan}, "--k is nan"),
        ({"hours": math.inf}, "--hours is inf"),
        ({"hours": 0.00001}, "whole number of frames"),
        ({"frame_ms": 7}, "--frame-ms is 7"),
        ({"frame_ms": 0}, "--frame-ms is 0"),
        ({"mid_jump_ticks": 0}, "--mid-jump-ticks"),
        ({"mid_moves_per_s": 11.0}, "at most once a frame"),
        ({"mid": 1000.005}, "not a multiple of --tick-size"),
        ({"mid": 0.5}, "never falls below"),
        ({"prints_per_s": 2.0}, "every taker order prints at least once"),
        ({"k": 20.0}, "taker orders a second print"),
        ({"k": 2000.0}, "taker orders a second print"),
        ({"ak_schedule": ((60.0, 1.0, 0.2),)}, "starts at minute 1"),
        ({"ak_schedule": ((0.0, 1.0, 0.2), (0.0, 1.0, 0.3))}, "not ascending"),
        ({"ak_schedule": ((0.0, 1.0, 0.2), (7200.0, 1.0, 0.3))}, "minute 120, after the end"),
        ({"ak_schedule": ((0.0, 1.0, 0.2), (0.05, 1.0, 0.3))}, "not a multiple of --frame-ms"),
        ({"ak_schedule": ((0.0, -1.0, 0.2),)}, "A at minute 0"),
    ],
)
def test_a_spec_that_cannot_be_meant_names_its_flag(change: dict[str, object], said: str) -> None:
    """With a remedy."""
    with pytest.raises(UsageError, match=said) as caught:
        SynthSpec(**change)  # type: ignore[arg-type]
    assert caught.value.remedy


def test_too_few_prints_say_the_least_that_is_possible() -> None:
    """And that many is enough."""
    with pytest.raises(UsageError) as caught:
        SynthSpec(prints_per_s=2.0)
    assert "at least 2.337" in caught.value.remedy
    assert SynthSpec(prints_per_s=2.337)


@pytest.mark.parametrize("text", ["", "1.5/0.25", "0=1.5", "0=a/b", "0=1/2/3"])
def test_a_torn_schedule_says_how_to_write_one(text: str) -> None:
    """Naming the flag."""
    with pytest.raises(UsageError, match="--ak-schedule is"):
        parse_ak_schedule(text)


def test_schedule_text_gives_minutes_and_pieces_seconds() -> None:
    """Minute 60 is second 3,600."""
    assert parse_ak_schedule("0=1.5/0.25,60=3/0.4") == ((0.0, 1.5, 0.25), (3600.0, 3.0, 0.4))
