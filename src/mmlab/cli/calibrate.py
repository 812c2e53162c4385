"""`mmlab calibrate ladder` and `mmlab calibrate schedule`."""

from __future__ import annotations

from typing import Any

from mmlab.cli.console import done, progress, table, warn
from mmlab.cli.options import JobFlags, Json, ProbeFlags, RollingFlags

FIT_COLUMNS = ("side", "A", "A_low", "A_high", "k", "k_low", "k_high", "ok", "reason")
WINDOW_COLUMNS = ("start_ns", "A", "k", "source", "age_steps", "coverage", "fills_total", "reason")
WINDOW_HEADS = ("start, UTC", "A", "k", "source", "age", "coverage", "hits", "reason")


def ladder(job: JobFlags, probes: ProbeFlags, as_json: Json = False) -> None:
    """Measure fill intensity at every distance at once, over the whole span, and fit A and k.

    Virtual probes stand at mid - delta and mid + delta for a dwell time; each print hits every probe
    it reaches. Writes points, fits and poisson_fit.json under out/calibration/method=ladder/.
    """
    from mmlab.flows.calibrate import calibrate_ladder

    with progress() as show:
        result = calibrate_ladder(job.job(), probes.spec(), show)
    warn(result.warnings)
    title = f"lambda(delta) = A exp(-k delta), {probes.count}, {probes.fit_method}"
    table(title, FIT_COLUMNS, result.fits.select(FIT_COLUMNS).rows())
    pooled = result.fits.row(index=2, named=True)
    done({"path": str(result.path), **{name: pooled[name] for name in FIT_COLUMNS}}, as_json)


def schedule(job: JobFlags, rolling: RollingFlags, probes: ProbeFlags, as_json: Json = False) -> None:
    """Fit A and k for every step of the day on the minutes before it, and never on what follows.

    Steps start at UTC multiples of --step-min. A step whose past cannot be fitted carries the last good
    fit forward. Writes points, fits, windows and poisson_schedule.json under out/calibration/method=schedule/.
    """
    from mmlab.flows.calibrate import calibrate_schedule

    with progress() as show:
        result = calibrate_schedule(job.job(), probes.spec(), rolling.spec(), show)
    warn(result.warnings)
    show_windows(result.windows)
    done({"path": str(result.path), "steps": result.windows.height}, as_json)


def show_windows(windows: Any, most: int = 12) -> None:
    """The first steps of a schedule, on the terminal."""
    import polars as pl

    readable = windows.head(most).with_columns(pl.from_epoch("start_ns", "ns").dt.strftime("%Y-%m-%d %H:%M"))
    more = f" (first {most} of {windows.height})" if windows.height > most else ""
    table(f"schedule{more}", WINDOW_HEADS, readable.select(WINDOW_COLUMNS).rows())
