"""Additive sums -> the `points` table, and windows of them by prefix sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.hits import Sums
from mmlab.calib.probes import Ints
from mmlab.core.schemas import POINTS, QUOTE_SIDES
from mmlab.core.spans import NS_PER_S


@dataclass(frozen=True)
class Window:
    """Sums over spans of buckets, each of shape (n_windows, 3 sides: bid, ask, both; n_deltas)."""

    exposure_ns: Ints
    hits: Ints
    rings: Ints
    covered_ns: Ints  # (n_windows,)


def windows(sums: Sums, first: Ints, last: Ints) -> Window:
    """Sums over buckets [first, last), two arrays of shape (n_windows,): differences of prefix sums."""

    def between(a: Ints) -> Ints:
        prefix = np.concatenate([np.zeros_like(a[:1]), np.cumsum(a, axis=0)])
        return np.asarray(prefix[last] - prefix[first], np.int64)

    return Window(
        with_both(between(sums.exposure_ns)),
        with_both(between(sums.hits)),
        with_both(between(sums.rings)),
        between(sums.covered_ns),
    )


def with_both(a: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Shape (n, 2, d) bid and ask -> (n, 3, d) with the two sides added as the third."""
    return np.concatenate([a, a.sum(axis=1, keepdims=True)], axis=1)


def points(sums: Sums, min_exposure_s: float) -> pl.DataFrame:
    """The `points` table: one row per bucket, side and distance, in that order."""
    exposure, hits, rings, lots = (with_both(a) for a in (sums.exposure_ns, sums.hits, sums.rings, sums.lots))
    n_buckets, n_sides, n_deltas = exposure.shape
    per_bucket = n_sides * n_deltas
    start = sums.origin_ns + sums.bucket_ns * np.arange(n_buckets, dtype=np.int64)
    exposure_s = exposure.ravel() / NS_PER_S
    frame = pl.DataFrame(
        {
            "bucket_start_ns": np.repeat(start, per_bucket),
            "bucket_end_ns": np.repeat(start + sums.bucket_ns, per_bucket),
            "side": pl.Series(QUOTE_SIDES).gather(np.tile(np.repeat(np.arange(n_sides), n_deltas), n_buckets)),
            "delta_ticks": np.tile(np.array(sums.spec.deltas, np.int64), n_buckets * n_sides),
            "exposure_ns": exposure.ravel(),
            "exposure_s_total": exposure_s,
            "fills_total": hits.ravel(),
            "ring_fills": rings.ravel(),
            "qty_total": sums.instrument.lots.to_decimal(lots.ravel()),
            "usable": (exposure_s > 0) & (exposure_s >= min_exposure_s),
        }
    )
    rate = pl.when(pl.col("exposure_ns") > 0).then(pl.col("fills_total") / pl.col("exposure_s_total"))
    return POINTS.conform(frame.with_columns(count_rule=pl.lit(sums.spec.count), lambda_total=rate))
