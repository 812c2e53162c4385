"""The quick way of a sweep: to the last bit the metrics of the plain backtest's tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.ledger import Account
from mmlab.flows import quick
from mmlab.flows.quick import quick_metrics
from mmlab.flows.sweep import one
from mmlab.report import metrics as figures
from mmlab.report.exact import Trades, dot
from mmlab.report.metrics import metrics
from mmlab.report.over_time import Positions
from mmlab.sim import fast
from mmlab.sim.events import Tape
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Market, Print
from reference.markets import MS, SCHEDULES, START, busy, cases, instrument, intensity, still, tape

EVERY = (1, 40, 100, 250)


def calm(seed: int, n: int = 500) -> Market:
    """A book that mostly stays where it is while its quantities change, and trades at its touch, beyond and inside."""
    rng = np.random.default_rng(seed)
    ns, mid, frames, prints = START, 10_000, [], []
    for seq in range(n):
        ns += int(rng.choice([0, 3, 20, 100, 100, 100, 900])) * MS
        if rng.random() < 0.6 or seq == 0:
            mid += int(rng.integers(-2, 3)) if rng.random() < 0.08 else 0
            epoch = 1 + int(rng.integers(2)) * (seq // 150)
            frames.append(Frame(ns, seq, epoch, mid - 1, int(rng.integers(9)), mid + 1, int(rng.integers(9))))
        else:
            prints.append(Print(ns, seq, mid + int(rng.choice([-3, -2, -1, 1, 2, 3])), int(rng.integers(1, 9))))
    return Market(frames, prints, segments=SCHEDULES[seed % len(SCHEDULES)])


@st.composite
def quotes(draw) -> QuoteSpec:
    some = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    model = some("avellaneda_stoikov", "avellaneda_stoikov", "glft", "fixed_spread", "inventory_skew", "microprice")
    return QuoteSpec(
        model, some(0.0, 1.0, 2.5), some(0.1, 2.0), some(None, 0.02), some(2, 4), some(0.5, 3.0), some(None, 0.3),
        some(None, 2.0), levels=some(1, 1, 3), skew_ticks=some(0.0, 0.4), horizon=some("rolling", "rolling", "session"),
        sigma_method=some("rolling", "ewma"), sigma_halflife_s=2.0,
    )  # fmt: skip


@st.composite
def specs(draw) -> BacktestSpec:
    """Everything that a sweep may ask for, on a grid of 0.01 and 0.001."""
    some = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    model = some("trade_cross", "trade_cross", "trade_cross", "price_cross", "poisson", "hybrid")
    reach = some("touch", "through", "queue") if model in ("trade_cross", "hybrid") else "touch"
    account = some("margin", "margin", "spot")
    return BacktestSpec(
        draw(quotes()),
        FillSpec(model, reach, some(0, 7), queue_cancels=some("behind", "proportional")),
        qty=some(0.001, 0.005, 0.02),
        initial_cash=some(0.0, 1.5, 1000.0),
        initial_inventory=some(0.0, 0.013),
        max_inventory=some(None, 0.03),
        account=account,
        entry_latency_ms=some(0, 10, 120),
        cancel_latency_ms=some(0, 10, 300),
        requote_interval_ms=some(*EVERY),
        ttl_ms=some(0, 0, 0, 400),
        maker_fee=some(0.0, 0.001, -0.00025),
        post_only=some(True, True, False),
        response_latency_ms=some(0, 10, 150),
        latency_jitter=some("none", "none", "exponential:5"),
        feed_latency=some("0", "0", "7"),
        min_move_ticks=some(1, 1, 3),
        orders_per_10s=some(0, 0, 6),
        leverage=some(0.0, 2.0) if account == "margin" else 0.0,
        size_to_balance=account == "spot" and some(True, False),
    )


def plain(walked: Tape, spec: BacktestSpec, rates: Intensity) -> pl.DataFrame:
    """The metrics of the tables."""
    found = run(walked, spec, rates)
    return metrics(found.orders, found.fills, found.state, walked.instrument)


def assert_quick_is_right(market: Market, spec: BacktestSpec) -> None:
    walked = tape(market)
    expected = plain(walked, spec, intensity(market))
    found = quick_metrics(walked, spec, intensity(market))
    assert found is not None, "it gave up"
    assert found.equals(expected), [(a, b) for a, b in zip(expected.rows(), found.rows(), strict=True) if a != b]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), spec=specs())
def test_the_figures_are_the_plain_ones_where_most_frames_change_nothing(seed, spec):
    assert_quick_is_right(calm(seed, 60 + seed % 200), spec)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), spec=specs())
def test_the_figures_are_the_plain_ones_on_a_busy_market(seed, spec):
    assert_quick_is_right(busy(seed, 40 + seed % 100), spec)


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_the_figures_are_the_plain_ones_on_any_tape(case):
    market, spec = case
    assert_quick_is_right(market, spec)


LOOP = BacktestSpec(
    QuoteSpec(gamma=0.5, sigma=0.02, k=0.3), FillSpec("trade_cross", "queue"), qty=0.005, account="margin",
    entry_latency_ms=10, cancel_latency_ms=10, response_latency_ms=10, requote_interval_ms=100,
)  # fmt: skip


def test_a_still_book_is_passed_over():
    """It is the point of it all: one decision, and then nothing but frames that change nothing; still equal."""
    assert_quick_is_right(still(300), LOOP)
    assert_quick_is_right(still(300), replace(LOOP, quote=replace(LOOP.quote, sigma=None, sigma_window_s=4)))


@pytest.mark.parametrize("seed", range(3))
def test_small_buffers_and_threads_change_nothing(seed):
    market = calm(seed, 3_000)
    walked, rates = tape(market), intensity(market)
    whole, small = fast.sums(walked, LOOP, rates), fast.sums(walked, LOOP, rates, rows=1)
    assert whole is not None
    assert small is not None
    assert whole.fills.size
    assert np.array_equal(whole.fills, small.fills)
    assert replace(whole, fills=None, looks=None) == replace(small, fills=None, looks=None)
    specs = [replace(LOOP, quote=replace(LOOP.quote, gamma=0.1 * i)) for i in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda spec: one(walked, spec, rates), specs))
    for spec, found in zip(specs, together, strict=True):
        assert found.equals(one(walked, spec, rates))


def test_what_the_plain_run_refuses_is_refused():
    market = calm(1)
    with pytest.raises(UsageError, match="less than a lot"):
        one(tape(market), replace(LOOP, qty=0.0001), intensity(market))


def test_numbers_that_decimals_do_not_tell_apart_are_left_to_the_plain_run(monkeypatch):
    """An account so rich that its value is no exact double any more is still equal; what is beyond that is given up."""
    market = replace(calm(2), tick="0.00000001", lot="1")
    walked, rates = tape(market), intensity(market)
    rich = replace(LOOP, quote=QuoteSpec("fixed_spread", 1.0), qty=5.0, initial_cash=3e9, initial_inventory=2.0**40)
    vast = replace(rich, initial_inventory=2.0**46, initial_cash=0.0)
    for spec in (rich, vast):
        expected = plain(walked, spec, rates)
        assert expected.filter(metric="fills")["value"][0] > 0
        assert one(walked, spec, rates).equals(expected)
    monkeypatch.setattr(quick, "TOLD_APART", 2)
    assert quick_metrics(walked, rich, rates) is None
    assert one(walked, rich, rates).equals(plain(walked, rich, rates))


amounts = st.tuples(st.sampled_from([-1, 1]), st.integers(1, 10**6), st.integers(1, 10**4), st.integers(-99, 99))


@settings(max_examples=35, deadline=None)
@given(rows=st.lists(amounts, max_size=30), lots=st.integers(-(10**5), 10**5), mid2=st.integers(1, 10**6))
def test_the_compiled_account_is_the_ledgers(rows, lots, mid2):
    side, ticks, size, fee = np.array(rows, np.int64).reshape(-1, 4).T
    trades = Trades(side, side, ticks, size, ticks, fee, side > 0)
    start = Account(lots=lots, cost=lots * mid2 * 1000)
    made = figures.fold(trades, start, instrument(calm(0, 2)))
    slow = figures.fold_slowly(trades, start, 1000)
    assert (made.lots, made.cost, made.realised, made.fees) == (slow.lots, slow.cost, slow.realised, slow.fees)


whole = st.integers(-(2**62), 2**62)


@settings(max_examples=35, deadline=None)
@given(pairs=st.lists(st.tuples(whole, whole), max_size=9), bits=st.tuples(st.integers(0, 62), st.integers(0, 62)))
def test_sums_of_products_are_exact(pairs, bits):
    a, b = ([pair[i] >> (62 - bits[i]) for pair in pairs] for i in (0, 1))
    assert dot(np.array(a, np.int64), np.array(b, np.int64)) == sum(x * y for x, y in zip(a, b, strict=True))


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 5), st.integers(-9, 9)), min_size=1), far=st.sampled_from([1, 10**7]))
def test_time_at_each_position(rows, far):
    """Counted in a table or sorted; slow twin: a dictionary."""
    waits, lots = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    found = Positions.since(np.cumsum(waits) - waits, lots * far, int(waits.sum()), instrument(calm(0, 2)))
    twin: dict[int, int] = {}
    for wait, lot in zip(waits.tolist(), (lots * far).tolist(), strict=True):
        twin[lot] = twin.get(lot, 0) + wait
    assert dict(zip(found.lots.tolist(), found.ns.tolist(), strict=True)) == {
        lot: ns for lot, ns in sorted(twin.items()) if ns
    }
