"""Regimes by mixture: against scikit-learn's own, whatever follows, and wherever the data begin."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from mmlab.core.errors import UsageError
from mmlab.grid.gmm import features, gmm_regime
from reference.candles import QUARTER, Candles, walk


def of(bars: Candles, **options) -> np.ndarray:
    return gmm_regime(bars.open_ns, QUARTER, bars.high, bars.low, bars.close, **options)


def slow(bars: Candles, seed: int, window: int) -> list[int]:
    """Bar by bar, with scikit-learn's mixture."""
    rows, codes, model = [], [], None
    for i in range(len(bars)):
        new_day = i > 0 and bars.open_ns[i] // (96 * QUARTER) != bars.open_ns[i - 1] // (96 * QUARTER)
        if len(rows) == 500 or (len(rows) > 500 and new_day):
            last = np.array(rows[-window:])
            mean, deviation = last.mean(axis=0), last.std(axis=0)
            model = GaussianMixture(3, random_state=seed).fit((last - mean) / deviation)
            place = {int(k): code for k, code in zip(np.argsort(model.means_[:, 0]), (-1, 0, 1), strict=True)}
        before = bars.close[i - 1] if i else bars.close[i]
        ranges = max(bars.high[i], before) - min(bars.low[i], before)
        ranges = ranges if i else bars.high[i] - bars.low[i]
        row = [bars.close[i] / bars.close[i - 24] - 1 if i >= 24 else 0, ranges / bars.close[i]]
        codes.append(0 if model is None else place[int(model.predict((np.array([row]) - mean) / deviation)[0])])
        if i >= 24:
            rows.append(row)
    return codes


@pytest.mark.parametrize(("seed", "window", "first"), [(42, 2_880, 0), (7, 600, 37)])
def test_it_is_scikit_learns_mixture_bar_by_bar(seed, window, first):
    bars = walk(1_000, seed=seed, first=first)
    with threadpool_limits(1):
        expected = slow(bars, seed, window)
    found = of(bars, seed=seed, gmm_window=window)
    assert found.tolist() == expected
    assert not found[:524].any()
    assert set(found[524:]) == {-1, 0, 1}


def test_what_follows_changes_nothing():
    """The earlier form's window grew with the frame: 170 of 4,000 regimes changed when 2,000 bars were added."""
    bars = walk(6_000, seed=5)
    assert of(bars)[:4_000].tobytes() == of(bars.part(0, 4_000)).tobytes()


@settings(max_examples=12)
@given(st.integers(0, 1_200), st.integers(0, 2**16), st.integers(0, 95))
def test_no_row_knows_what_comes_after_it(cut, seed, first):
    """Another market behind the cut, and nothing behind it."""
    bars, other = walk(1_200, 6, first), walk(1_200, seed, first)
    mixed = Candles(
        bars.open_ns,
        *(
            np.concatenate((getattr(bars, n)[:cut], getattr(other, n)[cut:]))
            for n in ("high", "low", "close", "volume")
        ),
    )
    whole = of(bars)[:cut].tobytes()
    assert of(mixed)[:cut].tobytes() == whole
    assert of(bars.part(0, cut)).tobytes() == whole


def test_with_a_full_window_it_does_not_matter_where_the_data_begin():
    bars = walk(2_400, seed=8)
    whole = of(bars, gmm_window=600)
    for cut in (1, 130, 777):
        found = of(bars.part(cut), gmm_window=600)
        settled = cut + 24 + 600 + 96  # the first day's start with a full window, at the latest
        assert found[settled - cut :].tobytes() == whole[settled:].tobytes()


def test_the_same_seed_gives_the_same_regimes():
    bars = walk(900, seed=9)
    assert of(bars, seed=3).tobytes() == of(bars, seed=3).tobytes()


def quiet(count: int) -> Candles:
    """Constant prices."""
    price = np.full(count, 100.0)
    return Candles(walk(count, 0).open_ns, price, price, price, price)


def two_kinds(count: int, jump: int) -> Candles:
    """One step, and wider bars for as long as it counts; numbers that have no rounding."""
    price = np.full(count, 128.0)
    price[jump:] = 136.0
    half = price / 128
    half[jump : jump + 24] = price[jump] / 16
    return Candles(walk(count, 0).open_ns, price + half, price - half, price, price)


@pytest.mark.parametrize("n", [0, 1, 2, 523, 524, 525, 900])
def test_constant_prices_are_noise(n):
    assert of(quiet(n)).tolist() == [0] * n


def test_two_kinds_of_bars_are_noise():
    bars = two_kinds(900, 700)
    assert len(np.unique(features(bars.high, bars.low, bars.close)[24:], axis=0)) == 2
    assert not of(bars).any()


def test_a_market_that_stands_still_for_a_while_is_noise_until_it_moves():
    bars = walk(1_500, seed=10)
    bars.close[300:1_100] = bars.high[300:1_100] = bars.low[300:1_100] = 1_000.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes = of(bars, gmm_window=500)
    assert not codes[864:1_056].any()  # fitted to rows 364 to 864 and 460 to 960, which hold nothing else
    assert codes[-96:].any()


def test_features_by_hand():
    close = np.array([100.0] * 24 + [110.0, 121.0])
    found = features(close + 1, close - 1, close)
    assert found[:24].tolist() == [[0.0, 0.02]] * 24
    assert found[24].tolist() == pytest.approx([0.1, 11 / 110])
    assert found[25].tolist() == pytest.approx([0.21, 12 / 121])


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UsageError, match="need scikit-learn") as raised:
        of(walk(10, seed=0))
    assert raised.value.remedy == "pip install 'mmlab[ml]'"


def test_a_window_that_is_shorter_than_the_first_fit_is_refused():
    with pytest.raises(UsageError, match="gmm_window is 499"):
        of(walk(10, seed=0), gmm_window=499)
