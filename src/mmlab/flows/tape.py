"""What a calibration reads from the lake: day by day, so that a month needs the memory of a day."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import polars as pl

from mmlab.calib.hits import TRADE_COLUMNS
from mmlab.calib.probes import DEPTH_COLUMNS
from mmlab.calib.run import GAP_COLUMNS, Chunk, Tape
from mmlab.calib.schedule import Days as Conditions
from mmlab.core import schemas
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_DAY, Days, day_start_ns
from mmlab.flows.run import Run
from mmlab.store.lake import DayRef, Lake
from mmlab.store.parts import ROW_GROUP_ROWS

SIZES = ("tick_size", "lot_size")
PIECE = 4 * ROW_GROUP_ROWS  # prints that are read, and counted, at once
AHEAD = 4  # frames that are read before they are asked for
T = TypeVar("T")


@dataclass(frozen=True)
class TapeReader:
    """Frames and prints of consecutive days from `from_ns` on, in chunks of one day."""

    lake: Lake
    refs: Sequence[DayRef]
    instrument: Instrument
    from_ns: int = 0

    def span_ns(self) -> tuple[int, int]:
        """Receive times of the first and the last book frame; raises DataError if there is none."""
        ends = self.lake.ends(self.refs, schemas.DEPTH, self.from_ns)
        if ends is None:
            raise DataError("there are no book frames", remedy="import or record depth for these days")
        return ends

    def gaps(self) -> pl.DataFrame:
        """Declared holes of all the days."""
        return self.lake.read(self.refs, schemas.GAPS, GAP_COLUMNS)

    def chunks(self, first: int = 0) -> Iterator[Chunk]:
        """(depth, pieces of trades) of one day after the other, from day number `first` on.

        What comes next is read while what came is looked at. Raises LakeError if none of all days has a print.
        """
        for _, frames in itertools.groupby(read_ahead(self._frames(first)), lambda found: found[0]):
            yield _chunk(frames)

    def _frames(self, first: int) -> Iterator[tuple[DayRef, pl.DataFrame]]:
        """Of each day its book frames, and then its prints in pieces."""
        prints = 0
        for ref in self.refs[first:]:
            yield ref, self._late(self.lake.read([ref], schemas.DEPTH, DEPTH_COLUMNS))
            for piece in self.lake.live_prints_in_pieces(ref, TRADE_COLUMNS, PIECE):
                prints += piece.height
                yield ref, self._late(piece)
        if not prints and not first:
            self.lake.live_prints(self.refs, TRADE_COLUMNS)  # says what is missing

    def whole(self) -> Tape:
        """All of it at once; raises DataError if there is no book."""
        return self._joined([(depth, *pieces) for depth, pieces in self.chunks()])

    def until(self, end_ns: int) -> Tape:
        """Everything before an instant at once."""
        parts = []
        for (depth, pieces), ref in zip(self.chunks(), self.refs, strict=True):
            parts.append(tuple(frame.filter(pl.col("recv_ns") < end_ns) for frame in (depth, *pieces)))
            if day_start_ns(ref.day) + NS_PER_DAY >= end_ns:
                break
        return self._joined(parts)

    def _joined(self, days: Sequence[tuple[pl.DataFrame, ...]]) -> Tape:
        """Each day's frames and pieces of prints as one tape."""
        prints = [piece for _, *pieces in days for piece in pieces] or [schemas.TRADES.empty().select(TRADE_COLUMNS)]
        return Tape(pl.concat([depth for depth, *_ in days]), pl.concat(prints), self.gaps(), self.instrument)

    def days(self) -> Conditions:
        """From when to when each day lasts, and its condition."""
        starts = [(day_start_ns(ref.day), self.lake.manifest(ref).condition) for ref in self.refs]
        return [(start, start + NS_PER_DAY, condition) for start, condition in starts]

    def _late(self, frame: pl.DataFrame) -> pl.DataFrame:
        """From `from_ns` on."""
        return frame if self.from_ns == 0 else frame.filter(pl.col("recv_ns") >= self.from_ns)


def _chunk(frames: Iterator[tuple[DayRef, pl.DataFrame]]) -> Chunk:
    """One day's frames: the book, and then pieces of prints."""
    _, depth = next(frames)
    return depth, (piece for _, piece in frames)


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """`items`, of which a thread makes the next few while one is used."""
    over = object()
    pool = ThreadPoolExecutor(1)  # one, so that they come in their order
    try:
        coming = deque(pool.submit(next, items, over) for _ in range(AHEAD))
        while (item := coming.popleft().result()) is not over:
            coming.append(pool.submit(next, items, over))
            yield item  # type: ignore[misc]  # it is not `over`
    finally:
        pool.shutdown(cancel_futures=True)


def load(data_root: Path, symbol: str, day: str, venue: str | None = None) -> Tape:
    """Days of a symbol (`20250101` or a range) as `mmlab.calib` takes them; raises LakeError for days that are missing.

    Prints that a recorder filled in by REST are left out, as the commands do.
    """
    lake = Lake(data_root)
    refs = lake.find(symbol, Days.parse(day), venue)
    return TapeReader(lake, refs, lake.instrument(refs)).whole()


def read_days(run: Run) -> TapeReader:
    """The run's own days."""
    return TapeReader(run.lake, run.refs, run.instrument)


def read_warm(run: Run, train_ns: int, most_days: int) -> TapeReader:
    """The run's days, and as much of the days before them as the first training span needs and the lake has."""
    start = day_start_ns(run.refs[0].day)
    known = {ref.day: ref for ref in run.lake.days(run.refs[0].venue, run.refs[0].symbol)}
    warm: list[DayRef] = []
    for back in range(1, min(most_days, -(-train_ns // NS_PER_DAY)) + 1):
        ref = known.get(run.refs[0].day - timedelta(days=back))
        if ref is None:
            break
        found = run.lake.manifest(ref).instrument
        if any(Decimal(getattr(found, name)) != Decimal(getattr(run.instrument, name)) for name in SIZES):
            run.warn(f"{ref.day:%Y%m%d} has another tick or lot size: no warm start from it")
            break
        warm.insert(0, ref)
    if not warm:
        return read_days(run)
    run.use(warm)
    return TapeReader(run.lake, [*warm, *run.refs], run.instrument, start - train_ns)
