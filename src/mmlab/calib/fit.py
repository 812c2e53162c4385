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

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmlab.calib.cells import Cells, cells
from mmlab.calib.goodness import chi2_tail, figures
from mmlab.calib.likelihood import Fit, fit_logs, fit_points, fit_rings
from mmlab.calib.points import Window
from mmlab.calib.robust import Model, clustered, log_model, point_model, ring_model
from mmlab.calib.shapes import Bools, Floats, Ints, total
from mmlab.calib.spec import FitSpec
from mmlab.core.schemas import FIT_METHODS

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
SLICE = 128  # windows at a time: what is made of them on the way stays in the cache
POISSON_MLE, LOG_LINEAR, NESTED_MLE = FIT_METHODS
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
OK, FEW_POINTS, NO_HITS, ONE_DISTANCE, FLAT, NO_MAXIMUM = range(len(REASONS))


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
    A window's figures depend on that window alone, to the last bit.
    """
    x = np.array(deltas, np.float64)
    x = np.log(x) if power_law else x
    slices = (slice(at, at + SLICE) for at in range(0, max(window.first.size, 1), SLICE))
    parts = (replace(window, first=window.first[rows], last=window.last[rows]) for rows in slices)
    with np.errstate(all="ignore"):  # what is not identified is nan
        made = [_fit(part, x, spec, nested) for part in parts]
        return _curve([np.concatenate(arrays, axis=1) for arrays in zip(*made, strict=True)])


def _curve(made: list[Any]) -> Curve:
    """The slices' figures as a Curve; a k that Fisher's or the robust errors do not tell from 0 is flat."""
    A, k, se_log_A, se_k, deviance, pearson, likelihood, excess, used, nearest, reason, *errors = (
        np.ascontiguousarray(a.T) for a in made
    )
    freedom = np.maximum(used - 2, 1)
    spare = np.where(used > 2, 1.0, np.nan)
    p_value = chi2_tail(freedom, deviance * spare)
    curve = Curve(
        A, k, se_log_A, se_k, deviance, pearson / freedom * spare, likelihood, excess, p_value, used, nearest,
        reason, *errors,
    )  # fmt: skip
    flat = (reason == OK) & (~(k - Z95 * se_k > 0) | (k - curve.t95 * curve.se_k_robust <= 0))
    return replace(curve, reason=np.where(flat, FLAT, reason))


def _fit(window: Window, x: Floats, spec: FitSpec, nested: bool) -> tuple[Any, ...]:
    """The figures of some windows in the order of `_curve`, each of shape (3, n_windows)."""
    of_rings = spec.fit_method == NESTED_MLE
    c = cells(window, x, spec.min_exposure_s, nested, of_rings)
    points_used, with_hits = c.points_used, (c.N > 0).sum(axis=0)
    known = (points_used >= 2) & (with_hits >= 2)
    disjoint = _disjoint(c, nested, known)
    fit, model = _asked_for(c, spec.fit_method, nested, known, disjoint)
    missing = np.isnan(fit.k)
    goodness = (np.where(missing | np.isnan(disjoint.k), np.nan, a) for a in figures(c.R, disjoint.expected))
    reasons = (points_used < 2, with_hits == 0, with_hits == 1, missing)
    reason = np.select(reasons, (FEW_POINTS, NO_HITS, ONE_DISTANCE, NO_MAXIMUM), OK)
    excess = _ring_excess(c) if nested else np.full(known.size, np.nan)
    A = fit.near * np.exp(fit.k * c.on.nearest)
    rows = (A, fit.k, fit.se_log_A, fit.se_k, *goodness, excess, points_used, c.nearest_hits, reason)
    shape = (3, window.first.size)
    *errors, blocks = clustered(model, c, window, window.ring if of_rings else window.hit)
    return *(a.reshape(shape) for a in rows), *errors, np.where(missing.reshape(shape), 0, blocks)


def _disjoint(c: Cells, nested: bool, known: Bools) -> Fit:
    """The likeliest curve of the disjoint counts."""
    if not nested:
        return fit_points(c.T, c.N, c.on, known)
    more, end = c.rings
    return fit_rings(c.T, more, c.R, c.on, end, known & ((c.R > 0).sum(axis=0) >= 2))


def _asked_for(c: Cells, method: str, nested: bool, known: Bools, disjoint: Fit) -> tuple[Fit, Model]:
    """The curve of the estimator that was asked for, and what it makes of blocks of time."""
    if method == LOG_LINEAR:
        fit = fit_logs(c.T, c.N, c.x, c.on, known)
        return fit, log_model(c, fit)
    if nested and method == NESTED_MLE:
        return disjoint, ring_model(c, disjoint)
    fit = fit_points(c.T_everywhere, c.N, c.on, known) if nested else disjoint
    return fit, point_model(c, fit)


def _ring_excess(c: Cells) -> Floats:
    """What the rings' rates add up to over the rate at the nearest distance, less 1."""
    added = total(c.R / np.where(c.used, c.T, 1.0))
    first, row = c.used.argmax(axis=0), np.arange(c.nearest_hits.size)
    return np.where(c.nearest_hits > 0, added / (c.nearest_hits / c.T[first, row]) - 1, np.nan)
