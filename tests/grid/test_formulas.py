"""The formulas by themselves: the document's examples, and the same numbers as the compiled engine's."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.grid import formulas as f
from mmlab.grid import guards, levels

prices = st.floats(1e-6, 1e6)


def test_the_documents_examples():
    assert f.dynamic_spacing(500, 1.0, 0.005, 50_000) == 500
    assert f.dynamic_spacing(100, 1.0, 0.005, 50_000) == 250
    assert f.reservation_price(50_000, 0.3, 0.5, 0.002) == pytest.approx(49_997.12, abs=1e-9)
    assert f.margin_tier(100_000) == (0.005, 50)
    assert f.liquidation_price(50_000, 0.1, 1_000, 1) == pytest.approx(40_160.64, abs=0.005)
    assert f.liquidation_price(50_000, 0.1, 1_000, -1) == pytest.approx(59_760.96, abs=0.005)
    assert not f.exceeds_var(50_000, 0.002, 0.15, 10_000)
    assert f.exceeds_var(50_000, 0.02, 0.15, 10_000)


def test_the_optimal_spread_is_the_papers_in_returns():
    """eq. 30 with k = kappa / sigma; and for a small gamma 2 sigma / kappa + gamma sigma^2 T."""
    sigma, gamma, kappa, horizon = 0.002, 0.5, 1.5, 96.0
    paper = gamma * sigma**2 * horizon + 2 / gamma * math.log(1 + gamma / (kappa / sigma))
    assert f.optimal_spread(sigma, gamma, kappa, horizon) == pytest.approx(paper, rel=1e-12)
    assert f.optimal_spread(sigma, 1e-7, kappa) == pytest.approx(2 * sigma / kappa, rel=1e-5)
    assert f.optimal_spread(sigma, gamma, 0.5) > f.optimal_spread(sigma, gamma, 3.0)


def test_a_skewed_grid_leans_against_the_inventory():
    buy, sell, anchor = f.skewed_grid(50_000, 0.3, 0.5, 0.002, 1.5)
    assert buy == sell == pytest.approx(50_000 * f.optimal_spread(0.002, 0.5, 1.5))
    assert anchor < 50_000 < f.skewed_grid(50_000, -0.3, 0.5, 0.002, 1.5)[2]


@given(entry=st.floats(1.0, 1e5), size=st.floats(1e-3, 1e3), share=st.floats(0.01, 0.9), side=st.sampled_from([1, -1]))
def test_at_the_liquidation_price_the_margin_is_used_up(entry, size, share, side):
    wallet = entry * size * share
    price = f.liquidation_price(entry, size, wallet, side)
    if price > 0:
        left = wallet + side * (price - entry) * size
        assert left == pytest.approx(f.maintenance_margin(price * size), rel=1e-3, abs=1e-6 * entry * size)


def test_maintenance_margin_has_no_jumps():
    for most in guards.TIERS[:-1, 0]:
        assert f.maintenance_margin(most) == pytest.approx(f.maintenance_margin(np.nextafter(most, np.inf)))


@given(price=prices)
def test_the_engine_moves_levels_as_the_formula_does(price):
    moved = f.off_round_number(price)
    assert moved == levels.off_round_number.py_func(price)
    assert abs(moved - price) <= 0.0015 * 1.001 * price * 1.001


def test_round_numbers_are_kept_off_at_any_price():
    assert f.off_round_number(60_010.0) == pytest.approx(60_010 + 90)
    assert f.off_round_number(59_990.0) == pytest.approx(59_990 - 90)
    assert f.off_round_number(0.09999) == pytest.approx(0.09999 - 0.00015)
    assert f.off_round_number(63_000.0) == 63_000.0


@given(anchor=st.floats(0.01, 1e5), share=st.floats(0.0005, 0.1), count=st.integers(1, 30))
def test_levels_lie_apart_and_outward(anchor, share, count):
    for mode in ("geometric", "arithmetic"):
        buys, sells = f.grid_levels(anchor, anchor * share, anchor * share, count, mode)
        assert all(a < b for a, b in pairwise(sells))
        assert all(a > b for a, b in pairwise(buys))
        assert all(price > 0 for price in buys)
        if share > 0.003:
            assert len(sells) == count
            assert sells[0] > anchor > buys[0]


def test_wrong_input_is_refused():
    for call in (
        lambda: f.grid_levels(1.0, 0.1, 0.1, 3, "round"),
        lambda: f.liquidation_price(1.0, 0.0, 1.0, 1),
        lambda: f.liquidation_price(1.0, 1.0, 1.0, 0),
        lambda: f.margin_tier(math.nan),
    ):
        with pytest.raises(UsageError):
            call()
