"""Kernels: standard errors that bursts do not narrow: the sandwich, clustered over blocks of time.

A market's hits come in bursts, and hits at nested distances share prints; both make the counts vary
more than Poisson counts do, and the Fisher errors too small. Cut the span into blocks that are long
against a burst: with J the information and u_b the score of block b at the estimate, the covariance of
(ln A, k) is J^-1 (sum u_b u_b^T) J^-1 * B / (B - 1) (White 1982; Liang and Zeger 1986).

With the slopes d ln rate / dk taken about their mean, J is diagonal, and J^-1 u_b is how far block b pulls either
estimate. Distances at the far end that nothing reached and that were at risk alike count as one, with all their rates.
"""

from __future__ import annotations

import math

import numpy as np

from mmlab.calib.cells import NS_PER_S
from mmlab.calib.fit_layout import (
    BOTH,
    ENDS,
    HITS,
    INFORMATION,
    LEAST_BLOCKS,
    MEAN,
    PARTS,
    PLACES,
    PULLS,
    RATES,
    SCORE,
    SCORE_K,
    SHAPE,
    SLOPE,
    SPREAD,
    TIME,
    TURNS,
    N,
    T,
)  # fmt: skip
from mmlab.calib.likelihood import Fit, step_factors
from mmlab.core.kernels import inner
from mmlab.core.native import Floats, Floats2, Floats3, Ints, Ints2, Ints3


@inner
def clear(lists: Floats2, side: int, m: int) -> None:
    """A curve that makes nothing of a block, at the first m distances."""
    for row in (RATES, TURNS, PULLS, PARTS):
        for i in range(m):
            lists[row + side, i] = 0.0


@inner
def model_rings(lists: Floats2, marks: Ints2, side: int, at: int, head: int, n: int, fit: Fit) -> float:
    """What fitted rings make of a block; returns the information of k with the rings beyond the last of them cut apart.

    Those add, by parts, sum T s u pull(u) to sum T s g^2; over a run of even steps u the s add up by themselves.
    """
    near, k, _, mean, spread, m = fit
    _place(lists, marks, side, at, head, m, near, mean)
    added, j = 0.0, m - 1
    there = float(lists[SHAPE, j])
    while j < n - 1:
        end, u = marks[ENDS + at, j], lists[at, j + 1] - lists[at, j]
        gone, keep = step_factors(u, k)
        lost, left = step_factors(lists[at, end] - lists[at, j], k)
        added += float(lists[T, m - 1]) * there * lost * u * u * keep / (gone * gone)
        there, j = there * left, end
    return spread + near * added


@inner
def model_points(lists: Floats2, marks: Ints2, side: int, at: int, head: int, n: int, fit: Fit) -> None:
    """What a curve fitted to each distance by itself makes of a block: the head's last one counts for all beyond."""
    near, _, _, mean, _, _ = fit
    _place(lists, marks, side, at, head, head, near, mean)
    rates, turns = 0.0, 0.0
    for j in range(head - 1, n):
        rate = near * lists[SHAPE, j] / NS_PER_S
        rates, turns = rates + rate, turns + rate * (lists[SLOPE, j] - mean)
    last = marks[PLACES + at, head - 1]
    lists[RATES + side, last], lists[TURNS + side, last] = rates, turns


@inner
def model_logs(lists: Floats2, marks: Ints2, side: int, at: int, head: int, fit: Fit) -> None:
    """Least squares of logarithms: its score is that of the empirical rates, weighted by hits."""
    for j in range(head):
        lists[SHAPE, j], lists[SLOPE, j] = lists[N, j] / lists[T, j], lists[at, 0] - lists[at, j]
    _place(lists, marks, side, at, head, head, 1.0, fit[3])


@inner
def _place(lists: Floats2, marks: Ints2, side: int, at: int, head: int, m: int, near: float, mean: float) -> None:
    """Rates and slopes of the first m used distances, at their places among all; nothing is expected at the others."""
    for j in range(head):
        lists[PARTS + side, marks[PLACES + at, j]] = 1.0
    for j in range(m):
        i = marks[PLACES + at, j]
        rate, slope = near * lists[SHAPE, j] / NS_PER_S, lists[SLOPE, j] - mean
        lists[RATES + side, i], lists[TURNS + side, i], lists[PULLS + side, i] = rate, rate * slope, slope


@inner
def score_blocks(
    exposure: Ints3, counts: Ints3, edges: Ints, m: int, every: bool, lists: Floats2, scores: Floats3
) -> None:
    """The scores of a window's blocks, of each side, from the first m distances; every: all of them are used.

    exposure and counts: prefix sums of shape (n_buckets + 1, 2, n_deltas). edges: (n_blocks + 1,), in buckets.
    scores: (3, n_blocks or more, 4).
    """
    for b in range(edges.size - 1):
        a, z = edges[b], edges[b + 1]
        for what in range(4):
            scores[BOTH, b, what] = 0.0
        for q in range(2):
            own, own_k, both, both_k, hits, time = 0.0, 0.0, 0.0, 0.0, 0, 0
            for i in range(m):
                ns, count = exposure[z, q, i] - exposure[a, q, i], counts[z, q, i] - counts[a, q, i]
                hits, time = hits + count, time + ns
                t, c = float(ns), float(count)
                own, own_k = own + t * lists[RATES + q, i], own_k + (c * lists[PULLS + q, i] - t * lists[TURNS + q, i])
                both = both + t * lists[RATES + BOTH, i]
                both_k += c * lists[PULLS + BOTH, i] - t * lists[TURNS + BOTH, i]
            scores[q, b, SCORE], scores[q, b, SCORE_K], scores[q, b, HITS], scores[q, b, TIME] = -own, own_k, hits, time
            scores[BOTH, b, SCORE] -= both
            scores[BOTH, b, SCORE_K] += both_k
            scores[BOTH, b, HITS] += hits
            scores[BOTH, b, TIME] += time
        if not every:
            _count_used(exposure, counts, a, z, m, lists, scores, b)
        for side in range(3):
            scores[side, b, SCORE] += scores[side, b, HITS]


@inner
def _count_used(
    exposure: Ints3, counts: Ints3, a: int, z: int, m: int, lists: Floats2, scores: Floats3, b: int
) -> None:
    """Hits and time at risk of block b once more, where not all distances are used."""
    for side in range(3):
        hits, time = 0.0, 0.0
        for q in range(0 if side == BOTH else side, 2 if side == BOTH else side + 1):
            for i in range(m):
                hits += (counts[z, q, i] - counts[a, q, i]) * lists[PARTS + side, i]
                time += (exposure[z, q, i] - exposure[a, q, i]) * lists[PARTS + side, i]
        scores[side, b, HITS], scores[side, b, TIME] = hits, time


@inner
def keep_moments(moments: Floats, information: float, mean: float, spread: float) -> None:
    """A curve's information of ln A, mean slope in the units of x itself, and information of k, for `sandwich`."""
    moments[INFORMATION], moments[MEAN], moments[SPREAD] = information, mean, spread


@inner
def sandwich(scores: Floats2, n_blocks: int) -> tuple[float, float, int]:
    """Errors of ln A and of k, and blocks with time at risk; scores: of one side, and after them its moments.

    Where all hits lie in a few blocks, these say nothing of how blocks differ: the errors are nan.
    """
    n, hit, square, square_k = 0, 0, 0.0, 0.0
    information, mean, spread = scores[n_blocks, INFORMATION], scores[n_blocks, MEAN], scores[n_blocks, SPREAD]
    for b in range(n_blocks):
        n += scores[b, TIME] > 0
        hit += scores[b, HITS] > 0
        on_k = scores[b, SCORE_K] / spread
        on_log_A = scores[b, SCORE] / information - mean * on_k
        square, square_k = square + on_log_A * on_log_A, square_k + on_k * on_k
    if hit < LEAST_BLOCKS or n < 2:
        return np.nan, np.nan, n
    more_so = n / (n - 1)
    return math.sqrt(square * more_so), math.sqrt(square_k * more_so), n
