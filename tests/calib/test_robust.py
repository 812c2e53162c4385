"""The errors clustered over blocks of time are the sandwich, block by block, and they cover where bursts are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmlab.calib.fit import OK, REASONS, Curve, curves
from mmlab.calib.fit_layout import LEAST_BLOCKS
from mmlab.calib.points import BLOCKS, Window
from mmlab.calib.spec import FitSpec
from reference import calib as slow

DELTAS = (1, 2, 3, 5, 8, 13)
TAIL = (*range(14, 40), 60, 100, 1_000)
A, K = 1.5, 0.25
NS = 10**9
METHODS = [
    ("poisson_mle", True),
    ("nested_mle", True),
    ("log_linear", True),
    ("poisson_mle", False),
    ("log_linear", False),
]
Ints = np.ndarray


def drawn(
    rng: np.random.Generator, n_buckets: int, nested: bool = True, deltas: Sequence[float] = DELTAS,
    seconds: float = 100.0, shape: float | None = None,
) -> tuple[Ints, Ints, Ints]:  # fmt: skip
    """Exposure, hits and rings of shape (n_buckets, 2, n_deltas); `shape`: of the gamma that multiplies a bucket.

    Nested probes share prints, and what nothing hit in a bucket was at risk all the time. With a `shape`, all of it
    was, as `sweeps` has it: prints that follow one another outwards would give hits that no curve's rings add up to.
    """
    cells = (n_buckets, 2, len(deltas))
    exposure = np.sort(rng.uniform(0.7 * seconds, seconds, cells), axis=2)
    exposure = exposure if shape is None else np.full(cells, seconds)
    burst = 1.0 if shape in {None, math.inf} else rng.gamma(shape, 1 / shape, (n_buckets, 1, 1))
    rate = slow.intensity("exponential", A, K, np.array(deltas, float))
    rings = hits = rng.poisson((slow.of_rings(rate) if nested else rate) * exposure * burst)
    if nested:
        hits = np.cumsum(rings[:, :, ::-1], axis=2)[:, :, ::-1]
        exposure = np.where(hits > 0, exposure, exposure[:, :, -1:])
    return (exposure * NS).astype(np.int64), hits, rings


def assert_sandwich(window: Window, deltas: Sequence[float], method: str, nested: bool, least_s: float = 0.0) -> Curve:
    """Every window and side: the formula's errors to six digits, null where fewer than eight blocks have hits."""
    got = curves(window, tuple(deltas), FitSpec(method, least_s), nested)
    for w, side in np.ndindex(*got.k.shape):
        shown = got.se_log_A_robust[w, side], got.se_k_robust[w, side]
        if np.isnan(got.k[w, side]):
            assert np.isnan(shown).all()
            assert got.blocks[w, side] == 0
            continue
        point = (float(got.A[w, side]), float(got.k[w, side]))
        *want, blocks, hit = slow.sandwich(window, w, side, deltas, *point, method, nested, least_s)
        assert got.blocks[w, side] == blocks
        if hit < LEAST_BLOCKS:
            assert np.isnan(shown).all()
        else:
            assert shown == pytest.approx(want, rel=1e-6, abs=1e-6)
    return got


# ---- the formula


@pytest.mark.parametrize(("method", "nested"), METHODS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 60), seconds=st.sampled_from([1.0, 100.0]), bursty=st.booleans())
def test_errors_are_the_sandwich_over_blocks(method, nested, seed, n, seconds, bursty):
    """J^-1 (sum of u u') J^-1 B / (B - 1), with each block's score summed over its sides and distances by a loop."""
    cells = drawn(np.random.default_rng(seed), n, nested, seconds=seconds, shape=2.0 if bursty else None)
    spans = [(0, n), (n // 4, n), (0, max(n // 2, 1))]
    assert_sandwich(slow.window(*cells, spans=spans), DELTAS, method, nested)


@pytest.mark.parametrize(("method", "nested"), METHODS)
def test_distances_that_are_not_used_have_no_part_in_it(method, nested):
    """The nearest one was hardly at risk: the errors are those of the formula without it."""
    exposure, hits, rings = drawn(np.random.default_rng(1), 32, nested)
    exposure[:, 0, 0] //= 10_000
    got = assert_sandwich(slow.window(exposure, hits, rings), DELTAS, method, nested, 1.0)
    assert got.points_used[0].tolist() == [5, 6, 6]


def test_hits_at_a_distance_that_is_not_used_make_no_block_of_hits():
    """The nearest one, hardly at risk, was hit in every block, the others in five of 16: no error is stated."""
    exposure, hits, rings = drawn(np.random.default_rng(1), BLOCKS)
    exposure[:, :, 0] //= 10_000
    rings[5:, :, 1:] = 0
    hits[:] = np.cumsum(rings[:, :, ::-1], axis=2)[:, :, ::-1]
    got = assert_sandwich(slow.window(exposure, hits, rings), DELTAS, "poisson_mle", True, 1.0)
    assert got.blocks.tolist() == [[BLOCKS] * 3]
    assert np.isnan(got.se_k_robust).all()


@pytest.mark.parametrize(("method", "nested"), METHODS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 40), seconds=st.sampled_from([0.5, 100.0]))
def test_a_long_tail_of_distances_that_nothing_reached_is_summed_as_written(method, nested, seed, n, seconds):
    """29 more distances without a hit: gathered or not, the sums are those of the formula over all of them."""
    deltas = (*DELTAS, *TAIL)
    cells = drawn(np.random.default_rng(seed), n, nested, deltas, seconds)
    got = assert_sandwich(slow.window(*cells, spans=[(0, n), (0, n // 2)]), deltas, method, nested)
    assert got.points_used[0].tolist() == [len(deltas)] * 3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 40))
def test_rings_beyond_one_that_is_empty_change_nothing(seed, n):
    """nested_mle: the empty ring has no end, whether that is said in one distance or in thirty."""
    cells = drawn(np.random.default_rng(seed), n, seconds=10.0)
    for a in cells[1:]:
        a[:, :, 4:] = 0
    cells[1][:] = np.cumsum(cells[2][:, :, ::-1], axis=2)[:, :, ::-1]
    cells[0][:, :, 4:] = cells[0][:, :, 5:]
    longer = [np.concatenate([a, np.repeat(a[:, :, 5:], len(TAIL), axis=2)], axis=2) for a in cells]
    short = curves(slow.window(*(a[:, :, :5] for a in cells)), DELTAS[:5], FitSpec("nested_mle"))
    for parts, deltas in ((cells, DELTAS), (longer, (*DELTAS, *TAIL))):
        got = curves(slow.window(*parts), deltas, FitSpec("nested_mle"))
        for name in ("A", "k", "se_log_A", "se_k", "log_likelihood", "deviance"):
            np.testing.assert_allclose(getattr(got, name), getattr(short, name), rtol=1e-9, err_msg=name)
        np.testing.assert_array_equal(got.blocks, short.blocks)
        assert_sandwich(slow.window(*parts), deltas, "nested_mle", True)


def test_a_probe_that_was_hit_before_the_first_bucket_is_not_at_risk_in_it():
    """Nothing but 2 ticks deep came in these buckets, but the probe at 5 ticks had been hit before they began."""
    exposure, hits, rings = drawn(np.random.default_rng(2), 32)
    rings[:, :, 2:] = 0
    hits[:] = np.cumsum(rings[:, :, ::-1], axis=2)[:, :, ::-1]
    exposure[:] = exposure[:, :, -1:]
    exposure[:16, :, :4] = 0
    window = slow.window(exposure, hits, rings)
    got = assert_sandwich(window, DELTAS, "poisson_mle", True)
    p = slow.span_points(window, 0, 2, DELTAS)
    best = slow.best("exponential", p, p.N, nested=False)
    assert (got.A[0, 2], got.k[0, 2]) == pytest.approx(best[:2], rel=1e-4)


@pytest.mark.parametrize("at_risk", range(1, BLOCKS + 1))
def test_blocks_are_those_with_time_at_risk_and_below_eight_there_is_no_error(at_risk):
    """A recording of which most is a hole has few blocks, and then no error is stated."""
    exposure, hits, rings = drawn(np.random.default_rng(3), 3 * BLOCKS, seconds=500.0)
    kept = np.repeat(np.random.default_rng(at_risk).permutation(BLOCKS) < at_risk, 3)[:, None, None]
    exposure, hits, rings = (a * kept for a in (exposure, hits, rings))
    got = assert_sandwich(slow.window(exposure, hits, rings), DELTAS, "nested_mle", True)
    assert got.blocks.tolist() == [[at_risk] * 3]
    assert np.isfinite(got.se_k_robust).all() == (at_risk >= LEAST_BLOCKS)
    if at_risk > 1:
        assert got.t95[0, 0] == pytest.approx(stats.t.ppf(0.975, at_risk - 1))


def test_a_side_without_time_counts_for_both_sides_blocks_only_as_far_as_it_goes():
    """The bid was at risk in the first half, the ask in the second: 8 blocks each, 16 for both."""
    exposure, hits, rings = drawn(np.random.default_rng(4), 32, seconds=500.0)
    half = np.arange(32)[:, None] < 16
    kept = np.concatenate([half, ~half], axis=1)[:, :, None]
    window = slow.window(*(a * kept for a in (exposure, hits, rings)))
    assert assert_sandwich(window, DELTAS, "poisson_mle", True).blocks.tolist() == [[8, 8, 16]]


def test_a_curve_that_only_the_robust_errors_do_not_tell_from_flat_is_flat():
    """Bursts that come near one time and far the next: Fisher is sure of k, the blocks are not."""
    rng = np.random.default_rng(0)
    exposure = np.full((16, 2, 2), 1_000 * NS)
    near = rng.permutation(16) < 9
    hits = np.where(near[:, None, None], [[[900, 100]] * 2], [[[100, 800]] * 2])
    got = curves(slow.window(exposure, hits, hits), (1, 2), FitSpec(), nested=False)
    assert got.k[0, 2] - 1.96 * got.se_k[0, 2] > 0
    assert got.k[0, 2] - got.t95[0, 2] * got.se_k_robust[0, 2] < 0
    assert REASONS[got.reason[0, 2]] == "flat curve: k is not distinguishable from 0"
    assert got.reason[0, 2] != OK


# ---- what they cover


def coverage(seed: int, method: str, nested: bool, shape: float, draws: int = 500) -> dict[str, float]:
    """Share of 95% intervals, Fisher's and robust, that hold the true ln A and k: `draws` spans of 16 blocks."""
    cells = drawn(np.random.default_rng(seed), BLOCKS * draws, nested, shape=shape)
    window = slow.window(*cells, spans=[(BLOCKS * i, BLOCKS * (i + 1)) for i in range(draws)])
    got = curves(window, DELTAS, FitSpec(method), nested)
    found = {}
    for name, error, se, robust in (
        ("A", np.log(got.A / A), got.se_log_A, got.se_log_A_robust),
        ("k", got.k - K, got.se_k, got.se_k_robust),
    ):
        found[f"{name} Fisher"] = float((np.abs(error) < 1.96 * se)[:, 2].mean())
        found[f"{name} robust"] = float((np.abs(error) < got.t95 * robust)[:, 2].mean())
    return found


@pytest.mark.parametrize(("method", "nested"), [("nested_mle", True), ("poisson_mle", False)])
def test_on_poisson_counts_both_errors_cover(method, nested):
    """Disjoint counts without bursts: 92 to 98% of 500 intervals of each kind hold the truth."""
    found = coverage(11, method, nested, math.inf)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


@pytest.mark.parametrize(("method", "nested"), [("nested_mle", True), ("poisson_mle", True), ("poisson_mle", False)])
def test_on_bursty_counts_the_robust_errors_cover_and_those_of_fisher_do_not(method, nested):
    """Each block's rate times a gamma of mean 1 and variance 1/4: 90 to 98% against less than half."""
    found = coverage(12, method, nested, 4.0)
    assert 0.90 <= found["A robust"] <= 0.98, found
    assert 0.90 <= found["k robust"] <= 0.98, found
    assert found["A Fisher"] < 0.5, found


def test_where_nested_distances_share_prints_the_robust_errors_of_poisson_mle_cover_and_fishers_do_not():
    """No bursts at all: the shared prints alone make Fisher's errors of A too small."""
    found = coverage(13, "poisson_mle", True, math.inf, 1_000)
    assert 0.92 <= found["A robust"] <= 0.98, found
    assert 0.92 <= found["k robust"] <= 0.98, found
    assert found["A Fisher"] < 0.92, found


def test_robust_errors_are_as_wide_as_the_estimates_scatter():
    """Their mean square is the estimates' variance over 500 bursty spans, within 15%."""
    draws = 500
    cells = drawn(np.random.default_rng(14), BLOCKS * draws, shape=4.0)
    got = curves(slow.window(*cells, spans=[(BLOCKS * i, BLOCKS * (i + 1)) for i in range(draws)]), DELTAS, FitSpec())
    for value, se in ((np.log(got.A), got.se_log_A_robust), (got.k, got.se_k_robust)):
        assert math.sqrt((se[:, 2] ** 2).mean()) == pytest.approx(value[:, 2].std(ddof=1), rel=0.15)


@pytest.mark.parametrize("method", ["poisson_mle", "nested_mle"])
def test_a_single_burst_does_not_make_the_robust_error_of_k_nothing(method):
    """300 hits in one of 16 blocks say no more of k than 300 hits do: the interval is as wide, or is not stated."""
    exposure, hits, rings = drawn(np.random.default_rng(6), BLOCKS, shape=math.inf)
    for a in (hits, rings):
        a[:5], a[6:] = 0, 0
    got = curves(slow.window(exposure, hits, rings), DELTAS, FitSpec(method))
    assert got.reason[0, 2] == OK
    assert not (got.t95 * got.se_k_robust)[0, 2] < got.se_k[0, 2]
