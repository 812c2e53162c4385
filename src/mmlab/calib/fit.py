"""Sums -> `fits`: lambda(delta) = A exp(-k delta), for all windows and sides at once.

    poisson_mle  hits at each distance ~ Poisson(exposure * A exp(-k delta)). Handles distances
                 without hits. The hits at nested distances share prints, so its errors are too small.
    nested_mle   the same curve on disjoint rings, so that the errors are right: ring i holds the
                 prints whose depth lies in [delta_i, delta_i+1) and has the rate
                 lambda(delta_i) - lambda(delta_i+1); the last one lambda(delta_D).
    log_linear   least squares of ln(hits / exposure) on delta, weighted by hits (the variance of
                 ln(N / T) is 1 / N); distances without hits have no logarithm and fall out.

Both likelihoods have the form: N_i ~ Poisson(T_i A s_i(k)). Given k, A = sum N / sum T s, and the
score in k, sum N g - sum N * (sum T s g) / (sum T s) with g = d ln s / dk, has one root, found by
Newton steps kept inside a shrinking bracket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from mmlab.calib.points import Window
from mmlab.calib.probes import Ints
from mmlab.calib.spec import FitSpec
from mmlab.core.schemas import FIT_METHODS, FITS, QUOTE_SIDES
from mmlab.core.spans import NS_PER_S

Floats = npt.NDArray[np.float64]
LOG_RANGE = 700.0  # exp(700) is still a double
Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
POISSON_MLE, LOG_LINEAR, NESTED_MLE = range(len(FIT_METHODS))
REASONS = (
    "",
    "fewer than two distances with enough exposure",
    "no hits",
    "all hits at one distance: k is not identified",
    "flat curve: k is not distinguishable from 0",
    "the likelihood has no maximum for k above 0",
)
OK, FEW_POINTS, NO_HITS, ONE_DISTANCE, FLAT, NO_MAXIMUM = range(len(REASONS))


@dataclass(frozen=True)
class Curve:
    """Fitted curves, each array of shape (n_windows, 3 sides)."""

    A: Floats
    k: Floats
    se_log_A: Floats
    se_k: Floats
    deviance: Floats
    dispersion: Floats
    points_used: Ints
    nearest_hits: Ints
    reason: Ints


def curves(window: Window, deltas: tuple[int, ...], spec: FitSpec) -> Curve:
    """Fit every (window, side) on the distances whose exposure reaches `min_exposure_s`."""
    shape = window.hits.shape[:2]
    flat = (-1, len(deltas))
    real, whole = _fit_all(
        window.hits.reshape(flat),
        window.rings.reshape(flat),
        window.exposure_ns.reshape(flat) / NS_PER_S,
        np.array(deltas, np.float64),
        spec.min_exposure_s,
        FIT_METHODS.index(spec.fit_method),
    )
    A, k, se_log_A, se_k, deviance, dispersion = (real[:, i].reshape(shape) for i in range(6))
    points_used, nearest_hits, reason = (whole[:, i].reshape(shape) for i in range(3))
    return Curve(A, k, se_log_A, se_k, deviance, dispersion, points_used, nearest_hits, reason)


def fits(
    curve: Curve, window: Window, train_start_ns: Ints, train_end_ns: Ints, spec: FitSpec, count_rule: str
) -> pl.DataFrame:
    """The `fits` table: one row per window and side."""
    n = train_start_ns.size
    log_A = np.log(curve.A)
    frame = pl.DataFrame(
        {
            "train_start_ns": np.repeat(train_start_ns, 3),
            "train_end_ns": np.repeat(train_end_ns, 3),
            "side": list(QUOTE_SIDES) * n,
            "A": curve.A.ravel(),
            "k": curve.k.ravel(),
            "se_log_A": curve.se_log_A.ravel(),
            "se_k": curve.se_k.ravel(),
            "A_low": np.exp(log_A - Z95 * curve.se_log_A).ravel(),
            "A_high": np.exp(log_A + Z95 * curve.se_log_A).ravel(),
            "k_low": (curve.k - Z95 * curve.se_k).ravel(),
            "k_high": (curve.k + Z95 * curve.se_k).ravel(),
            "deviance": curve.deviance.ravel(),
            "dispersion": curve.dispersion.ravel(),
            "points_used": curve.points_used.ravel(),
            "fills_total": curve.nearest_hits.ravel(),
            "exposure_s": np.repeat(window.covered_ns / NS_PER_S, 3),
            "ok": (curve.reason == OK).ravel(),
            "reason": [REASONS[r] for r in curve.reason.ravel()],
        }
    ).with_columns(fit_method=pl.lit(spec.fit_method), count_rule=pl.lit(count_rule))
    finite = [pl.col(c.name).fill_nan(None) for c in FITS.columns if c.dtype == pl.Float64]
    return FITS.conform(frame.with_columns(finite))


@njit(cache=True)
def _fit_all(
    hits: Ints, rings: Ints, exposure_s: Floats, deltas: Floats, min_exposure_s: float, method: int
) -> tuple[Floats, Ints]:
    """Row by row: (A, k, se_log_A, se_k, deviance, dispersion) and (points used, nearest hits, reason)."""
    n_rows, n_deltas = hits.shape
    real, whole = np.full((n_rows, 6), np.nan), np.zeros((n_rows, 3), np.int64)
    T, N, x = np.empty(n_deltas), np.empty(n_deltas), np.empty(n_deltas)
    for row in range(n_rows):
        n = 0
        for i in range(n_deltas):
            if exposure_s[row, i] > 0.0 and exposure_s[row, i] >= min_exposure_s:
                T[n], x[n] = exposure_s[row, i], deltas[i]
                N[n] = rings[row, i] if method == NESTED_MLE else hits[row, i]
                whole[row, 1] = hits[row, i] if n == 0 else whole[row, 1]
                n += 1
        whole[row, 0] = n
        whole[row, 2] = _fit_one(T[:n], N[:n], x[:n], method, real[row])
    return real, whole


@njit(cache=True)
def _fit_one(T: Floats, N: Floats, x: Floats, method: int, out: Floats) -> int:
    """Fit one curve into `out`; returns the reason why it is not identified (0: it is)."""
    if x.size < 2:
        return FEW_POINTS
    if N.sum() == 0:
        return NO_HITS
    if (N > 0).sum() < 2:
        return ONE_DISTANCE
    k = _log_linear(T, N, x, out) if method == LOG_LINEAR else _likelihood(T, N, x, method == NESTED_MLE, out)
    if np.isnan(k):
        return NO_MAXIMUM
    return OK if out[1] - Z95 * out[3] > 0.0 else FLAT


@njit(cache=True)
def _shape(x: Floats, i: int, k: float, nested: bool) -> tuple[float, float]:
    """s_i(k), and g_i = d ln s_i / dk, relative to the first distance so that nothing underflows early."""
    near = x[i] - x[0]
    if not nested or i + 1 == x.size:
        return np.exp(-k * near), -near
    width = x[i + 1] - x[i]
    gone = -np.expm1(-k * width)
    return np.exp(-k * near) * gone, width * (1.0 - gone) / gone - near


@njit(cache=True)
def _likelihood(T: Floats, N: Floats, x: Floats, nested: bool, out: Floats) -> float:
    """Maximum likelihood: the root in k of the profile score; returns k, nan if there is none."""
    n, total, span, gap = x.size, N.sum(), x[-1] - x[0], np.diff(x).min()
    low, high = (0.0 if nested else -LOG_RANGE / span), LOG_RANGE / gap
    k: float = _line(T, N, x)[1]  # a good start: the straight line through the logarithms
    k = k if k > low else 1.0 / span
    for _ in range(300):
        w, wg, wgg, Ng = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            s, g = _shape(x, i, k, nested)
            w, wg, wgg, Ng = w + T[i] * s, wg + T[i] * s * g, wgg + T[i] * s * g * g, Ng + N[i] * g
        score, spread = Ng / total - wg / w, wgg / w - (wg / w) ** 2
        newton = score / spread if spread > 0 else np.inf
        if abs(newton) <= 1e-12 * abs(k):
            break
        low, high = (k, high) if score > 0 else (low, k)
        k = k + newton if low < k + newton < high else (low + high) / 2
    if k * span < 1e-9 and nested:
        return np.nan
    mu, grad, mass = np.empty(n), np.empty(n), 0.0
    for i in range(n):
        s, g = _shape(x, i, k, nested)
        mu[i], grad[i], mass = T[i] * s, g - x[0], mass + T[i] * s
    _errors(mu * (total / mass), N, grad, out)
    out[0], out[1] = total / mass * np.exp(k * x[0]), k
    return k


@njit(cache=True)
def _line(T: Floats, N: Floats, x: Floats) -> tuple[float, float, float, float]:
    """Least squares of ln(N / T) on x with weights N: ln A, k and their standard errors."""
    w, wx, wy, wxx, wxy = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        if N[i] > 0:
            y = np.log(N[i] / T[i])
            w, wx, wy, wxx, wxy = (
                w + N[i],
                wx + N[i] * x[i],
                wy + N[i] * y,
                wxx + N[i] * x[i] ** 2,
                wxy + N[i] * x[i] * y,
            )
    det = w * wxx - wx * wx
    k = -(w * wxy - wx * wy) / det
    return (wy + k * wx) / w, k, np.sqrt(wxx / det), np.sqrt(w / det)


@njit(cache=True)
def _log_linear(T: Floats, N: Floats, x: Floats, out: Floats) -> float:
    """Weighted least squares of the logarithms; returns k."""
    log_A, k, se_log_A, se_k = _line(T, N, x)
    _errors(np.exp(log_A - k * x) * T, N, -x, out)
    out[0], out[1], out[2], out[3] = np.exp(log_A), k, se_log_A, se_k
    return k


@njit(cache=True)
def _errors(mu: Floats, N: Floats, g: Floats, out: Floats) -> None:
    """Standard errors from the Fisher information of (ln A, k), deviance and Pearson dispersion."""
    s0, s1, s2, deviance, pearson = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(mu.size):
        s0, s1, s2 = s0 + mu[i], s1 + mu[i] * g[i], s2 + mu[i] * g[i] * g[i]
        deviance += 2.0 * ((N[i] * np.log(N[i] / mu[i]) if N[i] > 0 else 0.0) - (N[i] - mu[i]))
        pearson += (N[i] - mu[i]) ** 2 / mu[i]
    det = s0 * s2 - s1 * s1
    out[2], out[3] = np.sqrt(s2 / det), np.sqrt(s0 / det)
    out[4] = deviance
    out[5] = pearson / (mu.size - 2) if mu.size > 2 else np.nan
