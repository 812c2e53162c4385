"""Kernels: the sums over one window, and of them what is fitted for one side: the used distances, nearest first.

What kernels keep on the way lies in arrays that the caller lends, `lists` (N_LISTS, n_deltas) and `marks` (N_MARKS,
n_deltas), numbered in fit_layout.py. Distances at the far end that nothing reached, all at risk alike, need no sums of
their own: only the first `m` have them, the last of which stands for all beyond it.
"""

from __future__ import annotations

import math

from mmlab.calib.fit_layout import AT_RISK, BOTH, COUNTS, DISJOINT, ENDS, EVERY, PLACES, USED, N, R, T
from mmlab.core.kernels import inner
from mmlab.core.native import Floats2, Ints2, Ints3

NS_PER_S = 1e9


@inner
def lay_out(lists: Floats2, marks: Ints2) -> float:
    """What holds where every distance is used; the distances stand in `lists`. Returns the smallest step."""
    for i in range(lists.shape[1]):
        marks[PLACES + EVERY, i] = i
    return _runs(lists, marks, EVERY, lists.shape[1])


@inner
def _runs(lists: Floats2, marks: Ints2, at: int, n: int) -> float:
    """Where runs of even steps end, for the n distances of list `at`; returns the smallest step."""
    least, following = math.inf, math.nan
    marks[ENDS + at, n - 1] = n - 1
    for j in range(n - 2, -1, -1):
        step = float(lists[at, j + 1] - lists[at, j])
        marks[ENDS + at, j] = marks[ENDS + at, j + 1] if step == following else j + 1
        least, following = min(least, step), step
    return least


@inner
def reached(exposure: Ints3, ring: Ints3, counts: Ints3, a: int, z: int) -> int:
    """How many distances there are up to the first that stands for all beyond it: unhit, and at risk alike.

    Prefix sums of shape (n_buckets + 1, 2, n_deltas); the window is buckets [a, z).
    """
    n, deepest = exposure.shape[2], 0
    bid, ask = exposure[z, 0, n - 1] - exposure[a, 0, n - 1], exposure[z, 1, n - 1] - exposure[a, 1, n - 1]
    for i in range(n):
        unlike = (exposure[z, 0, i] - exposure[a, 0, i] - bid) | (exposure[z, 1, i] - exposure[a, 1, i] - ask)
        unlike |= (ring[z, 0, i] - ring[a, 0, i]) | (ring[z, 1, i] - ring[a, 1, i])
        unlike |= (counts[z, 0, i] - counts[a, 0, i]) | (counts[z, 1, i] - counts[a, 1, i])
        deepest = max(deepest, (i + 1) * (unlike != 0))
    return min(deepest + 1, int(n))


@inner
def add_up(exposure: Ints3, ring: Ints3, counts: Ints3, a: int, z: int, m: int, marks: Ints2) -> None:
    """The sums over buckets [a, z) at the first m distances, of each side and of both."""
    for q in range(2):
        for i in range(m):
            marks[AT_RISK + q, i] = exposure[z, q, i] - exposure[a, q, i]
            marks[COUNTS + q, i] = counts[z, q, i] - counts[a, q, i]
            marks[DISJOINT + q, i] = ring[z, q, i] - ring[a, q, i]
    for row in (AT_RISK, COUNTS, DISJOINT):
        for i in range(m):
            marks[row + BOTH, i] = marks[row, i] + marks[row + 1, i]


@inner
def choose(lists: Floats2, marks: Ints2, side: int, m: int, least_s: float, gap: float) -> tuple[int, int, int, float]:
    """T, N and R at the used distances of one side: those with time at risk, and `least_s` of it.

    Returns the list that holds these distances, how many of the first m are used, how many of all, and the smallest
    step between them; gap: that between all distances.
    """
    n_deltas, n = lists.shape[1], 0
    for i in range(m):
        seconds = marks[AT_RISK + side, i] / NS_PER_S
        lists[T, i], lists[N, i], lists[R, i] = seconds, marks[COUNTS + side, i], marks[DISJOINT + side, i]
        n += seconds > 0 and seconds >= least_s
    if n == m:
        return EVERY, m, n_deltas, gap
    head, j = n, 0
    for i in range(m):
        seconds = lists[T, i]
        if seconds > 0 and seconds >= least_s:
            lists[T, j], lists[N, j], lists[R, j] = seconds, lists[N, i], lists[R, i]
            lists[USED, j], marks[PLACES + USED, j] = lists[EVERY, i], i
            j += 1
    if head > 0 and marks[PLACES + USED, head - 1] == m - 1:
        n += n_deltas - m
        for i in range(m, n_deltas):
            lists[USED, head + i - m] = lists[EVERY, i]
    return USED, head, n, _runs(lists, marks, USED, n) if n > 1 else gap
