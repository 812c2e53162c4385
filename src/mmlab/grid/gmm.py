"""Regimes from a mixture of three Gaussians over each bar's return and range, fitted anew by the clock."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import UsageError
from mmlab.core.kernels import kernel
from mmlab.grid.regime import NOISE, Codes
from mmlab.grid.signals import Floats, true_range

RETURN_BARS = 24  # the return that is looked at spans so many bars
FIRST_ROWS = 500  # rows of features for the first fit
REFIT_BARS = 96  # a day of 15 minutes: at 00:00 UTC
KINDS = 3
ALIKE = 1e-12  # features that vary less are constant but for rounding
MOST_STEPS, TOLERANCE, LEAST_VARIANCE = 100, 1e-3, 1e-6  # as scikit-learn's GaussianMixture has them
LEAST_WEIGHT = 10 * 2.0**-52  # the same


def gmm_regime(
    open_ns: npt.ArrayLike, interval_ns: int, high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, *,
    seed: int = 42, gmm_window: int = 2880,
) -> Codes:  # fmt: skip
    """Codes of shape (n,): -1 for bars of the component with the lowest mean return, +1 the highest, 0 the middle one.

    Features of a bar: its 24-bar simple return and its true range over its close, in standard deviations of the rows
    that the model was fitted to. These are the `gmm_window` rows before the bar of the fit, or as many as there are
    (at least 500). It is fitted when there are 500, and then at the first bar of every 96 by the clock - at 15 minutes
    the UTC day -, and serves until the next fit: row i depends on no later bar, nor on how many follow, and with a full
    window not on where the data begin. 0 before the first fit, and where the window has fewer than three kinds of bars.

    open_ns: int64 ns in time order; prices above 0. Needs scikit-learn: raises UsageError without it, and for a window
    of less than 500 bars.
    """
    if gmm_window < FIRST_ROWS:
        raise UsageError(f"gmm_window is {gmm_window}", remedy=f"give at least {FIRST_ROWS} bars")
    groups, one_thread = _sklearn(seed)
    opens = np.asarray(open_ns, np.int64)
    rows = features(high, low, close)
    codes = np.full(opens.size, NOISE, np.int8)
    with one_thread(1), warnings.catch_warnings():  # sums of several threads have no fixed order
        warnings.simplefilter("ignore")  # k-means tells of equal rows, which are dealt with
        fits = fit_rows(opens, interval_ns)
        for at, until in pairwise([*fits, opens.size]):
            window = rows[max(RETURN_BARS, at - gmm_window) : at]
            mean, deviation = window.mean(axis=0), window.std(axis=0)
            if (deviation <= ALIKE).any():
                continue
            scaled = (window - mean) / deviation
            kinds = groups.fit(scaled).labels_
            if np.unique(kinds).size == KINDS:
                model = _mixture(scaled, kinds.astype(np.int64))
                codes[at:until] = classify((rows[at:until] - mean) / deviation, model)
    return codes


def features(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike) -> Floats:
    """Shape (n, 2): 24-bar simple return (0 in the first 24 rows) and true range over close."""
    close = np.asarray(close, np.float64)
    found = np.zeros((close.size, 2))
    found[RETURN_BARS:, 0] = close[RETURN_BARS:] / close[:-RETURN_BARS] - 1
    found[:, 1] = true_range(high, low, close) / close
    return found


def fit_rows(open_ns: npt.NDArray[np.int64], interval_ns: int) -> list[int]:
    """The bars at which a model is fitted, from the rows before them."""
    first = RETURN_BARS + FIRST_ROWS
    day = open_ns // (REFIT_BARS * interval_ns)
    starts = np.flatnonzero(day[1:] != day[:-1]) + 1
    return [first, *starts[starts > first].tolist()] if open_ns.size > first else []


def classify(rows: Floats, model: Floats) -> Codes:
    """Codes of shape (n,) of scaled features (n, 2): the likelier component's place by its mean return."""
    w, x, y, xx, xy, yy = model.T
    dx, dy = rows[:, :1] - x, rows[:, 1:] - y
    det = xx * yy - xy * xy
    logs = np.log(w) - 0.5 * (np.log(det) + (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / det)
    places = np.empty(KINDS, np.int8)
    places[np.argsort(x, kind="stable")] = (-1, 0, 1)
    return np.asarray(places[np.argmax(logs, axis=1)])


@kernel
def _mixture(rows: Floats, kinds: npt.NDArray[np.int64]) -> Floats:
    """Expectation maximisation from groups: (3, 6) of weight, means, variance, covariance, variance.

    Dempster, Laird, Rubin (1977); what scikit-learn's GaussianMixture does (full covariances), in a tenth of its time.
    """
    n = rows.shape[0]
    share = np.zeros((n, KINDS))
    for i in range(n):
        share[i, kinds[i]] = 1.0
    model = np.empty((KINDS, 6))
    scale, det = np.empty(KINDS), np.empty(KINDS)
    likelihood, done = -np.inf, False
    for step in range(MOST_STEPS + 1):
        for k in range(KINDS):
            weight, x, y = LEAST_WEIGHT, 0.0, 0.0
            for i in range(n):
                weight += share[i, k]
                x += share[i, k] * rows[i, 0]
                y += share[i, k] * rows[i, 1]
            x, y = x / weight, y / weight
            xx, xy, yy = 0.0, 0.0, 0.0
            for i in range(n):
                dx, dy = rows[i, 0] - x, rows[i, 1] - y
                xx += share[i, k] * dx * dx
                xy += share[i, k] * dx * dy
                yy += share[i, k] * dy * dy
            model[k, 0], model[k, 1], model[k, 2] = weight / n, x, y
            model[k, 3] = xx / weight + LEAST_VARIANCE
            model[k, 4] = xy / weight
            model[k, 5] = yy / weight + LEAST_VARIANCE
        if done or step == MOST_STEPS:
            break
        for k in range(KINDS):
            det[k] = model[k, 3] * model[k, 5] - model[k, 4] * model[k, 4]
            scale[k] = math.log(model[k, 0]) - 0.5 * math.log(det[k])
        before, likelihood = likelihood, 0.0
        for i in range(n):
            most = -np.inf
            for k in range(KINDS):
                dx, dy = rows[i, 0] - model[k, 1], rows[i, 1] - model[k, 2]
                square = model[k, 5] * dx * dx - 2 * model[k, 4] * dx * dy + model[k, 3] * dy * dy
                share[i, k] = scale[k] - 0.5 * square / det[k]
                most = max(most, share[i, k])
            total = 0.0
            for k in range(KINDS):
                share[i, k] = math.exp(share[i, k] - most)
                total += share[i, k]
            for k in range(KINDS):
                share[i, k] /= total
            likelihood += most + math.log(total)
        likelihood /= n
        done = abs(likelihood - before) < TOLERANCE
    return model


def _sklearn(seed: int) -> tuple[Any, Any]:
    """k-means, from whose groups the mixture starts, and what keeps it on one thread; raises UsageError."""
    try:
        from sklearn.cluster import KMeans  # noqa: PLC0415 - an extra, and slow to load
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with it
    except ImportError:
        raise UsageError("regimes by mixture need scikit-learn", remedy="pip install 'mmlab[ml]'") from None
    return KMeans(KINDS, n_init=1, random_state=seed), threadpool_limits
