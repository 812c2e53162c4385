"""`mmlab walkforward`: a schedule fitted on the past, then one continuous backtest that follows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from mmlab.calib.schedule import entries
from mmlab.calib.spec import ScheduleSpec
from mmlab.flows.backtest import simulate_into
from mmlab.flows.calibrate import CalibrateSpec
from mmlab.flows.run import Job, Progress, begin, no_progress
from mmlab.flows.schedule import make_schedule
from mmlab.sim.intensity import Intensity
from mmlab.sim.spec import BacktestSpec


@dataclass(frozen=True)
class WalkforwardResult:
    """Where the run lies, its steps, its figures, and the truth where the market is synthetic."""

    path: Path
    windows: pl.DataFrame
    fits: pl.DataFrame
    metrics: pl.DataFrame
    attribution: pl.DataFrame
    truth: list[dict[str, float]]
    warnings: list[str]


def walkforward(
    job: Job,
    calibration: CalibrateSpec,
    rolling: ScheduleSpec,
    spec: BacktestSpec,
    progress: Progress = no_progress,
    *,
    csv: bool = False,
) -> WalkforwardResult:
    """Calibrate each step on its past, then simulate with the parameters that change over the day."""
    with begin(job, "walkforward", None, progress) as run:
        schedule = make_schedule(run, calibration, rolling)
        progress("walkforward", 1, 2)
        figures = simulate_into(run, spec, Intensity.scheduled(entries(schedule.windows)), csv=csv)
        progress("walkforward", 2, 2)
        path = run.commit(
            {"calibration": schedule.spec.flat(), **asdict(rolling), **asdict(spec), **figures.files}, spec.fill.seed
        )
        truth = [piece for ref in (*run.also, *run.refs) for piece in run.lake.manifest(ref).truth.get("pieces", [])]
        return WalkforwardResult(
            path, schedule.windows, schedule.fits, figures.metrics, figures.attribution, truth, run.warnings
        )
