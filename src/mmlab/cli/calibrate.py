"""`mmlab calibrate ladder`, `fixed`, `schedule`, `orders` and `validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.calib.spec import FitSpec
from mmlab.cli.calibrate_options import FIT, MEASURE, FixedFlags, ProbeFlags, RollingFlags, SourceFlags
from mmlab.cli.console import OUT, done, progress, table, warn
from mmlab.cli.flags import option
from mmlab.cli.options import RUN, JobFlags, Json, Report

if TYPE_CHECKING:
    import polars as pl

    from mmlab.flows.calibrate import LadderResult

FIT_COLUMNS = ("side", "A", "A_low", "A_high", "k", "k_low", "k_high", "ok", "reason")
ROBUST = ("A_low_robust", "A_high_robust", "k_low_robust", "k_high_robust")
FAMILY_COLUMNS = ("family", "n_params", "log_likelihood", "aic", "behind", "p_value")
WINDOW_COLUMNS = ("start_ns", "A", "k", "source", "age_steps", "coverage", "fills_total", "reason")
WINDOW_HEADS = ("start, UTC", "A", "k", "source", "age", "coverage", "hits", "reason")
SCORE_COLUMNS = ("side", "predictor", "steps", "expected", "observed", "ratio", "ratio_low", "ratio_high",
                 "gain_per_step", "gain_per_step_low", "gain_per_step_high")  # fmt: skip
SCORE_HEADS = ("side", "predictor", "steps", "expected", "came", "ratio", "from", "to", "gain a step", "from", "to")
STABILITY_COLUMNS = ("parameter", "fits", "mean", "scatter", "mean_se", "stability", "drift_per_hour", "drift_se")
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A finished run: its id, or its folder.")]


def ladder(
    job: JobFlags,
    probes: ProbeFlags,
    cycle: Annotated[
        bool, option("--cycle", help="One distance at a time, the next at each new probe.", panel=MEASURE)
    ] = False,
    report: Report = False,
    as_json: Json = False,
) -> None:
    """Measure fill intensity at every distance at once, over the whole span, and fit A and k.

    Virtual probes stand at mid - delta and mid + delta for a dwell time; each print hits every probe
    it reaches. Writes points, fits, curves and poisson_fit.json under out/calibration/method=ladder/.
    """
    from mmlab.flows.calibrate import calibrate_ladder

    with progress() as show:
        result = calibrate_ladder(job.job(), probes.spec(cycle), show)
    _show_ladder(result, f"{probes.count}, {probes.fit_method}", report, as_json)


def fixed(job: JobFlags, flags: FixedFlags, report: Report = False, as_json: Json = False) -> None:
    """Measure fill intensity of quotes that follow the mid at a fixed distance, for each distance by itself.

    virtual: probes laid anew at every re-quote. paper: real orders of an order-by-order backtest, with
    latencies. Writes the same tables as `ladder` under out/calibration/method=fixed/.
    """
    from mmlab.flows.calibrate import calibrate_fixed
    from mmlab.flows.own_orders import calibrate_paper

    spec = flags.spec()
    with progress() as show:
        if flags.engine == "paper":
            result = calibrate_paper(job.job(), spec, flags.paper(), show)
        else:
            result = calibrate_fixed(job.job(), spec, show)
    _show_ladder(result, f"{flags.engine}, {flags.count}, {flags.fit_method}", report, as_json)


def schedule(
    job: JobFlags,
    rolling: RollingFlags,
    probes: ProbeFlags,
    resume: Annotated[
        bool, option("--resume", help="Go on with the run that was stopped: the latest, or --run-id.", panel=RUN)
    ] = False,
    report: Report = False,
    as_json: Json = False,
) -> None:
    """Fit A and k for every step of the day on the minutes before it, and never on what follows.

    Steps start at UTC multiples of --step-min. A step whose past cannot be fitted carries the last good
    fit forward. Writes points, fits, windows, window_metrics and poisson_schedule.json under
    out/calibration/method=schedule/. `mmlab calibrate validate RUN` then judges it.
    """
    from mmlab.flows.schedule import calibrate_schedule

    with progress() as show:
        result = calibrate_schedule(job.job(), probes.spec(), rolling.spec(), show, resume)
    warn(result.warnings)
    show_windows(result.windows)
    _done(result.path, {"steps": result.windows.height}, report, as_json)


def orders(
    run: RunArgument,
    source: SourceFlags,
    min_delta_ticks: Annotated[
        float, option("--min-delta-ticks", env="MIN_DELTA_TICKS", help="Leave nearer orders out.", panel=MEASURE)
    ] = 0.0,
    max_delta_ticks: Annotated[
        float, option("--max-delta-ticks", env="MAX_DELTA_TICKS", help="Leave farther orders out.", panel=MEASURE)
    ] = 50.0,
    fit_method: Annotated[
        str, option("--fit-method", env="FIT_METHOD", help="poisson_mle or log_linear.", panel=FIT)
    ] = "poisson_mle",
    min_exposure_s: Annotated[
        float,
        option("--min-exposure-s", env="MIN_EXPOSURE_S", help="Least exposure for a distance to be fitted.", panel=FIT),
    ] = 5.0,
    report: Report = False,
    as_json: Json = False,
) -> None:
    """Estimate A and k from the orders, fills and state of a backtest or walk-forward.

    An order is at risk from its activation to its first fill, its cancel, its expiry or the run's end, at
    the distance from the mid that it had when it became active. Writes the same tables as `ladder` under
    out/calibration/method=orders/.
    """
    from mmlab.flows.own_orders import calibrate_orders

    with progress() as show:
        result = calibrate_orders(
            source.source(run), FitSpec(fit_method, min_exposure_s), min_delta_ticks, max_delta_ticks, show
        )
    _show_ladder(result, f"own orders of {run}, {fit_method}", report, as_json)


def validate(run: RunArgument, source: SourceFlags, report: Report = False, as_json: Json = False) -> None:
    """Judge a schedule: what each fit predicted for the step after it, and what came.

    Against a constant rate and against the last window's own rates, by log score; and how much A and k
    move. Writes validation, scores and stability under out/calibration/method=validate/.
    """
    from mmlab.flows.validate import calibrate_validate

    with progress() as show:
        result = calibrate_validate(source.source(run), show)
    warn(result.warnings)
    table("predicted against realised hits, in the step after each fit", SCORE_HEADS,
          result.scores.select(SCORE_COLUMNS).rows())  # fmt: skip
    table("stability of A and k", STABILITY_COLUMNS, result.stability.select(STABILITY_COLUMNS).rows())
    if not as_json:
        OUT.print(result.verdict, markup=False)
    _done(result.path, {"verdict": result.verdict}, report, as_json)


def show_windows(windows: Any, most: int = 12) -> None:
    """The first steps of a schedule, on the terminal."""
    import polars as pl

    clock = "%H:%M" if (windows["start_ns"] % (60 * 10**9) == 0).all() else "%H:%M:%S"
    readable = windows.head(most).with_columns(pl.from_epoch("start_ns", "ns").dt.strftime(f"%Y-%m-%d {clock}"))
    more = f" (first {most} of {windows.height})" if windows.height > most else ""
    table(f"schedule{more}", WINDOW_HEADS, readable.select(WINDOW_COLUMNS).rows())


def _show_ladder(result: LadderResult, how: str, report: bool, as_json: bool) -> None:
    """One span's curve, with both kinds of interval, and how other families of curve compare."""
    import polars as pl

    warn(result.warnings)
    exponential = result.fits.filter(pl.col("family") == "exponential")
    table(f"lambda(delta) = A exp(-k delta), {how}", FIT_COLUMNS, exponential.select(FIT_COLUMNS).rows())
    if exponential["k_low_robust"].null_count() < exponential.height:
        heads = ("side", "A from", "to", "k from", "to")
        table("95% intervals that bursts do not narrow", heads, exponential.select("side", *ROBUST).rows())
    if result.fits["aic"].null_count() < result.fits.height:  # counts that are not independent have none
        families = result.fits.filter(pl.col("side") == "both").with_columns(
            behind=(pl.col("aic") - pl.col("aic").min()).round(3)
        )
        table("families of curve, both sides", FAMILY_COLUMNS, families.select(FAMILY_COLUMNS).rows())
    _done(result.path, _pooled(exponential), report, as_json)


def _pooled(exponential: pl.DataFrame) -> dict[str, Any]:
    """Both sides' figures, for the JSON line."""
    pooled = exponential.row(index=2, named=True)
    return {name: pooled[name] for name in (*FIT_COLUMNS, *ROBUST)}


def _done(path: Any, content: dict[str, Any], report: bool, as_json: bool) -> None:
    """Say where the run lies, and draw its page if that was asked for."""
    if report:
        from mmlab.flows.report import make_report

        OUT.print(f"open {make_report(path)}")
    done({"path": str(path), **content}, as_json)
