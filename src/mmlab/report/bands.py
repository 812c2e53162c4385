"""What is drawn around a number: limits of counts, a curve's band, a schedule's intervals, bars and hatched spans."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.stats import chi2

from mmlab.core.spans import NS_PER_S
from mmlab.report.canvas import MUTED, times

Floats = npt.NDArray[np.float64]
Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
LIMITS = ("A_low", "A_high", "k_low", "k_high")


def poisson_limits(counts: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Exact 95% limits of the means behind `counts`; where the count is 0, from 0 to the one-sided 95% limit."""
    low = np.where(counts > 0, chi2.ppf(0.025, 2 * np.maximum(counts, 1)) / 2, 0.0)
    high = np.where(counts > 0, chi2.ppf(0.975, 2 * counts + 2) / 2, -np.log(0.05))
    return low, high


def by_distance(points: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Sums over buckets per side, distance and `by`: hits, exposure in s, and exact Poisson 95% limits of the rate."""
    summed = (
        points.group_by(*by, "side", "delta_ticks")
        .agg(pl.col("fills_total").sum().alias("hits"), pl.col("exposure_ns").sum(), pl.col("usable").any())
        .filter(pl.col("exposure_ns") > 0)
        .sort(*by, "side", "delta_ticks")
    )
    return with_limits(summed, "hits", summed["exposure_ns"] / NS_PER_S).rename({"per": "exposure_s"})


def with_limits(counts: pl.DataFrame, hits: str, per: pl.Series) -> pl.DataFrame:
    """`counts` with the column `hits`, `per`, rate = hits / per, and its exact Poisson 95% limits low and high."""
    low, high = (pl.Series(limit) / per for limit in poisson_limits(counts[hits].to_numpy()))
    return counts.rename({hits: "hits"}).with_columns(per=per, rate=counts[hits] / per, low=low, high=high)


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
    """`windows` in time order, with A_low, A_high, k_low, k_high of the fit in force (null where there is none).

    The limits are the robust ones where the fit has them; the column `robust` says so.
    """
    of_both = (pl.col("side") == "both") & (pl.col("family") == "exponential")
    robust = pl.all_horizontal(pl.col(f"{name}_robust").is_not_null() for name in LIMITS)
    best = (pl.when("robust").then(f"{name}_robust").otherwise(name).alias(name) for name in LIMITS)
    pooled = fits.filter(of_both).with_columns(robust=robust).select("train_end_ns", "robust", *best)
    own = windows.join(pooled, on="train_end_ns", how="left", maintain_order="left").sort("start_ns")
    fitted = pl.when(pl.col("source") == "fit")
    return own.with_columns(fitted.then(pl.col(name)).forward_fill() for name in (*LIMITS, "robust"))


def bars(
    ax: Axes, x: Any, counted: pl.DataFrame, colour: str, label: str, face: str | None = None, size: float = 4.5
) -> None:
    """Rates with 95% bars; an arrow down from the 95% upper limit where nothing was hit."""
    hit = (counted["hits"] > 0).to_numpy()
    rate, low, high = (counted[name].to_numpy() for name in ("rate", "low", "high"))
    style: dict[str, Any] = {"color": colour, "lw": 1.1, "zorder": 3}
    if hit.any():
        around = np.array([rate - low, high - rate])[:, hit]
        ax.errorbar(
            x[hit], rate[hit], around, fmt="o", ms=size, mfc=face or colour, capsize=size / 2, label=label, **style
        )
    if not hit.all():
        name = f"{label.partition(',')[0]} never hit, upper limit"
        ax.errorbar(x[~hit], high[~hit], 0.5 * high[~hit], uplims=True, fmt="_", ms=7, label=name, **style)


def across(distances: npt.NDArray[Any]) -> tuple[float, float]:
    """Ends of an x axis that shows the mid and `distances`, ticks; own orders may stand at the mid or before it."""
    nearest, low, high = distances.min(), min(distances.min(), 0.0), max(distances.max(), 0.0)
    room = 0.03 * (high - low) or 1.0
    return (low - room if nearest <= 0 else 0.0), high + room


def log_axis(ax: Axes, bottom: float | None = None, which: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis with plain numbers on its ticks, the closer the fewer decades there are."""
    ax.set(**{f"{which}scale": "log"})
    if bottom is not None:
        ax.set_ylim(bottom=bottom)
    axis = ax.yaxis if which == "y" else ax.xaxis
    low, high = axis.get_view_interval()
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high < 30 * low else (1.0, 2.0, 5.0) if high < 1_000 * low else (1.0,)
    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]) if high < 3 * low else LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def shade(ax: Axes, rows: pl.DataFrame, label: str, hatch: str, colour: str) -> None:
    """Hatch the spans start_ns to end_ns of `rows`, in time order; spans that touch are one."""
    run = (pl.col("start_ns") != pl.col("end_ns").shift(1)).fill_null(True).cum_sum()
    first, last = pl.col("start_ns").first(), pl.col("end_ns").last()
    merged = rows.group_by(run=run, maintain_order=True).agg(first, last).select("start_ns", "end_ns")
    for i, span in enumerate(merged.iter_rows()):
        x = times(np.array(span))
        style: dict[str, Any] = {"facecolor": colour, "alpha": 0.35, "hatch": hatch, "edgecolor": MUTED, "linewidth": 0}
        ax.axvspan(x[0], x[1], zorder=0, label=label if i == 0 else None, **style)


def shade_unfitted(ax: Axes, windows: pl.DataFrame) -> None:
    """Hatch the steps that carry an older fit forward and those before the first fit."""
    shade(ax, windows.filter(pl.col("source") == "carry_forward"), "carried forward", "///", "#cbd2d9")
    shade(ax, windows.filter(pl.col("source") == "none"), "no fit yet", "xxx", "#f5d9d2")


def stairs(rows: pl.DataFrame, *names: str) -> tuple[Any, ...]:
    """Times and values that draw each row flat from start_ns to end_ns; null is a gap."""
    x = times(np.column_stack([rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()]).ravel())
    return (x, *(np.repeat(rows[name].to_numpy(), 2) for name in names))
