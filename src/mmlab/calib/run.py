"""The chain in one place: book frames and prints -> points and fits, for one span or for a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mmlab.calib.fit import curves, fits
from mmlab.calib.hits import Sums, sums
from mmlab.calib.points import points, windows
from mmlab.calib.probes import intervals
from mmlab.calib.schedule import Schedule, schedule, step_starts
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument


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

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last book frame."""
        return int(self.depth["recv_ns"][0]), int(self.depth["recv_ns"][-1])


@dataclass(frozen=True)
class Ladder:
    """One span's `points` and `fits` (a row a side), and the number of probe intervals behind them."""

    points: pl.DataFrame
    fits: pl.DataFrame
    n_intervals: int


def bucketed(tape: Tape, spec: ProbeSpec, origin_ns: int, bucket_ns: int) -> tuple[Sums, int]:
    """Sums over buckets of `bucket_ns` from `origin_ns` to the last frame, and the number of intervals."""
    laid = intervals(tape.depth, tape.gaps, tape.instrument, spec)
    n_buckets = (tape.span_ns[1] - origin_ns) // bucket_ns + 1
    summed = sums(
        laid, tape.trades, tape.instrument, spec, origin_ns=origin_ns, bucket_ns=bucket_ns, n_buckets=n_buckets
    )
    return summed, laid.start_ns.size


def ladder(tape: Tape, spec: ProbeSpec, fit_spec: FitSpec) -> Ladder:
    """Calibrate on the whole span at once."""
    start, end = tape.span_ns
    summed, n_intervals = bucketed(tape, spec, start, end - start + 1)
    window = windows(summed, np.array([0]), np.array([1]))
    curve = curves(window, spec.deltas, fit_spec)
    table = fits(curve, window, np.array([start]), np.array([end + 1]), fit_spec, spec.count)
    return Ladder(points(summed, fit_spec.min_exposure_s), table, n_intervals)


def rolling(
    tape: Tape, spec: ProbeSpec, fit_spec: FitSpec, schedule_spec: ScheduleSpec
) -> tuple[pl.DataFrame, Schedule]:
    """Points per bucket, and the schedule fitted on the past of each step."""
    start, end = tape.span_ns
    starts = step_starts(start, end, schedule_spec)
    bucket = schedule_spec.bucket_ns
    summed, _ = bucketed(tape, spec, start // bucket * bucket, bucket)
    return points(summed, fit_spec.min_exposure_s), schedule(summed, starts, schedule_spec, fit_spec)
