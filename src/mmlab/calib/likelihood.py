"""Counts at distances -> A and k, all rows at once: the likeliest curve of points or of rings, and least squares.

Given k, A = sum N / sum T s. With sum T_i s_i summed by parts over the rings, sum S_i (T_i - T_i-1) with
S_i = exp(-k (x_i - x_0)), points and rings have the same form: weights times S. The score in k then is

    (sum over steps of N_step pull(step) - sum N (x - x_0)) / sum N  +  sum W (x - x_0) S / sum W S

with pull(u) = u exp(-k u) / (1 - exp(-k u)) for rings and none for points. Its one root is found by Newton's steps,
kept inside a bracket that shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmlab.calib.shapes import Bools, Floats, Ints, Ladder, decay, ring_factors, rows_at, total

LOG_RANGE = 700.0  # exp(700) is still a double
LEAST = 1e-9  # a ring's k times the span of the distances: below it there is no maximum
MOST_STEPS, CLOSE = 300, 1e-8


@dataclass(frozen=True)
class Fit:
    """Fitted curves, each array of shape (n_rows,), nan where there is none; `near` is the rate at the first distance.

    expected: counts under the curve, (n_deltas or fewer, n_rows).
    """

    near: Floats
    k: Floats
    se_log_A: Floats
    se_k: Floats
    expected: Floats


def fit_points(T: Floats, N: Floats, on: Ladder, known: Bools) -> Fit:
    """Likeliest curve of N_i ~ Poisson(T_i A exp(-k x_i)); T in seconds, (n_deltas, n_rows), 0 where not used.

    N: (m, n_rows), 0 beyond. known: which rows can be fitted, (n_rows,).
    """
    m = N.shape[0]
    hits, span = total(N), on.far.max(axis=0)
    start = np.where(known, _start(T[:m], N, on.until(m)), np.nan)
    profile = _Profile(T, on.far, total(N * on.far[:m]) / hits, on, None)
    k = _root(profile, start, -LOG_RANGE / span, LOG_RANGE / on.gap, span, -np.inf)
    mass = T * decay(k, on.far)
    return _fit(hits / total(mass), k, mass, -on.far, on)


def fit_rings(T: Floats, more: Floats, R: Floats, on: Ladder, end: Ints, known: Bools) -> Fit:
    """Likeliest curve of R_i ~ Poisson(T_i A s_i), s_i of rings of which the last one is number `end`, (n_rows,).

    T in seconds, more: by how much it exceeds that at the used distance before; (m, n_rows), 0 where not used. known:
    which rows can be fitted, (n_rows,). Counts that no falling curve explains best have no k.
    """
    on = on.until(R.shape[0])
    hits, span = total(R), np.broadcast_to(on.far, R.shape)[end, np.arange(end.size)]
    profile = _Profile(more, on.far, total(R * on.far) / hits, on, _by_step(R, on) / hits)
    start = np.where(known, _start(T, R, on), np.nan)
    k = _root(profile, start, np.zeros(hits.size), LOG_RANGE / on.gap, span, LEAST)
    k[k * span < LEAST] = np.nan
    near, ring = decay(k, on.far), np.arange(R.shape[0])[:, None]
    gone, pull = (rows_at(a, on.place) for a in ring_factors(k, on))
    gone, pull = np.where(ring < end, gone, ring == end), np.where(ring < end, pull, 0.0)
    return _fit(hits / total(more * near), k, T * near * gone, pull - on.far, on)


def fit_logs(T: Floats, N: Floats, x: Floats, on: Ladder, known: Bools) -> Fit:
    """Least squares of ln(N / T) on x, weighted by N, and its own errors; distances without hits fall out."""
    hits, at = total(N), x[: N.shape[0], None]
    y = np.where(N > 0, np.log(np.where(N > 0, N, 1.0) / np.where(N > 0, T, 1.0)), 0.0)
    mid, mean = total(N * at) / hits, total(N * y) / hits
    weight = N * (at - mid)
    spread = np.where(known, total(weight * (at - mid)), np.nan)
    k = -total(weight * (y - mean)) / spread
    near = np.exp(mean + k * (mid - on.nearest))
    return Fit(near, k, np.sqrt(1 / hits + mid * mid / spread), np.sqrt(1 / spread), N)


@dataclass(frozen=True)
class _Profile:
    """What the score in k is made of: weights, (n_deltas, n_rows), mean depth of the hits, share of hits by step."""

    weight: Floats
    far: Floats
    depth: Floats
    on: Ladder
    share: Floats | None

    def rows(self, at: Ints) -> _Profile:
        """Some of the rows."""
        far = self.far if self.far.shape[1] == 1 else self.far.take(at, axis=1)
        share = None if self.share is None else self.share.take(at, axis=1)
        return replace(self, weight=self.weight.take(at, axis=1), far=far, depth=self.depth[at], share=share)

    def slopes(self, k: Floats) -> tuple[Floats, Floats]:
        """The score per hit, and how fast it falls in k."""
        mass = decay(k, self.far)
        mass *= self.weight
        moments = [total(mass)]
        for _ in range(2):
            mass *= self.far
            moments.append(total(mass) / moments[0])
        score, fall = moments[1] - self.depth, moments[2] - moments[1] ** 2
        if self.share is not None:
            gone, pull = ring_factors(k, self.on)
            pull *= self.share
            score, fall = score + total(pull), fall + total(pull * self.on.steps[:, None] / gone)
        return score, fall


def _root(profile: _Profile, start: Floats, low: Floats, high: Floats, span: Floats, least: float) -> Floats:
    """The root in k of each row, from `start` (nan: none is sought) inside (low, high), or any k below least / span.

    Each further step squares the error: the one that would follow the last is far below the last digit.
    """
    k, (low, high, span) = start.copy(), (np.broadcast_to(a, start.shape).copy() for a in (low, high, span))
    live = np.flatnonzero(np.isfinite(start))
    profile = profile if live.size == k.size else profile.rows(live)
    for _ in range(MOST_STEPS):
        if live.size == 0:
            break
        at = k[live]
        score, fall = profile.slopes(at)
        to = at + np.where(fall > 0, score / fall, np.inf)
        low[live], high[live] = np.where(score > 0, at, low[live]), np.where(score > 0, high[live], at)
        close = np.abs(to - at) <= CLOSE * (np.abs(at) + 0.01 / span[live])
        inside = (low[live] < to) & (to < high[live])
        k[live] = np.where(close | inside, to, (low[live] + high[live]) / 2)
        going = ~(close | (high[live] * span[live] < least))
        if not going.all():
            profile, live = profile.rows(np.flatnonzero(going)), live[going]
    return k


def _start(T: Floats, N: Floats, on: Ladder) -> Floats:
    """A first k: one over the depth of the rates, which lies half a step below the mean of an exponential."""
    rates = N / np.where(T > 0, T, 1.0)
    return np.asarray(1 / (total(rates * on.far) / total(rates) + on.gap / 2), np.float64)


def _by_step(N: Floats, on: Ladder) -> Floats:
    """Counts by the step that follows their distance, (n_steps, n_rows)."""
    n_rows = N.shape[1]
    cell = np.broadcast_to(on.place * n_rows, N.shape) + np.arange(n_rows)
    sums = np.bincount(cell.ravel(), N.ravel(), on.steps.size * n_rows)
    return np.asarray(sums.reshape(on.steps.size, n_rows), np.float64)


def _fit(near: Floats, k: Floats, mass: Floats, g: Floats, on: Ladder) -> Fit:
    """The curve with Fisher's errors: from the moments of g about their mean, so that nothing cancels."""
    expected = near * mass
    counts = total(expected)
    mean = total(expected * g) / counts
    spread = total(expected * (g - mean) ** 2)
    return Fit(near, k, np.sqrt(1 / counts + (mean - on.nearest) ** 2 / spread), np.sqrt(1 / spread), expected)
