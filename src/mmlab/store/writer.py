"""Writing whole days: staged beside the lake's own folders, checked, and put in place by a rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from mmlab.core.errors import UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_DAY, day_of_ns
from mmlab.core.table import Table
from mmlab.store.manifest import DayManifest, DayRef, day_folder, write_manifest
from mmlab.store.parts import Part, sync, write_part

PART_ROWS = 1_000_000
TIME_COLUMNS = ("recv_ns", "from_ns", "open_ns", "ts_ns")


@dataclass
class _Pending:
    """Rows of one table and day that are not yet in a part, and the parts already written."""

    table: Table
    frames: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    parts: list[Part] = field(default_factory=list)
    last: pl.DataFrame | None = None  # the last row written, to check the order across parts


class LakeWriter:
    """Collects tables of one symbol by UTC day; nothing is seen in the lake before `commit`."""

    def __init__(
        self,
        root: Path,
        instrument: Instrument,
        levels: int,
        replace: bool,
        created_by: dict[str, Any],
        truth: dict[str, Any],
    ) -> None:
        self._root, self._instrument, self._levels = root, instrument, levels
        self._replace, self._created_by, self._truth = replace, created_by, truth
        self._pending: dict[tuple[date, str], _Pending] = {}
        self._symbol_folder = day_folder(root, instrument.venue, instrument.symbol, date(1970, 1, 1)).parent
        self._staging = self._symbol_folder / f".staging-{os.getpid()}"

    def __enter__(self) -> Self:
        remove_dead_staging(self._symbol_folder)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.abort()

    def append(self, table: Table, frame: pl.DataFrame, *, day: date | None = None) -> None:
        """Add rows; they go to the UTC day of their first time column, or to `day` where there is none.

        Raises UsageError at the first row of a day that the lake already has, unless replacing.
        """
        frame = table.conform(frame)
        if frame.is_empty():
            return
        if day is not None:
            self._add(day, table, frame)
            return
        time = next(name for name in TIME_COLUMNS if name in frame.columns)
        number = pl.col(time) // NS_PER_DAY
        low, high = frame.select(number.min().alias("low"), number.max().alias("high")).row(0)
        for n in range(low, high + 1):
            rows = frame if low == high else frame.filter(number == n)
            if not rows.is_empty():
                self._add(day_of_ns(n * NS_PER_DAY), table, rows)

    def _add(self, day: date, table: Table, frame: pl.DataFrame) -> None:
        target = self._day_path(day)
        if target.exists() and not self._replace:
            raise UsageError(
                f"{self._instrument.symbol} {day:%Y%m%d} is in the lake already, in {target}",
                remedy="give --replace to replace the whole day, or another --data-root",
            )
        pending = self._pending.setdefault((day, table.name), _Pending(table))
        pending.frames.append(frame)
        pending.rows += frame.height
        if pending.rows >= PART_ROWS:
            self._flush(day, pending)

    def _flush(self, day: date, pending: _Pending) -> None:
        """Check the rows collected, with the last one before them, and write them as a part."""
        if not pending.frames:
            return
        frame, table = pl.concat(pending.frames), pending.table
        joined = frame if pending.last is None else pl.concat([pending.last, frame])
        table.check(joined, f"{self._instrument.symbol} {day:%Y%m%d}")
        folder = self._staging / f"day={day:%Y%m%d}" / table.name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._part_name(len(pending.parts))
        pending.parts.append(write_part(path, frame, counters=table.counters))
        pending.frames, pending.rows, pending.last = [], 0, frame.tail(1)

    def _part_name(self, n: int) -> str:
        return f"part-{n:05d}.parquet"

    def commit(self, reasons: Mapping[date, Sequence[str]] | None = None) -> list[DayRef]:
        """Write what is left, then put every day in place; a day with reasons is degraded."""
        for (day, _), pending in self._pending.items():
            self._flush(day, pending)
        days = sorted({day for day, _ in self._pending})
        for day in days:
            self._write_manifest(day, list((reasons or {}).get(day, ())))
        refs = [DayRef(self._instrument.venue, self._instrument.symbol, day, self._place(day)) for day in days]
        self.abort()
        return refs

    def _write_manifest(self, day: date, reasons: list[str]) -> None:
        tables = {name: pending.parts for (d, name), pending in sorted(self._pending.items()) if d == day}
        manifest = DayManifest(
            self._instrument, self._levels, tables, "degraded" if reasons else "complete", reasons,
            self._created_by, self._truth,
        )  # fmt: skip
        write_manifest(self._staging / f"day={day:%Y%m%d}", manifest)

    def _place(self, day: date) -> Path:
        """Swap the finished folder in; the old one is moved aside first, and deleted last."""
        target, made = self._day_path(day), self._staging / f"day={day:%Y%m%d}"
        aside = self._staging / f"old-{day:%Y%m%d}"
        if target.exists():
            os.replace(target, aside)
        os.replace(made, target)
        sync(self._symbol_folder)
        return target

    def _day_path(self, day: date) -> Path:
        return day_folder(self._root, self._instrument.venue, self._instrument.symbol, day)

    def abort(self) -> None:
        """Forget everything that is not in place."""
        shutil.rmtree(self._staging, ignore_errors=True)
        self._pending.clear()


def remove_dead_staging(symbol_folder: Path) -> None:
    """Remove what writers left behind that are no longer alive."""
    for left in symbol_folder.glob(".staging-*"):
        pid = left.name.partition("-")[2].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
