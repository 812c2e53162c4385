"""The middle of the best trials instead of the best one, and whether they agree more than chance makes them.

Two things tell of a cluster of the best trials. Its spread against the spread of uniform draws over the same ranges:
about 1 means that the best trials say nothing about a parameter. And whether the scores order the parameter at all: a
search goes back to where it was lucky, so that even among meaningless scores its best trials bunch, and a small spread
alone proves nothing. So that is asked of the trials that were drawn uniformly only, which luck has not drawn together:
are their best closer together than as many of them picked at random? Of meaningless scores that says yes in 5% of
cases, whatever the search did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlab.grid.layout import Floats
from mmlab.grid.space import Choice, Space

FEWEST_TOP = 5
TOP_SHARE = 0.1
UNIFORM_TOP_SHARE = 0.2  # of the uniform trials, which are fewer
FEWEST_UNIFORM = 2 * FEWEST_TOP
PICKS = 999  # random clusters to compare with
ALPHA = 0.05
TIGHT, LOOSE = 0.5, 0.8  # spreads below which a parameter is STABLE, MODERATE
OVERALL = ((0.4, "EXCELLENT"), (0.6, "GOOD"), (0.8, "ACCEPTABLE"))
MEANING = {
    "EXCELLENT": "the best trials agree closely",
    "GOOD": "the best trials agree",
    "ACCEPTABLE": "the best trials agree on some parameters",
    "WARNING": "the best trials do not agree: the parameters may be a chance find",
}
NO_INFORMATION = "the best trials are no closer together than chance: the parameters may be a chance find"


@dataclass(frozen=True)
class Stability:
    """One parameter within the cluster: spread against uniform draws, and how likely chance makes it as small."""

    spread: float
    p_value: float

    @property
    def label(self) -> str:
        """STABLE and MODERATE only where chance does so in at most 5% of cases."""
        if self.p_value > ALPHA or self.spread >= LOOSE:
            return "UNSTABLE"
        return "STABLE" if self.spread < TIGHT else "MODERATE"


@dataclass(frozen=True)
class Cluster:
    """The robust parameters, how stable each is, and all of them together."""

    params: dict[str, Any]
    stability: dict[str, Stability]
    score: float  # mean spread: 0 all alike, about 1 no information
    p_value: float
    top: tuple[int, ...]  # places of the trials used, best first

    @property
    def label(self) -> str:
        """One word for `score`; without evidence against chance it is WARNING."""
        if self.p_value > ALPHA:
            return "WARNING"
        return next((label for limit, label in OVERALL if self.score < limit), "WARNING")

    @property
    def meaning(self) -> str:
        """What the word says."""
        return NO_INFORMATION if self.p_value > ALPHA else MEANING[self.label]


def cluster(
    space: Space, trials: Sequence[Mapping[str, Any]], values: Sequence[float], uniform: Sequence[bool], seed: int
) -> Cluster:
    """The top max(5, 10%) of trials (parameters and their values): median of each parameter, mode of choices.

    Of equal values the earlier trial is taken. p-values are of the trials that are marked `uniform`: (1 + k) / (1 +
    999), k of 999 random clusters being as tight as that of their top max(5, 20%); 1 for fewer than 10 of them.
    `values` must not be empty.
    """
    top = best(values, TOP_SHARE)
    own = spreads(space, trials, top[None])[0]
    params = {name: each.middle([trials[k][name] for k in top]) for name, each in space.items()}
    p, overall = against_chance(space, trials, values, np.flatnonzero(uniform), seed)
    found = {name: Stability(float(own[j]), float(p[j])) for j, name in enumerate(space)}
    return Cluster(params, found, float(own.mean()), overall, tuple(int(k) for k in top))


def best(values: Sequence[float] | Floats, share: float) -> npt.NDArray[np.int64]:
    """Places of the highest values, best first: this share of them, but at least 5 if there are as many."""
    size = min(len(values), max(FEWEST_TOP, int(len(values) * share)))
    return np.argsort(-np.asarray(values, np.float64), kind="stable")[:size]


def against_chance(
    space: Space,
    trials: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    uniform: npt.NDArray[np.int64],
    seed: int,
) -> tuple[Floats, float]:
    """p-value of each parameter and of their mean spread, from the trials at the places `uniform`.

    A permutation test: if a score says nothing about a parameter, its best trials are a random subset.
    """
    if len(uniform) < FEWEST_UNIFORM:
        return np.ones(len(space)), 1.0
    top = uniform[best(np.asarray(values, np.float64)[uniform], UNIFORM_TOP_SHARE)]
    rng = np.random.default_rng(seed)
    picked = uniform[rng.random((PICKS, len(uniform))).argsort(axis=1)[:, : len(top)]]
    own, chance = spreads(space, trials, top[None])[0], spreads(space, trials, picked)
    enough = 1e-12  # sums of the same numbers in another order
    p = (1 + (chance <= own + enough).sum(axis=0)) / (1 + PICKS)
    return p, (1 + int((chance.mean(axis=1) <= own.mean() + enough).sum())) / (1 + PICKS)


def spreads(space: Space, trials: Sequence[Mapping[str, Any]], picked: npt.NDArray[np.int64]) -> Floats:
    """Shape (clusters, parameters) from places (clusters, size): spread in each cluster / that of uniform draws.

    Of numbers the standard deviation (ddof 1), of choices the chance that two members differ: about 1 for uniform
    draws. A cluster of one has spread 1: it says nothing.
    """
    k = picked.shape[1]
    made = np.ones((len(picked), len(space)))
    if k < 2:
        return made
    for j, (name, each) in enumerate(space.items()):
        if isinstance(each, Choice):
            codes = np.array([each.choices.index(trial[name]) for trial in trials])[picked]
            shares = np.stack([(codes == c).mean(axis=1) for c in range(len(each.choices))])
            made[:, j] = (1 - (shares**2).sum(axis=0)) * k / (k - 1) / each.spread
        else:
            numbers = np.array([trial[name] for trial in trials], np.float64)[picked]
            made[:, j] = numbers.std(axis=1, ddof=1) / each.spread
    return made
