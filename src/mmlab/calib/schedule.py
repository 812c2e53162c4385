"""Sums -> a schedule: for each step, the curve fitted on the past, or the last good one carried on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mmlab.calib.fit import OK, REASONS, curves, fits
from mmlab.calib.hits import Sums
from mmlab.calib.points import windows
from mmlab.calib.probes import Ints
from mmlab.calib.spec import FitSpec, ScheduleSpec
from mmlab.core.errors import DataError
from mmlab.core.schemas import WINDOWS
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS

BOTH = 2  # index of the pooled side


@dataclass(frozen=True)
class Schedule:
    """`windows`: one row a step; `fits`: one row a training span and side."""

    windows: pl.DataFrame
    fits: pl.DataFrame

    def entries(self) -> list[dict[str, object]]:
        """The steps that have parameters, as poisson_schedule.json lists them (times in ms UTC)."""
        kept = self.windows.filter(pl.col("source") != "none")
        ms = (
            (pl.col(f"{name}_ns") // NS_PER_MS).alias(f"{name}_ms")
            for name in ("start", "end", "train_start", "train_end")
        )
        return kept.select(*ms, "A", "k", "source", "reason", "age_steps").to_dicts()


def step_starts(data_start_ns: int, data_end_ns: int, spec: ScheduleSpec) -> Ints:
    """Starts of the steps, UTC multiples of the step, from the first full training span on.

    Raises DataError when the data do not last for one training span and the step after it.
    """
    first = -(-(data_start_ns + spec.train_ns) // spec.step_ns) * spec.step_ns
    starts = np.arange(first, data_end_ns, spec.step_ns, dtype=np.int64)
    if starts.size == 0:
        minutes = (data_end_ns - data_start_ns) / NS_PER_MIN
        raise DataError(
            f"the data last {minutes:.1f} minutes: too short for {spec.train_window_min:g} minutes of training "
            f"and a step that starts at a UTC multiple of {spec.step_min:g} minutes",
            remedy="give a smaller --train-window-min and --step-min, or more data",
        )
    return starts


def schedule(sums: Sums, starts: Ints, spec: ScheduleSpec, fit_spec: FitSpec) -> Schedule:
    """Fit [t - train, t) for each step start t, and carry the last good fit over steps without one."""
    train_start = starts - spec.train_ns
    first, last = (
        np.clip((t - sums.origin_ns) // sums.bucket_ns, 0, sums.hits.shape[0]) for t in (train_start, starts)
    )
    window = windows(sums, first, last)
    curve = curves(window, sums.spec.deltas, fit_spec)
    reason = curve.reason[:, BOTH]
    steps = np.arange(starts.size)
    source_step = np.maximum.accumulate(np.where(reason == OK, steps, -1))  # step whose fit is in force
    known = source_step >= 0
    A, k = (np.where(known, a[source_step, BOTH], np.nan) for a in (curve.A, curve.k))
    frame = pl.DataFrame(
        {
            "start_ns": starts,
            "end_ns": starts + spec.step_ns,
            "train_start_ns": train_start,
            "train_end_ns": starts,
            "A": A,
            "k": k,
            "source": np.where(~known, "none", np.where(source_step == steps, "fit", "carry_forward")),
            "reason": [REASONS[r] for r in reason],
            "age_steps": steps - source_step,
            "coverage": window.covered_ns / spec.train_ns,
            "fills_total": curve.nearest_hits[:, BOTH],
        }
    )
    given = pl.when(pl.col("source") != "none")
    frame = frame.with_columns(given.then(pl.col(name)) for name in ("A", "k", "age_steps"))
    return Schedule(
        WINDOWS.conform(frame),
        fits(curve, window, train_start, starts, fit_spec, sums.spec.count),
    )
