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

from mmlab.core.schemas import FAMILIES
from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.report.backtest_markers import colour_by_markout, draw_fills, markout_bps, step
from mmlab.report.bands import LIMITS, across, bars, by_distance, curve_band, log_axis, shade_unfitted, stairs, steps
from mmlab.report.canvas import INK, MUTED, canvas, finish, png, says, thin, times, values

__all__ = ["equity", "families", "fills_on_price", "intensity", "inventory", "parameters", "png"]

BUY, SELL, LOSS = "#0072b2", "#d55e00", "#c0392b"  # blue and vermilion: apart for colour-blind eyes too
MID, TRUTH = "#3e4c59", "#009e73"
SIDE_COLOUR = {"bid": BUY, "ask": SELL, "both": INK}
MOST_STEPS = 3_000  # rows of `state` that are drawn strongly
FAMILY_STYLE = {"exponential": (BUY, "-"), "power_law": (SELL, "--"), "monotone": ("#aa3377", ":")}


def equity(state: pl.DataFrame) -> Figure:
    """Change of the mark-to-market value since the start; below it the drawdown from its highest so far."""
    if state.is_empty():
        return says("Profit and loss", "no state rows: the run made no decision")
    change = pl.col("mtm_value") - pl.col("mtm_value").first()
    frame = state.select("recv_ns", change=change, drawdown=change - change.cum_max())
    worst, end = float(frame["drawdown"].to_numpy().min()), float(frame["change"][-1])
    figure, (top, low) = canvas(
        f"Profit and loss: {signed(end)} at the end, deepest drawdown {signed(worst)}", 4.6, rows=2, heights=(2, 1)
    )
    shown = thin(frame, "change")
    top.step(values(shown, "recv_ns"), values(shown, "change"), where="post", color=INK, lw=1.2, label="value change")
    top.axhline(0, color=MUTED, linewidth=0.8)
    finish(top, "change of mtm value,\nquote currency", legend=False)
    shown = thin(frame, "drawdown")
    x, y = values(shown, "recv_ns"), values(shown, "drawdown")
    low.fill_between(x, y, 0, step="post", color=LOSS, alpha=0.3, linewidth=0, label="drawdown")
    low.step(x, y, where="post", color=LOSS, linewidth=0.8)
    finish(low, "drawdown,\nquote currency", legend=False)
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
    """Mid, own quotes, and fills at their prices: buys point up, sells point down.

    fills: FILLS, or MARKOUTS, whose fills are coloured by where the mid went in the 5 s after them.
    """
    if state.is_empty():
        return says("Fills on price", "no state rows: the run made no decision")
    bought, sold = (fills.filter(pl.col("side") == side) for side in (1, -1))
    count = f"{bought.height:,} buys, {sold.height:,} sells" if fills.height else "no fills in this run"
    every = step(fills)
    small = f"one fill in {every:,} is drawn" if every > 1 else ""
    figure, (ax,) = canvas(f"Fills on price: {count}\n{small}", height=4.6)
    strong = state.height < MOST_STEPS
    for name, colour, label in (("bid_px", BUY, "own bid"), ("ask_px", SELL, "own ask")):
        shown = thin(state, name)
        x, y = values(shown, "recv_ns"), values(shown, name)
        ax.step(x, y, where="post", color=colour, alpha=1 if strong else 0.35, lw=1 if strong else 0.7, label=label)
    shown = thin(state, "mid")
    ax.step(values(shown, "recv_ns"), values(shown, "mid"), where="post", color=MID, linewidth=0.7, label="mid")
    bps = markout_bps(fills)
    colours = (BUY, SELL) if bps.is_empty() else (MUTED, MUTED)
    parts = zip(
        (bought.gather_every(every), sold.gather_every(every)), ("^", "v"), colours, ("buy", "sell"), strict=True
    )
    drawn = [draw_fills(ax, *part) for part in parts]
    ax.ticklabel_format(axis="y", useOffset=False)
    finish(ax, "price, quote currency")
    if not bps.is_empty():
        colour_by_markout(figure, ax, bps, drawn)
    return figure


def intensity(points: pl.DataFrame, fit: pl.DataFrame, truth: Mapping[str, Any] | None = None) -> Figure:
    """Hits per second at each distance with Poisson 95% bars, the fitted curve, and the truth where it is known.

    points: POINTS rows, added up over the span of the fit that is drawn; fit: FITS rows, of which the last
    good one of both sides is drawn; truth: the `truth` of a synthetic day's manifest.
    """
    row = _pooled(fit)
    span = (row["train_start_ns"], row["train_end_ns"]) if row else _span(points)
    measured = by_distance(points.filter(pl.col("bucket_start_ns").is_between(span[0], span[1], closed="left")))
    if measured.is_empty():
        return says("Fill intensity", "no points: no probe stood in this span")
    figure, (ax,) = canvas(_fit_title(row), height=4.6)
    left, right = across(measured["delta_ticks"].to_numpy())
    for side, shift in (("bid", -0.004), ("ask", 0.004)):
        _draw_points(ax, measured.filter(pl.col("side") == side), side, shift * (right - left))
    lowest = _lowest(measured)
    distances = np.linspace(left, right, 200)
    if row is not None and row["ok"]:
        middle, low, high = curve_band(row, measured.filter(pl.col("side") == "both"), distances)
        ax.fill_between(distances, low, high, color=INK, alpha=0.15, linewidth=0, label="95% band of the curve")
        ax.plot(distances, middle, color=INK, linewidth=1.4, label="A exp(-k delta), both sides")
    for i, piece in enumerate(_pieces(truth, *span)):
        label = f"truth: A = {piece['A']:g} /s, k = {piece['k']:g} /tick" if i < 4 else None
        curve = piece["A"] * np.exp(-piece["k"] * distances)
        ax.plot(distances, curve, color=TRUTH, linestyle=(i, (5, 3)), linewidth=1.4, label=label)
    log_axis(ax, bottom=lowest / 3)
    ax.set_xlim(left, right)
    finish(ax, "intensity, hits per second and side", x_label="distance from the mid at the anchor, ticks")
    return figure


def families(points: pl.DataFrame, fits: pl.DataFrame, curves: pl.DataFrame) -> Figure:
    """Hits per second at each distance with enough exposure, Poisson 95% bars, and every family's curve with its AIC.

    points, fits, curves: POINTS, FITS and CURVES rows; drawn is the span that `intensity` draws, both sides pooled.
    """
    row = _pooled(fits)
    both = pl.col("side") == "both"
    span = (row["train_start_ns"], row["train_end_ns"]) if row else _span(points)
    measured = by_distance(points.filter(both & pl.col("bucket_start_ns").is_between(span[0], span[1], closed="left")))
    measured = measured.filter(pl.col("usable"))
    own = both & (pl.col("train_start_ns") == span[0]) & (pl.col("train_end_ns") == span[1])
    lines = curves.filter(own).sort("delta_ticks")
    if measured.is_empty() or lines.is_empty():
        return says("Curve families", "no points in this span" if measured.is_empty() else "no curve in this span")
    fitted = {fit["family"]: fit for fit in fits.filter(own & pl.col("ok")).iter_rows(named=True)}
    behind = _behind(fitted)
    figure, (ax,) = canvas(_families_title(behind, fitted), height=4.6)
    bars(ax, measured["delta_ticks"].to_numpy(), measured, INK, "measured, both sides, 95% interval")
    for family in FAMILIES:
        line = lines.filter(pl.col("family") == family)
        if line.height:
            colour, style = FAMILY_STYLE[family]
            rate = line.select(pl.when(pl.col("rate") > 0).then("rate")).to_series().to_numpy()  # a log axis has no 0
            label = (
                family.replace("_", " ")
                + _aic_said(behind, family, family in fitted)
                + (", 0 in the gap" if line["rate"].min() == 0 else "")
            )
            ax.plot(line["delta_ticks"].to_numpy(), rate, color=colour, ls=style, lw=1.5, label=label)
    log_axis(ax, bottom=_lowest(measured) / 3)
    ax.set_xlim(across(measured["delta_ticks"].to_numpy()))
    finish(ax, "intensity, hits per second and side", x_label="distance from the mid, ticks")
    return figure


def parameters(windows: pl.DataFrame, fits: pl.DataFrame, truth: Mapping[str, Any] | None = None) -> Figure:
    """A and k in force, step by step, with the 95% band of the fit behind them; carried steps are hatched."""
    if windows.is_empty():
        return says("Fitted parameters", "no windows: the schedule has no step")
    drawn = steps(windows, fits)
    fitted, carried = (drawn.filter(pl.col("source") == s).height for s in ("fit", "carry_forward"))
    small = f"{fitted} of {drawn.height} steps fitted, {carried} carried forward{_intervals_said(drawn['robust'])}"
    figure, axes = canvas(f"Parameters in force, each step fitted on the time before it\n{small}", 5.4, rows=2)
    pieces = _pieces(truth, int(drawn["start_ns"][0]), int(drawn["end_ns"][-1]))
    for ax, name, unit in zip(axes, ("A", "k"), ("1/s and side", "1/tick"), strict=True):
        edges, low, value, high = stairs(drawn, f"{name}_low", name, f"{name}_high")
        ax.fill_between(edges, low, high, color=BUY, alpha=0.22, linewidth=0, label="95% interval of the fit")
        ax.plot(edges, value, color=BUY, linewidth=1.4, label=f"{name} in force")
        _draw_truth(ax, pieces, name)
        shade_unfitted(ax, drawn)
        finish(ax, f"{name}, {unit}")
    return figure


def _draw_points(ax: Axes, points: pl.DataFrame, side: str, shift: float) -> None:
    """Filled: used by the fit; hollow: too little exposure; arrow down: no hits, the 95% upper limit."""
    colour, hit, usable = SIDE_COLOUR[side], pl.col("hits") > 0, pl.col("usable")
    for part, label, face in (
        (points.filter((usable & hit) | ~hit), f"{side} probes, 95% interval", colour),
        (points.filter(~usable & hit), f"{side} probes with little exposure", "white"),
    ):
        bars(ax, part["delta_ticks"].to_numpy() + shift, part, colour, label, face)


def _lowest(measured: pl.DataFrame) -> float:
    """The lowest rate or limit that is drawn."""
    drawn = measured.filter(pl.col("side") != "both") if (measured["side"] != "both").any() else measured
    lows = np.where(drawn["hits"].to_numpy() > 0, drawn["low"].to_numpy(), drawn["high"].to_numpy())
    return float(lows.min())


def signed(value: float) -> str:
    """With its sign, in four digits below 1,000."""
    if value == 0:
        return "0"
    return f"{value:+,.4g}" if abs(value) < 1_000 else f"{value:+,.0f}"


def _pooled(fit: pl.DataFrame) -> dict[str, Any] | None:
    """The exponential's last row of both sides that is ok, or else its last one, or none."""
    rows = fit.filter((pl.col("side") == "both") & (pl.col("family") == "exponential")).sort("ok", "train_end_ns")
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
    if all(row[f"{name}_robust"] is not None for name in LIMITS):
        low_A, high_A, low_k, high_k = (row[f"{name}_robust"] for name in LIMITS)
        how += f"; allowing for bursts A {low_A:.3g} to {high_A:.3g}, k {low_k:.3g} to {high_k:.3g}"
    return f"Fill intensity: {A}, {k}\n{how}"


def _behind(fitted: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """AIC of each family that has one, less the lowest; the best family first."""
    known = sorted((fit["aic"], family) for family, fit in fitted.items() if fit["aic"] is not None)
    return {family: aic - known[0][0] for aic, family in known}


def _intervals_said(robust: pl.Series) -> str:
    """Which intervals stand behind the steps."""
    found = set(robust.drop_nulls())
    if True not in found:
        return "; 95% intervals take hits as independent" if found else ""
    return "; 95% intervals allow for bursts" + (" where the fit has such errors" if False in found else "")


def _aic_said(behind: Mapping[str, float], family: str, ok: bool) -> str:
    if family not in behind:
        return "" if ok else ", not identified"
    return f", AIC +{_gap(behind[family])}" if behind[family] else ", AIC lowest"


def _gap(aic: float) -> str:
    return f"{aic:.1f}" if aic < 100 else f"{aic:,.0f}"


def _families_title(behind: Mapping[str, float], fitted: Mapping[str, Mapping[str, Any]]) -> str:
    """Which family fits best, how far the others are behind, and whether the data contradict each."""
    best, *others = (family.replace("_", " ") for family in behind) if behind else ("",)
    gaps = list(behind.values())[1:]
    rest = ", ".join(f"{family} {_gap(gap)} behind" for family, gap in zip(others, gaps, strict=True))
    head = f"{best} fits best, {rest.replace('behind', 'behind in AIC', 1)}" if rest else f"only {best} has an AIC"
    chances = (
        f"{family.replace('_', ' ')} {'below 1e-9' if fit['p_value'] < 1e-9 else format(fit['p_value'], '.2g')}"
        for family, fit in fitted.items()
        if fit["p_value"] is not None
    )
    small = ", ".join(chances)
    said = f"\nchance of so large a deviance if the curve is right: {small}" if small else ""
    return f"Curve families: {head if behind else 'no AIC to compare'}{said}"


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
