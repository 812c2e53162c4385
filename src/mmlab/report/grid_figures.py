"""Figures of a grid run: the curve with its drawdown and regimes, and the map of its trades."""

from __future__ import annotations

from typing import Any

import matplotlib.dates as mdates
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmlab.core.grid_schemas import GRID_LABELS
from mmlab.report.canvas import INK, MUTED, canvas, finish, says, thin, times, values

EQUITY, HELD, FALL = "#0072b2", "#9aa5b1", "#c0392b"
REGIMES = {  # code: name, colour
    2: ("breakout up", "#00704f"),
    1: ("uptrend", "#7fd1b3"),
    0: ("noise", "#e4e7eb"),
    -1: ("downtrend", "#f0b27a"),
    -2: ("breakout down", "#c0392b"),
}
STOP, PRUNE, LIQUIDATED, HALT = "#8b0000", "#8d99a6", "black", "#7d3c98"
MARKERS = {  # label: marker, colour; the strategy's document names the colours
    "BUY_OPEN_LONG": ("^", "#2ca02c"),
    "SELL_CLOSE_LONG": ("v", "#1f77b4"),
    "SELL_OPEN_SHORT": ("v", "#d62728"),
    "BUY_CLOSE_SHORT": ("^", "#ff7f0e"),
    "STOP_LONG": ("x", STOP),
    "STOP_SHORT": ("x", STOP),
    **{label: ("s", PRUNE) for label in GRID_LABELS if label.startswith("PRUNE")},
    "LIQUIDATION": ("X", LIQUIDATED),
    "FINAL_CLOSE": ("D", MUTED),
}
NAMED = {"PRUNE": "prune", "STOP": "stop"}  # labels drawn alike share a line of the legend


def equity(title: str, curve: pl.DataFrame, regimes: pl.DataFrame | None = None) -> Figure:
    """The curve and what the same money had become in the coin; its drawdown; the regime in force.

    curve: open_ns, equity, buy_hold, drawdown_pct; regimes: grid_regimes of one coin, None for several together.
    """
    if curve.is_empty():
        return says(title, "no bars in this run")
    rows = 3 if regimes is None else 4
    figure, axes = canvas(title, height=7.2, rows=rows, heights=(5, 4, 3, 1)[:rows])
    frame = curve.rename({"open_ns": "recv_ns"})
    for ax, name, colour, label in (
        (axes[0], "buy_hold", HELD, "buy and hold"), (axes[0], "equity", EQUITY, "equity"),
        (axes[1], "equity", EQUITY, "equity\non its own scale"),
    ):  # fmt: skip
        shown = thin(frame, name)
        ax.plot(values(shown, "recv_ns"), values(shown, name), color=colour, linewidth=1.0, label=label)
    shown = thin(frame, "drawdown_pct")
    x, y = values(shown, "recv_ns"), -values(shown, "drawdown_pct")
    axes[2].fill_between(x, y, 0, color=FALL, alpha=0.35, linewidth=0)
    axes[2].plot(x, y, color=FALL, linewidth=0.8)
    if regimes is not None:
        strip(axes[3], regimes)
    for ax in axes[:2]:
        ax.ticklabel_format(axis="y", useOffset=False)
        finish(ax, "quote currency")
    finish(axes[2], "drawdown, %", legend=False)
    if regimes is not None:
        finish(axes[3], "regime", legend=False)
        axes[3].set_yticks([])
        axes[3].grid(visible=False)
        patches = [Patch(color=colour, label=name) for name, colour in REGIMES.values()]
        axes[3].legend(
            handles=patches, frameon=False, fontsize=7, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.0, 1.6)
        )
    return figure


def strip(ax: Axes, regimes: pl.DataFrame) -> None:
    """A band of colour for the regime in force, bar by bar."""
    codes, ns = regimes["regime"].to_numpy(), regimes["open_ns"].to_numpy()
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    width = int(ns[-1] - ns[-2]) if len(ns) > 1 else 1
    edges = mdates.date2num(times(np.append(ns[starts], ns[-1] + width)))  # type: ignore[no-untyped-call]
    for code, (_, colour) in REGIMES.items():
        here = codes[starts] == code
        spans = list(zip(edges[:-1][here], np.diff(edges)[here], strict=True))
        ax.broken_barh(spans, (0, 1), color=colour, linewidth=0)
    ax.set_ylim(0, 1)


def trade_map(title: str, account: pl.DataFrame, fills: pl.DataFrame, verdicts: pl.DataFrame) -> Figure:
    """Closes, and every fill at its price by what it was; halts of the circuit breaker as lines.

    account, fills and verdicts: grid_equity, grid_fills and grid_verdicts of one coin.
    """
    if account.is_empty():
        return says(title, "no bars in this run")
    figure, (ax,) = canvas(f"{title}\n{fills.height:,} fills", height=5.6)
    shown = thin(account.select(pl.col("open_ns").alias("recv_ns"), "close"), "close")
    ax.plot(values(shown, "recv_ns"), values(shown, "close"), color=INK, linewidth=0.7, alpha=0.6, label="close")
    size = float(np.clip(30_000 / (fills.height + 1), 6, 45))
    seen: set[str] = set()
    for label, (marker, colour) in MARKERS.items():
        rows = fills.filter(label=label)
        if rows.is_empty():
            continue
        name = NAMED.get(label.partition("_")[0], label)
        said = None if name in seen else name.replace("_", " ").lower()
        edge: dict[str, Any] = {} if marker == "x" else {"edgecolors": "white", "linewidth": 0.2}
        ax.scatter(
            times(rows["candle_ns"].to_numpy()), rows["price"].to_numpy(), s=size, marker=marker, color=colour,
            zorder=2.5 if name == "prune" else 3, label=said, **edge,
        )  # fmt: skip
        seen.add(name)
    halts = verdicts.filter(guard="HALT").sort("decided_ns").join_asof(
        account.select("open_ns", "close"), left_on="decided_ns", right_on="open_ns", allow_exact_matches=False
    )  # fmt: skip
    if not halts.is_empty():
        at = times(halts["decided_ns"].to_numpy())
        ax.scatter(at, halts["close"].to_numpy(), s=2 * size, marker="|", color=HALT, zorder=4, label="circuit breaker")
    ax.ticklabel_format(axis="y", useOffset=False)
    finish(ax, "price, quote currency")
    return figure
