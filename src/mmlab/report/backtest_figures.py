"""Figures of a backtest: where the profit came from, markouts, latencies, time with quotes, fill models side by side.

An empty table gives a figure that says so. What is drawn is computed in backtest.py.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mmlab.core.schemas import COMPONENTS, HORIZONS_S
from mmlab.core.spans import NS_PER_MS
from mmlab.report.backtest import (
    QUOTED,
    TO_CANCEL,
    TO_FILL,
    TO_VENUE,
    markouts_by_horizon,
    parts_by_horizon,
    quoted_by_time,
    too_late,
    waits,
)
from mmlab.report.backtest import latency as latencies
from mmlab.report.backtest_fills import HORIZON_S
from mmlab.report.canvas import GRID, INK, MUTED, canvas, finish, says, times
from mmlab.report.figures import BUY, SELL, TRUTH, signed

PART_COLOUR = dict(zip(COMPONENTS, (BUY, SELL, "#cc79a7", "#e0a100"), strict=True))
MOST_STEPS = 1_000  # of a distribution's line
LEAST_MS = 0.1  # a wait below it is drawn here, as a log axis has no 0
WAIT_STYLE = {TO_VENUE: (BUY, "-"), TO_CANCEL: (SELL, "--"), TO_FILL: (INK, "-")}
WAIT_SAID = {TO_VENUE: "to the venue", TO_CANCEL: "to cancel", TO_FILL: "at the venue until the first fill"}
QUOTED_COLOUR = dict(zip(QUOTED, (TRUTH, BUY, SELL, GRID), strict=True))


def waterfall(attribution: pl.DataFrame) -> Figure:
    """The parts of the profit one after the other, ending at their sum."""
    found = parts_by_horizon(attribution).filter(pl.col("horizon_s") == HORIZON_S)
    if found.is_empty():
        return says("Where the profit came from", "no attribution of this run")
    row = found.row(0, named=True)
    opening = attribution.filter(horizon_s=HORIZON_S, side="opening", component="inventory")
    held = math.fsum(opening["value"])
    small = f"quote currency; {row['fills']:,} fills, each followed for {HORIZON_S} s"
    small += f", {row['fills_cut']:,} of them to the end of the run" if row["fills_cut"] else ""
    small += f"; {signed(held)} of the inventory part is on the position held at the start" if held else ""
    figure, (ax,) = canvas(
        f"Where the {'loss' if row['pnl_total'] < 0 else 'profit'} of {signed(row['pnl_total'])} came from\n{small}",
        3.8,
    )
    values = [row[name] for name in COMPONENTS]
    ends = list(accumulate(values))
    bottoms = [0.0, *ends[:-1], 0.0]
    _steps(ax, [*values, row["pnl_total"]], bottoms)
    labels = ["spread earned", f"adverse selection\n(within {HORIZON_S} s)", "inventory\n(after that)", "fees"]
    ax.set_xticks(range(5), labels=[*labels, "total"])
    finish(ax, "profit, quote currency", x_label="", legend=False)
    ax.grid(visible=False, axis="x")
    return figure


def _steps(ax: Axes, heights: list[float], bottoms: list[float]) -> None:
    """Bars that begin where the one before ended, each with its value at its far end."""
    for i, (height, bottom) in enumerate(zip(heights, bottoms, strict=True)):
        colour = INK if i == len(heights) - 1 else BUY if height >= 0 else SELL
        ax.bar(i, height, bottom=bottom, width=0.6, color=colour)
        up = height >= 0
        ax.annotate(
            signed(height), (i, bottom + height), xytext=(0, 3 if up else -3), textcoords="offset points",
            ha="center", va="bottom" if up else "top", fontsize=9, color=INK,
        )  # fmt: skip
        if i < len(heights) - 1:
            ax.plot([i + 0.3, i + 0.7], [bottom + height] * 2, color=MUTED, linewidth=0.8)
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.use_sticky_edges = False
    ax.margins(y=0.12)


def markouts_drawn(markouts: pl.DataFrame) -> Figure:
    """At each horizon the middle of the markouts of buys and sells, and the mean of all fills with its interval."""
    if markouts.is_empty():
        return says("Markouts", "no fills in this run")
    every = markouts_by_horizon(markouts)
    if not every["fills"].sum():
        return says("Markouts", f"the run ends within {HORIZONS_S[0]} s of every fill")
    figure, (top, low) = canvas(_markout_title(every), 6.0, rows=2, heights=(3, 2))
    for side, shift, colour, label in ((1, -0.13, BUY, "buys"), (-1, 0.13, SELL, "sells")):
        _boxes(top, markouts_by_horizon(markouts, side), shift, colour, label)
    at, mean = np.arange(every.height), _floats(every, "mean")
    reach = np.array([mean - _floats(every, "low"), _floats(every, "high") - mean])
    low.errorbar(at, mean, yerr=reach, fmt="D", color=INK, elinewidth=1.6, capsize=4, markersize=5,
                 label="mean markout of all fills\nand its 95% interval")  # fmt: skip
    low.plot(at, _floats(every, "kept"), "o", mfc="white", mec=TRUTH, mew=1.5, ms=7,
             label="mean of spread earned\n+ markout")  # fmt: skip
    low.set_xticks(at, labels=[f"{h} s" for h in every["horizon_s"]])
    for ax in (top, low):
        ax.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        finish(ax, "markout, bps of the mid\nat the fill", x_label="time after the fill")
        ax.grid(visible=False, axis="x")
    return figure


def _floats(frame: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """A column in which null is nan."""
    return frame[name].cast(pl.Float64).to_numpy()


def _boxes(ax: Axes, found: pl.DataFrame, shift: float, colour: str, label: str) -> None:
    """5% to 95% as a line, the middle half as a box, the median as a stroke; horizons without fills are left out."""
    named: str | None = f"{label}: 5 to 95%, middle half, median"
    for i, row in enumerate(found.iter_rows(named=True)):
        if not row["fills"]:
            continue
        x = i + shift
        ax.plot([x, x], [row["p05"], row["p95"]], color=colour, linewidth=1.1)
        ax.bar(x, row["p75"] - row["p25"], bottom=row["p25"], width=0.2, color=colour, alpha=0.45, label=named)
        ax.plot([x - 0.1, x + 0.1], [row["p50"]] * 2, color=colour, linewidth=2)
        named = None


def _markout_title(every: pl.DataFrame) -> str:
    """What the mid does to the fills at each horizon, and how many were left out."""
    rows = [row for row in every.iter_rows(named=True) if row["fills"]]
    said = (f"{row['mean']:+.3g} at {row['horizon_s']} s" for row in rows)
    cut = max(row["cut"] for row in every.iter_rows(named=True))
    small = f"{max(row['fills'] for row in rows):,} fills, each counted by its notional"
    small += f"; up to {cut:,} near the end of the run are left out, longest horizon first" if cut else ""
    small += "; no interval where the run is too short for one" if every["low"].null_count() else ""
    return f"Markouts, mean in bps: {', '.join(said)}\n{small}"


def latency(orders: pl.DataFrame, fills: pl.DataFrame) -> Figure:
    """Which part of the orders had waited that long or less."""
    found = {name: np.sort(ns) for name, ns in waits(orders, fills).items() if ns.size}
    if not found:
        return says("Latency", "no order was sent")
    late, all_fills = too_late(orders)
    medians = {row["wait"]: row["p50_ms"] for row in latencies(orders, fills).iter_rows(named=True)}
    head = ", ".join(f"{_time(ms)} {WAIT_SAID[name]}" for name, ms in medians.items())
    small = f"{late:,} of {all_fills:,} fills came while the order's cancel was on its way" if all_fills else "no fills"
    figure, (ax,) = canvas(f"Medians: {head}\n{small}", 3.6)
    for name, ns in found.items():
        colour, style = WAIT_STYLE[name]
        at = np.unique(np.linspace(0, ns.size - 1, min(ns.size, MOST_STEPS)).round().astype(np.int64))
        ms = np.maximum(ns[at] / NS_PER_MS, LEAST_MS)
        x, y = np.append(ms[0], ms), np.append(0.0, (at + 1) / ns.size)
        ax.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.5, label=f"{name} ({ns.size:,})")
    longest = max(float(ns[-1]) for ns in found.values()) / NS_PER_MS
    ax.set_xscale("log")
    ax.set_xlim(0.9 * LEAST_MS, max(longest * 1.5, 100 * LEAST_MS))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: _time(ms)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    finish(ax, "share of orders", x_label=f"waited at most this long, log scale; {LEAST_MS} ms: that or less")
    return figure


def _time(ms: float) -> str:
    """Milliseconds below a second, then seconds, then minutes."""
    if ms < 1_000:
        return f"{ms:.3g} ms"
    return f"{ms / 1_000:.3g} s" if ms < 120_000 else f"{ms / 60_000:.3g} min"


def quoted(state: pl.DataFrame) -> Figure:
    """In each stretch of time, for which part of it there were own quotes, stacked to 100%."""
    shares = quoted_by_time(state) if state.height else pl.DataFrame()
    if shares.is_empty():
        return says("Time with own quotes", "no time passed between decisions")
    held = (shares["end_ns"] - shares["start_ns"]).to_numpy()
    whole = {name: float(shares[name].to_numpy() @ held) / float(held.sum()) for name in QUOTED}
    figure, (ax,) = canvas("Time with own quotes: " + ", ".join(f"{name} {whole[name]:.1%}" for name in QUOTED), 2.6)
    edges = times(np.append(shares["start_ns"].to_numpy(), shares["end_ns"][-1]))
    bottom = np.zeros(shares.height)
    for name in QUOTED:
        top = bottom + shares[name].to_numpy()
        ax.fill_between(edges, np.append(bottom, bottom[-1]), np.append(top, top[-1]), step="post",
                        color=QUOTED_COLOUR[name], linewidth=0, label=name)  # fmt: skip
        bottom = top
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    finish(ax, "share of the time")
    return figure


def fill_models(wide: pl.DataFrame) -> Figure:
    """A bar of stacked parts for each fill model, and their sum as a dot; wide: backtest_fills.side_by_side."""
    if wide.is_empty():
        return says("Fill models", "no fill model was run")
    lowest, highest = (wide.row(i, named=True) for i in (wide["pnl_total"].arg_min(), wide["pnl_total"].arg_max()))
    head = f"from {signed(lowest['pnl_total'])} ({lowest['model']}) to {signed(highest['pnl_total'])}"
    figure, (ax,) = canvas(
        f"One strategy under each fill model: {head} ({highest['model']})\n"
        f"profit in quote currency; fills followed for {HORIZON_S} s",
        1.5 + 0.42 * wide.height,
    )
    rows = list(wide.iter_rows(named=True))[::-1]
    for y, row in enumerate(rows):
        _stack(ax, y, row, named=y == 0)
    ax.plot([row["pnl_total"] for row in rows], range(len(rows)), "D", color=INK, markeredgecolor="white",
            markersize=7, linestyle="none", label="total", zorder=3)  # fmt: skip
    ax.axvline(0, color=MUTED, linewidth=0.8)
    labels = [f"{row['model']}, {row['fills']:,.0f} fills" for row in rows]
    ax.set_yticks(range(len(rows)), labels=labels)
    finish(ax, "", x_label="profit, quote currency")
    ax.grid(visible=False, axis="y")
    return figure


def _stack(ax: Axes, y: int, row: dict[str, Any], named: bool) -> None:
    """Gains to the right of 0 and losses to the left, each part in its colour."""
    ends = {True: 0.0, False: 0.0}
    for name in COMPONENTS:
        gain = row[name] >= 0
        label = name.replace("_", " ") if named else None
        ax.barh(y, row[name], left=ends[gain], height=0.6, color=PART_COLOUR[name], label=label)
        ends[gain] += row[name]
