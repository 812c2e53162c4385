"""`mmlab report RUN`: a run's tables -> report.html and PNG files in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import UsageError
from mmlab.flows import grid_report, grid_search_report
from mmlab.report import backtest, backtest_fills, sweep_cells
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
    if manifest.get("kind") == "grid/backtest":
        return grid_report.write_page(run, plot=True)
    if manifest.get("kind") == "grid/optimize":
        return grid_search_report.write_page(run, plot=True)
    found = {t.name: f for t in schemas.RUN_TABLES if (f := read_table(run, t)) is not None}
    sort_by = manifest["spec"].get("sort_by", "pnl_total")  # of a sweep
    images, alts = {}, {}
    for name, draw in drawings(found, manifest.get("truth") or None, sort_by).items():
        figure = draw()
        images[name], alts[name] = canvas.png(figure), canvas.says_of(figure)
        write_bytes_atomic(run / f"{name}.png", images[name])
    title = f"{manifest.get('kind', 'run')} of {manifest['spec']['symbol']}, {manifest['spec']['day']}"
    text = page.render(title, manifest, found.get("metrics"), images, tables(found, sort_by), alts)
    write_bytes_atomic(run / "report.html", text.encode())
    return run / "report.html"


SHOWN = ("scores", "stability", "windows", "window_metrics", "fits")  # as tables, on the page
MOST_ROWS = 400  # of a table that is shown
MOST_RANKED = 25  # runs of a sweep that are shown


def tables(found: Tables, sort_by: str) -> Tables:
    """The tables on the page, in its order: those of a backtest, small ones as they stand, the highest of a sweep."""
    shown: Tables = {}
    if "attribution" in found:
        shown["attribution_by_horizon"] = backtest.parts_by_horizon(found["attribution"])
    if "markouts" in found:
        shown["markouts_by_horizon"] = backtest.markouts_by_horizon(found["markouts"])
    if {"orders", "fills"} <= found.keys():
        shown["waiting_times"] = backtest.latency(found["orders"], found["fills"])
    if "fill_models" in found:
        shown["fill_models_side_by_side"] = backtest_fills.side_by_side(found["fill_models"])
        shown["what_each_fill_model_assumes"] = backtest_fills.assumptions(found["fill_models"])
    shown |= {n: found[n] for n in SHOWN if n in found and found[n].height <= MOST_ROWS}
    if "sweep" in found:
        shown[f"highest_{sort_by}"] = sweep_cells.ranked(found["sweep"], sort_by).head(MOST_RANKED)
    return shown


Drawings = dict[str, tuple[tuple[str, ...], "Callable[[], Figure]"]]  # the tables that a figure needs, by its name


def drawings(
    found: Tables, truth: dict[str, Any] | None, sort_by: str = "pnl_total"
) -> dict[str, Callable[[], Figure]]:
    """The figures that the run's tables allow, by file name, in the page's order."""
    from mmlab.report import sweep  # noqa: PLC0415

    needs = of_backtest(found) | of_calibration(found, truth)
    needs["heat_map"] = (("sweep",), lambda: sweep.heat_map(found["sweep"], sort_by))
    return {name: draw for name, (tables, draw) in needs.items() if all(table in found for table in tables)}


def of_backtest(t: Tables) -> Drawings:
    """What the orders did and what came of it."""
    from mmlab.report import backtest_figures, figures  # noqa: PLC0415

    fills = "markouts" if "markouts" in t else "fills"  # runs of older versions have no markouts
    return {
        "equity": (("state",), lambda: figures.equity(t["state"])),
        "where_it_came_from": (("attribution",), lambda: backtest_figures.waterfall(t["attribution"])),
        "inventory": (("state",), lambda: figures.inventory(t["state"])),
        "fills_on_price": (("state", fills), lambda: figures.fills_on_price(t["state"], t[fills])),
        "quotes_close_up": (("state", fills), lambda: figures.fills_on_price(*close_up(t["state"], t[fills]))),
        "markouts": (("markouts",), lambda: backtest_figures.markouts_drawn(t["markouts"])),
        "latency": (("orders", "fills"), lambda: backtest_figures.latency(t["orders"], t["fills"])),
        "quoted_time": (("state",), lambda: backtest_figures.quoted(t["state"])),
        "fill_models": (
            ("fill_models",),
            lambda: backtest_figures.fill_models(backtest_fills.side_by_side(t["fill_models"])),
        ),
    }


def of_calibration(t: Tables, truth: dict[str, Any] | None) -> Drawings:
    """What was fitted, and how well it holds."""
    from mmlab.report import calibration, correlation, figures  # noqa: PLC0415

    return {
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
    }


def close_up(state: pl.DataFrame, fills: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`state` and `fills` of the stretch that is worth a close look."""
    if state.is_empty():
        return state, fills
    span = backtest.busy_span(fills["recv_ns"].to_numpy(), state["recv_ns"][0], state["recv_ns"][-1])
    inside = pl.col("recv_ns").is_between(*span)
    return state.filter(inside), fills.filter(inside)


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
