"""Figures of a search: how it went, what mattered, how far the best trials agree, and train against held-out.

`label` is put behind a title where fills look ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlab.report.canvas import DPI, GRID, INK, MUTED, canvas, finish, says

UNIFORM, TPE, BEST, ROBUST, LOSS = "#9aa5b1", "#0072b2", "#d55e00", "#00704f", "#c0392b"
LABELS = {"STABLE": "#00704f", "MODERATE": "#e69f00", "UNSTABLE": "#9aa5b1"}


def history(trials: pl.DataFrame, label: str = "") -> Figure:
    """Objective of every trial in order, and the best so far. trials: number, drawn, value of the scored ones."""
    title = "Search: the worst train score of each trial" + label
    if trials.is_empty():
        return says(title, "no trial was scored")
    figure, (ax,) = canvas(f"{title}\nnot held out: the highest is the luckiest too")
    for drawn, colour in (("uniform", UNIFORM), ("tpe", TPE)):
        part = trials.filter(drawn=drawn)
        ax.plot(part["number"].to_numpy(), part["value"].to_numpy(), ".", color=colour, markersize=5, label=drawn)
    best = np.maximum.accumulate(trials["value"].to_numpy())
    ax.step(trials["number"].to_numpy(), best, where="post", color=BEST, linewidth=1.2, label="best so far")
    finish(ax, "objective", x_label="trial")
    return figure


def train_and_test(trials: pl.DataFrame, robust: tuple[float, float], label: str = "") -> Figure:
    """Each trial's worst train score against its mean held-out score, and the robust set's.

    trials: drawn, value, test of the scored ones.
    """
    title = "Train against held-out scores" + label
    if trials.is_empty():
        return says(title, "no trial was scored")
    small = "on the dotted line both are alike; what lies below it did worse where it was not searched"
    figure, (ax,) = canvas(f"{title}\n{small}", height=4.4)
    for drawn, colour in (("uniform", UNIFORM), ("tpe", TPE)):
        part = trials.filter(drawn=drawn)
        ax.plot(part["value"].to_numpy(), part["test"].to_numpy(), ".", color=colour, markersize=5, label=drawn)
    ax.plot(*robust, "D", color=ROBUST, markersize=7, label="robust set")
    ax.axline((0, 0), slope=1, linestyle=":", color=MUTED, linewidth=1)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    finish(ax, "mean held-out score", x_label="worst train score")
    return figure


def importance(found: Mapping[str, float], label: str = "") -> Figure:
    """Share of each parameter in what parts the best tenth of trials from all."""
    title = "Importance of the parameters" + label
    if not found:
        return says(title, "too few trials, or all alike")
    names = sorted(found, key=lambda name: found[name])
    figure, ax = _bars(f"{title}\nPED-ANOVA, best tenth of the trials against all", len(names))
    ax.barh(names, [found[name] for name in names], color=TPE, height=0.65)
    finish(ax, "", x_label="share", legend=False)
    return figure


def stability(found: Mapping[str, Mapping[str, Any]], label: str = "") -> Figure:
    """Spread of each parameter among the best trials against that of uniform draws, coloured by its label."""
    names = sorted(found, key=lambda name: -found[name]["spread"])
    figure, ax = _bars(
        f"How far the best trials agree{label}\nspread against uniform draws: 1 says nothing; grey: as by chance",
        len(names),
    )
    for word, colour in LABELS.items():
        part = [name for name in names if found[name]["label"] == word]
        if part:
            at = [names.index(name) for name in part]
            ax.barh(at, [found[name]["spread"] for name in part], color=colour, height=0.65, label=word.lower())
    ax.set_yticks(range(len(names)), labels=names)
    ax.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    finish(ax, "", x_label="spread / spread of uniform draws")
    return figure


def null(paths: Sequence[float], real: float, label: str = "") -> Figure:
    """What the robust set earned on the held-out windows, beside markets in which no grid has an edge."""
    title = "Held-out growth against markets without an edge" + label
    figure, (ax,) = canvas(title)
    bins = min(40, max(8, len(paths) // 4))
    ax.hist([100 * each for each in paths], bins=bins, color=UNIFORM, label=f"{len(paths)} paths")
    ax.axvline(100 * real, color=ROBUST if real > 0 else LOSS, linewidth=2, label="held-out windows")
    ax.axvline(0, color=MUTED, linewidth=0.6)
    finish(ax, "paths", x_label="log growth, %, mean over the coins")
    return figure


def _bars(title: str, n: int) -> tuple[Figure, Axes]:
    """Room for n horizontal bars, their names set small."""
    figure = Figure(figsize=(10, 1.3 + 0.24 * n), dpi=DPI, layout="constrained", facecolor="white")
    ax: Axes = figure.subplots()
    head, _, small = title.partition("\n")
    figure.suptitle(head, x=0.012, ha="left", fontsize=11, color=INK, fontweight="bold")
    ax.set_title(small, loc="left", fontsize=8.5, color=MUTED)
    ax.spines[:].set_color(GRID)
    return figure, ax
