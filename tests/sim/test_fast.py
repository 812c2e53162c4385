"""The quick way of a sweep: to the last bit the metrics of the plain backtest's tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.flows.quick import quick_metrics
from mmlab.flows.sweep import one
from mmlab.report.metrics import metrics
from mmlab.sim import fast
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Market, Print
from reference.markets import CONSTANT, MS, SCHEDULES, START, busy, cases, intensity, still, tape

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


def assert_quick_is_right(market: Market, spec: BacktestSpec) -> None:
    walked = tape(market)
    found = run(walked, spec, intensity(market))
    plain = metrics(found.orders, found.fills, found.state, walked.instrument)
    quick = quick_metrics(walked, spec, intensity(market))
    assert quick is not None, "it gave up"
    assert quick.equals(plain), [pair for pair in zip(plain.rows(), quick.rows(), strict=True) if pair[0] != pair[1]]


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**6), spec=specs())
def test_the_figures_are_the_plain_ones_where_most_frames_change_nothing(seed, spec):
    assert_quick_is_right(calm(seed, 60 + seed % 200), spec)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), spec=specs())
def test_the_figures_are_the_plain_ones_on_a_busy_market(seed, spec):
    assert_quick_is_right(busy(seed, 40 + seed % 100), spec)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_the_figures_are_the_plain_ones_on_any_tape(case):
    market, spec = case
    assert_quick_is_right(market, spec)
