"""Markets without an edge: what they keep, what they take away, and that the engine earns nothing on them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl
import pytest

from mmlab.core.schemas import BARS
from mmlab.grid.engine import simulate
from mmlab.grid.market import Market
from mmlab.grid.null import Verdict, drawn, growth, null_growth, path, walk
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.trial import Bench
from mmlab.grid.windows import Span, Windows

STEP = 900_000_000_000
FREE = GridParams(fee_maker=0.0, fee_taker=0.0, slippage=0.0, kelly_window=0)
TIGHT = dataclasses.replace(FREE, grid_spacing_k=0.5, spacing_floor=0.001, adaptive_floor_scale=0.3, leverage=3.0,
                            max_position_pct=2.0)  # fmt: skip
PATIENT = dataclasses.replace(TIGHT, deviance_sigma=99.0, offset_prune_ratio=1e9, gap_prune_mult=1e9, atr_sl_mult=99.0,
                              max_drawdown_pct=1.0, max_position_age_hours=1e6)  # fmt: skip
VENUE = VenueParams(tick_size="0.1", liquidation_fee=0.0, min_notional=0.0)


@pytest.fixture(scope="module")
def market() -> Market:
    """A walk of 12 days, with settlements at 00, 08 and 16 UTC."""
    bars = walk(1_152, STEP, [1, 0], steps=400)
    at = [int(ns) for ns in bars["open_ns"] if ns // STEP % 32 == 0]
    return Market.of(bars, STEP, pl.DataFrame({"ts_ns": at, "rate": [1e-4 + 1e-6 * k for k in range(len(at))]}))


def span_of(market: Market, low: int, high: int) -> Span:
    return Span(int(market.open_ns[low]), int(market.open_ns[high - 1]) + STEP)


def test_a_path_is_made_of_the_spans_bars_each_whole_and_some_turned_over(market):
    """Every bar of the path is one of the span's by its volume (all differ), as it is or mirrored."""
    span = span_of(market, 300, 900)
    made, part = path(market, span, 200, [4, 2])
    assert part.bars(made.open_ns) == (200, 800)
    index = {volume: i for i, volume in enumerate(market.bars["volume"])}
    turned = 0
    start = market.bars["close"][299]
    for t in range(len(made)):
        i = index[made.bars["volume"][t]]
        assert 300 <= i < 900
        was = market.bars["close"][i - 1]
        own = [market.bars[name][i] / was - 1 for name in ("open", "high", "low", "close")]
        got = [made.bars[name][t] / start - 1 for name in ("open", "high", "low", "close")]
        o, h, l, c = own  # noqa: E741
        mirrored = [-o, -l, -h, -c]
        as_it_is = np.allclose(got, own, atol=1e-12)
        assert as_it_is or np.allclose(got, mirrored, atol=1e-12)
        turned += not as_it_is
        assert made.open_ns[t] // STEP % 96 == market.open_ns[i] // STEP % 96  # the same time of the day
        start = made.bars["close"][t]
    assert 300 < turned < 500


def test_a_settlement_goes_with_its_bar(market):
    made, _ = path(market, span_of(market, 300, 900), 0, [4, 3])
    index = {volume: i for i, volume in enumerate(market.bars["volume"])}
    own = market.candles[:, 4]
    wanted = [own[index[volume]] for volume in made.bars["volume"]]
    assert made.candles[:, 4].tolist() == wanted
    assert sum(rate > 0 for rate in wanted) > 10


def test_blocks_last_a_day_on_average(market):
    source, sign = drawn(market.open_ns, STEP * np.arange(40_000), STEP, [3])
    broken = np.flatnonzero(np.diff(source) != 1)
    assert 75 < 40_000 / len(broken) < 105  # a span's end breaks blocks as well
    assert abs(sign.mean()) < 0.02


def test_the_same_seed_gives_the_same_path_and_another_number_another(market):
    span = span_of(market, 300, 900)
    one, two, other = (path(market, span, 50, seed)[0].bars["close"] for seed in ([4, 1], [4, 1], [4, 2]))
    assert (one == two).all()
    assert (one != other).any()


def test_a_turned_path_has_no_drift_whatever_the_market_did():
    """A market that rises half a percent a bar: paths of it end where they began, on average (a martingale)."""
    close = 100 * 1.005 ** np.arange(1, 201)
    frame = pl.DataFrame({
        "open_ns": STEP * np.arange(200), "open": close / 1.005, "high": close, "low": close / 1.005, "close": close,
        "volume": np.ones(200),
    })  # fmt: skip
    rising = Market.of(BARS.conform(frame.with_columns(buy_volume=pl.lit(None), n_trades=pl.lit(None))), STEP)
    span = span_of(rising, 100, 200)
    start = rising.bars["close"][99]
    ends = np.array([path(rising, span, 0, [8, k])[0].bars["close"][-1] / start - 1 for k in range(150)])
    assert abs(ends.mean()) < 3 * ends.std() / math.sqrt(150)
    assert path(rising, span, 0, [8, 0], turn=False)[0].bars["close"][-1] / start - 1 > 0.5


def test_a_walk_meets_every_tick_and_is_seeded():
    bars = walk(200, STEP, [5], steps=100)
    assert bars.equals(walk(200, STEP, [5], steps=100))
    ticks = bars.select((pl.col("open", "high", "low", "close") * 10).round(6))
    assert ticks.select((pl.all() == pl.all().round(0)).all()).row(0) == (True,) * 4
    assert (bars["open"][1:] == bars["close"][:-1]).all()


def test_before_fees_the_engine_earns_nothing_on_fair_walks_and_the_look_ahead_does():
    """12 walks of a week: the mean return within 3 standard errors of 0; `peer` on the same walks far above."""
    fair, peer = [], []
    for number in range(12):
        made = Market.of(walk(700, STEP, [6, number], steps=400), STEP)
        X = made.rows(TIGHT)
        for fills, found in (("next-bar", fair), ("peer", peer)):
            raw = simulate(X, made.candles, TIGHT, dataclasses.replace(VENUE, fills=fills), record=False)
            found.append(raw.equity[-1, 1] / TIGHT.initial_capital - 1)
    assert abs(np.mean(fair)) < 3 * np.std(fair, ddof=1) / math.sqrt(12)
    assert np.mean(peer) > 5 * np.std(peer, ddof=1) / math.sqrt(12)


def test_p_counts_the_paths_and_a_loss_is_never_significant():
    assert Verdict.of(0.1, [0.0] * 19) == Verdict(0.1, (0.0,) * 19, 0.05, True)
    assert Verdict.of(0.1, [0.0] * 18 + [0.1]).p_value == 0.1  # as much counts as at least as much
    assert not Verdict.of(0.1, [0.0] * 18).significant  # 1 / 19: too few paths for 5%
    assert not Verdict.of(-0.01, [-0.1] * 99).significant


def test_on_fair_walks_the_verdict_is_not_significant():
    """Eight searches' worth of verdicts: with a chance of 5% each, more than two are one in 170."""
    found = []
    for number in range(8):
        made = Market.of(walk(1_000, STEP, [7, number], steps=200), STEP)
        windows = Windows.of(int(made.open_ns[0]), int(made.open_ns[-1]) + STEP, STEP, 1, 0.2)
        bench = Bench(("W",), (made,), (VENUE,), windows, FREE)
        null = [null_growth(bench, FREE, number, k) for k in range(19)]
        found.append(Verdict.of(growth(bench, FREE), null))
    assert sum(each.significant for each in found) <= 2
    assert len({each.p_value for each in found}) > 2


def test_a_price_that_comes_back_to_its_mean_is_found_significant():
    """The power of the test: bars of a walk, of which four in five are turned towards the mean, and a patient grid."""
    bars = walk(1_200, STEP, [13], steps=400)
    rng = np.random.default_rng(13)
    was = bars["open"].to_numpy()
    o, h, l, c = (bars[name].to_numpy() / was - 1 for name in ("open", "high", "low", "close"))  # noqa: E741
    back = np.where(rng.random(len(c)) < 0.8, 1, -1)
    price, rows = 1_000.0, []
    for i in range(len(c)):
        sign = np.sign(c[i]) * np.sign(1_000 - price) * back[i] or 1.0
        high, low = (h[i], l[i]) if sign > 0 else (-l[i], -h[i])
        rows.append([price * (1 + x) for x in (sign * o[i], high, low, sign * c[i])])
        price = rows[-1][3]
    made = Market.of(bars.with_columns(pl.DataFrame(rows, ["open", "high", "low", "close"], orient="row")), STEP)
    windows = Windows.of(int(made.open_ns[0]), int(made.open_ns[-1]) + STEP, STEP, 2, 0.2)
    bench = Bench(("R",), (made,), (dataclasses.replace(VENUE, tick_size="0"),), windows, PATIENT)
    verdict = Verdict.of(growth(bench, PATIENT), [null_growth(bench, PATIENT, 1, k) for k in range(19)])
    assert verdict.significant
    assert verdict.p_value == 0.05
    assert verdict.growth > 0.02
