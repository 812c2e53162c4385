"""`mmlab backtest --sweep`: a grid of backtests, its highest and its lowest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from mmlab.cli.console import OUT, done, progress, table, warn
from mmlab.cli.flags import option
from mmlab.core.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from mmlab.flows.backtest import IntensitySource
    from mmlab.flows.run import Job
    from mmlab.sim.spec import BacktestSpec

SWEEP = "Sweep"
MOST_SHOWN = 10  # runs at either end of the ranking
ALSO = ("pnl_total", "max_drawdown", "fills", "final_inventory")  # beside the metric sorted by
Sweeps = Annotated[
    list[str] | None,
    option(
        "--sweep",
        help="Run a grid: NAME=LOW:HIGH:N, NAME=LOW:HIGH:N:log or NAME=V1,V2,... NAME is any flag of the quotes, "
        "fills, orders or account. Several give the product, the last varying fastest.",
        panel=SWEEP,
    ),
]
SortBy = Annotated[
    str | None,
    option("--sort-by", help="Metric by which the runs of a sweep are ranked; default: pnl_total.", panel=SWEEP),
]


def run_sweep(
    job: Job, base: BacktestSpec, texts: list[str] | None, source: IntensitySource, sort_by: str | None, report: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the grid, show its ends, draw the report if asked, and say where everything lies."""
    from mmlab.flows.sweep import sweep as run
    from mmlab.report.sweep_cells import column, parameters, ranked
    from mmlab.sim import axes

    if not texts:
        raise UsageError("--sort-by is given without --sweep", remedy="give a --sweep, or leave it out")
    asked, metric = axes.parse(texts), sort_by or "pnl_total"
    with progress() as show:
        result = run(job, base, asked, source, metric, show)
    warn(result.warnings)
    rows, by = ranked(result.sweep, metric), column(result.sweep, metric)
    _show(rows, by, parameters(result.sweep))
    if not as_json and rows.height > 1:
        OUT.print(
            f"The best of {rows.height:,} runs on one tape is an in-sample pick, which flatters: "
            "judge it on days that it was not picked on."
        )
    if report:
        from mmlab.flows.report import make_report

        OUT.print(f"open {make_report(result.path)}")
    found = rows.drop_nulls(by)
    ends = {"highest": found.head(1).to_dicts(), "lowest": found.tail(1).to_dicts()}
    done({"path": str(result.path), "runs": rows.height, "sort_by": metric, **ends}, as_json)


def _show(rows: pl.DataFrame, by: str, names: list[str]) -> None:
    """All runs in order, or both ends of the ranking; runs without the metric are counted."""
    heads = ["number", *names, by, *(n for n in ALSO if n != by and n in rows.columns)]
    found = rows.drop_nulls(by).select(heads)
    if found.height <= 2 * MOST_SHOWN:
        table(f"{found.height} runs, highest {by} first", heads, _short(found))
    else:
        table(f"highest {by}: {MOST_SHOWN} of {found.height:,} runs", heads, _short(found.head(MOST_SHOWN)))
        table(f"lowest {by}", heads, _short(found.tail(MOST_SHOWN).reverse()))
    if found.height < rows.height:
        OUT.print(f"{rows.height - found.height:,} runs have no {by}.")


def _short(rows: pl.DataFrame) -> list[list[object]]:
    """Rows to be shown: parameters that are long decimals in six digits; sweep.csv has all of them."""
    return [[_cell(cell) for cell in row] for row in rows.iter_rows()]


def _cell(cell: object) -> object:
    """A text of a long decimal as a shorter one; anything else as it stands."""
    if not isinstance(cell, str) or len(cell) <= 8 or cell.isdecimal():
        return cell
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        return cell
