"""Adding a journal segment's rows to the days they belong to: parts first, then the manifest that names them.

A part's name tells its segment, so a crash between the two is mended by doing it again: the same names are
written over, and a segment that the manifest lists is not added twice. The journal may go only after that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from mmlab.core.errors import LakeError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_S
from mmlab.core.table import Table
from mmlab.store.crash import step
from mmlab.store.journal_file import Segment
from mmlab.store.manifest import MANIFEST, Condition, DayManifest, DayRef, SegmentEntry, read_manifest, write_manifest
from mmlab.store.parts import Part, sync
from mmlab.store.writer import LakeWriter

SLACK_NS = 60 * NS_PER_S  # a recording that ends this close to its window's end has reached it


class SegmentWriter(LakeWriter):
    """Collects one symbol's rows of one segment; `add` puts them into their days."""

    def __init__(self, root: Path, instrument: Instrument, segment: Segment) -> None:
        super().__init__(root, instrument, segment.levels, True, {"command": "record"}, {})
        self._segment = segment
        self._staging = self._staging.with_name(f"{self._staging.name}-{segment.run_id}-{segment.index:05d}")

    def _part_name(self, n: int) -> str:
        return f"part-{self._segment.run_id}-{self._segment.index:05d}-{n:05d}.parquet"

    def append(self, table: Table, frame: pl.DataFrame, *, day: date | None = None) -> None:
        """Add rows, to the day of their receipt or to `day`."""
        super().append(table, frame, day=day)

    def add(self, entries: Mapping[date, SegmentEntry]) -> list[DayRef]:
        """Put the rows of every day in place and list the segment in its manifest; `entries` has every day."""
        for (day, _), pending in self._pending.items():
            self._flush(day, pending)
        refs = []
        for day, entry in sorted(entries.items()):
            tables = {name: p.parts for (d, name), p in sorted(self._pending.items()) if d == day}
            refs.append(self._add_to(day, tables, entry))
        self.abort()
        return refs

    def _add_to(self, day: date, tables: Mapping[str, list[Part]], entry: SegmentEntry) -> DayRef:
        target = self._day_path(day)
        target.mkdir(parents=True, exist_ok=True)
        sync(target.parent)
        ref = DayRef(self._instrument.venue, self._instrument.symbol, day, target)
        before = read_manifest(target) if (target / MANIFEST).exists() else None
        if before is not None and self._segment.name in before.segments:
            return ref
        for name, parts in tables.items():
            for part in parts:
                self._move(day, target, name, part)
        step("compact-parts")
        rows = {name: sum(part.rows for part in parts) for name, parts in tables.items()}
        made = self._merged(before, tables, replace_rows(entry, rows))
        write_manifest(target, made)
        step("compact-manifest")
        return ref

    def _move(self, day: date, target: Path, table: str, part: Part) -> None:
        """Check a staged part as a reader would see it, and give it its place."""
        staged = self._staging / f"day={day:%Y%m%d}" / table / part.file
        rows = pl.scan_parquet(staged, hive_partitioning=False).select(pl.len()).collect().item()
        if rows != part.rows or staged.stat().st_size != part.bytes:
            raise LakeError(
                f"{staged} has {rows} rows instead of {part.rows}", remedy="check the disk; the journal is kept"
            )
        (target / table).mkdir(exist_ok=True)
        step("compact-part")
        os.replace(staged, target / table / part.file)
        sync(target / table)

    def _merged(self, before: DayManifest | None, tables: Mapping[str, list[Part]], entry: SegmentEntry) -> DayManifest:
        """The day's manifest with this segment."""
        merged = {name: list(parts) for name, parts in (before.tables if before else {}).items()}
        for name, parts in tables.items():
            kept = [p for p in merged.get(name, []) if p.file not in {part.file for part in parts}]
            merged[name] = sorted([*kept, *parts], key=lambda part: part.file)
        segments = dict(before.segments if before else {}) | {self._segment.name: entry}
        segments = dict(sorted(segments.items(), key=lambda item: (item[1].first_ns, item[0])))
        reasons = reasons_of(segments)
        if before is not None and not before.segments:
            reasons.append(f"the day was there already, from {before.created_by.get('command', 'elsewhere')}")
        instrument = finer(before.instrument, self._instrument) if before else self._instrument
        pending = next(reversed(segments.values())).why in ("size", "filters")
        condition: Condition = "degraded" if reasons else "pending" if pending else "complete"
        return DayManifest(
            instrument, self._levels, dict(sorted(merged.items())), condition, reasons, self._created_by, {}, segments
        )


def replace_rows(entry: SegmentEntry, rows: dict[str, int]) -> SegmentEntry:
    """The entry with the rows that were written."""
    return SegmentEntry(
        entry.reasons, entry.records, entry.frames, entry.first_ns, entry.last_ns, entry.until_ns, entry.why, rows,
        entry.last_ids,
    )  # fmt: skip


def reasons_of(segments: Mapping[str, SegmentEntry]) -> list[str]:
    """Why a day is degraded, by all of its segments, in words; empty if it is not."""
    counts: dict[str, int] = {}
    for entry in segments.values():
        for why, n in entry.reasons.items():
            counts[why] = counts.get(why, 0) + n
    found = [f"{why}: {n}" for why, n in sorted(counts.items())]
    rows = [entry.rows for entry in segments.values()]
    if any(r.get("diffs") for r in rows) and not any(r.get("depth") for r in rows):
        found.append("no book: no update could be joined to a snapshot")
    last = max(segments.values(), key=lambda entry: entry.last_ns)
    if last.why in ("stop", "crash") and last.last_ns < last.until_ns - SLACK_NS:
        ended = datetime.fromtimestamp(last.last_ns // NS_PER_S, UTC)
        found.append(f"recording ended at {ended:%H:%M:%S} UTC, before its window did")
    return found


def finer(a: Instrument, b: Instrument) -> Instrument:
    """The filters on whose grid both lie, where they changed within a day."""
    tick, lot = (min(pair, key=Decimal) for pair in ((a.tick_size, b.tick_size), (a.lot_size, b.lot_size)))
    return replace(b, tick_size=tick, lot_size=lot)
