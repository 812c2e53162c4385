"""Histograms of the profit under both strategies, as in the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.found import Found
from mmlab.report.canvas import canvas, finish
from mmlab.report.figures import BUY, SELL

COLOUR = {"inventory": BUY, "symmetric": SELL}
EDGES = np.arange(0.0, 137.0, 2.0)


def profits(rows: Sequence[Found]) -> Figure:
    """One outline a strategy, as a share of the paths a unit of profit."""
    gamma, paths = rows[0].row.strategy.gamma, rows[0].paths
    said = "; ".join(f"{f.row.strategy.name} {f.simulated[0].mean:.1f} ± {f.simulated[0].std:.1f}" for f in rows)
    paper = "; ".join(f"{f.row.profit:.1f} ± {f.row.std:.1f}" for f in rows)
    figure, (ax,) = canvas(f"Profit at gamma = {gamma:g}: {said}\n{paths:,} paths each; the paper has {paper}", 3.6)
    for f in rows:
        density, _ = np.histogram(f.profit, EDGES)
        ax.stairs(
            density / (paths * np.diff(EDGES)), EDGES, fill=True, alpha=0.35, color=COLOUR[f.row.strategy.name],
            label=f.row.strategy.name,
        )  # fmt: skip
    ax.set_xlim(EDGES[0], EDGES[-1])
    finish(ax, "share of the paths a unit of profit", x_label="profit at T, quote currency")
    return figure
