"""Standard errors that bursts do not narrow: the sandwich, clustered over blocks of time.

A market's hits come in bursts, and hits at nested distances share prints; both make the counts vary
more than Poisson counts do, and the Fisher errors too small. Cut the span into blocks that are long
against a burst: with J the information and u_b the score of block b at the estimate, the covariance of
(ln A, k) is J^-1 (sum u_b u_b^T) J^-1 * B / (B - 1) (White 1982; Liang and Zeger 1986).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from mmlab.calib.shapes import between, shapes
from mmlab.core.spans import NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NS = 1e-9


@njit(cache=True)
def clustered(
    fit: Floats, sums: tuple[Ints, Ints], by_time: tuple[Floats, Floats], edges: Ints, x: Floats,
    min_exposure_s: float, how: tuple[bool, bool, bool],
) -> tuple[Floats, Ints]:  # fmt: skip
    """(errors of ln A and k, shape (n_windows, 3, 2), nan without a fit; blocks with exposure, (n_windows, 3)).

    fit: (n_windows, 3, 2) of A and k. sums: prefix sums over buckets of exposure and counts, (n_buckets + 1,
    2, n_deltas). by_time: the same as whole doubles, (2, n_deltas, n_buckets + 1). edges: (n_windows,
    n_blocks + 1). The third side is both. how: whether the probes are nested, whether the counts are of
    rings, whether the fit is log_linear.
    """
    exposure_ns, counts = by_time
    n_windows, n_deltas, n_blocks = fit.shape[0], x.size, edges.shape[1] - 1
    errors, blocks = np.full((n_windows, 3, 2), np.nan), np.zeros((n_windows, 3), np.int64)
    rate, grad, J = np.empty((3, n_deltas)), np.empty((3, n_deltas)), np.empty((3, 3))
    u, t, c = np.empty((3, 3, n_blocks)), np.empty(n_blocks), np.empty(n_blocks)
    for w in range(n_windows):
        edge = edges[w]
        for side in range(3):
            _model(fit[w, side], sums, edge, x, min_exposure_s, side, how,
                   rate[side], grad[side], J[side])  # fmt: skip
        u[:] = 0.0
        n_head = _gather_tail(sums, edge, rate, grad) if how[0] else n_deltas
        for q in range(2):
            for i in range(n_head):
                for b in range(n_blocks):
                    t[b] = exposure_ns[q, i, edge[b + 1]] - exposure_ns[q, i, edge[b]]
                    c[b] = counts[q, i, edge[b + 1]] - counts[q, i, edge[b]]
                _score(t, c, rate[q, i], grad[q, i], u[q])
                _score(t, c, rate[2, i], grad[2, i], u[2])
        for side in range(3):
            if not np.isnan(fit[w, side, 1]):
                blocks[w, side] = (u[side, 2] > 0.0).sum()
                _sandwich(J[side], u[side, 0], u[side, 1], blocks[w, side], errors[w, side])
    return errors, blocks


@njit(cache=True)
def _gather_tail(sums: tuple[Ints, Ints], edge: Ints, rate: Floats, grad: Floats) -> int:
    """Let one distance stand for all at the far end that nothing reached and that were at risk alike.

    Nested probes at risk as long in the whole span were so in every block. Returns how many distances are left.
    """
    a, z, last = edge[0], edge[-1], rate.shape[1] - 1
    exposure, count = sums
    h: int = last
    while h > 0:
        for q in range(2):
            for i in (h - 1, h):
                alike = exposure[z, q, i] - exposure[a, q, i] == exposure[z, q, last] - exposure[a, q, last]
                if not alike or count[z, q, i] != count[a, q, i]:
                    return h + 1
        for side in range(3):  # all of them are used, or none
            r, d = rate[side, h - 1], grad[side, h - 1]
            if not np.isnan(r):
                both = r + rate[side, h]
                grad[side, h - 1] = (r * d + rate[side, h] * grad[side, h]) / both if both > 0.0 else d
                rate[side, h - 1] = both
        h -= 1
    return 1


@njit(cache=True)
def _score(t: Floats, c: Floats, rate: float, grad: float, u: Floats) -> None:
    """Add one distance's part to every block's score and time at risk; nothing where it is not used."""
    if np.isnan(rate):
        return
    per_ns = rate * NS
    for b in range(t.size):
        e = c[b] - t[b] * per_ns
        u[0, b] += e
        u[1, b] += e * grad
        u[2, b] += t[b]


@njit(cache=True)
def _model(
    fit: Floats, sums: tuple[Ints, Ints], edge: Ints, x: Floats, min_exposure_s: float, side: int,
    how: tuple[bool, bool, bool], rate: Floats, grad: Floats, J: Floats,
) -> None:  # fmt: skip
    """Rates and their gradients in k at the used distances, nan elsewhere; the information's three entries."""
    rate[:], grad[:], J[:] = np.nan, np.nan, 0.0
    A, k = fit
    if np.isnan(k):
        return
    a, z = edge[0], edge[-1]
    at, T, N, which = np.empty(x.size), np.empty(x.size), np.empty(x.size), np.empty(x.size, np.int64)
    n = 0
    for i in range(x.size):
        t, c = between(sums[0], a, z, side, i), between(sums[1], a, z, side, i)
        if t > 0 and t / NS_PER_S >= min_exposure_s:
            at[n], T[n], N[n], which[n] = x[i], t / NS_PER_S, c, i
            n += 1
    s, g = np.empty(n), np.empty(n)
    shapes(at[:n], k, how[1], s, g)
    near = A * np.exp(-k * at[0])
    for m in range(n):
        r, d, weight = near * s[m], g[m] - at[0], T[m] * near * s[m]
        if how[2]:  # log_linear's score is that of the logarithms: empirical rates, weights N
            r, d, weight = N[m] / T[m], -at[m], N[m]
        rate[which[m]], grad[which[m]] = r, d
        J[0], J[1], J[2] = J[0] + weight, J[1] + weight * d, J[2] + weight * d * d


@njit(cache=True)
def _sandwich(J: Floats, u0: Floats, u1: Floats, n: int, out: Floats) -> None:
    """Roots of the diagonal of J^-1 (sum u u^T) J^-1 * n / (n - 1), nan below two blocks."""
    det = J[0] * J[2] - J[1] * J[1]
    if n < 2 or not det > 0.0:
        return
    m00, m01, m11 = (u0 * u0).sum(), (u0 * u1).sum(), (u1 * u1).sum()
    a, b, d = J[2] / det, -J[1] / det, J[0] / det
    more = n / (n - 1)
    out[0] = np.sqrt(max(a * a * m00 + 2 * a * b * m01 + b * b * m11, 0.0) * more)
    out[1] = np.sqrt(max(b * b * m00 + 2 * b * d * m01 + d * d * m11, 0.0) * more)
