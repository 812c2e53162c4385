"""A run's score against the same written out with loops, and each clause of the fitness by a run that meets it."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.grid.score import BARS_A_YEAR, Part, Score, Tally, chained, fitness, score

FINE = Score(0.0, 0.2, 0.1, 1.0, 2.0, 1.5, 2.0, 100, 0.6)  # every clause is met
TALLY = Tally(100, 60, 30.0, 15.0)


def slow(equity: list[float], counts: Tally, capital: float, bars_a_year: float) -> dict[str, float]:
    """The docstring's formulas, one bar after the other."""
    lines = [capital, *equity]
    r = [b / a - 1 if a > 0 else 0.0 for a, b in itertools.pairwise(lines)]
    peak, fall = lines[0], 0.0
    for line in lines:
        peak = max(peak, line)
        fall = max(fall, 1 - line / peak)
    mean = sum(r) / len(r)
    spread = math.sqrt(sum((x - mean) ** 2 for x in r) / len(r))
    down = math.sqrt(sum(min(x, 0) ** 2 for x in r) / len(r))
    total = lines[-1] / capital - 1
    return {
        "total_return": total,
        "max_drawdown": fall,
        "sharpe": mean / spread * math.sqrt(bars_a_year) if spread else 0.0,
        "sortino": mean / max(down, 1e-4 * abs(mean)) * math.sqrt(bars_a_year) if mean else 0.0,
        "calmar": total * bars_a_year / len(r) / max(fall, 1e-4),
        "profit_factor": min(counts.won / counts.lost, 10) if counts.lost else 10.0 if counts.won else 0.0,
        "win_rate": counts.wins / counts.trades if counts.trades else 0.0,
    }


steps = st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=40)
tallies = st.builds(Tally, st.integers(20, 900), st.integers(0, 20), st.floats(0, 100), st.floats(0, 100))


@given(steps, tallies, st.floats(1, 1e6))
def test_a_score_is_what_the_formulas_say(moves, counts, capital):
    equity = capital * np.cumprod(1 + np.array(moves))
    made = score(equity, counts, capital)
    for name, wanted in slow(list(equity), counts, capital, BARS_A_YEAR).items():
        # a mean that cancels to nearly nothing keeps fewer digits
        assert getattr(made, name) == pytest.approx(wanted, rel=1e-6, abs=1e-6), name
    assert made.trades == counts.trades
    assert made.value >= -10
    assert math.isfinite(made.value)


@pytest.mark.parametrize(
    ("clause", "beyond", "within"),
    [
        ("trades", 19, 20),
        ("max_drawdown", 0.501, 0.5),
        ("total_return", -0.501, -0.5),
        ("profit_factor", 0.499, 0.5),
    ],
)
def test_what_nobody_wants_is_minus_ten(clause, beyond, within):
    """Each clause by itself, and the last value that is allowed."""
    assert fitness(dataclasses.replace(FINE, **{clause: beyond}), 1.0) == -10
    assert fitness(dataclasses.replace(FINE, **{clause: within}), 1.0) > -10


def test_a_loss_has_a_slope_and_lies_below_every_profit():
    """(min(C, 0) + min(S, 0)) / 2 within [-9.9, -0.01]."""
    lost = dataclasses.replace(FINE, calmar=-1.0, sortino=-3.0)
    assert fitness(lost, 1.0) == -2.0
    assert fitness(dataclasses.replace(FINE, calmar=-100.0), 1.0) == -9.9
    assert fitness(dataclasses.replace(FINE, calmar=0.0), 1.0) == -0.01
    assert fitness(dataclasses.replace(FINE, calmar=-0.5, sortino=4.0), 1.0) == -0.25


def test_a_profit_is_the_harmonic_mean_with_profit_factor_and_win_rate():
    wanted = 2 * 2.0 * 1.5 / 3.5 * math.sqrt(2.0) * 1.1
    assert fitness(FINE, 1.0) == pytest.approx(wanted, rel=1e-12)


def test_trades_over_500_a_year_cost_up_to_2():
    plain = fitness(FINE, 1.0)
    assert fitness(dataclasses.replace(FINE, trades=500), 1.0) == plain
    assert fitness(dataclasses.replace(FINE, trades=600), 1.0) == pytest.approx(plain - 1e-4 * 100**1.5)
    assert fitness(dataclasses.replace(FINE, trades=50_000), 1.0) == plain - 2.0
    assert fitness(dataclasses.replace(FINE, trades=1_000), 2.0) == plain  # 500 in each of two years
    assert fitness(dataclasses.replace(FINE, trades=501), 0.1) < plain  # a short run is not taken for a year's part


@given(st.lists(steps, min_size=1, max_size=4))
def test_stretches_one_after_the_other_score_like_one_curve(pieces):
    """Each goes on with what the last one left; trades add up."""
    parts = [Part(np.cumprod(1 + np.array(moves)), TALLY) for moves in pieces]
    whole = np.cumprod(1 + np.concatenate([np.array(moves) for moves in pieces]))
    n = len(pieces)
    together = Tally(n * 100, n * 60, n * 30.0, n * 15.0)
    made, wanted = chained(parts), score(whole, together, 1.0)
    for name, value in vars(wanted).items():
        assert getattr(made, name) == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_a_ruined_stretch_ends_the_chain_and_is_refused():
    ruined = Part(np.array([0.5, -0.1]), TALLY)
    assert chained([ruined, Part(np.array([1.1, 1.2]), TALLY)]).value == -10


def test_an_account_that_stands_still_has_finite_figures():
    made = score(np.full(10, 100.0), Tally(), 100.0)
    assert (made.value, made.sharpe, made.sortino, made.calmar, made.profit_factor) == (-10, 0, 0, 0, 0)
