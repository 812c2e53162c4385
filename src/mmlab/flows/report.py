"""`mmlab report RUN`: a run's tables -> report.html and PNG files in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import UsageError
from mmlab.store.parts import write_bytes_atomic
from mmlab.store.runs import read_json, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = dict[str, pl.DataFrame]


def make_report(run: Path) -> Path:
    """Draw what the run has; returns the page's path. Raises UsageError without the extra `plots`."""
    try:
        from mmlab.report import canvas, page  # noqa: PLC0415  (matplotlib is an extra)
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed", remedy="pip install 'mmlab[plots]'") from None
    manifest = read_json(run / "manifest.json")
    found = {t.name: f for t in schemas.RUN_TABLES if (f := read_table(run, t)) is not None}
    images = {name: canvas.png(draw()) for name, draw in drawings(found, manifest.get("truth") or None).items()}
    for name, image in images.items():
        write_bytes_atomic(run / f"{name}.png", image)
    title = f"{manifest.get('kind', 'run')} of {manifest['spec']['symbol']}, {manifest['spec']['day']}"
    shown: Tables = {n: found[n] for n in ("windows", "fits") if n in found and found[n].height <= MOST_ROWS}
    text = page.render(title, manifest, found.get("metrics"), images, shown)
    write_bytes_atomic(run / "report.html", text.encode())
    return run / "report.html"


MOST_ROWS = 400


def drawings(found: Tables, truth: dict[str, Any] | None) -> dict[str, Callable[[], Figure]]:
    """The figures that the run's tables allow, by file name, in the page's order."""
    from mmlab.report import figures  # noqa: PLC0415

    drawn: dict[str, Callable[[], Figure]] = {}
    if "state" in found:
        drawn["equity"] = lambda: figures.equity(found["state"])
        drawn["inventory"] = lambda: figures.inventory(found["state"])
        drawn["fills_on_price"] = lambda: figures.fills_on_price(found["state"], found["fills"])
    if "points" in found and "fits" in found:
        drawn["intensity"] = lambda: figures.intensity(*last_span(found["points"], found["fits"]), truth)
    if "windows" in found:
        drawn["parameters"] = lambda: figures.parameters(found["windows"], found["fits"], truth)
    return drawn


def last_span(points: pl.DataFrame, fits: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Points and fits of the last good training span, or of the last one if none is good."""
    pooled = fits.filter(pl.col("side") == "both").sort("ok", "train_end_ns")
    if pooled.is_empty():
        return points, fits
    start, end = pooled.select("train_start_ns", "train_end_ns").row(-1)
    return (
        points.filter((pl.col("bucket_start_ns") >= start) & (pl.col("bucket_end_ns") <= end)),
        fits.filter((pl.col("train_start_ns") == start) & (pl.col("train_end_ns") == end)),
    )
