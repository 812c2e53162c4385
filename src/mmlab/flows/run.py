"""What every run over the lake has in common: the job, its folder, its log, its timings and its manifest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmlab.core.instrument import Instrument
from mmlab.core.spans import Days
from mmlab.store.lake import DayRef, Lake
from mmlab.store.runs import RunFolder, free_run_id, open_log

Progress = Callable[[str, int, int], None]  # (what, done, of how many)


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Job:
    """Which days of which symbol, where they lie, and where the outputs go."""

    symbol: str
    days: Days
    venue: str | None = None
    data_root: Path = Path("data")
    out_root: Path = Path("out")
    log_root: Path | None = None
    log_level: str = "INFO"
    run_id: str | None = None
    tick_size: str | None = None


class Steps:
    """What every run notes while it is made: how long its parts took, and what the user should know."""

    log: logging.Logger
    timings_s: dict[str, float]
    warnings: list[str]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one part of the run under `name`."""
        began = time.perf_counter()
        yield
        self.timings_s[name] = round(time.perf_counter() - began, 6)
        self.log.info("%s took %.3f s", name, self.timings_s[name])

    def warn(self, text: str) -> None:
        """Say something that the user should know, in the log, the manifest and on the terminal."""
        self.warnings.append(text)
        self.log.warning(text)


@dataclass
class Run(Steps):
    """One run over days of the lake while it is being made; `step` times its parts and reports them."""

    job: Job
    run_id: str
    kind: str
    folder: RunFolder
    log: logging.Logger
    refs: list[DayRef]
    instrument: Instrument
    lake: Lake
    progress: Progress
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    also: list[DayRef] = field(default_factory=list)  # days before the job's that were read too

    def use(self, refs: list[DayRef]) -> None:
        """Note days that are read beside the job's own, and say what is wrong with them."""
        self.also += refs
        self.note_conditions(refs)

    def note_conditions(self, refs: list[DayRef]) -> None:
        """Warn of days that are not complete."""
        for ref in refs:
            manifest = self.lake.manifest(ref)
            if manifest.condition != "complete":
                self.warn(f"{ref.day:%Y%m%d} is {manifest.condition}: {'; '.join(manifest.reasons)}")

    def inputs(self) -> list[dict[str, Any]]:
        """Every day that was read, with its condition and the checksums of its parts."""
        return [
            {"day": f"{ref.day:%Y%m%d}", "venue": ref.venue, "condition": manifest.condition, "parts": parts(manifest)}
            for ref in (*self.also, *self.refs)
            for manifest in [self.lake.manifest(ref)]
        ]

    def commit(self, spec: dict[str, Any], seed: int | None = None) -> Path:
        """Write the manifest and put the run's folder in place."""
        path = self.folder.commit(
            {
                "run_id": self.run_id,
                "kind": self.kind,
                "spec": {"symbol": self.job.symbol, "day": str(self.job.days), **spec},
                "instrument": asdict(self.instrument),
                "seed": seed,
                "inputs": self.inputs(),
                "truth": self.lake.manifest(self.refs[0]).truth if self.refs else {},
                "timings_s": self.timings_s,
                "warnings": self.warnings,
            }
        )
        self.log.info("wrote %s", path)
        return path


def parts(manifest: Any) -> dict[str, str]:
    """Checksum of every part of a day, by `table/file`."""
    return {f"{name}/{part.file}": part.sha256 for name, made in manifest.tables.items() for part in made}


@contextmanager
def begin(
    job: Job, kind: str, method: str | None, progress: Progress,
    *, resumable: bool = False, instrument: Instrument | None = None,
) -> Iterator[Run]:  # fmt: skip
    """Find the days, open the run's folder and log; a fault is logged before it goes on to the user.

    With an `instrument` from elsewhere the days may be missing: `refs` are then empty.
    """
    lake = Lake(job.data_root)
    if instrument is None:
        refs = lake.find(job.symbol, job.days, job.venue)
        instrument = lake.instrument(refs)
    else:
        refs = lake.find_any(job.symbol, job.days, job.venue)
    if job.tick_size is not None:
        instrument = Instrument(instrument.venue, instrument.symbol, job.tick_size, instrument.lot_size)
    place = (job.out_root, kind, method, job.symbol, str(job.days))
    run_id = job.run_id or free_run_id(*place, datetime.now(UTC))
    folder = RunFolder.create(*place, run_id, resumable)
    log_kind = f"{kind}/{method}" if method else kind
    log_root = job.log_root or job.out_root / "logs"
    with logged(folder, log_root, log_kind, job.symbol, str(job.days), run_id, job.log_level) as log:
        log.info("%s of %s %s from %s", log_kind, job.symbol, job.days, job.data_root)
        run = Run(job, run_id, log_kind, folder, log, refs, instrument, lake, progress)
        run.note_conditions(refs)
        yield run


@contextmanager
def logged(
    folder: RunFolder, log_root: Path, kind: str, symbol: str, day: str, run_id: str, level: str
) -> Iterator[logging.Logger]:
    """A run's own log; a fault is written there before it goes on, and what was not committed is taken away."""
    try:
        log = open_log(log_root, kind, symbol, day, run_id, level)
    except BaseException:
        folder.abort()
        raise
    try:
        yield log
    except Exception as error:
        log.error("stopped: %s", error)
        raise
    finally:
        folder.abort()  # whatever was not committed, also when the user interrupts
        for handler in list(log.handlers):
            handler.close()
            log.removeHandler(handler)
