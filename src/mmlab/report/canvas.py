"""Axes in one style, times in UTC, long series thinned, and PNG bytes that never vary.

Drawn through matplotlib's object interface: no pyplot, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib.dates as mdates
import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlab.core.spans import NS_PER_DAY, day_of_ns

MOST_POINTS = 5_000
DPI = 144
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes: no time or software in it, so the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # laid out once: a second time moves panels by a millionth
    return buffer.getvalue()


def thin(frame: pl.DataFrame, name: str, most: int = MOST_POINTS) -> pl.DataFrame:
    """At most `most` rows of `frame` (sorted by recv_ns): of each bin of time the rows lowest and highest in `name`.

    A bin in which `name` is null throughout keeps its first row, so that a line still breaks there.
    """
    if frame.height <= most:
        return frame
    first, last = int(frame["recv_ns"][0]), int(frame["recv_ns"][-1])
    width = (last - first) // (most // 2) + 1
    at = pl.int_range(pl.len(), dtype=pl.Int64)
    value = pl.col(name)
    kept = (
        frame.select(value, bin=(pl.col("recv_ns") - first) // width, at=at)
        .group_by("bin")
        .agg(
            pl.col("at").first().alias("first"),
            pl.col("at").sort_by(value, nulls_last=True, maintain_order=True).first().alias("low"),
            pl.col("at").sort_by(value, nulls_last=False, maintain_order=True).last().alias("high"),
            value.is_null().all().alias("absent"),
        )
        .select(
            low=pl.when("absent").then("first").otherwise("low"),
            high=pl.when("absent").then("first").otherwise("high"),
        )
    )
    rows = np.unique(np.concatenate([kept["low"].to_numpy(), kept["high"].to_numpy()]))
    return frame[rows]


def times(ns: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    """Nanoseconds UTC as matplotlib takes them."""
    return ns.astype("datetime64[ns]")


def values(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    """A column as numbers (null is nan), the time as datetime64."""
    column = frame[name].to_numpy()
    return times(column) if name == "recv_ns" else column


def canvas(
    title: str, height: float = 3.4, rows: int = 1, heights: Sequence[int] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` panels that share their x axis, their heights alike or in these proportions.

    A second line of `title` is set small.
    """
    figure = Figure(figsize=(10, height), dpi=DPI, layout="constrained", facecolor="white")
    axes: list[Axes] = list(figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
    head, _, small = title.partition("\n")
    figure.suptitle(head, x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold")
    axes[0].set_title(small, loc="left", fontsize=8.5, color=MUTED)
    return figure, axes


def finish(ax: Axes, y_label: str, x_label: str | None = None, legend: bool = True) -> None:
    """Labels with units, a light grid, the legend beside the plot; a UTC time axis if `x_label` is None."""
    ax.set_ylabel(y_label, color=INK, fontsize=9)
    if x_label is None:
        x_label = _time_axis(ax)
    if ax is ax.figure.axes[-1]:
        ax.set_xlabel(x_label, color=INK, fontsize=9)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", color=GRID, labelcolor=INK, labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    if legend:
        ax.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _time_axis(ax: Axes) -> str:
    """Ticks in UTC; returns the axis' label, with the days that it covers."""
    locator = mdates.AutoDateLocator(tz="UTC", maxticks=12)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    formats = ["%Y", "%b", "%d", "%H:%M", "%H:%M", "%H:%M:%S.%f"]
    form = mdates.ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator, tz="UTC", formats=formats, show_offset=False
    )
    ax.xaxis.set_major_formatter(form)
    ax.margins(x=0.01)
    first, last = (day_of_ns(round(x * NS_PER_DAY)) for x in ax.dataLim.intervalx - (0, 1e-9))  # an end at midnight
    return f"time, UTC, {first}" if first == last else f"time, UTC, {first} to {last}"


def says(title: str, message: str) -> Figure:
    """A figure for a table without rows."""
    figure, (ax,) = canvas(title, height=2.0)
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, ha="center", va="center", fontsize=12, color=MUTED, transform=ax.transAxes)
    return figure


def says_of(figure: Figure) -> str:
    """What a figure says in words: its title and the small line below it."""
    small = figure.axes[0].get_title(loc="left") if figure.axes else ""
    return ". ".join(text for text in (figure.get_suptitle(), small) if text)
