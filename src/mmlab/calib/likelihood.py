"""Kernels: counts at distances -> A and k of one row: the likeliest curve of points or of rings, and least squares.

Given k, A = sum N / sum T s. With sum T_i s_i summed by parts over the rings, sum S_i (T_i - T_i-1) with
S_i = exp(-k (x_i - x_0)), points and rings have the same form: weights times S. The score in k then is

    (sum over rings of R pull(step) - sum N (x - x_0)) / sum N  +  sum W (x - x_0) S / sum W S

with pull(u) = u exp(-k u) / (1 - exp(-k u)) for rings and none for points. Its one root is found by Newton's steps,
kept inside a bracket that shrinks. S is relative to the first used distance, so that nothing underflows early, and is
multiplied on from one distance to the next: one exponential serves a whole run of even steps.

A fit is (rate at the first distance, k, information of ln A, mean slope d ln rate / dk relative to the first distance,
information of k about that mean, number of distances that it took); no fit has a k that is nan.
"""

from __future__ import annotations

import math

import numpy as np

from mmlab.calib.fit_layout import ENDS, EXPECTED, MORE, NEARER, SHAPE, SLOPE, N, R, T
from mmlab.core.kernels import hot, inner
from mmlab.core.native import Floats2, Ints2

Fit = tuple[float, float, float, float, float, int]
NONE = (np.nan, np.nan, np.nan, np.nan, np.nan, 0)
LOG_RANGE = 700.0  # exp(700) is still a double
LEAST = 1e-9  # a ring's k times the span of the distances: below it there is no maximum
MOST_STEPS, CLOSE = 300, 1e-8


@hot
def step_factors(u: float, k: float) -> tuple[float, float]:
    """1 - exp(-k u) and exp(-k u), each to its last digits."""
    gone = -math.expm1(-k * u)
    return gone, 1.0 - gone if abs(gone) < 0.5 else math.exp(-k * u)


@inner
def _root(
    lists: Floats2, marks: Ints2, at: int, n: int, rings: bool, hits: float, depth: float, start: float,
    low: float, high: float,
) -> float:  # fmt: skip
    """The root in k from `start` inside (low, high), of rings any k below LEAST; depth: mean x - x_0 of the hits.

    Each further step squares the error: the one that would follow the last is far below the last digit.
    """
    k, first, span, weight = start, lists[at, 0], lists[at, n - 1] - lists[at, 0], MORE if rings else T
    for _ in range(MOST_STEPS):
        none, one, two = 0.0, 0.0, 0.0  # sums of W S, W S (x - x_0) and W S (x - x_0)^2
        pulled, bent, near, j = 0.0, 0.0, 1.0, 0
        while j < n - 1:
            end = min(marks[ENDS + at, j], n - 1)
            u = lists[at, j + 1] - lists[at, j]
            gone, keep = step_factors(u, k)
            if rings:
                pull = (lists[NEARER, end] - lists[NEARER, j]) * (u * keep / gone)
                pulled, bent = pulled + pull, bent + pull * u / gone
            little = abs(gone) < 0.5  # then near - near * gone rounds less than near * keep
            for i in range(j, end):
                far, mass = lists[at, i] - first, lists[weight, i] * near
                none, one, two = none + mass, one + mass * far, two + mass * far * far
                near = near - near * gone if little else near * keep
            j = end
        mass = lists[weight, n - 1] * near
        none, one, two = none + mass, one + mass * span, two + mass * span * span
        mean = one / none
        score, fall = mean - depth + pulled / hits, two / none - mean * mean + bent / hits
        to = k + (score / fall if fall > 0 else np.inf)
        if score > 0:
            low = k
        else:
            high = k
        close = abs(to - k) <= CLOSE * (abs(k) + 0.01 / span)
        k = to if close or low < to < high else (low + high) / 2
        if close or (rings and high * span < LEAST):
            break
    return k


@inner
def _fill(lists: Floats2, marks: Ints2, at: int, n: int, k: float, rings: bool) -> None:
    """The curve's shape at each distance, relative to the first, and d ln shape / dk; the last ring has no end."""
    near, first, j = 1.0, lists[at, 0], 0
    while j < n - 1:
        end = min(marks[ENDS + at, j], n - 1)
        u = lists[at, j + 1] - lists[at, j]
        gone, keep = step_factors(u, k)
        little, share, pull = abs(gone) < 0.5, 1.0, 0.0
        if rings:
            share, pull = gone, u * keep / gone
        for i in range(j, end):
            lists[SHAPE, i], lists[SLOPE, i] = near * share, pull - (lists[at, i] - first)
            near = near - near * gone if little else near * keep
        j = end
    lists[SHAPE, n - 1], lists[SLOPE, n - 1] = near, first - lists[at, n - 1]


@inner
def _finish(lists: Floats2, n: int, hits: float, k: float) -> Fit:
    """The fit and the expected counts; the information from slopes about their mean, so that nothing cancels."""
    mass, turn, spread = 0.0, 0.0, 0.0
    for j in range(n):
        w = lists[T, j] * lists[SHAPE, j]
        mass, turn = mass + w, turn + w * lists[SLOPE, j]
    near, mean = hits / mass, turn / mass
    for j in range(n):
        expected, slope = near * lists[T, j] * lists[SHAPE, j], lists[SLOPE, j] - mean
        lists[EXPECTED, j] = expected
        spread += expected * slope * slope
    return near, k, hits, mean, spread, n


@inner
def fit_likeliest(
    lists: Floats2, marks: Ints2, at: int, head: int, n: int, gap: float, rings: bool
) -> Fit:  # fmt: skip
    """Likeliest curve of N_i ~ Poisson(T_i A exp(-k x_i)), or of R_i ~ Poisson(T_i A s_i) with the s_i of rings.

    At n distances of list `at`; from the last of the first `head` on the counts are 0 and T is the same. gap: the
    smallest step between the distances. Rings at the far end that nothing reached, all with the same time at risk, add
    up to one that has no end: the fit takes no distance beyond it. Less than two distances with hits, and counts of
    rings that no falling curve explains best, have no fit.
    """
    counts, before, hits, depth, deepest, with_hits = R if rings else N, 0.0, 0.0, 0.0, 0, 0
    rates, deep = 0.0, 0.0
    for j in range(head):
        count, more, far = lists[counts, j], lists[T, j] - before, lists[at, j] - lists[at, 0]
        lists[MORE, j], lists[NEARER, j], before = more, hits, lists[T, j]
        rate = count / lists[T, j]
        hits, depth, rates, deep = hits + count, depth + count * far, rates + rate, deep + rate * far
        with_hits += count > 0
        if count > 0 or more != 0:
            deepest = j
    if with_hits < 2:
        return NONE
    low, high = 0.0, LOG_RANGE / gap
    if rings:
        n = deepest + 1 if lists[counts, deepest] > 0 and deepest + 1 < n else deepest
        n += 1
    else:
        low = -LOG_RANGE / (lists[at, n - 1] - lists[at, 0])
        for j in range(head, n):
            lists[T, j] = before
    # one over the depth of the rates, which lies half a step below the mean of an exponential
    start = 1.0 / (deep / rates + gap / 2)
    k = _root(lists, marks, at, n, rings, hits, depth / hits, start, low, high)
    if rings and not k * (lists[at, n - 1] - lists[at, 0]) >= LEAST:
        return NONE
    _fill(lists, marks, at, n, k, rings)
    return _finish(lists, n, hits, k)


@inner
def fit_logs(lists: Floats2, at: int, head: int) -> Fit:
    """Least squares of ln(N / T) on x, weighted by N, and its own errors; distances without hits fall out."""
    first, hits, depth, height = lists[at, 0], 0.0, 0.0, 0.0
    for j in range(head):
        count = lists[N, j]
        if count > 0:
            y = math.log(count / lists[T, j])
            lists[EXPECTED, j] = y
            hits, depth, height = hits + count, depth + count * (lists[at, j] - first), height + count * y
    mid, mean, spread, turn = depth / hits, height / hits, 0.0, 0.0
    for j in range(head):
        count, far = lists[N, j], lists[at, j] - first - mid
        if count > 0:
            spread, turn = spread + count * far * far, turn + count * far * (lists[EXPECTED, j] - mean)
    k = -turn / spread
    return math.exp(mean + k * mid), k, hits, -mid, spread, head
