"""How well a curve fits: deviance, Pearson's dispersion, log-likelihood and p-value of disjoint counts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mmlab.calib.shapes import Floats, distinct, total

LISTED = 256  # ln n! from a table below, by Stirling's series from there on
LOG_FACTORIALS = np.array([math.lgamma(n + 1.0) for n in range(LISTED)])


def figures(R: Floats, expected: Floats) -> tuple[Floats, Floats, Floats]:
    """Deviance, Pearson's sum and log-likelihood of counts R ~ Poisson(expected), (n_deltas, n_rows) -> (n_rows,).

    Cells where nothing is expected say nothing if nothing came there; if something did all three are nan.
    """
    possible = expected > 0
    mu = np.where(possible, expected, 1.0)
    log_mu, log_R, beyond = np.log(mu), np.log(np.maximum(R, 1.0)), R - expected
    deviance = total(R * (log_R - log_mu) - beyond) * 2
    likelihood = total(R * log_mu - expected - log_factorial(R))
    bad = ((R > 0) & ~possible).any(axis=0)
    found = (deviance, total(beyond * beyond / mu), likelihood)
    a, b, c = (np.where(bad, np.nan, figure) for figure in found)
    return a, b, c


def log_factorial(n: Floats) -> Floats:
    """ln n! of whole numbers."""
    out = LOG_FACTORIALS[np.minimum(n, LISTED - 1).astype(np.int64)]
    many = n >= LISTED
    m = n[many]
    series = (1 / 12 - (1 / 360 - 1 / 1260 / (m * m)) / (m * m)) / m
    out[many] = (m + 0.5) * np.log(m) - m + 0.5 * math.log(2 * math.pi) + series
    return out


def chi2_tail(dof: npt.ArrayLike, x: npt.ArrayLike) -> Floats:
    """P(chi-square with `dof` > x), relative to some 1e-12: the upper incomplete gamma function Q(dof / 2, x / 2).

    dof whole, above 0, and x of any shapes that go together; nan gives nan. Series below dof / 2 + 1, continued
    fraction above (Abramowitz and Stegun 1964, 6.5.29 and 6.5.31); here and not from scipy.special, whose import takes
    longer than all fits of a day.
    """
    a, z = np.broadcast_arrays(np.asarray(dof, np.float64) / 2, np.maximum(np.asarray(x, np.float64), 0.0) / 2)
    out = np.where(np.isnan(z), np.nan, 1.0)
    for method, here in ((_series, (z > 0) & (z < a + 1)), (_fraction, z >= a + 1)):
        out[here] = method(a[here], z[here])
    return out


def _series(a: Floats, z: Floats) -> Floats:
    """1 - P(a, z), shape (n,); terms that are added beyond a row's own last one are lost in rounding."""
    term, n = 1 / a, a.copy()
    added = term.copy()
    while np.any(term > 1e-17 * added):
        n += 1
        term *= z / n
        added += term
    return np.asarray(np.maximum(1 - _front(a, z) * added, 0.0), np.float64)


def _fraction(a: Floats, z: Floats) -> Floats:
    """Q(a, z), shape (n,), by Lentz's forward evaluation."""
    b = z + 1 - a
    c, d = np.full(z.shape, 1e300), 1 / b
    h, going, i = d.copy(), np.ones(z.shape, np.bool_), 0.0
    while going.any() and i < 10_000:
        i += 1
        b += 2
        d = 1 / (b - i * (i - a) * d)
        c = b - i * (i - a) / c
        h = np.where(going, h * c * d, h)
        going &= np.abs(c * d - 1) > 1e-15
    return _front(a, z) * h


def _front(a: Floats, z: Floats) -> Floats:
    """z^a exp(-z) / Gamma(a)."""
    each, place = distinct(a)
    log_gamma = np.array([math.lgamma(value) for value in each.tolist()])[place]
    return np.asarray(np.exp(a * np.log(z) - z - log_gamma), np.float64)
