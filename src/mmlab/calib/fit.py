"""Sums -> curves: lambda(delta) = A exp(-k delta), for all windows and sides at once.

    poisson_mle  hits at each distance ~ Poisson(exposure * A exp(-k delta)). Handles distances
                 without hits. The hits at nested distances share prints, so its Fisher errors are too
                 small; those clustered over blocks of time are not.
    nested_mle   the same curve on disjoint rings, so that the errors are right: ring i holds the
                 prints whose depth lies in [delta_i, delta_i+1) and has the rate
                 lambda(delta_i) - lambda(delta_i+1); the last one lambda(delta_D).
    log_linear   least squares of ln(hits / exposure) on delta, weighted by hits (the variance of
                 ln(N / T) is 1 / N); distances without hits have no logarithm and fall out.

Both likelihoods have the form: N_i ~ Poisson(T_i A s_i(k)); likelihood.py finds their maximum. A power law
A delta^-p is the same in ln delta.

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmlab.calib.fit_layout import FLAT, N_FLOATS, N_LISTS, N_MARKS, N_SCORES, N_WHOLE, NESTED_MLE, NO_HITS, OK
from mmlab.calib.points import Window
from mmlab.calib.spec import FitSpec
from mmlab.core.native import Floats, Ints, native
from mmlab.core.schemas import FIT_METHODS

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
SLICE, THREADS = 128, 2  # windows at a time, and slices at once where there are more
LISTED = 256  # ln n and ln n! from a table below
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
    np.nan, np.nan, 12.706204736432095, 4.302652729696142, 3.182446305284263, 2.7764451051977987,
    2.5705818366147395, 2.4469118487916806, 2.3646242510102993, 2.306004135033371, 2.2621571627409915,
    2.2281388519649385, 2.200985160082949, 2.1788128296634177, 2.1603686564610127, 2.1447866879169273,
    2.131449545559323,
)  # fmt: skip
TABLE = np.array([[math.log(max(n, 1)) for n in range(LISTED)], [math.lgamma(n + 1.0) for n in range(LISTED)]])
_fit_windows = native("mmlab.calib.fit_kernels", "fit_windows")


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
    se_log_A_robust: Floats
    se_k_robust: Floats
    points_used: Ints
    nearest_hits: Ints
    reason: Ints
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
    A window's figures depend on that window alone, to the last bit. Raises ValueError for sums that are not of these
    distances, or not of these spans.
    """
    x = np.array(deltas, np.float64)
    _check(window, x.size)
    x = np.log(x) if power_law else x
    starts = range(0, max(window.first.size, 1), SLICE)
    parts = [replace(window, first=window.first[at : at + SLICE], last=window.last[at : at + SLICE]) for at in starts]
    if len(parts) == 1:
        return _curve(*_fit(window, x, spec, nested))
    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(lambda part: _fit(part, x, spec, nested), parts))
    return _curve(*(np.concatenate(arrays) for arrays in zip(*made, strict=True)))


def _check(window: Window, n_deltas: int) -> None:
    """Kernels look at no bounds."""
    shapes = {a.shape for a in (window.exposure, window.hit, window.ring)}
    if n_deltas == 0 or {shape[1:] for shape in shapes} != {(2, n_deltas)} or len(shapes) > 1:
        raise ValueError(f"sums of shapes {shapes} are not of {n_deltas} distances")
    spans = np.stack([window.first, window.last])
    if spans.size and not 0 <= spans.min() <= spans.max() < window.exposure.shape[0]:
        raise ValueError(f"spans reach beyond {window.exposure.shape[0] - 1} buckets")


def _fit(window: Window, x: Floats, spec: FitSpec, nested: bool) -> tuple[Floats, Ints]:
    """The figures of some windows, shapes (n_windows, 3, N_FLOATS) and (n_windows, 3, N_WHOLE)."""
    method, n, edges = FIT_METHODS.index(spec.fit_method), window.first.size, window.edges
    spans = (np.ascontiguousarray(a, np.int64) for a in (window.first, window.last, edges))
    exposure, hit, ring = (np.ascontiguousarray(a, np.int64) for a in (window.exposure, window.hit, window.ring))
    lists, marks = np.empty((N_LISTS, x.size)), np.empty((N_MARKS, x.size), np.int64)
    lists[0] = x
    scores = np.empty((3, edges.shape[1], N_SCORES))
    floats, whole = np.full((n, 3, N_FLOATS), np.nan), np.zeros((n, 3, N_WHOLE), np.int64)
    _fit_windows(
        *spans, exposure, hit, ring, ring if method == NESTED_MLE else hit, float(spec.min_exposure_s), method, nested,
        TABLE, lists, marks, scores, floats, whole,
    )  # fmt: skip
    return floats, whole


def _curve(floats: Floats, whole: Ints) -> Curve:
    """The figures as a Curve; a k that Fisher's or the robust errors do not tell from 0 is flat."""
    figures: list[Any] = [np.ascontiguousarray(a[:, :, i]) for a in (floats, whole) for i in range(a.shape[2])]
    curve = Curve(*figures)
    k, se_k, reason = curve.k, curve.se_k, curve.reason
    with np.errstate(invalid="ignore"):  # what is not identified is nan
        flat = (reason == OK) & (~(k - Z95 * se_k > 0) | (k - curve.t95 * curve.se_k_robust <= 0))
    return replace(curve, reason=np.where(flat, FLAT, reason))


__all__ = ["NO_HITS", "OK", "REASONS", "Z95", "Curve", "curves"]
