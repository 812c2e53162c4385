"""What is fitted in some windows: seconds at risk and counts of each distance, window and side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlab.calib.points import Window
from mmlab.calib.shapes import Bools, Floats, Ints, Ladder, ladder
from mmlab.core.spans import NS_PER_S


@dataclass(frozen=True)
class Cells:
    """Sums over windows, a row for each window and side: bid, ask and both, one after the other.

    x: the distances, (n_deltas,). used: those with enough exposure; T (s), N (the counts to fit) and R (the disjoint
    ones) are 0 elsewhere; shape (m, n_rows). Beyond the first m distances nothing was hit, and all were at risk as the
    last of the m was. nearest_hits: hits at the nearest used distance, (n_rows,).
    """

    x: Floats
    used: Bools
    T: Floats
    N: Floats
    R: Floats
    nearest_hits: Ints
    on: Ladder

    @property
    def T_everywhere(self) -> Floats:  # noqa: N802 - the formulas' T
        """T at all distances, (n_deltas, n_rows)."""
        return _everywhere(self.T, self.x.size)

    @property
    def points_used(self) -> Ints:
        """How many distances are used, (n_rows,)."""
        return np.asarray(self.used.sum(axis=0) + (self.x.size - self.used.shape[0]) * self.used[-1], np.int64)

    @cached_property
    def rings(self) -> tuple[Floats, Ints]:
        """By how much T exceeds that at the used distance before, (m, n_rows); and the last ring's number, (n_rows,).

        Rings at the far end that nothing reached, all with the same time at risk, add up to one that has no end.
        """
        at, row = np.arange(self.T.shape[0])[:, None], np.arange(self.T.shape[1])
        more, reached = increase(self.T, self.used), self.R > 0
        deepest = np.where(reached | (more != 0), at, 0).max(axis=0)
        following = np.broadcast_to(self.on.following, (self.x.size, row.size))[deepest, row]
        open_end = reached[deepest, row] & (following < self.x.size)
        return more, np.where(open_end, following, deepest)


def cells(window: Window, x: Floats, min_exposure_s: float, nested: bool, of_rings: bool) -> Cells:
    """The sums over these windows; of_rings: the rings' counts are to be fitted, else the hits."""
    prefixes = (window.exposure, window.ring) if of_rings else (window.exposure, window.ring, window.hit)
    sums = [a[window.last] - a[window.first] for a in prefixes]
    m = _reached(*sums) if nested else x.size
    exposure, ring, *own = (by_distance(a[:, :, :m]).reshape(m, 3 * window.first.size) for a in sums)
    used = (exposure > 0) & (exposure / NS_PER_S >= min_exposure_s)
    T, R, *fitted = (np.where(used, a, 0.0) for a in (exposure / NS_PER_S, ring, *own))
    nearest_hits = np.where(used.any(axis=0), _hits_at(window, used.argmax(axis=0)), 0)
    return Cells(x, used, T, fitted[0] if fitted else R, R, nearest_hits, ladder(x, _everywhere(used, x.size)))


def _hits_at(window: Window, i: Ints) -> Ints:
    """Hits of each window and side at distance number i, (n_rows,)."""
    at = i.reshape(3, -1)
    hits = window.hit[window.last, :, at] - window.hit[window.first, :, at]
    return np.concatenate([hits[0, :, 0], hits[1, :, 1], hits[2].sum(axis=1)])


def by_distance(sums: Ints) -> Floats:
    """Bid and ask -> bid, ask and the two together, below 2^53: shape (n, 2, m) -> (m, 3, n)."""
    out = np.empty((sums.shape[2], 3, sums.shape[0]))
    out[:, :2] = sums.transpose(2, 1, 0)
    np.add(out[:, 0], out[:, 1], out=out[:, 2])
    return out


def increase(a: Floats, used: Bools) -> Floats:
    """By how much each used distance exceeds the used one before, 0 where not used; both of shape (m, ...)."""
    if not used.all():
        at = np.arange(a.shape[0]).reshape(-1, *(1 for _ in a.shape[1:]))
        held = np.maximum.accumulate(np.where(used, at, 0), axis=0)
        a = np.take_along_axis(np.where(used, a, 0.0), held, axis=0)
    return np.diff(a, axis=0, prepend=0.0)


def _everywhere(a: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Shape (m, n_rows) -> (n, n_rows): beyond the m-th as there."""
    return np.concatenate([a, np.broadcast_to(a[-1], (n - a.shape[0], a.shape[1]))]) if n > a.shape[0] else a


def _reached(exposure: Ints, *counts: Ints) -> int:
    """How many distances there are up to the first that stands for all beyond it: unhit, and always at risk alike."""
    unlike = (exposure != exposure[:, :, -1:]).any(axis=(0, 1))
    for count in counts:
        unlike |= count.any(axis=(0, 1))
    deepest = np.flatnonzero(unlike)
    return min(int(deepest[-1]) + 2 if deepest.size else 1, int(exposure.shape[2]))
