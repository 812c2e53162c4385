"""Own orders -> points, fits and curves: what `orders.py` measured, in the shape that all designs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from mmlab.calib.families import all_families
from mmlab.calib.hits import Sums
from mmlab.calib.orders import NO_HOLES, Tally, exposures, tally
from mmlab.calib.points import BLOCKS, coarser, points, windows
from mmlab.calib.probes import Ints
from mmlab.calib.run import Ladder
from mmlab.calib.spec import FitSpec
from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import FITS

Holes = tuple[Ints, Ints]
SHARED = ("log_likelihood", "aic", "deviance", "dispersion", "p_value")  # what only independent counts have


def from_orders(
    orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame, instrument: Instrument, fit: FitSpec,
    *, min_delta_ticks: float = 0.0, max_delta_ticks: float | None = 50.0, holes: Holes = NO_HOLES,
) -> Ladder:  # fmt: skip
    """Calibrate on a backtest's own orders; raises DataError if none was at risk at these distances.

    Distances are measured at activation, in half ticks, and each is a point of its own; an order's first fill
    ends its time at risk and counts once. Different distances were different orders: no rings, no nested_mle.
    """
    check_fit(fit)
    exposed = exposures(orders, fills, state, instrument, holes)
    span = _span(exposed)
    made = tally(exposed, min_delta_ticks=min_delta_ticks, max_delta_ticks=max_delta_ticks, **_buckets(span))
    if not made.deltas:
        most = np.inf if max_delta_ticks is None else max_delta_ticks
        raise DataError(
            f"no order was at risk from {min_delta_ticks:g} to {most:g} ticks from the mid",
            remedy="give other --min-delta-ticks and --max-delta-ticks",
        )
    return _ladder(sums([made], made.deltas, instrument), fit, span, exposed.height)


def from_runs(runs: Sequence[tuple[float, pl.DataFrame]], instrument: Instrument, fit: FitSpec) -> Ladder:
    """Calibrate on several runs over one tape, each at one distance: (delta in ticks, its `exposures`) nearest first.

    The runs' orders were filled by the same prints, so that their counts are not independent: only the robust
    errors hold, and there is no likelihood, p-value or information criterion to state.
    """
    check_fit(fit)
    span = _span(pl.concat([exposed for _, exposed in runs]))
    made = [
        tally(
            exposed.with_columns(distance2=pl.lit(round(2 * delta), pl.Int64)),
            min_delta_ticks=delta, max_delta_ticks=delta, **_buckets(span),
        )
        for delta, exposed in runs
    ]  # fmt: skip
    deltas = tuple(delta for delta, _ in runs)
    n_orders = sum(exposed.height for _, exposed in runs)
    found = _ladder(sums(made, deltas, instrument), fit, span, n_orders)
    return replace(
        found, fits=FITS.check(found.fits.with_columns(pl.lit(None).cast(pl.Float64).alias(n) for n in SHARED))
    )


def sums(made: Sequence[Tally], deltas: tuple[float, ...], instrument: Instrument) -> Sums:
    """Tallies side by side along the distances; what is covered is the longest mean of the two sides."""
    exposure, hits, lots = (
        np.concatenate([_whole(getattr(one, name)) for one in made], axis=2) for name in ("exposure_ns", "hits", "lots")
    )
    covered = np.max([_whole(one.exposure_ns).sum(axis=(1, 2)) for one in made], axis=0) // 2
    flow = np.zeros((exposure.shape[0], 3), np.int64)
    first = made[0]
    return Sums(
        first.origin_ns, first.bucket_ns, deltas, "first_hit", instrument, covered, exposure, hits, hits, lots, flow
    )


def _whole(a: Ints) -> Ints:
    """A run that had no order at its distance has no exposure there."""
    return a if a.shape[2] else np.zeros((*a.shape[:2], 1), np.int64)


def check_fit(fit: FitSpec) -> None:
    """Raise UsageError for an estimator that orders do not allow."""
    if fit.fit_method == "nested_mle":
        raise UsageError(
            "--fit-method nested_mle is for probes that stand at all distances at once, not for orders",
            remedy="use poisson_mle: orders at different distances share no fills",
        )


def _span(exposed: pl.DataFrame) -> tuple[int, int]:
    """First activation and last end; raises DataError if there is no order."""
    if exposed.is_empty():
        raise DataError("no order was ever at risk", remedy="calibrate on a run that has resting orders")
    hit_ns = exposed["hit_ns"].max()
    last = max(int(exposed["end_ns"].max()), -1 if hit_ns is None else int(hit_ns))  # type: ignore[arg-type]
    return int(exposed["active_ns"].min()), last  # type: ignore[arg-type]


def _buckets(span: tuple[int, int]) -> dict[str, int]:
    bucket_ns = -(-(span[1] - span[0] + 1) // BLOCKS)
    return {"origin_ns": span[0], "bucket_ns": bucket_ns, "n_buckets": BLOCKS}


def _ladder(summed: Sums, fit: FitSpec, span: tuple[int, int], n_orders: int) -> Ladder:
    window = windows(summed, np.array([0]), np.array([BLOCKS]))
    spans = (np.array([span[0]]), np.array([span[1] + 1]))
    fits, curves = all_families(window, summed.deltas, spans, fit, summed.count, nested=False)
    return Ladder(points(coarser(summed, BLOCKS), fit.min_exposure_s, span[1] + 1), fits, curves, n_orders)
