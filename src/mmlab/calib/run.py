"""The chain in one place: book frames and prints -> points and fits, for one span or for a schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmlab.calib.auto import auto_deltas
from mmlab.calib.collect import Collector, Prints
from mmlab.calib.families import all_families
from mmlab.calib.hits import TRADE_COLUMNS, Sums
from mmlab.calib.points import BLOCKS, coarser, points, windows
from mmlab.calib.probes import DEPTH_COLUMNS, intervals
from mmlab.calib.schedule import Roller, Schedule
from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument

GAP_COLUMNS = ("from_ns", "to_ns", "stream")
Chunk = tuple[pl.DataFrame, Prints]  # depth, trades
Frame = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True)
class Tape:
    """What calibration reads: `depth` (probes.DEPTH_COLUMNS), `trades` (hits.TRADE_COLUMNS), `gaps`."""

    depth: pl.DataFrame
    trades: pl.DataFrame
    gaps: pl.DataFrame
    instrument: Instrument

    def __post_init__(self) -> None:
        if self.depth.is_empty():
            raise DataError("there are no book frames", remedy="import or record depth for these days")

    @classmethod
    def of(cls, depth: Frame, trades: Frame, gaps: Frame, instrument: Instrument) -> Tape:
        """From frames or lazy frames, of which only the needed columns are read."""
        frames = ((depth, DEPTH_COLUMNS), (trades, TRADE_COLUMNS), (gaps, GAP_COLUMNS))
        book, tape, holes = (frame.lazy().select(columns).collect() for frame, columns in frames)
        return cls(book, tape, holes, instrument)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last book frame."""
        return int(self.depth["recv_ns"][0]), int(self.depth["recv_ns"][-1])


@dataclass(frozen=True)
class Ladder:
    """One span's `points`, `fits` (a row a side and family), `curves`, and the number of intervals behind them."""

    points: pl.DataFrame
    fits: pl.DataFrame
    curves: pl.DataFrame
    n_intervals: int


def check_specs(probes: ProbeSpec, fit: FitSpec) -> None:
    """Raise UsageError for an estimator that the design does not allow."""
    if probes.cycle and fit.fit_method == "nested_mle":
        raise UsageError(
            "--fit-method nested_mle is for probes that stand at all distances at once, not with --cycle",
            remedy="use poisson_mle: with --cycle the distances share no prints, so its errors are right",
        )


def chosen(spec: ProbeSpec, auto: AutoDeltas, tape: Tape) -> ProbeSpec:
    """`spec` with distances chosen from `tape`; raises DataError where it reaches too few."""
    laid = intervals(tape.depth, tape.gaps, tape.instrument, spec)
    deltas = auto_deltas(laid, tape.trades, tape.instrument, auto)
    return replace(spec, deltas=deltas, max_delta_ticks=None)


def bucketed(tape: Tape, spec: ProbeSpec, origin_ns: int, bucket_ns: int) -> tuple[Sums, int]:
    """Sums over buckets of `bucket_ns` from `origin_ns` to the last frame, and the number of intervals."""
    return collected([(tape.depth, tape.trades)], tape.gaps, tape.instrument, spec, origin_ns, bucket_ns)


def collected(
    chunks: Iterable[Chunk], gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec, origin_ns: int, bucket_ns: int
) -> tuple[Sums, int]:
    """`bucketed` of a tape that comes in chunks, in time order."""
    collector = Collector(gaps, instrument, spec, origin_ns, bucket_ns)
    for depth, trades in chunks:
        collector.add(depth, trades)
    collector.close()
    return collector.sums(0, collector.n_buckets), collector.counter.intervals


def ladder(tape: Tape, spec: ProbeSpec, fit_spec: FitSpec) -> Ladder:
    """Calibrate on the whole span at once; raises UsageError for an estimator that the design does not allow."""
    return ladder_of([(tape.depth, tape.trades)], tape.gaps, tape.instrument, spec, fit_spec, tape.span_ns)


def ladder_of(
    chunks: Iterable[Chunk], gaps: pl.DataFrame, instrument: Instrument, spec: ProbeSpec, fit_spec: FitSpec,
    span_ns: tuple[int, int],
) -> Ladder:  # fmt: skip
    """`ladder` of a tape that comes in chunks, whose first and last frame are known."""
    check_specs(spec, fit_spec)
    start, end = span_ns
    bucket = -(-(end - start + 1) // BLOCKS)
    summed, n_intervals = collected(chunks, gaps, instrument, spec, start, bucket)
    window = windows(summed, np.array([0]), np.array([summed.covered_ns.size]))
    spans = (np.array([start]), np.array([end + 1]))
    fits, curves = all_families(window, spec.deltas, spans, fit_spec, spec.count, nested=not spec.cycle)
    return Ladder(points(coarser(summed, BLOCKS), fit_spec.min_exposure_s, end + 1), fits, curves, n_intervals)


def rolling(tape: Tape, spec: ProbeSpec, fit_spec: FitSpec, schedule_spec: ScheduleSpec) -> Schedule:
    """The schedule fitted on the past of each step, with its points; raises DataError for too little data."""
    check_specs(spec, fit_spec)
    roller = Roller(tape.gaps, tape.instrument, spec, fit_spec, schedule_spec, tape.span_ns[0])
    return joined(roller.add(tape.depth, tape.trades), roller.close())


def joined(*parts: Schedule) -> Schedule:
    """Consecutive parts of a schedule as one."""
    return Schedule(*(pl.concat([getattr(p, name) for p in parts]) for name in Schedule.__dataclass_fields__))
