"""What a calibration reads from the lake: day by day, so that a month needs the memory of a day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from mmlab.calib.collect import arrived
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

SIZES = ("tick_size", "lot_size")
Frame = Future[pl.DataFrame]


@dataclass(frozen=True)
class TapeReader:
    """Frames and prints of consecutive days from `from_ns` on, in chunks of one day."""

    lake: Lake
    refs: Sequence[DayRef]
    instrument: Instrument
    from_ns: int = 0

    def span_ns(self) -> tuple[int, int]:
        """Receive times of the first and the last book frame; raises DataError if there is none."""
        frames = self.lake.scan(self.refs, schemas.DEPTH, ("recv_ns",)).filter(pl.col("recv_ns") >= self.from_ns)
        first, last = frames.select(pl.col("recv_ns").min(), last=pl.col("recv_ns").max()).collect().row(0)
        if first is None:
            raise DataError("there are no book frames", remedy="import or record depth for these days")
        return first, last

    def gaps(self) -> pl.DataFrame:
        """Declared holes of all the days."""
        return self.lake.read(self.refs, schemas.GAPS, GAP_COLUMNS)

    def chunks(self) -> Iterator[Chunk]:
        """(depth, trades) of one day after the other; raises LakeError if no day has a print.

        Read ahead: a day's prints may still be on their way while its frames are looked at, and the next day's are
        read meanwhile.
        """
        prints = 0
        with ThreadPoolExecutor(1) as reader:
            asked = [self._ask(reader, ref) for ref in self.refs[:1]]
            for i in range(len(self.refs)):
                asked += [self._ask(reader, ref) for ref in self.refs[i + 1 : i + 2]]
                depth, trades = asked.pop(0)
                yield depth.result(), trades
                prints += trades.result().height
        if not prints:
            self.lake.live_prints(self.refs, TRADE_COLUMNS)  # says what is missing

    def _ask(self, reader: ThreadPoolExecutor, ref: DayRef) -> tuple[Frame, Frame]:
        """Have a day read: frames first, since they are looked at first."""
        return reader.submit(self._depth, ref), reader.submit(self._trades, ref)

    def _depth(self, ref: DayRef) -> pl.DataFrame:
        return self._late(self.lake.read([ref], schemas.DEPTH, DEPTH_COLUMNS))

    def _trades(self, ref: DayRef) -> pl.DataFrame:
        return self._late(self.lake.live_prints([ref], TRADE_COLUMNS, require_rows=False))

    def whole(self) -> Tape:
        """All of it at once; raises DataError if there is no book."""
        depth, trades = (pl.concat(frames) for frames in zip(*self._frames(), strict=True))
        return Tape(depth, trades, self.gaps(), self.instrument)

    def until(self, end_ns: int) -> Tape:
        """Everything before an instant at once."""
        parts = []
        for frames, ref in zip(self._frames(), self.refs, strict=True):
            parts.append([frame.filter(pl.col("recv_ns") < end_ns) for frame in frames])
            if day_start_ns(ref.day) + NS_PER_DAY >= end_ns:
                break
        depth, trades = (pl.concat(frames) for frames in zip(*parts, strict=True))
        return Tape(depth, trades, self.gaps(), self.instrument)

    def _frames(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        return ((depth, arrived(trades)) for depth, trades in self.chunks())

    def days(self) -> Conditions:
        """From when to when each day lasts, and its condition."""
        starts = [(day_start_ns(ref.day), self.lake.manifest(ref).condition) for ref in self.refs]
        return [(start, start + NS_PER_DAY, condition) for start, condition in starts]

    def _late(self, frame: pl.DataFrame) -> pl.DataFrame:
        """From `from_ns` on, every column one array."""
        return (frame if self.from_ns == 0 else frame.filter(pl.col("recv_ns") >= self.from_ns)).rechunk()


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
