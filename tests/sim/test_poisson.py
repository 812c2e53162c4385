"""Poisson fills come at the rate they should, when there is one, and from numbers anyone can recompute."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from scipy.stats import kstest

from mmlab.core.instrument import Instrument
from mmlab.sim import layout
from mmlab.sim.events import Tape
from mmlab.sim.intensity import FOREVER, Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import splitmix64

START = 1_000_000_000_000
INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.001")


def calm(seconds: int, every_ms: int = 1000) -> Tape:
    """A market that never moves: mid 100.00, touch a tick away."""
    n = seconds * 1000 // every_ms
    ones = np.ones(n, np.int64)
    ns = START + np.arange(n, dtype=np.int64) * every_ms * 1_000_000
    none = np.empty(0, np.int64)
    return Tape(
        INSTRUMENT, ns, np.arange(n), np.zeros(n, np.bool_), 9999 * ones, 100 * ones, 10001 * ones, 100 * ones,
        none, none, none, none,
    )  # fmt: skip


def spec(seed: int = 1, **more) -> BacktestSpec:
    """Quotes 4 ticks out, always one a side, no fees."""
    return BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=4), FillSpec("poisson", seed=seed, **more), initial_cash=1e6,
        initial_inventory=1e3, entry_latency_ms=0, requote_interval_ms=1000, maker_fee=0.0,
    )  # fmt: skip


def test_waiting_times_are_exponential_with_the_rate_of_the_curve():
    """4,000 orders at 4 ticks: Kolmogorov-Smirnov against Exp(A exp(-4k)), and the mean within 4 errors."""
    A, k = 0.3, 0.2
    got = run(calm(40_000), spec(), Intensity.constant(A, k))
    placed = got.orders.filter(got.orders["action"] == "PLACE").select("order_id", "active_recv_ns")
    joined = got.fills.join(placed, on="order_id", maintain_order="left")
    seconds = (joined["recv_ns"] - joined["active_recv_ns"]).to_numpy() / 1e9
    assert seconds.size > 3000
    rate = A * np.exp(-4 * k)
    assert seconds.mean() == pytest.approx(1 / rate, abs=4 / rate / np.sqrt(seconds.size))
    assert kstest(seconds, "expon", args=(0, 1 / rate)).pvalue > 1e-3


def test_the_frame_rate_changes_no_fill():
    """Hazard is integrated over real time: frames every 100 ms or 1 s give the same fill times."""
    fine, coarse = (
        run(calm(600, every), spec(), Intensity.constant(0.3, 0.2)).fills["recv_ns"][0] for every in (100, 1000)
    )
    assert abs(fine - coarse) <= 2  # ns: sums of floats in other pieces


def test_no_intensity_no_fills():
    """Outside the schedule's segments nothing is filled."""
    hole = (START + 100 * 10**9, START + 200 * 10**9)
    schedule = Intensity(
        np.array([START, hole[1]]), np.array([hole[0], FOREVER]), np.array([2.0, 2.0]), np.array([0.1, 0.1])
    )
    times = run(calm(300), spec(), schedule).fills["recv_ns"].to_numpy()
    assert ((times >= hole[0]) & (times < hole[1])).sum() == 0
    assert (times < hole[0]).sum() > 50
    assert (times > hole[1]).sum() > 50


def test_a_book_that_is_too_old_fills_nothing():
    """With frames a minute apart and a book that lives 5 s, fills come within 5 s of a frame."""
    got = run(calm(36_000, 60_000), spec(max_book_age_ms=5_000), Intensity.constant(2.0, 0.1))
    age_s = (got.fills["recv_ns"].to_numpy() - START) % (60 * 10**9) / 1e9
    assert age_s.size > 300
    assert age_s.max() <= 5.0


def test_draws_depend_on_seed_and_order_alone_and_are_uniform():
    """The compiled splitmix64 equals whole-number arithmetic, and 20,000 draws pass for uniform."""
    got = [layout.uniform(3, i) for i in range(1, 20_001)]
    assert got[:500] == [splitmix64(3, i) for i in range(1, 501)]
    assert kstest(got, "uniform").pvalue > 1e-3
    assert len(set(got)) == 20_000
    assert layout.uniform(4, 1) != layout.uniform(3, 1)


def test_another_seed_is_another_run_and_the_same_seed_the_same():
    """Byte for byte."""
    runs = [run(calm(300), spec(seed), Intensity.constant(1.0, 0.1)) for seed in (1, 1, 2)]
    assert runs[0].fills.equals(runs[1].fills)
    assert not runs[0].fills.equals(runs[2].fills)
    assert Decimal(repr(runs[0].state["cash"][-1])) > 0
