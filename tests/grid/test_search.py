"""The search: the same seed gives the same study, nothing of the hold-out gets in, nothing is drawn twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from optuna.trial import FrozenTrial, TrialState

from mmlab.core.errors import UsageError
from mmlab.grid.engine import simulate
from mmlab.grid.market import Market
from mmlab.grid.null import walk
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.score import Score, Tally, score
from mmlab.grid.search import BATCH, EVERY, STARTUP, TPE, UNIFORM, Failure, finished, importance, search
from mmlab.grid.space import Space, set_to, space
from mmlab.grid.trial import Bench, Outcome, refuse_other
from mmlab.grid.windows import Windows

STEP = 900_000_000_000
BASE = GridParams(kelly_window=0, grid_spacing_k=0.6, spacing_floor=0.001, adaptive_floor_scale=0.4, fee_maker=0.0)
VENUE = VenueParams(tick_size="0.1")
SPACE: Space = space(
    {"grid_spacing_k": {"low": 0.4, "high": 1.5}, "grid_levels": {"low": 2, "high": 6},
     "regime_hysteresis_bars": {"low": 1, "high": 6}, "grid_mode": {"choices": ["geometric", "arithmetic"]}}, BASE
)  # fmt: skip


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return walk(1_600, STEP, [11], steps=300)


def bench_of(frame: pl.DataFrame, n: int = 2, coins: int = 1) -> Bench:
    """As the flow makes it: markets end where the hold-out begins."""
    windows = Windows.of(int(frame["open_ns"][0]), int(frame["open_ns"][-1]) + STEP, STEP, n, 0.2)
    market = Market.of(frame.filter(pl.col("open_ns") < windows.searched.high_ns), STEP)
    return Bench(tuple(f"C{k}" for k in range(coins)), (market,) * coins, (VENUE,) * coins, windows, BASE)


def evaluated(bench: Bench):
    def evaluate(batch):
        for k, values in enumerate(batch):
            yield k, bench.run(set_to(bench.base, values, "trial"))

    return evaluate


def told(trials: list[FrozenTrial]) -> list[tuple]:
    """All of a study but the times."""
    return [(t.number, t.state, t.value, t.params, t.user_attrs) for t in trials]


def test_a_trial_scores_each_stretch_by_itself_and_takes_the_worst_train_score(bars):
    """Against runs made one by one: a fresh account for each, the chain of the first k + 1 trains window k."""
    bench = bench_of(bars, coins=2)
    found = bench.run(BASE)
    market, windows = bench.markets[0], bench.windows
    X = market.rows(BASE)
    growth, tallies = [], []
    for train in windows.train:
        low, high = train.bars(market.open_ns)
        raw = simulate(X, market.candles, BASE, VENUE, low=low, high=high)
        growth.append(raw.equity[:, 1] / BASE.initial_capital)
        tallies.append(Tally.of(raw))
    chain = np.concatenate([growth[0], growth[1] * growth[0][-1]])
    both = Tally(*(sum(pair) for pair in zip(*(vars(t).values() for t in tallies), strict=True)))
    assert found.train[0][0] == score(growth[0], tallies[0], 1.0)
    assert found.train[0][1].value == pytest.approx(score(chain, both, 1.0).value, rel=1e-9)
    assert found.train[0] == found.train[1]
    assert found.value == min(each.value for each in found.train[0])
    low, high = windows.test[1].bars(market.open_ns)
    raw = simulate(X, market.candles, BASE, VENUE, low=low, high=high)
    assert found.test[0][1].total_return == pytest.approx(raw.equity[-1, 1] / BASE.initial_capital - 1)


def test_test_windows_have_no_say_in_the_value():
    good, bad = (Score(v, 0, 0, 0, 0, 0, 0, 0, 0) for v in (3.0, -5.0))
    assert Outcome(((good, good),), ((bad, bad),)).value == 3.0
    assert Outcome(((good, good), (good, bad)), ((good, good),)).value == -5.0


def test_the_same_seed_gives_the_same_study_and_another_seed_another(bars):
    bench = bench_of(bars)
    one, two, other = (search([], SPACE, 28, seed, evaluated(bench), lambda _: None) for seed in (3, 3, 4))
    assert told(one) == told(two)
    assert [t.params for t in one] != [t.params for t in other]
    assert [t.user_attrs["drawn"] for t in one] == [
        UNIFORM if k < STARTUP or k % EVERY == 0 else TPE for k in range(28)
    ]


def test_whatever_lies_in_the_holdout_the_whole_study_is_the_same(bars):
    """The last fifth replaced by another market: every draw, score and attribute, and the fingerprint, bit by bit."""
    cut = bench_of(bars).windows.holdout.low_ns
    later = pl.col("open_ns") >= cut
    prices = ("open", "high", "low", "close", "volume")
    other = bars.with_columns(pl.when(later).then(pl.col(name) * 3).otherwise(pl.col(name)) for name in prices)
    assert not other.equals(bars)
    benches = [bench_of(frame) for frame in (bars, other)]
    one, two = (search([], SPACE, 10, 3, evaluated(bench), lambda _: None) for bench in benches)
    assert told(one) == told(two)
    assert benches[0].fingerprint(SPACE) == benches[1].fingerprint(SPACE)


def test_the_order_in_which_workers_finish_changes_nothing(bars):
    bench = bench_of(bars)

    def backwards(batch):
        yield from reversed(list(evaluated(bench)(batch)))

    one, two = (search([], SPACE, 26, 3, how, lambda _: None) for how in (evaluated(bench), backwards))
    assert told(one) == told(two)


def test_a_search_in_pieces_is_the_one_in_one_go_and_draws_nothing_twice(bars):
    """Pieces that end within a batch as well."""
    bench = bench_of(bars)
    whole = search([], SPACE, 4 * BATCH, 3, evaluated(bench), lambda _: None)
    for pieces in ((16, 16), (11, 10, 11)):
        kept: list[FrozenTrial] = []
        for trials in pieces:
            made = search(kept, SPACE, trials, 3, evaluated(bench), kept.extend)
        assert told(made) == told(whole)
        assert len(kept) == 4 * BATCH
    assert len({str(t.params) for t in whole}) == 4 * BATCH


def test_after_an_interruption_what_was_done_is_kept_and_the_study_is_the_same(bars):
    """Ctrl-C in the middle of the fourth batch, whose trials were done out of order."""
    bench, kept, calls, made = bench_of(bars), [], 0, 0

    def broken(batch):
        nonlocal calls, made
        calls += 1
        for n, (k, found) in enumerate(reversed(list(evaluated(bench)(batch)))):
            if calls == 4 and n == 3:
                raise KeyboardInterrupt
            made += 1
            yield k, found

    with pytest.raises(KeyboardInterrupt):
        search([], SPACE, 40, 3, broken, kept.extend)
    assert len(kept) == made == 3 * BATCH + 3
    whole = search([], SPACE, 5 * BATCH, 3, evaluated(bench), lambda _: None)
    assert told(search(kept, SPACE, BATCH + 5, 3, evaluated(bench), kept.extend)) == told(whole)
    assert len(kept) == 5 * BATCH
    other = search(kept, SPACE, 3, 4, evaluated(bench), lambda _: None)  # another seed from here on
    assert told(other)[: 5 * BATCH] == told(whole)
    assert len({str(t.params) for t in other}) == 5 * BATCH + 3


def test_a_trial_that_fails_is_marked_and_the_others_go_on(bars):
    bench = bench_of(bars)

    def evaluate(batch):
        for k, found in evaluated(bench)(batch):
            yield k, Failure("ZeroDivisionError: what went wrong") if k == 2 else found

    kept: list[FrozenTrial] = []
    trials = search([], SPACE, BATCH, 3, evaluate, kept.extend)
    assert told(search(kept[:5], SPACE, 3, 3, evaluated(bench), lambda _: None)) == told(trials)
    assert [t.state == TrialState.FAIL for t in trials] == [k == 2 for k in range(BATCH)]
    assert trials[2].user_attrs["error"] == "ZeroDivisionError: what went wrong"
    assert [t.number for t in finished(trials)] == [0, 1, 3, 4, 5, 6, 7]


def test_a_fingerprint_names_what_differs(bars):
    bench = bench_of(bars)
    own = bench.fingerprint(SPACE)
    refuse_other(own, bench_of(bars).fingerprint(SPACE), "s")
    moved = bars.with_columns(pl.col("volume") + 1.0)
    others = {
        "data": bench_of(moved).fingerprint(SPACE),
        "windows": bench_of(bars, n=1).fingerprint(SPACE),
        "space": bench.fingerprint({**SPACE, "gamma": dataclasses.replace(SPACE["grid_spacing_k"], high=2.0)}),
        "fixed parameters": dataclasses.replace(bench, base=GridParams()).fingerprint(SPACE),
        "venue": dataclasses.replace(bench, venues=(VenueParams(),)).fingerprint(SPACE),
        "coins": bench_of(bars, coins=2).fingerprint(SPACE),
    }
    for name, other in others.items():
        with pytest.raises(UsageError, match=f"study s was made with other .*{name}"):
            refuse_other(other, own, "s")
    with pytest.raises(UsageError, match="other objective"):
        refuse_other({}, own, "s")


def test_importance_finds_the_parameter_that_counts():
    def evaluate(batch):
        for k, values in enumerate(batch):
            one = Score(-((values["grid_spacing_k"] - 0.8) ** 2), 0, 0, 0, 0, 0, 0, 0, 0)
            yield k, Outcome(((one,),), ((one,),))

    trials = search([], SPACE, 40, 1, evaluate, lambda _: None)
    found = importance(trials)
    assert set(found) == set(SPACE)
    assert next(iter(found)) == "grid_spacing_k"
    assert sum(found.values()) == pytest.approx(1.0)
    assert importance(trials[:5]) == {}


def test_a_coin_without_bars_in_a_stretch_is_named(bars):
    bench = bench_of(bars)
    low, high = bench.windows.test[0].low_ns, bench.windows.test[0].high_ns
    gap = bars.filter((pl.col("open_ns") < low) | (pl.col("open_ns") >= high - 10 * STEP))
    with pytest.raises(UsageError, match="C0 has 10 bars"):
        dataclasses.replace(bench, markets=(Market.of(gap, STEP),))
