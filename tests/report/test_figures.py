"""Every figure draws its table, says so when the table is empty, and gives the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from mmlab.core import schemas
from mmlab.core.spans import NS_PER_MIN, NS_PER_S, day_start_ns
from mmlab.report.bands import curve_band, steps
from mmlab.report.canvas import MOST_POINTS, thin
from mmlab.report.figures import equity, fills_on_price, intensity, inventory, parameters, png

START = day_start_ns(date(2025, 1, 1))
HOUR = 60 * NS_PER_MIN


def account(n: int = 400) -> pl.DataFrame:
    """A state table of a quoter on a random walk, a row a second."""
    rng = np.random.default_rng(1)
    mid = 1000 + np.cumsum(rng.choice([-0.02, 0.0, 0.02], n))
    held = np.round(0.001 * np.cumsum(rng.choice([-1, 0, 1], n)), 3)
    frame = pl.DataFrame(
        {
            "recv_ns": START + NS_PER_S * np.arange(n, dtype=np.int64),
            "inventory": held,
            "cash": -held * 1000,
            "mid": mid,
            "mtm_value": held * (mid - 1000),
            "open_orders": np.full(n, 2),
            "bid_px": np.where(np.arange(n) % 50 == 0, np.nan, mid - 0.05),
            "ask_px": mid + 0.05,
        }
    )
    return schemas.STATE.check(schemas.STATE.conform(frame.with_columns(pl.col("bid_px").fill_nan(None))))


def executions(state: pl.DataFrame) -> pl.DataFrame:
    """A fill every twenty rows, buys and sells in turn."""
    rows = state.gather_every(20).with_row_index("i")
    side = pl.when(pl.col("i") % 2 == 0).then(1).otherwise(-1)
    return schemas.FILLS.conform(
        rows.select(
            "recv_ns",
            "mid",
            order_id=pl.col("i") + 1,
            side=side,
            price=pl.col("mid") - 0.05 * side,
            qty=pl.lit(0.001),
            fee=pl.lit(0.0),
            liquidity=pl.lit("maker"),
            reason=pl.lit("poisson"),
        )
    )


def measured(hits: dict[int, int], buckets: int = 2, exposure_s: int = 1_800) -> pl.DataFrame:
    """A points table with the same hits at each distance in every bucket and on either side."""
    rows = [
        {
            "bucket_start_ns": START + b * HOUR,
            "bucket_end_ns": START + (b + 1) * HOUR,
            "side": side,
            "delta_ticks": delta,
            "count_rule": "sweeps",
            "exposure_ns": exposure_s * NS_PER_S * times,
            "exposure_s_total": float(exposure_s * times),
            "fills_total": n * times,
            "ring_fills": 0,
            "qty_total": 0.0,
            "lambda_total": n / exposure_s,
            "lambda_qty": 0.0,
            "usable": True,
        }
        for b in range(buckets)
        for side, times in (("bid", 1), ("ask", 1), ("both", 2))
        for delta, n in hits.items()
    ]
    return schemas.POINTS.check(schemas.POINTS.conform(pl.DataFrame(rows)))


def fitted(start_ns: int, end_ns: int, A: float = 1.5, k: float = 0.25, **change: Any) -> dict[str, Any]:
    """One row of both sides of the fits table."""
    return {
        "train_start_ns": start_ns,
        "train_end_ns": end_ns,
        "side": "both",
        "family": "exponential",
        "fit_method": "poisson_mle",
        "count_rule": "sweeps",
        "A": A,
        "k": k,
        "se_log_A": 0.02,
        "se_k": 0.01,
        "A_low": A * 0.96,
        "A_high": A * 1.04,
        "k_low": k - 0.02,
        "k_high": k + 0.02,
        "blocks": 0,
        "n_params": 2,
        "deviance": 3.0,
        "dispersion": 1.0,
        "points_used": 4,
        "fills_total": 100,
        "exposure_s": 3600.0,
        "ok": True,
        "reason": "",
        **change,
    }


def stepped() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A schedule of eight quarter hours: two without a fit, three fitted, two carried on, one fitted."""
    source = ["none", "none", "fit", "fit", "fit", "carry_forward", "carry_forward", "fit"]
    age = [None, None, 0, 0, 0, 1, 2, 0]
    given_A = [None, None, 1.4, 1.5, 1.6, 1.6, 1.6, 1.2]
    quarter = 15 * NS_PER_MIN
    starts = [START + HOUR + i * quarter for i in range(8)]
    windows = pl.DataFrame(
        {
            "start_ns": starts,
            "end_ns": [s + quarter for s in starts],
            "train_start_ns": [s - HOUR for s in starts],
            "train_end_ns": starts,
            "A": given_A,
            "k": [None if a is None else a / 6 for a in given_A],
            "source": source,
            "reason": ["" if s == "fit" else "no hits" for s in source],
            "age_steps": age,
            "coverage": [1.0] * 8,
            "fills_total": [10] * 8,
        }
    )
    rows = [
        fitted(s - HOUR, s, a, a / 6)
        if what == "fit"
        else fitted(s - HOUR, s, ok=False, reason="no hits", A=9.0, A_low=None, A_high=None, k_low=None, k_high=None)
        for s, a, what in zip(starts, given_A, source, strict=True)
        for a in [a or 9.0]
    ]
    return schemas.WINDOWS.check(schemas.WINDOWS.conform(windows)), fit_table(rows)


def fit_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a fits table."""
    return schemas.FITS.check(schemas.FITS.conform(pl.DataFrame(rows, schema=schemas.FITS.schema)))


HITS = {1: 2_000, 2: 1_500, 5: 700, 8: 300, 13: 90, 30: 0}
TRUTH = {"pieces": [{"start_ms": START // 10**6, "end_ms": START // 10**6 + 4 * 3_600_000, "A": 1.5, "k": 0.25}]}
LADDER_FIT = fit_table([fitted(START, START + 2 * HOUR)])

DRAWN: dict[str, Callable[[], Figure]] = {
    "equity": lambda: equity(account()),
    "inventory": lambda: inventory(account()),
    "fills": lambda: fills_on_price(account(), executions(account())),
    "intensity": lambda: intensity(measured(HITS), LADDER_FIT, TRUTH),
    "parameters": lambda: parameters(*stepped(), TRUTH),
}

EMPTY: dict[str, tuple[Callable[[], Figure], str]] = {
    "equity": (lambda: equity(schemas.STATE.empty()), "no state rows"),
    "inventory": (lambda: inventory(schemas.STATE.empty()), "no state rows"),
    "fills": (lambda: fills_on_price(schemas.STATE.empty(), schemas.FILLS.empty()), "no state rows"),
    "no fills": (lambda: fills_on_price(account(), schemas.FILLS.empty()), "no fills in this run"),
    "intensity": (lambda: intensity(schemas.POINTS.empty(), schemas.FITS.empty()), "no points"),
    "no fit": (lambda: intensity(measured(HITS), schemas.FITS.empty()), "no fit"),
    "parameters": (lambda: parameters(schemas.WINDOWS.empty(), schemas.FITS.empty()), "no windows"),
}


def texts(figure: Figure) -> str:
    """All that the figure says: titles, labels, legends."""
    figure.draw_without_rendering()
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(artist.get_text() for artist in found)


def line(figure: Figure, label: str, panel: int = 0) -> np.ndarray:
    """The y values of the line with this label."""
    [found] = [drawn for drawn in figure.axes[panel].lines if drawn.get_label() == label]
    return np.asarray(found.get_ydata(), np.float64)


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_a_wide_png_with_something_on_it(name: str) -> None:
    """The bytes decode, the picture is at least 1,400 pixels wide, and has many colours."""
    image = imread(io.BytesIO(png(DRAWN[name]())))
    height, width = image.shape[:2]
    assert (width, height) >= (1_400, 400)
    packed = (image[..., :3] * 255).astype(np.int64) @ np.array([65_536, 256, 1])
    assert np.unique(packed).size > 60
    assert (image[..., :3] < 0.99).any(axis=2).mean() > 0.01


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_table_gives_the_same_bytes(name: str) -> None:
    """Drawn twice and saved twice, and no software or time is named in the file."""
    figure = DRAWN[name]()
    first = png(figure)
    assert first == png(DRAWN[name]()) == png(figure)
    assert b"Software" not in first
    assert b"tIME" not in first


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_table_is_said_not_crashed_on(name: str) -> None:
    """The figure's text names what is missing."""
    make, said = EMPTY[name]
    figure = make()
    assert said in texts(figure)
    assert png(figure)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("equity", ["quote currency", "time, UTC, 2025-01-01"]),
        ("inventory", ["base currency", "time, UTC, 2025-01-01"]),
        ("fills", ["quote currency", "time, UTC, 2025-01-01", "buy", "sell", "own bid", "10 buys, 10 sells"]),
        (
            "intensity",
            ["hits per second and side", "ticks", "A = 1.5 /s", "k = 0.25 /tick", "counting sweeps", "truth"],
        ),
        ("parameters", ["A, 1/s and side", "k, 1/tick", "time, UTC", "carried forward", "no fit yet", "truth"]),
    ],
)
def test_axes_carry_units_and_legends_their_names(name: str, labels: list[str]) -> None:
    """Units, UTC and the names of what is drawn stand in the figure."""
    said = texts(DRAWN[name]())
    assert [label for label in labels if label not in said] == []


def test_equity_starts_at_zero_and_titles_end_and_drawdown() -> None:
    """The drawdown is measured from the running peak, on every row."""
    state = account().with_columns(mtm_value=pl.Series([100.0, 105.0, 101.0, 103.0] * 100))
    figure = equity(state)
    assert line(figure, "value change")[:4].tolist() == [0.0, 5.0, 1.0, 3.0]
    assert "+3 at the end, deepest drawdown -5" in texts(figure)


def test_a_distance_without_hits_is_an_upper_limit() -> None:
    """-ln(0.05) / exposure, the one-sided 95% limit of a Poisson rate with no event."""
    figure = intensity(measured({1: 100, 30: 0}), LADDER_FIT)
    limit = -np.log(0.05) / 3_600
    [found] = [box for box in figure.axes[0].containers if "never hit" in box.get_label() and "bid" in box.get_label()]
    np.testing.assert_allclose(np.asarray(found[0].get_ydata(), float), [limit])


def test_intensity_adds_up_the_buckets_of_the_fitted_span_only() -> None:
    """Two of three buckets lie in the training span: 200 hits in 3,600 s on a side."""
    figure = intensity(measured({1: 100, 2: 50}, buckets=3), LADDER_FIT)
    [bid] = [box for box in figure.axes[0].containers if box.get_label() == "bid probes, 95% interval"]
    np.testing.assert_allclose(np.asarray(bid[0].get_ydata(), float), [200 / 3_600, 100 / 3_600])
    [bars] = bid[2]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1] * 3_600, [173.24, 229.72], atol=0.05)  # exact limits of 200


def test_a_curve_that_is_not_identified_is_not_drawn() -> None:
    """The title gives the reason instead."""
    fit = fit_table([fitted(START, START + 2 * HOUR, ok=False, reason="flat curve")])
    figure = intensity(measured(HITS), fit)
    assert "no curve, flat curve" in texts(figure)
    assert not figure.axes[0].lines or all("exp" not in str(drawn.get_label()) for drawn in figure.axes[0].lines)


def test_band_of_the_curve_agrees_with_the_information_of_the_fit() -> None:
    """With standard errors from the Fisher information of the counts, the band is the delta method's."""
    delta, exposure_s, A, k = np.array([1.0, 2.0, 5.0, 9.0]), np.array([900.0, 950.0, 990.0, 999.0]), 1.2, 0.3
    mu = exposure_s * A * np.exp(-k * delta)
    information = np.array([[mu.sum(), -(mu * delta).sum()], [-(mu * delta).sum(), (mu * delta**2).sum()]])
    covariance = np.linalg.inv(information)
    fit = fitted(0, 1, A, k, se_log_A=covariance[0, 0] ** 0.5, se_k=covariance[1, 1] ** 0.5)
    points = pl.DataFrame({"delta_ticks": delta, "exposure_s": exposure_s, "usable": [True] * 4})
    at = np.linspace(0, 12, 25)
    gradient = np.stack([np.ones_like(at), -at])
    spread = 1.959963984540054 * np.sqrt(np.einsum("in,ij,jn->n", gradient, covariance, gradient))
    curve, low, high = curve_band(fit, points, at)
    np.testing.assert_allclose(np.log(high / curve), spread, rtol=1e-9)
    np.testing.assert_allclose(np.log(curve / low), spread, rtol=1e-9)


def test_band_of_rings_agrees_with_their_information() -> None:
    """The same for nested_mle, whose counts are of disjoint rings; derivatives by differences."""
    delta, exposure_s, log_A, k = np.array([1.0, 2.0, 5.0, 9.0]), np.full(4, 800.0), 0.2, 0.3

    def log_mu(k: float) -> np.ndarray:
        reached = np.exp(log_A - k * np.append(delta, np.inf))
        return np.asarray(np.log(exposure_s * (reached[:-1] - reached[1:])))

    g = (log_mu(k + 1e-5) - log_mu(k - 1e-5)) / 2e-5
    mu = np.exp(log_mu(k))
    covariance = np.linalg.inv([[mu.sum(), (mu * g).sum()], [(mu * g).sum(), (mu * g * g).sum()]])
    se = {"se_log_A": covariance[0, 0] ** 0.5, "se_k": covariance[1, 1] ** 0.5}
    fit = fitted(0, 1, np.exp(log_A), k, fit_method="nested_mle", **se)
    points = pl.DataFrame({"delta_ticks": delta, "exposure_s": exposure_s, "usable": [True] * 4})
    curve, _, high = curve_band(fit, points, np.array([4.0]))
    variance = covariance[0, 0] - 8 * covariance[0, 1] + 16 * covariance[1, 1]
    np.testing.assert_allclose(np.log(high / curve), 1.959963984540054 * np.sqrt(variance), rtol=1e-6)


def test_a_carried_step_keeps_the_interval_of_the_fit_in_force() -> None:
    """Steps before the first fit have none; the interval of a failed fit is never shown."""
    drawn = steps(*stepped())
    low = drawn["A_low"].to_list()
    assert low[:2] == [None, None]
    assert low[4] == low[5] == low[6] == pytest.approx(1.6 * 0.96)
    assert low[7] == pytest.approx(1.2 * 0.96)


def test_steps_are_drawn_flat_from_start_to_end() -> None:
    """Each value stands twice, at its step's start and end; no line before the first fit."""
    figure = parameters(*stepped())
    drawn = line(figure, "A in force")
    np.testing.assert_array_equal(drawn, np.repeat([np.nan, np.nan, 1.4, 1.5, 1.6, 1.6, 1.6, 1.2], 2))
    assert "4 of 8 steps fitted, 2 carried forward" in texts(figure)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 400), most=st.sampled_from([10, 50, 300]))
def test_thinning_keeps_lowest_and_highest_of_every_bin(seed: int, n: int, most: int) -> None:
    """Against a loop over bins; never more rows than asked for, in order, and all of them if they are few."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 10_000, n))
    price = [None if rng.random() < 0.3 else float(rng.integers(0, 50)) for _ in range(n)]
    frame = pl.DataFrame(
        {"recv_ns": time, "price": price, "row": range(n)},
        schema={"recv_ns": pl.Int64, "price": pl.Float64, "row": pl.Int64},
    )
    kept = thin(frame, "price", most)
    assert kept.height <= most
    assert kept["row"].is_sorted()
    if n <= most:
        assert kept.equals(frame)
        return
    width = (int(time[-1]) - int(time[0])) // (most // 2) + 1
    for bin_ in set(((time - time[0]) // width).tolist()):
        inside = (pl.col("recv_ns") - int(time[0])) // width == bin_
        whole, thinned = frame.filter(inside)["price"], kept.filter(inside)["price"]
        assert thinned.len() >= 1
        assert (thinned.min(), thinned.max()) == (whole.min(), whole.max())


def test_a_long_run_is_drawn_with_few_points() -> None:
    """A day of decisions at 4 a second keeps its extremes in at most 5,000 points."""
    state = account(345_600)
    mid = line(fills_on_price(state, executions(state)), "mid")
    assert mid.size <= MOST_POINTS
    assert (mid.min(), mid.max()) == (state["mid"].min(), state["mid"].max())
