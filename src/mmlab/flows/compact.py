"""Journals -> lake: sealed segments become Parquet, segments of a crashed recorder are sealed first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mmlab.core.errors import LakeError, UsageError
from mmlab.core.spans import parse_day
from mmlab.store import journal_file
from mmlab.store.crash import step
from mmlab.store.journal_file import Segment, SegmentReader
from mmlab.store.lake import Lake
from mmlab.store.locks import Lock
from mmlab.store.manifest import MANIFEST, DayRef, SegmentEntry, day_folder, read_manifest
from mmlab.store.segments import SegmentWriter
from mmlab.store.writer import remove_dead_staging
from mmlab.tape.market import Market
from mmlab.tape.replay import Replay
from mmlab.venues.endpoints import VENUES

DRAIN_RECORDS = 100_000


@dataclass(frozen=True)
class Compacted:
    """What came of one segment: the days it went to, and what was wrong with it."""

    segment: str
    refs: list[DayRef]
    records: int
    faults: list[str]


def journal_root(data_root: Path, venue: str) -> Path:
    """Where a venue's journals lie: a folder for each run."""
    return data_root / f"venue={venue}" / ".journal"


def compact(path: Path, data_root: Path, keep_raw: bool) -> Compacted:
    """Derive a sealed segment's rows into the lake; then the segment goes, or is kept, packed more tightly.

    Does nothing for a symbol and day whose manifest lists the segment already. Raises LakeError for a
    file that is no segment.
    """
    reader = SegmentReader(path)
    segment = reader.header()
    refs, faults = derive(reader, segment, data_root)
    step("compact-done")
    if faults:
        path.replace(path.with_suffix(".damaged"))
    elif keep_raw:
        journal_file.repack(path)
    else:
        path.unlink()
    step("compact-journal")
    return Compacted(segment.name, refs, reader.records, faults)


def derive(reader: SegmentReader, segment: Segment, root: Path) -> tuple[list[DayRef], list[str]]:
    """Fold a segment and add its rows to the days under `root`; returns the days, and what was wrong."""
    replay = Replay(VENUES[segment.venue], segment.levels, keep=True)
    with ExitStack() as stack:
        writers: dict[str, SegmentWriter] = {}

        def drain(final: bool) -> None:
            for symbol, batch in replay.drain(final):
                writers[symbol].append(batch.table, batch.frame, day=batch.day)

        for n, record in enumerate(reader, 1):
            replay.take(record)
            if not writers:
                for symbol, market in replay.markets.items():
                    writers[symbol] = stack.enter_context(SegmentWriter(root, market.instrument, segment))
            if n % DRAIN_RECORDS == 0:
                drain(final=False)
        faults = list(replay.faults)
        if not reader.whole:
            faults.append(f"{reader.skipped + reader.cut_bytes} bytes of {reader.path.name} could not be read")
            for market in replay.markets.values():
                market.now_ns = replay.now_ns
                market.close()
                market.degrade("journal damaged")
        replay.end_segment()
        drain(final=True)
        refs = []
        for symbol, writer in writers.items():
            entries = _entries(replay.markets[symbol], reader, segment)
            refs += writer.add(entries)
    return refs, faults


def _entries(market: Market, reader: SegmentReader, segment: Segment) -> dict[date, SegmentEntry]:
    """What the segment brought, by day: its own day has its counts, an earlier one only a hole that ended now."""
    own = parse_day(segment.day)
    reasons: dict[date, Counter[str]] = {own: Counter()}
    for day, counts in market.findings.degraded.items():
        reasons.setdefault(day, Counter()).update(counts)
    for day in market.findings.rows:
        reasons.setdefault(day, Counter())
    last = {"depth": market.raw_id, "trade": _last(market, "trade"), "aggTrade": _last(market, "aggTrade")}
    ids = {stream: value for stream, value in last.items() if value is not None}
    found = reader.found(reader.seal.why if reader.seal else "crash")
    whole = (found.records, found.frames, found.first_ns, found.last_ns, segment.until_ns, found.why)
    later = (0, 0, found.first_ns, found.first_ns, 0, "later")
    return {
        day: SegmentEntry(dict(sorted(counts.items())), *(whole if day == own else later), {}, ids)
        for day, counts in reasons.items()
    }


def _last(market: Market, stream: str) -> int | None:
    last = market.prints(stream).last
    return None if last is None else last[0]


def recover(data_root: Path, venue: str, keep_raw: bool) -> Iterator[Compacted]:
    """Seal and compact what recorders that are gone left behind; runs that are alive are left alone.

    A segment that cannot be compacted (a full disk, a file that is none) stays, and is reported as a fault.
    """
    for symbol_folder in (data_root / f"venue={venue}").glob("symbol=*"):
        remove_dead_staging(symbol_folder)
    for folder in sorted(journal_root(data_root, venue).glob("*/")):
        try:
            lock = Lock(folder / "lock", str(folder))
        except UsageError:
            continue
        keep = keep_raw or keep_marker(folder).exists()
        with lock:
            for path in sorted(folder.glob("*.open")):
                journal_file.seal_open(path)
            for path in sorted(folder.glob("*.mmj")):
                try:
                    if not _is_in_lake(path, data_root):
                        yield compact(path, data_root, keep)
                    elif not keep:
                        path.unlink()
                except Exception as error:  # noqa: BLE001 - no segment may keep a recorder from starting
                    fault = f"could not be compacted, and is kept for the next start: {error!r}"
                    yield Compacted(f"{folder.name}/{path.stem}", [], 0, [fault])
            if not any(p for p in folder.iterdir() if p.name not in ("lock", "keep")):
                for left in list(folder.iterdir()):
                    left.unlink()
                folder.rmdir()


def keep_marker(folder: Path) -> Path:
    """The file that says that a run's journal is to be kept."""
    return folder / "keep"


def _is_in_lake(path: Path, data_root: Path) -> bool:
    """True if every symbol's day lists the segment."""
    segment = SegmentReader(path).header()
    for symbol in segment.symbols:
        folder = day_folder(data_root, segment.venue, symbol, parse_day(segment.day))
        if not (folder / MANIFEST).exists() or segment.name not in read_manifest(folder).segments:
            return False
    return True


def kept_segments(data_root: Path, venue: str, symbol: str) -> Iterator[tuple[Path, Segment]]:
    """Every sealed segment that is still there for a symbol, in the order of recording."""
    for path in sorted(journal_root(data_root, venue).glob("*/*.mmj")):
        try:
            segment = SegmentReader(path).header()
        except LakeError:
            continue
        if symbol in segment.symbols:
            yield path, segment


__all__ = ["Compacted", "Lake", "compact", "derive", "journal_root", "kept_segments", "recover"]
