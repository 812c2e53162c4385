"""Each family's curve is the likeliest of its shape, and its figures are what their formulas give, term by term."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import isotonic_regression, minimize

from mmlab.calib.families import all_families, monotone
from mmlab.calib.fit import TABLE
from mmlab.calib.goodness import chi2_tail, logs
from mmlab.calib.points import Window
from mmlab.calib.spec import FitSpec
from mmlab.core.schemas import CURVES, FITS
from reference import calib as slow

DELTAS = (1, 2, 3, 5, 8, 13)
SIDES = ("bid", "ask", "both")
METHODS = ("poisson_mle", "log_linear", "nested_mle")
GOODNESS = ("log_likelihood", "n_params", "aic", "deviance", "dispersion", "p_value")
NS = 10**9


def drawn(
    seed: int, family: str = "exponential", A: float = 1.5, b: float = 0.25, nested: bool = True,
    deltas: Sequence[float] = DELTAS, parts: int = 1, seconds: float = 2_000,
) -> Window:  # fmt: skip
    """Poisson counts of a true curve: rings of nested probes, or hits of distances that share nothing.

    Time at risk grows with the distance, as it does where a hit ends a probe.
    """
    rng = np.random.default_rng(seed)
    shape = (parts, 2, len(deltas))
    exposure = np.sort(rng.uniform(seconds / 2, seconds, shape), axis=2) / parts
    rate = slow.intensity(family, A, b, np.array(deltas, float))
    rings = hits = rng.poisson((slow.of_rings(rate) if nested else rate) * exposure)
    if nested:
        hits = np.cumsum(rings[:, :, ::-1], axis=2)[:, :, ::-1]
        exposure = np.where(hits > 0, exposure, exposure[:, :, -1:])  # what nothing hit was at risk all the time
    return slow.window((exposure * NS).astype(np.int64), hits, rings)


def fitted(
    window: Window, method: str = "poisson_mle", nested: bool = True, deltas: Sequence[float] = DELTAS,
    min_exposure_s: float = 0.0, spans: int = 1,
) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """`fits` and `curves`."""
    at = np.arange(spans)
    return all_families(window, tuple(deltas), (at, at + 1), FitSpec(method, min_exposure_s), "first_hit", nested)


def one(frame: pl.DataFrame, family: str, side: str = "bid") -> dict:
    """A family's row of one side."""
    return frame.row(by_predicate=(pl.col("family") == family) & (pl.col("side") == side), named=True)


def rates(curves: pl.DataFrame, family: str, side: str = "bid") -> dict[float, float]:
    """A family's rate at each distance."""
    rows = curves.filter((pl.col("family") == family) & (pl.col("side") == side))
    return dict(rows.select("delta_ticks", "rate").rows())


# ---- two parameters


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    truth=st.sampled_from([("exponential", 1.5, 0.25), ("exponential", 0.2, 0.05), ("power_law", 1.5, 1.2)]),
    nested=st.booleans(),
    side=st.sampled_from([0, 1, 2]),
)
def test_both_formulas_are_the_likeliest_and_their_figures_follow_from_it(seed, truth, nested, side):
    """Nelder-Mead finds the same curve of the disjoint counts; likelihood, AIC, deviance, p-value by their formulas."""
    window = drawn(seed, *truth, nested)
    method = "nested_mle" if nested else "poisson_mle"
    fits, _ = fitted(window, method, nested)
    p = slow.span_points(window, 0, side, DELTAS)
    for family, exponent in (("exponential", "k"), ("power_law", "exponent")):
        row = one(fits, family, SIDES[side])
        A, b, likelihood = slow.best(family, p, p.R, nested)
        rate = slow.intensity(family, A, b, p.x)
        rate = slow.of_rings(rate) if nested else rate
        assert row["A"] == pytest.approx(A, rel=1e-4)
        assert row[exponent] == pytest.approx(b, rel=1e-4, abs=1e-5)
        assert row["log_likelihood"] == pytest.approx(likelihood, rel=1e-9, abs=1e-7)
        assert row["aic"] == pytest.approx(4 - 2 * likelihood, rel=1e-9, abs=1e-6)
        assert row["deviance"] == pytest.approx(slow.deviance(p.T, p.R, rate), rel=1e-5, abs=1e-6)
        assert row["dispersion"] == pytest.approx(slow.pearson(p.T, p.R, rate) / (p.x.size - 2), rel=1e-3)
        assert row["p_value"] == pytest.approx(stats.chi2.sf(row["deviance"], p.x.size - 2), rel=1e-9)
        assert (row["n_params"], row["points_used"], row["fills_total"]) == (2, p.x.size, int(p.N[0]))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), nested=st.booleans(), seconds=st.sampled_from([5.0, 50.0, 2_000.0]))
def test_what_a_likelihood_says_is_so_about_the_disjoint_counts(seed, nested, seconds):
    """At the curve that a row of nested_mle or of disjoint poisson_mle states, to the last digits, ln N! and all."""
    window = drawn(seed, nested=nested, seconds=seconds)
    fits, _ = fitted(window, "nested_mle" if nested else "poisson_mle", nested)
    for family, exponent in (("exponential", "k"), ("power_law", "exponent")):
        for side, name in enumerate(SIDES):
            row, p = one(fits, family, name), slow.span_points(window, 0, side, DELTAS)
            if row["A"] is None:
                assert not row["ok"]
                assert all(row[figure] is None for figure in GOODNESS if figure != "n_params")
                continue
            rate = slow.intensity(family, row["A"], row[exponent], p.x)
            rate = slow.of_rings(rate) if nested else rate
            assert row["log_likelihood"] == pytest.approx(slow.log_likelihood(p.T, p.R, rate), rel=1e-9)
            assert row["deviance"] == pytest.approx(slow.deviance(p.T, p.R, rate), rel=1e-7, abs=1e-7)
            assert row["dispersion"] == pytest.approx(slow.pearson(p.T, p.R, rate) / (p.x.size - 2), rel=1e-7)


def assert_alike(row: dict, want: dict) -> None:
    """The same figures, but for the last digits of floats."""
    for name, value in want.items():
        same = row[name] == value or math.isclose(row[name], value, rel_tol=1e-7, abs_tol=1e-9)
        assert same, (name, row[name], value)


def goodness_by_method(window: Window, methods: Sequence[str], nested: bool) -> list[dict]:
    """The columns of GOODNESS, a row for each method, side and family."""
    found = [fitted(window, method, nested)[0].select("family", "side", *GOODNESS) for method in methods]
    return [frame.to_dicts() for frame in found]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), seconds=st.sampled_from([3.0, 30.0, 2_000.0]))
def test_how_well_a_family_fits_does_not_depend_on_the_estimator_of_nested_probes(seed, seconds):
    """It is a matter of the rings alone: all three estimators state the same likelihood, AIC, deviance, p-value."""
    first, *others = goodness_by_method(drawn(seed, seconds=seconds), METHODS, nested=True)
    for rows in others:
        for row, want in zip(rows, first, strict=True):
            assert_alike(row, want)


def test_how_well_a_family_fits_does_not_depend_on_the_estimator_of_disjoint_distances():
    """Own orders and --cycle: log_linear is compared by the likeliest curve too, not by its own."""
    mle, linear = goodness_by_method(drawn(0, nested=False), METHODS[:2], nested=False)
    for row, want in zip(linear, mle, strict=True):
        assert_alike(row, want)


def joined(windows: Sequence[Window]) -> Window:
    """Several spans of one bucket each."""
    sums = [
        np.concatenate([np.diff(getattr(w, name), axis=0) for w in windows]) for name in ("exposure", "hit", "ring")
    ]
    return slow.window(*sums, spans=[(i, i + 1) for i in range(len(windows))])


@pytest.mark.parametrize("family", ["exponential", "power_law"])
@pytest.mark.parametrize("nested", [True, False])
def test_the_information_criterion_chooses_the_family_that_made_the_data(family, nested):
    """For at least 95 of 100 seeds, on 20,000 s a side."""
    b = 0.25 if family == "exponential" else 1.2
    windows = [drawn(seed, family, 1.5, b, nested, seconds=20_000) for seed in range(100)]
    fits, _ = fitted(joined(windows), "nested_mle" if nested else "poisson_mle", nested, spans=100)
    both = fits.filter((pl.col("side") == "both") & (pl.col("family") != "monotone"))
    best = both.sort("aic").group_by("train_start_ns").agg(pl.col("family").first())
    assert (best["family"] == family).sum() >= 95


def test_a_p_value_is_uniform_where_the_curve_is_right_and_small_where_it_is_not():
    """2 to 8% of 400 exponential markets have p below 0.05, and at least 95% of those with a power law."""
    below = {}
    for family, b in (("exponential", 0.25), ("power_law", 1.2)):
        fits, _ = fitted(
            joined([drawn(s, family, 1.5, b, seconds=20_000) for s in range(200)]), "nested_mle", spans=200
        )
        mine = fits.filter((pl.col("family") == "exponential") & (pl.col("side") != "both"))
        below[family] = (mine["p_value"] < 0.05).fill_null(True).mean()
    assert 0.02 <= below["exponential"] <= 0.08
    assert below["power_law"] >= 0.95


@settings(max_examples=200, deadline=None)
@given(dof=st.integers(1, 198), x=st.floats(0, 50) | st.floats(0, 1_300))
def test_the_tail_of_chi_square_is_that_of_scipy(dof, x):
    """To ten digits, as far as 200 distances and a p-value of 1e-280 go; a deviance rounded below 0 is 0."""
    want = stats.chi2.sf(x, dof)
    assert chi2_tail.py_func(dof, x) == pytest.approx(want, rel=1e-10, abs=1e-280)
    assert chi2_tail.py_func(dof, -1e-12) == 1.0
    assert math.isnan(chi2_tail.py_func(dof, math.nan))


def test_the_logarithm_of_a_factorial_is_that_of_its_definition():
    """From the table and from the series, where one ends and the other begins too."""
    n = [*range(600), 10**4, 10**6]
    want = np.concatenate([[0.0], np.cumsum([math.log(i) for i in range(1, 10**6 + 1)])])[n]
    found = [logs.py_func(float(i), TABLE) for i in n]
    np.testing.assert_allclose([log_factorial for _, log_factorial in found], want, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose([log for log, _ in found][1:], np.log(n[1:]), rtol=1e-15)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), seconds=st.sampled_from([5.0, 2_000.0]), method=st.sampled_from(METHODS))
def test_the_rings_excess_is_by_how_much_they_add_up_to_more_than_was_measured(seed, seconds, method):
    """Sum of the rings' rates over the rate at the nearest distance, less 1; null where distances share nothing."""
    window = drawn(seed, seconds=seconds)
    fits, _ = fitted(window, method)
    for side, name in enumerate(SIDES):
        p, got = slow.span_points(window, 0, side, DELTAS), one(fits, "exponential", name)["ring_excess"]
        if p.N[0] == 0:
            assert got is None
        else:
            assert got == pytest.approx(sum(p.R / p.T) / (p.N[0] / p.T[0]) - 1, abs=1e-12)
    assert one(fits, "monotone")["ring_excess"] is None
    alone = drawn(seed, nested=False)
    assert fitted(alone, "poisson_mle", nested=False)[0]["ring_excess"].null_count() == 9


# ---- any falling curve


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), seconds=st.sampled_from([2.0, 50.0, 2_000.0]), side=st.sampled_from([0, 1, 2]))
def test_nested_the_likeliest_falling_curve_is_the_sum_of_the_rings_rates(seed, seconds, side):
    """From each distance outwards; it explains the rings wholly, so that its deviance is 0."""
    window = drawn(seed, seconds=seconds)
    fits, _ = fitted(window)
    p, row = slow.span_points(window, 0, side, DELTAS), one(fits, "monotone", SIDES[side])
    for i, rate in enumerate(monotone(window, FitSpec(min_exposure_s=0.0), nested=True)[0, side]):
        assert rate == pytest.approx(sum(p.R[j] / p.T[j] for j in range(i, p.x.size)), rel=1e-12)
    assert row["log_likelihood"] == pytest.approx(slow.log_likelihood(p.T, p.R, p.R / p.T), rel=1e-9, abs=1e-9)
    assert row["aic"] == pytest.approx(2 * p.x.size - 2 * row["log_likelihood"])
    assert row["n_params"] == p.x.size
    assert row["deviance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_nested_no_falling_curve_is_likelier(seed):
    """A bounded optimizer over the rings' rates, none of them below 0, ends where the formula is."""
    window = drawn(seed, seconds=12.0)
    p = slow.span_points(window, 0, 0, DELTAS)

    def loss(ring: np.ndarray) -> float:
        mu = p.T * np.maximum(ring, 1e-12)
        return float(np.sum(mu - p.R * np.log(mu)))

    best = minimize(loss, np.full(p.x.size, 0.1), bounds=[(0, None)] * p.x.size, method="L-BFGS-B", tol=1e-14)
    assert 0 in p.R
    got = monotone(window, FitSpec(min_exposure_s=0.0), nested=True)[0, 0]
    np.testing.assert_allclose(got, np.cumsum(best.x[::-1])[::-1], atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), seconds=st.sampled_from([2.0, 50.0]), side=st.sampled_from([0, 1, 2]))
def test_nested_the_falling_curve_that_is_shown_is_that_of_the_measured_rates(seed, seconds, side):
    """Each distance by itself, neighbours that rise pooled: nothing is added up from rings."""
    window = drawn(seed, seconds=seconds)
    p = slow.span_points(window, 0, side, DELTAS)
    got = list(rates(fitted(window)[1], "monotone", SIDES[side]).values())
    np.testing.assert_allclose(got, [float(rate) for rate in slow.pava(p.N, p.T)], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), min_size=2, max_size=8),
    seconds=st.sampled_from([1, 7, 1_000]),
)
def test_not_nested_the_likeliest_falling_curve_is_the_isotonic_regression(rows, seconds):
    """Rates weighted by their time at risk, decreasing: as scipy has it, and as the min-max formula says."""
    N, T = (np.array(column, float) for column in zip(*rows, strict=True))
    T *= seconds
    deltas = tuple(range(1, N.size + 1))
    cells = np.stack([N, N])[None].astype(int)
    window = slow.window(np.stack([T, T])[None] * NS, cells, cells)
    fits, curves = fitted(window, nested=False, deltas=deltas)
    got, row = np.array(list(rates(curves, "monotone").values())), one(fits, "monotone")
    np.testing.assert_allclose(got, isotonic_regression(N / T, weights=T, increasing=False).x, atol=1e-12)
    exact = slow.pava(N, T)
    np.testing.assert_allclose(got, [float(rate) for rate in exact], rtol=1e-12)
    assert row["n_params"] == len(set(exact))
    assert row["ok"] == (N.sum() > 0)
    assert row["log_likelihood"] == pytest.approx(slow.log_likelihood(T, N, got), rel=1e-9, abs=1e-9)
    assert row["deviance"] == pytest.approx(slow.deviance(T, N, got), rel=1e-7, abs=1e-7)
    assert row["aic"] == pytest.approx(2 * row["n_params"] - 2 * row["log_likelihood"])


def test_both_sides_pooled_are_one_set_of_counts():
    """Side both is the fit of the sums of hits and of times, in every family."""
    window = drawn(1)
    pooled = slow.window(
        *(np.repeat(a[-1:].sum(axis=1, keepdims=True), 2, axis=1) for a in (window.exposure, window.hit, window.ring))
    )
    both, alone = (fitted(w)[0].filter(pl.col("side") == side) for w, side in ((window, "both"), (pooled, "bid")))
    names = ("A", "k", "exponent", "se_k", *GOODNESS, "fills_total", "ok")
    for row, want in zip(both.select(names).to_dicts(), alone.select(names).to_dicts(), strict=True):
        assert_alike(row, want)


# ---- the tables


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nested", [True, False])
def test_curves_are_what_the_fits_say(method, nested):
    """A exp(-k delta) and A delta^-exponent of the same span and side, at every distance that was used."""
    if method == "nested_mle" and not nested:
        return
    window = drawn(3, nested=nested)
    fits, curves = fitted(window, method, nested)
    FITS.check(fits)
    CURVES.check(curves)
    assert fits.select("family", "side").rows() == [
        (f, s) for f in ("exponential", "power_law", "monotone") for s in SIDES
    ]
    for family, exponent in (("exponential", "k"), ("power_law", "exponent")):
        for side in SIDES:
            row = one(fits, family, side)
            want = {float(d): slow.intensity(family, row["A"], row[exponent], np.array([float(d)]))[0] for d in DELTAS}
            assert rates(curves, family, side) == pytest.approx(want, rel=1e-12)
    assert curves.filter(pl.col("family") == "monotone").height == 3 * len(DELTAS)


def test_the_exponent_and_k_never_share_a_column():
    """1/tick and a pure number: each family has its own, with its own errors; a curve without a formula has neither."""
    fits, _ = fitted(drawn(3, parts=16))
    own = {
        "exponential": ("k", "se_k", "k_low", "k_high", "se_k_robust", "k_low_robust", "k_high_robust"),
        "power_law": ("exponent", "se_exponent"),
        "monotone": (),
    }
    for family, names in own.items():
        row = one(fits, family)
        others = {name for listed in own.values() for name in listed} - set(names)
        assert all(row[name] is not None for name in names)
        assert all(row[name] is None for name in others)
        assert (row["A"] is None) == (family == "monotone")
    row = one(fits, "exponential")
    z = stats.norm.ppf(0.975)
    assert row["k_low"] == pytest.approx(row["k"] - z * row["se_k"])
    assert row["A_high"] == pytest.approx(row["A"] * math.exp(z * row["se_log_A"]))
    t = stats.t.ppf(0.975, row["blocks"] - 1)
    assert row["k_high_robust"] == pytest.approx(row["k"] + t * row["se_k_robust"])
    assert row["A_low_robust"] == pytest.approx(row["A"] * math.exp(-t * row["se_log_A_robust"]))


@pytest.mark.parametrize("method", METHODS)
def test_a_distance_below_the_least_exposure_is_left_out_everywhere(method):
    """The nearest distance, hit so often that it was hardly at risk: the rest is fitted as if it were not there."""
    window = drawn(4, parts=16)
    exposure, hits, rings = (np.diff(a, axis=0) for a in (window.exposure, window.hit, window.ring))
    exposure[:, :, 0] = NS // 100
    full, short = (slow.window(*(a[:, :, first:] for a in (exposure, hits, rings))) for first in (0, 1))
    (got, got_curves), (want, want_curves) = (
        fitted(w, method, deltas=deltas, min_exposure_s=1.0) for w, deltas in ((full, DELTAS), (short, DELTAS[1:]))
    )
    assert got_curves.equals(want_curves)
    assert got.drop("exposure_s").equals(want.drop("exposure_s"))
    assert set(got["points_used"]) == {5}
    every, _ = fitted(full, method)
    assert set(every["points_used"]) == {6}
    none, no_curves = fitted(full, method, min_exposure_s=10.0**6)
    assert no_curves.is_empty()
    assert set(none["points_used"]) == {0}
    assert not none["ok"].any()


def test_a_distance_of_nothing_has_no_power_law():
    """Orders at the mid itself: ln 0 is no number, so that family is left out."""
    fits, curves = fitted(drawn(2, nested=False, deltas=(0.0, 0.5, 2.0)), nested=False, deltas=(0.0, 0.5, 2.0))
    assert set(fits["family"]) == set(curves["family"]) == {"exponential", "monotone"}


def test_many_spans_are_fitted_as_each_of_them_alone():
    """Rows of 40 spans are, to the last bit, those of 40 tables of one span; so are 280, fitted in slices."""
    parts = [drawn(seed, seconds=200) for seed in range(40)]
    tables, ids = fitted(joined(parts), spans=40), ("train_start_ns", "train_end_ns")
    for i, part in enumerate(parts):
        for shown, alone in zip(tables, fitted(part), strict=True):
            assert shown.filter(pl.col("train_start_ns") == i).drop(ids).equals(alone.drop(ids))
    again = fitted(joined(parts * 7), spans=280)
    for shown, once in zip(again, tables, strict=True):
        repeated = pl.concat([once.with_columns(pl.col(ids) + 40 * i) for i in range(7)])
        assert shown.equals(repeated)


@pytest.mark.parametrize("nested", [True, False])
def test_no_hits_and_no_time_give_rows_without_figures(nested):
    """A reason in place of a number, in every family."""
    zeros = np.zeros((16, 2, 6), int)
    for exposure, points in ((zeros, 0), (zeros + NS, 6)):
        fits, _ = fitted(slow.window(exposure, zeros, zeros), nested=nested)
        assert not fits["ok"].any()
        assert "" not in fits["reason"].to_list()
        assert set(fits["points_used"]) == {points}
        assert fits["A"].null_count() == 9


def test_an_error_too_wide_for_a_double_gives_an_interval_without_an_end():
    """Hits at 499 and 500 ticks say nothing of the mid: A's upper end is null, without a warning."""
    cells = np.array([[[2, 1], [2, 1]]])
    fits, _ = fitted(slow.window(cells * 0 + 10 * NS, cells, cells), nested=False, deltas=(499, 500))
    row = one(fits, "exponential")
    assert row["A"] == pytest.approx(0.2 * 2.0**499)
    assert row["A_high"] is None
