"""Figures over time against twins that look at every second, and sums against Python's own integers."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import TableError
from mmlab.core.instrument import Grid, Instrument
from mmlab.core.schemas import STATE
from mmlab.report import over_time
from mmlab.report.exact import dot, total, whole

INSTRUMENT = Instrument("v", "S", "0.01", "0.001")
S = 1_000_000_000
rows = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 7, 60, 61, 200]),  # seconds since the row before
        st.integers(-5, 5),  # lots
        st.integers(-4, 4),  # change of value, half a quantum each
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


def table(rows) -> pl.DataFrame:
    """Values near 1,000, on half quanta."""
    at, half, made = 0, 2 * 10**11, []
    for wait, lots, change, bid, ask in rows:
        at, half = at + wait, half + change
        value = half / (2 * 10**8)
        made.append((7 + at * S, lots / 1000, 0.0, 1.0, value, 0, 1.0 if bid else None, 2.0 if ask else None))
    return STATE.check(pl.DataFrame(made, schema=STATE.schema, orient="row"))


def seconds(rows) -> list[int]:
    """Which row was in force in each second."""
    ends = [*np.cumsum([row[0] for row in rows])[1:], None]
    starts = np.cumsum([row[0] for row in rows])
    return [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if end for _ in range(start, end)]


@given(rows)
def test_shares_of_time_are_counted_seconds(rows):
    found, each = over_time.quoted(table(rows)), seconds(rows)
    for name, holds in (("bid", lambda r: r[3]), ("ask", lambda r: r[4]), ("both", lambda r: r[3] and r[4])):
        assert found[name] == (sum(holds(rows[i]) for i in each) / len(each) if each else None)


@given(rows)
def test_positions_are_weighted_by_seconds(rows):
    """Python's own statistics over one position a second."""
    found, held = over_time.Positions.of(table(rows), INSTRUMENT).figures(), [rows[i][1] for i in seconds(rows)]
    if not held:
        assert set(found.values()) == {None}
        return
    exact = [Fraction(lots, 1000) for lots in held]
    assert found["mean"] == float(statistics.mean(exact))
    assert found["std"] == pytest.approx(statistics.pstdev(exact), rel=1e-14)
    for percent in (5, 50, 95):
        assert found[f"p{percent:02}"] == sorted(held)[math.ceil(Fraction(percent * len(held), 100)) - 1] / 1000


@given(rows)
def test_a_drawdown_lasts_until_the_highest_value_is_reached_again(rows):
    value, best, longest, run = 0, -math.inf, 0, 0
    below = []
    for row in rows:
        value += row[2]
        best = max(best, value)
        below.append(value < best)
    for i, j in zip(each := seconds(rows), [-1, *each], strict=False):
        interrupted = not below[i] or not all(below[max(j, 0) : i + 1])
        run = int(below[i]) if interrupted else run + 1
        longest = max(longest, run)
    assert over_time.drawdown_duration(table(rows)) == longest


@given(rows)
def test_the_largest_fall_is_from_any_row_to_any_later_one(rows):
    """In half quanta, without the noise of a difference of two floats."""
    values = np.cumsum([row[2] for row in rows]).tolist()
    falls = [before - after for i, after in enumerate(values) for before in values[: i + 1]]
    assert over_time.max_drawdown(table(rows), INSTRUMENT) == max(falls) / (2 * 10**8)


@settings(max_examples=300)
@given(rows)
def test_sharpe_is_the_minutes_mean_by_their_deviation(rows):
    """Python's own statistics over the value that each minute ends with."""
    times, values = np.cumsum([row[0] for row in rows]), np.cumsum([row[2] for row in rows]).tolist()
    looks = [
        [v for t, v in zip(times, values, strict=True) if t - times[0] <= minute][-1]
        for minute in range(0, int(times[-1] - times[0]) + 1, 60)
    ]
    profits = [Fraction(b - a) for a, b in pairwise(looks)]
    found = over_time.sharpe(table(rows), INSTRUMENT)
    if len(profits) < 2 or len(set(profits)) == 1:
        assert found is None
    else:
        expected = float(statistics.mean(profits)) / statistics.stdev(profits) * math.sqrt(365.25 * 24 * 60)
        assert found == pytest.approx(expected, rel=1e-12)


def test_sharpe_by_hand():
    """Profits of 1, 3 and 2 in three minutes: mean 2, deviation 1."""
    values = [100.0, 101.0, 104.0, 106.0, 50.0]
    made = [(ns * S, 0.0, v, 1.0, v, 0, None, None) for ns, v in zip([0, 60, 119, 170, 181], values, strict=True)]
    made[4] = (239 * S, *made[4][1:])  # in the part of a minute that is left out
    state = pl.DataFrame(made, schema=STATE.schema, orient="row")
    assert over_time.sharpe(state, INSTRUMENT) == pytest.approx(2 * math.sqrt(525_960))


numbers = st.integers(-(2**62), 2**62) | st.integers(-9, 9)


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
def test_sums_are_those_of_python_integers(pairs):
    """Also where int64 would overflow."""
    a, b = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    assert total(a) == sum(x for x, _ in pairs)
    assert dot(a, b) == sum(x * y for x, y in pairs)


@given(st.lists(st.integers(-(2**52), 2**52) | st.integers(-(10**6), 10**6)), st.sampled_from(["0.05", "0.00001", "3"]))
def test_decimals_become_the_steps_that_they_were_made_of(steps, step):
    grid = Grid.of(step, "step")
    made = grid.to_decimal(np.array(steps, np.int64) // grid.num * grid.num) / 1.0
    expected = [(s // grid.num) * grid.num for s in steps]
    assert whole(made, grid).tolist() == expected


def test_a_price_between_two_ticks_is_refused():
    with pytest.raises(TableError, match="is not a multiple of the tick size"):
        whole(np.array([1.0, 0.015]), INSTRUMENT.ticks)


def test_half_of_seven_nanoseconds_is_more_than_three():
    """One lot for 3 ns and two for 4: for half of the time the position was two or less, not one."""
    made = [(ns, lots / 1000, 0.0, 1.0, 0.0, 0, None, None) for ns, lots in ((0, 1), (3, 2), (7, 9))]
    state = pl.DataFrame(made, schema=STATE.schema, orient="row")
    assert over_time.Positions.of(state, INSTRUMENT).quantile(50) == 0.002
