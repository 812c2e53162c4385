"""The lake: `data/venue=V/symbol=S/day=D/<table>/part-*.parquet`, found, read with checks, and verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core.errors import LakeError, MmlabError, TableError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import TABLES, TRADES, depth
from mmlab.core.spans import Days, parse_day
from mmlab.core.table import Table
from mmlab.store.manifest import MANIFEST, DayManifest, DayRef, day_folder, read_manifest, symbol_of
from mmlab.store.parts import sha256
from mmlab.store.writer import LakeWriter


@dataclass(frozen=True)
class Lake:
    """All recorded days under one root."""

    root: Path

    def days(self, venue: str | None = None, symbol: str | None = None) -> list[DayRef]:
        """Every whole day, in order of venue, symbol and day."""
        return [
            DayRef(v, s, parse_day(folder.name.partition("=")[2]), folder)
            for folder in sorted(self.root.glob("venue=*/symbol=*/day=*"))
            if (folder / MANIFEST).exists()
            for v, s in [(folder.parent.parent.name.partition("=")[2], symbol_of(folder.parent))]
            if venue in {None, v} and symbol in {None, s}
        ]

    def find(self, symbol: str, days: Days, venue: str | None = None) -> list[DayRef]:
        """The days of a range, all of them; raises LakeError naming those that are missing."""
        known = self.days(venue, symbol)
        venues = sorted({ref.venue for ref in known})
        if len(venues) > 1:
            raise UsageError(f"{symbol} is at {' and '.join(venues)}", remedy=f"choose one: --venue {venues[0]}")
        by_day = {ref.day: ref for ref in known}
        missing = [f"{day:%Y%m%d}" for day in days if day not in by_day]
        if missing:
            raise LakeError(
                f"no data for {symbol} on {', '.join(missing)} under {self.root}", remedy=self._what(symbol)
            )
        return [by_day[day] for day in days]

    def find_any(self, symbol: str, days: Days, venue: str | None = None) -> list[DayRef]:
        """The days of a range if all of them are here, else none."""
        by_day = {ref.day: ref for ref in self.days(venue, symbol)}
        return [by_day[day] for day in days] if all(day in by_day for day in days) else []

    def _what(self, symbol: str) -> str:
        """What there is instead."""
        own = [f"{ref.day:%Y%m%d}" for ref in self.days(symbol=symbol)]
        if own:
            return f"there are {symbol} days {', '.join(own[-10:])}"
        others = sorted({ref.symbol for ref in self.days()})
        return (
            f"the lake has {', '.join(others[:10])}" if others else "the lake is empty: use mmlab import or mmlab synth"
        )

    def manifest(self, ref: DayRef) -> DayManifest:
        """The day's manifest."""
        return read_manifest(ref.path)

    def instrument(self, refs: Sequence[DayRef]) -> Instrument:
        """The instrument, if its filters are the same on all days; raises LakeError otherwise."""
        found = {ref.day: self.manifest(ref).instrument for ref in refs}
        first = found[refs[0].day]
        for day, instrument in found.items():
            if instrument != first:
                raise LakeError(
                    f"filters changed on {day:%Y%m%d}: tick size {first.tick_size} to {instrument.tick_size}, "
                    f"lot size {first.lot_size} to {instrument.lot_size}",
                    remedy="run the days before and after apart",
                )
        return first

    def scan(self, refs: Sequence[DayRef], table: Table, columns: Sequence[str]) -> pl.LazyFrame:
        """Columns of a table over days, in stored order, from the parts that the manifests name.

        Raises LakeError naming a part that is missing, torn or of another length, and TableError naming
        the column that is missing or of another type.
        """
        wanted = {name: table.schema[name] for name in columns}
        paths = [path for ref in refs for path in self._checked(ref, table, wanted)]
        if not paths:
            return pl.LazyFrame(schema=wanted)
        return pl.scan_parquet(paths, hive_partitioning=False, extra_columns="ignore").select(columns)

    def read(
        self, refs: Sequence[DayRef], table: Table, columns: Sequence[str], *, require_rows: bool = False
    ) -> pl.DataFrame:
        """`scan`, collected; with `require_rows`, LakeError if there are none."""
        frame = _collect(self.scan(refs, table, columns), table)
        if require_rows and frame.is_empty():
            days = ", ".join(f"{ref.day:%Y%m%d}" for ref in refs)
            raise LakeError(f"table {table.name!r} of {refs[0].symbol} {days} is empty", remedy="import it again")
        return frame

    def live_prints(self, refs: Sequence[DayRef], columns: Sequence[str], *, require_rows: bool = True) -> pl.DataFrame:
        """Columns of `trades` as they were received live; with `require_rows`, LakeError if there are none.

        Prints that a recorder filled in by REST are left out: they came when they were asked for, not when
        they happened, and the stretch that they belong to is a declared hole.
        """
        if not any(self.manifest(ref).segments for ref in refs):
            return self.read(refs, TRADES, columns, require_rows=require_rows)
        frame = _collect(_live(self.scan(refs, TRADES, (*columns, "source")), columns), TRADES)
        if frame.is_empty() and require_rows:
            raise LakeError(f"no trade of {refs[0].symbol} was received live on these days", remedy="see mmlab check")
        return frame

    def live_prints_in_pieces(self, ref: DayRef, columns: Sequence[str], rows: int) -> Iterator[pl.DataFrame]:
        """`live_prints` of one day, in pieces that were read from up to `rows` rows; some may be empty."""
        recorded = bool(self.manifest(ref).segments)
        lazy = self.scan([ref], TRADES, (*columns, "source") if recorded else columns)
        start = 0
        for part in self.manifest(ref).tables.get(TRADES.name, []):
            for first in range(0, part.rows, rows):
                piece = lazy.slice(start + first, min(rows, part.rows - first))
                yield _collect(_live(piece, columns) if recorded else piece, TRADES)
            start += part.rows

    def ends(self, refs: Sequence[DayRef], table: Table, from_ns: int) -> tuple[int, int] | None:
        """Receive times of the first row at or after `from_ns` and of the last one; None if there is no such row."""
        times = self.scan(refs, table, ("recv_ns",))
        first, last = (
            _collect(end, table) for end in (times.filter(pl.col("recv_ns") >= from_ns).head(1), times.tail(1))
        )
        return None if first.is_empty() else (int(first.item()), int(last.item()))

    def _checked(self, ref: DayRef, table: Table, wanted: Mapping[str, Any]) -> Iterator[Path]:
        """The day's parts of a table, each with the right columns and length by its footer."""
        for part in self.manifest(ref).tables.get(table.name, []):
            path = ref.path / table.name / part.file
            schema, rows = footer(path)
            faults = [
                f"missing column {name!r}" if name not in schema else f"column {name!r} is {schema[name]}, not {dtype}"
                for name, dtype in wanted.items()
                if schema.get(name) != dtype
            ]
            if faults:
                raise TableError(f"table {table.name!r} in {path}: {'; '.join(faults)}", remedy="import the day again")
            if rows != part.rows:
                raise LakeError(f"{path} has {rows} rows, its manifest says {part.rows}", remedy=TORN)
            yield path

    def verify(self, ref: DayRef) -> list[str]:
        """Every fault of a day: checksums, schemas, rules; an empty list is a clean bill."""
        manifest, faults = self.manifest(ref), []
        for name, made in manifest.tables.items():
            table = depth(manifest.levels) if name == "depth" else TABLES[name]
            for part in made:
                path = ref.path / name / part.file
                try:
                    footer(path)
                    if sha256(path) != part.sha256:
                        faults.append(f"{path}: checksum differs from the manifest's")
                    table.check(pl.read_parquet(path, hive_partitioning=False), str(path))
                except MmlabError as error:
                    faults.append(error.message)
                except pl.exceptions.PolarsError as error:
                    faults.append(f"{path} is torn: {str(error).splitlines()[0]}")
        return faults

    def writer(
        self,
        instrument: Instrument,
        *,
        levels: int,
        replace: bool,
        created_by: Mapping[str, Any],
        truth: Mapping[str, Any] | None = None,
    ) -> LakeWriter:
        """A writer of whole days of one symbol; use it in a `with`, and `commit` at the end."""
        return LakeWriter(self.root, instrument, levels, replace, dict(created_by), dict(truth or {}))


def _live(lazy: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    return lazy.filter(pl.col("source") == "ws").select(columns)


def _collect(lazy: pl.LazyFrame, table: Table) -> pl.DataFrame:
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LakeError(f"table {table.name!r} cannot be read: {error}", remedy=TORN) from error


TORN = "the file is not the one that was written: import the day again"


def footer(path: Path) -> tuple[pl.Schema, int]:
    """Columns and row count of a Parquet file, from its footer; raises LakeError naming a torn file."""
    try:
        lazy = pl.scan_parquet(path, hive_partitioning=False)
        return lazy.collect_schema(), lazy.select(pl.len()).collect().item()
    except FileNotFoundError:
        raise LakeError(f"{path} is missing, though its manifest names it", remedy=TORN) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LakeError(f"{path} is torn: {str(error).splitlines()[0]}", remedy=TORN) from None


__all__ = ["DayManifest", "DayRef", "Lake", "LakeWriter", "day_folder", "footer"]
