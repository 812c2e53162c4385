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
from mmlab.store.runs import RunFolder, default_run_id, open_log

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


@dataclass
class Run:
    """One run while it is being made; `step` times its parts and reports them."""

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

    def commit(self, spec: dict[str, Any], seed: int | None = None) -> Path:
        """Write the manifest and put the run's folder in place."""
        inputs = [
            {"day": f"{ref.day:%Y%m%d}", "venue": ref.venue, "condition": manifest.condition, "parts": parts(manifest)}
            for ref in self.refs
            for manifest in [self.lake.manifest(ref)]
        ]
        path = self.folder.commit(
            {
                "run_id": self.run_id,
                "kind": self.kind,
                "spec": {"symbol": self.job.symbol, "day": str(self.job.days), **spec},
                "instrument": asdict(self.instrument),
                "seed": seed,
                "inputs": inputs,
                "truth": self.lake.manifest(self.refs[0]).truth,
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
def begin(job: Job, kind: str, method: str | None, progress: Progress) -> Iterator[Run]:
    """Find the days, open the run's folder and log; a fault is logged before it goes on to the user."""
    lake = Lake(job.data_root)
    refs = lake.find(job.symbol, job.days, job.venue)
    instrument = lake.instrument(refs)
    if job.tick_size is not None:
        instrument = Instrument(instrument.venue, instrument.symbol, job.tick_size, instrument.lot_size)
    run_id = job.run_id or default_run_id(datetime.now(UTC))
    folder = RunFolder.create(job.out_root, kind, method, job.symbol, str(job.days), run_id)
    log_kind = f"{kind}/{method}" if method else kind
    log = open_log(job.log_root or job.out_root / "logs", log_kind, job.symbol, str(job.days), run_id, job.log_level)
    log.info("%s of %s %s from %s", log_kind, job.symbol, job.days, job.data_root)
    run = Run(job, run_id, log_kind, folder, log, refs, instrument, lake, progress)
    for ref in refs:
        manifest = lake.manifest(ref)
        if manifest.condition != "complete":
            run.warn(f"{ref.day:%Y%m%d} is {manifest.condition}: {'; '.join(manifest.reasons)}")
    try:
        yield run
    except Exception as error:
        log.error("stopped: %s", error)
        raise
    finally:
        folder.abort()  # whatever was not committed, also when the user interrupts
        for handler in list(log.handlers):
            handler.close()
            log.removeHandler(handler)
