"""Sums -> curves: lambda(delta) = A exp(-k delta), for all windows and sides at once.

    poisson_mle  hits at each distance ~ Poisson(exposure * A exp(-k delta)). Handles distances
                 without hits. The hits at nested distances share prints, so its Fisher errors are too
                 small; those clustered over blocks of time are not.
    nested_mle   the same curve on disjoint rings, so that the errors are right: ring i holds the
                 prints whose depth lies in [delta_i, delta_i+1) and has the rate
                 lambda(delta_i) - lambda(delta_i+1); the last one lambda(delta_D).
    log_linear   least squares of ln(hits / exposure) on delta, weighted by hits (the variance of
                 ln(N / T) is 1 / N); distances without hits have no logarithm and fall out.

Both likelihoods have the form: N_i ~ Poisson(T_i A s_i(k)). Given k, A = sum N / sum T s, and the
score in k, sum N g - sum N * (sum T s g) / (sum T s) with g = d ln s / dk, has one root, found by
Newton steps kept inside a shrinking bracket. A power law A delta^-p is the same in ln delta.

Deviance, dispersion and likelihood are those of the disjoint counts under the likeliest curve of the
family, whatever estimator gave A and k, so that families can be compared and p-values hold: the rings of
nested probes, or the hits themselves where distances share nothing.

Rings under first_hit take it that a probe at 8 ticks is hit no sooner for the one at 5 having been hit.
In a market that moves it is: prints follow one another outwards, and the rings' rates add up to more than
was measured. `ring_excess` says by how much; nested_mle then overstates the intensity near the mid, and
poisson_mle, which takes each distance by itself, does not. Under sweeps and all_hits the rings add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmlab.calib.points import Floats, Window
from mmlab.calib.probes import Ints
from mmlab.calib.robust import clustered
from mmlab.calib.shapes import between as _between
from mmlab.calib.shapes import chi2_tail, head, shapes
from mmlab.calib.spec import FitSpec
from mmlab.core.kernels import kernel, unlocked
from mmlab.core.schemas import FIT_METHODS
from mmlab.core.spans import NS_PER_S

LOG_RANGE = 700.0  # exp(700) is still a double
Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
MOST_LISTED = 1 << 20
THREADS, LEAST_ROWS = 4, 100  # fits of this many windows are worth a thread
POISSON_MLE, LOG_LINEAR, NESTED_MLE = range(len(FIT_METHODS))
REASONS = (
    "",
    "fewer than two distances with enough exposure",
    "no hits",
    "all hits at one distance: k is not identified",
    "flat curve: k is not distinguishable from 0",
    "the likelihood has no maximum for k above 0",
)
# two-sided 95% quantile of Student's t, by the number of blocks; below two there is none
STUDENT95 = (
    math.nan, math.nan, 12.706204736432095, 4.302652729696142, 3.182446305284263, 2.7764451051977987,
    2.5705818366147395, 2.4469118487916806, 2.3646242510102993, 2.306004135033371, 2.2621571627409915,
    2.2281388519649385, 2.200985160082949, 2.1788128296634177, 2.1603686564610127, 2.1447866879169273,
    2.131449545559323,
)  # fmt: skip
OK, FEW_POINTS, NO_HITS, ONE_DISTANCE, FLAT, NO_MAXIMUM = range(len(REASONS))
A_, K_, SE_LOG_A, SE_K, DEVIANCE, DISPERSION, LIKELIHOOD, RING_EXCESS, P_VALUE = range(9)


@dataclass(frozen=True)
class Curve:
    """Fitted curves, each array of shape (n_windows, 3 sides); k is the exponent for a power law.

    ring_excess: what the rings' rates add up to over the rate at the nearest distance, less 1; nan where not nested.
    se_*_robust are nan below LEAST_BLOCKS blocks of time; `t95` is the quantile that belongs to them.
    """

    A: Floats
    k: Floats
    se_log_A: Floats
    se_k: Floats
    deviance: Floats
    dispersion: Floats
    log_likelihood: Floats
    ring_excess: Floats
    p_value: Floats
    points_used: Ints
    nearest_hits: Ints
    reason: Ints
    se_log_A_robust: Floats
    se_k_robust: Floats
    blocks: Ints

    @property
    def t95(self) -> Floats:
        """Two-sided 95% quantile for errors clustered over `blocks`: Student's t with blocks - 1."""
        return np.asarray(np.array(STUDENT95)[self.blocks], np.float64)


def curves(
    window: Window, deltas: tuple[float, ...], spec: FitSpec, nested: bool = True, power_law: bool = False
) -> Curve:
    """Fit every (window, side) on the distances whose exposure reaches `min_exposure_s`.

    nested: the distances' hits share prints (all probes at once) and `rings` are disjoint; otherwise each
    distance was measured by itself and `rings` are its hits. power_law: A delta^-k instead of A exp(-k delta).
    """
    x = np.array(deltas, np.float64)
    x = np.log(x) if power_law else x
    method = FIT_METHODS.index(spec.fit_method)
    m = _reached(window.exposure, window.hit) if nested else len(deltas)
    exposure, hit, ring = (a[:, :, :m] for a in (window.exposure, window.hit, window.ring))
    counts = ring if method == NESTED_MLE else hit
    sums = (exposure, hit, ring, counts)
    tables = _count_tables(int(window.ring[-1].sum(axis=0).max(initial=0)))
    how = (nested, method == NESTED_MLE and nested, method == LOG_LINEAR)

    def fitted(part: slice) -> tuple[Floats, Ints, Floats, Ints]:
        spans = (window.first[part], window.last[part])
        real, whole = _fit_all(sums, spans, x, spec.min_exposure_s, method, nested, tables)
        return real, whole, *clustered(real, (exposure, counts), window.edges[part], x, spec.min_exposure_s, how)

    real, whole, errors, blocks = in_threads(fitted, window.first.size)
    return _curve(real, whole, errors, blocks)


def in_threads(work: Callable[[slice], tuple[Any, ...]], n: int) -> list[Any]:
    """`work` on the rows 0 .. n in slices, at once where there are many; its arrays joined in order.

    Each row's result depends on that row alone, so that the number of threads leaves no trace.
    """
    size = max(-(-n // THREADS), LEAST_ROWS)
    slices = [slice(at, at + size) for at in range(0, max(n, 1), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(work, slices)) if len(slices) > 1 else [work(slices[0])]
    return [np.concatenate(arrays) for arrays in zip(*made, strict=True)]


def _reached(exposure: Ints, hit: Ints) -> int:
    """How many distances there are up to the first that stands for all beyond it: unhit, and always at risk alike."""
    unlike = (exposure != exposure[:, :, -1:]).any(axis=(0, 1)) | (hit[-1] != hit[0]).any(axis=0)
    deepest = np.flatnonzero(unlike)
    return min(int(deepest[-1]) + 2 if deepest.size else 1, int(hit.shape[2]))


def _curve(real: Floats, whole: Ints, robust: Floats, blocks: Ints) -> Curve:
    """The kernels' figures as a Curve; a k that the robust errors do not tell from 0 is flat."""
    A, k, se_log_A, se_k, deviance, dispersion, likelihood, excess, p_value = (real[:, :, i] for i in range(9))
    points_used, nearest_hits, reason = (whole[:, :, i] for i in range(3))
    made = Curve(
        A, k, se_log_A, se_k, deviance, dispersion, likelihood, excess, p_value, points_used, nearest_hits,
        reason,        robust[:, :, 0], robust[:, :, 1], blocks,
    )  # fmt: skip
    flat = (reason == OK) & (k - made.t95 * made.se_k_robust <= 0)
    return replace(made, reason=np.where(flat, FLAT, reason))


def _count_tables(most: int) -> tuple[Floats, Floats]:
    """n ln n and ln n! for n = 0 .. `most`, or as far as a table is worth it."""
    n = np.arange(min(most, MOST_LISTED) + 1, dtype=np.float64)
    logs = np.log(np.maximum(n, 1.0))
    return n * logs, np.cumsum(logs)


@unlocked
def _fit_all(
    sums: tuple[Ints, Ints, Ints, Ints], spans: tuple[Ints, Ints], x: Floats, min_exposure_s: float,
    method: int, nested: bool, tables: tuple[Floats, Floats],
) -> tuple[Floats, Ints]:  # fmt: skip
    """Window by window, both sides first, then each: figures (A_ ..), and points used, nearest hits, reason.

    `sums` are prefix sums of exposure, hits, rings and the counts to fit, (n_buckets + 1, 2, m); beyond the
    m-th distance all is as at the m-th, where nothing was hit.
    """
    first, last = spans
    n_windows, n_deltas, m = first.size, x.size, sums[0].shape[2]
    real, whole = np.full((n_windows, 3, 9), np.nan), np.zeros((n_windows, 3, 3), np.int64)
    T, N, R, at = np.empty(n_deltas), np.empty(n_deltas), np.empty(n_deltas), np.empty(n_deltas)
    for w in range(n_windows):
        a, z = first[w], last[w]
        for side in (2, 0, 1):
            n, exposure_s = 0, 0.0
            for i in range(n_deltas):
                if i < m:
                    exposure_s = _between(sums[0], a, z, side, i) / NS_PER_S
                if exposure_s > 0.0 and exposure_s >= min_exposure_s:
                    T[n], at[n], N[n], R[n] = exposure_s, x[i], 0.0, 0.0
                    if i < m:
                        R[n] = _between(sums[2], a, z, side, i)
                        N[n] = R[n] if method == NESTED_MLE else _between(sums[3], a, z, side, i)
                    if n == 0:
                        whole[w, side, 1] = _between(sums[1], a, z, side, min(i, m - 1))
                    n += 1
            whole[w, side, 0] = n
            guess = real[w, 2, K_]  # the two sides are alike: both's k is a good start for each
            out = real[w, side]
            whole[w, side, 2] = _fit_one(T[:n], N[:n], R[:n], at[:n], method, nested, guess, tables, out)
            if nested and whole[w, side, 1] > 0:
                added = 0.0
                for i in range(n):
                    added += R[i] / T[i]
                out[RING_EXCESS] = added / (whole[w, side, 1] / T[0]) - 1.0
    return real, whole


@kernel
def _fit_one(
    T: Floats, N: Floats, R: Floats, x: Floats, method: int, nested: bool, guess: float,
    tables: tuple[Floats, Floats], out: Floats,
) -> int:  # fmt: skip
    """Fit one curve into `out`; returns the reason why it is not identified (0: it is)."""
    if x.size < 2:
        return FEW_POINTS
    with_hits = _positive(N)
    if with_hits < 2:
        return NO_HITS if with_hits == 0 else ONE_DISTANCE
    # rings that nothing reached, all with the same time at risk, add up to one that has no end: the sums telescope
    m = head(T, R) if nested else x.size
    best = np.full(out.size, np.nan)  # the likeliest curve of the disjoint counts
    if nested and _positive(R) > 1:
        _likelihood(T[:m], R[:m], x[:m], True, guess, best)
    elif not nested and method == LOG_LINEAR:
        _likelihood(T, N, x, False, guess, best)
    if method == LOG_LINEAR:
        _log_linear(T, N, x, out)
    elif nested and method == NESTED_MLE:
        out[:] = best
    else:
        _likelihood(T, N, x, False, best[K_], out)
    if np.isnan(out[K_]):
        return NO_MAXIMUM
    _goodness(T[:m], R[:m], x[:m], x.size - 2, nested, best if nested or method == LOG_LINEAR else out, tables, out)
    return OK if out[K_] - Z95 * out[SE_K] > 0.0 else FLAT


@kernel
def _positive(N: Floats) -> int:
    """How many are above 0."""
    n = 0
    for i in range(N.size):
        n += N[i] > 0
    return n


@kernel
def _likelihood(T: Floats, N: Floats, x: Floats, nested: bool, guess: float, out: Floats) -> None:
    """Maximum likelihood: the root in k of the profile score, and its errors; `out` stays as it is if there is none."""
    n, total, depth, span, gap = x.size, 0.0, 0.0, x[-1] - x[0], np.inf
    for i in range(n):
        total, depth = total + N[i], depth + N[i] * (x[i] - x[0] + span / (2 * (n - 1)))
        gap = min(gap, x[i] - x[i - 1]) if i > 0 else gap
    low, high = (0.0 if nested else -LOG_RANGE / span), LOG_RANGE / gap
    s, g = np.empty(n), np.empty(n)
    k: float = guess if guess > 0.0 else total / depth  # the mean depth is about 1 / k
    for _ in range(300):
        shapes(x, k, nested, s, g)
        w, wg, wgg, Ng = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            ts = T[i] * s[i]
            w, wg, wgg, Ng = w + ts, wg + ts * g[i], wgg + ts * g[i] * g[i], Ng + N[i] * g[i]
        score, spread = Ng / total - wg / w, wgg / w - (wg / w) ** 2
        newton = score / spread if spread > 0 else np.inf
        if abs(newton) <= 1e-10 * abs(k):  # quadratic: the next step would be far below the last digit
            k = k + newton
            break
        low, high = (k, high) if score > 0 else (low, k)
        k = k + newton if low < k + newton < high else (low + high) / 2
    if k * span < 1e-9 and nested:
        return
    shapes(x, k, nested, s, g)
    mass, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        mass += T[i] * s[i]
    A = total / mass
    for i in range(n):
        mu, slope = T[i] * s[i] * A, g[i] - x[0]
        s0, s1, s2 = s0 + mu, s1 + mu * slope, s2 + mu * slope * slope
    det = s0 * s2 - s1 * s1  # Fisher information of (ln A, k)
    out[SE_LOG_A], out[SE_K] = np.sqrt(s2 / det), np.sqrt(s0 / det)
    out[A_], out[K_] = A * np.exp(k * x[0]), k


@kernel
def _log_linear(T: Floats, N: Floats, x: Floats, out: Floats) -> None:
    """Least squares of ln(N / T) on x with weights N, and its own errors."""
    w, wx, wy, wxx, wxy = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        if N[i] > 0:
            y = np.log(N[i] / T[i])
            w, wx, wy = w + N[i], wx + N[i] * x[i], wy + N[i] * y
            wxx, wxy = wxx + N[i] * x[i] ** 2, wxy + N[i] * x[i] * y
    det = w * wxx - wx * wx
    k = -(w * wxy - wx * wy) / det
    out[A_], out[K_], out[SE_LOG_A], out[SE_K] = np.exp((wy + k * wx) / w), k, np.sqrt(wxx / det), np.sqrt(w / det)


@kernel
def _goodness(
    T: Floats, R: Floats, x: Floats, freedom: int, nested: bool, at: Floats, tables: tuple[Floats, Floats], out: Floats
) -> None:
    """Deviance, Pearson dispersion and log-likelihood of the disjoint counts R under `at`, their own best curve.

    Another estimator's curve, however good, would look as if its shape were wrong.
    """
    n = x.size
    s, g = np.empty(n), np.empty(n)
    if np.isnan(at[K_]):
        return  # no curve that falls
    shapes(x, at[K_], nested, s, g)
    near = at[A_] * np.exp(-at[K_] * x[0])
    deviance, pearson, likelihood = 0.0, 0.0, 0.0
    for i in range(n):
        mu = T[i] * near * s[i]
        if mu <= 0.0:
            if R[i] > 0:
                return
            continue
        log_mu, count = np.log(mu), int(R[i])
        listed = count < tables[0].size
        n_log_n = tables[0][count] if listed else R[i] * np.log(R[i])
        log_factorial = tables[1][count] if listed else math.lgamma(R[i] + 1.0)
        deviance += 2.0 * (n_log_n - R[i] * log_mu - (R[i] - mu))
        pearson += (R[i] - mu) ** 2 / mu
        likelihood += R[i] * log_mu - mu - log_factorial
    out[DEVIANCE], out[LIKELIHOOD] = deviance, likelihood
    if freedom > 0:
        out[DISPERSION], out[P_VALUE] = pearson / freedom, chi2_tail(freedom, deviance)
