"""A schedule is judged as a slow twin judges it, knows nothing of what follows, and its intervals cover the truth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib.validation import Validation, validate, verdict
from mmlab.core.calib_schemas import FITS, POINTS, SCORES, STABILITY, VALIDATION, WINDOWS
from mmlab.core.errors import DataError
from mmlab.core.spans import NS_PER_MIN
from reference import validation as twin

MIN = NS_PER_MIN
T0 = 29_000_000 * MIN
A, K = 0.5, 0.3
DELTAS = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])
SIDES = ("bid", "ask", "both")


def table(contract, rows) -> pl.DataFrame:
    """Rows of some of a table's columns; the others are null, 0 or the first value allowed."""
    fill = {
        c.name: c.values[0] if c.values else {pl.Int64: 0, pl.Float64: 0.0, pl.Boolean: True, pl.String: ""}[c.dtype]
        for c in contract.columns
    }
    fill |= {c.name: None for c in contract.columns if c.nullable}
    return pl.DataFrame([fill | row for row in rows], schema=contract.schema)


def points_of(exposure_ns, hits, rings, deltas=DELTAS, bucket_min=1, keep=None) -> pl.DataFrame:
    """POINTS of arrays of shape (n_buckets, 2 sides, n_deltas); `keep`, of the same shape, drops bid and ask rows."""
    exposure_ns, hits, rings = (np.concatenate([a, a.sum(1, keepdims=True)], 1) for a in (exposure_ns, hits, rings))
    n = exposure_ns.shape[0]
    start = T0 + bucket_min * MIN * np.arange(n)
    per = 3 * deltas.size
    frame = pl.DataFrame(
        {
            "bucket_start_ns": np.repeat(start, per),
            "bucket_end_ns": np.repeat(start + bucket_min * MIN, per),
            "side": list(np.tile(np.repeat(SIDES, deltas.size), n)),
            "delta_ticks": np.tile(deltas, 3 * n),
            "exposure_ns": exposure_ns.ravel(),
            "exposure_s_total": exposure_ns.ravel() / 1e9,
            "fills_total": hits.ravel(),
            "ring_fills": rings.ravel(),
            "qty_total": hits.ravel() * 0.1,
        }
    ).with_columns(
        count_rule=pl.lit("sweeps"),
        usable=pl.lit(True),
        lambda_total=pl.lit(None, pl.Float64),
        lambda_qty=pl.lit(None, pl.Float64),
    )
    if keep is not None:
        frame = frame.filter(np.concatenate([keep, np.ones_like(keep[:, :1])], 1).ravel())
    return POINTS.check(POINTS.conform(frame))


def windows_of(n, first_min=10, step_min=5, train_min=10, a=A, k=K) -> pl.DataFrame:
    """A schedule of `n` steps with the same parameters."""
    starts = [T0 + (first_min + i * step_min) * MIN for i in range(n)]
    rows = (
        {"start_ns": s, "end_ns": s + step_min * MIN, "train_start_ns": s - train_min * MIN, "train_end_ns": s}
        | {"A": a, "k": k, "age_steps": 0, "source": "fit"}
        for s in starts
    )
    return table(WINDOWS, list(rows))


def market(seed, minutes=70, a=A, k=K, burst=0.0) -> pl.DataFrame:
    """Poisson rings of a true curve and the nested hits that follow from them; `burst`: sd of ln A a minute."""
    rng = np.random.default_rng(seed)
    exposure = rng.integers(30, 61, (minutes, 2, 1)) * 10**9 * np.ones(DELTAS.size, np.int64)
    rate = a * np.exp(-k * DELTAS)
    ring_rate = rate - np.append(rate[1:], 0.0)
    level = np.exp(burst * rng.standard_normal((minutes, 1, 1)) - burst**2 / 2)
    rings = rng.poisson(exposure / 1e9 * ring_rate * level)
    hits = rings[..., ::-1].cumsum(-1)[..., ::-1]
    return points_of(exposure, hits, rings)


NO_FITS = FITS.empty()


def row(found: Validation, predictor: str, side: str = "both") -> dict:
    """One row of the scores."""
    return found.scores.row(by_predicate=(pl.col("side") == side) & (pl.col("predictor") == predictor), named=True)


def same(got: pl.DataFrame, expected: list[dict]) -> None:
    """Equal rows in equal order; floats to 1e-8, as sums are taken in another order."""
    assert got.height == len(expected)
    for i, theirs in enumerate(expected):
        mine = got.row(i, named=True)
        assert list(mine) == list(theirs)
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, rel=1e-8, abs=1e-9), (i, name)
            else:
                assert mine[name] == value, (i, name)


@st.composite
def inputs(draw):
    """Sparse points, holes, a last step covered in part, steps without parameters; and fits that overlap."""
    rng = np.random.default_rng(draw(st.integers(0, 10**9)))
    bucket = draw(st.sampled_from([1, 5]))
    step, train = bucket * draw(st.integers(1, 3)), bucket * draw(st.integers(1, 4))
    n_buckets = draw(st.integers(1, 25))
    deltas = np.sort(rng.choice(np.arange(1, 20) / 2, draw(st.integers(1, 5)), replace=False))
    shape = (n_buckets, 2, deltas.size)
    exposure = rng.integers(0, bucket * MIN, shape) * (rng.random(shape) < draw(st.sampled_from([0.2, 0.8, 1.0])))
    rings = rng.poisson(draw(st.sampled_from([0.0, 0.3, 5.0])), shape)
    hits = rings[..., ::-1].cumsum(-1)[..., ::-1]
    keep = rng.random(shape) < draw(st.sampled_from([0.5, 1.0]))
    points = points_of(exposure, hits, rings, deltas, bucket, keep)
    n_steps = max(1, (n_buckets - 1) * bucket // step + 1)
    windows = windows_of(n_steps, draw(st.sampled_from([0, step])), step, train).with_columns(
        A=pl.Series(rng.uniform(0.01, 2.0, n_steps)),
        k=pl.Series(rng.uniform(0.01, 2.0, n_steps)),
        age_steps=pl.Series(rng.integers(0, 3, n_steps)),
    )
    known = pl.Series(rng.random(n_steps) < 0.8)
    windows = windows.with_columns(pl.when(known).then(pl.col(c)).alias(c) for c in ("A", "k", "age_steps"))
    return points, drawn_fits(rng, draw(st.integers(0, 12))), windows, draw(st.booleans())


def drawn_fits(rng, n) -> pl.DataFrame:
    """Fits of random spans that overlap, some of another family or side, or not ok, or without robust errors."""
    start = np.sort(rng.choice(200, n, replace=False))
    rows = [
        {
            "train_start_ns": T0 + int(s) * MIN,
            "train_end_ns": T0 + int(s + rng.integers(1, 30)) * MIN,
            "side": str(rng.choice(["both", "both", "bid"])),
            "family": str(rng.choice(["exponential", "exponential", "power_law"])),
            "ok": bool(rng.random() < 0.8),
            "A": rng.uniform(0.1, 2.0),
            "k": rng.uniform(0.1, 2.0),
            "se_log_A": rng.uniform(0.01, 0.1),
            "se_k": rng.uniform(0.01, 0.1),
            "se_log_A_robust": rng.uniform(0.01, 0.2) if rng.random() < 0.5 else None,
            "se_k_robust": rng.uniform(0.01, 0.2) if rng.random() < 0.5 else None,
        }
        for s in start
    ]
    return table(FITS, rows)


@settings(max_examples=60, deadline=None)
@given(given_=inputs(), seed=st.integers(0, 99))
def test_all_tables_equal_those_of_a_slow_twin_whatever_the_rows_order(given_, seed):
    """Loops over dicts find the same predictions, scores and movements, and the same lack of anything to judge."""
    points, fits, windows, nested = given_
    steps, scores = twin.validation(points.to_dicts(), windows.to_dicts(), nested)
    if not steps:
        with pytest.raises(DataError, match="no step to judge"):
            validate(points, fits, windows, nested)
        return
    found = validate(points, fits, windows, nested)
    same(found.steps, steps)
    same(found.scores, scores)
    same(found.stability, twin.stability(fits.to_dicts()))
    for contract, frame in ((VALIDATION, found.steps), (SCORES, found.scores), (STABILITY, found.stability)):
        contract.check(frame)
    shuffled = [f.sample(fraction=1, shuffle=True, seed=seed) for f in (points, fits, windows)]
    again = validate(*shuffled, nested)
    assert again.steps.equals(found.steps)
    assert again.scores.equals(found.scores)
    assert again.stability.equals(found.stability)
    assert again.verdict == found.verdict


@pytest.mark.parametrize("burst", [0.0, 0.5])
def test_the_ratios_interval_covers_1_in_95_of_100_true_markets(burst):
    """Clustered over steps it stays honest even where hits come in bursts, which a Poisson's error would not see."""
    n, covered, poisson = 200, 0, 0
    for seed in range(n):
        fit = row(validate(market(seed, burst=burst), NO_FITS, windows_of(12)), "fit")
        covered += fit["ratio_low"] <= 1 <= fit["ratio_high"]
        poisson += abs(fit["observed"] - fit["expected"]) < 1.96 * fit["expected"] ** 0.5
    assert abs(covered / n - 0.95) < 3 * (0.95 * 0.05 / n) ** 0.5
    assert (poisson / n < 0.8) == (burst > 0)


def test_the_true_curve_beats_raw_rates_in_expectation():
    """Over markets the gain over both baselines is above 0 by 3 errors: they estimate 12 rates, the curve knows 2."""
    found = [validate(market(seed), NO_FITS, windows_of(12)) for seed in range(60)]
    for predictor in ("constant", "last_window"):
        for side in ("bid", "ask", "both"):
            gains = np.array([row(f, predictor, side)["gain_per_step"] for f in found])
            assert gains.mean() > 3 * gains.std(ddof=1) / np.sqrt(gains.size), (predictor, side)
    heads = [f.verdict.partition(":")[0] for f in found]
    assert heads.count("holds") >= 0.9 * len(heads), heads


FIGURES = {
    "fit": {"ratio": 0.98, "ratio_low": 0.95, "ratio_high": 1.01, "gain_per_step": 0.0},
    "constant": {"gain_per_step": 3.1, "gain_per_step_low": 1.2, "gain_per_step_high": 5.0},
    "last_window": {"gain_per_step": 0.4, "gain_per_step_low": -0.1, "gain_per_step_high": 0.9},
}
WIDE = {"ratio": 1.2, "ratio_low": 0.9, "ratio_high": 1.6}
NEAR = {"ratio": 1.03, "ratio_low": 1.01, "ratio_high": 1.049}
BEYOND = {"ratio": 1.03, "ratio_low": 1.01, "ratio_high": 1.051}
LOSS = {"gain_per_step": -0.05, "gain_per_step_low": -0.08, "gain_per_step_high": -0.02}
UNSURE = {"gain_per_step": -0.05, "gain_per_step_low": -0.12, "gain_per_step_high": 0.02}


@pytest.mark.parametrize(
    ("predictor", "change", "head", "tail"),
    [
        ("fit", {}, "holds: 12,340 hits predicted, 12,101 came (0.98, 95% 0.95 to 1.01); a step's log score", ""),
        ("fit", {}, "", "beats a constant rate by 3.1 (1.2 to 5.0) and the last window's rates by 0.4 (-0.1 to 0.9)"),
        ("fit", WIDE, "holds: ", ""),
        ("fit", NEAR, "holds: ", ""),
        ("fit", BEYOND, "off by 3%: ", ""),
        ("fit", {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}, "off by 50%: ", ""),
        (
            "last_window",
            LOSS,
            "worse than the last window's rates: ",
            "trails the last window's rates by 0.050 (0.020 to 0.080)",
        ),
        ("last_window", UNSURE, "holds: ", " (1.2 to 5.0) and trails the last window's rates by 0.05 (-0.02 to 0.12)"),
        ("constant", LOSS, "worse than a constant rate: ", " and beats the last window's rates by 0.4 (-0.1 to 0.9)"),
        ("fit", {"ratio_low": None, "ratio_high": None, "steps": 1}, "too little data: 1 step judged, 12,340 hits", ""),
    ],
)
def test_the_verdict_is_one_line_for_a_trader(predictor, change, head, tail):
    """Level first, then the two baselines; losses are told as such."""
    figures = FIGURES | {predictor: FIGURES[predictor] | change}
    rows = [
        {"side": side, "predictor": name, "steps": 9, "expected": 12340.2, "observed": 12101} | row
        for side in SIDES
        for name, row in figures.items()
    ]
    told = verdict(table(SCORES, rows))
    assert told.startswith(head)
    assert told.endswith(tail)
    assert "\n" not in told


def test_a_wrong_level_is_off_and_a_wrong_decay_is_worse():
    """Twice the decay misses hits; with A raised until the total is right, only the log score can tell."""
    points = market(2)
    off = validate(points, NO_FITS, windows_of(12, k=2 * K)).verdict
    ratio = row(validate(points, NO_FITS, windows_of(12, k=2 * K)), "fit")["ratio"]
    assert off.startswith(f"off by {ratio - 1:.0%}: ")
    assert ratio == pytest.approx(np.exp(K), rel=0.1)
    worse = validate(points, NO_FITS, windows_of(12, a=A * np.exp(K), k=2 * K))
    assert worse.verdict.startswith("worse than a constant rate and the last window's rates: ")
    assert "log score trails a constant rate by " in worse.verdict
    assert "(1.0" in worse.verdict or "(0.9" in worse.verdict
    assert row(worse, "constant")["gain_per_step_high"] < 0


def test_a_step_knows_nothing_of_what_follows_it():
    """Other points from an instant on leave the earlier rows, and the scores up to there, bit for bit."""
    windows, cut = windows_of(12), T0 + 40 * MIN
    past = pl.col("bucket_start_ns") < cut
    first = market(3)
    second = pl.concat([first.filter(past), market(4, a=3.0, k=0.1).filter(~past)])
    runs = [validate(p, NO_FITS, windows) for p in (first, second)]
    before = [r.steps.filter(pl.col("end_ns") <= cut) for r in runs]
    assert before[0].height == 6 * 3 * DELTAS.size
    assert before[0].equals(before[1])
    assert not runs[0].steps.equals(runs[1].steps)
    predicted = [r.steps.select("start_ns", "side", "delta_ticks", "age_steps") for r in runs]
    assert predicted[0].equals(predicted[1])
    early = [validate(p, NO_FITS, windows.head(6)) for p in (first, second, first.filter(past))]
    assert early[0].scores.equals(early[1].scores)
    assert early[0].scores.equals(early[2].scores)
    assert early[0].verdict == early[1].verdict


def test_hits_in_a_step_do_not_change_what_its_baselines_foretold():
    """A step's own points enter no prediction: ten times its hits leave the expectations of all three as they were."""
    points = market(5, minutes=15)
    more = points.with_columns(
        pl.col(c) * pl.when(pl.col("bucket_start_ns") >= T0 + 10 * MIN).then(10).otherwise(1)
        for c in ("fills_total", "ring_fills")
    )
    runs = [validate(p.select(POINTS.schema.names()), NO_FITS, windows_of(1)).scores for p in (points, more)]
    assert runs[0]["expected"].equals(runs[1]["expected"])
    assert (runs[1]["observed"] == 10 * runs[0]["observed"]).all()


def test_a_step_covered_in_part_is_judged_on_the_part():
    """The tape ends two minutes into the last step: its time at risk, and so its expectation, end there."""
    points = market(6, minutes=22)
    found = validate(points, NO_FITS, windows_of(3))
    last = found.steps.filter(pl.col("start_ns") == T0 + 20 * MIN)
    tail = points.filter(pl.col("bucket_start_ns") >= T0 + 20 * MIN)
    assert last["end_ns"].unique().to_list() == [T0 + 25 * MIN]
    assert last["exposure_s"].sum() == pytest.approx(tail["exposure_s_total"].sum())
    assert last["observed"].sum() == tail["fills_total"].sum()
    np.testing.assert_allclose(last["expected"], last["exposure_s"] * A * np.exp(-K * last["delta_ticks"]))


def test_steps_without_parameters_or_without_time_at_risk_are_left_out():
    """Before the first good fit, and over a hole as long as a step, there is nothing to judge."""
    hole = pl.col("bucket_start_ns").is_between(T0 + 25 * MIN, T0 + 30 * MIN, closed="left")
    points = market(7).with_columns(
        pl.when(hole).then(0).otherwise(pl.col(c)).cast(pl.Int64).alias(c)
        for c in ("exposure_ns", "fills_total", "ring_fills")
    )
    windows = windows_of(12)
    windows = windows.with_columns(
        pl.when(pl.int_range(pl.len()) >= 2).then(pl.col(c)).alias(c) for c in ("A", "k", "age_steps")
    )
    found = validate(points, NO_FITS, windows)
    minutes = ((found.steps["start_ns"].unique().sort() - T0) // MIN).to_list()
    assert minutes == [20, *range(30, 70, 5)]
    assert row(found, "fit")["steps"] == 9


def test_distances_measured_on_their_own_are_disjoint_as_they_are():
    """Not nested, a ring is the plain hits, and the constant rate is that of the plain hits."""
    points = market(8, minutes=20)
    found = validate(points, NO_FITS, windows_of(2), nested=False)
    assert found.steps["observed_ring"].equals(found.steps["observed"].rename("observed_ring"))
    assert found.steps["expected_ring"].equals(found.steps["expected"].rename("expected_ring"))
    bid = points.filter((pl.col("side") == "bid") & (pl.col("bucket_start_ns") < T0 + 10 * MIN))
    rate = bid.group_by("delta_ticks", maintain_order=True).agg(
        (pl.col("fills_total").sum() + 0.5) / pl.col("exposure_s_total").sum()
    )
    one = validate(points, NO_FITS, windows_of(1), nested=False)
    at_risk = one.steps.filter(pl.col("side") == "bid")["exposure_s"]
    assert row(one, "constant", "bid")["expected"] == pytest.approx((at_risk * rate["fills_total"]).sum())


def test_rings_of_a_step_add_up_to_the_nearest_distances_hits():
    """With the same time at risk at all distances the disjoint expectations telescope."""
    found = validate(market(9), NO_FITS, windows_of(12)).steps
    rings = found.group_by("start_ns", "side", maintain_order=True).agg(
        pl.col("expected_ring", "observed_ring").sum(), pl.col("expected", "observed").first()
    )
    np.testing.assert_allclose(rings["expected_ring"], rings["expected"])
    assert (rings["observed_ring"] == rings["observed"]).all()


@pytest.mark.parametrize(
    ("points", "windows", "message"),
    [
        (market(1), windows_of(3, a=None, k=None), "none of the 3 steps has parameters"),
        (market(1), WINDOWS.empty(), "none of the 0 steps has parameters"),
        (market(1), windows_of(3, first_min=1000), "none of the 3 steps with parameters holds a bucket"),
        (POINTS.empty(), windows_of(3), "none of the 3 steps with parameters holds a bucket"),
        (market(1), windows_of(3, k=-0.1), "A or k is not above 0: 3 steps"),
        (market(1), windows_of(3).with_columns(pl.col("train_end_ns") + 1), "training span ends after the step"),
        (pl.concat([market(1), market(2)]), windows_of(3), "two points share bucket, side and distance"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_remedy(points, windows, message):
    """No table is made of nothing, of a curve that is none, or of a fit that has seen its step."""
    with pytest.raises(DataError, match=message) as caught:
        validate(points, NO_FITS, windows)
    assert caught.value.remedy


def test_one_step_or_no_hits_are_too_little_data():
    """Intervals need two steps and a hit; without them the verdict says so and the intervals are null."""
    one = validate(market(1), NO_FITS, windows_of(1))
    assert one.verdict.startswith("too little data: 1 step judged, ")
    fit = row(one, "fit")
    assert fit["ratio"] == pytest.approx(1, abs=0.3)
    assert (fit["ratio_low"], fit["gain_per_step"], fit["gain_per_step_low"]) == (None, 0.0, None)
    silent = market(1).with_columns(pl.lit(0, pl.Int64).alias(c) for c in ("fills_total", "ring_fills"))
    assert validate(silent, NO_FITS, windows_of(12)).verdict.startswith("too little data: 12 steps judged, ")
    unforeseen = validate(market(1), NO_FITS, windows_of(1, first_min=0))  # nothing came before the step
    assert unforeseen.steps.height == 3 * DELTAS.size
    assert row(unforeseen, "fit")["steps"] == 0
    assert row(unforeseen, "fit")["gain_per_step"] is None


def test_far_distances_do_not_underflow():
    """A hit where the curve gives less than the smallest double costs a finite log score."""
    found = validate(market(1), NO_FITS, windows_of(12, k=100.0))
    assert found.scores["log_score"].is_finite().all()
    assert found.steps["expected_ring"].min() == 0.0
    assert found.verdict.startswith("off by ")


def moving(n, seed, se=0.05, drift=0.0, step_min=10) -> pl.DataFrame:
    """`n` fits on spans of 20 minutes, a new one each `step_min`; ln A and k scatter by `se` and drift an hour."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n) * step_min / 60
    log_a, k = (base + drift * hours + se * rng.standard_normal(n) for base in (np.log(A), K))
    rows = (
        {"train_start_ns": T0 + i * step_min * MIN, "train_end_ns": T0 + (i * step_min + 20) * MIN}
        | {"side": "both", "A": float(np.exp(log_a[i])), "k": float(k[i]), "se_log_A": se, "se_k": se}
        for i in range(n)
    )
    return table(FITS, list(rows))


def test_stability_is_1_in_a_constant_market_and_finds_a_drift():
    """Fits on spans that do not overlap scatter as their errors say; a drift lies within its error."""
    calm = validate(market(1), moving(400, 1, step_min=20), windows_of(2)).stability
    assert calm["fits"].to_list() == [400, 400]
    np.testing.assert_allclose(calm["stability"], 1.0, atol=0.1)
    assert (calm["drift_per_hour"].abs() < 3 * calm["drift_se"]).all()
    drifting = validate(market(1), moving(400, 1, drift=0.01, step_min=20), windows_of(2)).stability
    assert ((drifting["drift_per_hour"] - 0.01).abs() < 3 * drifting["drift_se"]).all()
    assert (drifting["drift_per_hour"] > 3 * drifting["drift_se"]).all()


def test_stability_takes_no_overlapping_fits_and_is_null_without_enough_of_them():
    """Spans of 20 minutes, one each 10: every second fit; one fit has no scatter, two have no drift."""
    two, three, one, none = (
        validate(market(1), f, windows_of(2)).stability for f in (moving(4, 1), moving(5, 1), moving(2, 1), NO_FITS)
    )
    assert [s["fits"].to_list() for s in (none, one, two, three)] == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert none.select("mean", "scatter", "mean_se", "stability").null_count().sum_horizontal().item() == 8
    assert one["scatter"].null_count() == 2
    assert one["mean_se"].to_list() == pytest.approx([0.05, 0.05])
    k = moving(4, 1)["k"]
    assert two["scatter"][1] == pytest.approx(abs(k[0] - k[2]) / 2**0.5)
    assert two["drift_per_hour"].null_count() == 2
    assert three.null_count().sum_horizontal().item() == 0


def test_first_hits_are_scored_by_each_distance_since_rings_do_not_add_up():
    """In a market that moves, rings under first_hit add up to more than the hits; a right curve still holds."""
    rng = np.random.default_rng(5)
    exposure = np.full((120, 2, len(DELTAS)), 60 * 10**9, np.int64)
    rate = A * np.exp(-K * np.array(DELTAS))
    hits = rng.poisson(exposure / 1e9 * rate)  # each distance by itself
    points = points_of(exposure, hits, 2 * hits).with_columns(count_rule=pl.lit("first_hit"))
    found = validate(points, NO_FITS, windows_of(20))
    assert found.verdict.startswith("holds"), found.verdict
    assert found.steps["observed_ring"].equals(found.steps["observed"].rename("observed_ring"))
