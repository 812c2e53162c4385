"""`mmlab backtest` and `mmlab walkforward`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mmlab.cli.calibrate import show_windows
from mmlab.cli.calibrate_options import ProbeFlags, RollingFlags
from mmlab.cli.console import OUT, done, progress, table, warn
from mmlab.cli.flags import option
from mmlab.cli.options import FILLS, RUN, JobFlags, Json, Report, StrategyFlags
from mmlab.cli.sweep import SortBy, Sweeps, run_sweep
from mmlab.core.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from mmlab.flows.backtest import BacktestResult
    from mmlab.flows.walkforward import WalkforwardResult

SHOWN = ("pnl_total", "realised_pnl", "unrealised_pnl", "fees", "max_drawdown", "orders_placed", "fills", "fill_ratio",
         "final_inventory", "max_abs_inventory", "time_to_first_fill_mean")  # fmt: skip
SHOWN_HORIZON_S = 5
Csv = Annotated[bool, option("--csv", help="Write the tables as CSV too, like orders_SYMBOL.csv.", panel=RUN)]
CompareFills = Annotated[
    bool,
    option(
        "--compare-fills",
        help="Run the strategy under every other fill model too (poisson and hybrid: with an intensity), side by side.",
        panel=FILLS,
    ),
]
FillModel = Annotated[
    str,
    option(
        "--fill-model",
        env="FILL_MODEL",
        help="trade_cross (prints), price_cross (books), poisson (an intensity) or hybrid (prints and intensity).",
        panel=FILLS,
    ),
]


def backtest(
    job: JobFlags,
    strategy: StrategyFlags,
    fill_model: FillModel = "trade_cross",
    fill_params_file: Annotated[
        Path | None,
        option(
            "--fill-params-file",
            env="FILL_PARAMS_FILE",
            help="poisson_fit.json or poisson_schedule.json of mmlab calibrate.",
            panel=FILLS,
        ),
    ] = None,
    A: Annotated[float | None, option("--A", help="Intensity at the mid, per second and side.", panel=FILLS)] = None,
    k: Annotated[float | None, option("--k", help="Its decay per tick.", panel=FILLS)] = None,
    sweep: Sweeps = None,
    sort_by: SortBy = None,
    compare_fills: CompareFills = False,
    csv: Csv = False,
    report: Report = False,
    as_json: Json = False,
) -> None:
    """Simulate a strategy order by order over recorded days.

    Fills come from the tape (trade_cross: a print that reaches the order fills it; price_cross: a book that
    crosses it does) or from a calibrated intensity (poisson), or both (hybrid). k is per tick everywhere; the
    quotes convert it to price themselves.
    """
    from mmlab.flows.backtest import IntensitySource
    from mmlab.flows.backtest import backtest as run
    from mmlab.flows.fill_models import compare_fills as run_each

    if sweep or sort_by is not None:
        if csv:
            raise UsageError("--csv is for one run", remedy="a sweep writes sweep.csv by itself: leave --csv out")
        if compare_fills:
            raise UsageError("--compare-fills and --sweep are both given", remedy="sweep over fill-model=... instead")
        source = IntensitySource(A, k, fill_params_file)
        run_sweep(job.job(), strategy.spec(fill_model), sweep, source, sort_by, report, as_json)
        return
    with progress() as show:
        flow = run_each if compare_fills else run
        result = flow(job.job(), strategy.spec(fill_model), IntensitySource(A, k, fill_params_file), show, csv=csv)
    warn(result.warnings)
    _finish(result, report, as_json)


def walkforward(
    job: JobFlags,
    rolling: RollingFlags,
    probes: ProbeFlags,
    strategy: StrategyFlags,
    fill_model: FillModel = "poisson",
    csv: Csv = False,
    report: Report = False,
    as_json: Json = False,
) -> None:
    """Calibrate every step on its past, then run one backtest whose (A, k) change over the day.

    Before the first good fit there is no intensity: avellaneda_stoikov does not quote and nothing is filled.
    """
    from mmlab.flows.walkforward import walkforward as run

    with progress() as show:
        result = run(job.job(), probes.spec(), rolling.spec(), strategy.spec(fill_model), show, csv=csv)
    warn(result.warnings)
    show_windows(result.windows)
    if result.truth:
        _show_truth(result)
    _finish(result, report, as_json)


def _show_truth(result: Any) -> None:
    """True against fitted (A, k), where the market is synthetic."""
    import polars as pl

    last = result.fits.filter((pl.col("side") == "both") & pl.col("ok")).row(-1, named=True)
    truth = next(p for p in reversed(result.truth) if p["start_ms"] * 1_000_000 < last["train_end_ns"])
    rows = [
        (name, truth[name], last[name], f"{last[f'{name}_low']:.5g} to {last[f'{name}_high']:.5g}")
        for name in ("A", "k")
    ]
    table("true against fitted, last training window", ("", "true", "fitted", "95% interval"), rows)


def _finish(result: BacktestResult | WalkforwardResult, report: bool, as_json: bool) -> None:
    """Show the figures, draw the report if asked, and say where everything lies."""
    from mmlab.flows.fill_models import ComparedResult

    values = {metric: (value, unit) for metric, value, unit in result.metrics.iter_rows()}
    table("metrics", ("metric", "value", "unit"), [(name, *values[name]) for name in SHOWN])
    _show_attribution(result.attribution, values["pnl_total"][0])
    compared = _show_fill_models(result.fill_models) if isinstance(result, ComparedResult) else {}
    if report:
        from mmlab.flows.report import make_report

        OUT.print(f"open {make_report(result.path)}")
    done({"path": str(result.path), **{name: value for name, (value, _) in values.items()}, **compared}, as_json)


def _show_attribution(attribution: pl.DataFrame, earned: float) -> None:
    """Where the profit came from, at one horizon."""
    rows = attribution.filter(horizon_s=SHOWN_HORIZON_S, side="both").select("component", "value").rows()
    title = f"where it came from, fills followed for {SHOWN_HORIZON_S} s"
    table(title, ("component", "value", "unit"), [(*row, "quote") for row in [*rows, ("pnl_total", earned)]])


def _show_fill_models(fill_models: pl.DataFrame) -> dict[str, Any]:
    """The strategy under each fill model, a column each, and what each assumes; what --json says of it."""
    from mmlab.report.backtest_fills import assumptions, side_by_side

    found = side_by_side(fill_models)
    models, names = found["model"].to_list(), found.columns[1:]
    rows = [(name.replace("_", " "), *found[name]) for name in names]
    table(f"the same strategy under each fill model, fills followed for {SHOWN_HORIZON_S} s", ("", *models), rows)
    table("what each assumes", ("fill model", "assumes"), assumptions(fill_models).rows())
    return {"fill_models": {row.pop("model"): row for row in found.to_dicts()}}
