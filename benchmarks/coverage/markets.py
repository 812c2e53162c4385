"""Seeded markets whose (A, k) is known: constant, changing, and bursting."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar

from mmlab.calib.points import Floats
from mmlab.calib.run import Tape
from mmlab.calib.spec import DEFAULT_DELTAS
from mmlab.core.schemas import GAPS
from mmlab.tape.synth import chunks
from mmlab.tape.synth_spec import Pieces, SynthSpec

A, K = 1.5, 0.25
PIECE_MIN = 10
PIECES: Pieces = tuple(
    (60.0 * PIECE_MIN * i, *ak)
    for i, ak in enumerate(((1.5, 0.25), (3.0, 0.4), (0.8, 0.15), (2.0, 0.3), (1.0, 0.2), (2.5, 0.35)))
)
QUIET, BUSY = 0.5, 2.5  # A of a bursting market; their mean is A
BURSTS = ((5.0, 0.5), (20.0, 0.5), (60.0, 0.5), (60.0, 2.0))  # mean stay in a level, s; length of the market, h


def spec(seed: int, hours: float = 0.5, **fields: Any) -> SynthSpec:
    """A market with one book level a side: the levels behind it cost time, and change neither mid nor orders."""
    return SynthSpec(day=date(2025, 1, 1), hours=hours, seed=seed, levels=1, **{"A": A, "k": K} | fields)


def tape(market: SynthSpec) -> Tape:
    """The market in memory."""
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(market), strict=True))
    return Tape.of(depth, trades, GAPS.empty(), market.instrument)


def orders_per_s() -> float:
    """Taker orders that print, a second, both sides together."""
    return 2 * A * math.exp(-K)


def bursting(seed: int, stay_s: float, hours: float) -> SynthSpec:
    """A market that is quiet or busy, for stays of a random length.

    Stays are geometric in frames and the first level is a coin's: without memory, so that the market is
    stationary and its A, averaged over the markets that could have been, is (QUIET + BUSY) / 2 at any instant.
    """
    rng = np.random.default_rng([seed, round(1000 * stay_s)])
    frame_s = SynthSpec.frame_ms / 1000
    level, frame, last = int(rng.integers(2)), 0, round(hours * 3600 / frame_s)
    pieces = []
    while frame < last:
        pieces.append((frame * frame_s, (QUIET, BUSY)[level], K))
        level, frame = 1 - level, frame + int(rng.geometric(frame_s / stay_s))
    return spec(seed, hours, ak_schedule=tuple(pieces))


def realised(market: SynthSpec) -> float:
    """Time average of A in this very market."""
    return sum((end - start) * A for start, end, A, _ in market.pieces()) / market.n_frames


def mixture(pieces: list[tuple[float, float]], deltas: tuple[int, ...] = DEFAULT_DELTAS) -> tuple[float, float]:
    """(A, k) of the exponential nearest to the mean of several, each as long: the limit of nested_mle under sweeps.

    A sum of exponentials is none. Were the span ever so long, the estimate would go to the curve that
    makes the expected ring counts likeliest (White 1982), and with the same time at risk at every distance
    that one has the mixture's own rate at the nearest distance.
    """
    x = np.array(deltas, np.float64)
    rate = np.mean([A * np.exp(-k * x) for A, k in pieces], axis=0)

    def loss(k: float) -> float:
        return -float((_rings(rate) * np.log(_rings(np.exp(-k * (x - x[0]))))).sum())

    k = float(minimize_scalar(loss, bounds=(1e-3, 5.0), method="bounded", options={"xatol": 1e-10}).x)
    return float(rate[0] * np.exp(k * x[0])), k


def _rings(rate: Floats) -> Floats:
    """Rates of the disjoint rings."""
    return np.asarray(rate - np.append(rate[1:], 0.0), np.float64)
