"""Fits -> `stability`: how ln A and k move over time, against what their standard errors allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.calib_schemas import STABILITY
from mmlab.core.spans import NS_PER_MIN

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
UNITS = {"log_A": "1", "k": "1/tick"}
NS_PER_HOUR = 60 * NS_PER_MIN


def stability(fits: pl.DataFrame) -> pl.DataFrame:
    """The `stability` table: one row a parameter, from FITS rows; rows in any order give the same bytes.

    Used are the good fits of the exponential on both sides whose training spans do not overlap, taken
    greedily from the first one on, so that their errors are independent. Standard errors are the ones
    clustered over blocks of time where given, else Fisher's; a fit without an error above 0 is no
    yardstick and is passed over.

    scatter: root of half the mean square of the changes d from one fit to the next (von Neumann 1941):
    a constant market has E d = 0 and E d^2 = 2 se^2, so that scatter / mean_se is 1 there.
    drift: slope of the straight line through the middles of the training spans, weighted by 1 / se^2;
    its error 1 / sqrt(sum of (t - mean t)^2 / se^2) takes the stated errors as they are.
    Null: scatter and stability with fewer than 2 fits, drift with fewer than 3, the means without any.
    """
    kept = disjoint(_good(fits))
    middle = kept.select((pl.col("train_start_ns") + pl.col("train_end_ns")) // 2).to_series().to_numpy()
    hours = (middle - middle[:1]) / NS_PER_HOUR  # from the first one: an epoch in nanoseconds would cost digits
    rows = [
        _row(name, kept[name].to_numpy().astype(np.float64), kept[f"se_{name}"].to_numpy().astype(np.float64), hours)
        for name in UNITS
    ]
    return STABILITY.check(STABILITY.conform(pl.DataFrame(rows, schema_overrides=STABILITY.schema)))


def disjoint(fits: pl.DataFrame) -> pl.DataFrame:
    """The rows of `fits` whose training spans do not overlap, greedily from the first one, in time order."""
    ordered = fits.sort("train_start_ns", "train_end_ns")
    start, end = (ordered[f"train_{name}_ns"].to_numpy() for name in ("start", "end"))
    taken, i = [], 0
    while i < start.size:
        taken.append(i)
        i = max(i + 1, int(np.searchsorted(start, end[i])))
    return ordered[taken]


def _good(fits: pl.DataFrame) -> pl.DataFrame:
    """Times, ln A, k and their errors of the good exponential fits on both sides."""
    kept = fits.filter((pl.col("family") == "exponential") & (pl.col("side") == "both") & pl.col("ok"))
    errors = (
        pl.coalesce(pl.col(f"se_{name}_robust").fill_nan(None), pl.col(f"se_{name}").fill_nan(None)).alias(f"se_{name}")
        for name in UNITS
    )
    values = kept.select("train_start_ns", "train_end_ns", "k", *errors, log_A=pl.col("A").log())
    known = (pl.col(name).is_finite() & (pl.col(f"se_{name}") > 0) & pl.col(f"se_{name}").is_finite() for name in UNITS)
    return values.filter(pl.all_horizontal(known))


def _row(name: str, value: Floats, se: Floats, hours: Floats) -> dict[str, object]:
    """One parameter's row; three arrays of shape (n_fits,)."""
    n = value.size
    scatter = float(np.sqrt(np.mean(np.diff(value) ** 2) / 2)) if n >= 2 else None
    mean_se = float(np.sqrt(np.mean(se**2))) if n else None
    drift, drift_se = _line(value, se, hours) if n >= 3 else (None, None)
    return {
        "parameter": name,
        "unit": UNITS[name],
        "fits": n,
        "mean": float(value.mean()) if n else None,
        "scatter": scatter,
        "mean_se": mean_se,
        "stability": scatter / mean_se if scatter is not None and mean_se else None,
        "drift_per_hour": drift,
        "drift_se": drift_se,
    }


def _line(value: Floats, se: Floats, hours: Floats) -> tuple[float, float]:
    """Slope of the line weighted by 1 / se^2, and its standard error, per hour."""
    weight = 1.0 / se**2
    apart = hours - np.sum(weight * hours) / np.sum(weight)
    spread = float(np.sum(weight * apart**2))
    return float(np.sum(weight * apart * value)) / spread, spread**-0.5
