"""The slow, obvious twin of calib/validate.py and calib/stability.py: loops over rows, one formula a line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from scipy import stats

SIDES = ("bid", "ask", "both")
Row = dict[str, Any]


def inside(points: list[Row], side: str, delta: float, start: int, end: int) -> list[Row]:
    """The points of one side and distance whose buckets lie wholly in [start, end)."""
    return [
        p
        for p in points
        if p["side"] == side
        and p["delta_ticks"] == delta
        and start <= p["bucket_start_ns"]
        and p["bucket_end_ns"] <= end
    ]


def seconds(points: list[Row]) -> float:
    """Time at risk."""
    return sum(p["exposure_ns"] for p in points) / 1e9


def log_poisson(n: int, mu: float) -> float:
    """ln P(n | mu)."""
    return n * math.log(mu) - mu - math.lgamma(n + 1)


@dataclass
class Step:
    """What one step adds to one side's scores: hits, and for each predictor what it expected and its score."""

    observed: int = 0
    expected: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("fit", "constant", "last_window"), 0.0))
    score: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("fit", "constant", "last_window"), 0.0))


def validation(points: list[Row], windows: list[Row], nested: bool) -> tuple[list[Row], list[Row]]:
    """Rows of `validation` and of `scores`."""
    deltas = sorted({p["delta_ticks"] for p in points})
    count_of = "ring_fills" if nested else "fills_total"
    rows: list[Row] = []
    judged: dict[str, list[Step]] = {side: [] for side in SIDES}
    for w in windows:
        if w["A"] is None:
            continue
        start, end = w["start_ns"], w["end_ns"]
        if not any(seconds(inside(points, side, d, start, end)) > 0 for side in SIDES for d in deltas):
            continue
        for side in SIDES:
            step, judged_cells = Step(), 0
            for i, delta in enumerate(deltas):
                now = inside(points, side, delta, start, end)
                if not now:
                    continue
                at_risk = seconds(now)
                here = w["A"] * math.exp(-w["k"] * delta)
                last = not nested or i + 1 == len(deltas)
                ring = here if last else here - w["A"] * math.exp(-w["k"] * deltas[i + 1])
                count = sum(p[count_of] for p in now)
                rows.append(
                    {
                        "start_ns": start,
                        "end_ns": end,
                        "side": side,
                        "delta_ticks": delta,
                        "count_rule": now[0]["count_rule"],
                        "age_steps": w["age_steps"],
                        "exposure_s": at_risk,
                        "expected": at_risk * here,
                        "observed": sum(p["fills_total"] for p in now),
                        "expected_ring": at_risk * ring,
                        "observed_ring": count,
                    }
                )
                before = inside(points, side, delta, -(10**18), start)
                trained = inside(points, side, delta, w["train_start_ns"], w["train_end_ns"])
                if not (at_risk > 0 and seconds(before) > 0 and seconds(trained) > 0):
                    continue
                judged_cells += 1
                step.observed += count
                for predictor, rate in (
                    ("fit", ring),
                    ("constant", (sum(p[count_of] for p in before) + 0.5) / seconds(before)),
                    ("last_window", (sum(p[count_of] for p in trained) + 0.5) / seconds(trained)),
                ):
                    step.expected[predictor] += at_risk * rate
                    step.score[predictor] += log_poisson(count, at_risk * rate)
            if judged_cells:
                judged[side].append(step)
    return rows, [score(side, p, judged[side]) for side in SIDES for p in ("fit", "constant", "last_window")]


def score(side: str, predictor: str, steps: list[Step]) -> Row:
    """One row of `scores`."""
    n = len(steps)
    came = sum(s.observed for s in steps)
    expected = sum(s.expected[predictor] for s in steps)
    log_score = sum(s.score[predictor] for s in steps)
    ratio, gain = [None] * 3, [None] * 3
    if expected > 0:
        ratio[0] = came / expected
    if n >= 2 and came > 0:
        apart = [s.observed / came - s.expected[predictor] / expected for s in steps]
        half = stats.t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1) * sum(x * x for x in apart))
        ratio[1:] = [math.exp(math.log(ratio[0]) - half), math.exp(math.log(ratio[0]) + half)]
    gains = [s.score["fit"] - s.score[predictor] for s in steps]
    if n >= 1:
        gain[0] = mean(gains)
    if n >= 2 and predictor != "fit":
        half = stats.t.ppf(0.975, n - 1) * stdev(gains) / math.sqrt(n)
        gain[1:] = [gain[0] - half, gain[0] + half]
    return {
        "side": side,
        "predictor": predictor,
        "steps": n,
        "expected": expected,
        "observed": came,
        "ratio": ratio[0],
        "ratio_low": ratio[1],
        "ratio_high": ratio[2],
        "log_score": log_score,
        "log_score_per_step": log_score / n if n else None,
        "gain_per_step": gain[0],
        "gain_per_step_low": gain[1],
        "gain_per_step_high": gain[2],
    }


def stability(fits: list[Row]) -> list[Row]:
    """Rows of `stability`."""
    taken: list[Row] = []
    for fit in sorted(fits, key=lambda f: (f["train_start_ns"], f["train_end_ns"])):
        if fit["family"] != "exponential" or fit["side"] != "both" or not fit["ok"]:
            continue
        if not taken or fit["train_start_ns"] >= taken[-1]["train_end_ns"]:
            taken.append(fit)
    rows = []
    for name, unit in (("log_A", "1"), ("k", "1/tick")):
        x = [math.log(f["A"]) if name == "log_A" else f["k"] for f in taken]
        se = [f[f"se_{name}_robust"] if f[f"se_{name}_robust"] is not None else f[f"se_{name}"] for f in taken]
        t = [Fraction(f["train_start_ns"] + f["train_end_ns"], 2 * 3600 * 10**9) for f in taken]
        n = len(x)
        scatter = math.sqrt(mean((b - a) ** 2 for a, b in pairwise(x)) / 2) if n >= 2 else None
        mean_se = math.sqrt(mean(s * s for s in se)) if n else None
        drift = drift_se = None
        if n >= 3:  # exact: hours since 1970 would cost digits
            w, hours, y = ([Fraction(value) for value in values] for values in ([1 / s**2 for s in se], t, x))
            centre = sum(a * b for a, b in zip(w, hours, strict=True)) / sum(w)
            spread = sum(a * (b - centre) ** 2 for a, b in zip(w, hours, strict=True))
            drift = float(sum(a * (b - centre) * c for a, b, c in zip(w, hours, y, strict=True)) / spread)
            drift_se = 1 / math.sqrt(spread)
        rows.append(
            {
                "parameter": name,
                "unit": unit,
                "fits": n,
                "mean": mean(x) if n else None,
                "scatter": scatter,
                "mean_se": mean_se,
                "stability": scatter / mean_se if scatter is not None else None,
                "drift_per_hour": drift,
                "drift_se": drift_se,
            }
        )
    return rows
