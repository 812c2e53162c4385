"""How good a run was, in one number that a search can climb: return against its risk, and -10 for what nobody wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmlab.grid.engine import Raw
from mmlab.grid.layout import LOST, TRADES, WINS, WON, Floats

REFUSED = -10.0
FEWEST_TRADES = 20
MOST_DRAWDOWN = 0.5
LEAST_LEFT = 0.5  # of the capital
LEAST_FACTOR = 0.5
MOST_FACTOR = 10.0  # a run without a loss counts as this profit factor
LEAST_RISK = 1e-4  # a smaller drawdown counts as one basis point
BUSY = 500  # trades in a year from which more of them cost
MOST_PENALTY = 2.0
BARS_A_YEAR = 96 * 365  # of 15 minutes


@dataclass(frozen=True)
class Tally:
    """Closing fills of a run, those with a profit, and what profits and losses add up to (net of the exit's fee)."""

    trades: int = 0
    wins: int = 0
    won: float = 0.0
    lost: float = 0.0

    @classmethod
    def of(cls, raw: Raw) -> Tally:
        """From the counts in a run's state."""
        S = raw.world.S
        return cls(int(S[TRADES]), int(S[WINS]), float(S[WON]), float(S[LOST]))


@dataclass(frozen=True)
class Score:
    """`value` is what is searched for, the others are what it is made of; ratios are capped where a risk is 0."""

    value: float
    total_return: float  # fraction
    max_drawdown: float  # fraction, on closes
    sharpe: float
    sortino: float
    calmar: float
    profit_factor: float
    trades: int
    win_rate: float


def score(equity: Floats, counts: Tally, capital: float, bars_a_year: float = BARS_A_YEAR) -> Score:
    """Of equity at each close, shape (n,), that began with `capital`.

    Ratios: R the whole return, D the largest drawdown on closes, r the bars' returns;
    sharpe = mean(r) / std(r) sqrt(bars a year), sortino with sqrt(mean(min(r, 0)^2)) below, and
    calmar = (R / years) / D: a simple rate a year, so that windows of different lengths compare, and short ones
    do not explode by compounding.
    """
    lines = np.concatenate(([capital], equity))
    before = lines[:-1]
    r = np.divide(lines[1:], before, out=np.ones_like(before), where=before > 0) - 1
    total = float(lines[-1] / capital - 1)
    fall = float((1 - lines / np.maximum.accumulate(lines)).max())
    mean, root = float(r.mean()), math.sqrt(bars_a_year)
    spread, down = float(r.std()), math.sqrt(float(np.mean(np.minimum(r, 0) ** 2)))
    factor = min(counts.won / counts.lost, MOST_FACTOR) if counts.lost > 0 else MOST_FACTOR if counts.won > 0 else 0.0
    made = Score(
        0.0, total, fall,
        mean / spread * root if spread > 0 else 0.0,
        mean / max(down, LEAST_RISK * abs(mean)) * root if mean else 0.0,
        total * bars_a_year / len(r) / max(fall, LEAST_RISK),
        factor, counts.trades, counts.wins / counts.trades if counts.trades else 0.0,
    )  # fmt: skip
    return Score(fitness(made, len(r) / bars_a_year), *list(vars(made).values())[1:])


def fitness(s: Score, years: float) -> float:
    """The strategy document's fitness, clause by clause.

    1. -10: fewer than 20 trades, a drawdown over 50%, less than half of the capital left, a profit factor under 0.5.
    2. Calmar C or Sortino S not above 0: (min(C, 0) + min(S, 0)) / 2 within [-9.9, -0.01], so that a loss of any
       size has a slope to climb and stays below every profit.
    3. Otherwise the harmonic mean H = 2 S C / (S + C), which is near the worse of the two, times sqrt(profit factor),
       times 0.5 + win rate within [0.5, 1.5], less a penalty of 1e-4 (trades - 500)^1.5, at most 2, for more than 500
       trades a year: each one trusts the fill model once more. (The document counts 500 whatever the length.)
    """
    left = 1 + s.total_return
    if s.trades < FEWEST_TRADES or s.max_drawdown > MOST_DRAWDOWN or left < LEAST_LEFT:
        return REFUSED
    if s.profit_factor < LEAST_FACTOR:
        return REFUSED
    if s.calmar <= 0 or s.sortino <= 0:
        return min(max((min(s.calmar, 0) + min(s.sortino, 0)) / 2, -9.9), -0.01)
    harmonic = 2 * s.sortino * s.calmar / (s.sortino + s.calmar)
    certain = min(max(0.5 + s.win_rate, 0.5), 1.5)
    over = max(s.trades / max(years, 1.0) - BUSY, 0.0)
    penalty = min(MOST_PENALTY, 1e-4 * math.pow(over, 1.5))
    return harmonic * math.sqrt(s.profit_factor) * certain - penalty


@dataclass(frozen=True)
class Part:
    """One stretch of bars run with a fresh account: its equity as a multiple of the capital, and its trades."""

    growth: Floats  # shape (bars,)
    counts: Tally

    @classmethod
    def of(cls, raw: Raw, capital: float) -> Part:
        """From a run."""
        return cls(raw.equity[:, 1] / capital, Tally.of(raw))


def chained(parts: Sequence[Part], bars_a_year: float = BARS_A_YEAR) -> Score:
    """The score of stretches one after the other, each going on with the share of the money that the last one left."""
    lines, scale = [], 1.0
    for part in parts:
        lines.append(part.growth * scale)
        scale = max(float(lines[-1][-1]), 0.0)
    each = [part.counts for part in parts]
    counts = Tally(
        sum(c.trades for c in each), sum(c.wins for c in each), sum(c.won for c in each), sum(c.lost for c in each)
    )
    return score(np.concatenate(lines), counts, 1.0, bars_a_year)
