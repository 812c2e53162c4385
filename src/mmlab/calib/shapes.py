"""What all estimators share, compiled: the curve's shape at each distance, and sums over a span."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mmlab.core.kernels import kernel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@kernel
def shapes(x: Floats, k: float, nested: bool, s: Floats, g: Floats) -> None:
    """s_i(k) relative to the first distance, so that nothing underflows early, and g_i = d ln s_i / dk.

    x, s, g: shape (n,). Not nested: s = exp(-k (x - x_0)). Nested: the rings' rates,
    s_i = exp(-k (x_i - x_0)) (1 - exp(-k (x_i+1 - x_i))), the last one without the factor.
    """
    n = x.size
    near, width, keep, gone = 1.0, np.nan, 1.0, 0.0
    for i in range(n):
        far = x[i] - x[0]
        if i + 1 == n:
            s[i], g[i] = near, -far
            return
        step = x[i + 1] - x[i]
        if step != width:  # distances are often evenly spaced: one exponential serves them all
            width, keep, gone = step, np.exp(-k * step), -np.expm1(-k * step)
        if nested:
            s[i], g[i] = near * gone, step * keep / gone - far
        else:
            s[i], g[i] = near, -far
        near *= keep


@kernel
def between(prefix: Ints, first: int, last: int, side: int, i: int) -> int:
    """Sum over buckets [first, last) at distance i, of side 0 or 1, or 2 for both; see points.Window."""
    if side < 2:
        one: int = prefix[last, side, i] - prefix[first, side, i]
        return one
    two: int = prefix[last, 0, i] - prefix[first, 0, i] + prefix[last, 1, i] - prefix[first, 1, i]
    return two


@kernel
def head(T: Floats, N: Floats) -> int:
    """How many distances there are up to the first of those at the far end that nothing reached, all at risk alike."""
    h = T.size - 1
    while h > 0 and N[h] == 0.0 and N[h - 1] == 0.0 and T[h - 1] == T[h]:
        h -= 1
    return h + 1


@kernel
def chi2_tail(dof: int, x: float) -> float:
    """P(chi-square with `dof` > x), relative to some 1e-12: the upper incomplete gamma function Q(dof / 2, x / 2).

    Series below dof / 2 + 1, continued fraction above (Abramowitz and Stegun 1964, 6.5.29 and 6.5.31); here and not
    from scipy.special, whose import takes longer than all fits of a day.
    """
    a, z = dof / 2.0, max(x, 0.0) / 2.0
    if z == 0.0:
        return 1.0
    front = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1.0:
        term, total, n = 1.0 / a, 1.0 / a, a
        while term > 1e-17 * total:
            n += 1.0
            term *= z / n
            total += term
        return max(1.0 - front * total, 0.0)
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


def rate(delta_ticks: npt.ArrayLike, A: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """lambda(delta) = A exp(-k delta) in 1/s and side: delta in ticks, k per tick (Avellaneda and Stoikov 2008)."""
    return np.asarray(np.asarray(A) * np.exp(-np.asarray(k) * np.asarray(delta_ticks)), np.float64)
