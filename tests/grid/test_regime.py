"""Regimes against state machines that walk from bar to bar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.grid.regime import REGIME_NAMES, detect_regime, hysteresis, step_regime, veto

rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, -0.1, 0.15, -0.15, 0.16, 0.3, 0.31, -0.31, 1.0]),  # change of KAMA
        st.sampled_from([0.0, 0.5, 0.51, 1.0]),  # ER
        st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.0, 1e-13]),  # ATR
    ),
    max_size=60,
)
codes = st.lists(st.sampled_from(list(REGIME_NAMES)), max_size=60).map(lambda found: np.array(found, np.int8))


def slow_regime(kama, before, er, atr, threshold, er_threshold):
    found = []
    for now, then, straight, size in zip(kama, before, er, atr, strict=True):
        if size < 1e-12:
            found.append(found[-1] if found else 0)
            continue
        slope = (now - then) / size
        if abs(slope) > 2 * threshold:
            found.append(2 if slope > 0 else -2)
        elif straight > er_threshold and abs(slope) > threshold:
            found.append(1 if slope > 0 else -1)
        else:
            found.append(0)
    return found


def slow_hysteresis(raw, bars):
    current, candidate, count, found = 0, None, 0, []
    for code in raw:
        if code == current:
            candidate, count = None, 0
        elif abs(code) == 2:
            current, candidate, count = code, None, 0
        else:
            candidate, count = (code, count + 1) if code == candidate else (code, 1)
            if count >= bars:
                current, candidate, count = code, None, 0
        found.append(current)
    return found


@given(rows, st.sampled_from([0.0, 0.05, 0.15]), st.sampled_from([0.0, 0.5]))
def test_the_regime_is_told_by_the_slope_in_ranges(drawn, threshold, er_threshold):
    changes, er, atr = (np.array([row[i] for row in drawn]) for i in range(3))
    kama = 100 + np.cumsum(changes)
    before = np.concatenate((kama[:1], kama[:-1]))
    expected = slow_regime(kama.tolist(), before.tolist(), er, atr, threshold, er_threshold)
    assert detect_regime(kama, er, atr, threshold, er_threshold).tolist() == expected
    found = step_regime(kama, kama - changes, er, atr, threshold, er_threshold)
    assert found.tolist() == slow_regime(kama, kama - changes, er, atr, threshold, er_threshold)
    assert found.dtype == np.int8


@given(codes, st.integers(1, 6))
def test_hysteresis_is_the_state_machine_with_the_first_bar_counted(raw, bars):
    assert hysteresis(raw, bars).tolist() == slow_hysteresis(raw.tolist(), bars)


def test_a_regime_is_taken_on_the_bar_that_is_asked_for():
    raw = np.array([1, 1, 1, 0, -1, 0, 0, 2, 1, 1, 1, -2, 0], np.int8)
    assert hysteresis(raw, 1).tolist() == raw.tolist()
    assert hysteresis(raw, 2).tolist() == [0, 1, 1, 1, 1, 1, 0, 2, 2, 1, 1, -2, -2]
    assert hysteresis(raw, 3).tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 1, -2, -2]


def test_the_veto_silences_trends_and_leaves_breakouts():
    regime = np.array([1, -1, 2, -2, 0, 1, -1], np.int8)
    adx = np.array([24.9, 24.9, 0, 0, 0, 25, 26])
    assert veto(regime, adx, 25).tolist() == [0, 0, 2, -2, 0, 1, -1]


def test_a_threshold_itself_is_not_yet_beyond_it():
    kama, atr = np.cumsum([1.0, 0.125, 0.25, 0.1875, 0.1875, -0.1875, 0.3125]), np.ones(7)
    er = np.array([1.0, 1.0, 0.0, 0.5, 0.75, 0.75, 0.0])
    assert detect_regime(kama, er, atr, 0.125, 0.5).tolist() == [0, 0, 0, 0, 1, -1, 2]


def test_a_market_without_range_keeps_the_regime_that_it_had():
    kama, er = np.array([1.0, 1.0, 2.0, 2.0, 2.0]), np.ones(5)
    assert detect_regime(kama, er, np.array([1, 1, 1, 0, 1.0])).tolist() == [0, 0, 2, 2, 0]
    assert detect_regime(kama, er, np.zeros(5)).tolist() == [0] * 5


@pytest.mark.parametrize("n", [0, 1])
def test_no_bars_and_one_bar(n):
    column = np.ones(n)
    assert detect_regime(column, column, column).tolist() == [0] * n
    assert veto(np.zeros(n, np.int8), column, 25).tolist() == [0] * n
    assert hysteresis(np.zeros(n, np.int8), 3).tolist() == [0] * n


def test_a_hysteresis_of_no_bars_is_refused():
    with pytest.raises(UsageError, match="hysteresis of 0 bars"):
        hysteresis(np.zeros(3, np.int8), 0)


def test_codes_have_the_documents_names():
    assert REGIME_NAMES == {0: "NOISE", 1: "UPTREND", -1: "DOWNTREND", 2: "BREAKOUT_UP", -2: "BREAKOUT_DOWN"}
