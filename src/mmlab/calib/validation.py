"""A schedule against what came: hits foretold and met, step by step, and whether simpler predictors do better.

For one step, side and distance delta the fit in force foretells exposure * A exp(-k delta) hits, where
exposure is the time that probes really stood at risk in the step: given that time, this is the
compensator of the hit count (Daley and Vere-Jones 2003, ch. 7), so nothing of the step's hits enters.
Scores are taken on disjoint counts where there are any, since their likelihoods multiply. Under
`sweeps` and `all_hits` nested distances share prints, and the count is that of the ring, hits that
reached delta_i and not delta_i+1, with the rate lambda(delta_i) - lambda(delta_i+1), the last one
lambda(delta_D). Distances that were each measured on their own are disjoint as they are. Under
`first_hit` the rings add up to more than the hits wherever prints follow one another outwards, as they
do in a market that moves: there each distance is scored on its own hits (a composite likelihood, Varin
et al. 2011, still highest for the right rates), and its dependence is left to the interval over steps.

    fit          the schedule's (A, k)
    constant     one rate a side and distance, (hits + 0.5) / time at risk over all that ended before the step
    last_window  the same over the step's own training span: the raw rates that the fit smooths

All sums over buckets are differences of prefix sums of integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import gammaln, stdtrit

from mmlab.calib.stability import Floats, Ints, stability
from mmlab.core.calib_schemas import PREDICTORS, QUOTE_SIDES, SCORES, VALIDATION
from mmlab.core.errors import DataError
from mmlab.core.spans import NS_PER_S

Bools = npt.NDArray[np.bool_]
Estimate = tuple[float | None, float | None, float | None]  # value, and the ends of its 95% interval
BAND = 0.05  # a ratio whose interval lies within 1 -/+ BAND is near enough to 1
BASELINES = {"constant": "a constant rate", "last_window": "the last window's rates"}
PRIOR_HITS = 0.5  # half a hit, so that no rate is zero


@dataclass(frozen=True)
class Validation:
    """`steps`: VALIDATION rows; `scores`: SCORES rows; `stability`: STABILITY rows; `verdict`: one line."""

    steps: pl.DataFrame
    scores: pl.DataFrame
    stability: pl.DataFrame
    verdict: str


@dataclass(frozen=True)
class _Steps:
    """The steps to judge, arrays of shape (n_steps,); buckets of a span are [first, last), of the past [0, past)."""

    start_ns: Ints
    end_ns: Ints
    age: Ints
    A: Floats
    k: Floats
    first: Ints
    last: Ints
    past: Ints
    train_first: Ints
    train_last: Ints


@dataclass(frozen=True)
class _Sums:
    """One side's sums, arrays of shape (n_steps, n_deltas); `counts` are those scored, rates nan without exposure."""

    seen: Bools
    exposure_s: Floats
    hits: Ints
    counts: Ints
    past_rate: Floats
    train_rate: Floats


def validate(points: pl.DataFrame, fits: pl.DataFrame, windows: pl.DataFrame, nested: bool = True) -> Validation:
    """Judge the schedule `windows` (WINDOWS) by the `points` (POINTS) of its steps, and its `fits` (FITS).

    Buckets must divide the steps. A step is judged if it has parameters and some time at risk; the last
    one may be covered in part. `nested`: probes stood at all distances at once; under sweeps and all_hits
    rings are then the disjoint counts. The distances are all those of `points`. Times are ns UTC, distances
    ticks, rates hits a second and side. `steps` has a row for every step, side and distance that has points.

    `scores` has three rows a side, all on the cells that have time at risk in the step, before it and in
    its training span. The interval of `ratio` = O / E is on the log scale with Student's t over the n step
    sums, by the delta method: var ln ratio = n / (n - 1) * sum of (O_t / O - E_t / E)^2 (Cochran 1977,
    section 6.4); null for fewer than 2 steps or without hits. That of `gain_per_step` is Student's t over
    steps; for the fit itself the gain is 0 without an interval.

    Raises DataError if there is no step to judge, if a training span ends after its step has begun, if A or
    k is not above 0, or if two points share bucket, side and distance.
    """
    starts, steps = _steps(points, windows)
    nested = nested and points["count_rule"][0] != "first_hit"
    deltas = np.sort(points["delta_ticks"].unique().to_numpy())
    log_rate = np.log(steps.A)[:, None] - steps.k[:, None] * deltas
    gap = np.append(np.diff(deltas), np.inf)
    log_ring = log_rate + np.log(-np.expm1(-steps.k[:, None] * gap)) if nested else log_rate
    sides = [_sums(points.filter(pl.col("side") == side), starts, deltas, steps, nested) for side in QUOTE_SIDES]
    rows = [row for side, sums in zip(QUOTE_SIDES, sides, strict=True) for row in _scores(side, sums, log_ring)]
    scores = SCORES.check(SCORES.conform(pl.DataFrame(rows, schema_overrides=SCORES.schema)))
    table = VALIDATION.check(_table(steps, deltas, sides, np.exp(log_rate), np.exp(log_ring), points["count_rule"][0]))
    return Validation(table, scores, stability(fits), verdict(scores))


def verdict(scores: pl.DataFrame) -> str:
    """One line for a trader from the SCORES rows of side both.

    It begins, in this order, with "too little data" for fewer than 2 steps or no hits; "off by N%" if the
    interval of observed / expected excludes 1 and is not within 0.95 to 1.05; "worse than ..." if the fit's
    log score is significantly (95%) worse than a baseline's; else "holds".
    """
    row = {r["predictor"]: r for r in scores.filter(pl.col("side") == "both").iter_rows(named=True)}
    fit = row["fit"]
    ratio, low, high = fit["ratio"], fit["ratio_low"], fit["ratio_high"]
    met = f"{fit['expected']:,.0f} hits predicted, {fit['observed']:,} came"
    if low is None or high is None:
        return f"too little data: {fit['steps']} step{'' if fit['steps'] == 1 else 's'} judged, {met}"
    better = [text for name, text in BASELINES.items() if row[name]["gain_per_step_high"] < 0]
    if not low <= 1 <= high and not 1 - BAND <= low <= high <= 1 + BAND:
        head = f"off by {abs(ratio - 1):.0%}"
    else:
        head = f"worse than {' and '.join(better)}" if better else "holds"
    gains = [_gain_text(text, row[name]) for name, text in BASELINES.items()]
    verbs = [text.partition(" ") for text in gains]
    second = verbs[1][2] if verbs[0][0] == verbs[1][0] else gains[1]
    return f"{head}: {met} ({ratio:.2f}, 95% {low:.2f} to {high:.2f}); a step's log score {gains[0]} and {second}"


def _gain_text(name: str, row: dict[str, float]) -> str:
    """`beats a constant rate by 3.1 (1.2 to 5.0)`, or `trails ...` with the signs turned."""
    gain, low, high = row["gain_per_step"], row["gain_per_step_low"], row["gain_per_step_high"]
    digits = 1 if high - low >= 1 else 2 if high - low >= 0.1 else 3
    if gain < 0:
        gain, low, high = -gain, -high, -low
        return f"trails {name} by {gain:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"beats {name} by {gain:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _steps(points: pl.DataFrame, windows: pl.DataFrame) -> tuple[Ints, _Steps]:
    """Starts of the buckets, shape (n_buckets,), and the steps with parameters and time at risk."""
    buckets = (
        points.group_by("bucket_start_ns", "bucket_end_ns")
        .agg(at_risk=(pl.col("exposure_ns") > 0).any())
        .sort("bucket_start_ns")
    )
    starts, ends = (buckets[f"bucket_{name}_ns"].to_numpy() for name in ("start", "end"))
    at_risk = np.concatenate([[0], np.cumsum(buckets["at_risk"].to_numpy())])
    known = windows.filter(pl.col("A").is_not_null() & pl.col("k").is_not_null()).sort("start_ns")
    _refuse(known)

    def span(first: str, last: str) -> tuple[Ints, Ints]:
        """Buckets [first, last) that lie wholly between two instants of each step."""
        a = np.searchsorted(starts, known[first].to_numpy())
        return a, np.maximum(a, np.searchsorted(ends, known[last].to_numpy(), side="right"))

    first, last = span("start_ns", "end_ns")
    kept = at_risk[last] > at_risk[first]
    if not kept.any():
        why = "has parameters" if known.is_empty() else "with parameters holds a bucket in which probes were at risk"
        raise DataError(
            f"there is no step to judge: none of the {windows.height:,} steps {why}",
            remedy="give more data, a smaller --train-window-min, or buckets that divide the step",
        )
    past = np.searchsorted(ends, known["start_ns"].to_numpy(), side="right")
    columns = (known[name].to_numpy() for name in ("start_ns", "end_ns", "age_steps", "A", "k"))
    arrays = (*columns, first, last, past, *span("train_start_ns", "train_end_ns"))
    return starts, _Steps(*(a[kept] for a in arrays))


def _refuse(known: pl.DataFrame) -> None:
    """Raise DataError for steps whose parameters are no curve, or were fitted on what they are to foretell."""
    positive = (pl.col(name).is_finite() & (pl.col(name) > 0) for name in ("A", "k"))
    faults = {
        "A or k is not above 0": ~pl.all_horizontal(positive),
        "the training span ends after the step has begun": pl.col("train_end_ns") > pl.col("start_ns"),
    }
    for fault, holds in faults.items():
        if not (bad := known.filter(holds)).is_empty():
            raise DataError(
                f"{fault}: {bad.height:,} steps, the first at {bad['start_ns'][0]} ns",
                remedy="validate a schedule as `mmlab calibrate schedule` makes it",
            )


def _sums(own: pl.DataFrame, starts: Ints, deltas: Floats, steps: _Steps, nested: bool) -> _Sums:
    """Sums of one side's points over each step, its past and its training span."""
    place = np.searchsorted(starts, own["bucket_start_ns"].to_numpy()) + 1
    place = place * deltas.size + np.searchsorted(deltas, own["delta_ticks"].to_numpy())

    def prefix(values: Ints) -> Ints:
        table = np.zeros((starts.size + 1) * deltas.size, np.int64)
        table[place] = values
        return np.cumsum(table.reshape(-1, deltas.size), axis=0)

    def rate(time: Ints, count: Ints, first: Ints | int, last: Ints) -> Floats:
        seconds = (time[last] - time[first]) / NS_PER_S
        at_risk = np.where(seconds > 0, seconds, np.nan)
        return np.asarray((count[last] - count[first] + PRIOR_HITS) / at_risk, np.float64)

    def in_step(sums: Ints) -> Ints:
        return np.asarray(sums[steps.last] - sums[steps.first], np.int64)

    seen = prefix(np.ones(own.height, np.int64))
    if seen[-1].sum() != own.height:
        raise DataError("two points share bucket, side and distance", remedy="validate one calibration at a time")
    time, hits = prefix(own["exposure_ns"].to_numpy()), prefix(own["fills_total"].to_numpy())
    count = prefix(own["ring_fills"].to_numpy()) if nested else hits
    return _Sums(
        in_step(seen) > 0,
        in_step(time) / NS_PER_S,
        in_step(hits),
        in_step(count),
        rate(time, count, 0, steps.past),
        rate(time, count, steps.train_first, steps.train_last),
    )


def _table(
    steps: _Steps, deltas: Floats, sides: list[_Sums], rate: Floats, ring_rate: Floats, count_rule: str
) -> pl.DataFrame:
    """The `validation` table, in the order step, side, distance; `rate` has the shape (n_steps, n_deltas)."""
    n_steps, n_sides, n_deltas = steps.first.size, len(sides), deltas.size

    def cells(values: list[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        return np.stack(values, axis=1).ravel()

    def each(values: Ints) -> Ints:
        return np.repeat(values, n_sides * n_deltas)

    side = np.tile(np.repeat(np.arange(n_sides), n_deltas), n_steps)
    frame = pl.DataFrame(
        {
            "start_ns": each(steps.start_ns),
            "end_ns": each(steps.end_ns),
            "side": pl.Series(QUOTE_SIDES).gather(side),
            "delta_ticks": np.tile(deltas, n_steps * n_sides),
            "age_steps": each(steps.age),
            "exposure_s": cells([s.exposure_s for s in sides]),
            "expected": cells([s.exposure_s * rate for s in sides]),
            "observed": cells([s.hits for s in sides]),
            "expected_ring": cells([s.exposure_s * ring_rate for s in sides]),
            "observed_ring": cells([s.counts for s in sides]),
        }
    ).with_columns(count_rule=pl.lit(count_rule))
    seen = cells([s.seen for s in sides])
    return VALIDATION.conform(frame if seen.all() else frame.filter(seen))


def _scores(side: str, sums: _Sums, log_ring: Floats) -> list[dict[str, object]]:
    """The `scores` rows of one side; `log_ring` is the fit's ln rate of what is scored, (n_steps, n_deltas)."""
    judged = (sums.exposure_s > 0) & np.isfinite(sums.past_rate) & np.isfinite(sums.train_rate)
    kept = judged.any(axis=1)  # steps without a cell to judge would count as draws
    judged = judged[kept]
    log_time = np.log(np.where(judged, sums.exposure_s[kept], 1.0))
    counts = np.where(judged, sums.counts[kept], 0)
    rest = np.asarray(gammaln(counts + 1.0), np.float64)
    observed, rows = counts.sum(axis=1), []
    fit_score = np.zeros(0)
    for predictor, log_rate in zip(
        PREDICTORS, (log_ring, np.log(sums.past_rate), np.log(sums.train_rate)), strict=True
    ):
        log_mu = np.where(judged, log_rate[kept] + log_time, 0.0)
        mu = np.where(judged, np.exp(log_mu), 0.0)
        score, expected = (counts * log_mu - mu - rest).sum(axis=1), mu.sum(axis=1)
        fit_score = score if predictor == "fit" else fit_score
        gain = _mean(fit_score - score)
        rows.append(
            {
                "side": side,
                "predictor": predictor,
                "steps": score.size,
                "expected": float(expected.sum()),
                "observed": int(observed.sum()),
                **_named("ratio", _ratio(observed, expected)),
                "log_score": float(score.sum()),
                "log_score_per_step": _mean(score)[0],
                **_named("gain_per_step", (gain[0], None, None) if predictor == "fit" else gain),
            }
        )
    return rows


def _named(name: str, estimate: Estimate) -> dict[str, float | None]:
    """A value and its interval under their columns' names."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), estimate, strict=True))


def _mean(values: Floats) -> Estimate:
    """Mean and Student's 95% interval of it; null for no value, the interval for fewer than 2."""
    n = values.size
    if n < 2:
        return (float(values[0]) if n else None), None, None
    mean, half = float(values.mean()), float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def _ratio(observed: Ints, expected: Floats) -> Estimate:
    """Observed / expected over all steps, with the interval that `validate` states; arrays of shape (n_steps,)."""
    n, came, foretold = observed.size, int(observed.sum()), float(expected.sum())
    if not foretold > 0:
        return None, None, None
    ratio = came / foretold
    if n < 2 or came == 0:
        return ratio, None, None
    variance = n / (n - 1) * float(np.sum((observed / came - expected / foretold) ** 2))
    spread = float(np.exp(stdtrit(n - 1, 0.975) * np.sqrt(variance)))
    return ratio, ratio / spread, ratio * spread
