"""Where levels lie and how large orders are: rounding, round numbers, spread, tilt and Kelly's share."""

from __future__ import annotations

import math

from mmlab.core.kernels import inner
from mmlab.grid.layout import ARITHMETIC, KELLY_AT, KELLY_WINDOW, REFERENCE, RESERVATION, World

FORGIVEN = 1e-6  # of a step, far above what floats miss it by
NEAR, AWAY = 0.001, 0.0015  # of a round number: too near, and how far off it is moved
LARGEST = 10_000.0  # round number that counts
QUARTER, LEAST, PROVEN = 0.25, 0.1, 20  # of Kelly's fraction; the smallest size; trades that prove an edge
WIDER, NARROWER = 1.2, 0.8  # entry spacing of the side that funding costs, and of the other
LARGER, SMALLER = 1.25, 0.75  # size of the side that funding pays, and of the other


@inner
def spread(g: float, sigma: float, horizon: float, kappa: float) -> float:
    """Avellaneda and Stoikov (2008, eq. 30) in returns, fill intensity decaying by kappa a sigma."""
    return g * sigma * sigma * horizon + (2.0 / g) * math.log1p(g * sigma / kappa)


@inner
def rounded(price: float, num: float, den: float, up: bool) -> float:
    """`price` on the tick, away from the market; num 0: as it is."""
    if num == 0:
        return price
    steps = price * den / num
    steps = math.ceil(steps - FORGIVEN) if up else math.floor(steps + FORGIVEN)
    return steps * num / den


@inner
def whole_lots(qty: float, num: float, den: float) -> float:
    """`qty` rounded down to the lot; num 0: as it is."""
    return qty if num == 0 else math.floor(qty * den / num + FORGIVEN) * num / den


@inner
def off_round_number(price: float) -> float:
    """`price` moved away from a round number that is too near."""
    step, fives = LARGEST, True  # 10000, 5000, 1000, 500, ...
    while price < 2 * step:
        step = step / 2 if fives else step / 5
        fives = not fives
    magnet = math.floor(price / step + 0.5) * step
    if abs(price - magnet) / magnet < NEAR:
        return price + AWAY * magnet if price >= magnet else price - AWAY * magnet
    return price


@inner
def raw_level(n: int, up: bool, r: float, spacing: float, reference: float, arithmetic: float) -> float:
    """Level n above or below r, before it is moved or rounded."""
    if arithmetic:
        return r + spacing * n if up else r - spacing * n
    step = 1.0 + spacing / reference
    return r * step**n if up else r / step**n


@inner
def next_level(w: World, n: int, up: bool, before: float, spacing: float) -> float:
    """Level n moved off round numbers, or as it is, or nan: whichever first lies beyond the level before it.

    The caller rounds it to the tick.
    """
    S = w.S
    price = raw_level(n, up, S[RESERVATION], spacing, S[REFERENCE], w.P[ARITHMETIC])
    if w.P[ARITHMETIC] or price <= 0:
        return price
    moved = off_round_number(price)
    if moved > before if up else moved < before:
        return moved
    return price if (price > before if up else price < before) else math.nan


@inner
def kelly_share(w: World, kind: int) -> float:
    """Quarter-Kelly of the trades of one class of regime, within [LEAST, 1]; LEAST until there are PROVEN trades."""
    if w.P[KELLY_WINDOW] == 0:
        return 1.0
    n = int(w.S[KELLY_AT + kind])
    if n < PROVEN:
        return LEAST
    wins, won, lost = 0, 0.0, 0.0
    for k in range(n):
        if w.kelly[kind, k] > 0:
            wins += 1
            won += w.kelly[kind, k]
        else:
            lost -= w.kelly[kind, k]
    if wins == 0:
        return LEAST
    if lost == 0:
        return max(LEAST, QUARTER)
    share = wins / n
    ratio = (won / wins) / (lost / (n - wins))
    return min(1.0, max(LEAST, QUARTER * (share - (1.0 - share) / ratio)))


@inner
def funding_bias(regime: float, rate: float, side: int, threshold: float) -> float:
    """How much wider a side's entries lie for what funding costs it."""
    if regime != 0 or abs(rate) <= threshold:
        return 1.0
    return WIDER if (rate > 0) == (side == 0) else NARROWER


@inner
def tilt(regime: float, rate: float, side: int, threshold: float) -> float:
    """How much larger a side's entries are for what funding pays it."""
    if regime != 0 or abs(rate) <= threshold:
        return 1.0
    return SMALLER if (rate > 0) == (side == 0) else LARGER
