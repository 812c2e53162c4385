"""`mmlab import raw`: raw feed recordings -> lake. What cannot be read is kept aside, everything else goes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mmlab.core.errors import DataError, FeedError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import LEVELS
from mmlab.flows.raw_lines import read_lines
from mmlab.store.lake import DayRef, Lake, LakeWriter
from mmlab.store.parts import sha256
from mmlab.tape.findings import SetAside
from mmlab.tape.ingest import Ingest, read
from mmlab.venues import binance_spot, binance_usdm
from mmlab.venues.binance import Feed

FEEDS = {feed.name: feed for feed in (binance_spot.FEED, binance_usdm.FEED)}
DRAIN_LINES = 100_000
MAX_LEVELS = 5000


@dataclass(frozen=True)
class ImportSpec:
    """What the files hold, and how much of the book to keep."""

    venue: str
    symbol: str
    tick_size: str
    lot_size: str
    levels: int = LEVELS
    replace: bool = False

    def __post_init__(self) -> None:
        if self.venue not in FEEDS:
            raise UsageError(f"unknown venue {self.venue!r}", remedy=f"give --venue {' or '.join(FEEDS)}")
        if not 1 <= self.levels <= MAX_LEVELS:
            raise UsageError(f"levels is {self.levels}", remedy=f"give --levels from 1 to {MAX_LEVELS}")
        if not self.symbol:
            raise UsageError("the symbol is empty", remedy="give --symbol like BTCUSDT")

    @property
    def instrument(self) -> Instrument:
        """The filters that the days are stored with."""
        return Instrument(self.venue, self.symbol, self.tick_size, self.lot_size)


@dataclass(frozen=True)
class ImportReport:
    """What went in, and what was found wrong.

    `rows` counts by day and table, `gaps` by stream (depth, trade), `set_aside` by kind of fault with
    the first places; `reasons` say why a day is degraded (a day without any is complete).
    """

    lines: int
    epochs: int
    rows: Mapping[date, Mapping[str, int]]
    gaps: Mapping[str, int]
    set_aside: Mapping[str, SetAside]
    reasons: Mapping[date, Sequence[str]]
    refs: Sequence[DayRef]


def no_progress(_done: int, _total: int) -> None:
    """Show nothing."""


def import_raw(
    spec: ImportSpec, files: Sequence[Path], lake: Lake, *, progress: Callable[[int, int], None] = no_progress
) -> ImportReport:
    """Import the files as one recording, in the given order; `progress` hears bytes read, of how many.

    Raises UsageError for files that cannot be meant and for days that are in the lake already, DataError
    for a file without a readable line, another symbol, venue or grid, and a clock that steps back by more
    than a minute; nothing is written then.
    """
    instrument, feed = spec.instrument, FEEDS[spec.venue]
    names = _check(files, feed)
    inputs = [{"name": names[path], "bytes": path.stat().st_size, "sha256": sha256(path)} for path in files]
    created_by = {"command": "import raw", "files": inputs}
    ingest = Ingest(feed, instrument, spec.levels)
    with lake.writer(instrument, levels=spec.levels, replace=spec.replace, created_by=created_by) as writer:
        done, total = 0, sum(path.stat().st_size for path in files)
        for path in files:
            _feed_file(ingest, writer, path, names[path], _shifted(progress, done, total))
            done += path.stat().st_size
        ingest.finish()
        _drain(ingest, writer, final=True)
        found = ingest.findings
        refs = writer.commit(found.reasons())
    rows = dict(sorted(found.rows.items()))
    return ImportReport(found.lines, found.epochs, rows, found.gaps, found.set_aside, found.reasons(), refs)


def _feed_file(ingest: Ingest, writer: LakeWriter, path: Path, name: str, progress: Callable[[int], None]) -> None:
    for line in read_lines(path, progress):
        if line.fault:
            ingest.set_aside(name, line.number, line.raw, line.fault)
        else:
            ingest.feed(name, line.number, line.raw)
        if ingest.findings.lines % DRAIN_LINES == 0:
            _drain(ingest, writer)


def _shifted(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    """Progress of one file as progress of all."""
    return lambda at: progress(before + at, total)


def _drain(ingest: Ingest, writer: LakeWriter, final: bool = False) -> None:
    for batch in ingest.drain(final):
        writer.append(batch.table, batch.frame, day=batch.day)


def _check(files: Sequence[Path], feed: Feed) -> dict[Path, str]:
    """Each file's name in the lake (its own, if that tells it apart); raises before anything is written."""
    if not files:
        raise UsageError("no files are given", remedy="name at least one recording")
    for path in files:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not there"
            raise UsageError(f"{path} is {what}", remedy="name files that hold lines of `<local ns> <json>`")
    if len({path.resolve() for path in files}) < len(files):
        raise UsageError("a file is given twice", remedy="name each recording once, in time order")
    for path in files:
        _first_readable(path, feed)
    own = [path.name for path in files]
    return {path: path.name if own.count(path.name) == 1 else path.as_posix() for path in files}


def _first_readable(path: Path, feed: Feed) -> None:
    """Raises DataError if the file has no line that says anything, with the fault of its first line."""
    first = ""
    for line in read_lines(path):
        try:
            read(feed, line.raw)
        except FeedError as error:
            first = first or line.fault or error.message
        except DataError as error:
            raise DataError(f"{path.name}, line {line.number}: {error.message}", remedy=error.remedy) from None
        else:
            return
    raise DataError(
        f"{path} holds no readable line ({first or 'it is empty'})",
        remedy="lines are `<local ns> <json>`, plain or gzip; check --venue and the file",
    )
