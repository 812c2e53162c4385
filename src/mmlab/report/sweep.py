"""The figure of a sweep: a heat map of one metric over two parameters, or a line over one. Draws, never computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from mmlab.report.canvas import DPI, INK, MUTED, canvas, finish, says
from mmlab.report.figures import BUY
from mmlab.report.sweep_cells import Cells, cells, unit

MOST_PANELS = 9
MOST_LABELS = 16  # of an axis
MOST_NUMBERS = 160  # cells of a panel that still have their number in them


def heat_map(sweep: pl.DataFrame, metric: str) -> Figure:
    """One metric of every run; a panel for each combination of the parameters after the second."""
    if sweep.is_empty():
        return says("Sweep", "no rows: nothing was run")
    found, scale = cells(sweep, metric), unit(sweep, metric)
    if np.isnan(found.values).all():
        return says(f"Sweep: {metric}", f"no run has a {metric}")
    label = f"{metric}, {scale}" if scale else metric
    return _map(found, metric, label) if found.y else _line(found, metric, label)


def _title(found: Cells, metric: str) -> str:
    """The extremes, and what they are worth."""
    low, high = np.nanmin(found.values), np.nanmax(found.values)
    runs = found.values.size
    small = f"{runs:,} runs on one tape: the highest is chosen in hindsight and flatters"
    if len(found.panels) > MOST_PANELS:
        small += f"; the first {MOST_PANELS} of {len(found.panels):,} panels are drawn"
    return f"Sweep: {metric} from {low:.5g} to {high:.5g}\n{small}"


def _line(found: Cells, metric: str, label: str) -> Figure:
    """The metric against one parameter; on an even axis if its values are not numbers."""
    figure, (ax,) = canvas(_title(found, metric))
    y = found.values[0, 0]
    x = _numbers(found.x_labels)
    if x is None:
        x = np.arange(y.size, dtype=np.float64)
        _labels(ax, "x", found.x_labels)
    elif _geometric(x):
        ax.set_xscale("log")
    order = np.argsort(x, kind="stable")
    ax.plot(x[order], y[order], color=BUY, linewidth=1.2, marker="o", markersize=4, label=metric)
    if np.nanmin(y) < 0 < np.nanmax(y):
        ax.axhline(0, color=MUTED, linewidth=0.8)
    finish(ax, label, x_label=found.x, legend=False)
    return figure


def _numbers(labels: list[str]) -> npt.NDArray[np.float64] | None:
    """Labels as numbers; None if one is none."""
    try:
        return np.array([float(text) for text in labels])
    except ValueError:
        return None


def _geometric(x: npt.NDArray[np.float64]) -> bool:
    """True if each value is the same multiple of the one before."""
    if x.size < 3 or x.min() <= 0:
        return False
    ratios = x[1:] / x[:-1]
    return bool(np.allclose(ratios, ratios[0], rtol=1e-6) and not np.isclose(ratios[0], 1))


def _map(found: Cells, metric: str, label: str) -> Figure:
    """Panels that share axes and colours; a frame marks the highest cell of all."""
    shown = found.values[:MOST_PANELS]
    across = min(len(shown), 3)
    down = -(-len(shown) // across)
    figure = Figure(figsize=(10, 1.4 + 3.6 * down), dpi=DPI, layout="constrained", facecolor="white")
    axes: list[Axes] = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel())
    head, _, small = _title(found, metric).partition("\n")
    figure.suptitle(head, x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold")
    axes[0].set_title(small, loc="left", fontsize=8.5, color=MUTED, pad=18 if found.panels[0] else 6)
    colours, norm = _scale(found.values)
    best = np.unravel_index(np.nanargmax(found.values), found.values.shape)
    image: Any = None
    for i, (ax, values) in enumerate(zip(axes, shown, strict=False)):
        image = ax.imshow(values, cmap=colours, norm=norm, aspect="auto", origin="lower", interpolation="nearest")
        _style(ax, found, found.panels[i], colours, norm, values, across)
        if i == best[0]:
            ax.add_patch(_frame(int(best[2]), int(best[1])))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label(label, color=INK, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, labelcolor=INK, color=MUTED)
    return figure


def _style(
    ax: Axes, found: Cells, panel: str, colours: Any, norm: Normalize, values: npt.NDArray[np.float64], across: int
) -> None:
    """Labels, and the numbers where they fit; a cell without a value has a dash."""
    ax.set_facecolor("#e4e7eb")
    _labels(ax, "x", found.x_labels)
    _labels(ax, "y", found.y_labels)
    ax.set_xlabel(found.x, color=INK, fontsize=9)
    ax.set_ylabel(found.y, color=INK, fontsize=9)
    ax.tick_params(length=0, labelcolor=INK, labelsize=8)
    ax.spines[:].set_visible(False)
    if panel:
        ax.text(0, 1.02, panel, transform=ax.transAxes, fontsize=8, color=INK)
    if values.size > MOST_NUMBERS or values.shape[1] * across > 14:
        return
    for (i, j), value in np.ndenumerate(values):
        text = "\N{EN DASH}" if np.isnan(value) else f"{value:.3g}"
        red, green, blue, _ = colours(norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        ax.text(j, i, text, ha="center", va="center", fontsize=7.5, color="white" if dark else INK)


def _scale(values: npt.NDArray[np.float64]) -> tuple[Any, Normalize]:
    """Two colours with white at 0 for a metric of both signs, else one ramp."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 < high:
        far = max(-low, high)
        return colormaps["RdBu"], Normalize(-far, far)
    return colormaps["viridis"], Normalize(low, high if high > low else low + 1)


def _labels(ax: Axes, axis: str, labels: list[str]) -> None:
    """Values at their places, at most MOST_LABELS of them."""
    every = -(-len(labels) // MOST_LABELS)
    at = range(0, len(labels), every)
    names = [_short(labels[i]) for i in at]
    if axis == "x":
        turn = 45 if sum(map(len, names)) > 60 else 0
        ax.set_xticks(at, labels=names, rotation=turn, ha="right" if turn else "center")
    else:
        ax.set_yticks(at, labels=names)


def _short(label: str) -> str:
    """A number in four digits, any other text as it stands."""
    try:
        return label if label.isdecimal() else f"{float(label):.4g}"
    except ValueError:
        return label


def _frame(x: int, y: int) -> Any:
    """The outline of a cell, white within dark, so that it is seen on any colour."""
    edge = [withStroke(linewidth=4.5, foreground=INK)]
    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.8, path_effects=edge)
