"""`mmlab calibrate ladder` and `mmlab calibrate schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec, parse_deltas
from mmlab.cli import options as o
from mmlab.cli.console import done, progress, table, warn
from mmlab.core.spans import Days

if TYPE_CHECKING:
    from mmlab.flows.calibrate import CalibrateSpec
    from mmlab.flows.run import Job

FIT_COLUMNS = ("side", "A", "A_low", "A_high", "k", "k_low", "k_high", "ok", "reason")
WINDOW_COLUMNS = ("start_ns", "A", "k", "source", "age_steps", "coverage", "fills_total", "reason")
WINDOW_HEADS = ("start, UTC", "A", "k", "source", "age", "coverage", "hits", "reason")


def ladder(
    symbol: o.Symbol,
    day: o.Day,
    venue: o.Venue = None,
    data_root: o.DataRoot = Path("data"),
    out_root: o.OutRoot = Path("out"),
    tick_size: o.TickSize = None,
    deltas: o.Deltas = "1,2,3,5,8,13",
    dwell_ms: o.DwellMs = 60_000,
    mid_move_threshold_ticks: o.Threshold = 2.0,
    count: o.Count = "first_hit",
    reach: o.Reach = "touch",
    taker_side: o.TakerSide = False,
    max_delta_ticks: o.MaxDelta = 50,
    fit_method: o.FitMethod = "poisson_mle",
    min_exposure_s: o.MinExposure = 5.0,
    dt_ms: o.DtMs = 100,
    log_root: o.LogRoot = None,
    log_level: o.LogLevel = "INFO",
    run_id: o.RunId = None,
    as_json: o.Json = False,
) -> None:
    """Measure fill intensity at every distance at once, over the whole span, and fit A and k.

    Virtual probes stand at mid - delta and mid + delta for a dwell time; each print hits every probe
    it reaches. Writes points, fits and poisson_fit.json under out/calibration/method=ladder/.
    """
    from mmlab.flows.calibrate import calibrate_ladder

    job = make_job(symbol, day, venue, data_root, out_root, log_root, log_level, run_id, tick_size)
    probes = ProbeSpec(
        parse_deltas(deltas), dwell_ms, mid_move_threshold_ticks, count, reach, taker_side, max_delta_ticks
    )
    spec = make_spec(probes, fit_method, min_exposure_s, dt_ms)
    with progress() as show:
        result = calibrate_ladder(job, spec, show)
    warn(result.warnings)
    table(
        f"lambda(delta) = A exp(-k delta), {count}, {fit_method}",
        FIT_COLUMNS,
        result.fits.select(FIT_COLUMNS).rows(),
    )
    pooled = result.fits.row(index=2, named=True)
    done({"path": str(result.path), **{name: pooled[name] for name in FIT_COLUMNS}}, as_json)


def schedule(
    symbol: o.Symbol,
    day: o.Day,
    venue: o.Venue = None,
    data_root: o.DataRoot = Path("data"),
    out_root: o.OutRoot = Path("out"),
    tick_size: o.TickSize = None,
    train_window_min: o.TrainWindow = 120,
    step_min: o.Step = 15,
    deltas: o.Deltas = "1,2,3,5,8,13",
    dwell_ms: o.DwellMs = 60_000,
    mid_move_threshold_ticks: o.Threshold = 2.0,
    count: o.Count = "first_hit",
    reach: o.Reach = "touch",
    taker_side: o.TakerSide = False,
    max_delta_ticks: o.MaxDelta = 50,
    fit_method: o.FitMethod = "poisson_mle",
    min_exposure_s: o.MinExposure = 5.0,
    dt_ms: o.DtMs = 100,
    log_root: o.LogRoot = None,
    log_level: o.LogLevel = "INFO",
    run_id: o.RunId = None,
    as_json: o.Json = False,
) -> None:
    """Fit A and k for every step of the day on the minutes before it, and never on what follows.

    Steps start at UTC multiples of --step-min. A step whose past cannot be fitted carries the last good
    fit forward. Writes points, fits, windows and poisson_schedule.json under out/calibration/method=schedule/.
    """
    from mmlab.flows.calibrate import calibrate_schedule

    job = make_job(symbol, day, venue, data_root, out_root, log_root, log_level, run_id, tick_size)
    probes = ProbeSpec(
        parse_deltas(deltas), dwell_ms, mid_move_threshold_ticks, count, reach, taker_side, max_delta_ticks
    )
    spec = make_spec(probes, fit_method, min_exposure_s, dt_ms)
    with progress() as show:
        result = calibrate_schedule(job, spec, ScheduleSpec(train_window_min, step_min), show)
    warn(result.warnings)
    show_windows(result.windows)
    done({"path": str(result.path), "steps": result.windows.height}, as_json)


def make_job(
    symbol: str,
    day: str,
    venue: str | None,
    data_root: Path,
    out_root: Path,
    log_root: Path | None,
    log_level: str,
    run_id: str | None,
    tick_size: str | None = None,
) -> Job:
    """The flags that every run shares, as a job."""
    from mmlab.flows.run import Job

    return Job(symbol, Days.parse(day), venue, data_root, out_root, log_root, log_level, run_id, tick_size)


def make_spec(probes: ProbeSpec, fit_method: str, min_exposure_s: float, dt_ms: int) -> CalibrateSpec:
    """Probes and fit as one specification."""
    from mmlab.flows.calibrate import CalibrateSpec

    return CalibrateSpec(probes, FitSpec(fit_method, min_exposure_s), dt_ms)


def show_windows(windows: Any, most: int = 12) -> None:
    """The first steps of a schedule, on the terminal."""
    import polars as pl

    readable = windows.head(most).with_columns(pl.from_epoch("start_ns", "ns").dt.strftime("%Y-%m-%d %H:%M"))
    more = f" (first {most} of {windows.height})" if windows.height > most else ""
    table(f"schedule{more}", WINDOW_HEADS, readable.select(WINDOW_COLUMNS).rows())
