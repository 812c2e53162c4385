"""The long table of a sweep -> rows for people, rows in order of a metric, and the cells of a heat map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import UsageError


@dataclass(frozen=True)
class Cells:
    """One metric over the first two parameters, a panel for each combination of the others.

    values and numbers (of the runs) have the shape (panels, len(y_labels), len(x_labels)); an undefined value is nan.
    """

    x: str
    x_labels: list[str]
    y: str
    y_labels: list[str]
    panels: list[str]
    values: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]


def wide(sweep: pl.DataFrame) -> pl.DataFrame:
    """One row a run: its number, its parameters as text, its metrics; a metric named as a parameter says so."""
    frame = sweep.select("number").unique(maintain_order=True)
    for role, column in (("parameter", "text"), ("metric", "value")):
        rows = sweep.filter(pl.col("role") == role)
        names = rows["name"].unique(maintain_order=True).to_list()
        made = rows.pivot(on="name", index="number", values=column).select(
            "number", *(pl.col(n).alias(f"{n} (metric)" if n in frame.columns else n) for n in names)
        )
        frame = frame.join(made, on="number", how="left", maintain_order="left")
    return frame


def ranked(sweep: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The rows of `wide`, highest metric first, equal ones by number, those without one last."""
    return wide(sweep).sort(
        column(sweep, metric), "number", descending=[True, False], nulls_last=True, maintain_order=True
    )


def column(sweep: pl.DataFrame, metric: str) -> str:
    """The column of `wide` that holds a metric; raises UsageError listing the metrics if there is none."""
    known = metrics(sweep)
    if metric not in known:
        raise UsageError(f"--sort-by is {metric!r}", remedy=f"choose one of {', '.join(known)}")
    return f"{metric} (metric)" if metric in parameters(sweep) else metric


def metrics(sweep: pl.DataFrame) -> list[str]:
    """Names of the metrics, in order."""
    return sweep.filter(pl.col("role") == "metric")["name"].unique(maintain_order=True).to_list()


def parameters(sweep: pl.DataFrame) -> list[str]:
    """Names of the swept parameters, in order."""
    return sweep.filter(pl.col("role") == "parameter")["name"].unique(maintain_order=True).to_list()


def unit(sweep: pl.DataFrame, metric: str) -> str:
    """A metric's unit, empty for a bare number."""
    units = sweep.filter((pl.col("role") == "metric") & (pl.col("name") == metric))["unit"]
    return "" if units.is_empty() or units[0] == "1" else str(units[0])


def cells(sweep: pl.DataFrame, metric: str) -> Cells:
    """The metric of every run at its place; a sweep of one parameter has one row of cells."""
    name = column(sweep, metric)
    rows, names = wide(sweep).sort("number"), parameters(sweep)
    labels = [rows[n].unique(maintain_order=True).to_list() for n in names]
    shape = [len(values) for values in labels] + [1] * (2 - len(names))
    place = (1, 0) if len(shape) == 2 else (*range(2, len(shape)), 1, 0)  # the others, y, x
    ordered = (len(rows) // (shape[0] * shape[1]), shape[1], shape[0])
    rest = rows.head(ordered[0]).select(names[2:])
    return Cells(
        names[0],
        labels[0],
        names[1] if len(names) > 1 else "",
        labels[1] if len(names) > 1 else [""],
        [", ".join(f"{n}={v}" for n, v in row.items()) for row in rest.iter_rows(named=True)] or [""],
        rows[name].cast(pl.Float64).to_numpy().reshape(shape).transpose(place).reshape(ordered),
        rows["number"].to_numpy().reshape(shape).transpose(place).reshape(ordered),
    )
