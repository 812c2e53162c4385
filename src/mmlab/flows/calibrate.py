"""`mmlab calibrate ladder` and `mmlab calibrate schedule`: lake -> points, fits, schedule in `out/`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.calib.hits import TRADE_COLUMNS
from mmlab.calib.probes import DEPTH_COLUMNS
from mmlab.calib.run import Tape, ladder, rolling
from mmlab.calib.schedule import Schedule
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.errors import DataError
from mmlab.flows.run import Job, Progress, Run, begin, no_progress

TAPE_COLUMNS = (
    ("depth", schemas.DEPTH, DEPTH_COLUMNS),
    ("trades", schemas.TRADES, TRADE_COLUMNS),
    ("gaps", schemas.GAPS, ("from_ns", "to_ns", "stream")),
)


@dataclass(frozen=True)
class CalibrateSpec:
    """The whole of a calibration: probes, fit, and what the artifact carries along."""

    probes: ProbeSpec
    fit: FitSpec
    dt_ms: int = 100

    def flat(self) -> dict[str, Any]:
        """One flat dictionary, as manifests keep it."""
        return {**asdict(self.probes), **asdict(self.fit), "dt_ms": self.dt_ms}


@dataclass(frozen=True)
class LadderResult:
    """Where the run lies and what it found."""

    path: Path
    points: pl.DataFrame
    fits: pl.DataFrame
    warnings: list[str]


@dataclass(frozen=True)
class ScheduleResult:
    """Where the run lies, and its steps."""

    path: Path
    windows: pl.DataFrame
    warnings: list[str]


def calibrate_ladder(job: Job, spec: CalibrateSpec, progress: Progress = no_progress) -> LadderResult:
    """Calibrate all distances at once on the whole span; raises DataError for a span without book or prints."""
    with begin(job, "calibration", "ladder", progress) as run:
        tape = read_tape(run)
        with run.step("probes, join, points, fits"):
            found = ladder(tape, spec.probes, spec.fit)
        run.log.info("%d probe intervals, %d prints", found.n_intervals, tape.trades.height)
        pooled = found.fits.row(by_predicate=pl.col("side") == "both", named=True)
        if not pooled["ok"]:
            run.warn(f"no curve: {pooled['reason']}; poisson_fit.json has A and k null (try other --deltas)")
        run.folder.write_table(schemas.POINTS, found.points)
        run.folder.write_table(schemas.FITS, found.fits)
        run.folder.write_json("poisson_fit.json", fit_artifact(run, spec, pooled, "ladder"))
        path = run.commit({"method": "ladder", **spec.flat()})
        return LadderResult(path, found.points, found.fits, run.warnings)


def calibrate_schedule(
    job: Job, spec: CalibrateSpec, rolling_spec: ScheduleSpec, progress: Progress = no_progress
) -> ScheduleResult:
    """Fit every step on its past; raises DataError if no step can be fitted at all."""
    with begin(job, "calibration", "schedule", progress) as run:
        found = make_schedule(run, read_tape(run), spec, rolling_spec)
        path = run.commit({"method": "schedule", **spec.flat(), **asdict(rolling_spec)})
        return ScheduleResult(path, found.windows, run.warnings)


def make_schedule(run: Run, tape: Tape, spec: CalibrateSpec, rolling_spec: ScheduleSpec) -> Schedule:
    """Compute a schedule and write its tables and poisson_schedule.json into the run's folder."""
    with run.step("probes, join, points, fits"):
        points, found = rolling(tape, spec.probes, spec.fit, rolling_spec)
    for row in found.windows.iter_rows(named=True):
        run.log.info("window to %d ms: %s %s", row["start_ns"] // 1_000_000, row["source"], row["reason"])
    entries = found.entries()
    if not entries:
        reasons = ", ".join(sorted(set(found.windows["reason"].to_list())))
        raise DataError(
            f"none of {found.windows.height} windows could be fitted: {reasons}",
            remedy="give other --deltas, a longer --train-window-min or a smaller --min-exposure-s",
        )
    carried = found.windows.filter(pl.col("source") == "carry_forward").height
    if carried:
        run.warn(f"{carried} of {found.windows.height} steps carry an earlier fit forward")
    run.folder.write_table(schemas.POINTS, points)
    run.folder.write_table(schemas.FITS, found.fits)
    run.folder.write_table(schemas.WINDOWS, found.windows)
    run.folder.write_json("poisson_schedule.json", entries)
    return found


def read_tape(run: Run) -> Tape:
    """The columns that calibration needs; raises DataError when there is no book or no print."""
    with run.step("read"):
        frames = {
            name: run.lake.read(run.refs, table, columns, require_rows=name == "depth")
            for name, table, columns in TAPE_COLUMNS
            if name != "trades"
        }
        trades = run.lake.live_prints(run.refs, TRADE_COLUMNS)
    return Tape(frames["depth"], trades, frames["gaps"], run.instrument)


def fit_artifact(run: Run, spec: CalibrateSpec, fit: dict[str, Any], method: str) -> dict[str, Any]:
    """The documents' poisson_fit.json; A and k are null when the data do not identify them."""
    return {
        "distance_unit": "ticks",
        "fit_method": spec.fit.fit_method,
        "A": fit["A"] if fit["ok"] else None,
        "k": fit["k"] if fit["ok"] else None,
        "A_interval95": [fit["A_low"], fit["A_high"]] if fit["ok"] else None,
        "k_interval95": [fit["k_low"], fit["k_high"]] if fit["ok"] else None,
        "ok": fit["ok"],
        "reason": fit["reason"],
        "side": fit["side"],
        "count": spec.probes.count,
        "dt_ms": spec.dt_ms,
        "symbol": run.job.symbol,
        "day": str(run.job.days),
        "method": method,
        "deltas": list(spec.probes.deltas),
        "tick_size": run.instrument.tick_size,
        "min_exposure_s": spec.fit.min_exposure_s,
        "created_utc": run.run_id,
    }
