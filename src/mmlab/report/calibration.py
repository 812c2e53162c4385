"""Figures of a calibration run over time: coverage, curves by hour, dispersion, fill times, and what came of forecasts.

Frames in, a figure out, as in figures.py. What is summed here is summed for drawing only; the numbers are the run's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN
from mmlab.report.bands import across, bars, by_distance, log_axis, shade, shade_unfitted, stairs, with_limits
from mmlab.report.canvas import DPI, INK, MUTED, canvas, finish, says
from mmlab.report.figures import BUY, SELL, SIDE_COLOUR

NS_PER_HOUR = 60 * NS_PER_MIN
PURPLE, GREEN = "#aa3377", "#117733"
UNKNOWN = "unknown"  # the condition of days that nobody looked up
GROUPS = 10  # of cells a side in `reliability`
CONDITIONS = (("degraded", "///", "#f5d9d2"), ("pending", "...", "#e4e7eb"), ("damaged", "xxx", "#f0b8a8"))
BASELINES = {"constant": "a constant rate", "last_window": "the last window"}
SLOPES = ("-", "--", "-.", ":")


def coverage(windows: pl.DataFrame, metrics: pl.DataFrame | None = None) -> Figure:
    """Share of each training span that probes covered, and the hits behind each fit; bad days are hatched.

    windows: WINDOWS; metrics: WINDOW_METRICS of the same steps, for the condition of their days.
    """
    if windows.is_empty():
        return says("Coverage", "no windows: the schedule has no step")
    rows = windows.sort("start_ns")
    share, hits = rows["coverage"].to_numpy(), rows["fills_total"].to_numpy()
    head = f"Coverage: {share.mean():.1%} of a training span on average, {share.min():.1%} at worst; "
    marked = rows.head(0)
    small = ""
    if metrics is not None and metrics.height:
        known = metrics.filter(pl.col("condition") != UNKNOWN)
        marked = rows.join(known.filter(pl.col("condition") != "complete"), on="start_ns", how="inner")
        small = f"\n{marked.height} of {rows.height} training spans touch a day that is not complete"
        if known.height < metrics.height:
            small += f"; of {metrics.height - known.height} that is not known"
    figure, axes = canvas(f"{head}{hits.min():,} to {hits.max():,} hits a fit{small}", height=4.8, rows=2)
    for ax, name, label in zip(axes, ("coverage", "fills_total"), ("covered", "hits"), strict=True):
        x, y = stairs(rows, name)
        ax.plot(x, y, color=BUY, linewidth=1.4, label=label)
        _shade_conditions(ax, marked)
        ax.set_ylim(0, max(float(y.max()) * 1.05, 0.05))
    axes[0].axhline(1, color=MUTED, linewidth=0.8)
    finish(axes[0], "share of the span, 1")
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda hits, _: f"{hits:,.0f}"))
    finish(axes[1], "hits, nearest distance")
    return figure


def curves_by_hour(points: pl.DataFrame, windows: pl.DataFrame) -> Figure:
    """A panel for each hour of the day, UTC: measured rates with Poisson 95% bars, and the hour's last fitted curve.

    points: POINTS per bucket, each put at the hour in which it starts; of several days the hours are added up.
    windows: WINDOWS; drawn is, of each day, the last step of the hour that has a fit of its own.
    """
    hour = (pl.col("bucket_start_ns") // NS_PER_HOUR % 24).alias("hour")
    measured = by_distance(points.filter(pl.col("side") == "both").with_columns(hour), "hour")
    if measured.is_empty():
        return says("Curves by hour", "no points: no probe stood in this span")
    day, hour = pl.col("start_ns") // NS_PER_DAY, pl.col("start_ns") // NS_PER_HOUR % 24
    fitted = windows.filter(pl.col("source") == "fit").sort("start_ns")
    last = fitted.group_by(day=day, hour=hour, maintain_order=True).last()
    hours = measured["hour"].unique().sort().to_list()
    figure, axes = _grid(_hours_title(points, measured), len(hours), "distance, ticks")
    distances = np.linspace(*across(measured["delta_ticks"].to_numpy()), 60)
    for ax, at in zip(axes, hours, strict=True):
        own = measured.filter(pl.col("hour") == at)
        bars(ax, own["delta_ticks"].to_numpy(), own, INK, "measured, 95% interval", size=3.0)
        for A, k in last.filter(pl.col("hour") == at).select("A", "k").iter_rows():
            ax.plot(distances, A * np.exp(-k * distances), color=BUY, linewidth=1.2, label="last fit in the hour")
        unfitted = "" if at in last["hour"] else "\nno fit"
        ax.text(0.96, 0.94, f"{at:02d} h{unfitted}", ha="right", va="top", fontsize=8, transform=ax.transAxes)
        finish(ax, "", x_label=ax.get_xlabel(), legend=False)
    drawn = measured.select(pl.when(pl.col("hits") > 0).then("low").otherwise("high"))
    log_axis(axes[0], bottom=float(drawn.to_series().to_numpy().min()) / 3)
    axes[0].set_xlim(distances[0], distances[-1])
    figure.supylabel("intensity, hits per second and side", fontsize=9, color=INK)
    _legend(figure, axes)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out anew at each save, so many panels would drift by a bit
    return figure


def dispersion(metrics: pl.DataFrame) -> Figure:
    """Variance of the hits over blocks of time against a Poisson's, with volatility and trade rate below."""
    known = metrics.filter(pl.col("dispersion").is_not_null())
    if known.is_empty():
        return says("Dispersion of the hits", "no dispersion: no window has enough blocks of time")
    rows, found = metrics.sort("start_ns"), known["dispersion"].to_numpy()
    middle, above = float(np.median(found)), int((found > 1).sum())
    head = f"Dispersion of the hits: median {middle:.3g}, above 1 in {above} of {found.size} windows (1: no bursts)"
    errors = "\nerrors that take hits as independent are too small by about its root, "
    below = [("volatility", "volatility,\nticks per root s", SELL), ("trade_rate", "prints, 1/s", GREEN)]
    shown = [panel for panel in below if rows[panel[0]].is_not_null().any()]
    title = head + (f"{errors}{middle**0.5:.2g} in the median window" if middle > 1 else "")
    figure, axes = canvas(title, height=2.6 + 1.6 * len(shown), rows=1 + len(shown))
    x, y = stairs(rows, "dispersion")
    axes[0].axhline(1, color=MUTED, linewidth=1.0, linestyle="--", label="Poisson: 1")
    axes[0].plot(x, y, color=BUY, linewidth=1.4, label="dispersion")
    if found.min() > 0 and found.max() > 20 * found.min():
        log_axis(axes[0])
    else:
        axes[0].set_ylim(0, max(found.max(), 1) * 1.08)
    finish(axes[0], "variance / mean, 1")
    for ax, (name, label, colour) in zip(axes[1:], shown, strict=True):
        x, y = stairs(rows, name)
        ax.plot(x, y, color=colour, linewidth=1.2, label=name.replace("_", " "))
        ax.set_ylim(bottom=0)
        finish(ax, label)
    figure.align_ylabels(axes)
    return figure


def fill_times(windows: pl.DataFrame, points: pl.DataFrame) -> Figure:
    """Mean waiting time that the parameters in force imply, 1 / lambda(delta), at about four of the run's distances."""
    known = windows.filter(pl.col("A").is_not_null()).sort("start_ns")
    distances = points["delta_ticks"].unique().sort().to_numpy()
    if known.is_empty() or distances.size == 0:
        return says("Implied fill times", "no fit in any step" if known.is_empty() else "no points: no distance")
    picked = distances[np.unique(np.linspace(0, distances.size - 1, 4).round().astype(int))]
    rate = (pl.col("A") * (-pl.col("k") * delta).exp() for delta in picked)
    names = [ticks(delta) for delta in picked]
    waits = windows.sort("start_ns").with_columns((1 / one).alias(name) for one, name in zip(rate, names, strict=True))
    ends = dict.fromkeys((names[0], names[-1]))
    said = (f"at {name} {_seconds(waits, name, 'min')} to {_seconds(waits, name, 'max')} s" for name in ends)
    figure, (ax,) = canvas(f"Implied mean fill time 1 / lambda: {', '.join(said)}", height=4.0)
    for name, colour, line in zip(names, (BUY, SELL, GREEN, PURPLE), SLOPES, strict=False):
        x, y = stairs(waits, name)
        ax.plot(x, y, color=colour, linestyle=line, linewidth=1.4, label=f"{name} from the mid")
    log_axis(ax)
    shade_unfitted(ax, windows.sort("start_ns"))
    finish(ax, "mean waiting time, s")
    return figure


def reliability(validation: pl.DataFrame, scores: pl.DataFrame | None = None) -> Figure:
    """Disjoint hits that came against those predicted, by predicted rate, in about ten groups of cells a side.

    validation: VALIDATION; scores: SCORES, for the interval of the whole ratio.
    """
    cells = _judged(validation).filter(pl.col("expected_ring") > 0)
    if cells.is_empty():
        return says("Reliability", "no step was judged: there are no predictions")
    rank = pl.col("expected_ring").rank("ordinal").over("side") - 1
    size = pl.len().over("side")
    grouped = (
        cells.with_columns(group=rank * pl.min_horizontal(size, pl.lit(GROUPS)) // size)
        .group_by("side", "group")
        .agg(pl.col("expected_ring", "observed_ring", "exposure_s").sum())
        .sort("side", "group")
    )
    expected, observed = float(cells["expected_ring"].sum()), int(cells["observed_ring"].sum())
    came = f"{observed:,} hits came, {expected:,.0f} were predicted"
    figure, (ax,) = canvas(f"Reliability: {came}\n{_ratio_said(observed / expected, scores)}", height=4.4)
    rated = with_limits(grouped, "observed_ring", grouped["expected_ring"])
    for side, aside in (("bid", 0.985), ("ask", 1.015), ("both", 1.0)):
        part = rated.filter(pl.col("side") == side)
        x = (part["expected_ring"] / part["exposure_s"]).to_numpy()
        bars(ax, x * aside, part, SIDE_COLOUR[side], f"{side}, 95% interval")
    ax.axhline(1, color=MUTED, linewidth=1.0, linestyle="--", label="as predicted")
    log_axis(ax)
    log_axis(ax, which="x")
    finish(ax, "observed / predicted, 1", x_label="predicted rate of hits, per second and side")
    return figure


def reliability_by_distance(validation: pl.DataFrame) -> Figure:
    """Hits that came against those predicted at each distance, with Poisson 95% bars."""
    cells = _judged(validation).filter(pl.col("expected") > 0)
    if cells.is_empty():
        return says("Reliability by distance", "no step was judged: there are no predictions")
    sums = pl.col("expected", "observed").sum()
    whole = cells.group_by("delta_ticks").agg(sums).with_columns(ratio=pl.col("observed") / pl.col("expected"))
    whole = whole.sort("ratio", "delta_ticks")
    least, most = (f"{whole['ratio'][i]:.2f} at {ticks(whole['delta_ticks'][i])}" for i in (0, -1))
    spread = f"from {least} to {most}" if whole.height > 1 else least
    figure, (ax,) = canvas(f"Observed / predicted hits by distance: {spread}", height=4.0)
    summed = cells.group_by("side", "delta_ticks").agg(sums).sort("side", "delta_ticks")
    rated = with_limits(summed, "observed", summed["expected"])
    shift = 0.006 * float(whole["delta_ticks"].to_numpy().max())
    for side, way in (("bid", -1), ("ask", 1), ("both", 0)):
        part = rated.filter(pl.col("side") == side)
        bars(ax, part["delta_ticks"].to_numpy() + way * shift, part, SIDE_COLOUR[side], f"{side}, 95% interval")
    ax.axhline(1, color=MUTED, linewidth=1.0, linestyle="--", label="as predicted")
    log_axis(ax)
    ax.set_xlim(across(whole["delta_ticks"].to_numpy()))
    finish(ax, "observed / predicted, 1", x_label="distance from the mid, ticks")
    return figure


def log_scores(scores: pl.DataFrame) -> Figure:
    """What the fit's log score gains over each baseline a step, with its 95% interval; above 0 the fit is better."""
    rows = scores.filter(pl.col("predictor").is_in(list(BASELINES)) & pl.col("gain_per_step").is_not_null())
    if rows.is_empty():
        return says("Log scores", "no score: no step was judged against a baseline")
    order = pl.col("side").replace_strict({"both": 0, "bid": 1, "ask": 2}, return_dtype=pl.Int64)
    rows = rows.sort(order, "predictor")
    said = (_verdict(row) for row in rows.filter(pl.col("side") == rows["side"][0]).iter_rows(named=True))
    figure, (ax,) = canvas(f"Log score a step: the fit {', '.join(said)}", height=1.6 + 0.32 * rows.height)
    for i, row in enumerate(rows.iter_rows(named=True)):
        gain, low, high = row["gain_per_step"], row["gain_per_step_low"], row["gain_per_step_high"]
        around = None if low is None or high is None else [[gain - low], [high - gain]]
        colour = SIDE_COLOUR[row["side"]]
        ax.errorbar(gain, i, xerr=around, fmt="o", ms=5, color=colour, capsize=3, lw=1.2)
    ax.axvline(0, color=MUTED, linewidth=1.0, linestyle="--")
    named = (f"{row['side']}: against {BASELINES[row['predictor']]}" for row in rows.iter_rows(named=True))
    ax.set_yticks(range(rows.height), labels=list(named))
    ax.set_ylim(rows.height - 0.5, -0.5)
    finish(ax, "", x_label="gain of the fit in log score, nats a step (right of 0 the fit is better)", legend=False)
    return figure


def ticks(delta: float) -> str:
    """`1 tick`, `2.5 ticks`."""
    return f"{delta:g} tick{'s' if delta != 1 else ''}"


def sheet(title: str, height: float) -> Figure:
    """A figure without panels, its title set as canvas.canvas sets it."""
    figure = Figure(figsize=(10, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold")
    return figure


def _grid(title: str, panels: int, x_label: str) -> tuple[Figure, list[Axes]]:
    """Small panels, at most six in a row, that share both axes; the lowest of each column is labelled."""
    columns = min(6, panels)
    rows = -(-panels // columns)
    head, _, small = title.partition("\n")
    figure = sheet(head, 1.7 + 1.5 * rows)
    axes: list[Axes] = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel())
    axes[0].set_title(" ", fontsize=8.5)  # keeps the room; a title wider than its panel would push the others away
    text = axes[0].annotate(small, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8.5, color=MUTED)
    text.set_in_layout(False)
    for ax in axes[panels:]:
        ax.set_axis_off()
    for ax in axes[max(panels - columns, 0) : panels]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(x_label, color=INK, fontsize=9)
    return figure, axes[:panels]


def _legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend for all panels, above them."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)


def _hours_title(points: pl.DataFrame, measured: pl.DataFrame) -> str:
    """Slowest and fastest hour at the nearest distance, the days added up, and buckets longer than an hour."""
    near = measured.filter(pl.col("delta_ticks") == pl.col("delta_ticks").min()).sort("rate", "hour")
    low, high = (f"{near['rate'][i]:.3g} /s in hour {near['hour'][i]:02d}" for i in (0, -1))
    spread = f"{low} to {high}" if near.height > 1 else low
    days = (points["bucket_start_ns"] // NS_PER_DAY).n_unique()
    width = int((points["bucket_end_ns"] - points["bucket_start_ns"]).to_numpy().max())
    small = f"hours of the day, UTC{f', {days} days added up and a curve for each' if days > 1 else ''}"
    if width > NS_PER_HOUR:
        small += f"; buckets of {width / NS_PER_MIN:g} minutes stand at the hour they start in"
    return f"Curves by hour: at {ticks(near['delta_ticks'][0])} {spread}\n{small}"


def _shade_conditions(ax: Axes, marked: pl.DataFrame) -> None:
    """Hatch the steps whose training span touches a day that is not complete, a hatch for each condition."""
    named = {name: (hatch, colour) for name, hatch, colour in CONDITIONS}
    for condition in marked["condition"].unique().sort() if marked.height else ():
        hatch, colour = named.get(condition, ("\\\\\\", "#fbe3b5"))
        shade(ax, marked.filter(pl.col("condition") == condition), f"{condition} day", hatch, colour)


def _judged(validation: pl.DataFrame) -> pl.DataFrame:
    """Cells with exposure: of bid and ask, or of both sides pooled if there is nothing else."""
    cells = validation.filter(pl.col("exposure_s") > 0)
    parted = cells.filter(pl.col("side") != "both")
    return parted if parted.height else cells


def _ratio_said(ratio: float, scores: pl.DataFrame | None) -> str:
    """The whole ratio, with the interval over steps where `scores` has it."""
    said = f"observed / predicted {ratio:.3f}"
    if scores is None:
        return said
    fit = scores.filter((pl.col("predictor") == "fit") & (pl.col("side") == "both"))
    limits = fit.select("ratio_low", "ratio_high").drop_nulls().rows()
    return f"{said}, 95% interval over steps {limits[0][0]:.3f} to {limits[0][1]:.3f}" if limits else said


def _seconds(waits: pl.DataFrame, name: str, which: str) -> str:
    found = waits[name].drop_nulls().to_numpy()
    return f"{found.min() if which == 'min' else found.max():.3g}"


def _verdict(row: dict[str, Any]) -> str:
    """`beats the last window by 1.2 nats`, and level where the interval holds 0."""
    gain, low, high = (row[name] for name in ("gain_per_step", "gain_per_step_low", "gain_per_step_high"))
    over = BASELINES[row["predictor"]]
    if low is None or high is None:
        return f"gains {gain:+.2g} nats over {over}"
    if low <= 0 <= high:
        return f"is level with {over} ({gain:+.2g} nats)"
    return f"{'beats' if gain > 0 else 'loses to'} {over} by {abs(gain):.2g} nats"
