"""A search's tables and results -> its page: what `mmlab grid optimize` writes and `mmlab report` redraws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from mmlab.core.errors import LakeError
from mmlab.core.grid_schemas import GRID_METRICS, GRID_TABLES
from mmlab.core.grid_search_schemas import GRID_TRIALS
from mmlab.flows.grid_report import titled
from mmlab.grid.config import coin_of
from mmlab.grid.metrics import PORTFOLIO
from mmlab.grid.summary import curve_of
from mmlab.report import page
from mmlab.store.parts import write_bytes_atomic
from mmlab.store.runs import read_json, read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TRIALS = 25
SAID = {
    "history": "Every trial by its number. Uniform trials are drawn blindly, the others where the search expects more.",
    "train_and_test": "Held-out windows are told beside the trials and never searched by.",
    "importance": "What parts the best tenth of the trials from all: a parameter with a small share hardly matters.",
    "stability": "A parameter is stable only if its best values lie close together, and closer than chance makes them "
    "among the trials that were drawn blindly.",
    "null": "The same parameters on bars drawn in blocks of about a day and turned over at random, so that no bar's "
    "direction follows from what was before. Funding is paid as it was.",
    "holdout": "The last part of the span, which no trial and no choice has seen, run once with the robust set.",
    "verdict": "Scores below 0 lose money. A search is worth something only if what it never saw agrees.",
    "best_trials": "The best trials by their worst train score, with the mean of their held-out scores.",
}


def write_page(run: Path, *, plot: bool) -> Path:
    """Write report.html and, with `plot`, its figures; returns the page's path. Raises LakeError for torn tables."""
    manifest, result = read_json(run / "manifest.json"), read_json(run / "optimizer_results_robust.json")
    rows = read_table(run, GRID_TRIALS)
    if rows is None:
        raise LakeError(f"{run / GRID_TRIALS.name}.parquet is missing", remedy="make the run again")
    trials = ranked(rows)
    images, alts = {}, {}
    if plot:
        from mmlab.report import canvas  # noqa: PLC0415 - matplotlib is an extra

        for name, draw in drawings(run, manifest, result, trials).items():
            figure = draw()
            images[name], alts[name] = canvas.png(figure), canvas.says_of(figure)
            write_bytes_atomic(run / f"{name}.png", images[name])
    metrics = read_table(run, GRID_METRICS)
    coin = PORTFOLIO if len(result["coins"]) > 1 else result["coins"][0]
    title = f"Grid search over {', '.join(coin_of(symbol) for symbol in result['coins'])}, {manifest['spec']['day']}"
    shown = {
        "verdict": verdict_rows(result),
        "robust_parameters": robust_rows(result),
        "scores": score_rows(result),
        "best_trials": trials.sort("value", descending=True).head(MOST_TRIALS),
    }
    captions = {**SAID, **{name: SAID["holdout"] for name in images if name.startswith("holdout")}}
    tiles = None if metrics is None else metrics.filter(coin=coin)
    text = page.render(titled(title, manifest), manifest, tiles, images, shown, alts, captions)
    write_bytes_atomic(run / "report.html", text.encode())
    return run / "report.html"


def drawings(
    run: Path, manifest: Mapping[str, Any], result: Mapping[str, Any], trials: pl.DataFrame
) -> dict[str, Callable[[], Figure]]:
    """The figures in the page's order; those of the hold-out by coin."""
    from mmlab.report import grid_figures, grid_search  # noqa: PLC0415

    robust, label = (result["objective"], result["oos_mean_score"]), titled("", manifest)
    found: dict[str, Callable[[], Figure]] = {
        "history": lambda: grid_search.history(trials, label),
        "train_and_test": lambda: grid_search.train_and_test(trials, robust, label),
        "stability": lambda: grid_search.stability(result["param_stability"], label),
        "importance": lambda: grid_search.importance(result["importance"], label),
    }
    if result["mc_null"]:
        found["null"] = lambda: grid_search.null(result["mc_null"], result["mc_growth"], label)
    tables = {table.name: read_table(run, table) for table in GRID_TABLES}
    spec = manifest["spec"]
    for symbol in result["holdout"]:
        own = {name: frame.filter(coin=symbol) for name, frame in tables.items() if frame is not None}
        capital = spec["strategy"]["initial_capital"] / len(result["coins"])
        title = titled(f"{coin_of(symbol)}: hold-out", manifest)
        found[f"holdout_{coin_of(symbol)}"] = lambda own=own, capital=capital, title=title: grid_figures.equity(  # type: ignore[misc]
            title, curve_of(own, capital, spec["interval_ns"])
        )
    return found


def ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """number, drawn, value, test (mean held-out score), parameters: a row for each scored trial."""
    value = rows.filter(role="objective").select("number", "drawn", "value")
    test = rows.filter((pl.col("role") == "test") & (pl.col("name") == "value"))
    own = rows.filter(role="parameter").select(
        "number", "name", given=pl.coalesce(pl.col("value").cast(pl.String), pl.col("text"))
    )
    wide = own.pivot("name", index="number", values="given") if own.height else own.select("number").unique()
    return value.join(
        test.group_by("number").agg(pl.col("value").mean().alias("test")), on="number", how="left"
    ).join(wide, on="number", how="left", maintain_order="left").sort("number")  # fmt: skip


def verdict_rows(result: Mapping[str, Any]) -> pl.DataFrame:
    """What was asked of the robust set, and the answers."""
    rows = [
        ("robustness", f"{result['robustness_label']}: {result['robustness_meaning']}",
         f"{result['robustness_score']:.3f}"),
        ("held-out windows", "passed" if result["oos_pass"] else "failed", f"mean {result['oos_mean_score']:.3f}, "
         f"{result['oos_positive']} of {result['oos_windows']} above 0"),
    ]  # fmt: skip
    if result["mc_p_value"] is not None:
        word = "significant" if result["mc_significant"] else "not significant"
        rows.append(("against chance", word, f"p = {result['mc_p_value']:.3f} of {result['mc_perms']} paths"))
    for coin, score in result["holdout"].items():
        rows.append((f"hold-out of {coin}", "earned" if score["total_return"] > 0 else "lost",
                     f"{100 * score['total_return']:+.2f}%, score {score['value']:.3f}"))  # fmt: skip
    return pl.DataFrame(rows, schema=["question", "answer", "figure"], orient="row")


def robust_rows(result: Mapping[str, Any]) -> pl.DataFrame:
    """Each robust parameter and how stable it is."""
    rows = [
        (name, str(value), each["spread"], each["p_value"], each["label"], result["importance"].get(name))
        for name, value in result["robust_params"].items()
        for each in [result["param_stability"][name]]
    ]
    schema = {"parameter": pl.String, "value": pl.String, "spread": pl.Float64, "p_value": pl.Float64,
              "label": pl.String, "importance": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def score_rows(result: Mapping[str, Any]) -> pl.DataFrame:
    """Scores of the robust set and of the parameters that it would replace, by coin and window."""
    keys = ("train_scores", "test_scores", "default_train_scores", "default_test_scores")
    rows = [
        (coin, window + 1, *(result[key][k][window] for key in keys))
        for k, coin in enumerate(result["coins"])
        for window in range(result["n_windows"])
    ]
    names = ["coin", "window", "robust_train", "robust_held_out", "default_train", "default_held_out"]
    return pl.DataFrame(rows, schema=names, orient="row")
