"""Sums -> a schedule: for each step, the curve fitted on the past, or the last good one carried on.

`Roller` takes the tape chunk by chunk and hands out what is final, so that a month needs the memory
of a day; `rolling` in run.py is the same over one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mmlab.calib.collect import Arrays, Collector, Market, Prints
from mmlab.calib.families import fits
from mmlab.calib.fit import OK, REASONS, Curve, curves
from mmlab.calib.hits import Sums
from mmlab.calib.points import BLOCKS, Window, coarser, points, windows
from mmlab.calib.probes import Ints
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import FITS, WINDOW_METRICS, WINDOWS
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS, NS_PER_S

BOTH = 2  # index of the pooled side
SLACK = 100  # a training span may lack its first hundredth: a day's first frame comes shortly after midnight
CONDITIONS = ("unknown", "complete", "pending", "degraded")  # the later, the worse
Days = Sequence[tuple[int, int, str]]  # (from_ns, to_ns, condition) of each day of the lake


@dataclass(frozen=True)
class Schedule:
    """`windows` and `metrics`: one row a step; `fits`: one row a training span and side; `points`: see points.py."""

    windows: pl.DataFrame
    fits: pl.DataFrame
    metrics: pl.DataFrame
    points: pl.DataFrame

    def entries(self) -> list[dict[str, object]]:
        """The steps that have parameters, as poisson_schedule.json lists them (times in ms UTC)."""
        return entries(self.windows)


def entries(windows: pl.DataFrame) -> list[dict[str, object]]:
    """The steps of a `windows` table that have parameters, as poisson_schedule.json lists them (times in ms UTC)."""
    ms = (
        (pl.col(f"{name}_ns") // NS_PER_MS).alias(f"{name}_ms") for name in ("start", "end", "train_start", "train_end")
    )
    kept = windows.filter(pl.col("source") != "none")
    return kept.select(*ms, "A", "k", "source", "reason", "age_steps").to_dicts()


def first_step(data_start_ns: int, spec: ScheduleSpec, not_before_ns: int = 0) -> int:
    """The first UTC multiple of the step whose training span the data cover (but for its first hundredth)."""
    covered = data_start_ns + spec.train_ns - spec.train_ns // SLACK
    return -(-max(covered, not_before_ns) // spec.step_ns) * spec.step_ns


def step_starts(data_start_ns: int, data_end_ns: int, spec: ScheduleSpec) -> Ints:
    """Starts of the steps, UTC multiples of the step, from the first full training span on.

    Raises DataError when the data do not last for one training span and the step after it.
    """
    starts = np.arange(first_step(data_start_ns, spec), data_end_ns, spec.step_ns, dtype=np.int64)
    if starts.size == 0:
        raise too_short(data_start_ns, data_end_ns, spec)
    return starts


def too_short(data_start_ns: int, data_end_ns: int, spec: ScheduleSpec) -> DataError:
    """The error for data that have no step."""
    minutes = (data_end_ns - data_start_ns) / NS_PER_MIN
    return DataError(
        f"the data last {minutes:.1f} minutes: too short for {spec.train_window_min:g} minutes of training "
        f"and a step that starts at a UTC multiple of {spec.step_min:g} minutes",
        remedy="give a smaller --train-window-min and --step-min, or more data",
    )


def fine_factor(spec: ScheduleSpec) -> int:
    """Into how many fine buckets a bucket is split, so that a training span has BLOCKS blocks of time."""
    bucket = spec.bucket_ns
    wanted = -(-BLOCKS * bucket // spec.train_ns)
    return next(n for n in range(max(wanted, 1), bucket + 1) if bucket % n == 0)


class Roller:
    """Fits each step on its past, over a tape that comes in chunks; `add` and `close` hand out what is final."""

    def __init__(
        self, gaps: pl.DataFrame, instrument: Instrument, probes: ProbeSpec, fit: FitSpec, spec: ScheduleSpec,
        data_start_ns: int, not_before_ns: int = 0, days: Days = (),
    ) -> None:  # fmt: skip
        self.spec, self._probes, self._fit, self._days = spec, probes, fit, days
        self._factor = fine_factor(spec)
        self._bucket = spec.bucket_ns
        self._data_start = data_start_ns
        self._next_step = first_step(data_start_ns, spec, not_before_ns)
        self._next_point = data_start_ns // self._bucket * self._bucket
        self._good = (math.nan, math.nan, -1)  # A, k and step number of the last good fit
        self.steps = 0
        fine = self._bucket // self._factor
        self.collector = Collector(gaps, instrument, probes, self._next_point, fine)

    def add(self, depth: pl.DataFrame, trades: Prints) -> Schedule:
        """The next chunk; returns the steps and points that nothing to come can change."""
        self.collector.add(depth, trades)
        return self._ready(self.collector.final_ns)

    def close(self) -> Schedule:
        """The tape is over: the remaining steps and points; raises DataError if there was no step at all."""
        end = self.collector.last_ns
        self.collector.close()
        made = self._ready(end, over=True)
        if self.steps == 0:
            raise too_short(self._data_start, end, self.spec)
        return made

    def steps_by(self, t: int) -> int:
        """How many steps have started by an instant, handed out or not."""
        return self.steps + max((t - self._next_step) // self.spec.step_ns + 1, 0)

    def state(self) -> dict[str, Arrays]:
        """All that later steps depend on; `restore` of a Roller made alike goes on from it."""
        at = [self._next_step, self._next_point, self.steps, self._good[2]]
        return {"steps": np.array(at, np.int64), "good": np.array(self._good[:2]), **self.collector.state()}

    def restore(self, state: Mapping[str, Arrays]) -> None:
        """Go on where `state` was taken."""
        self._next_step, self._next_point, self.steps, step = (int(n) for n in state["steps"])
        self._good = (float(state["good"][0]), float(state["good"][1]), step)
        self.collector.restore(state)

    def _ready(self, until_ns: int, over: bool = False) -> Schedule:
        """Steps that start before `until_ns`, and points of buckets that end by then."""
        starts = np.arange(self._next_step, until_ns, self.spec.step_ns, dtype=np.int64)
        bucket_end = (until_ns // self._bucket + over) * self._bucket
        ready = self._points(max(bucket_end, self._next_point))
        held = self.collector.sums(0, self.collector.n_buckets)
        made = self._fits(held, starts)
        self._next_step += starts.size * self.spec.step_ns
        self.steps += starts.size
        keep_from = min(self._next_step - self.spec.train_ns, self._next_point)
        self.collector.drop(min(max((keep_from - held.origin_ns) // held.bucket_ns, 0), held.covered_ns.size))
        return Schedule(*made, ready)

    def _points(self, end_ns: int) -> pl.DataFrame:
        """Points of the buckets up to `end_ns`, and remember that they are out."""
        first, last = (self.collector.bucket_of(t) for t in (self._next_point, end_ns))
        self._next_point = end_ns
        return points(coarser(self.collector.sums(first, last), self._factor), self._fit.min_exposure_s)

    def _fits(self, held: Sums, starts: Ints) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """`windows`, `fits` and `window_metrics` of these steps."""
        if starts.size == 0:
            return WINDOWS.empty(), FITS.empty(), WINDOW_METRICS.empty()
        train_start = starts - self.spec.train_ns
        first, last = (
            np.clip((t - held.origin_ns) // held.bucket_ns, 0, held.hits.shape[0]) for t in (train_start, starts)
        )
        window = windows(held, first, last)
        curve = curves(window, self._probes.deltas, self._fit, nested=not self._probes.cycle)
        market = self.collector.market(0, held.covered_ns.size)
        return (
            self._windows(starts, window, curve),
            fits(curve, window, (train_start, starts), self._fit, self._probes.count),
            metrics(starts, self.spec, window, held, market, (first, last), self._days),
        )

    def _windows(self, starts: Ints, window: Window, curve: Curve) -> pl.DataFrame:
        """Which parameters are in force in each step: its own fit, or the last good one before it."""
        reason = curve.reason[:, BOTH]
        steps = self.steps + np.arange(starts.size)
        ok = reason == OK
        source = np.maximum.accumulate(np.where(ok, steps, self._good[2])) if steps.size else steps
        own = np.clip(source - self.steps, 0, None)  # row whose fit is in force, where it is among these steps
        A, k = (
            np.where(source >= self.steps, fitted[own, BOTH], before) if steps.size else np.empty(0)
            for fitted, before in zip((curve.A, curve.k), self._good[:2], strict=True)
        )
        if steps.size:
            self._good = (float(A[-1]), float(k[-1]), int(source[-1]))
        frame = pl.DataFrame(
            {
                "start_ns": starts,
                "end_ns": starts + self.spec.step_ns,
                "train_start_ns": starts - self.spec.train_ns,
                "train_end_ns": starts,
                "A": A,
                "k": k,
                "source": np.where(source < 0, "none", np.where(source == steps, "fit", "carry_forward")),
                "reason": [REASONS[r] for r in reason],
                "age_steps": steps - source,
                "coverage": window.covered_ns / self.spec.train_ns,
                "fills_total": curve.nearest_hits[:, BOTH],
            },
            schema_overrides={"source": pl.String, "reason": pl.String},
        )
        given = pl.when(pl.col("source") != "none")
        return WINDOWS.conform(frame.with_columns(given.then(pl.col(name)) for name in ("A", "k", "age_steps")))


def metrics(
    starts: Ints, spec: ScheduleSpec, window: Window, held: Sums, market: Market, edges: tuple[Ints, Ints], days: Days
) -> pl.DataFrame:
    """`window_metrics`: what the market did in each training span; `edges` are its first and last bucket."""

    def over(a: Ints) -> Ints:
        prefix = np.concatenate([np.zeros_like(a[:1]), np.cumsum(a, axis=0)])
        return np.asarray(prefix[edges[1]] - prefix[edges[0]], np.int64)

    flow = over(held.flow)
    spread, spread_us, move2, move_us = (over(a) for a in vars(market).values())
    train_s = spec.train_ns / NS_PER_S
    lots = held.instrument.lots.to_decimal(flow[:, 1])
    frame = pl.DataFrame(
        {
            "start_ns": starts,
            "end_ns": starts + spec.step_ns,
            "train_start_ns": starts - spec.train_ns,
            "train_end_ns": starts,
            "exposure_s": window.covered_ns / NS_PER_S,
            "fills_total": over(held.hits[:, :, 0].sum(axis=1)),
            "dispersion": dispersion(window),
            "prints": flow[:, 0],
            "trade_rate": flow[:, 0] / train_s,
            "qty_rate": lots / train_s,
            "buy_share": _ratio(flow[:, 2], flow[:, 1]),
            "volatility": np.sqrt(_ratio(move2 / 4, move_us / 1e6)),
            "spread": _ratio(spread, spread_us),
            "coverage": window.covered_ns / spec.train_ns,
            "condition": np.array(CONDITIONS)[_worst(starts - spec.train_ns, starts, days)],
        },
        schema_overrides={"condition": pl.String},
    )
    floats = [pl.col(c.name).fill_nan(None) for c in WINDOW_METRICS.columns if c.dtype == pl.Float64]
    return WINDOW_METRICS.conform(frame.with_columns(floats))


def dispersion(window: Window) -> np.typing.NDArray[np.float64]:
    """Variance of the nearest distance's hits over blocks of time against a Poisson's, shape (n_windows,)."""
    hits, exposed = (np.diff(a[:, :, 0].sum(axis=1)[window.edges], axis=1) for a in (window.hit, window.exposure))
    mean = exposed * _ratio(hits.sum(axis=1), exposed.sum(axis=1))[:, None]
    pearson = np.where(mean > 0, (hits - mean) ** 2 / np.where(mean > 0, mean, 1.0), 0.0)
    return _ratio(pearson.sum(axis=1), (exposed > 0).sum(axis=1) - 1)


def _ratio(a: np.typing.NDArray[np.generic], b: np.typing.NDArray[np.generic]) -> np.typing.NDArray[np.float64]:
    """a / b, nan where b is not above 0."""
    top, bottom = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def _worst(from_ns: Ints, to_ns: Ints, days: Days) -> Ints:
    """Number of the worst condition of the days that each span touches, shape (n_spans,)."""
    worst = np.zeros(from_ns.size, np.int64)
    for start, end, condition in days:
        touched = (start < to_ns) & (end > from_ns)
        np.maximum(worst, touched * CONDITIONS.index(condition), out=worst)
    return worst
