"""The same market without chance: mean, deviation and kurtosis of profit and position, by recursion over the position.

What the next step brings depends on the position and the time alone, and the mid's moves are independent of the fills.
So E[X^n; q], the n-th moment of the marked-to-market profit X where the position is q, goes from step to step exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import comb, sqrt

import numpy as np

from benchmarks.paper.market import Floats, Market, Strategy

ORDER = 4


@dataclass(frozen=True)
class Moments:
    """Of one distribution; kurtosis is 3 for a normal one."""

    mean: float
    std: float
    kurtosis: float

    @classmethod
    def of(cls, raw: Floats) -> Moments:
        """From E[1], E[X] ... E[X^4]."""
        m = raw[1]
        central = [sum(comb(n, j) * raw[j] * (-m) ** (n - j) for j in range(n + 1)) for n in range(ORDER + 1)]
        return cls(float(m), sqrt(central[2]), float(central[4] / central[2] ** 2))

    @classmethod
    def sample(cls, values: Floats) -> Moments:
        """Of measured values, with the deviation of a sample."""
        off = values - values.mean()
        variance = (off**2).mean()
        return cls(float(values.mean()), float(values.std(ddof=1)), float((off**4).mean() / variance**2))

    def mean_error(self, paths: int) -> float:
        """Standard error of the mean of so many paths."""
        return self.std / sqrt(paths)

    def std_error(self, paths: int) -> float:
        """Standard error of their sample deviation: fat tails make it larger than the normal std / sqrt(2 n)."""
        return self.std * sqrt((self.kurtosis - 1) / (4 * paths))


@cache
def moments(market: Market, strategy: Strategy, rule: str) -> tuple[Moments, Moments]:
    """(profit, final position), before the quotes are rounded to a grid."""
    q = np.arange(-market.steps - 1, market.steps + 2, dtype=np.float64)  # the edges are never reached
    kept = np.zeros((ORDER + 1, q.size))
    kept[0, q.size // 2] = 1.0
    for lean, spread in zip(*strategy.times(market), strict=True):
        bid, ask = distances(market, strategy.gamma, q, lean, spread)
        kept = moved(filled(kept, bid, ask, *(chances(market, delta, rule) for delta in (bid, ask))), q, market)
    position = np.array([(kept[0] * q**n).sum() for n in range(ORDER + 1)])
    return Moments.of(kept.sum(axis=1)), Moments.of(position)


def distances(market: Market, gamma: float, q: Floats, lean: float, spread: float) -> tuple[Floats, Floats]:
    """Of bid and ask from the mid at each position: eqs. 29 and 30, written out."""
    shift = q * gamma * market.variance * lean
    half = gamma * market.variance * spread / 2 + np.log(1 + gamma / market.k) / gamma
    return half + shift, half - shift


def chances(market: Market, delta: Floats, rule: str) -> Floats:
    """Of a fill within dt at each distance; far behind the mid it is certain under either rule."""
    hazard = market.A * market.dt * np.exp(np.minimum(-market.k * delta, 50.0))
    return np.asarray(np.minimum(hazard, 1.0) if rule == "linear" else 1 - np.exp(-hazard))


def filled(kept: Floats, bid: Floats, ask: Floats, buys: Floats, sells: Floats) -> Floats:
    """After the fills of one step: none, one or both, and what each earns against the mid."""
    made = np.zeros_like(kept)
    for bought, sold in product((0, 1), (0, 1)):
        weight = (buys if bought else 1 - buys) * (sells if sold else 1 - sells)
        earned = bought * bid + sold * ask
        for n in range(ORDER + 1):
            part = sum(comb(n, j) * earned ** (n - j) * kept[j] for j in range(n + 1))
            made[n] += np.roll(weight * part, bought - sold)
    return made


def moved(kept: Floats, q: Floats, market: Market) -> Floats:
    """After the mid has moved by sigma sqrt(dt) up or down, each with one half: odd powers vanish."""
    move = q * market.sigma * sqrt(market.dt)
    return np.array([sum(comb(n, j) * move**j * kept[n - j] for j in range(0, n + 1, 2)) for n in range(ORDER + 1)])
