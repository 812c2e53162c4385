"""What a search may vary: the document's ranges, own ones, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mmlab.core.errors import UsageError
from mmlab.grid.params import GridParams
from mmlab.grid.space import DEFAULT, Choice, Range, set_to, space


def test_without_own_ranges_the_documents_22_are_searched():
    made = space({}, GridParams())
    assert len(made) == 22
    assert list(made) == list(DEFAULT)
    assert made["grid_levels"] == Range(2.0, 6.0, True)
    assert made["gamma"] == Range(0.3, 2.0, False)


def test_own_ranges_take_the_place_of_all():
    made = space({"gamma": {"low": 1, "high": 2}, "grid_mode": {"choices": ["geometric", "arithmetic"]}}, GridParams())
    assert made == {"gamma": Range(1, 2, False), "grid_mode": Choice(("geometric", "arithmetic"))}
    assert made["grid_mode"].middle(["arithmetic", "geometric", "arithmetic"]) == "arithmetic"
    assert made["grid_mode"].middle(["arithmetic", "geometric"]) == "geometric"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gama": {"low": 1, "high": 2}}, "unknown gama"),
        ({"gamma": {"low": 2, "high": 1}}, "from 2 to 1"),
        ({"gamma": {"low": 1, "high": 1}}, "from 1 to 1"),
        ({"gamma": {"low": -1.0, "high": 1.0}}, "gamma is -1.0"),
        ({"grid_levels": {"low": 2, "high": 201}}, "grid_levels is 201"),
        ({"grid_levels": {"low": 2.0, "high": 6.5}}, "whole numbers"),
        ({"gamma": {"low": "a", "high": 2}}, "no range of numbers"),
        ({"gamma": {"low": True, "high": 2}}, "no range of numbers"),
        ({"allow_short": {"low": 0, "high": 1}}, "no range of numbers"),
        ({"grid_mode": {"choices": ["geometric"]}}, "fewer than two"),
        ({"grid_mode": {"choices": ["geometric", "cubic"]}}, "cubic"),
        ({"kama_fast": {"low": 2, "high": 40}}, "kama_fast 40 is above kama_slow"),
    ],
)
def test_what_cannot_be_meant_is_named(given, said):
    with pytest.raises(UsageError, match=said):
        space(given, GridParams())


def test_a_spread_is_that_of_uniform_draws():
    rng = np.random.default_rng(1)
    assert Range(2, 6, False).spread == pytest.approx(rng.uniform(2, 6, 200_000).std(), rel=0.01)
    assert Range(2, 6, True).spread == pytest.approx(rng.integers(2, 7, 200_000).std(), rel=0.01)
    pairs = rng.integers(0, 3, (200_000, 2))
    assert Choice((1, 2, 3)).spread == pytest.approx((pairs[:, 0] != pairs[:, 1]).mean(), rel=0.01)


def test_values_are_set_by_the_parameters_own_rules():
    assert set_to(GridParams(), {"gamma": 1, "grid_levels": 3}, "here").gamma == 1.0
    with pytest.raises(UsageError, match=r"here: grid_levels is 3\.5"):
        set_to(GridParams(), {"grid_levels": 3.5}, "here")
