"""Markers for fills, coloured by where the mid went after them."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mmlab.report.canvas import INK, MUTED, values

MARKOUT_COLOURS = colormaps["RdBu"].with_extremes(bad="#9aa5b1")
MOST_FILLS = 1_000


def step(fills: pl.DataFrame) -> int:
    """Of the fills every so-many-th is drawn."""
    return max(-(-fills.height // MOST_FILLS), 1)


def markout_bps(fills: pl.DataFrame) -> pl.Series:
    """Where the mid went in the 5 s after each fill, in 1/10,000 of it, where known; none for a table without."""
    if "markout_5s" not in fills.columns:
        return pl.Series(dtype=pl.Float64)
    return fills.select(pl.col("markout_5s") / pl.col("mid") * 10_000).to_series().drop_nulls()


def draw_fills(
    ax: Axes, fills: pl.DataFrame, marker: str, colour: str, label: str
) -> tuple[PathCollection, pl.DataFrame]:
    """The fills of one side, larger the fewer they are; returns their markers, and the fills."""
    size = float(np.clip(9_000 / (fills.height + 1), 14, 60))
    x, y = values(fills, "recv_ns"), values(fills, "price")
    drawn = ax.scatter(x, y, s=size, marker=marker, color=colour, edgecolors="white", lw=0.3, zorder=3, label=label)
    return drawn, fills


def colour_by_markout(
    figure: Figure, ax: Axes, bps: pl.Series, drawn: list[tuple[PathCollection, pl.DataFrame]]
) -> None:
    """Colour markers by their markout; the strongest twentieth are alike, and one without has a colour of its own."""
    far = float(np.quantile(bps.abs().to_numpy(), 0.95)) or 1.0
    few = max(shown.height for _, shown in drawn) < 100
    for markers, shown in drawn:
        each = (values(shown, "markout_5s") / values(shown, "mid") * 10_000).astype(np.float64)
        markers.set_array(np.ma.masked_invalid(each))
        markers.set(cmap=MARKOUT_COLOURS, norm=Normalize(-far, far), edgecolor=INK, linewidth=0.6 if few else 0.15)
    bar = figure.colorbar(drawn[0][0], ax=ax, extend="both", pad=0.01, aspect=30)
    bar.set_label("mid 5 s after the fill, bps in its favour", color=INK, fontsize=8.5)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=8, labelcolor=INK, color=MUTED)
