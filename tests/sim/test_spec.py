"""Specifications that cannot be meant name their flag; quotes are the paper's; rounding is never a tick off."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument, per_price
from mmlab.sim.events import Tape
from mmlab.sim.intensity import FOREVER, Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec

INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.001")


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: QuoteSpec("magic"), "--quote-model is 'magic'"),
        (lambda: QuoteSpec(gamma=0.0), "--gamma is 0"),
        (lambda: QuoteSpec(sigma=-1.0), "--sigma is -1"),
        (lambda: QuoteSpec(sigma_window_s=1), "--sigma-window-s is 1"),
        (lambda: QuoteSpec(horizon_s=math.inf), "--horizon-s is inf"),
        (lambda: QuoteSpec(k=0.0), "--quote-k is 0"),
        (lambda: QuoteSpec(half_spread_ticks=-1), "--half-spread-ticks is -1"),
        (lambda: FillSpec("magic"), "--fill-model is 'magic'"),
        (lambda: FillSpec(reach="near"), "--fill-reach is 'near'"),
        (lambda: FillSpec(seed=-1), "--seed is -1"),
        (lambda: FillSpec(seed=2**63), "--seed is 9223372036854775808"),
        (lambda: FillSpec(max_book_age_ms=-1), "--max-book-age-ms is -1"),
        (lambda: BacktestSpec(initial_inventory=-1.0), "--initial-inventory is -1"),
        (lambda: BacktestSpec(initial_cash=math.nan, account="margin"), "--initial-cash is nan"),
        (lambda: BacktestSpec(initial_inventory=-math.inf, account="margin"), "--initial-inventory is -inf"),
        (lambda: run(still(), BacktestSpec(initial_cash=1e30), Intensity.none()), "--initial-cash 1e+30 is too large"),
        (
            lambda: run(still(), BacktestSpec(initial_inventory=1e12), Intensity.none()),
            "--initial-inventory 1e+12 is too large",
        ),
        (lambda: BacktestSpec(qty=0.0), "--qty is 0"),
        (lambda: BacktestSpec(account="bank"), "--account is 'bank'"),
        (lambda: BacktestSpec(entry_latency_ms=-1), "--entry-latency-ms is -1"),
        (lambda: BacktestSpec(cancel_latency_ms=-1), "--cancel-latency-ms is -1"),
        (lambda: BacktestSpec(requote_interval_ms=0), "--requote-interval-ms is 0"),
        (lambda: BacktestSpec(ttl_ms=-1), "--ttl-ms is -1"),
        (lambda: BacktestSpec(max_inventory=0.0), "--max-inventory is 0"),
        (lambda: BacktestSpec(initial_cash=-1.0), "--initial-cash is -1"),
        (lambda: BacktestSpec(maker_fee=0.5), "--maker-fee is 0.5"),
        (lambda: BacktestSpec(taker_fee=1e-10), "--taker-fee is 1e-10"),
        (lambda: run(still(), BacktestSpec(qty=0.0001), Intensity.none()), "--qty 0.0001 is less than a lot of 0.001"),
        (lambda: run(still(), BacktestSpec(qty=1e15), Intensity.none()), "--qty 1e+15 is too large"),
    ],
)
def test_a_bad_flag_is_named(make, flag):
    """With a remedy, and exit code 2."""
    with pytest.raises(UsageError) as caught:
        make()
    assert flag in caught.value.message
    assert caught.value.remedy


ENTRY = {"start_ms": 0, "end_ms": 10, "A": 1.0, "k": 0.1}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the schedule is empty"),
        ([{**ENTRY, "k": None}], "schedule entry 0 lacks k"),
        ([{"A": 1.0}], "schedule entry 0 lacks start_ms, end_ms, k"),
        ([ENTRY, {**ENTRY, "start_ms": 5, "end_ms": 20}], "schedule entry 1 overlaps"),
        ([{**ENTRY, "end_ms": 0}], "schedule entry 0 overlaps the one before or ends before it starts"),
        ([{**ENTRY, "A": -1.0}], "schedule entry 0 has A -1.0"),
        ([{**ENTRY, "A": "fast"}], "schedule entry 0 has A fast"),
        ([ENTRY, 7], "schedule entry 1 is 7"),
        ([ENTRY, {**ENTRY, "start_ms": 10, "end_ms": "noon"}], "schedule entry 1 starts or ends"),
        ([{**ENTRY, "end_ms": 10**13}], "schedule entry 0 starts or ends"),
        ([{**ENTRY, "k": float("nan")}], "schedule entry 0 has A 1.0 and k nan"),
    ],
)
def test_a_bad_schedule_entry_is_named(entries, message):
    """By its number."""
    with pytest.raises(DataError) as caught:
        Intensity.scheduled(entries)
    assert message in caught.value.message


def test_a_schedules_coverage_is_a_share_and_none_is_a_fault():
    """Half is half; nothing at all names both spans."""
    schedule = Intensity.scheduled([ENTRY, {**ENTRY, "start_ms": 15, "end_ms": 20}])
    assert schedule.coverage(5_000_000, 25_000_000) == 0.5
    with pytest.raises(DataError, match="covers 0 to 20 ms, none of the data's 30 to 40 ms"):
        schedule.coverage(30_000_000, 40_000_000)


def still(mid2: int = 20_000, half2: int = 2) -> Tape:
    """Two frames of the same book; mid2 in half ticks."""
    two, none = np.ones(2, np.int64), np.empty(0, np.int64)
    bid, ask = (mid2 - half2) // 2, mid2 - (mid2 - half2) // 2
    return Tape(
        INSTRUMENT, np.array([10**9, 2 * 10**9]), np.array([1, 2]), np.zeros(2, np.bool_), bid * two, 9 * two,
        ask * two, 9 * two, none, none, none, none,
    )  # fmt: skip


def placed(tape: Tape, spec: BacktestSpec, intensity: Intensity) -> dict[int, float]:
    """Prices of the first quotes by side."""
    orders = run(tape, spec, intensity).orders
    return dict(orders.filter(orders["action"] == "PLACE").head(2).select("side", "price").iter_rows())


def test_quotes_are_those_of_avellaneda_and_stoikov():
    """Eqs. 29 and 30 by hand: mid 100, tick 0.01, k 0.015 per tick (1.5 per unit), gamma 0.1, sigma 2, tau 0.5, q 3."""
    gamma, sigma, tau, k, q = 0.1, 2.0, 0.5, per_price(0.015, 0.01), 3
    assert k == 1.5
    reservation = 100 - q * gamma * sigma**2 * tau
    half = gamma * sigma**2 * tau / 2 + math.log(1 + gamma / k) / gamma
    spec = BacktestSpec(
        QuoteSpec(gamma=gamma, sigma=sigma, horizon_s=tau), qty=0.001, initial_inventory=0.003, account="margin"
    )
    got = placed(still(half2=1000), spec, Intensity.constant(1.0, 0.015))
    assert got == {1: math.floor((reservation - half) * 100) / 100, -1: math.ceil((reservation + half) * 100) / 100}
    by_flag = placed(still(half2=1000), replace(spec, quote=replace(spec.quote, k=0.015)), Intensity.none())
    assert by_flag == got


@given(mid2=st.integers(1000, 40_000_000), half=st.integers(0, 20))
def test_a_price_on_the_grid_is_not_rounded_a_tick_away(mid2, half):
    """Wherever the mid lies, quotes `half` ticks out are the whole ticks just there or next outward."""
    spec = BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=half), account="margin")
    got = placed(still(mid2, 1000), spec, Intensity.none())
    buy, sell = (mid2 - 2 * half) // 2, -((-mid2 - 2 * half) // 2)
    assert got == {1: buy / 100, -1: sell / 100}


def test_quotes_never_cross_the_touch_they_know():
    """A half spread of nothing joins the touch instead."""
    spec = BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=0.0), account="margin")
    got = placed(still(mid2=20_001, half2=1), spec, Intensity.none())
    assert got == {1: 100.0, -1: 100.01}


def test_a_constant_intensity_holds_at_all_times():
    """From 1970 on."""
    constant = Intensity.constant(1.0, 0.1)
    assert constant.coverage(0, FOREVER) == 1.0
    with pytest.raises(DataError, match="must be above 0"):
        Intensity.constant(0.0, 0.1)


def test_times_and_caps_without_end_are_as_good_as_forever():
    """10**15 ms would not fit in ns; nothing overflows, and the run is that of merely long times."""
    sized = [
        BacktestSpec(
            QuoteSpec("fixed_spread"), FillSpec(max_book_age_ms=ms), max_inventory=most, account="margin",
            cancel_latency_ms=ms, ttl_ms=ms, requote_interval_ms=ms,
        )
        for ms, most in ((10**9, 1.0), (10**15, 1e300))
    ]  # fmt: skip
    long, endless = (run(still(), spec, Intensity.none()) for spec in sized)
    assert long.orders.drop("expire_recv_ns").equals(endless.orders.drop("expire_recv_ns"))
    assert long.state.equals(endless.state)
