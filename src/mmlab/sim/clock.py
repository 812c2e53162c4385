"""Poisson fills: each resting order's hazard A exp(-k delta), integrated over the time that passes."""

from __future__ import annotations

import numpy as np

from mmlab.core.kernels import hot
from mmlab.sim import layout as at
from mmlab.sim.layout import World

MOST_EXPONENT = 50.0  # exp(50) a second fills at once; beyond it floats would overflow


@hot
def segment(t: int, w: World) -> bool:
    """Move to the schedule's segment at or after t; True if t lies in it."""
    S = w.S
    while S[at.SEGMENT] < w.edges.shape[0] and w.edges[S[at.SEGMENT], at.ENDS] <= t:
        S[at.SEGMENT] += 1
    return S[at.SEGMENT] < w.edges.shape[0] and bool(w.edges[S[at.SEGMENT], at.STARTS] <= t)


@hot
def next_fill(when: int, w: World) -> int:
    """Live through the hazards from S[NOW] to `when`, or to the first fill before it; the order filled, or -1."""
    S = w.S
    old = w.frames[S[at.FRAME_AT] - 1, at.FRAME_NS] + w.P[at.MAX_AGE]
    while S[at.NOW] < when:
        now, stop, filled = S[at.NOW], when, -1
        inside = segment(now, w)
        if S[at.SEGMENT] < w.edges.shape[0]:
            stop = min(stop, w.edges[S[at.SEGMENT], at.ENDS] if inside else w.edges[S[at.SEGMENT], at.STARTS])
        if now < old:
            stop = min(stop, old)
            if inside:
                filled, stop = _race(now, stop, w)
        S[at.NOW] = stop
        if filled >= 0:
            return filled
    return -1


@hot
def _race(now: int, stop: int, w: World) -> tuple[int, int]:
    """Integrate all resting orders' hazards from `now` to `stop`, or to the first fill; returns it and its time."""
    L, H = w.L, w.H
    A, k, mid2 = w.rates[w.S[at.SEGMENT], at.RATE_A], w.rates[w.S[at.SEGMENT], at.RATE_K], at.mid2(w)
    filled = -1
    for j in range(w.S[at.LIVE]):
        if L[j, at.PHASE] == at.RESTING:
            rate = hazard(L[j, at.SIDE] * (mid2 - 2 * L[j, at.PRICE]) / 2.0, A, k)
            H[j, 2] = rate
            wait = np.ceil((H[j, 0] - H[j, 1]) / rate / at.S_PER_NS) if rate > 0.0 else np.inf
            if wait < at.NEVER and now + int(max(wait, 0.0)) < stop:
                filled, stop = j, now + int(max(wait, 0.0))
    for j in range(w.S[at.LIVE]):
        if L[j, at.PHASE] == at.RESTING:
            H[j, 1] += H[j, 2] * ((stop - now) * at.S_PER_NS)
    return filled, stop


@hot
def hazard(delta: float, A: float, k: float) -> float:
    """Intensity in 1/s of an order `delta` ticks behind the mid (negative: beyond it): A exp(-k delta)."""
    rate: float = A * np.exp(min(-k * delta, MOST_EXPONENT))
    return rate
