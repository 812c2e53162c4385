"""The figure that sets A and k of each window beside what the market did in the same span."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlab.report.calibration import sheet
from mmlab.report.canvas import INK, MUTED, finish, says
from mmlab.report.figures import BUY, SELL

MARKET = ("trade_rate", "qty_rate", "volatility", "spread", "buy_share")
PARAMETERS = {"log_A": "ln A", "k": "k"}
FEWEST = 4  # windows: the ranks of fewer say nothing


def correlation(windows: pl.DataFrame, metrics: pl.DataFrame) -> Figure:
    """Spearman's rank correlations of ln A and k with the market in the training span, and the two plain scatters.

    windows: WINDOWS, of which the steps with a fit of their own count; metrics: WINDOW_METRICS of the same steps.
    """
    fitted = windows.filter(pl.col("source") == "fit").sort("start_ns")
    spans = fitted.select("start_ns", "train_start_ns", "train_end_ns", "k", log_A=pl.col("A").log())
    joined = spans.join(metrics.select("start_ns", *MARKET), on="start_ns", how="inner", maintain_order="left")
    if joined.height < FEWEST:
        return says("Correlation with the market", f"{joined.height} windows with a fit: too few to correlate")
    found = {(p, m): rank_correlation(joined, p, m) for p in PARAMETERS for m in MARKET}
    if all(np.isnan(value) for value in found.values()):
        return says("Correlation with the market", "A and k, or all of the market's measures, never change")
    apart = _disjoint(joined)
    chance = 1.96 / (apart - 1) ** 0.5 if apart > FEWEST else 1.0
    figure = sheet(_title(found, chance, joined.height), height=6.2)
    panels: dict[str, Axes] = figure.subplot_mosaic([["all", "all"], ["A", "k"]], height_ratios=[1, 2.4])
    small = f"Spearman's rank correlation over {joined.height} windows, of which {apart} do not overlap: "
    small += (
        f"what lies within \N{PLUS-MINUS SIGN}{chance:.2f} may be chance" if chance < 1 else "too few to exclude chance"
    )
    panels["all"].set_title(small, loc="left", fontsize=8.5, color=MUTED)
    _matrix(panels["all"], found)
    busy = joined.filter(pl.col("trade_rate") > 0).with_columns(pl.col("trade_rate").log())
    _scatter(panels["A"], busy, "trade_rate", "log_A", BUY)
    finish(panels["A"], "ln A, A in 1/s and side", legend=False, x_label="")
    panels["A"].set_xlabel("ln of the trade rate in prints per second", color=INK, fontsize=9)
    _scatter(panels["k"], joined, "volatility", "k", SELL)
    finish(panels["k"], "k, 1/tick", legend=False, x_label="volatility, ticks per root second")
    return figure


def rank_correlation(frame: pl.DataFrame, one: str, other: str) -> float:
    """Spearman's correlation over the rows that have both; nan if there are too few or one never changes."""
    both = frame.select(one, other).drop_nulls()
    if both.height < FEWEST or min(both[name].n_unique() for name in (one, other)) < 2:
        return float("nan")
    return float(both.select(pl.corr(one, other, method="spearman")).item())


def _disjoint(rows: pl.DataFrame) -> int:
    """How many training spans, taken in time order, do not overlap the one taken before."""
    taken, end = 0, None
    for start, stop in rows.select("train_start_ns", "train_end_ns").iter_rows():
        if end is None or start >= end:
            taken, end = taken + 1, stop
    return taken


def _title(found: dict[tuple[str, str], float], chance: float, windows: int) -> str:
    """The market measure that goes most closely with each parameter, if any does more than by chance."""
    said = []
    for parameter, name in PARAMETERS.items():
        beyond = [(abs(v), m, v) for (p, m), v in found.items() if p == parameter and abs(v) > chance]
        _, market, value = max(beyond, default=(0.0, "", 0.0))
        said.append(
            f"{name} with {market.replace('_', ' ')} ({value:+.2f})" if market else f"{name} with none for sure"
        )
    return f"Correlation with the market: {', '.join(said)}; {windows} windows"


def _matrix(ax: Axes, found: dict[tuple[str, str], float]) -> None:
    """Parameters down, measures across, the number in each cell; a dash where there is none."""
    cells = np.array([[found[p, m] for m in MARKET] for p in PARAMETERS])
    ax.imshow(cells, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        text = "\N{EN DASH}" if np.isnan(value) else f"{value:+.2f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=10, color="white" if abs(value) > 0.6 else INK)
    ax.set_xticks(range(len(MARKET)), labels=[m.replace("_", " ") for m in MARKET])
    ax.set_yticks(range(len(PARAMETERS)), labels=list(PARAMETERS.values()))
    ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    ax.spines[:].set_visible(False)


def _scatter(ax: Axes, rows: pl.DataFrame, x: str, y: str, colour: str) -> None:
    """One dot a window; words where no window has both."""
    drawn: Any = rows.select(x, y).drop_nulls()
    if drawn.is_empty():
        ax.text(0.5, 0.5, f"no {x.replace('_', ' ')}", ha="center", va="center", color=MUTED, transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
    ax.scatter(drawn[x].to_numpy(), drawn[y].to_numpy(), s=16, color=colour, alpha=0.6, linewidths=0, label="windows")
