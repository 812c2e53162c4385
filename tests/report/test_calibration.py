"""The calibration figures show their tables' numbers, say what they find, and leave gaps where nothing is known."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.stats import chi2

from mmlab.core import schemas
from mmlab.core.spans import NS_PER_MIN, NS_PER_S, day_start_ns
from mmlab.core.table import Table
from mmlab.flows.report import drawings, last_span
from mmlab.report.bands import steps
from mmlab.report.calibration import (
    coverage,
    curves_by_hour,
    dispersion,
    fill_times,
    log_scores,
    reliability,
    reliability_by_distance,
)
from mmlab.report.correlation import correlation, rank_correlation
from mmlab.report.figures import families, intensity, parameters, png
from mmlab.report.page import CAPTIONS

START = day_start_ns(date(2025, 1, 1))
QUARTER, HOUR = 15 * NS_PER_MIN, 60 * NS_PER_MIN
DELTAS = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0)
SIDES = ("bid", "ask", "both")
Rows = list[dict[str, Any]]


def table(contract: Table, rows: Rows) -> pl.DataFrame:
    """Rows as a checked table, nullable columns that are not given null."""
    blank = {c.name: None for c in contract.columns}
    return contract.check(pl.DataFrame([{**blank, **row} for row in rows], schema=contract.schema))


def truth(ns: int) -> tuple[float, float]:
    """A and k of a market that is busy in the afternoon."""
    phase = 2 * math.pi * (ns - START) / (24 * HOUR)
    return 1.2 - 0.8 * math.sin(phase), 0.25 + 0.06 * math.cos(phase)


def point_rows(start_ns: int, end_ns: int, hits: dict[float, int], exposure_s: float) -> Rows:
    """A bucket's rows: `hits` on the bid and as many on the ask."""
    rings = {d: n - m for (d, n), m in zip(hits.items(), [*list(hits.values())[1:], 0], strict=True)}
    return [
        {
            "bucket_start_ns": start_ns,
            "bucket_end_ns": end_ns,
            "side": side,
            "delta_ticks": d,
            "count_rule": "first_hit",
            "exposure_ns": round(exposure_s * times * NS_PER_S),
            "exposure_s_total": exposure_s * times,
            "fills_total": n * times,
            "ring_fills": rings[d] * times,
            "qty_total": 0.1 * n * times,
            "lambda_total": n / exposure_s if exposure_s else None,
            "lambda_qty": 0.1 * n / exposure_s if exposure_s else None,
            "usable": exposure_s > 5,
        }
        for side, times in (("bid", 1), ("ask", 1), ("both", 2))
        for d, n in hits.items()
    ]


def points(hours: int = 24, start_hour: int = 0, seed: int = 3) -> pl.DataFrame:
    """Quarter hours of a seeded market."""
    rng, rows = np.random.default_rng(seed), []
    for b in range(hours * 4):
        at = START + start_hour * HOUR + b * QUARTER
        A, k = truth(at)
        rate = A * np.exp(-k * np.array(DELTAS))
        rings = rng.poisson(860 * (rate - np.append(rate[1:], 0)))
        rows += point_rows(
            at, at + QUARTER, dict(zip(DELTAS, np.cumsum(rings[::-1])[::-1].tolist(), strict=True)), 860.0
        )
    return table(schemas.POINTS, rows)


def fit_row(
    start_ns: int, end_ns: int, family: str = "exponential", side: str = "both", **change: Any
) -> dict[str, Any]:
    """One row of `fits`."""
    A, k = change.pop("A", 1.5), change.pop("k", 0.25)
    shape: dict[str, Any] = {
        "exponential": {
            "A": A, "k": k, "se_log_A": 0.02, "se_k": 0.006, "A_low": A * 0.96, "A_high": A * 1.04,
            "k_low": k - 0.012, "k_high": k + 0.012, "n_params": 2,
        },
        "power_law": {"A": A, "exponent": 1.1, "se_log_A": 0.02, "se_exponent": 0.02, "n_params": 2},
        "monotone": {"n_params": 6},
    }[family]  # fmt: skip
    return {
        "train_start_ns": start_ns, "train_end_ns": end_ns, "side": side, "family": family,
        "fit_method": "nested_mle", "count_rule": "first_hit", "blocks": 24, "log_likelihood": -50.0, "aic": 104.0,
        "deviance": 5.0, "dispersion": 1.2, "p_value": 0.3, "points_used": 6, "fills_total": 900,
        "exposure_s": 6900.0, "ok": True, "reason": "", **shape, **change,
    }  # fmt: skip


def robust(A: float, k: float) -> dict[str, float]:
    """Wider intervals than those of fit_row."""
    return {
        "se_log_A_robust": 0.06, "se_k_robust": 0.015, "A_low_robust": A * 0.88, "A_high_robust": A * 1.13,
        "k_low_robust": k - 0.03, "k_high_robust": k + 0.03,
    }  # fmt: skip


def schedule(seed: int = 5) -> dict[str, pl.DataFrame]:
    """Points, fits, windows and window_metrics of a day: two steps before the first fit, three carried on."""
    rng = np.random.default_rng(seed)
    fits, windows, metrics = [], [], []
    A = k = age = None
    for i in range(88):
        start = START + 2 * HOUR + i * QUARTER
        train = {"train_start_ns": start - 2 * HOUR, "train_end_ns": start}
        source = "none" if i < 2 else "carry_forward" if i in (40, 41, 42) else "fit"
        true_A, true_k = truth(start - HOUR)
        own_A, own_k = true_A * math.exp(rng.normal(0, 0.03)), true_k + rng.normal(0, 0.008)
        if source == "fit":
            A, k, age = own_A, own_k, 0
        elif source == "carry_forward":
            age = (age or 0) + 1
        good = source == "fit"
        for family in schemas.FAMILIES:
            wide = robust(own_A, own_k) if family == "exponential" and i >= 20 else {}
            fits.append(
                fit_row(**{"start_ns": start - 2 * HOUR, "end_ns": start}, family=family, A=own_A, k=own_k, **wide)
                | {"ok": good, "reason": "" if good else "flat curve"}
            )
        step = {"start_ns": start, "end_ns": start + QUARTER, **train}
        covered = 0.96 if i not in range(40, 48) else 0.3 + 0.05 * (i - 40)
        windows.append(
            {
                **step, "A": A, "k": k, "source": source, "reason": "" if good else "flat curve", "age_steps": age,
                "coverage": covered, "fills_total": int(6000 * own_A * covered),
            }
        )  # fmt: skip
        rate = own_A * 3 * math.exp(rng.normal(0, 0.15))
        metrics.append(
            {
                **step, "exposure_s": 7200 * covered, "fills_total": int(6000 * own_A * covered),
                "dispersion": 3 + rng.gamma(4, 0.4), "prints": int(7200 * rate), "trade_rate": rate,
                "qty_rate": rate * 0.02 * math.exp(rng.normal(0, 0.3)), "buy_share": 0.5 + rng.normal(0, 0.05),
                "volatility": 0.4 / own_k + rng.normal(0, 0.1), "spread": 1.4 + rng.normal(0, 0.1),
                "coverage": covered, "condition": "degraded" if 40 <= i < 50 else "complete",
            }
        )  # fmt: skip
    made = {
        schemas.FITS: fits,
        schemas.WINDOWS: windows,
        schemas.WINDOW_METRICS: metrics,
    }
    return {"points": points()} | {t.name: table(t, rows) for t, rows in made.items()}


def ladder() -> dict[str, pl.DataFrame]:
    """Points, fits and curves of one span; the exponential misses a heavy tail."""
    hits = {1.0: 3900, 2.0: 2700, 3.0: 2000, 5.0: 1250, 8.0: 640, 13.0: 330, 21.0: 0}
    span = (START, START + HOUR)
    aic = {"exponential": 116.3, "power_law": 149.0, "monotone": 104.0}
    chance = {"exponential": 0.0004, "power_law": 2e-12, "monotone": None}
    rate: dict[str, Callable[[float], float]] = {
        "exponential": lambda d: 1.45 * math.exp(-0.24 * d),
        "power_law": lambda d: 1.1 * d**-0.95,
        "monotone": lambda d: hits[d] / 3500,
    }
    own: Rows = [{"train_start_ns": span[0], "train_end_ns": span[1], "side": side} for side in SIDES]
    return {
        "points": table(schemas.POINTS, point_rows(*span, hits, 3500.0)),
        "fits": table(
            schemas.FITS,
            [
                fit_row(*span, family=f, side=side, A=1.45, k=0.24, aic=aic[f], p_value=chance[f])
                for f in schemas.FAMILIES
                for side in SIDES
            ],
        ),
        "curves": table(
            schemas.CURVES,
            [
                {**row, "family": f, "delta_ticks": d, "rate": of(d)}
                for f, of in rate.items()
                for row in own
                for d in hits
            ],
        ),
    }


def validated(seed: int = 7) -> dict[str, pl.DataFrame]:
    """Validation, scores and stability: the far distances fill more often than the curve says."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(60):
        start = START + 2 * HOUR + i * QUARTER
        A, k = truth(start)
        rate = A * np.exp(-k * np.array(DELTAS))
        ring = rate - np.append(rate[1:], 0)
        wrong = np.linspace(0.95, 1.5, 6) * math.exp(rng.normal(0, 0.1))
        cells: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for side in ("bid", "ask"):
            came = rng.poisson(860 * ring * wrong)
            cells[side] = (np.cumsum(came[::-1])[::-1], came)
        cells["both"] = (cells["bid"][0] + cells["ask"][0], cells["bid"][1] + cells["ask"][1])
        rows += [
            {
                "start_ns": start, "end_ns": start + QUARTER, "side": side, "delta_ticks": d, "count_rule": "first_hit",
                "age_steps": 0, "exposure_s": 860.0 * times, "expected": 860 * times * rate[j],
                "observed": int(cells[side][0][j]), "expected_ring": 860 * times * ring[j],
                "observed_ring": int(cells[side][1][j]),
            }
            for side, times in (("bid", 1), ("ask", 1), ("both", 2))
            for j, d in enumerate(DELTAS)
        ]  # fmt: skip
    gains = {"fit": (None,) * 3, "constant": (4.2, 2.1, 6.3), "last_window": (0.4, -0.3, 1.1)}
    whole = {
        side: [sum(r[name] for r in rows if r["side"] == side) for name in ("expected_ring", "observed_ring")]
        for side in SIDES
    }
    scores: Rows = [
        {
            "side": side, "predictor": name, "steps": 60, "expected": whole[side][0], "observed": whole[side][1],
            "ratio": ratio, "ratio_low": ratio - 0.05, "ratio_high": ratio + 0.05, "log_score": -1800.0,
            "log_score_per_step": -30.0, "gain_per_step": gain, "gain_per_step_low": low, "gain_per_step_high": high,
        }
        for side in SIDES
        for ratio in [whole[side][1] / whole[side][0]]
        for name, (gain, low, high) in gains.items()
    ]  # fmt: skip
    stability: Rows = [
        {"parameter": p, "unit": u, "fits": 11, "mean": m, "scatter": s, "mean_se": e, "stability": s / e,
         "drift_per_hour": 0.01, "drift_se": 0.005}
        for p, u, m, s, e in (("log_A", "1", 0.2, 0.3, 0.03), ("k", "1/tick", 0.25, 0.03, 0.008))
    ]  # fmt: skip
    return {
        "validation": table(schemas.VALIDATION, rows),
        "scores": table(schemas.SCORES, scores),
        "stability": table(schemas.STABILITY, stability),
    }


LADDER, DAY, JUDGED = ladder(), schedule(), validated()
POINTS, FITS, WINDOWS, METRICS = (DAY[name] for name in ("points", "fits", "windows", "window_metrics"))
DRAWN: dict[str, Callable[[], Figure]] = {
    "families": lambda: families(LADDER["points"], LADDER["fits"], LADDER["curves"]),
    "coverage": lambda: coverage(WINDOWS, METRICS),
    "curves_by_hour": lambda: curves_by_hour(POINTS, WINDOWS),
    "parameters": lambda: parameters(WINDOWS, FITS),
    "dispersion": lambda: dispersion(METRICS),
    "fill_times": lambda: fill_times(WINDOWS, POINTS),
    "correlation": lambda: correlation(WINDOWS, METRICS),
    "reliability": lambda: reliability(JUDGED["validation"], JUDGED["scores"]),
    "reliability_by_distance": lambda: reliability_by_distance(JUDGED["validation"]),
    "log_scores": lambda: log_scores(JUDGED["scores"]),
}


def null(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The same rows, nothing known in these columns."""
    return frame.with_columns(pl.lit(None, frame.schema[name]).alias(name) for name in names)


SILENT: dict[str, tuple[Callable[[], Figure], str]] = {
    "families, empty": (
        lambda: families(schemas.POINTS.empty(), schemas.FITS.empty(), schemas.CURVES.empty()),
        "no points",
    ),
    "families, no curve": (
        lambda: families(LADDER["points"], LADDER["fits"], schemas.CURVES.empty()),
        "no curve in this span",
    ),
    "families, no AIC": (
        lambda: families(LADDER["points"], null(LADDER["fits"], "aic"), LADDER["curves"]),
        "no AIC to compare",
    ),
    "coverage, empty": (lambda: coverage(schemas.WINDOWS.empty(), schemas.WINDOW_METRICS.empty()), "no windows"),
    "curves by hour, empty": (lambda: curves_by_hour(schemas.POINTS.empty(), schemas.WINDOWS.empty()), "no points"),
    "dispersion, empty": (lambda: dispersion(schemas.WINDOW_METRICS.empty()), "no dispersion"),
    "dispersion, all null": (lambda: dispersion(null(METRICS, "dispersion")), "no dispersion"),
    "fill times, empty": (lambda: fill_times(schemas.WINDOWS.empty(), POINTS), "no fit in any step"),
    "fill times, all null": (lambda: fill_times(null(WINDOWS, "A", "k"), POINTS), "no fit in any step"),
    "fill times, no points": (lambda: fill_times(WINDOWS, schemas.POINTS.empty()), "no distance"),
    "correlation, empty": (lambda: correlation(schemas.WINDOWS.empty(), METRICS), "0 windows with a fit: too few"),
    "correlation, no metrics": (lambda: correlation(WINDOWS, schemas.WINDOW_METRICS.empty()), "too few to correlate"),
    "correlation, constant": (
        lambda: correlation(WINDOWS.with_columns(A=pl.lit(1.0), k=pl.lit(0.2)), METRICS),
        "never change",
    ),
    "reliability, empty": (lambda: reliability(schemas.VALIDATION.empty()), "no step was judged"),
    "by distance, empty": (lambda: reliability_by_distance(schemas.VALIDATION.empty()), "no step was judged"),
    "by distance, no exposure": (
        lambda: reliability_by_distance(JUDGED["validation"].with_columns(exposure_s=pl.lit(0.0))),
        "no step was judged",
    ),
    "log scores, empty": (lambda: log_scores(schemas.SCORES.empty()), "no score"),
    "log scores, all null": (lambda: log_scores(null(JUDGED["scores"], "gain_per_step")), "no score"),
}


def texts(figure: Figure) -> str:
    """All that the figure says: titles, labels, legends."""
    figure.draw_without_rendering()
    return "\n".join(artist.get_text() for artist in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def line(ax: Axes, label: str) -> np.ndarray:
    """The y values of the line whose label starts so."""
    [found] = [drawn for drawn in ax.lines if str(drawn.get_label()).startswith(label)]
    return np.asarray(found.get_ydata(), np.float64)


def counted(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, and the two ends of each bar of the points with this label."""
    [box] = [box for box in ax.containers if box.get_label() == label]
    ends = np.array([segment[:, 1] for segment in box[2][0].get_segments()])
    return np.asarray(box[0].get_xdata(), float), np.asarray(box[0].get_ydata(), float), ends


def limits(hits: np.ndarray) -> np.ndarray:
    """Exact 95% limits of Poisson counts above 0, shape (n, 2)."""
    return np.stack([chi2.ppf(0.025, 2 * hits) / 2, chi2.ppf(0.975, 2 * hits + 2) / 2], axis=1)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_a_wide_png_and_the_same_bytes_every_time(name: str) -> None:
    figure = DRAWN[name]()
    first = png(figure)
    height, width = imread(io.BytesIO(first)).shape[:2]
    assert (width, height) >= (1_400, 400)
    assert first == png(DRAWN[name]()) == png(figure)
    assert b"Software" not in first


@pytest.mark.parametrize("name", DRAWN)
def test_all_text_lies_on_the_figure(name: str) -> None:
    figure = DRAWN[name]()
    figure.draw_without_rendering()
    title = figure._suptitle
    assert title is not None
    assert title.get_window_extent().x1 <= figure.bbox.x1
    for ax in figure.axes:
        legend = ax.get_legend()
        for text in (ax.xaxis.label, ax.yaxis.label, *ax.texts, *(legend.get_texts() if legend else ())):
            box = text.get_window_extent()
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside or not text.get_text().strip(), text.get_text()


@pytest.mark.parametrize("name", SILENT)
def test_what_is_not_known_is_said(name: str) -> None:
    make, said = SILENT[name]
    figure = make()
    assert said in texts(figure)
    assert png(figure)


@pytest.mark.parametrize("found", [LADDER, DAY, JUDGED, LADDER | DAY | JUDGED])
def test_a_run_gets_every_figure_that_its_tables_allow_with_a_caption(found: dict[str, pl.DataFrame]) -> None:
    needed = {
        "coverage": {"windows"}, "intensity": {"points", "fits"}, "families": {"points", "fits", "curves"},
        "curves_by_hour": {"points", "windows"}, "parameters": {"windows", "fits"}, "dispersion": {"window_metrics"},
        "reliability": {"validation"}, "reliability_by_distance": {"validation"}, "log_scores": {"scores"},
        "fill_times": {"windows", "points"}, "correlation": {"windows", "window_metrics"},
    }  # fmt: skip
    drawn = drawings(found, None)
    assert list(drawn) == [name for name, tables in needed.items() if tables <= set(found)]
    assert all(isinstance(draw(), Figure) for draw in drawn.values())
    assert set(drawn) <= set(CAPTIONS)


def test_the_last_good_span_is_the_exponentials_with_the_rows_of_every_family() -> None:
    """The power law is still good in the last span, but the exponential's last good one counts."""
    spans = [(START, START + HOUR), (START + HOUR, START + 2 * HOUR)]
    bad = {"ok": False, "reason": "flat curve"}
    rows = [fit_row(*spans[0], family=f) for f in schemas.FAMILIES]
    rows += [fit_row(*spans[1], family=f, **(bad if f == "exponential" else {})) for f in schemas.FAMILIES]
    kept, fits = last_span(points(2), table(schemas.FITS, rows))
    assert fits["family"].to_list() == list(schemas.FAMILIES)
    assert set(fits["train_end_ns"]) == {spans[0][1]}
    assert (kept["bucket_start_ns"].min(), kept["bucket_end_ns"].max()) == spans[0]


def test_curves_of_families_pass_through_their_rates_and_the_title_ranks_them() -> None:
    """A rate of 0 is a gap on a log axis, and the label says so."""
    figure = DRAWN["families"]()
    [ax] = figure.axes
    rates = LADDER["curves"].filter(pl.col("side") == "both")
    for family in schemas.FAMILIES:
        given = rates.filter(pl.col("family") == family)["rate"].to_numpy()
        np.testing.assert_array_equal(line(ax, family.replace("_", " ")), np.where(given > 0, given, np.nan))
    said = texts(figure)
    assert "monotone fits best, exponential 12.3 behind in AIC, power law 45.0 behind" in said
    assert "if the curve is right: exponential 0.0004, power law below 1e-9" in said
    for label in ("exponential, AIC +12.3", "power law, AIC +45.0", "monotone, AIC lowest, 0 in the gap"):
        assert label in said


def test_families_show_both_sides_pooled_with_exact_intervals_and_an_open_limit() -> None:
    """7,000 s of both sides; the farthest distance was never hit."""
    [ax] = DRAWN["families"]().axes
    hits = 2 * np.array([3900, 2700, 2000, 1250, 640, 330])
    x, rate, ends = counted(ax, "measured, both sides, 95% interval")
    assert x.tolist() == [1, 2, 3, 5, 8, 13]
    np.testing.assert_allclose(rate, hits / 7_000)
    np.testing.assert_allclose(ends, limits(hits) / 7_000)
    x, limit, _ = counted(ax, "measured never hit, upper limit")
    np.testing.assert_allclose((x, limit), ([21], [-math.log(0.05) / 7_000]))


def test_a_family_that_is_not_identified_has_no_rank() -> None:
    bad = pl.col("family") == "monotone"
    fits = LADDER["fits"].with_columns(ok=~bad, aic=pl.when(~bad).then("aic"))
    curves = LADDER["curves"].filter(~bad)
    said = texts(families(LADDER["points"], fits, curves))
    assert "exponential fits best, power law 32.7 behind in AIC" in said
    assert "monotone" not in said
    alone = fits.with_columns(aic=pl.when(pl.col("family") == "exponential").then("aic"))
    assert "only exponential has an AIC" in texts(families(LADDER["points"], alone, curves))


def test_a_curve_that_is_not_identified_is_named_so() -> None:
    fits = LADDER["fits"].with_columns(ok=pl.col("family") != "power_law")
    said = texts(families(LADDER["points"], fits, LADDER["curves"]))
    assert "power law, not identified" in said
    assert "monotone fits best, exponential 12.3 behind in AIC" in said
    assert "45.0 behind" not in said


def test_distances_with_too_little_exposure_are_left_out_of_the_families() -> None:
    """Their wide bars would hide the rest; `intensity` has them, hollow."""
    little = LADDER["points"].with_columns(usable=pl.col("delta_ticks") != 13)
    x, _, _ = counted(families(little, LADDER["fits"], LADDER["curves"]).axes[0], "measured, both sides, 95% interval")
    assert x.tolist() == [1, 2, 3, 5, 8]
    x, _, _ = counted(intensity(little, LADDER["fits"]).axes[0], "bid probes with little exposure")
    assert x.round() == [13]


def test_orders_that_stood_at_or_before_the_mid_are_on_the_axis() -> None:
    """Own orders have signed distances, in half ticks."""
    back = pl.col("delta_ticks") - 2.5
    moved = [LADDER[name].with_columns(back) for name in ("points", "curves")]
    for figure in (families(moved[0], LADDER["fits"], moved[1]), intensity(moved[0], LADDER["fits"])):
        left, right = figure.axes[0].get_xlim()
        assert left < -1.5 < 18.5 < right
    for figure in (DRAWN["families"](), intensity(LADDER["points"], LADDER["fits"])):
        assert figure.axes[0].get_xlim()[0] == 0


def test_intensity_and_parameters_draw_the_exponential_whatever_stands_beside_it() -> None:
    exponential = pl.col("family") == "exponential"
    assert png(intensity(LADDER["points"], LADDER["fits"])) == png(
        intensity(LADDER["points"], LADDER["fits"].filter(exponential))
    )
    assert png(parameters(WINDOWS, FITS)) == png(parameters(WINDOWS, FITS.filter(exponential)))


def test_intervals_that_allow_for_bursts_are_preferred_and_named() -> None:
    """The fixture's fits have them from step 20 on."""
    drawn = steps(WINDOWS, FITS)
    A = WINDOWS["A"].to_numpy()
    assert drawn["A_low"].to_list()[:2] == [None, None]
    np.testing.assert_allclose(drawn["A_low"].to_numpy()[2:], np.where(np.arange(2, 88) < 20, 0.96, 0.88) * A[2:])
    assert "95% intervals allow for bursts where the fit has such errors" in texts(parameters(WINDOWS, FITS))
    names = [c.name for c in schemas.FITS.columns if "_robust" in c.name]
    assert "95% intervals take hits as independent" in texts(parameters(WINDOWS, null(FITS, *names)))
    assert texts(parameters(WINDOWS[20:], FITS)).count("allow for bursts where") == 0
    fit = table(schemas.FITS, [fit_row(START, START + HOUR, A=1.45, k=0.24, **robust(1.45, 0.24))])
    assert "allowing for bursts A 1.28 to 1.64, k 0.21 to 0.27" in texts(intensity(LADDER["points"], fit))


def test_coverage_draws_share_and_hits_of_every_step_and_hatches_bad_days() -> None:
    figure = DRAWN["coverage"]()
    share, hits = figure.axes
    np.testing.assert_array_equal(line(share, "covered"), np.repeat(WINDOWS["coverage"].to_numpy(), 2))
    np.testing.assert_array_equal(line(hits, "hits"), np.repeat(WINDOWS["fills_total"].to_numpy(), 2))
    [span] = [patch for patch in share.patches if patch.get_label() == "degraded day"]
    days = span.get_window_extent().transformed(share.transData.inverted())
    assert round((days.x1 - days.x0) * 24, 6) == 2.5
    low, high = WINDOWS["fills_total"].min(), WINDOWS["fills_total"].max()
    said = texts(figure)
    assert f"{WINDOWS['coverage'].mean():.1%} of a training span on average, 30.0% at worst" in said
    assert f"{low:,} to {high:,} hits a fit" in said
    assert "10 of 88 training spans touch a day that is not complete" in said
    unknown = coverage(WINDOWS, METRICS.with_columns(condition=pl.lit("unknown")))
    assert "0 of 88 training spans touch a day that is not complete; of 88 that is not known" in texts(unknown)
    assert not unknown.axes[0].patches
    assert "not complete" not in texts(coverage(WINDOWS))
    assert not coverage(WINDOWS).axes[0].patches


def test_a_panel_for_each_hour_shows_its_rates_and_its_last_fit() -> None:
    figure = DRAWN["curves_by_hour"]()
    assert len(figure.axes) == 24
    for hour in (0, 5, 23):
        ax, start = figure.axes[hour], START + hour * HOUR
        inside = pl.col("bucket_start_ns").is_between(start, start + HOUR, closed="left") & (pl.col("side") == "both")
        hits = np.array([POINTS.filter(inside & (pl.col("delta_ticks") == d))["fills_total"].sum() for d in DELTAS])
        x, rate, ends = counted(ax, "measured, 95% interval")
        assert tuple(x) == DELTAS
        np.testing.assert_allclose(rate, hits / (4 * 2 * 860))
        np.testing.assert_allclose(ends, limits(hits) / (4 * 2 * 860))
        last = WINDOWS.filter((pl.col("start_ns") == start + 3 * QUARTER) & (pl.col("source") == "fit"))
        curves = [drawn for drawn in ax.lines if drawn.get_label() == "last fit in the hour"]
        assert len(curves) == last.height == (hour > 0)
        for drawn, (A, k) in zip(curves, last.select("A", "k").iter_rows(), strict=True):
            np.testing.assert_allclose(drawn.get_ydata(), A * np.exp(-k * np.asarray(drawn.get_xdata())))
    assert "no fit" in "".join(text.get_text() for text in figure.axes[0].texts)
    nearest = POINTS.filter((pl.col("side") == "both") & (pl.col("delta_ticks") == 1))["fills_total"].to_numpy()
    rates = nearest.reshape(24, 4).sum(axis=1) / (8 * 860)
    low, high = int(rates.argmin()), int(rates.argmax())
    spread = f"at 1 tick {rates[low]:.3g} /s in hour {low:02d} to {rates[high]:.3g} /s in hour {high:02d}"
    assert spread in texts(figure)


def test_a_carried_step_is_not_the_hours_fit() -> None:
    """Steps 40 to 42 start at 12:00, 12:15 and 12:30 and are carried; 12:45 is fitted, and left out here."""
    carried = WINDOWS.filter(pl.col("start_ns") != START + 12 * HOUR + 45 * NS_PER_MIN)
    noon = curves_by_hour(POINTS, carried).axes[12]
    assert not [drawn for drawn in noon.lines if drawn.get_label() == "last fit in the hour"]


def test_hours_of_several_days_are_added_up_and_each_day_keeps_its_curve() -> None:
    ns = ("bucket_start_ns", "bucket_end_ns")
    two = pl.concat([points(4), points(4, seed=4).with_columns(pl.col(*ns) + 24 * HOUR)])
    later = WINDOWS.with_columns(pl.col("start_ns", "end_ns") + 24 * HOUR, A=pl.col("A") * 2)
    figure = curves_by_hour(two, pl.concat([WINDOWS, later]))
    assert len([ax for ax in figure.axes if ax.axison]) == 4
    assert len([drawn for drawn in figure.axes[3].lines if drawn.get_label() == "last fit in the hour"]) == 2
    assert "2 days added up and a curve for each" in texts(figure)


def test_a_distance_never_hit_in_an_hour_is_an_open_limit_and_no_exposure_is_no_point() -> None:
    span = (START, START + HOUR)
    rows = point_rows(*span, {1.0: 50, 8.0: 0}, 1_000.0)
    rows += point_rows(START + HOUR, START + 2 * HOUR, {1.0: 0, 8.0: 0}, 0.0)
    figure = curves_by_hour(table(schemas.POINTS, rows), schemas.WINDOWS.empty())
    assert len(figure.axes) == 1
    x, limit, _ = counted(figure.axes[0], "measured never hit, upper limit")
    np.testing.assert_allclose((x, limit), ([8.0], [-math.log(0.05) / 2_000]))
    assert figure.axes[0].get_ylim()[0] < limit[0] / 2  # the arrow's head is seen


def test_buckets_longer_than_an_hour_say_so() -> None:
    wide = table(schemas.POINTS, point_rows(START, START + 2 * HOUR, {1.0: 50, 8.0: 9}, 7_000.0))
    assert "buckets of 120 minutes stand at the hour they start in" in texts(curves_by_hour(wide, WINDOWS))


def test_dispersion_is_drawn_against_one_and_null_is_a_gap() -> None:
    metrics = METRICS.with_columns(dispersion=pl.when(pl.int_range(pl.len()) >= 4).then("dispersion"))
    figure = dispersion(metrics)
    drawn = line(figure.axes[0], "dispersion")
    assert np.isnan(drawn[:8]).all()
    np.testing.assert_array_equal(drawn[8:], np.repeat(METRICS["dispersion"].to_numpy()[4:], 2))
    assert line(figure.axes[0], "Poisson").tolist() == [1, 1]
    np.testing.assert_array_equal(line(figure.axes[1], "volatility"), np.repeat(METRICS["volatility"].to_numpy(), 2))
    np.testing.assert_array_equal(line(figure.axes[2], "trade rate"), np.repeat(METRICS["trade_rate"].to_numpy(), 2))
    middle = float(np.median(METRICS["dispersion"].to_numpy()[4:]))
    assert f"median {middle:.3g}, above 1 in 84 of 84 windows" in texts(figure)
    assert f"about its root, {middle**0.5:.2g} in" in texts(figure)


def test_without_volatility_the_trade_rate_alone_stands_below() -> None:
    figure = dispersion(null(METRICS, "volatility"))
    assert [ax.get_ylabel() for ax in figure.axes] == ["variance / mean, 1", "prints, 1/s"]
    calm = texts(dispersion(METRICS.with_columns(dispersion=pl.lit(0.9))))
    assert "median 0.9, above 1 in 0 of 88 windows" in calm
    assert "too small" not in calm


def test_fill_times_are_one_over_the_curve_and_start_with_the_first_fit() -> None:
    figure = DRAWN["fill_times"]()
    [ax] = figure.axes
    A, k = WINDOWS["A"].to_numpy(), WINDOWS["k"].to_numpy()
    labels = [str(drawn.get_label()) for drawn in ax.lines]
    assert labels == [f"{text} from the mid" for text in ("1 tick", "3 ticks", "5 ticks", "13 ticks")]
    for label, delta in zip(labels, (1, 3, 5, 13), strict=True):
        waits = np.exp(k * delta) / A
        np.testing.assert_allclose(line(ax, label), np.repeat(waits, 2))
        assert np.isnan(line(ax, label)[:4]).all()
    near, far = (np.exp(k[2:] * d) / A[2:] for d in (1, 13))
    said = f"at 1 tick {near.min():.3g} to {near.max():.3g} s, at 13 ticks {far.min():.3g} to {far.max():.3g} s"
    assert said in texts(figure)
    one = fill_times(WINDOWS, POINTS.filter(pl.col("delta_ticks") == 2))
    assert len(one.axes[0].lines) == 1


def test_correlations_are_spearmans_of_the_fitted_windows() -> None:
    """Ranks by sorting, Pearson by numpy; the matrix shows them with two digits."""
    good = WINDOWS["source"].to_numpy() == "fit"
    market = ("trade_rate", "qty_rate", "volatility", "spread", "buy_share")
    rank = {
        name: np.argsort(np.argsort(frame[name].to_numpy()[good]))
        for frame, names in ((WINDOWS, ("A", "k")), (METRICS, market))
        for name in names
    }
    figure = DRAWN["correlation"]()
    matrix, left, right = figure.axes
    cells = np.asarray(matrix.images[0].get_array())
    expected = [[np.corrcoef(rank[p], rank[m])[0, 1] for m in market] for p in ("A", "k")]
    np.testing.assert_allclose(cells, expected)
    assert [text.get_text() for text in matrix.texts] == [f"{value:+.2f}" for value in np.ravel(expected)]
    for ax, x, y in (
        (left, np.log(METRICS["trade_rate"].to_numpy()), np.log(WINDOWS["A"].to_numpy())),
        (right, METRICS["volatility"].to_numpy(), WINDOWS["k"].to_numpy()),
    ):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), np.stack([x[good], y[good]], axis=1))
    said = texts(figure)
    assert (
        f"ln A with trade rate ({expected[0][0]:+.2f}), k with volatility ({expected[1][2]:+.2f}); 83 windows" in said
    )
    assert "83 windows, of which 11 do not overlap" in said


def test_what_may_be_chance_is_not_a_finding() -> None:
    """Eleven disjoint spans: 1.96 / root 10 is 0.62, and k goes with nothing but volatility that closely."""
    assert "11 do not overlap: what lies within \N{PLUS-MINUS SIGN}0.62 may be chance" in texts(DRAWN["correlation"]())
    said = texts(correlation(WINDOWS, null(METRICS, "volatility")))
    assert "ln A with trade rate (+0.93), k with none for sure; 83 windows" in said
    few = texts(correlation(WINDOWS[:20], METRICS))
    assert "ln A with none for sure, k with none for sure; 18 windows" in few
    assert "of which 3 do not overlap: too few to exclude chance" in few


def test_a_measure_that_is_null_throughout_has_a_dash_and_an_empty_panel() -> None:
    figure = correlation(WINDOWS, null(METRICS, "volatility"))
    assert [text.get_text() for text in figure.axes[0].texts][2::5] == ["\N{EN DASH}"] * 2
    assert "no volatility" in texts(figure)
    frame = pl.DataFrame({"x": [1.0, 2.0, None, 3.0, 4.0], "y": [1.0, 4.0, 0.0, 9.0, None], "c": [1.0] * 5})
    assert math.isnan(rank_correlation(frame, "x", "y"))  # three pairs are too few
    assert math.isnan(rank_correlation(frame, "x", "c"))
    assert rank_correlation(frame.with_columns(y=-pl.col("x")), "x", "y") == pytest.approx(-1)


def test_reliability_groups_hold_every_cell_once() -> None:
    """Sixty steps of six distances a side: ten groups of 36 cells, by predicted disjoint hits."""
    figure = DRAWN["reliability"]()
    [ax] = figure.axes
    for side, aside in (("bid", 0.985), ("ask", 1.015)):
        cells = JUDGED["validation"].filter(pl.col("side") == side)
        order = np.argsort(cells["expected_ring"].to_numpy(), kind="stable").reshape(10, 36)
        expected, observed, exposure = (
            cells[name].to_numpy()[order].sum(axis=1) for name in ("expected_ring", "observed_ring", "exposure_s")
        )
        x, ratio, ends = counted(ax, f"{side}, 95% interval")
        np.testing.assert_allclose(x, aside * expected / exposure)
        np.testing.assert_allclose(ratio, observed / expected)
        np.testing.assert_allclose(ends, limits(observed) / expected[:, None])
    sides = JUDGED["validation"].filter(pl.col("side") != "both")
    came, predicted = sides["observed_ring"].sum(), sides["expected_ring"].sum()
    said = texts(figure)
    assert f"{came:,} hits came, {predicted:,.0f} were predicted" in said
    ratio = came / predicted
    assert f"{ratio:.3f}, 95% interval over steps {ratio - 0.05:.3f} to {ratio + 0.05:.3f}" in said
    assert "interval over steps" not in texts(reliability(JUDGED["validation"]))


def test_predictions_that_nothing_came_of_are_open_limits() -> None:
    quiet = JUDGED["validation"].with_columns(observed=pl.lit(0), observed_ring=pl.lit(0))
    [ax] = reliability(quiet).axes
    _, limit, _ = counted(ax, "bid never hit, upper limit")
    assert limit.size == 10
    [ax] = reliability_by_distance(quiet).axes
    _, limit, _ = counted(ax, "ask never hit, upper limit")
    expected = quiet.filter(pl.col("side") == "ask").group_by("delta_ticks").agg(pl.col("expected").sum())
    np.testing.assert_allclose(limit, -math.log(0.05) / expected.sort("delta_ticks")["expected"].to_numpy())


def test_pooled_predictions_alone_are_drawn_as_such() -> None:
    pooled = JUDGED["validation"].filter(pl.col("side") == "both")
    assert [box.get_label() for box in reliability(pooled).axes[0].containers] == ["both, 95% interval"]


def test_reliability_by_distance_divides_the_sums() -> None:
    figure = DRAWN["reliability_by_distance"]()
    [ax] = figure.axes
    cells = JUDGED["validation"].filter(pl.col("side") == "bid")
    sums = cells.group_by("delta_ticks").agg(pl.col("expected", "observed").sum()).sort("delta_ticks")
    expected, observed = sums["expected"].to_numpy(), sums["observed"].to_numpy()
    x, ratio, ends = counted(ax, "bid, 95% interval")
    np.testing.assert_allclose(x, np.array(DELTAS) - 0.006 * 13)
    np.testing.assert_allclose(ratio, observed / expected)
    np.testing.assert_allclose(ends, limits(observed) / expected[:, None])
    both = JUDGED["validation"].filter(pl.col("side") == "both").group_by("delta_ticks")
    ratios = both.agg(r=pl.col("observed").sum() / pl.col("expected").sum()).sort("delta_ticks")["r"]
    assert f"from {ratios[0]:.2f} at 1 tick to {ratios[5]:.2f} at 13 ticks" in texts(figure)


def test_log_scores_show_each_gain_with_its_interval_and_say_who_wins() -> None:
    figure = DRAWN["log_scores"]()
    [ax] = figure.axes
    gains = [float(np.asarray(box[0].get_xdata())[0]) for box in ax.containers]
    bars = [box[2][0].get_segments()[0][:, 0].tolist() for box in ax.containers]
    np.testing.assert_allclose(gains, [4.2, 0.4] * 3)
    np.testing.assert_allclose(bars, [[2.1, 6.3], [-0.3, 1.1]] * 3)
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == [
        "both: against a constant rate",
        "both: against the last window",
    ]
    assert "the fit beats a constant rate by 4.2 nats, is level with the last window (+0.4 nats)" in texts(figure)
    worse = JUDGED["scores"].with_columns(-pl.col("gain_per_step", "gain_per_step_low", "gain_per_step_high"))
    worse = worse.rename({"gain_per_step_low": "gain_per_step_high", "gain_per_step_high": "gain_per_step_low"})
    assert "the fit loses to a constant rate by 4.2 nats" in texts(log_scores(worse))
    bare = null(JUDGED["scores"], "gain_per_step_low", "gain_per_step_high")
    assert "the fit gains +4.2 nats over a constant rate" in texts(log_scores(bare))
