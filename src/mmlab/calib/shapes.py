"""The curve itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmlab.core.native import Floats


def rate(delta_ticks: npt.ArrayLike, A: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """lambda(delta) = A exp(-k delta) in 1/s and side: delta in ticks, k per tick (Avellaneda and Stoikov 2008)."""
    return np.asarray(np.asarray(A) * np.exp(-np.asarray(k) * np.asarray(delta_ticks)), np.float64)
