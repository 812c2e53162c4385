"""`mmlab check`: is a recorded day what it says? `mmlab rebuild`: derive it again from kept journals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import LakeError
from mmlab.core.spans import Days, parse_day
from mmlab.flows.compact import derive, journal_root, kept_segments
from mmlab.store.journal_file import SegmentReader
from mmlab.store.lake import DayRef, Lake
from mmlab.store.locks import Lock
from mmlab.store.manifest import MANIFEST, DayManifest, day_folder, read_manifest
from mmlab.store.parts import sha256, sync
from mmlab.tape.quality import Day, check_day, remarks

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Checked:
    """One day's bill: its condition and reasons as recorded, its holes, the faults and remarks found now."""

    ref: DayRef
    manifest: DayManifest
    gaps: pl.DataFrame
    faults: list[str]
    remarks: list[str]

    @property
    def condition(self) -> str:
        """A day with a fault is damaged, whatever its manifest says."""
        return "damaged" if self.faults else self.manifest.condition


def check(lake: Lake, refs: Sequence[DayRef], progress: Progress) -> list[Checked]:
    """Check days: checksums and table rules, ids, books against snapshots, clocks."""
    found = []
    for n, ref in enumerate(refs, 1):
        manifest = lake.manifest(ref)
        faults, strange = lake.verify(ref), []
        gaps = schemas.GAPS.empty()
        if not faults:
            names = ("diffs", "snapshots", "trades", "agg_trades", "events", "gaps")
            frames = {
                name: lake.read([ref], schemas.TABLES[name], schemas.TABLES[name].schema.names()) for name in names
            }
            depth = lake.read([ref], schemas.depth(manifest.levels), ("recv_ns", "recv_seq"))
            day = Day(manifest.instrument, depth, **frames)
            faults, strange = check_day(day), remarks(day)
            gaps = frames["gaps"]
        found.append(Checked(ref, manifest, gaps, faults, strange))
        progress("check", n, len(refs))
    return found


@dataclass(frozen=True)
class Rebuilt:
    """What a day looks like when it is derived again: which parts differ from those in the lake."""

    day: date
    segments: int
    parts: int
    differing: list[str]
    replaced: bool


def rebuild(data_root: Path, venue: str, symbol: str, day: date, replace: bool) -> Rebuilt:
    """Derive a day from its kept journals; put it in place of the one in the lake if asked to.

    Raises LakeError if the journals of the day are not all there, UsageError while it is being recorded.
    """
    wanted = [(p, s) for p, s in kept_segments(data_root, venue, symbol)
              if parse_day(s.day) in (day, day + timedelta(days=1))]  # fmt: skip
    own = {segment.name for _, segment in wanted if parse_day(segment.day) == day}
    target = day_folder(data_root, venue, symbol, day)
    manifest = read_manifest(target) if (target / MANIFEST).exists() else None
    recorded = {name for name, entry in (manifest.segments if manifest else {}).items() if entry.why != "later"}
    if not own or recorded - own:
        lacking = ", ".join(sorted(recorded - own)) or "all of them"
        raise LakeError(
            f"{symbol} {day:%Y%m%d}: journals are missing under {journal_root(data_root, venue)}: {lacking}",
            remedy="only days recorded with --keep-raw can be derived again",
        )
    with (
        Lock(target.parent / ".recorder.lock", f"{venue} {symbol}"),
        TemporaryDirectory(dir=target.parent, prefix=".rebuild-") as folder,
    ):
        for path, segment in wanted:
            derive(SegmentReader(path), segment, Path(folder))
        made = day_folder(Path(folder), venue, symbol, day)
        fresh = read_manifest(made)
        differing = _differences(fresh, manifest, target)
        if replace and differing:
            _swap(made, target, Path(folder))
    parts = sum(len(listed) for listed in fresh.tables.values())
    return Rebuilt(day, len(own), parts, differing, replace and bool(differing))


def _differences(fresh: DayManifest, manifest: DayManifest | None, target: Path) -> list[str]:
    """Names of parts that are not in the lake byte for byte as they are derived now; manifest.json too."""
    found = []
    for table, listed in fresh.tables.items():
        for part in listed:
            path = target / table / part.file
            if not path.exists() or sha256(path) != part.sha256:
                found.append(f"{table}/{part.file}")
    known = {f"{t}/{p.file}" for t, listed in (manifest.tables if manifest else {}).items() for p in listed}
    found += sorted(known - {f"{t}/{p.file}" for t, listed in fresh.tables.items() for p in listed})
    if manifest != fresh:
        found.append(MANIFEST)
    return found


def _swap(made: Path, target: Path, folder: Path) -> None:
    """Put the derived day in place; the old one goes with the temporary folder."""
    if target.exists():
        shutil.move(target, folder / "old")
    made.rename(target)
    sync(target.parent)


def day_refs(lake: Lake, symbol: str, text: str | None, venue: str | None) -> list[DayRef]:
    """The days asked for; all of the symbol's, if none are named. Raises LakeError, UsageError."""
    if text is not None:
        return lake.find(symbol, Days.parse(text), venue)
    refs = lake.days(venue, symbol)
    if not refs:
        raise LakeError(f"no data for {symbol} under {lake.root}", remedy="record or import some")
    return refs
