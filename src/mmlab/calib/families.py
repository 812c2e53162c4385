"""Fitted curves -> the tables `fits` and `curves`: one row a span, side and family of curve.

    exponential  A exp(-k delta), the one that quotes and fills use.
    power_law    A delta^-exponent, the same likelihood in ln delta.
    monotone     no formula: the measured rates, with neighbours that rise pooled (Barlow et al. 1972,
                 isotonic regression). Its likelihood for nested probes is that of rings with a free rate
                 each, which falls by itself; where distances share nothing, that of the pooled rates.

The information criterion (Akaike 1974) weighs them: 2 parameters - 2 ln likelihood of the disjoint counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mmlab.calib.fit import NO_HITS, OK, REASONS, Z95, Curve, curves
from mmlab.calib.points import Floats, Window
from mmlab.calib.probes import Ints
from mmlab.calib.spec import FitSpec
from mmlab.core.schemas import CURVES, FAMILIES, FITS, QUOTE_SIDES
from mmlab.core.spans import NS_PER_S

EXPONENTIAL, POWER_LAW, MONOTONE = FAMILIES
Spans = tuple[Ints, Ints]  # train_start_ns, train_end_ns: shape (n_windows,)


def fits(curve: Curve, window: Window, spans: Spans, spec: FitSpec, count_rule: str) -> pl.DataFrame:
    """The exponential's rows of `fits`, one a window and side."""
    return _finished(_row_heads(window, spans) | _exponential(curve), spec, count_rule, EXPONENTIAL)


def all_families(
    window: Window, deltas: tuple[float, ...], spans: Spans, spec: FitSpec, count_rule: str, nested: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`fits` and `curves` of every family."""
    shown = fits(curves(window, deltas, spec, nested), window, spans, spec, count_rule)
    parts, rates = [shown], [_rates(shown, window, deltas, spec, EXPONENTIAL)]
    if deltas[0] > 0:
        power = curves(window, deltas, spec, nested, power_law=True)
        parts.append(_finished(_row_heads(window, spans) | _power_law(power), spec, count_rule, POWER_LAW))
        rates.append(_rates(parts[-1], window, deltas, spec, POWER_LAW))
    rate = monotone(window, spec, nested)
    parts.append(_finished(_row_heads(window, spans) | _monotone(rate, window, nested), spec, count_rule, MONOTONE))
    rates.append(_table(parts[-1], deltas, MONOTONE, monotone(window, spec, nested=False)))
    return FITS.check(_sorted(parts)), CURVES.check(_sorted(rates))


def monotone(window: Window, spec: FitSpec, nested: bool) -> Floats:
    """The most likely falling intensity, (n_windows, 3, n_deltas) in 1/s; nan at distances with too little exposure.

    nested: from the rings' rates, as their likelihood wants it; else from each distance's own hits.
    """
    T, kept = window.exposure_ns / NS_PER_S, window.used(spec.min_exposure_s)
    if nested:
        ring = np.where(kept, window.rings / np.where(kept, T, 1.0), 0.0)
        rate = np.cumsum(ring[:, :, ::-1], axis=2)[:, :, ::-1]
        return np.where(kept, rate, np.nan)
    rate = np.full(T.shape, np.nan)
    for w, side in np.ndindex(*T.shape[:2]):
        at = kept[w, side]
        rate[w, side, at] = _pooled(window.hits[w, side, at].astype(np.float64), T[w, side, at])
    return rate


def _pooled(N: Floats, T: Floats) -> Floats:
    """Hits and seconds, (n,), nearest first -> the falling rates nearest to N / T: neighbours that rise are pooled."""
    groups: list[tuple[float, float, int]] = []
    for hits, seconds in zip(N, T, strict=True):
        groups.append((hits, seconds, 1))
        while len(groups) > 1 and groups[-2][0] * groups[-1][1] < groups[-1][0] * groups[-2][1]:
            (a, b, c), (d, e, f) = groups.pop(), groups.pop()
            groups.append((a + d, b + e, c + f))
    return np.repeat([a / b for a, b, _ in groups], [c for _, _, c in groups])


def _row_heads(window: Window, spans: Spans) -> dict[str, Any]:
    """What a span and side's rows have in common."""
    n = window.covered_ns.size
    return {
        "train_start_ns": np.repeat(spans[0], 3),
        "train_end_ns": np.repeat(spans[1], 3),
        "side": list(QUOTE_SIDES) * n,
        "exposure_s": np.repeat(window.covered_ns / NS_PER_S, 3),
    }


def _common(curve: Curve) -> dict[str, Any]:
    """What all curves with two parameters tell."""
    return {
        "A": curve.A.ravel(),
        "se_log_A": curve.se_log_A.ravel(),
        "se_log_A_robust": curve.se_log_A_robust.ravel(),
        **_ends("A", np.log(curve.A), curve.se_log_A, Z95, "", exp=True),
        **_ends("A", np.log(curve.A), curve.se_log_A_robust, curve.t95, "_robust", exp=True),
        "blocks": curve.blocks.ravel(),
        "log_likelihood": curve.log_likelihood.ravel(),
        "n_params": np.full(curve.A.size, 2),
        "aic": (4 - 2 * curve.log_likelihood).ravel(),
        "ring_excess": curve.ring_excess.ravel(),
        "deviance": curve.deviance.ravel(),
        "dispersion": curve.dispersion.ravel(),
        "p_value": curve.p_value.ravel(),
        "points_used": curve.points_used.ravel(),
        "fills_total": curve.nearest_hits.ravel(),
        "ok": (curve.reason == OK).ravel(),
        "reason": [REASONS[r] for r in curve.reason.ravel()],
    }


def _exponential(curve: Curve) -> dict[str, Any]:
    return _common(curve) | {
        "k": curve.k.ravel(),
        "se_k": curve.se_k.ravel(),
        "se_k_robust": curve.se_k_robust.ravel(),
        **_ends("k", curve.k, curve.se_k, Z95, ""),
        **_ends("k", curve.k, curve.se_k_robust, curve.t95, "_robust"),
    }


def _power_law(curve: Curve) -> dict[str, Any]:
    """Its exponent has a column of its own, since it is no k: the two have different units."""
    return _common(curve) | {"exponent": curve.k.ravel(), "se_exponent": curve.se_k.ravel()}


def _ends(name: str, at: Floats, se: Floats, z: float | Floats, suffix: str, exp: bool = False) -> dict[str, Any]:
    """The two ends of an interval."""
    ends = {"low": at - z * se, "high": at + z * se}
    with np.errstate(over="ignore"):  # an end that no double holds becomes null
        return {f"{name}_{end}{suffix}": (np.exp(value) if exp else value).ravel() for end, value in ends.items()}


def _monotone(rate: Floats, window: Window, nested: bool) -> dict[str, Any]:
    """As many parameters as it has levels; its deviance is what no falling curve explains."""
    from scipy.special import gammaln, xlogy  # noqa: PLC0415 - its import takes longer than a day's schedule

    T, N = window.exposure_ns / NS_PER_S, window.rings if nested else window.hits
    kept = np.isfinite(rate)
    ring = np.where(kept, rate, 0.0)
    if nested:
        ring = ring - np.concatenate([ring[:, :, 1:], np.zeros_like(ring[:, :, :1])], axis=2)
    mu = np.where(kept, T * ring, 1.0)
    part = np.where(kept, xlogy(N, np.where(N > 0, mu, 1.0)) - mu - gammaln(N + 1.0), 0.0)
    likelihood = part.sum(axis=2)
    saturated = np.where(kept, xlogy(N, N) - N - gammaln(N + 1.0), 0.0).sum(axis=2)
    steps = kept.sum(axis=2) if nested else np.array([[_levels(r) for r in side] for side in rate])
    hits = np.where(kept, window.hits, 0)
    ok = hits.sum(axis=2) > 0
    return {
        "log_likelihood": likelihood.ravel(),
        "n_params": steps.ravel(),
        "aic": (2 * steps - 2 * likelihood).ravel(),
        "deviance": np.maximum(2 * (saturated - likelihood), 0.0).ravel(),
        "points_used": kept.sum(axis=2).ravel(),
        "fills_total": np.take_along_axis(hits, kept.argmax(axis=2)[:, :, None], axis=2).ravel(),
        "blocks": np.zeros(ok.size, np.int64),
        "ok": ok.ravel(),
        "reason": ["" if good else REASONS[NO_HITS] for good in ok.ravel()],
    }


def _levels(rate: Floats) -> int:
    return int(np.unique(rate[np.isfinite(rate)]).size)


def _rates(rows: pl.DataFrame, window: Window, deltas: tuple[float, ...], spec: FitSpec, family: str) -> pl.DataFrame:
    """What a family's formula gives at the distances that were used."""
    x = np.array(deltas, np.float64)
    A, k = (rows[name].to_numpy().reshape(-1, 3, 1) for name in ("A", "k" if family == EXPONENTIAL else "exponent"))
    rate = A * np.exp(-k * (x if family == EXPONENTIAL else np.log(x)))
    return _table(rows, deltas, family, np.where(window.used(spec.min_exposure_s), rate, np.nan))


def _table(rows: pl.DataFrame, deltas: tuple[float, ...], family: str, rate: Floats) -> pl.DataFrame:
    """`curves` rows: (n_windows, 3, n_deltas) rates beside the spans and sides of `rows`; nan is left out."""
    n = len(deltas)
    heads = rows.select("train_start_ns", "train_end_ns", "side").select(pl.all().repeat_by(n).explode())
    frame = heads.with_columns(
        family=pl.lit(family),
        delta_ticks=pl.Series(np.tile(np.array(deltas, np.float64), rows.height)),
        rate=pl.Series(rate.ravel()),
    )
    return CURVES.conform(frame.filter(pl.col("rate").is_finite()))


def _finished(columns: dict[str, Any], spec: FitSpec, count_rule: str, family: str) -> pl.DataFrame:
    """Rows with every column of `fits`, nan and infinity as null."""
    made = pl.DataFrame(columns).with_columns(
        family=pl.lit(family), fit_method=pl.lit(spec.fit_method), count_rule=pl.lit(count_rule)
    )
    absent = [pl.lit(None).alias(name) for name in FITS.schema if name not in made.columns]
    floats = [c.name for c in FITS.columns if c.dtype == pl.Float64 and c.name in made.columns]
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)) for name in floats]
    return FITS.conform(made.with_columns(*finite, *absent))


def _sorted(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows of all families, span by span: the exponential's three sides first."""
    frame = pl.concat(parts)
    rank = {
        name: pl.col(name).replace_strict(list(values), range(len(values)), return_dtype=pl.Int8)
        for name, values in (("family", FAMILIES), ("side", QUOTE_SIDES))
    }
    near = ["delta_ticks"] if "delta_ticks" in frame.columns else []
    return frame.sort("train_start_ns", "train_end_ns", rank["family"], rank["side"], *near)


__all__ = ["all_families", "fits", "monotone"]
