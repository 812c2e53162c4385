"""`mmlab report RUN`: a run's tables -> report.html and PNG files in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import UsageError
from mmlab.report import grid
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
    sort_by = manifest["spec"].get("sort_by", "pnl_total")  # of a sweep
    drawn = drawings(found, manifest.get("truth") or None, sort_by)
    images = {name: canvas.png(draw()) for name, draw in drawn.items()}
    for name, image in images.items():
        write_bytes_atomic(run / f"{name}.png", image)
    title = f"{manifest.get('kind', 'run')} of {manifest['spec']['symbol']}, {manifest['spec']['day']}"
    shown: Tables = {n: found[n] for n in SHOWN if n in found and found[n].height <= MOST_ROWS}
    if "sweep" in found:
        shown[f"highest_{sort_by}"] = grid.ranked(found["sweep"], sort_by).head(MOST_RANKED)
    text = page.render(title, manifest, found.get("metrics"), images, shown)
    write_bytes_atomic(run / "report.html", text.encode())
    return run / "report.html"


SHOWN = ("scores", "stability", "windows", "window_metrics", "fits")  # as tables, on the page
MOST_ROWS = 400  # of a table that is shown
MOST_RANKED = 25  # runs of a sweep that are shown


def drawings(
    found: Tables, truth: dict[str, Any] | None, sort_by: str = "pnl_total"
) -> dict[str, Callable[[], Figure]]:
    """The figures that the run's tables allow, by file name, in the page's order."""
    from mmlab.report import calibration, correlation, figures, sweep  # noqa: PLC0415

    t = found
    needs: dict[str, tuple[tuple[str, ...], Callable[[], Figure]]] = {
        "equity": (("state",), lambda: figures.equity(t["state"])),
        "inventory": (("state",), lambda: figures.inventory(t["state"])),
        "fills_on_price": (("state", "fills"), lambda: figures.fills_on_price(t["state"], t["fills"])),
        "coverage": (("windows",), lambda: calibration.coverage(t["windows"], t.get("window_metrics"))),
        "intensity": (("points", "fits"), lambda: figures.intensity(*last_span(t["points"], t["fits"]), truth)),
        "families": (
            ("points", "fits", "curves"),
            lambda: figures.families(*last_span(t["points"], t["fits"]), t["curves"]),
        ),
        "curves_by_hour": (("points", "windows"), lambda: calibration.curves_by_hour(t["points"], t["windows"])),
        "parameters": (("windows", "fits"), lambda: figures.parameters(t["windows"], t["fits"], truth)),
        "dispersion": (("window_metrics",), lambda: calibration.dispersion(t["window_metrics"])),
        "reliability": (("validation",), lambda: calibration.reliability(t["validation"], t.get("scores"))),
        "reliability_by_distance": (("validation",), lambda: calibration.reliability_by_distance(t["validation"])),
        "log_scores": (("scores",), lambda: calibration.log_scores(t["scores"])),
        "fill_times": (("windows", "points"), lambda: calibration.fill_times(t["windows"], t["points"])),
        "correlation": (
            ("windows", "window_metrics"),
            lambda: correlation.correlation(t["windows"], t["window_metrics"]),
        ),
        "heat_map": (("sweep",), lambda: sweep.heat_map(t["sweep"], sort_by)),
    }
    return {name: draw for name, (tables, draw) in needs.items() if all(table in t for table in tables)}


def last_span(points: pl.DataFrame, fits: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Points and fits, of all families, of the exponential's last good training span, or its last if none is good."""
    chosen = (pl.col("side") == "both") & (pl.col("family") == "exponential")
    pooled = fits.filter(chosen).sort("ok", "train_end_ns")
    if pooled.is_empty():
        return points, fits
    start, end = pooled.select("train_start_ns", "train_end_ns").row(-1)
    return (
        points.filter((pl.col("bucket_start_ns") >= start) & (pl.col("bucket_end_ns") <= end)),
        fits.filter((pl.col("train_start_ns") == start) & (pl.col("train_end_ns") == end)),
    )
