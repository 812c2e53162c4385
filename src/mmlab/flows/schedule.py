"""`mmlab calibrate schedule`: lake -> a curve for every step of the days, fitted on the past of each.

Days are read one by one, each day's rows are written as they are final, and between two days the state to go on
from is saved: a run that was killed goes on after its last whole day, and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.calib.collect import Prints
from mmlab.calib.run import check_specs
from mmlab.calib.schedule import Roller, Schedule, entries, first_step
from mmlab.calib.spec import ScheduleSpec
from mmlab.core import schemas
from mmlab.core.errors import DataError, UsageError
from mmlab.core.spans import day_start_ns
from mmlab.flows.calibrate import CalibrateSpec, resolved, warn_of_excess
from mmlab.flows.kernels import prepare
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.flows.tape import TapeReader, read_warm
from mmlab.store.runs import RunFolder

TABLES = (
    ("windows", schemas.WINDOWS),
    ("fits", schemas.FITS),
    ("metrics", schemas.WINDOW_METRICS),
    ("points", schemas.POINTS),
)


@dataclass(frozen=True)
class ScheduleResult:
    """Where the run lies, and its steps."""

    path: Path
    windows: pl.DataFrame
    warnings: list[str]


@dataclass(frozen=True)
class Steps:
    """What a schedule found: the steps, and the pooled fit behind each."""

    windows: pl.DataFrame
    fits: pl.DataFrame
    spec: CalibrateSpec


def calibrate_schedule(
    job: Job, spec: CalibrateSpec, rolling: ScheduleSpec, progress: Progress = no_progress, resume: bool = False
) -> ScheduleResult:
    """Fit every step on its past; raises DataError if no step can be fitted at all.

    resume: go on with the latest attempt that did not end, or with that of the job's run id.
    """
    if resume and job.run_id is None:
        begun = RunFolder.begun(job.out_root, "calibration", "schedule", job.symbol, str(job.days))
        if not begun:
            raise UsageError("there is no run to resume", remedy="leave --resume out")
        job = replace(job, run_id=begun[0])
    with begin(job, "calibration", "schedule", progress, resumable=True) as run:
        found = make_schedule(run, spec, rolling, resume)
        path = run.commit({"method": "schedule", **found.spec.flat(), **asdict(rolling)})
        return ScheduleResult(path, found.windows, run.warnings)


def make_schedule(run: Run, spec: CalibrateSpec, rolling: ScheduleSpec, resume: bool = False) -> Steps:
    """Compute a schedule and write its tables and poisson_schedule.json into the run's folder."""
    check_specs(spec.probes, spec.fit)
    prepare(run)
    reader = read_warm(run, rolling.train_ns, rolling.warm_days)
    begins = day_start_ns(run.refs[0].day)
    start, end = reader.span_ns()
    opening = first_step(start, rolling, begins)
    with run.step("read, probes, join, points, fits"):
        spec = resolved(run, spec, reader, opening)
        roller = Roller(reader.gaps(), run.instrument, spec.probes, spec.fit, rolling, start, begins, reader.days())
        _roll(run, reader, roller, spec, max((end - opening) // rolling.step_ns + 1, 0), resume)
    windows, fits = (pl.concat(run.folder.parts(table)) for table in (schemas.WINDOWS, schemas.FITS))
    try:
        listed = _entries(windows)
    except DataError:
        run.folder.forget()  # going on would end in the same fault
        raise
    run.folder.write_json("poisson_schedule.json", listed)
    carried = windows.filter(pl.col("source") == "carry_forward").height
    if carried:
        run.warn(f"{carried} of {windows.height} steps carry an earlier fit forward")
    for _, table in TABLES:
        run.folder.join(table)
    pooled = fits.filter((pl.col("side") == "both") & (pl.col("family") == "exponential"))
    excess, hits = pooled.filter("ok").select(pl.median("ring_excess"), pl.sum("fills_total")).row(0)
    warn_of_excess(run, spec, excess, hits)
    return Steps(windows, pooled, spec)


def _roll(run: Run, reader: TapeReader, roller: Roller, spec: CalibrateSpec, steps: int, resume: bool) -> None:
    """Day after day: add, write what is final, save the state."""
    note = json.loads(json.dumps({"spec": {**spec.flat(), **asdict(roller.spec)}, "inputs": run.inputs()}))
    done = _resumed(run, roller, note, resume)
    rest: list[Schedule] = []
    for i, (depth, trades) in enumerate(reader.chunks(done), done):
        rest = [roller.add(depth, _shown(run, roller, trades, steps))]
        if i + 1 < len(reader.refs):
            _write(run, rest)
            rest = []
            if run.folder.resumable:
                run.folder.save({**note, "days": i + 1}, roller.state())
    try:
        rest.append(roller.close())
    except DataError:
        run.folder.forget()  # going on would end in the same fault
        raise
    _write(run, rest)
    run.progress("windows", steps, steps)


def _shown(run: Run, roller: Roller, prints: Prints, steps: int) -> Iterator[pl.DataFrame]:
    """Prints in pieces; of each that was counted, how many windows it has brought to their end is shown."""
    for piece in [prints] if isinstance(prints, pl.DataFrame) else prints:
        yield piece
        if piece.height:
            run.progress("windows", min(roller.steps_by(int(piece["recv_ns"][-1])), steps), steps)


def _resumed(run: Run, roller: Roller, note: dict[str, Any], resume: bool) -> int:
    """How many days an earlier attempt did, whose state is taken over; raises UsageError if it was another run."""
    saved = run.folder.saved()
    if saved is None:
        if resume:
            run.warn(f"nothing to resume of run {run.run_id}: it begins anew")
        return 0
    done, arrays = saved
    if not resume:
        raise UsageError(
            f"run {run.run_id} was begun and did not end", remedy="go on with --resume, or give another --run-id"
        )
    if {name: done.get(name) for name in note} != note:
        raise UsageError(
            f"run {run.run_id} was begun with other flags or other data",
            remedy="give the same ones, or another --run-id",
        )
    roller.restore(arrays)
    run.log.info("resumed after %d days", done["days"])
    return int(done["days"])


def _write(run: Run, made: Sequence[Schedule]) -> None:
    """Write the rows of consecutive chunks, and log their windows."""
    for name, table in TABLES:
        run.folder.append(table, pl.concat([getattr(chunk, name) for chunk in made], rechunk=True))
    for chunk in made:
        for row in chunk.windows.iter_rows(named=True):
            run.log.info("window to %d ms: %s %s", row["start_ns"] // 1_000_000, row["source"], row["reason"])


def _entries(windows: pl.DataFrame) -> list[dict[str, object]]:
    """poisson_schedule.json; raises DataError if no window could be fitted."""
    listed = entries(windows)
    if not listed:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in sorted(Counter(windows["reason"].to_list()).items()))
        raise DataError(
            f"none of {windows.height} windows could be fitted: {reasons}",
            remedy="try --deltas auto, a longer --train-window-min or a smaller --min-exposure-s",
        )
    return listed
