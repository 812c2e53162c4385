"""How long orders, cancels, reports and market data take: constant, drawn, or a measured series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl

from mmlab.core.errors import DataError, UsageError
from mmlab.core.spans import NS_PER_MS
from mmlab.sim.layout import NEVER, Ints
from mmlab.sim.spec import BacktestSpec, Jitter

DRAWS = 4096  # quantiles of a distribution that draws choose from
LONGEST_NS = 2**58  # 9 years are as good as forever, and sums of a time and two of them are still counted
BASELINE_NS = 3_600 * 10**9
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Series:
    """Latencies measured at times `ns` (ascending), in ns, arrays of shape (n,); absent where not measured."""

    ns: Ints
    entry: Ints | None = None
    cancel: Ints | None = None
    response: Ints | None = None


@dataclass(frozen=True)
class Delays:
    """As the engine takes them: entry, cancel, response, feed; a series has times, a constant one value, a
    distribution its quantiles."""

    times: tuple[Ints, Ints, Ints, Ints]
    values: tuple[Ints, Ints, Ints, Ints]

    @property
    def at_once(self) -> bool:
        """Reports take no time at all."""
        return not self.values[2].any()

    @property
    def longest_leaving_ns(self) -> int:
        """The longest that an order can live on once its cancel has been sent, as far as the strategy knows."""
        return sum(int(self.values[kind].max()) for kind in (1, 2, 3))


def delays(spec: BacktestSpec, series: Series | None, frame_ns: Ints, exch_ns: Ints | None) -> Delays:
    """What the spec says, with the measured series in place of its constants where there are some."""
    measured = {} if series is None else {"entry": series.entry, "cancel": series.cancel, "response": series.response}
    times, values = [], []
    for kind in ("entry", "cancel", "response"):
        found = measured.get(kind)
        times.append(NONE if found is None or series is None else series.ns)
        constant_ms = getattr(spec, f"{kind}_latency_ms")
        values.append(_drawn(constant_ms, spec.jitter) if found is None else np.minimum(found, LONGEST_NS))
    feed = feed_latency(spec, frame_ns, exch_ns)
    times.append(frame_ns if spec.feed_recorded else NONE)
    values.append(feed)
    return Delays((times[0], times[1], times[2], times[3]), (values[0], values[1], values[2], values[3]))


def _drawn(constant_ms: int, jitter: Jitter) -> Ints:
    """The quantiles of constant + exponential(mean) or of a lognormal about the constant; one value without jitter."""
    constant = min(constant_ms * NS_PER_MS, LONGEST_NS)
    if jitter.name == "none" or (jitter.name == "lognormal" and constant == 0):
        return np.array([constant], np.int64)
    u = (np.arange(DRAWS) + 0.5) / DRAWS
    if jitter.name == "exponential":
        drawn = constant - jitter.size * NS_PER_MS * np.log1p(-u)
    else:
        normal = NormalDist()
        drawn = constant * np.exp(jitter.size * np.array([normal.inv_cdf(p) for p in u.tolist()]))
    return np.minimum(np.rint(drawn), float(LONGEST_NS)).astype(np.int64)


def feed_latency(spec: BacktestSpec, frame_ns: Ints, exch_ns: Ints | None) -> Ints:
    """ns by frame, or one constant. Recorded: receipt minus event time, less its least of the past hour (the offset of
    the two clocks and the fastest way), plus `feed_floor_ms` for that fastest way."""
    if not spec.feed_recorded:
        return np.array([min(math.floor(float(spec.feed_latency) * NS_PER_MS), LONGEST_NS)], np.int64)
    if exch_ns is None:
        raise DataError("the book frames have no event time of the venue", remedy="give --feed-latency in ms")
    raw = frame_ns - exch_ns
    frame = pl.DataFrame({"ns": frame_ns, "raw": raw})
    least = frame.select(pl.col("raw").rolling_min_by("ns", window_size=f"{BASELINE_NS}i", closed="both")).to_series()
    feed: Ints = np.minimum(raw - least.to_numpy() + spec.feed_floor_ms * NS_PER_MS, LONGEST_NS)
    return feed


def series(frame: pl.DataFrame, name: str) -> Series:
    """From a table with `recv_ns` or `recv_ms` and any of entry_ms, cancel_ms, response_ms; raises UsageError."""
    time = next((c for c in ("recv_ns", "recv_ms") if c in frame.columns), None)
    kinds = [kind for kind in ("entry", "cancel", "response") if f"{kind}_ms" in frame.columns]
    if time is None or not kinds:
        raise UsageError(
            f"{name} has columns {', '.join(frame.columns)}",
            remedy="give recv_ns or recv_ms, and one or more of entry_ms, cancel_ms, response_ms",
        )
    if frame.is_empty():
        raise UsageError(f"{name} has no rows", remedy="give at least one measurement")
    for column in (time, *(f"{kind}_ms" for kind in kinds)):
        values = frame[column]
        if not values.dtype.is_numeric():
            raise UsageError(f"{name}: {column} holds {values.dtype}, no numbers", remedy="give numbers")
        most = NEVER // (1 if column == "recv_ns" else NS_PER_MS)
        bad = values.is_null() | ~values.cast(pl.Float64).is_finite() | (values < 0) | (values > most)
        if bad.any():
            row = int(bad.arg_true()[0])
            raise UsageError(f"{name}: row {row + 1} has {column} {values[row]}", remedy=f"give 0 to {most:.2g}")
    ns = _in_ns(frame[time], 1 if time == "recv_ns" else NS_PER_MS)
    back = np.flatnonzero(np.diff(ns) < 0)
    if back.size:
        raise UsageError(f"{name}: row {int(back[0]) + 2} is earlier than the one before", remedy=f"sort by {time}")
    return Series(ns, **{kind: _in_ns(frame[f"{kind}_ms"], NS_PER_MS) for kind in kinds})


def _in_ns(values: pl.Series, unit: int) -> Ints:
    """Numbers of `unit` ns in ns, whole ones exactly."""
    if values.dtype.is_integer():
        whole: Ints = values.cast(pl.Int64).to_numpy() * unit
        return whole
    rounded: Ints = np.rint(values.cast(pl.Float64).to_numpy() * unit).astype(np.int64)
    return rounded
