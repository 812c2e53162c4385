"""The robust middle of the best trials, and that meaningless scores do not make anything look stable."""

from __future__ import annotations

import numpy as np
import pytest

from mmlab.grid.robust import NO_INFORMATION, Cluster, Stability, cluster, spreads
from mmlab.grid.score import Score
from mmlab.grid.search import UNIFORM, finished, search
from mmlab.grid.space import Choice, Range, Space
from mmlab.grid.trial import Outcome

SPACE: Space = {
    "a": Range(0.0, 1.0, False), "b": Range(-5.0, 5.0, False), "n": Range(2, 6, True), "m": Range(1, 8, True),
    "kind": Choice(("x", "y", "z")),
}  # fmt: skip


def draws(rng: np.random.Generator, n: int) -> list[dict[str, object]]:
    """Uniform draws over the space."""
    return [
        {
            name: each.choices[rng.integers(len(each.choices))] if isinstance(each, Choice)
            else int(rng.integers(each.low, each.high + 1)) if each.whole else float(rng.uniform(each.low, each.high))
            for name, each in SPACE.items()
        }
        for _ in range(n)
    ]  # fmt: skip


def test_the_top_tenth_gives_median_and_mode():
    trials = [{"a": k / 100, "b": 0.0, "n": 2 + k % 2, "m": 1, "kind": "x" if k < 96 else "y"} for k in range(100)]
    made = cluster(SPACE, trials, list(range(100)), [True] * 100, 0)
    assert made.top == tuple(range(99, 89, -1))
    assert made.params == {"a": pytest.approx(0.945), "b": 0.0, "n": 2, "m": 1, "kind": "x"}
    assert made.stability["b"].spread == 0.0
    few = cluster(SPACE, trials[:7], [0, 5, 1, 9, 2, 8, 3], [True] * 7, 0)
    assert few.top == (3, 5, 1, 6, 4)


def test_uniform_draws_have_a_spread_of_about_one_whatever_their_number():
    """So 1 means no information; it is a mean over many clusters, each parameter by itself."""
    rng = np.random.default_rng(5)
    for size in (5, 20):
        made = np.array([spreads(SPACE, draws(rng, size), np.arange(size)[None])[0] for _ in range(400)])
        assert made.mean(axis=0) == pytest.approx(np.ones(len(SPACE)), abs=0.1)


def test_random_scores_say_stable_in_at_most_5_percent():
    """200 studies of uniform draws with scores that mean nothing."""
    rng = np.random.default_rng(6)
    words, labels = [], []
    for seed in range(200):
        made = cluster(SPACE, draws(rng, 60), list(rng.normal(size=60)), [True] * 60, seed)
        labels += [each.label for each in made.stability.values()]
        words.append(made.label)
    # three standard errors of a share of 5%
    assert np.mean([label != "UNSTABLE" for label in labels]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(labels))
    assert np.mean([word != "WARNING" for word in words]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(words))


def test_a_search_over_random_scores_does_not_either_though_it_bunches():
    """TPE goes back to where it was lucky: its best trials lie close together, and still nothing is called stable."""
    rng = np.random.default_rng(7)
    label, spread = [], []
    for seed in range(6):
        trials = finished(search([], SPACE, 48, seed, meaningless(rng), lambda _: None))
        uniform = [trial.user_attrs["drawn"] == UNIFORM for trial in trials]
        made = cluster(SPACE, [t.params for t in trials], [t.value or 0.0 for t in trials], uniform, seed)
        label += [each.label for each in made.stability.values()]
        spread.append(made.score)
    assert np.mean(spread) < 0.9  # bunched: by the spread alone some would pass for stable
    assert np.mean([each != "UNSTABLE" for each in label]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(label))


def meaningless(rng: np.random.Generator):
    def evaluate(batch):
        for k, _ in enumerate(batch):
            one = Score(float(rng.normal()), 0, 0, 0, 0, 0, 0, 0, 0)
            yield k, Outcome(((one,),), ((one,),))

    return evaluate


def test_scores_that_order_a_parameter_make_it_stable_and_no_other():
    rng = np.random.default_rng(8)
    trials = draws(rng, 200)
    values = [-((trial["a"] - 0.3) ** 2) for trial in trials]
    made = cluster(SPACE, trials, values, [True] * 200, 1)
    assert made.stability["a"].label == "STABLE"
    assert made.params["a"] == pytest.approx(0.3, abs=0.05)
    assert [name for name, each in made.stability.items() if each.label == "STABLE"] == ["a"]


def test_scores_that_order_all_parameters_are_called_good_or_better():
    rng = np.random.default_rng(9)
    trials = draws(rng, 600)
    values = [-((t["a"] - 0.3) ** 2) - (t["b"] / 10) ** 2 - ((t["n"] - 4) / 5) ** 2 - ((t["m"] - 4) / 8) ** 2
              - (t["kind"] != "y") for t in trials]  # fmt: skip
    made = cluster(SPACE, trials, values, [True] * 600, 1)
    assert made.label in {"GOOD", "EXCELLENT"}
    assert made.p_value <= 0.01


def test_too_few_uniform_trials_prove_nothing():
    trials = draws(np.random.default_rng(1), 30)
    values = [-abs(trial["a"] - 0.5) for trial in trials]
    made = cluster(SPACE, trials, values, [k < 9 for k in range(30)], 0)
    assert {each.label for each in made.stability.values()} == {"UNSTABLE"}
    assert (made.label, made.meaning) == ("WARNING", NO_INFORMATION)


def test_words_follow_the_limits():
    assert [Stability(s, 0.01).label for s in (0.49, 0.5, 0.79, 0.8)] == ["STABLE", "MODERATE", "MODERATE", "UNSTABLE"]
    assert Stability(0.1, 0.06).label == "UNSTABLE"
    words = [Cluster({}, {}, s, 0.01, ()).label for s in (0.39, 0.4, 0.6, 0.8)]
    assert words == ["EXCELLENT", "GOOD", "ACCEPTABLE", "WARNING"]
    assert Cluster({}, {}, 0.1, 0.06, ()).label == "WARNING"
