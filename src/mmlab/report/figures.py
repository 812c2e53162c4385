"""Frames -> figures, one function each; the contracts of the frames are in core/schemas.py.

An empty table gives a figure that says so. Long series are thinned (canvas.thin) before they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import chi2

from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.report.bands import curve_band, steps
from mmlab.report.canvas import INK, MUTED, canvas, finish, png, says, thin, times, values

__all__ = ["equity", "fills_on_price", "intensity", "inventory", "parameters", "png"]

BUY, SELL, LOSS = "#0072b2", "#d55e00", "#c0392b"  # blue and vermilion: apart for colour-blind eyes too
MID, TRUTH = "#3e4c59", "#009e73"
SIDE_COLOUR = {"bid": BUY, "ask": SELL, "both": INK}


def equity(state: pl.DataFrame) -> Figure:
    """Change of the mark-to-market value since the start, with the drawdown from its running peak shaded."""
    if state.is_empty():
        return says("Profit and loss", "no state rows: the run made no decision")
    change = pl.col("mtm_value") - pl.col("mtm_value").first()
    frame = state.select("recv_ns", change=change, peak=change.cum_max())
    worst, end = float((frame["change"] - frame["peak"]).to_numpy().min()), float(frame["change"][-1])
    shown = thin(frame, "change")
    figure, (ax,) = canvas(f"Profit and loss: {_signed(end)} at the end, deepest drawdown {_signed(worst)}")
    x, y, peak = (values(shown, name) for name in ("recv_ns", "change", "peak"))
    ax.fill_between(x, y, peak, step="post", color=LOSS, alpha=0.22, linewidth=0, label="drawdown")
    ax.step(x, y, where="post", color=INK, linewidth=1.2, label="value change")
    ax.axhline(0, color=MUTED, linewidth=0.8)
    finish(ax, "change of mtm value, quote currency")
    return figure


def inventory(state: pl.DataFrame) -> Figure:
    """The position over time, long above and short below zero."""
    if state.is_empty():
        return says("Inventory", "no state rows: the run made no decision")
    held = state["inventory"].to_numpy()
    figure, (ax,) = canvas(f"Inventory: from {held.min():.6g} to {held.max():.6g}, {held[-1]:.6g} at the end")
    shown = thin(state, "inventory")
    x, y = values(shown, "recv_ns"), values(shown, "inventory")
    for name, part, colour in (("long", np.maximum(y, 0), BUY), ("short", np.minimum(y, 0), SELL)):
        ax.fill_between(x, part, 0, step="post", color=colour, alpha=0.3, linewidth=0, label=name)
    ax.step(x, y, where="post", color=INK, linewidth=0.8)
    ax.axhline(0, color=MUTED, linewidth=0.8)
    finish(ax, "position, base currency")
    return figure


def fills_on_price(state: pl.DataFrame, fills: pl.DataFrame) -> Figure:
    """Mid, own quotes, and fills at their prices: buys point up, sells point down."""
    if state.is_empty():
        return says("Fills on price", "no state rows: the run made no decision")
    bought, sold = (fills.filter(pl.col("side") == side) for side in (1, -1))
    count = f"{bought.height:,} buys, {sold.height:,} sells" if fills.height else "no fills in this run"
    figure, (ax,) = canvas(f"Fills on price: {count}", height=4.4)
    for name, colour, label in (("bid_px", BUY, "own bid"), ("ask_px", SELL, "own ask")):
        shown = thin(state, name)
        ax.step(
            values(shown, "recv_ns"), values(shown, name), where="post", color=colour, alpha=0.35, lw=0.7, label=label
        )
    shown = thin(state, "mid")
    ax.step(values(shown, "recv_ns"), values(shown, "mid"), where="post", color=MID, linewidth=0.7, label="mid")
    size = float(np.clip(9_000 / (fills.height + 1), 14, 42))
    for part, marker, colour, label in ((bought, "^", BUY, "buy"), (sold, "v", SELL, "sell")):
        shown = thin(part, "price")
        x, y = values(shown, "recv_ns"), values(shown, "price")
        ax.scatter(x, y, s=size, marker=marker, color=colour, edgecolors="white", lw=0.3, zorder=3, label=label)
    ax.ticklabel_format(axis="y", useOffset=False)
    finish(ax, "price, quote currency")
    return figure


def intensity(points: pl.DataFrame, fit: pl.DataFrame, truth: Mapping[str, Any] | None = None) -> Figure:
    """Hits per second at each distance with Poisson 95% bars, the fitted curve, and the truth where it is known.

    points: POINTS rows, added up over the span of the fit that is drawn; fit: FITS rows, of which the last
    good one of both sides is drawn; truth: the `truth` of a synthetic day's manifest.
    """
    row = _pooled(fit)
    span = (row["train_start_ns"], row["train_end_ns"]) if row else _span(points)
    measured = _by_distance(points.filter(pl.col("bucket_start_ns").is_between(span[0], span[1], closed="left")))
    if measured.is_empty():
        return says("Fill intensity", "no points: no probe stood in this span")
    figure, (ax,) = canvas(_fit_title(row), height=4.6)
    reach = float(measured["delta_ticks"].to_numpy().max())
    for side, shift in (("bid", -0.004), ("ask", 0.004)):
        _draw_points(ax, measured.filter(pl.col("side") == side), side, shift * reach)
    lowest = _lowest(measured)
    distances = np.linspace(0, reach * 1.03, 200)
    if row is not None and row["ok"]:
        middle, low, high = curve_band(row, measured.filter(pl.col("side") == "both"), distances)
        ax.fill_between(distances, low, high, color=INK, alpha=0.15, linewidth=0, label="95% band of the curve")
        ax.plot(distances, middle, color=INK, linewidth=1.4, label="A exp(-k delta), both sides")
    for i, piece in enumerate(_pieces(truth, *span)):
        label = f"truth: A = {piece['A']:g} /s, k = {piece['k']:g} /tick" if i < 4 else None
        curve = piece["A"] * np.exp(-piece["k"] * distances)
        ax.plot(distances, curve, color=TRUTH, linestyle=(i, (5, 3)), linewidth=1.4, label=label)
    ax.set_yscale("log")
    ax.set_ylim(bottom=lowest / 2)
    ax.set_xlim(0, reach * 1.03)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    finish(ax, "intensity, hits per second and side", x_label="distance from the mid at the anchor, ticks")
    return figure


def parameters(windows: pl.DataFrame, fits: pl.DataFrame, truth: Mapping[str, Any] | None = None) -> Figure:
    """A and k in force, step by step, with the 95% band of the fit behind them; carried steps are hatched."""
    if windows.is_empty():
        return says("Fitted parameters", "no windows: the schedule has no step")
    drawn = steps(windows, fits)
    fitted, carried = (drawn.filter(pl.col("source") == s).height for s in ("fit", "carry_forward"))
    title = "Parameters in force, each step fitted on the time before it"
    figure, axes = canvas(f"{title}\n{fitted} of {drawn.height} steps fitted, {carried} carried forward", 5.4, rows=2)
    edges = times(np.column_stack([drawn["start_ns"].to_numpy(), drawn["end_ns"].to_numpy()]).ravel())
    pieces = _pieces(truth, int(drawn["start_ns"][0]), int(drawn["end_ns"][-1]))
    for ax, name, unit in zip(axes, ("A", "k"), ("1/s and side", "1/tick"), strict=True):
        low, value, high = (np.repeat(drawn[c].to_numpy(), 2) for c in (f"{name}_low", name, f"{name}_high"))
        ax.fill_between(edges, low, high, color=BUY, alpha=0.22, linewidth=0, label="95% interval of the fit")
        ax.plot(edges, value, color=BUY, linewidth=1.4, label=f"{name} in force")
        _draw_truth(ax, pieces, name)
        _shade(ax, drawn.filter(pl.col("source") == "carry_forward"), "carried forward", "///", "#cbd2d9")
        _shade(ax, drawn.filter(pl.col("source") == "none"), "no fit yet", "xxx", "#f5d9d2")
        finish(ax, f"{name}, {unit}")
    return figure


def _by_distance(points: pl.DataFrame) -> pl.DataFrame:
    """Sums over buckets per side and distance: hits, exposure in s, and exact Poisson 95% limits of the rate."""
    summed = (
        points.group_by("side", "delta_ticks")
        .agg(pl.col("fills_total").sum().alias("hits"), pl.col("exposure_ns").sum(), pl.col("usable").any())
        .filter(pl.col("exposure_ns") > 0)
        .sort("side", "delta_ticks")
    )
    hits, exposure_s = summed["hits"].to_numpy(), summed["exposure_ns"].to_numpy() / 1e9
    low = np.where(hits > 0, chi2.ppf(0.025, 2 * np.maximum(hits, 1)) / 2, 0.0)
    high = np.where(hits > 0, chi2.ppf(0.975, 2 * hits + 2) / 2, -np.log(0.05))  # one-sided where nothing was hit
    limits = {"exposure_s": exposure_s, "rate": hits / exposure_s, "low": low / exposure_s, "high": high / exposure_s}
    return summed.with_columns(pl.Series(name, values) for name, values in limits.items())


def _draw_points(ax: Axes, points: pl.DataFrame, side: str, shift: float) -> None:
    """Filled: used by the fit; hollow: too little exposure; arrow down: no hits, the 95% upper limit."""
    colour = SIDE_COLOUR[side]
    for usable, face in ((True, colour), (False, "white")):
        part = points.filter((pl.col("hits") > 0) & (pl.col("usable") == usable))
        if part.is_empty():
            continue
        rate, low, high = (part[name].to_numpy() for name in ("rate", "low", "high"))
        x = part["delta_ticks"].to_numpy() + shift
        label = f"{side} probes, 95% interval" if usable else f"{side} probes with little exposure"
        bars = np.array([rate - low, high - rate])
        ax.errorbar(x, rate, bars, fmt="o", ms=4.5, color=colour, mfc=face, capsize=2.5, lw=1.1, zorder=3, label=label)
    missed = points.filter(pl.col("hits") == 0)
    if missed.height:
        x, high = missed["delta_ticks"].to_numpy() + shift, missed["high"].to_numpy()
        label = f"{side} probes never hit, upper limit"
        ax.errorbar(x, high, 0.5 * high, uplims=True, fmt="_", color=colour, ms=7, lw=1.1, zorder=3, label=label)


def _lowest(measured: pl.DataFrame) -> float:
    """The lowest rate or limit that is drawn."""
    drawn = measured.filter(pl.col("side") != "both") if (measured["side"] != "both").any() else measured
    lows = np.where(drawn["hits"].to_numpy() > 0, drawn["low"].to_numpy(), drawn["high"].to_numpy())
    return float(lows.min())


def _signed(value: float) -> str:
    return f"{value:+,.4g}" if abs(value) < 1_000 else f"{value:+,.0f}"


def _pooled(fit: pl.DataFrame) -> dict[str, Any] | None:
    """The last row of both sides that is ok, or else the last one, or none."""
    rows = fit.filter(pl.col("side") == "both").sort("ok", "train_end_ns")
    return rows.row(-1, named=True) if rows.height else None


def _span(points: pl.DataFrame) -> tuple[int, int]:
    ends = points.select(first=pl.col("bucket_start_ns").min(), last=pl.col("bucket_end_ns").max()).fill_null(0)
    first, last = ends.row(0)
    return int(first), int(last)


def _fit_title(row: dict[str, Any] | None) -> str:
    if row is None:
        return "Fill intensity by distance (no fit)"
    first, last = (datetime.fromtimestamp(round(row[f"train_{end}_ns"] / NS_PER_S), UTC) for end in ("start", "end"))
    how = f"{row['fit_method']}, counting {row['count_rule']}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if not row["ok"]:
        return f"Fill intensity: no curve, {row['reason']}\n{how}"
    A = f"A = {row['A']:.3g} /s ({row['A_low']:.3g} to {row['A_high']:.3g})"
    k = f"k = {row['k']:.3g} /tick ({row['k_low']:.3g} to {row['k_high']:.3g})"
    return f"Fill intensity: {A}, {k}\n{how}"


def _pieces(truth: Mapping[str, Any] | None, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """The pieces of the truth that overlap [start_ns, end_ns), clipped to it."""
    clipped = [
        {
            **piece,
            "start_ns": max(piece["start_ms"] * NS_PER_MS, start_ns),
            "end_ns": min(piece["end_ms"] * NS_PER_MS, end_ns),
        }
        for piece in (truth or {}).get("pieces", [])
    ]
    return [piece for piece in clipped if piece["start_ns"] < piece["end_ns"]]


def _draw_truth(ax: Axes, pieces: list[dict[str, Any]], name: str) -> None:
    for i, piece in enumerate(pieces):
        x = times(np.array([piece["start_ns"], piece["end_ns"]]))
        label = "truth" if i == 0 else None
        ax.plot(x, [piece[name]] * 2, color=TRUTH, linestyle=(0, (5, 3)), linewidth=1.4, label=label)


def _shade(ax: Axes, rows: pl.DataFrame, label: str, hatch: str, colour: str) -> None:
    for i, (start, end) in enumerate(rows.select("start_ns", "end_ns").iter_rows()):
        x = times(np.array([start, end]))
        style: dict[str, Any] = {"facecolor": colour, "alpha": 0.35, "hatch": hatch, "edgecolor": MUTED, "linewidth": 0}
        ax.axvspan(x[0], x[1], zorder=0, label=label if i == 0 else None, **style)
