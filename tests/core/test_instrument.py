"""Prices and quantities cross between decimal text and integers without losing anything."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import TableError, UsageError
from mmlab.core.instrument import OFF_GRID, SLICE, Grid, Instrument, per_price

STEPS = ("1", "0.1", "0.01", "0.00001", "0.00000001", "0.5", "0.25", "0.025", "5", "10", "0.005")


@given(step=st.sampled_from(STEPS), counts=st.lists(st.integers(0, 10**9), min_size=1))
def test_a_price_printed_shortest_is_the_venues_own_text(step, counts):
    """steps -> double -> repr is the exact decimal product, and back again the same steps."""
    grid = Grid.of(step, "tick size")
    prices = grid.to_decimal(np.array(counts, np.int64))
    assert [Decimal(repr(p)) for p in prices.tolist()] == [Decimal(step) * n for n in counts]
    assert grid.to_steps(prices).tolist() == counts


@given(step=st.sampled_from(STEPS), count=st.integers(1, 10**8))
def test_a_price_half_a_step_off_its_grid_is_refused(step, count):
    """A wrong tick size shows at the first price, with the row and the value."""
    off = float(Decimal(step) * count + Decimal(step) / 2)
    with pytest.raises(TableError, match=r"row 1: .* is not a multiple of the tick size"):
        Grid.of(step, "tick size").to_steps(np.array([float(Decimal(step) * count), off]))


def test_a_price_that_is_not_a_number_is_refused():
    """nan never becomes a tick."""
    with pytest.raises(TableError, match="row 0: nan"):
        Grid.of("0.01", "tick size").to_steps(np.array([np.nan]))


def first_off(values: list[float], per_unit: float) -> int | None:
    """The first row off the grid, one value after the other in Python's own numbers."""
    for row, value in enumerate(values):
        exact = value * per_unit
        if not abs(exact) < 2**63 or abs(exact - round(exact)) > OFF_GRID:
            return row
    return None


ODD = (np.nan, np.inf, -np.inf, 1e300, -1e300, 1.7e308, 9.3e16, 0.005, 10.000002, 10.0000005, -0.01, 5e-324, -0.0)


@given(counts=st.lists(st.integers(-(10**9), 10**9), max_size=20), odd=st.lists(st.sampled_from(ODD), max_size=2),
       before=st.sampled_from([0, 1, SLICE - 2, SLICE, 2 * SLICE + 1]))  # fmt: skip
def test_rounding_by_slices_is_rounding_one_by_one(counts, odd, before):
    """The same steps, or the same first row that is refused, wherever a slice ends; and numpy warns of nothing."""
    grid = Grid.of("0.01", "tick size")
    values = [1.0] * before + [n / 100 for n in counts] + list(odd)
    row = first_off(values, grid.per_unit)
    if row is None:
        assert grid.to_steps(np.array(values)).tolist() == [round(value * grid.per_unit) for value in values]
    else:
        with pytest.raises(TableError, match=rf"^row {row}: {re.escape(repr(float(values[row])))} is not"):
            grid.to_steps(np.array(values))


@pytest.mark.parametrize("made", [np.array([1.5, 2.5], np.float32), np.array([1.5, 0.1, 2.5])[::2], np.array([])])
def test_prices_of_any_layout_become_ticks(made):
    """Single precision, every other value of an array, or none at all."""
    ticks = Grid.of("0.5", "tick size").to_steps(made)
    assert (ticks.dtype, ticks.tolist()) == (np.int64, [round(float(price) * 2) for price in made])


@pytest.mark.parametrize("text", ["0", "-0.01", "nan", "inf", "abc", ""])
def test_a_tick_size_that_is_no_positive_decimal_is_refused(text):
    """The message names the size and shows one that is right."""
    with pytest.raises(UsageError, match="tick size") as caught:
        Instrument("binance-spot", "BTCUSDT", text, "0.00001")
    assert "0.01" in caught.value.remedy


def test_k_per_tick_becomes_k_per_price_by_dividing_by_the_tick():
    """At a tick of 0.01, a decay of 0.25 a tick is 25 a unit of price: lambda is the same either way."""
    assert per_price(0.25, 0.01) == 25.0
    assert np.exp(-0.25 * 8) == pytest.approx(np.exp(-per_price(0.25, 0.01) * 8 * 0.01))
