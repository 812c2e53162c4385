"""Signals against twins that walk through every bar, hand-made examples, and what comes after a bar."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.grid import regime
from mmlab.grid import signals as s
from reference.candles import MINUTE, QUARTER, START, candles, rows, walk

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
periods = st.integers(1, 12)


def near(found, expected):
    """Equal but for rounding, and numbers all of them."""
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.array(expected, np.float64), rtol=1e-9, atol=1e-11, equal_nan=False)


# ------------------------------------------------------------------------------------------------------ twins


def slow_er(close, p):
    found = []
    for i in range(len(close)):
        path = sum(abs(close[j] - close[j - 1]) for j in range(i - p + 1, i + 1)) if i >= p else 0
        found.append(abs(close[i] - close[i - p]) / path if path > 1e-12 else 0)
    return found


def slow_kama(close, er, fast, slow):
    found = list(close[:1])
    for i in range(1, len(close)):
        weight = (er[i] * (2 / (fast + 1) - 2 / (slow + 1)) + 2 / (slow + 1)) ** 2
        found.append(found[-1] + weight * (close[i] - found[-1]))
    return found


def slow_tr(high, low, close):
    found = []
    for i in range(len(close)):
        ends = (high[i], low[i], close[i - 1]) if i else (high[i], low[i])
        found.append(max(ends) - min(ends))
    return found


def slow_atr(high, low, close, p):
    found = []
    for i, tr in enumerate(slow_tr(high, low, close)):
        found.append(2 / (p + 1) * tr + (1 - 2 / (p + 1)) * found[-1] if i else tr)
    return found


def slow_wilder(high, low, close, p):
    ranges, found = slow_tr(high, low, close), []
    for i, tr in enumerate(ranges):
        if i < p - 1:
            found.append(0)
        elif i == p - 1:
            found.append(sum(ranges[:p]) / p)
        else:
            found.append((found[-1] * (p - 1) + tr) / p)
    return found


def slow_adx(high, low, close, p):
    """Wilder's own steps: running sums of TR, DM+ and DM-, the two indicators, DX, and its mean."""
    n = len(close)
    tr, up, down = slow_tr(high, low, close), [0.0] * n, [0.0] * n
    for i in range(1, n):
        rise, fall = high[i] - high[i - 1], low[i - 1] - low[i]
        if rise > fall and rise > 0:
            up[i] = rise
        elif fall > rise and fall > 0:
            down[i] = fall
    dx, sums = [0.0] * n, [sum(x[1 : p + 1]) for x in (tr, up, down)]
    for i in range(p, n):
        if i > p:
            sums = [total - total / p + x[i] for total, x in zip(sums, (tr, up, down), strict=True)]
        plus, minus = (100 * dm / sums[0] if sums[0] > 0 else 0 for dm in sums[1:])
        dx[i] = 100 * abs(plus - minus) / (plus + minus) if plus + minus > 0 else 0
    found = [0.0] * n
    for i in range(2 * p - 1, n):
        found[i] = sum(dx[p : 2 * p]) / p if i == 2 * p - 1 else (found[i - 1] * (p - 1) + dx[i]) / p
    return found


def slow_blocks(bars, multiple):
    """Bars one by one: [(block, high, low, close)] and, per bar, how many of them are complete."""
    made, complete = [], []
    for at, high, low, close in zip(bars.open_ns, bars.high, bars.low, bars.close, strict=True):
        block, place = divmod(int(at) // QUARTER, multiple)
        if made and made[-1][0] == block:
            made[-1] = (block, max(made[-1][1], high), min(made[-1][2], low), close)
        else:
            made.append((block, high, low, close))
        complete.append(len(made) if place == multiple - 1 else len(made) - 1)
    return made, complete


@given(rows, periods, periods, periods)
def test_every_signal_is_what_its_formula_says(drawn, p, fast, slow):
    bars = candles(drawn)
    high, low, close, volume = (x.tolist() for x in (bars.high, bars.low, bars.close, bars.volume))
    n, er, atr = len(bars), slow_er(close, p), slow_atr(high, low, close, p)
    near(s.efficiency_ratio(close, p), er)
    near(s.kama(close, er, fast, slow), slow_kama(close, er, fast, slow))
    near(s.true_range(high, low, close), slow_tr(high, low, close))
    near(s.atr_ema(high, low, close, p), atr)
    near(s.atr_wilder(high, low, close, p), slow_wilder(high, low, close, p))
    near(s.adx(high, low, close, p), slow_adx(high, low, close, p))
    means = [statistics.fmean(close[max(0, i - p + 1) : i + 1]) for i in range(n)]
    far = [(c - m) / a if a > 1e-9 else 0 for c, m, a in zip(close, means, atr, strict=True)]
    np.testing.assert_allclose(s.z_score(close, atr, p), far, rtol=1e-6, atol=1e-6)  # atr divides roundings too
    moves = [math.log(close[i] / close[i - 1]) if i else 0 for i in range(n)]
    near(
        s.rolling_volatility(close, p), [statistics.pstdev(moves[i - p + 1 : i + 1]) if i >= p else 0 for i in range(n)]
    )
    week = [volume[max(0, i - p) : i] for i in range(n)]
    near(s.mean_volume(volume, p), [float(sum(map(Fraction, v)) / len(v)) if v else 0 for v in week])


@given(rows, st.integers(0, 7), st.integers(1, 6), periods)
def test_blocks_are_cut_by_the_clock_and_their_signals_have_one_step_a_block(drawn, first, multiple, p):
    bars = candles(drawn, first)
    made, complete = slow_blocks(bars, multiple)
    columns = (bars.open_ns, QUARTER, bars.high, bars.low, bars.close)
    found = s.higher_timeframe(*columns, multiple)
    assert found.last.tolist() == [count - 1 for count in complete]
    count = complete[-1] if complete else 0
    high, low, close = ([block[i] for block in made[:count]] for i in (1, 2, 3))
    assert [x.tolist() for x in (found.high, found.low, found.close)] == [high, low, close]
    er, atr = slow_er(close, p), slow_atr(high, low, close, p)
    line = slow_kama(close, er, 2, 30)
    trend = s.trend_signals(*columns, multiple=multiple, er_period=p, atr_period=p)
    spread = [max(done - 1, 0) for done in complete]
    for given_, expected in (
        (trend.kama, line),
        (trend.er, er),
        (trend.atr, atr),
        (trend.kama_before, line[:1] + line),
    ):
        near(given_, [expected[at] if done else 0 for at, done in zip(spread, complete, strict=True)])


@given(
    st.lists(st.integers(0, 40), max_size=20).map(sorted),
    st.lists(st.integers(0, 60), max_size=9, unique=True).map(sorted),
    st.integers(1, 9),
)
def test_funding_is_known_once_it_was_settled_before_the_close(opens, settled, interval):
    rates = [0.1 * (i + 1) for i in range(len(settled))]
    before = [[r for t, r in zip(settled, rates, strict=True) if t < at + interval] for at in opens]
    found = s.funding_known(np.array(opens, np.int64), interval, np.array(settled, np.int64), rates)
    assert found.tolist() == [known[-1] if known else 0 for known in before]


# --------------------------------------------------------------------------------------- what comes afterwards


def every_row(bars):
    """All signals and regimes of bars, one row a bar."""
    high, low, close = bars.high, bars.low, bars.close
    er, atr, adx = s.efficiency_ratio(close, 4), s.atr_ema(high, low, close, 5), s.adx(high, low, close, 5)
    kama = s.kama(close, er)
    trend = s.trend_signals(bars.open_ns, QUARTER, high, low, close, er_period=3, atr_period=4)
    raw = regime.step_regime(trend.kama, trend.kama_before, trend.er, trend.atr)
    vetoed = regime.veto(raw, adx, 25)
    settled = START + np.arange(0, 2_000 * QUARTER, 32 * QUARTER)
    return {
        "er": er, "kama": kama, "atr": atr, "adx": adx, "raw": raw, "vetoed": vetoed,
        "tr": s.true_range(high, low, close), "wilder": s.atr_wilder(high, low, close, 5),
        "z": s.z_score(close, atr, 7), "volatility": s.rolling_volatility(close, 6),
        "volume": s.mean_volume(bars.volume, 9), "regime": regime.detect_regime(kama, er, atr),
        "funding": s.funding_known(bars.open_ns, QUARTER, settled, np.arange(settled.size)),
        "trend": np.column_stack(list(vars(trend).values())), "hysteresis": regime.hysteresis(vetoed, 2),
        "block": s.higher_timeframe(bars.open_ns, QUARTER, high, low, close).last,
    }  # fmt: skip


@given(rows, rows, rows, st.integers(0, 3))
def test_no_row_knows_what_comes_after_it(drawn, after, otherwise, first):
    """Whatever is put behind a bar, and however much of it, the rows up to the bar keep every bit."""
    n = len(drawn)
    alone = every_row(candles(drawn, first))
    for tail in (after, otherwise):
        for name, column in every_row(candles(drawn + tail, first)).items():
            assert len(column) == n + len(tail), name
            assert column[:n].tobytes() == alone[name].tobytes(), name


def test_no_row_of_a_long_series_knows_what_comes_after_it():
    """Long enough for every loop over several numbers at once."""
    bars = walk(3_000, seed=1)
    whole = every_row(bars)
    for n in (1, 2, 3, 31, 64, 1_001, 2_997):
        for name, column in every_row(bars.part(0, n)).items():
            assert column.tobytes() == whole[name][:n].tobytes(), (name, n)


# ---------------------------------------------------------------------------------------------- by hand, edges


def test_small_examples_by_hand():
    near(s.efficiency_ratio([1, 2, 3, 2], 2), [0, 0, 1, 0])
    near(s.kama([9, 18, 18], [0, 1, 1], 2, 30), [9, 13, 13 + 5 * 4 / 9])
    high, low, close = [10, 12, 7], [8, 11, 6], [9, 11, 6.5]
    near(s.true_range(high, low, close), [2, 3, 5])
    near(s.atr_ema(high, low, close, 3), [2, 2.5, 3.75])
    near(s.atr_wilder(high, low, close, 2), [0, 2.5, 3.75])
    near(s.z_score([1, 2, 3], [0.5, 0.5, 0.5], 2), [0, 1, 1])
    near(s.z_score([1, 2, 3], [0.5, 1e-9, 1.1e-9], 2), [0, 0, 0.5 / 1.1e-9])
    near(s.rolling_volatility([1, math.e, math.e, math.e**2], 2), [0, 0, 0.5, 0.5])
    near(s.mean_volume([4, 8, 0, 6], 2), [0, 4, 6, 4])
    # one bar up by 2, then one down by 1, period 1: DX is 100 each time
    near(s.adx([10, 12, 11], [8, 9, 8], [9, 10, 9], 1), [0, 100, 100])
    # period 2: DM+ 2, 0, 3; DM- 0, 1, 0; means up 1, 2, down 0.5, 0.25; DX 100/3, 100·7/9; their mean in row 3
    near(s.adx([10, 12, 11, 14], [8, 9, 8, 9], [9, 10, 9, 12], 2), [0, 0, 0, (100 / 3 + 700 / 9) / 2])
    # a bar that reaches as far out above as below goes nowhere
    near(s.adx([10, 12, 13], [8, 9, 8], [9, 10, 9], 1), [0, 100, 0])
    near(s.funding_known([0, 10, 20], 10, [10, 25], [0.1, 0.2]), [0, 0.1, 0.2])


def test_blocks_with_holes_by_hand():
    """The 105th minute's bar ends a block; 120 to 180 has no bar; at 240 the last bars are missing."""
    minutes = np.array([30, 45, 60, 75, 90, 105, 180, 210, 225, 240, 255, 300])
    price = np.arange(12.0) + 10
    found = s.higher_timeframe(START + minutes * MINUTE, QUARTER, price + 1, price - 1, price)
    assert found.last.tolist() == [-1, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert found.close.tolist() == [11, 15, 18, 20]
    assert found.high.tolist() == [12, 16, 19, 21]
    assert found.low.tolist() == [9, 11, 15, 18]


def test_an_hour_is_an_hour_wherever_the_data_begin():
    bars = walk(400, seed=2)
    whole = s.higher_timeframe(bars.open_ns, QUARTER, bars.high, bars.low, bars.close)
    for cut in (1, 2, 3, 4, 5, 101):
        later = bars.part(cut)
        found = s.higher_timeframe(later.open_ns, QUARTER, later.high, later.low, later.close)
        assert found.close[-50:].tolist() == whole.close[-50:].tolist()
        assert found.high[-50:].tolist() == whole.high[-50:].tolist()


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_constant_prices_have_no_range_no_trend_and_no_volatility(n):
    drawn = [(0, 0, 0, 0, 2.0)] * n
    for name, column in every_row(candles(drawn)).items():
        expected = {"kama": 100.0, "volume": 2.0}.get(name, 0)
        if name not in ("block", "trend", "funding"):
            assert column.tolist() == [0.0 if name == "volume" and i == 0 else expected for i in range(n)], name


def test_warm_up_rows_are_zero_and_the_next_is_not():
    bars = walk(100, seed=3)
    columns = (bars.high, bars.low, bars.close)
    for found, first in (
        (s.efficiency_ratio(bars.close, 10), 10),
        (s.rolling_volatility(bars.close, 14), 14),
        (s.atr_ema(*columns, 14), 0),
        (s.atr_wilder(*columns, 14), 13),
        (s.adx(*columns, 14), 27),
        (s.mean_volume(bars.volume, 672), 1),
        (s.trend_signals(bars.open_ns, QUARTER, *columns).kama, 3),
    ):
        assert not found[:first].any()
        assert (found[first:] > 0).all()
    assert not s.adx(*columns, 50).any() or s.adx(*columns, 50)[99] > 0
    assert not s.adx(*columns, 51).any()


def test_small_numbers_after_large_ones_keep_their_digits():
    """A running sum, or squares less a squared mean, would leave nothing of them."""
    volume = np.array([1e17] * 5 + [1e-3, 2e-3, 3e-3, 4e-3])
    assert s.mean_volume(volume, 2)[-1] == pytest.approx(2.5e-3, rel=1e-15)
    close = np.array([1.0, 1e9, *(1e9 * (1 + 1e-8 * np.arange(1, 9)))])
    moves = np.log(close[1:] / close[:-1])
    assert s.rolling_volatility(close, 4)[-1] == pytest.approx(statistics.pstdev(moves[-4:].tolist()), rel=1e-12)
    steady = 100 * 1.01 ** np.arange(50.0)
    assert s.rolling_volatility(steady, 14).max() < 1e-15


def test_a_straight_way_has_an_efficiency_of_1_and_never_more():
    found = s.efficiency_ratio(np.cumsum(np.full(500, 0.1)), 10)
    assert found[10:].tolist() == pytest.approx([1.0] * 490)
    assert found.max() == 1.0


def test_tables_that_are_read_only_and_lists_of_integers_will_do():
    bars = walk(50, seed=4)
    frozen = bars.close.copy()
    frozen.flags.writeable = False
    assert s.efficiency_ratio(frozen).tolist() == s.efficiency_ratio(bars.close.tolist()).tolist()
    assert s.kama(pl.Series(bars.close), s.efficiency_ratio(frozen)).size == 50
    assert s.true_range([3, 4], [1, 2], [2, 3]).tolist() == [2.0, 2.0]
    assert len(s._smoothed.signatures) == 1  # compiled for none of them anew
    kept = bars.close.copy()
    every_row(bars)
    assert bars.close.tolist() == kept.tolist()


def test_what_cannot_be_meant_is_refused():
    for wrong in (lambda: s.efficiency_ratio([1.0], 0), lambda: s.kama([1.0], [1.0], slow=-1)):
        with pytest.raises(UsageError, match=r"is (0|-1)"):
            wrong()
    with pytest.raises(UsageError, match="columns of 2, 1, 2 rows"):
        s.adx([1, 2], [1], [1, 2])
    with pytest.raises(UsageError, match="multiple is 0"):
        s.higher_timeframe([0], QUARTER, [1.0], [1.0], [1.0], 0)


def test_real_candles_by_the_hour_are_those_that_polars_makes():
    file = DATA / "BTCUSDT_usdm_15m.parquet"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    bars = pl.read_parquet(file).tail(35_136)
    high, low, close = (bars[name].to_numpy() for name in ("high", "low", "close"))
    found = s.higher_timeframe(bars["timestamp"].to_numpy() * 1_000_000, QUARTER, high, low, close)
    hours = bars.group_by(pl.col("timestamp") // 3_600_000, maintain_order=True).agg(
        pl.col("high").max(), pl.col("low").min(), pl.col("close").last()
    )
    for name in ("high", "low", "close"):
        assert getattr(found, name).tolist() == hours[name].to_list()[: found.close.size]
    assert hours.height - found.close.size in (0, 1)
    near(s.adx(high, low, close)[:3_000], slow_adx(*(x[:3_000].tolist() for x in (high, low, close)), 14))
