"""Kernels: the fits of all windows and sides, see fit.py. Rows are independent of each other, to the last bit."""

from __future__ import annotations

import math

import numpy as np

from mmlab.calib.cells import add_up, choose, lay_out, reached
from mmlab.calib.fit_layout import (
    BLOCKS_AT_RISK,
    BOTH,
    DEVIANCE,
    DISPERSION,
    EVERY,
    EXCESS,
    FEW_POINTS,
    LIKELIHOOD,
    LOG_LINEAR,
    NEAREST_HITS,
    NESTED_MLE,
    NO_HITS,
    NO_MAXIMUM,
    OK,
    ONE_DISTANCE,
    P_VALUE,
    PLACES,
    POINTS_USED,
    POISSON_MLE,
    REASON,
    SE_K,
    SE_K_ROBUST,
    SE_LOG_A,
    SE_LOG_A_ROBUST,
    A,
    K,
    N,
    R,
    T,
)  # fmt: skip
from mmlab.calib.goodness import chi2_tail, figures
from mmlab.calib.likelihood import NONE, fit_likeliest, fit_logs
from mmlab.calib.robust import clear, keep_moments, model_logs, model_points, model_rings, sandwich, score_blocks
from mmlab.core.kernels import inner
from mmlab.core.native import Floats, Floats2, Floats3, Ints, Ints2, Ints3
from mmlab.core.object_code import entry


@entry
def fit_windows(
    first: Ints, last: Ints, edges: Ints2, exposure: Ints3, hit: Ints3, ring: Ints3, counts: Ints3,
    least_s: float, method: int, nested: bool, table: Floats2, lists: Floats2, marks: Ints2, scores: Floats3,
    floats: Floats3, whole: Ints3,
) -> int:  # fmt: skip
    """Figures of windows [first, last) of buckets into `floats`, (n_windows, 3, 11), and `whole`, (n_windows, 3, 4).

    exposure, hit, ring and the counts to fit: prefix sums as points.Window has them; edges: (n_windows, n_blocks + 1).
    least_s: seconds at risk for a distance to be used. table: logarithms, see goodness.py. floats holds nan, whole 0.
    Lent: lists and marks, see cells.py, the first list holding the distances; scores, (3, n_blocks + 1, 4).
    """
    gap, n_blocks = lay_out(lists, marks), edges.shape[1] - 1
    for w in range(first.size):
        a, z = first[w], last[w]
        m = reached(exposure, ring, counts, a, z) if nested else exposure.shape[2]
        add_up(exposure, ring, counts, a, z, m, marks)
        n_whole, found = 0, False
        for side in range(3):
            at, head, n, step = choose(lists, marks, side, m, least_s, gap)
            out, whole_out = floats[w, side], whole[w, side]
            whole_out[POINTS_USED] = n
            n_whole += at == EVERY
            if n > 0:
                whole_out[NEAREST_HITS] = _between(hit, a, z, side, marks[PLACES + at, 0])
            if nested and whole_out[NEAREST_HITS] > 0:
                out[EXCESS] = _ring_excess(lists, head, whole_out[NEAREST_HITS])
            clear(lists, side, m)
            whole_out[REASON] = _unknown(lists, head, n)
            if whole_out[REASON] == OK:
                _fit(lists, marks, side, at, head, n, step, method, nested, table, scores[side, n_blocks], out)
                whole_out[REASON] = NO_MAXIMUM if math.isnan(out[K]) else OK
            found = found or whole_out[REASON] == OK
        if found:
            score_blocks(exposure, counts, edges[w], m, n_whole == 3, lists, scores)
        for side in range(3):
            if whole[w, side, REASON] == OK:
                errors = sandwich(scores[side], n_blocks)
                floats[w, side, SE_LOG_A_ROBUST], floats[w, side, SE_K_ROBUST], whole[w, side, BLOCKS_AT_RISK] = errors
    return 0


@inner
def _between(prefix: Ints3, a: int, z: int, side: int, i: int) -> int:
    """The sum over buckets [a, z) at distance i."""
    total: int = 0
    for q in range(2):
        total += prefix[z, q, i] - prefix[a, q, i] if side in (q, BOTH) else 0
    return total


@inner
def _ring_excess(lists: Floats2, head: int, nearest_hits: int) -> float:
    """What the rings' rates add up to over the rate at the nearest distance, less 1."""
    added, seconds = 0.0, float(lists[T, 0])
    for j in range(head):
        added += lists[R, j] / lists[T, j]
    return added / (nearest_hits / seconds) - 1.0


@inner
def _unknown(lists: Floats2, head: int, n: int) -> int:
    """Why the counts at the used distances identify no curve; OK if they may."""
    if n < 2:
        return FEW_POINTS
    with_hits = 0
    for j in range(head):
        with_hits += lists[N, j] > 0
    return OK if with_hits > 1 else ONE_DISTANCE if with_hits == 1 else NO_HITS


@inner
def _fit(
    lists: Floats2, marks: Ints2, side: int, at: int, head: int, n: int, step: float, method: int, nested: bool,
    table: Floats2, moments: Floats, out: Floats,
) -> None:  # fmt: skip
    """One curve into `out`, and what it makes of blocks of time into `lists` and `moments`; see choose, fit_likeliest.

    Whatever the estimator, how well its family fits is that of the likeliest curve of the disjoint counts.
    """
    fit = NONE
    for rings in (True, False):
        if nested if rings else method == POISSON_MLE or not nested:
            fit = fit_likeliest(lists, marks, at, head, n, step, rings)
            if rings == nested and not math.isnan(fit[1]):
                out[DEVIANCE], pearson, out[LIKELIHOOD] = figures(lists, fit[5], table)
                out[DISPERSION] = pearson / (n - 2) if n > 2 else np.nan
                out[P_VALUE] = chi2_tail(n - 2, out[DEVIANCE]) if n > 2 else np.nan
    if method == LOG_LINEAR:
        fit = fit_logs(lists, at, head)
        model_logs(lists, marks, side, at, head, fit)
    if math.isnan(fit[1]):
        for figure in (DEVIANCE, DISPERSION, LIKELIHOOD, P_VALUE):
            out[figure] = np.nan
        return
    near, k, information, mean, spread, _ = fit
    mean -= lists[at, 0]
    out[A], out[K] = near * math.exp(k * lists[at, 0]), k
    out[SE_LOG_A], out[SE_K] = math.sqrt(1 / information + mean * mean / spread), math.sqrt(1 / spread)
    if method == NESTED_MLE and nested:
        spread = model_rings(lists, marks, side, at, head, n, fit)
    elif method != LOG_LINEAR:
        model_points(lists, marks, side, at, head, n, fit)
    keep_moments(moments, information, mean, spread)
