"""The batched fits equal slow general-purpose ones, and say so when the data do not identify the curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mmlab.calib import fit
from mmlab.calib import fit_layout as layout
from mmlab.calib.fit import REASONS, curves
from mmlab.calib.points import Window
from mmlab.calib.spec import FitSpec
from mmlab.core.schemas import FIT_METHODS

DELTAS = (1, 2, 3, 5, 8, 13)


def window(hits, rings=None, exposure_s=None, parts=1) -> Window:
    """One span of `parts` equal buckets whose two sides hold the same points, of shape (n_deltas,) each."""

    def prefix(row):
        side = np.multiply.outer(np.arange(parts + 1), np.asarray(row, np.int64))
        return np.stack([side, side], axis=1)

    exposure = np.full(len(hits), 1000) if exposure_s is None else np.asarray(exposure_s)
    tables = ((exposure * 1e9).astype(np.int64), hits, hits if rings is None else rings)
    return Window(*(prefix(row) for row in tables), np.array([0]), np.array([parts]), np.array([10**12]))


def drawn(seed: int, A: float, k: float):
    """Random exposures and Poisson hits of a true curve, and the disjoint rings of another draw."""
    rng = np.random.default_rng(seed)
    exposure = rng.uniform(500, 5000, len(DELTAS)).round(3)
    rate = A * np.exp(-k * np.array(DELTAS))
    ring_rate = rate - np.append(rate[1:], 0.0)
    return exposure, rng.poisson(rate * exposure), rng.poisson(ring_rate * exposure)


def slow_fit(exposure, counts, nested):
    """Minimise the negative log-likelihood of (ln A, k) with a general optimizer."""
    x = np.array(DELTAS, float)

    def rate(p):
        r = np.exp(p[0] - p[1] * x)
        return r - np.append(r[1:], 0.0) if nested else r

    def loss(p):
        mu = rate(p) * exposure
        return float(np.sum(mu - counts * np.log(np.maximum(mu, 1e-300))))

    best = minimize(loss, [0.0, 0.3], method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-11, "maxiter": 20_000})
    h = 1e-4
    hessian = np.array(
        [
            [
                (
                    loss(best.x + h * (np.eye(2)[i] + np.eye(2)[j]))
                    - loss(best.x + h * (np.eye(2)[i] - np.eye(2)[j]))
                    - loss(best.x - h * (np.eye(2)[i] - np.eye(2)[j]))
                    + loss(best.x - h * (np.eye(2)[i] + np.eye(2)[j]))
                )
                / (4 * h * h)
                for j in range(2)
            ]
            for i in range(2)
        ]
    )
    return best.x, hessian


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), A=st.floats(0.3, 5), k=st.floats(0.05, 0.8), nested=st.booleans())
def test_likelihood_fits_equal_a_general_optimizer(seed, A, k, nested):
    """poisson_mle and nested_mle find the maximum that Nelder-Mead finds, far faster."""
    exposure, hits, rings = drawn(seed, A, k)
    method = "nested_mle" if nested else "poisson_mle"
    got = curves(window(hits, rings, exposure), DELTAS, FitSpec(fit_method=method))
    (log_A, slow_k), hessian = slow_fit(exposure, rings if nested else hits, nested)
    assert got.reason[0, 0] in (0, REASONS.index("flat curve: k is not distinguishable from 0"))
    assert np.log(got.A[0, 0]) == pytest.approx(log_A, abs=2e-5)
    assert got.k[0, 0] == pytest.approx(slow_k, abs=1e-5)
    if not nested:  # with the log link the observed information is the expected one
        covariance = np.linalg.inv(hessian)
        assert got.se_log_A[0, 0] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-3)
        assert got.se_k[0, 0] == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-3)


def test_nested_errors_cover_the_truth_in_95_of_100_draws():
    """On 2,000 draws of the disjoint rings the 95% intervals of A and of k cover 93 to 97%."""
    A, k, covered = 1.5, 0.25, np.zeros(2)
    for seed in range(2000):
        exposure, hits, rings = drawn(seed, A, k)
        got = curves(window(hits, rings, exposure), DELTAS, FitSpec(fit_method="nested_mle"))
        covered += [
            abs(np.log(got.A[0, 0] / A)) < 1.96 * got.se_log_A[0, 0],
            abs(got.k[0, 0] - k) < 1.96 * got.se_k[0, 0],
        ]
    assert ((covered / 2000 > 0.93) & (covered / 2000 < 0.97)).all(), covered / 2000


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_log_linear_equals_polyfit_weighted_by_the_root_of_hits(seed):
    """numpy's polyfit squares its weights, so hits enter as their root."""
    exposure, hits, _ = drawn(seed, 2.0, 0.4)
    kept = hits > 0
    slope, intercept = np.polyfit(np.array(DELTAS)[kept], np.log(hits[kept] / exposure[kept]), 1, w=np.sqrt(hits[kept]))
    got = curves(window(hits, None, exposure), DELTAS, FitSpec(fit_method="log_linear"))
    assert got.k[0, 0] == pytest.approx(-slope, rel=1e-9)
    assert got.A[0, 0] == pytest.approx(np.exp(intercept), rel=1e-9)


def test_distances_without_hits_pull_the_curve_down():
    """A zero is information: the fit with two far zeros decays faster than the fit without them."""
    with_zeros = curves(window([900, 500, 250, 60, 0, 0]), DELTAS, FitSpec())
    without = curves(window([900, 500, 250, 60], exposure_s=[1000] * 4), DELTAS[:4], FitSpec())
    assert with_zeros.k[0, 0] > without.k[0, 0]
    assert with_zeros.points_used[0, 0] == 6


@pytest.mark.parametrize("method", ["poisson_mle", "log_linear", "nested_mle"])
@pytest.mark.parametrize(
    ("hits", "exposure", "reason"),
    [
        ([5, 4, 3, 2, 1, 1], [1000, 1, 1, 1, 1, 1], "fewer than two distances with enough exposure"),
        ([0] * 6, [1000] * 6, "no hits"),
        ([7, 0, 0, 0, 0, 0], [1000] * 6, "all hits at one distance: k is not identified"),
    ],
)
def test_what_the_data_do_not_identify_is_said(method, hits, exposure, reason):
    """No number is returned silently for a curve that is not there."""
    got = curves(window(hits, None, exposure), DELTAS, FitSpec(fit_method=method))
    assert REASONS[got.reason[0, 0]] == reason


@pytest.mark.parametrize("method", ["poisson_mle", "log_linear"])
@pytest.mark.parametrize("hits", [[100, 101, 99, 100, 100, 100], [10, 20, 40, 80, 160, 320]])
def test_a_flat_or_rising_curve_is_not_ok(method, hits):
    """k at or below 0 within its error is reported as flat, with its figures."""
    got = curves(window(hits), DELTAS, FitSpec(fit_method=method))
    assert REASONS[got.reason[0, 0]] == "flat curve: k is not distinguishable from 0"
    assert np.isfinite(got.k[0, 0])


def test_distances_of_thousands_of_ticks_do_not_underflow():
    """BTCUSDT quotes are thousands of ticks wide: the fit works in the units it is given."""
    deltas = (100, 1000, 3000, 10_000, 30_000)
    rate = 0.5 * np.exp(-2e-4 * np.array(deltas))
    got = curves(window((rate * 1e6).astype(int), exposure_s=[10**6] * 5), deltas, FitSpec())
    assert got.k[0, 0] == pytest.approx(2e-4, rel=1e-3)
    assert got.A[0, 0] == pytest.approx(0.5, rel=1e-3)


def test_windows_are_fitted_independently_of_each_other():
    """A batch gives the rows that one window at a time gives, to the last bit."""
    rows = [drawn(seed, 1.0, 0.3) for seed in range(5)]
    alone = [curves(window(h, r, e), DELTAS, FitSpec()) for e, h, r in rows]
    buckets = [window(h, r, e) for e, h, r in rows]
    sums = (np.cumsum([getattr(w, name)[-1] for w in buckets], axis=0) for name in ("exposure", "hit", "ring"))
    prefix = [np.concatenate([np.zeros_like(a[:1]), a]) for a in sums]
    joined = Window(*prefix, np.arange(5), np.arange(1, 6), np.full(5, 10**12))
    for name in ("A", "k", "se_k", "deviance", "log_likelihood"):
        np.testing.assert_array_equal(
            getattr(curves(joined, DELTAS, FitSpec()), name)[:, 0], [getattr(c, name)[0, 0] for c in alone]
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_deviance_of_millions_of_hits_keeps_its_digits(seed):
    """To 1e-9, by its definition in long double at the curve that is stated."""
    rng = np.random.default_rng(seed)
    rate = 3_000 * np.exp(-rng.uniform(0.1, 0.5) * np.array(DELTAS))
    hits = rng.poisson(rate * 5_000)
    got = curves(window(hits, exposure_s=[5_000] * len(DELTAS)), DELTAS, FitSpec(), nested=False)
    x = np.array(DELTAS, np.longdouble)
    mu = 5_000 * np.longdouble(got.A[0, 0]) * np.exp(-np.longdouble(got.k[0, 0]) * x)
    want = 2 * np.sum(hits * np.log(hits / mu) - (hits - mu))
    assert got.deviance[0, 0] == pytest.approx(float(want), abs=1e-9)


def test_the_layout_numbers_what_it_names():
    """Estimators, reasons and figures, in the order in which they are stated elsewhere."""
    assert [FIT_METHODS[i] for i in (layout.POISSON_MLE, layout.LOG_LINEAR, layout.NESTED_MLE)] == list(FIT_METHODS)
    assert REASONS[layout.OK] == ""
    assert "no maximum" in REASONS[layout.NO_MAXIMUM]
    names = list(fit.Curve.__dataclass_fields__)
    assert len(names) == layout.N_FLOATS + layout.N_WHOLE
    assert (names[layout.EXCESS], names[layout.SE_K_ROBUST]) == ("ring_excess", "se_k_robust")
    assert (names[layout.N_FLOATS + layout.REASON], names[-1]) == ("reason", "blocks")


# ---- rows and slices


def walked(seed: int, n: int = 200, n_deltas: int = 30, nested: bool = True) -> tuple[np.ndarray, ...]:
    """Buckets of exposure (ns), hits and rings, (n, 2, n_deltas), in which a day's quiet and busy hours take turns.

    Some buckets are holes, some have no hits at all, and few hits reach the far distances.
    """
    rng = np.random.default_rng(seed)
    rate = 0.5 * np.exp(-0.3 * np.arange(n_deltas)) * rng.choice([0.0, 0.01, 1.0, 1.0], (n, 2, 1))
    rings = hits = rng.poisson(60 * rate)
    if nested:
        hits = np.cumsum(rings[:, :, ::-1], axis=2)[:, :, ::-1]
    at_risk = np.where(hits > 0, rng.uniform(1, 59, hits.shape), 60.0)
    at_risk = np.sort(at_risk, axis=2) * (rng.random((n, 1, 1)) > 0.2)
    return (at_risk * 1e9).astype(np.int64), hits, rings


def summed(cells: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray) -> Window:
    """A window over these spans of buckets."""
    prefix = (np.concatenate([np.zeros_like(a[:1]), np.cumsum(a, axis=0)]) for a in cells)
    return Window(*prefix, first, last, np.full(first.size, 10**12))


def assert_same_bytes(got, want) -> None:
    """Every figure of two curves."""
    for name, value in vars(want).items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)


METHODS = [("poisson_mle", True), ("nested_mle", True), ("log_linear", True), ("poisson_mle", False)]


@pytest.mark.parametrize(("method", "nested"), METHODS)
@pytest.mark.parametrize("least_s", [0.0, 600.0])
@pytest.mark.parametrize("power_law", [False, True])
def test_slices_leave_no_trace(monkeypatch, method, nested, least_s, power_law):
    """180 windows in slices of 1, 7, 50 and 500, and the first 60 of them: the same bytes, used distances or not."""
    rng = np.random.default_rng(5)
    first = np.sort(rng.integers(0, 190, 180))
    last = np.minimum(first + rng.integers(1, 40, 180), 200)
    cells, deltas = walked(3, nested=nested), tuple(np.cumsum(rng.integers(1, 4, 30)).tolist())
    spec = FitSpec(method, least_s)
    want = curves(summed(cells, first, last), deltas, spec, nested, power_law)
    assert len(set(want.reason.ravel().tolist())) > 2
    assert np.unique(want.points_used).size > (1 if least_s == 0 else 5)
    for size in (1, 7, 50, 500):
        monkeypatch.setattr(fit, "SLICE", size)
        assert_same_bytes(curves(summed(cells, first, last), deltas, spec, nested, power_law), want)
    some = curves(summed(cells, first[:60], last[:60]), deltas, spec, nested, power_law)
    for name, value in vars(some).items():
        np.testing.assert_array_equal(value, getattr(want, name)[:60], err_msg=name)


@pytest.mark.parametrize(("method", "nested"), METHODS)
def test_buckets_before_a_window_leave_no_trace(method, nested):
    """A schedule that is read in chunks holds sums from another bucket on: the same bytes."""
    cells, first = walked(4, nested=nested), np.arange(100, 160)
    spec, deltas = FitSpec(method), tuple(range(1, 31))
    want = curves(summed(cells, first, first + 40), deltas, spec, nested)
    later = tuple(a[90:] for a in cells)
    assert_same_bytes(curves(summed(later, first - 90, first - 50), deltas, spec, nested), want)


@pytest.mark.parametrize(("method", "nested"), METHODS)
def test_no_windows_give_no_rows(method, nested):
    """A chunk of the tape in which no step is ready yet."""
    none = np.zeros(0, np.int64)
    got = curves(summed(walked(0, nested=nested), none, none), tuple(range(1, 31)), FitSpec(method), nested)
    assert {name: (value.shape, value.dtype.kind) for name, value in vars(got).items()} == {
        name: ((0, 3), "i" if name in {"points_used", "nearest_hits", "reason", "blocks"} else "f")
        for name in vars(got)
    }


@pytest.mark.parametrize(
    ("n_deltas", "first", "last", "said"),
    [(29, 0, 5, "29 distances"), (31, 0, 5, "31"), (0, 0, 5, "0"), (30, -1, 5, "200 buckets"), (30, 0, 201, "200")],
)
def test_sums_of_other_distances_or_spans_are_refused(n_deltas, first, last, said):
    """Kernels would read beside the arrays."""
    window = summed(walked(0), np.array([first]), np.array([last]))
    with pytest.raises(ValueError, match=said):
        curves(window, tuple(range(1, n_deltas + 1)), FitSpec())


def slow_k(T: list[float], N: list[float], x: list[float], nested: bool) -> float | None:
    """The root of the score in k, by bisection of its definition, one distance after the other; None if below 1e-6."""

    def score(k: float) -> float:
        w, wg, g_hits = 0.0, 0.0, 0.0
        for i in range(len(x)):
            s, g = np.exp(-k * (x[i] - x[0])), x[0] - x[i]
            if nested and i + 1 < len(x):
                step = x[i + 1] - x[i]
                s, g = s * -np.expm1(-k * step), g + step / np.expm1(k * step)
            w, wg, g_hits = w + T[i] * s, wg + T[i] * s * g, g_hits + N[i] * g
        return g_hits / sum(N) - wg / w

    low, high = (1e-6 if nested else -5.0), 50.0
    if score(low) < 0:
        return None
    for _ in range(200):
        low, high = ((low + high) / 2, high) if score((low + high) / 2) > 0 else (low, (low + high) / 2)
    return low


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    nested=st.booleans(),
    least_s=st.sampled_from([0.0, 300.0, 500.0]),
    n=st.integers(1, 40),
    even=st.booleans(),
)
def test_k_is_the_root_of_the_score_to_nine_digits(seed, nested, least_s, n, even):
    """On a window's used distances, few hits or many, evenly spaced or not; where there is no root it is said."""
    cells = walked(seed, n, 12, nested)
    steps = np.ones(12, int) if even else np.random.default_rng(seed).integers(1, 5, 12)
    deltas = tuple(np.cumsum(steps).tolist())
    window = summed(cells, np.array([0]), np.array([n]))
    got = curves(window, deltas, FitSpec("nested_mle" if nested else "poisson_mle", least_s), nested)
    for side in range(3):
        used = window.used(least_s)[0, side]
        T, N = window.exposure_ns[0, side, used] / 1e9, window.rings[0, side, used]
        if got.reason[0, side] in {1, 2, 3}:
            assert used.sum() < 2 or (N > 0).sum() < 2
            continue
        want = slow_k(T.tolist(), N.tolist(), np.array(deltas, float)[used].tolist(), nested)
        if want is None:
            assert REASONS[got.reason[0, side]] == "the likelihood has no maximum for k above 0"
        else:
            assert got.k[0, side] == pytest.approx(want, rel=1e-9, abs=1e-9)
