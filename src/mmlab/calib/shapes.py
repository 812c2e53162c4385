"""What all estimators share: where the used distances lie, the curve's shape at them, sums over them.

Arrays of distances and rows have the shape (n_deltas, n_rows), a row being a span of time and a side. A row's figures
depend on that row alone, to the last bit: distances are summed in their order, and those at the far end that add
nothing add exactly nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Numbers = TypeVar("Numbers", Floats, Ints)
ENDLESS = 1e300  # the width of the last ring: nothing is kept beyond it


@dataclass(frozen=True)
class Ladder:
    """Where the used distances of each row lie; n_columns is 1 where every row uses every distance, else n_rows.

    far: from the row's first used distance, 0 where not used; following: the index of the next used distance, n_deltas
    after the last; both of shape (n_deltas, n_columns). nearest: the first used distance; gap: the smallest step
    between used ones; both (n_columns,). steps: all steps that there are, (n_steps,); place: which of them follows each
    distance, shaped like far.
    """

    far: Floats
    following: Ints
    nearest: Floats
    gap: Floats
    steps: Floats
    place: Ints

    def until(self, m: int) -> Ladder:
        """The first m distances."""
        return replace(self, far=self.far[:m], following=self.following[:m], place=self.place[:m])


def ladder(x: Floats, used: Bools) -> Ladder:
    """x: the distances, (n_deltas,), ascending; used: (n_deltas, n_rows)."""
    n = x.size
    kept = used[:, :1] if used.all() else used
    at_or_after = np.minimum.accumulate(np.where(kept, np.arange(n)[:, None], n)[::-1])[::-1]
    following = np.concatenate([at_or_after[1:], np.full_like(at_or_after[:1], n)])
    nearest = x[np.minimum(at_or_after[0], n - 1)]
    far = np.where(kept, x[:, None] - nearest, 0.0)
    step = np.where(kept & (following < n), x[np.minimum(following, n - 1)] - x[:, None], ENDLESS)
    return Ladder(far, following, nearest, step.min(axis=0), *distinct(step))


def distinct(values: Numbers) -> tuple[Numbers, Ints]:
    """The values, each once and ascending, and where each of `values` stands among them, in their shape.

    As np.unique has it, which would import numpy.ma: that takes longer than all fits of a day.
    """
    each = np.sort(values, axis=None)
    each = np.delete(each, np.flatnonzero(each[1:] == each[:-1]))
    return each, np.searchsorted(each, values)


def decay(k: Floats, far: Floats) -> Floats:
    """exp(-k far): relative to the first distance, so that nothing underflows early."""
    out = far * -k
    return np.exp(out, out=out)


def ring_factors(k: Floats, on: Ladder) -> tuple[Floats, Floats]:
    """What makes a ring of the curve, by the step to the next distance: shape (n_steps, n_rows); k: (n_rows,).

    1 - exp(-k step), and its logarithm's slope in k: step exp(-k step) / (1 - exp(-k step)).
    """
    steps = on.steps[:, None]
    gone = -np.expm1(-k * steps)
    return gone, steps * np.exp(-k * steps) / gone


def rows_at(a: Floats, index: Ints) -> Floats:
    """a[index[i, r], r]: shapes (n, n_rows) and (m, n_rows), or (m, 1) for all rows alike."""
    return a[index[:, 0]] if index.shape[1] == 1 else np.take_along_axis(a, index, axis=0)


def total(a: Floats) -> Floats:
    """Sums over distances in their order: (n, n_rows) -> (n_rows,). numpy would add up a single row's by pairs."""
    return np.asarray(a.sum(axis=0) if a.shape[1] > 1 else a.cumsum(axis=0)[-1], np.float64)


def rate(delta_ticks: npt.ArrayLike, A: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """lambda(delta) = A exp(-k delta) in 1/s and side: delta in ticks, k per tick (Avellaneda and Stoikov 2008)."""
    return np.asarray(np.asarray(A) * np.exp(-np.asarray(k) * np.asarray(delta_ticks)), np.float64)
