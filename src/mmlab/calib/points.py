"""Additive sums -> the `points` table, and windows of them by prefix sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.hits import Sums
from mmlab.calib.probes import Ints
from mmlab.core.schemas import POINTS, QUOTE_SIDES
from mmlab.core.spans import NS_PER_S

Floats = npt.NDArray[np.float64]


BLOCKS = 16  # blocks of time that a span is cut into for errors that bursts do not narrow


@dataclass(frozen=True)
class Window:
    """Sums over spans of buckets, kept as prefix sums, so that any number of spans costs next to nothing.

    exposure, hit, ring: prefix sums, shape (n_buckets + 1, 2 sides, n_deltas). Span w is buckets
    [first[w], last[w]); `covered_ns`, shape (n_windows,), is the time for which probes stood in it.
    The properties are the sums themselves, shape (n_windows, 3 sides: bid, ask, both; n_deltas).
    """

    exposure: Ints
    hit: Ints
    ring: Ints
    first: Ints
    last: Ints
    covered_ns: Ints

    @cached_property
    def exposure_ns(self) -> Ints:
        """Time at risk."""
        return with_both(self.exposure[self.last] - self.exposure[self.first])

    @cached_property
    def hits(self) -> Ints:
        """Hits."""
        return with_both(self.hit[self.last] - self.hit[self.first])

    @cached_property
    def rings(self) -> Ints:
        """Hits that reached a distance and not the next."""
        return with_both(self.ring[self.last] - self.ring[self.first])

    @cached_property
    def edges(self) -> Ints:
        """Edges of the blocks of time, shape (n_windows, BLOCKS + 1): block b is buckets [edges[b], edges[b + 1])."""
        return self.first[:, None] + (self.last - self.first)[:, None] * np.arange(BLOCKS + 1) // BLOCKS

    def used(self, min_exposure_s: float) -> npt.NDArray[np.bool_]:
        """Which distances have enough exposure to be fitted, shape (n_windows, 3, n_deltas)."""
        exposure_s = self.exposure_ns / NS_PER_S
        return np.asarray((exposure_s > 0) & (exposure_s >= min_exposure_s), np.bool_)


def windows(sums: Sums, first: Ints, last: Ints) -> Window:
    """Sums over buckets [first, last), two arrays of shape (n_windows,)."""
    exposure, hits, rings = (_prefix(a) for a in (sums.exposure_ns, sums.hits, sums.rings))
    covered = _prefix(sums.covered_ns)
    return Window(exposure, hits, rings, first, last, covered[last] - covered[first])


def _prefix(a: Ints) -> Ints:
    """Shape (n, ...) -> (n + 1, ...): row i is the sum of the rows before it."""
    out = np.zeros((a.shape[0] + 1, *a.shape[1:]), np.int64)
    np.cumsum(a, axis=0, out=out[1:])
    return out


def coarser(sums: Sums, factor: int) -> Sums:
    """The same sums in buckets `factor` times as long; the last one may be short of data."""
    at = np.arange(0, sums.covered_ns.size, factor)
    if factor == 1 or at.size == 0:
        return sums
    named: dict[str, Any] = {
        name: np.add.reduceat(getattr(sums, name), at, axis=0)
        for name in ("covered_ns", "exposure_ns", "hits", "rings", "lots", "flow")
    }
    return replace(sums, bucket_ns=sums.bucket_ns * factor, **named)


def with_both(a: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Shape (n, 2, d) bid and ask -> (n, 3, d) with the two sides added as the third."""
    return np.concatenate([a, a.sum(axis=1, keepdims=True)], axis=1)


def points(sums: Sums, min_exposure_s: float, end_ns: int | None = None) -> pl.DataFrame:
    """The `points` table: one row per bucket, side and distance, in that order; the last bucket ends at `end_ns`."""
    exposure, hits, rings, lots = (with_both(a) for a in (sums.exposure_ns, sums.hits, sums.rings, sums.lots))
    n_buckets, n_sides, n_deltas = exposure.shape
    per_bucket = n_sides * n_deltas
    start = sums.origin_ns + sums.bucket_ns * np.arange(n_buckets, dtype=np.int64)
    end = start + sums.bucket_ns if end_ns is None else np.minimum(start + sums.bucket_ns, end_ns)
    exposure_s = exposure.ravel() / NS_PER_S
    frame = pl.DataFrame(
        {
            "bucket_start_ns": np.repeat(start, per_bucket),
            "bucket_end_ns": np.repeat(end, per_bucket),
            "side": pl.Series(QUOTE_SIDES).gather(np.tile(np.repeat(np.arange(n_sides), n_deltas), n_buckets)),
            "delta_ticks": np.tile(np.array(sums.deltas, np.float64), n_buckets * n_sides),
            "exposure_ns": exposure.ravel(),
            "exposure_s_total": exposure_s,
            "fills_total": hits.ravel(),
            "ring_fills": rings.ravel(),
            "qty_total": sums.instrument.lots.to_decimal(lots.ravel()),
            "usable": (exposure_s > 0) & (exposure_s >= min_exposure_s),
        }
    )
    at_risk = pl.when(pl.col("exposure_ns") > 0)
    return POINTS.conform(
        frame.with_columns(
            count_rule=pl.lit(sums.count),
            lambda_total=at_risk.then(pl.col("fills_total") / pl.col("exposure_s_total")),
            lambda_qty=at_risk.then(pl.col("qty_total") / pl.col("exposure_s_total")),
        )
    )
