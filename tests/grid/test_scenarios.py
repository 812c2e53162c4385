"""One small market for each rule of docs/grid.md, its numbers worked out by hand; twin and engine must both give them.

Unless a test says otherwise: arithmetic levels 1 apart around the anchor (1% of 100), two a side, 10% of 10,000 an
order, whole lots, longs only, ATR 1, no volatility, and every guard out of reach. Bars 0 to 20 stand still at 100; the
first decision is at the close of bar 20, so that bar 21 is the first in which anything can fill.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmlab.grid import layout
from mmlab.grid.params import GridParams, VenueParams
from reference.grid import Result, Row, kelly, maintenance, nudged
from reference.grid_cases import INTERVAL_MS, Case, differences

CALM = GridParams(
    kama_period=1, regime_timeframe_mult=1, adx_period=1, atr_period=1, grid_mode="arithmetic", grid_levels=2,
    grid_spacing_k=0.0, adaptive_floor_scale=0.0, spacing_floor=0.01, order_pct=0.1, kelly_window=0,
    max_position_pct=1.0, atr_sl_mult=10.0, deviance_sigma=1e6, gap_prune_mult=1e6,
    max_position_age_hours=1e6, funding_cost_ratio=1e6,
    offset_prune_ratio=1e6, max_drawdown_pct=1.0, trailing_enabled=False, circuit_breaker_enabled=False,
    regen_drift_mult=50.0, slippage=0.001, allow_short=False,
)  # fmt: skip
STILL = (100.0, 100.0, 100.0, 100.0)
FIRST = 21


def played(
    *bars: tuple[float, float, float, float],
    rows: dict[int, dict] | None = None,
    settlements: tuple[tuple[int, float], ...] = (),
    venue: dict | None = None,
    **params: object,
) -> Result:
    """What twin and engine both make of `bars` (open, high, low, close) from bar 21 on; `rows`: signals by bar."""
    every = [STILL] * FIRST + list(bars)
    made = [
        replace(
            Row(i * INTERVAL_MS, o, h, low, c, 1.0, 0.0, 1.0, 0.0, 0.0, c, 0.0, 0, 0.0), **(rows or {}).get(i, {})
        )
        for i, (o, h, low, c) in enumerate(every)
    ]  # fmt: skip
    candles = [[(i * INTERVAL_MS, *bar)] for i, bar in enumerate(every)]
    known = VenueParams(**{"tick_size": "0.1", "lot_size": "1", "min_notional": 5.0, **(venue or {})})
    case = Case(made, candles, list(settlements), replace(CALM, **params), known)
    slow = case.twin()
    found = differences(case, slow, case.engine())
    assert not found, found
    return slow


def fills(result: Result) -> list[tuple]:
    """Bar, label, price, quantity; without the final close."""
    return [
        (each["bar"], each["label"], pytest.approx(each["price"], rel=1e-12), pytest.approx(each["qty"], rel=1e-12))
        for each in result.fills
        if each["label"] != "FINAL_CLOSE"
    ]


def orders(result: Result, bar: int, kind: str = "entries") -> list[tuple[float, float]]:
    return [(pytest.approx(price), pytest.approx(qty)) for _, price, qty in result.equity[bar][kind]]


# ---- how a candle fills


def test_a_bid_fills_on_the_bar_after_its_decision_at_its_price_with_the_makers_fee():
    """1,000 / 99 = 10.1: 10 lots. Fee 0.0002 · 99 · 10 = 0.198."""
    result = played((100, 100, 99, 100), STILL)
    assert orders(result, 20) == [(99, 10), (98, 10)]
    assert fills(result) == [(21, "BUY_OPEN_LONG", 99, 10)]
    assert result.fills[0]["fee"] == pytest.approx(0.198)
    assert result.equity[21]["wallet"] == pytest.approx(9_999.802)
    assert result.equity[21]["equity"] == pytest.approx(10_009.802)


def test_the_final_close_is_at_the_last_close_with_the_takers_fee_and_no_slippage():
    """10 lots from 99 to 100.5: 15 earned, 0.0005 · 1,005 = 0.5025 paid."""
    result = played((100, 100, 99, 100), (100, 100.5, 100, 100.5))
    assert result.fills[-1] | {"fee": 0, "pnl": 0} == {
        "bar": 22, "candle": 22, "side": 1, "label": "FINAL_CLOSE", "price": 100.5, "qty": 10, "fee": 0, "pnl": 0,
        "maker": False,
    }  # fmt: skip
    assert result.equity[-1]["wallet"] == result.equity[-1]["equity"] == pytest.approx(9_999.802 + 15 - 0.5025)


def test_a_bar_that_opens_through_a_bid_fills_it_at_the_open_with_the_takers_fee():
    """0.0005 · 98.5 · 10 = 0.4925."""
    result = played((98.5, 99, 98.5, 99), STILL)
    assert fills(result) == [(21, "BUY_OPEN_LONG", 98.5, 10)]
    assert result.fills[0]["fee"] == pytest.approx(0.4925)
    assert not result.fills[0]["maker"]


@pytest.mark.parametrize(("low", "filled"), [(99.0, 0), (98.9, 1)])
def test_touch_through_wants_one_tick_more(low, filled):
    assert len(fills(played((100, 100, low, 100), STILL, venue={"fills": "touch-through"}))) == filled


def test_peer_fills_on_the_bar_of_the_decision():
    """Bar 21 gets a grid around its close of 100 and fills it at its own low, long before that close."""
    result = played((100, 100, 98.5, 100), STILL, venue={"fills": "peer"})
    assert fills(result) == [(21, "BUY_OPEN_LONG", 99, 10)]
    grid = {20: {"regime": -1}}  # no longs at the decision before
    assert fills(played((100, 100, 98.5, 100), STILL, venue={"fills": "peer"}, rows=grid)) == fills(result)
    assert fills(played((100, 100, 98.5, 100), STILL, rows=grid)) == []


def test_take_profits_close_first_in_first_out_and_never_what_the_same_candle_opened():
    """Bar 21 touches 99 and 101; the take-profits are laid at its close: 10 · 0.4 = 4 at 102, the other 6 at 101."""
    result = played((100, 102, 99, 100), (100, 101, 100, 100.5), STILL)
    assert orders(result, 21, "exits") == [(101, 6), (102, 4)]
    assert fills(result) == [(21, "BUY_OPEN_LONG", 99, 10), (22, "SELL_CLOSE_LONG", 101, 6)]
    assert result.fills[1]["pnl"] == pytest.approx(12)
    assert result.fills[1]["fee"] == pytest.approx(0.0002 * 606)
    assert orders(result, 22, "exits") == [(102, 4)]


def test_a_stop_comes_before_a_take_profit_and_after_the_entries_above_it():
    """S = 99 - 1.5 · 10 = 84. Bar 22 touches 98, 84 and 102: the bid at 98 fills, then 20 go at 84 · 0.999."""
    result = played((100, 100, 99, 100), (100, 102, 83, 100), STILL)
    assert result.equity[21]["stops"] == {1: 84}
    assert fills(result)[1:] == [(22, "BUY_OPEN_LONG", 98, 10), (22, "STOP_LONG", 83.916, 20)]
    assert result.fills[2]["pnl"] == pytest.approx((83.916 - 98.5) * 20)
    assert result.fills[2]["fee"] == pytest.approx(0.0005 * 83.916 * 20)


def test_a_bar_that_opens_beyond_the_stop_sells_at_the_open_before_bids_fill_there():
    """Sold at 80 · 0.999 = 79.92; the bid at 98 then buys at 80."""
    result = played((100, 100, 99, 100), (80, 100, 80, 100), STILL)
    assert fills(result)[1:] == [(22, "STOP_LONG", 79.92, 10), (22, "BUY_OPEN_LONG", 80, 10)]


def test_shorts_mirror_longs():
    """1,000 / 101 = 9.9: 9 lots. S = 101 + 15 = 116, bought back at 116 · 1.001."""
    result = played((100, 101, 100, 100), (100, 117, 100, 110), (110, 110, 110, 110), allow_short=True)
    assert orders(result, 20) == [(99, 10), (98, 10), (101, 9), (102, 9)]
    assert result.equity[21]["exits"] == [(-1, pytest.approx(99), 6), (-1, pytest.approx(98), 3)]
    assert fills(result) == [
        (21, "SELL_OPEN_SHORT", 101, 9), (22, "SELL_OPEN_SHORT", 102, 9), (22, "STOP_SHORT", 116.116, 18),
    ]  # fmt: skip


def test_a_level_that_another_was_moved_over_is_left_out():
    """Steps of 0.05%: 100.05 becomes 100.2; 100.1 and 100.15 would lie before it; 100.2001 is 100.25 on the tick."""
    tight = {"grid_mode": "geometric", "spacing_floor": 0.0005, "max_inventory_per_side": 1}
    result = played((100, 100, 99, 100), STILL, venue={"tick_size": "0.05"}, **tight)
    assert result.equity[21]["exits"] == [(1, pytest.approx(100.2), 6), (1, pytest.approx(100.25), 4)]


def test_take_profits_share_the_quantity_where_levels_end_above_zero():
    """40 apart there are two below 100, at 60 and 20, and no third: 60% of 7 lots, and the rest."""
    wide = {"spacing_floor": 0.4, "grid_levels": 3, "allow_short": True, "atr_sl_mult": 100.0}
    result = played((100, 140, 100, 100), STILL, **wide)
    assert result.equity[21]["exits"] == [(-1, pytest.approx(60), 5), (-1, pytest.approx(20), 2)]


def test_nothing_rests_for_a_position_that_is_sold_whole():
    """Whatever the last digits of the quantities: what a market order for all of them leaves is nothing."""
    for levels in range(2, 11):
        options = {"grid_levels": levels, "order_pct": 0.037, "spacing_floor": 0.003}
        result = played((100, 100, 83, 83), (82, 82, 82, 82), venue={"lot_size": "0"}, **options)
        assert result.equity[21]["stops"] == {}
        assert result.equity[21]["exits"] == []
        assert result.equity[22]["long_qty"] == 0


# ---- money that is not a fill


def test_funding_belongs_to_the_first_candle_that_closes_after_it_at_its_open():
    """10 lots at 100: 0.001 · 1,000 = 1 paid; at the open of bar 22 counts in bar 22, before the first bar nowhere."""
    at = ((-1, 1.0), (22 * INTERVAL_MS, 0.001), (24 * INTERVAL_MS - 1, -0.002), (25 * INTERVAL_MS, 1.0))
    result = played((100, 100, 99, 100), STILL, STILL, STILL, settlements=at)
    paid = [(each["candle"], each["side"], pytest.approx(each["paid"])) for each in result.funding]
    assert paid == [(22, 1, 1.0), (23, 1, -2.0)]
    assert result.equity[22]["wallet"] == pytest.approx(9_998.802)
    assert result.equity[23]["wallet"] == pytest.approx(10_000.802)


def test_maintenance_margin_has_no_jumps():
    assert maintenance(100_000) == pytest.approx(450)
    for edge in (5e4, 2.5e5, 1e6, 5e6, 2.5e7, 1e8):
        assert maintenance(edge * (1 + 1e-12)) == pytest.approx(maintenance(edge))


def test_liquidation_is_where_equity_meets_the_margin_and_the_insurance_fund_pays_what_is_missing():
    """Leverage 10, half an account an order: 505 lots at 99 and 510 at 98 cost 99,975, fees 19.995.

    9,980.005 + 1,015 x - 99,975 = 0.005 · 1,015 x - 50 at x = 89,944.995 / 1,009.925. Sold 0.1% lower for 1.3% of the
    notional the wallet is below 0: it becomes 0, and nothing is traded any more.
    """
    result = played((100, 100, 80, 100), STILL, leverage=10.0, order_pct=0.5, max_position_pct=10.0)
    price = 89_944.995 / 1_009.925
    assert [each["label"] for each in result.fills] == ["BUY_OPEN_LONG", "BUY_OPEN_LONG", "LIQUIDATION"]
    assert result.liquidated == [(21, pytest.approx(price))]
    sold = 1_015 * price * 0.999
    assert result.fills[-1]["fee"] == pytest.approx(sold * 0.013)
    missing = -(9_980.005 + sold - 99_975 - sold * 0.013)
    assert missing > 0
    assert result.insurance[0]["amount"] == pytest.approx(missing)
    end = result.equity[21]
    assert end["wallet"] == end["equity"] == end["long_qty"] == 0
    assert not end["entries"] + end["exits"]
    assert not end["stops"]


def test_a_profit_of_the_other_side_keeps_an_account_from_liquidation():
    """505 longs from 99 lose 10,100 at 79. 495 shorts from 101 win 2 each on the way, at their take-profit of 99."""
    base = {
        "leverage": 10.0,
        "order_pct": 0.5,
        "max_position_pct": 5.0,
        "grid_levels": 1,
        "atr_sl_mult": 100.0,
        "max_inventory_per_side": 1,
    }
    alone = played((100, 100, 99, 100), (100, 100, 79, 100), STILL, **base)
    hedged = played((100, 101, 99, 100), (100, 100, 79, 100), STILL, allow_short=True, **base)
    assert "LIQUIDATION" in [each["label"] for each in alone.fills]
    assert "LIQUIDATION" not in [each["label"] for each in hedged.fills]


# ---- guards


def test_the_first_stage_of_the_stop_sells_half_first_in_first_out():
    """Mean of 99 and 98 is 98.5; 88 <= 98.5 - 10, so 10 of 20 go at the next open: the lot from 99, at 90 · 0.999."""
    result = played((100, 100, 88, 88), (90, 90, 90, 90), (90, 90, 90, 90))
    assert fills(result)[2] == (22, "STOP_LONG", 89.91, 10)
    assert result.fills[2]["pnl"] == pytest.approx((89.91 - 99) * 10)
    assert [label for _, label, *_ in fills(result)].count("STOP_LONG") == 1, "once until the side is flat"
    assert result.equity[21]["stops"] == {1: 83}, "S2 of the lot from 98, which will be left"


def test_the_second_stage_of_the_stop_sells_all():
    """83 <= 98.5 - 15; nothing rested in bar 21, as there was no position at the decision before."""
    result = played((100, 100, 83, 83), (82, 82, 82, 82), (82, 82, 82, 82))
    assert fills(result)[2] == (22, "STOP_LONG", 81.918, 20)
    assert result.equity[21]["stops"] == {}


def test_stops_that_count_halve_the_sizes():
    """The stop at bar 22 makes a new grid due: E 9,841.19 · 0.1 / 2 / 99 = 4.97."""
    result = played((100, 100, 99, 100), (100, 100, 84, 100), STILL, stop_cooldown_thresh=1, grid_levels=1)
    assert fills(result)[1] == (22, "STOP_LONG", 83.916, 10)
    assert orders(result, 22) == [(99, 4)]
    calm = played((100, 100, 99, 100), (100, 100, 84, 100), STILL, stop_cooldown_thresh=2, grid_levels=1)
    assert orders(calm, 22) == [(99, 9)]


LOSING = (100.0, 100.0, 98.5, 98.5)  # fills the bid at 99 and closes below it


@pytest.mark.parametrize(
    ("label", "params", "row"),
    [
        ("PRUNE_DEVIANCE", {"deviance_sigma": 3.0}, {"kama": 101.6}),  # 98.5 < 101.6 - 3
        ("PRUNE_OLDEST", {"max_position_age_hours": 0.2}, {}),  # 15 minutes
        ("PRUNE_GAP", {"gap_prune_mult": 0.4}, {}),  # 0.5 > 0.4 · 1
        ("PRUNE_VAR_WARNING", {"max_drawdown_pct": 0.0005}, {}),  # 5.198 of 10,000 > 0.75 · 0.05%
    ],
)
def test_a_prune_sells_the_lot_at_the_next_open(label, params, row):
    """At 98 · 0.999."""
    result = played(LOSING, (98, 98, 98, 98), STILL, rows={21: row}, grid_levels=1, **params)
    assert fills(result)[1] == (22, label, 97.902, 10)
    assert played(LOSING, (98, 98, 98, 98), STILL, grid_levels=1).fills[1]["label"] == "FINAL_CLOSE"


def test_the_dearest_lot_is_pruned_when_funding_has_cost_half_a_spacing():
    """0.006 · 100 · 10 = 6 paid in bar 22 > 0.5 · 1 · 10."""
    at = ((22 * INTERVAL_MS, 0.006),)
    result = played((100, 100, 99, 100), STILL, STILL, STILL, settlements=at, funding_cost_ratio=0.5)
    assert fills(result)[1] == (23, "PRUNE_FUNDING", 99.9, 10)
    cheap = ((22 * INTERVAL_MS, 0.004),)
    kept = played((100, 100, 99, 100), STILL, STILL, STILL, settlements=cheap, funding_cost_ratio=0.5)
    assert len(fills(kept)) == 1


def test_kept_profit_pays_for_a_losing_lot():
    """Two lots; 12 go at 101 for 20 + 6 - 0.2424 = 25.7576. The 8 left from 98 lose 4 at 97.5: 4 · 1.5 < 25.76."""
    bars = ((100, 100, 98, 100), (100, 101, 100, 100), (100, 100, 97.5, 97.5), (97, 97, 97, 97), STILL)
    result = played(*bars, offset_prune_ratio=1.5, max_inventory_per_side=2)
    assert fills(result)[2:] == [(22, "SELL_CLOSE_LONG", 101, 12), (24, "PRUNE_OFFSET", 96.903, 8)]
    dear = played(*bars, offset_prune_ratio=6.5, max_inventory_per_side=2)
    assert len(fills(dear)) == 3


def test_a_prune_waits_for_its_cooldown_but_not_for_deviance():
    """Both lots are old at bar 21. The second goes 4 bars later, or at once where the price is far from KAMA."""
    bars = ((100, 100, 98, 98), *[(98, 98, 98, 98)] * 6)
    slow = played(*bars, max_position_age_hours=0.2, max_inventory_per_side=2)
    assert [(bar, label) for bar, label, *_ in fills(slow)[2:]] == [(22, "PRUNE_OLDEST"), (26, "PRUNE_OLDEST")]
    rows = {i: {"kama": 110.0} for i in range(21, 28)}
    quick = played(*bars, rows=rows, deviance_sigma=3.0, max_inventory_per_side=2)
    assert [(bar, label) for bar, label, *_ in fills(quick)[2:]] == [(22, "PRUNE_DEVIANCE"), (23, "PRUNE_DEVIANCE")]


def test_a_halt_withdraws_entries_and_keeps_take_profits_and_the_stop():
    rows = {21: {"z": -4.0}, 22: {"z": -2.0}, 23: {"z": -0.5}}
    result = played((100, 100, 99, 100), STILL, STILL, STILL, rows=rows, circuit_breaker_enabled=True)
    assert [row["halted"] for row in result.equity[20:24]] == [False, True, True, False]
    assert [len(row["entries"]) for row in result.equity[20:24]] == [2, 0, 0, 2]
    assert [len(row["exits"]) for row in result.equity[20:24]] == [0, 2, 2, 2]
    assert result.equity[22]["stops"] == {1: 84}


def test_value_at_risk_blocks_entries():
    """10 lots at 100, 1.645 sigmas of 40%: 658 > 5% of 10,009.8; at 30% 493 is not."""
    result = played((100, 100, 99, 100), STILL, STILL, rows={21: {"sigma": 0.4}}, max_drawdown_pct=0.05)
    assert [len(row["entries"]) for row in result.equity[20:23]] == [2, 0, 2]
    calm = played((100, 100, 99, 100), STILL, STILL, rows={21: {"sigma": 0.3}}, max_drawdown_pct=0.05)
    assert [len(row["entries"]) for row in calm.equity[20:23]] == [2, 1, 1]


# ---- the grid


def test_a_trend_halves_the_spacing_with_it_and_forbids_the_other_side():
    """Regime 1, efficiency 1: long spacing 1 · 0.5."""
    up = {20: {"regime": 1, "er": 1.0}}
    assert orders(played(STILL, rows=up, allow_short=True), 20) == [(99.5, 10), (99, 10)]
    down = {20: {"regime": -2, "er": 1.0}}
    assert orders(played(STILL, rows=down, allow_short=True), 20) == [(100.5, 9), (101, 9)]


def test_funding_widens_and_shrinks_the_side_that_pays():
    """Rate 0.05%: bids 1.2 apart for 750 an order, offers 0.8 apart for 1,250."""
    result = played(STILL, rows={20: {"rate": 5e-4}}, allow_short=True)
    assert orders(result, 20) == [(98.8, 7), (97.6, 7), (100.8, 12), (101.6, 12)]


def test_the_optimal_spread_counts_where_it_is_wider_than_the_floor():
    """100 (0.5 · 0.01² · 96 + 4 ln(1 + 0.5 · 0.01 / 1.5)) = 0.48 + 1.33112 = 1.81112; bids on the tick below."""
    result = played(STILL, rows={20: {"sigma": 0.01}})
    assert orders(result, 20) == [(98.1, 10), (96.3, 10)]


def test_inventory_moves_the_reservation_price():
    """Bar 21 buys 10 at 99 and 10 at 98, closes at 100: q = 2,000 / E, and r = 100 (1 - q · 0.5 · 0.05² · 96) = 97.6.

    The spacing is 100 (0.12 + 4 ln(1 + 0.025 / 1.5)) = 18.61; the first bid is at 78.9.
    """
    result = played((100, 100, 98, 100), STILL, rows={21: {"sigma": 0.05}}, atr_sl_mult=100.0)
    q = 20 * 100 / result.equity[21]["equity"]
    r = 100 * (1 - q * 0.12)
    assert result.equity[21]["entries"][0][1] == pytest.approx(78.9)
    assert 78.9 <= r - 18.6118 < 79.0


def test_levels_leave_round_numbers():
    """50 is the step from 100 on, 10 below; 0.15% of the magnet away."""
    assert nudged(100.05) == pytest.approx(100.2)
    assert nudged(99.95) == pytest.approx(99.8)
    assert nudged(100.15) == 100.15
    assert nudged(1.5) == pytest.approx(1.5 * 1.0015)
    assert nudged(40_010.0) == pytest.approx(40_070.0)


def test_geometric_levels_are_laid_off_round_numbers():
    """100 / 1.01 = 99.0099 is near 99? No: below 100 the step is 10, so it stays; / 1.01² = 98.0296."""
    assert orders(played(STILL, grid_mode="geometric"), 20) == [(99.0, 10), (98.0, 10)]
    near = played(STILL, grid_mode="geometric", spacing_floor=0.0005, grid_levels=1)
    assert orders(near, 20) == [(99.8, 10)]  # 99.95 - 0.15


def test_entries_stop_at_the_cap_the_margin_and_the_number_of_lots():
    """Cap 15%: 1,500 - 990 leaves 510 / 98 = 5.2. With one lot a side the second level is not laid."""
    assert orders(played(STILL, max_position_pct=0.15), 20) == [(99, 10), (98, 5)]
    assert orders(played(STILL, max_inventory_per_side=1), 20) == [(99, 10)]
    assert orders(played(STILL, max_orders=1), 20) == [(99, 10)]
    assert orders(played(STILL, order_pct=0.6), 20) == [(99, 60), (98, 41)]  # 10,000 - 5,940 = 4,060 / 98
    assert orders(played(STILL, venue={"min_notional": 985.0}), 20) == [(99, 10)]  # 980 < 985


def test_a_dry_market_shrinks_the_cap():
    """15% · 0.7 = 1,050: 990 and then 60, which is no lot."""
    dry = {20: {"volume": 0.4, "mean_volume": 1.0}}
    assert orders(played(STILL, rows=dry, max_position_pct=0.15), 20) == [(99, 10)]


def test_the_anchor_trails_half_way_and_keeps_a_reserve():
    """Regime 1, efficiency 0.8: spacing 0.6 at 100. 102 > 100 + 2 · 0.6: the anchor goes to 101.

    Spacing 0.01 · 102 · 0.6 = 0.612: bids at 100.388 and 99.776, on the tick 100.3 and 99.7; cap 12% · 0.75 of 10,000
    is 900: 8 lots, and for the second 97.6 is left, which is none. A cap of the price at 100.5 holds the anchor there.
    """
    up = {i: {"regime": 1, "er": 0.8} for i in range(20, 24)}
    bars = ((100, 102, 100, 102), (102, 102, 102, 102))
    options = {"trailing_enabled": True, "max_position_pct": 0.12}
    assert orders(played(*bars, rows=up, **options), 21) == [(100.3, 8)]
    assert orders(played(*bars, rows=up, trailing_cap_price=100.5, **options), 21) == [(99.8, 9)]  # 100.5 - 0.612
    assert orders(played(*bars, rows=up, max_position_pct=0.12), 21) == [(99.4, 10), (98.8, 2)]  # as laid at bar 20


def test_two_entries_a_flip_and_a_drift_each_lay_a_new_grid():
    """Around the close: 99.5 - 0.995 = 98.505, on the tick 98.5."""
    both = played((100, 100, 98, 99.5), STILL)
    assert both.equity[21]["entries"][0][1] == pytest.approx(98.5)
    flip = played((100, 100, 99.5, 99.5), STILL, rows={21: {"regime": 2, "er": 0.0}})
    assert flip.equity[21]["entries"][0][1] == pytest.approx(98.5)
    drift = played((100, 103, 100, 103), STILL, regen_drift_mult=2.9)
    assert drift.equity[21]["entries"][0][1] == pytest.approx(101.9)  # 103 - 1.03 = 101.97
    calm = played((100, 103, 100, 103), STILL, regen_drift_mult=3.1)
    assert calm.equity[21]["entries"][0][1] == pytest.approx(99)


def test_kellys_sizes_are_smallest_until_an_edge_is_proven():
    """15 wins of 3 and 5 losses of 1: f = 0.75 - 0.25 / 3 = 2/3, a quarter of it 1/6."""
    proven = [(3.0, 0)] * 15 + [(-1.0, 0)] * 5
    assert kelly(proven, 0, 50) == pytest.approx(1 / 6)
    assert kelly(proven[:19], 0, 50) == 0.1
    assert kelly(proven, 1, 50) == 0.1
    assert kelly([(1.0, 1)] * 20, 2, 50) == 0.25
    assert kelly([(-1.0, 1)] * 20, 1, 50) == 0.1
    assert kelly(proven + [(-1.0, 0)] * 20, 0, 20) == 0.1
    assert kelly([], 0, 0) == 1
    assert orders(played(STILL, kelly_window=50), 20) == [(99, 1), (98, 1)]


# ---- what the venue does first


def test_an_account_is_liquidated_before_a_stop_that_lies_beyond():
    """Leverage 10, half an account an order: 505 lots at 99 and 510 at 98. The stop rests 37.5 below, at 61.

    The margin is used up on the way to 50 above 89, so that the stop is never reached and no wallet goes below 0.
    """
    spec = {"leverage": 10.0, "order_pct": 0.5, "max_position_pct": 10.0, "atr_sl_mult": 25.0}
    result = played((100, 100, 98, 100), (100, 100, 50, 60), (60, 60, 60, 60), **spec)
    labels = [each["label"] for each in result.fills]
    assert labels[:2] == ["BUY_OPEN_LONG", "BUY_OPEN_LONG"]
    assert "LIQUIDATION" in labels
    assert "STOP_LONG" not in labels
    assert result.liquidated[0][1] > 61
    assert min(line["wallet"] for line in result.equity) >= 0


def test_a_bid_below_the_price_of_the_liquidation_is_not_filled_on_the_way_down():
    """959 lots at 90 with 9.5 times the account; the second bid lies at 80, the margin is used up above it."""
    spec = {"leverage": 10.0, "order_pct": 0.95, "max_position_pct": 20.0, "atr_sl_mult": 100.0, "spacing_floor": 0.1}
    result = played((100, 100, 79, 85), STILL, **spec)
    assert [each["label"] for each in result.fills] == ["BUY_OPEN_LONG", "LIQUIDATION"]
    [(_, price)] = result.liquidated
    assert 80 < price < 90


def test_a_bar_that_opens_below_the_margin_is_liquidated_at_the_open_before_anything_is_sold():
    """The same two lots; stage 1 of the stop is on its way to the market when the next bar opens at 70."""
    spec = {"leverage": 10.0, "order_pct": 0.5, "max_position_pct": 10.0, "atr_sl_mult": 1.0}
    result = played((100, 100, 98, 97.4), (70, 70, 70, 70), **spec)
    assert [each["label"] for each in result.fills][2:] == ["LIQUIDATION"]
    assert result.liquidated == [(22, 70)]


def test_a_lot_is_one_trade_however_many_parts_it_is_closed_in():
    """Two take-profits close the lot of 99 in two parts: one trade in Kelly's ring, its profit less all fees."""
    bars = [STILL] * FIRST + [(100, 100, 99, 100), (100, 102.1, 100, 100), STILL]
    rows = [Row(i * INTERVAL_MS, *bar, 1.0, 0.0, 1.0, 0.0, 0.0, bar[3], 0.0, 0, 0.0) for i, bar in enumerate(bars)]
    candles = [[(i * INTERVAL_MS, *bar)] for i, bar in enumerate(bars)]
    venue = VenueParams(tick_size="0.1", lot_size="1", min_notional=5.0)
    case = Case(rows, candles, [], replace(CALM, kelly_window=50, order_pct=1.0), venue)
    slow, raw = case.twin(), case.engine()
    assert not differences(case, slow, raw)
    parts = [each for each in slow.fills if each["label"] == "SELL_CLOSE_LONG"]
    assert len(parts) == 2
    assert raw.world.S[layout.KELLY_AT] == 1
    flows = sum(each["pnl"] - each["fee"] for each in slow.fills)
    assert raw.world.kelly[0, 0] == pytest.approx(flows)
