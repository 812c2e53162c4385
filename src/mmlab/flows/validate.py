"""`mmlab calibrate validate`: a schedule's fits, each judged on the step after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mmlab.calib.validation import validate
from mmlab.core import schemas
from mmlab.core.errors import LakeError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import Days
from mmlab.flows.own_orders import Source
from mmlab.flows.run import Job, Progress, begin, no_progress
from mmlab.store.runs import find_run, read_json, read_table


@dataclass(frozen=True)
class ValidateResult:
    """Where the run lies, the scores, and the verdict in one line."""

    path: Path
    scores: pl.DataFrame
    stability: pl.DataFrame
    verdict: str
    warnings: list[str]


def calibrate_validate(source: Source, progress: Progress = no_progress) -> ValidateResult:
    """Judge a run of `calibrate schedule` or `walkforward`; raises LakeError for a run that has no schedule."""
    place = find_run(source.out_root, source.run)
    manifest = read_json(place / "manifest.json")
    tables = [read_table(place, table) for table in (schemas.POINTS, schemas.FITS, schemas.WINDOWS)]
    points, fits, windows = tables
    if points is None or fits is None or windows is None:
        raise LakeError(f"{place} has no schedule", remedy="give a run of mmlab calibrate schedule or walkforward")
    spec = manifest["spec"]
    job = Job(
        spec["symbol"], Days.parse(spec["day"]), (manifest.get("inputs") or [{}])[0].get("venue"),
        source.data_root, source.out_root, source.log_root, run_id=source.run_id,
    )  # fmt: skip
    with begin(job, "calibration", "validate", progress, instrument=Instrument(**manifest["instrument"])) as run:
        with run.step("validate"):
            found = validate(points, fits, windows, nested=not spec.get("calibration", spec).get("cycle", False))
        run.log.info("%s", found.verdict)
        named = ((schemas.VALIDATION, found.steps), (schemas.SCORES, found.scores))
        for table, frame in (*named, (schemas.STABILITY, found.stability)):
            run.folder.write_table(table, frame)
        path = run.commit({"method": "validate", "of": str(place), "verdict": found.verdict})
        return ValidateResult(path, found.scores, found.stability, found.verdict, run.warnings)
