"""Kernels: how well a curve fits: deviance, Pearson's sum, log-likelihood and p-value of disjoint counts."""

from __future__ import annotations

import math

import numpy as np

from mmlab.calib.fit_layout import EXPECTED, LOG_FACTORIALS, LOGS, R
from mmlab.core.kernels import inner
from mmlab.core.native import Floats2

HALF_LOG_2PI = 0.9189385332046727


@inner
def figures(lists: Floats2, n: int, table: Floats2) -> tuple[float, float, float]:
    """Deviance, Pearson's sum and log-likelihood of counts R ~ Poisson(EXPECTED) at the first n used distances.

    Cells where nothing is expected say nothing if nothing came there; if something did all three are nan.
    """
    deviance, pearson, likelihood = 0.0, 0.0, 0.0
    for j in range(n):
        count, mu = lists[R, j], lists[EXPECTED, j]
        if not count > 0:
            deviance, pearson, likelihood = deviance + mu, pearson + mu, likelihood - mu
            continue
        if not mu > 0:
            return np.nan, np.nan, np.nan
        beyond = count - mu
        log_count, log_factorial = logs(count, table)
        # of millions of hits, count times the two logarithms would leave few digits of what tells count from mu
        log_ratio = math.log1p(beyond / mu) if abs(beyond) < mu else log_count - math.log(mu)
        deviance += count * log_ratio - beyond
        pearson += beyond * beyond / mu
        likelihood += count * (log_count - log_ratio) - mu - log_factorial
    return 2.0 * deviance, pearson, likelihood


@inner
def logs(n: float, table: Floats2) -> tuple[float, float]:
    """ln n and ln n! of a whole number above 0: from the table, beyond it by Stirling's series."""
    if n < table.shape[1]:
        return table[LOGS, int(n)], table[LOG_FACTORIALS, int(n)]
    log_n = math.log(n)
    series = (1 / 12 - (1 / 360 - 1 / 1260 / (n * n)) / (n * n)) / n
    return log_n, (n + 0.5) * log_n - n + HALF_LOG_2PI + series


@inner
def chi2_tail(dof: int, x: float) -> float:
    """P(chi-square with `dof` > x), relative to some 1e-12: the upper incomplete gamma function Q(dof / 2, x / 2).

    dof above 0; nan gives nan, and an x that rounding left below 0 gives 1. Series below dof / 2 + 1, continued
    fraction above (Abramowitz and Stegun 1964, 6.5.29 and 6.5.31).
    """
    a, z = dof / 2.0, x / 2.0
    if math.isnan(z) or z <= 0.0:
        return 1.0 if z <= 0.0 else np.nan
    front = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1.0:
        term, added, n = 1.0 / a, 1.0 / a, a
        while term > 1e-17 * added:
            n += 1.0
            term *= z / n
            added += term
        return max(1.0 - front * added, 0.0)
    b = z + 1.0 - a
    c, d, i = 1e300, 1.0 / b, 0.0
    h, step = d, 0.0
    while abs(step - 1.0) > 1e-15 and i < 10_000.0:
        i += 1.0
        b += 2.0
        d = 1.0 / (b - i * (i - a) * d)
        c = b - i * (i - a) / c
        step = c * d
        h *= step
    return front * h
