"""The market of Avellaneda and Stoikov (2008), section 3.3, simulated with mmlab's quote model and ledger.

In every step of dt the strategy quotes around the mid, each quote is filled or not, and then the mid moves by
sigma sqrt(dt) up or down. Prices are whole ticks and money whole quanta, as in a backtest.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Money, fee_quanta
from mmlab.sim.quotes import avellaneda_stoikov

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

INSTRUMENT = Instrument("paper", "AS2008", "0.000001", "1")  # so fine that the grid changes no figure
MONEY = Money.of(INSTRUMENT)
TICK = INSTRUMENT.ticks.num / INSTRUMENT.ticks.den
RUN = 1_000  # paths of the paper's own run; also those that share one generator
RULES = ("linear", "exact")
CASH, LOTS, FEES, MID, FILLS, SPREAD = range(6)


@dataclass(frozen=True)
class Market:
    """The paper's parameters; prices in quote currency, times in the paper's unit, A per that unit and side."""

    s: float = 100.0
    T: float = 1.0
    sigma: float = 2.0
    dt: float = 0.005
    k: float = 1.5
    A: float = 140.0

    @property
    def steps(self) -> int:
        """Decisions in [0, T)."""
        return round(self.T / self.dt)

    @property
    def variance(self) -> float:
        """Of the mid, per unit of time."""
        return self.sigma**2

    @property
    def move(self) -> int:
        """sigma sqrt(dt) in ticks."""
        return round(self.sigma * math.sqrt(self.dt) / TICK)


@dataclass(frozen=True)
class Strategy:
    """What is quoted: `inventory` leans against the position, `symmetric` keeps the spread around the mid.

    version: `published` (2008: the spread of eq. 30, of which `symmetric` takes the time average) or `draft`
    (2006: without its first term, the same spread at all times).
    """

    version: str
    gamma: float
    name: str

    def times(self, market: Market) -> tuple[Floats, Floats]:
        """Shape (steps,) each: the time left that the shift of the centre is of, and that the spread is of.

        The spread is linear in the time left, so its average over [0, T] is the one at T / 2.
        """
        left: Floats = market.T - market.dt * np.arange(market.steps, dtype=np.float64)
        lean = left if self.name == "inventory" else np.zeros_like(left)
        if self.version == "draft":
            return lean, np.zeros_like(left)
        return lean, left if self.name == "inventory" else np.full_like(left, market.T / 2)


@dataclass(frozen=True)
class Paths:
    """What the accounts held at the end, a path a row: columns CASH, LOTS, FEES, MID, FILLS and SPREAD."""

    ends: Ints
    steps: int

    @property
    def profit(self) -> Floats:
        """Cash and the position at the last mid, in quote currency: added up as integers, divided last."""
        quanta = self.ends[:, CASH] + self.ends[:, LOTS] * self.ends[:, MID] * MONEY.per_tick_lot
        return np.asarray(quanta / 10**MONEY.digits, np.float64)

    @property
    def lots(self) -> Ints:
        """The position at the end."""
        return self.ends[:, LOTS]

    @property
    def spread(self) -> float:
        """The mean quoted spread over all paths and decisions, in quote currency."""
        return float(self.ends[:, SPREAD].sum() / (self.ends.shape[0] * self.steps) * TICK)


@njit(nogil=True)  # no cache: one kept in this folder would outlive a change of mmlab
def chance(delta: float, A: float, k: float, dt: float, linear: bool) -> float:
    """Of a fill at `delta` from the mid within dt: min(lambda dt, 1), or 1 - exp(-lambda dt)."""
    hazard: float = A * np.exp(-k * delta) * dt
    exact: float = -np.expm1(-hazard)
    return min(hazard, 1.0) if linear else exact


@njit(nogil=True)
def walk(
    draws: Floats, lean: Floats, spread: Floats, gamma: float, variance: float, k: float, A: float, dt: float,
    linear: bool, tick: float, first: int, move: int, per: int, fee_rate: int,
) -> Ints:  # fmt: skip
    """Every path to its end: draws of shape (paths, steps, 3) decide the bid, the ask and the mid."""
    ends = np.zeros((draws.shape[0], 6), np.int64)
    for path in range(draws.shape[0]):
        end = ends[path]
        end[MID] = first
        for i in range(draws.shape[1]):
            q, mid = float(end[LOTS]), end[MID]
            shift, _ = avellaneda_stoikov(q, gamma, variance, lean[i], k)
            _, half = avellaneda_stoikov(q, gamma, variance, spread[i], k)
            bid = mid - np.int64(np.rint((shift + half) / tick))
            ask = mid - np.int64(np.rint((shift - half) / tick))
            end[SPREAD] += ask - bid
            for at, side, price in ((0, 1, bid), (1, -1, ask)):
                if draws[path, i, at] < chance(side * (mid - price) * tick, A, k, dt, linear):
                    notional = price * per
                    fee = fee_quanta(notional, fee_rate)
                    end[CASH] -= side * notional + fee
                    end[LOTS] += side
                    end[FEES] += fee
                    end[FILLS] += 1
            end[MID] += move if draws[path, i, 2] < 0.5 else -move
    return ends


def draws(market: Market, strategy: Strategy, run: int, paths: int, seed: int) -> Floats:
    """Uniform numbers of one run of `strategy`: the same under both rules, others for any other strategy."""
    name = f"{strategy.version} {strategy.gamma} {strategy.name}"
    return np.random.default_rng([seed, zlib.crc32(name.encode()), run]).random((paths, market.steps, 3))


def simulate(market: Market, strategy: Strategy, rule: str, paths: int, seed: int, fee_rate: int = 0) -> Paths:
    """`paths` paths, in runs as long as the paper's; a shorter simulation is the beginning of a longer one."""
    lean, spread = strategy.times(market)
    ends = [
        walk(
            draws(market, strategy, run, min(RUN, paths - run * RUN), seed), lean, spread, strategy.gamma,
            market.variance, market.k, market.A, market.dt, rule == "linear", TICK, round(market.s / TICK),
            market.move, MONEY.per_tick_lot, fee_rate,
        )
        for run in range(-(-paths // RUN))
    ]  # fmt: skip
    return Paths(np.concatenate(ends), market.steps)
