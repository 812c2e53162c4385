"""Candles and settlements in the lake: `venue=V/symbol=S/interval=15m/month=YYYYMM/bars`, read and merged by time.

They do not live in the folders of recorded days, which are derived from journals and made again: a candle
is imported, fetched, or made from trades, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import polars as pl

from mmlab.core.errors import DataError, LakeError, TableError, UsageError
from mmlab.core.intervals import FUNDING as SETTLED
from mmlab.core.intervals import interval_text, parse_interval, utc_text
from mmlab.core.schemas import BARS, FUNDING
from mmlab.core.spans import NS_PER_S
from mmlab.core.table import Table
from mmlab.store.locks import Lock
from mmlab.store.months import Month

IMPORT = {"bars": "mmlab import klines FILE..., mmlab fetch klines or mmlab bars puts candles there",
          "funding": "mmlab import funding FILE... or mmlab fetch funding puts settlements there"}  # fmt: skip


class AbsentError(LakeError):
    """There is nothing of that kind in the lake, or nothing in that stretch of time."""


@dataclass(frozen=True)
class Written:
    """What a write did. `completed` rows were there and gained what they lacked (a null that is known now)."""

    months: tuple[str, ...]  # those that the rows belong to, `202401`
    new: int
    same: int
    replaced: int
    completed: int = 0


@dataclass(frozen=True)
class Series:
    """One symbol's candles of one length, or its settlements (`interval` is then `funding`)."""

    venue: str
    symbol: str
    interval: str
    first_ns: int
    last_ns: int  # of the last row: a candle's start
    rows: int
    parts: Mapping[str, str]  # month -> checksum of its part


@dataclass(frozen=True)
class Candles:
    """All candles and settlements under one root."""

    root: Path

    def bars(
        self, symbol: str, interval: str, start_ns: int | None = None, end_ns: int | None = None,
        venue: str | None = None,
    ) -> pl.DataFrame:  # fmt: skip
        """Rows of BARS that start in [start_ns, end_ns), by time; candles that are not there are not made up.

        Raises AbsentError (a LakeError) if there is none, LakeError naming a file that is torn, UsageError for
        an interval that is none and for a symbol at two venues.
        """
        return self._read(BARS, symbol, interval_text(parse_interval(interval)), start_ns, end_ns, venue)

    def funding(
        self, symbol: str, start_ns: int | None = None, end_ns: int | None = None, venue: str | None = None
    ) -> pl.DataFrame:
        """Rows of FUNDING settled in [start_ns, end_ns), by time; raises as `bars` does."""
        return self._read(FUNDING, symbol, SETTLED, start_ns, end_ns, venue)

    def _read(
        self, table: Table, symbol: str, interval: str, start_ns: int | None, end_ns: int | None, venue: str | None
    ) -> pl.DataFrame:
        folder = self._find(table, symbol, interval, venue)
        key = table.key[0]
        months = [
            month
            for month in _months(folder, table)
            if (start_ns is None or month.name >= month_of(start_ns))
            and (end_ns is None or month.name <= month_of(end_ns))
        ]
        frames = [frame for month in months if (frame := month.read()) is not None]
        rows = pl.concat([table.empty(), *frames])
        if start_ns is not None or end_ns is not None:
            low, high = pl.lit(start_ns or 0), pl.lit(2**63 - 1 if end_ns is None else end_ns)
            rows = rows.filter((pl.col(key) >= low) & (pl.col(key) < high))
        if rows.is_empty():
            since = "" if start_ns is None else f" from {utc_text(start_ns)}"
            until = "" if end_ns is None else f" to {utc_text(end_ns)}"
            raise AbsentError(
                f"no {_what(interval)} of {symbol}{since}{until} under {self.root}", remedy=self._instead(table, symbol)
            )
        return rows

    def _find(self, table: Table, symbol: str, interval: str, venue: str | None) -> Path:
        """The one folder of a series; raises AbsentError, UsageError."""
        name = f"symbol={quote(symbol, safe='')}/interval={interval}"
        found = [
            folder for folder in sorted(self.root.glob(f"venue=*/{name}"))
            if venue in {None, folder.parent.parent.name.partition("=")[2]} and _months(folder, table)
        ]  # fmt: skip
        if not found:
            at = f" at {venue}" if venue else ""
            raise AbsentError(
                f"no {_what(interval)} of {symbol}{at} under {self.root}", remedy=self._instead(table, symbol)
            )
        if len(found) > 1:
            venues = [folder.parent.parent.name.partition("=")[2] for folder in found]
            raise UsageError(f"{symbol} is at {' and '.join(venues)}", remedy=f"choose one: --venue {venues[0]}")
        return found[0]

    def _instead(self, table: Table, symbol: str) -> str:
        """What there is instead, by the folders' names; and how to get what there is not."""
        seen = []
        for folder in self._folders():
            own = BARS if folder.name != f"interval={SETTLED}" else FUNDING
            months = [month.name for month in _months(folder, own)]
            if months and own is table:
                interval, of = folder.name.partition("=")[2], unquote(folder.parent.name.partition("=")[2])
                at = folder.parent.parent.name.partition("=")[2]
                span = months[0] if len(months) == 1 else f"{months[0]} to {months[-1]}"
                seen.append((of != symbol, f"{_what(interval)} of {of} at {at}, {span}"))
        listed = [text for _, text in sorted(seen)][:5]
        return (f"there are {'; '.join(listed)}; " if listed else "") + IMPORT[table.name]

    def _folders(self) -> list[Path]:
        return sorted(self.root.glob("venue=*/symbol=*/interval=*"))

    def intervals(self, symbol: str | None = None) -> list[Series]:
        """Every series (of one symbol), in order of venue, symbol and interval; raises LakeError naming a torn file."""
        found = []
        for folder in self._folders():
            of = unquote(folder.parent.name.partition("=")[2])
            table = FUNDING if folder.name == f"interval={SETTLED}" else BARS
            if symbol in {None, of}:
                made = [content[0] for month in _months(folder, table) if (content := month.content())]
                if made:
                    parts = {manifest.month: manifest.part.sha256 for manifest in made}
                    rows = sum(manifest.part.rows for manifest in made)
                    first, last = made[0], made[-1]
                    found.append(
                        Series(first.venue, of, first.interval, first.first_ns, last.last_ns, rows, parts)
                    )  # fmt: skip
        return found

    def write(
        self, table: Table, venue: str, symbol: str, interval: str, frame: pl.DataFrame, *, replace: bool,
        source: Mapping[str, Any] | Callable[[str], Mapping[str, Any]],
    ) -> Written:  # fmt: skip
        """Merge rows of `table` into a series by their time; `source` is noted in each month that they change.

        `source` may also be a function of the month, `202401`, where months come from different places.

        A row that equals a stored one is there already; one that knows what the stored one has as null
        completes it; one that contradicts it is refused, unless `replace`: then the new one counts. Nothing
        is written if any row is refused. Each month is swapped in whole; writers of one series wait for
        each other. Raises DataError naming the first contradiction with both values, TableError for rows
        that break the contract or lie off the interval's grid, LakeError for a stored month that is torn.
        """
        folder = self.folder(table, venue, symbol, interval)
        interval = folder.name.partition("=")[2]
        key = table.key[0]
        rows = table.conform(frame).sort(key)
        table.check(rows, f"{_what(interval)} of {symbol}")
        if table is BARS:
            _on_grid(rows, interval, symbol)
        if rows.is_empty():
            return Written((), 0, 0, 0)
        about = (venue, symbol, interval)
        with Lock(folder / ".lock", f"{_what(interval)} of {symbol}", wait=True):
            merged: list[tuple[Month, Merged]] = []
            for (name,), part in rows.group_by(month_column(key), maintain_order=True):
                month = Month(folder / f"month={name}", table)
                if month.folder.exists():
                    month.recover()
                merged.append((month, merge(table, month.read(), part)))
            if not replace:
                for month, made in merged:
                    made.refuse(table, f"{_what(interval)} of {symbol} in {month.folder}")
            for month, made in merged:
                if made.changed:
                    before = month.content()
                    came_from = source(month.name) if callable(source) else source
                    sources = (before[0].sources if before else []) + [dict(came_from)]
                    month.write(made.rows, key, about, _distinct(sources))
        counts = [sum(getattr(made, name) for _, made in merged) for name in ("new", "same", "replaced", "completed")]
        return Written(tuple(month.name for month, _ in merged), *counts)

    def folder(self, table: Table, venue: str, symbol: str, interval: str) -> Path:
        """Where a series lies, written or not; raises UsageError for a name or an interval that cannot be meant."""
        if not symbol or not re.fullmatch(r"[\w.-]+", venue):
            raise UsageError(f"symbol {symbol!r} at venue {venue!r} has no place in a lake", remedy="give both a name")
        if (table is FUNDING) != (interval == SETTLED):
            raise UsageError(f"{table.name} have no interval {interval!r}", remedy="settlements are stored as funding")
        text = interval if table is FUNDING else interval_text(parse_interval(interval))
        return self.root / f"venue={venue}" / f"symbol={quote(symbol, safe='')}" / f"interval={text}"


@dataclass(frozen=True)
class Merged:
    """A month's rows after a merge, how many were what, and the first contradiction: stored row, new row."""

    rows: pl.DataFrame
    new: int
    same: int
    replaced: int
    completed: int
    contradiction: tuple[dict[str, Any], dict[str, Any]] | None

    @property
    def changed(self) -> bool:
        """True if the rows are not those that are stored."""
        return self.new + self.replaced + self.completed > 0

    def refuse(self, table: Table, where: str) -> None:
        """Raise DataError if a row contradicts a stored one."""
        if self.contradiction is None:
            return
        stored, given = self.contradiction
        key = table.key[0]
        told = [
            f"{name} is {stored[name]!r} in the lake, {given[name]!r} in the new row"
            for name in stored
            if name != key and None not in (stored[name], given[name]) and stored[name] != given[name]
        ]
        raise DataError(
            f"{self.replaced:,} rows contradict {where}: the first, at {utc_text(given[key])}, {'; '.join(told)}",
            remedy="check the symbol, the venue and the file; --replace takes the new rows instead",
        )


def merge(table: Table, stored: pl.DataFrame | None, given: pl.DataFrame) -> Merged:
    """`given` into `stored`, both sorted by the table's key and unique in it; contradictions go to the new row."""
    if stored is None:
        return Merged(given, given.height, 0, 0, 0, None)
    key = table.key[0]
    values = [name for name in table.schema if name != key]
    both = given.join(stored.with_columns(_known=True), on=key, how="left", suffix="_old", maintain_order="left")
    was = {name: pl.col(f"{name}_old") for name in values}
    known = pl.col("_known").fill_null(False)
    # a null says nothing: it neither contradicts a value nor takes its place
    clash = known & pl.any_horizontal((pl.col(name) != was[name]).fill_null(False) for name in values)
    gains = known & ~clash & pl.any_horizontal(was[name].is_null() & pl.col(name).is_not_null() for name in values)
    both = both.with_columns(_clash=clash, _gains=gains, _known=known)
    new, replaced, completed = (both.filter(x).height for x in (~pl.col("_known"), pl.col("_clash"), pl.col("_gains")))
    taken = both.select(
        key, *(pl.when(pl.col("_clash")).then(pl.col(n)).otherwise(pl.coalesce(n, was[n])).alias(n) for n in values)
    )
    kept = stored.join(given.select(key), on=key, how="anti", maintain_order="left")
    rows = pl.concat([kept, taken]).sort(key)
    first = both.filter("_clash").head(1)
    clashing = None
    if first.height:
        at = first[key][0]
        clashing = (
            stored.row(by_predicate=pl.col(key) == at, named=True),
            first.select(table.schema.names()).row(0, named=True),
        )
    return Merged(rows, new, given.height - new - replaced - completed, replaced, completed, clashing)


def month_of(ns: int) -> str:
    """The UTC month of an instant, `202401`."""
    return f"{datetime.fromtimestamp(ns // NS_PER_S, UTC):%Y%m}"


def month_column(name: str) -> pl.Expr:
    """The UTC month of a column of instants, `202401`."""
    return pl.from_epoch(pl.col(name), "ns").dt.strftime("%Y%m").alias("month")


def _months(folder: Path, table: Table) -> list[Month]:
    """Month folders that hold something of a table, whole or not, in order."""
    return [Month(path, table) for path in sorted(folder.glob("month=*")) if (path / table.name).exists()]


def _on_grid(rows: pl.DataFrame, interval: str, symbol: str) -> None:
    """Raise TableError for a candle that does not start on the clock's grid."""
    off = rows.filter(pl.col("open_ns") % parse_interval(interval) != 0)
    if off.height:
        raise TableError(
            f"{off.height:,} bars of {symbol} do not start at a multiple of {interval}, the first at "
            f"{utc_text(off['open_ns'][0])}",
            remedy="check the interval",
        )


def _distinct(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sources once each, in the order of their text: a lake does not depend on what was imported first."""
    by_text = {msgspec.json.encode(source, order="deterministic"): source for source in sources}
    return [by_text[text] for text in sorted(by_text)]


def _what(interval: str) -> str:
    return "settlements" if interval == SETTLED else f"{interval} candles"
