"""Walk-forward windows: in order, disjoint, anchored, and what is held out is trained on by none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.grid.windows import Span, Windows

STEP = 900_000_000_000
START = 1_704_067_200_000_000_000


@given(st.integers(2_000, 200_000), st.integers(1, 6), st.floats(0.05, 0.5))
def test_stretches_follow_each_other_without_gap_or_overlap(bars, n, holdout):
    """train, test, train, test, ..., hold-out: all of the span, once."""
    try:
        made = Windows.of(START, START + bars * STEP, STEP, n, holdout)
    except UsageError:
        assert bars * min(holdout, (1 - holdout) * 0.3 / n) < 97
        return
    assert len(made) == n
    assert made.holdout is not None
    order = [span for pair in zip(made.train, made.test, strict=True) for span in pair] + [made.holdout]
    assert order[0].low_ns == START
    assert order[-1].high_ns == START + bars * STEP
    assert all(a.high_ns == b.low_ns for a, b in pairwise(order))
    assert made.searched == Span(START, made.holdout.low_ns)
    for train, test in zip(made.train, made.test, strict=True):
        learnt, block = train.high_ns - train.low_ns, test.high_ns - train.low_ns
        assert learnt / block == pytest.approx(0.7, abs=STEP / block)
    assert (made.holdout.high_ns - made.holdout.low_ns) / STEP == pytest.approx(bars * holdout, abs=0.51)


def test_a_span_names_the_bars_that_open_within_it():
    open_ns = START + STEP * np.array([0, 1, 2, 5, 6])
    assert Span(START + STEP, START + 5 * STEP).bars(open_ns) == (1, 3)
    assert str(Span(START, START + STEP)) == "2024-01-01 00:00 to 2024-01-01 00:15"


def test_no_holdout_searches_all():
    made = Windows.of(START, START + 4_000 * STEP, STEP, 2, 0.0)
    assert made.holdout is None
    assert made.searched.high_ns == START + 4_000 * STEP


@pytest.mark.parametrize(
    ("n", "holdout", "bars", "said"),
    [
        (0, 0.2, 9_000, "--windows is 0"),
        (2, 0.95, 9_000, "--holdout is 0.95"),
        (2, -0.1, 9_000, "--holdout is -0.1"),
        (4, 0.2, 1_000, "fewer than 96"),
        (1, 0.01, 5_000, "stretches of 50 bars"),
        (3, 0.2, 0, "fewer than 96"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(n, holdout, bars, said):
    with pytest.raises(UsageError, match=said):
        Windows.of(START, START + bars * STEP, STEP, n, holdout)
