"""Standard errors that bursts do not narrow: the sandwich, clustered over blocks of time.

A market's hits come in bursts, and hits at nested distances share prints; both make the counts vary
more than Poisson counts do, and the Fisher errors too small. Cut the span into blocks that are long
against a burst: with J the information and u_b the score of block b at the estimate, the covariance of
(ln A, k) is J^-1 (sum u_b u_b^T) J^-1 * B / (B - 1) (White 1982; Liang and Zeger 1986).

With the slopes d ln rate / dk taken about their mean, J is diagonal, and J^-1 u_b is how far block b pulls either
estimate. Expected hits are summed by parts, sum t_i w_i = sum (t_i - t_i-1) sum_j>=i w_j, so that nested distances
that were at risk alike cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmlab.calib.cells import Cells, by_distance, increase
from mmlab.calib.likelihood import Fit
from mmlab.calib.points import Window
from mmlab.calib.shapes import Bools, Floats, Ints, decay, distinct, ring_factors, rows_at, total
from mmlab.core.spans import NS_PER_S

LEAST_BLOCKS = 8  # with hits; fewer give no error worth stating


@dataclass(frozen=True)
class Model:
    """What a curve makes of a block: rates and slopes at the first m distances, (m, n_rows), 0 where not used.

    slope: d ln rate / dk less its mean; outwards, outwards_slope: sums of rates (1/s), and of rates times slopes, from
    a distance to the last. information, mean, spread: of (ln A, k), (n_rows,), the mean being that of the slopes.
    """

    slope: Floats
    outwards: Floats
    outwards_slope: Floats
    information: Floats
    mean: Floats
    spread: Floats


def ring_model(c: Cells, fit: Fit) -> Model:
    """Rings: their rates add up to the curve itself, and so do their slopes.

    With sums by parts, sum T s g^2 = sum (T_i - T_i-1) S'' - sum T s dg/dk.
    """
    on, m, (more, _) = c.on, c.T.shape[0], c.rings
    near = decay(fit.k, on.far)
    _, pull = ring_factors(fit.k, on)
    mass = fit.near * more * near[:m]
    information = total(mass)
    mass *= on.far[:m]
    mean = -total(mass) / information
    bend = rows_at(on.steps[:, None] * pull, on.place)
    bend *= near
    bend[:m] *= c.T
    bend[m:] *= c.T[-1]
    spread = total(mass * on.far[:m]) + fit.near * total(bend) - mean**2 * information
    mean = mean - on.nearest
    slope = np.where(c.used, rows_at(pull, on.place[:m]) - c.x[:m, None] - mean, 0.0)
    outwards = np.where(c.used, fit.near * near[:m], 0.0)
    return Model(slope, outwards, -outwards * (c.x[:m, None] + mean), information, mean, spread)


def point_model(c: Cells, fit: Fit) -> Model:
    """Distances each by itself."""
    T = c.T_everywhere
    rate = np.where(T > 0, fit.near * decay(fit.k, c.on.far), 0.0)
    return _summed(c, rate, *_moments(T * rate, -c.x[:, None]))


def log_model(c: Cells, fit: Fit) -> Model:
    """Least squares of logarithms: its score is that of the empirical rates, weighted by hits."""
    N = np.where(np.isnan(fit.k), np.nan, c.N)
    return _summed(c, c.N / np.where(c.used, c.T, 1.0), *_moments(N, -c.x[: c.N.shape[0], None]))


def _moments(weight: Floats, slope: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Slopes about their mean, (n, n_rows), and the information that such weights give: of ln A, mean slope, of k."""
    information = total(weight)
    mean = total(weight * slope) / information
    slope = slope - mean
    return slope, information, mean, total(weight * slope**2)


def _summed(c: Cells, rate: Floats, slope: Floats, *moments: Floats) -> Model:
    """With the sums outwards, added up one by one from the farthest distance."""
    m = c.T.shape[0]
    outwards = np.stack([rate, rate * slope], axis=1)
    for i in range(rate.shape[0] - 2, -1, -1):
        outwards[i] += outwards[i + 1]
    parts = (np.ascontiguousarray(outwards[:m, i]) for i in range(2))
    return Model(np.where(c.used, slope[:m], 0.0), *parts, *moments)


def clustered(model: Model, c: Cells, window: Window, prefix: Ints) -> tuple[Floats, Floats, Ints]:
    """Errors of ln A and of k, nan without a fit, and blocks with time at risk, each of shape (3 sides, n_windows).

    prefix: the window's prefix sums of the counts that were fitted. Where all hits lie in a few blocks, these say
    nothing of how blocks differ: the errors are left nan.
    """
    used = c.used.reshape(c.used.shape[0], 3, window.first.size)
    slope, outwards, outwards_slope = (
        a.reshape(used.shape) for a in (model.slope, model.outwards / NS_PER_S, model.outwards_slope / NS_PER_S)
    )
    score, score_k, hits, at_risk = (np.empty((window.edges.shape[1] - 1, *used.shape[1:])) for _ in range(4))
    for b, (more, hit, hits[b], at_risk[b]) in enumerate(_blocks(window, prefix, used)):
        score[b] = hits[b] - _product(more, outwards)
        score_k[b] = _product(hit, slope) - _product(more, outwards_slope)
    information, mean, spread = (a.reshape(used.shape[1:]) for a in (model.information, model.mean, model.spread))
    on_k = score_k / spread
    on_log_A = score / information - mean * on_k
    blocks = (at_risk > 0).sum(axis=0)
    enough = ((hits > 0).sum(axis=0) >= LEAST_BLOCKS) & (blocks > 1)
    more_so = np.where(enough, blocks / (blocks - 1), np.nan)
    se_log_A, se_k = (np.sqrt((pull * pull).sum(axis=0) * more_so) for pull in (on_log_A, on_k))
    return se_log_A, se_k, blocks


def _blocks(window: Window, prefix: Ints, used: Bools) -> Iterator[tuple[Floats, Floats, Floats, Floats]]:
    """The first block of all windows, the second, and so on: `increase` of ns at risk and hits by distance.

    Both of shape (m, 3, n_windows). Then hits and ns at risk over all used distances, (3, n_windows). Windows
    overlap, so that they share most blocks: these are summed once.
    """
    edges, m, every = window.edges, used.shape[0], used.all()
    base = int(edges.max(initial=0)) + 1
    each, at = distinct(edges[:, :-1] * base + edges[:, 1:])
    first, last = np.divmod(each, base)
    prefixes = (a[:, :, :m] for a in (window.exposure, prefix))
    risk, hit = (by_distance(a[last] - a[first]) for a in prefixes)
    whole = (np.diff(risk, axis=0, prepend=0.0), hit, hit.sum(axis=0), risk.sum(axis=0))
    for block in at.T:
        if every:
            yield tuple(a.take(block, axis=-1) for a in whole)
        else:
            own, hits = (np.where(used, a.take(block, axis=2), 0.0) for a in (risk, hit))
            yield increase(own, used), hits, hits.sum(axis=0), own.sum(axis=0)


def _product(cells: Floats, weights: Floats) -> Floats:
    """Sums over distances of cells times weights, in their order: (m, 3, n), (m, 3, n) -> (3, n)."""
    return np.asarray(np.einsum("dsw,dsw->sw", cells, weights), np.float64)
