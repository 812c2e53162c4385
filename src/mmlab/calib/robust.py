"""Standard errors that bursts do not narrow: the sandwich, clustered over blocks of time.

A market's hits come in bursts, and hits at nested distances share prints; both make the counts vary
more than Poisson counts do, and the Fisher errors too small. Cut the span into blocks that are long
against a burst: with J the information and u_b the score of block b at the estimate, the covariance of
(ln A, k) is J^-1 (sum u_b u_b^T) J^-1 * B / (B - 1) (White 1982; Liang and Zeger 1986).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmlab.calib.shapes import between, shapes
from mmlab.core.kernels import kernel, unlocked
from mmlab.core.spans import NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NS = 1e-9
RATE, GRAD, USED = range(3)
LEAST_BLOCKS = 8  # with hits; fewer give no error worth stating


@unlocked
def clustered(
    fit: Floats, sums: tuple[Ints, Ints], edges: Ints, x: Floats, min_exposure_s: float, how: tuple[bool, bool, bool]
) -> tuple[Floats, Ints]:
    """(errors of ln A and k, shape (n_windows, 3, 2), nan without a fit; blocks with exposure, (n_windows, 3)).

    fit: (n_windows, 3, 2 or more), beginning with A and k. sums: prefix sums over buckets of exposure and
    counts, (n_buckets + 1, 2, m); beyond the m-th distance all is as at the m-th, where nothing was hit.
    edges: (n_windows, n_blocks + 1). The third side is both. how: whether the probes are nested, whether the
    counts are of rings, whether the fit is log_linear.
    """
    n_windows, n_deltas, n_blocks = fit.shape[0], x.size, edges.shape[1] - 1
    errors, blocks = np.full((n_windows, 3, 2), np.nan), np.zeros((n_windows, 3), np.int64)
    model, J, u = np.empty((3, 3, n_deltas)), np.empty((3, 3)), np.empty((3, n_blocks, 4))
    for w in range(n_windows):
        edge = edges[w]
        for side in range(3):
            _model(fit[w, side], sums, edge, x, min_exposure_s, side, how, model[side], J[side])
        n_head = _gather_tail(sums, edge, model) if how[0] else n_deltas
        for b in range(n_blocks):
            u[2, b] = 0.0
            for q in range(2):
                _scores(sums, edge[b], edge[b + 1], q, n_head, model, u[q, b], u[2, b])
        for side in range(3):
            if not np.isnan(fit[w, side, 1]):
                blocks[w, side] = _sandwich(J[side], u[side], errors[w, side])
    return errors, blocks


@kernel
def _scores(
    sums: tuple[Ints, Ints], a: int, z: int, q: int, n_head: int, model: Floats, own: Floats, both: Floats
) -> None:
    """One block and side: its score and time at risk under its own curve into `own`, under both's added to `both`."""
    exposure, counts = sums
    s0, s1, s2, s3, b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n_head):
        t = np.float64(exposure[z, q, i] - exposure[a, q, i])
        c = np.float64(counts[z, q, i] - counts[a, q, i])
        e = (c - t * model[q, RATE, i]) * model[q, USED, i]
        s0, s1, s2, s3 = s0 + e, s1 + e * model[q, GRAD, i], s2 + t * model[q, USED, i], s3 + c * model[q, USED, i]
        e = (c - t * model[2, RATE, i]) * model[2, USED, i]
        b0, b1, b2, b3 = b0 + e, b1 + e * model[2, GRAD, i], b2 + t * model[2, USED, i], b3 + c * model[2, USED, i]
    own[0], own[1], own[2], own[3] = s0, s1, s2, s3
    both[0], both[1], both[2], both[3] = both[0] + b0, both[1] + b1, both[2] + b2, both[3] + b3


@kernel
def _gather_tail(sums: tuple[Ints, Ints], edge: Ints, model: Floats) -> int:
    """Let one distance stand for all at the far end that nothing reached and that were at risk alike.

    Nested probes at risk as long in the whole span were so in every block. Returns how many distances are left.
    """
    a, z = edge[0], edge[-1]
    exposure, count = sums
    last = exposure.shape[2] - 1  # all beyond it is as at it
    h: int = last
    while h > 0 and _alike(exposure, count, a, z, h - 1, last) and _alike(exposure, count, a, z, h, last):
        h -= 1
    for side in range(3):  # all of them are used, or none
        total, weighted = 0.0, 0.0
        for i in range(h, model.shape[2]):
            total, weighted = total + model[side, RATE, i], weighted + model[side, RATE, i] * model[side, GRAD, i]
        model[side, RATE, h] = total
        model[side, GRAD, h] = weighted / total if total > 0.0 else 0.0
    return h + 1


@kernel
def _alike(exposure: Ints, count: Ints, a: int, z: int, i: int, last: int) -> bool:
    """Nothing was hit at distance i, and it was at risk as long as the last one, on both sides."""
    for q in range(2):
        if count[z, q, i] != count[a, q, i]:
            return False
        if exposure[z, q, i] - exposure[a, q, i] != exposure[z, q, last] - exposure[a, q, last]:
            return False
    return True


@kernel
def _model(
    fit: Floats, sums: tuple[Ints, Ints], edge: Ints, x: Floats, min_exposure_s: float, side: int,
    how: tuple[bool, bool, bool], model: Floats, J: Floats,
) -> None:  # fmt: skip
    """Rates per ns, their gradients in k, and which distances are used; the information's three entries."""
    model[:], J[:] = 0.0, 0.0
    A, k = fit[0], fit[1]
    if np.isnan(k):
        return
    a, z = edge[0], edge[-1]
    at, T, N, which = np.empty(x.size), np.empty(x.size), np.empty(x.size), np.empty(x.size, np.int64)
    n, t, c, m = 0, 0, 0, sums[0].shape[2]
    for i in range(x.size):
        if i < m:
            t = between(sums[0], a, z, side, i)
        c = between(sums[1], a, z, side, i) if i < m else 0
        if t > 0 and t / NS_PER_S >= min_exposure_s:
            at[n], T[n], N[n], which[n] = x[i], t / NS_PER_S, c, i
            n += 1
    s, g = np.empty(n), np.empty(n)
    shapes(at[:n], k, how[1], s, g)
    near = A * np.exp(-k * at[0])
    for j in range(n):
        r, d, weight = near * s[j], g[j] - at[0], T[j] * near * s[j]
        if how[2]:  # log_linear's score is that of the logarithms: empirical rates, weights N
            r, d, weight = N[j] / T[j], -at[j], N[j]
        i = which[j]
        model[RATE, i], model[GRAD, i], model[USED, i] = r * NS, d, 1.0
        J[0], J[1], J[2] = J[0] + weight, J[1] + weight * d, J[2] + weight * d * d


@kernel
def _sandwich(J: Floats, u: Floats, out: Floats) -> int:
    """Roots of the diagonal of J^-1 (sum u u^T) J^-1 * n / (n - 1); returns n, the blocks with time at risk.

    Where all hits lie in a few blocks, these say nothing of how blocks differ: the errors are left nan.
    """
    n, hit, m00, m01, m11 = 0, 0, 0.0, 0.0, 0.0
    for b in range(u.shape[0]):
        n += u[b, 2] > 0.0
        hit += u[b, 3] > 0.0
        m00, m01, m11 = m00 + u[b, 0] * u[b, 0], m01 + u[b, 0] * u[b, 1], m11 + u[b, 1] * u[b, 1]
    det = J[0] * J[2] - J[1] * J[1]
    if hit < LEAST_BLOCKS or not det > 0.0:
        return n
    p, q, r = J[2] / det, -J[1] / det, J[0] / det
    more = n / (n - 1)
    out[0] = np.sqrt(max(p * p * m00 + 2 * p * q * m01 + q * q * m11, 0.0) * more)
    out[1] = np.sqrt(max(q * q * m00 + 2 * q * r * m01 + r * r * m11, 0.0) * more)
    return n
