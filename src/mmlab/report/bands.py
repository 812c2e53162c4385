"""What is drawn around a fit: the curve's 95% band, and the intervals behind a schedule's steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution


def curve_band(fit: dict[str, Any], points: pl.DataFrame, distances: Floats) -> tuple[Floats, Floats, Floats]:
    """(curve, lower, upper) of lambda at `distances` in ticks, each of shape (n,), 1/s.

    fit: one FITS row that is ok; points: delta_ticks, exposure_s, usable of the same side.
    ln lambda = ln A - k delta has the variance se_A^2 - 2 rho delta se_A se_k + (delta se_k)^2. FITS keeps
    the two standard errors; rho follows from the Fisher information at the fit, which the expected
    counts give: with mu_i and g_i = d ln mu_i / dk, rho = -S1 / sqrt(S0 S2), S_n = sum mu_i g_i^n.
    """
    used = points.filter(pl.col("usable")).sort("delta_ticks")
    delta, exposure_s = used["delta_ticks"].to_numpy().astype(np.float64), used["exposure_s"].to_numpy()
    rate, g = np.exp(-fit["k"] * delta), -delta
    if fit["fit_method"] == "nested_mle":
        width = np.diff(delta)
        gone = -np.expm1(-fit["k"] * width)  # the ring to the next distance holds what does not reach it
        rate[:-1] *= gone
        g[:-1] += width * (1.0 - gone) / gone
    mu = exposure_s * rate
    s0, s1, s2 = mu.sum(), (mu * g).sum(), (mu * g * g).sum()
    rho = -s1 / np.sqrt(s0 * s2)
    a, b = fit["se_log_A"], distances * fit["se_k"]
    spread = Z95 * np.sqrt(np.maximum(a * a - 2 * rho * a * b + b * b, 0.0))
    curve = fit["A"] * np.exp(-fit["k"] * distances)
    return curve, curve * np.exp(-spread), curve * np.exp(spread)


def steps(windows: pl.DataFrame, fits: pl.DataFrame) -> pl.DataFrame:
    """`windows` in time order, with A_low, A_high, k_low, k_high of the fit in force (null where there is none)."""
    limits = ("A_low", "A_high", "k_low", "k_high")
    pooled = fits.filter(pl.col("side") == "both").select("train_end_ns", *limits)
    own = windows.join(pooled, on="train_end_ns", how="left", maintain_order="left").sort("start_ns")
    fitted = pl.when(pl.col("source") == "fit")
    return own.with_columns(fitted.then(pl.col(name)).forward_fill() for name in limits)
