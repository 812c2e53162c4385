"""Figures by hand, by plain loops over the tables, and of several coins from their joint curve."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.grid_schemas import GRID_FILLS, GRID_FLOWS, GRID_METRICS, GRID_VERDICTS
from mmlab.grid import layout
from mmlab.grid.metrics import METRICS, PORTFOLIO, Account, account, joint, metrics, portfolio
from mmlab.grid.summary import busiest, by_guard, by_label, by_regime, curve_of, joint_curve, side_by_side, trades
from mmlab.grid.tables import tables
from reference import grid_frames as some

DAY_BARS = 96
ROOT = math.sqrt(365 * DAY_BARS)


def of(
    equity: list[float], held: list[float] | None = None, notional: list[float] | None = None,
    fills: pl.DataFrame | None = None,
) -> Account:  # fmt: skip
    """An account with this curve, 100 at the start."""
    n = len(equity)
    return Account(
        100.0, some.INTERVAL_NS, np.array(equity), np.array(held or [100.0] * n), np.array(notional or [0.0] * n),
        np.zeros(n, np.int64), GRID_FILLS.empty() if fills is None else fills, GRID_FLOWS.empty(),
        GRID_VERDICTS.empty(),
    )  # fmt: skip


def value(a: Account, name: str) -> float | None:
    return METRICS[name][1](a)


def test_a_curve_by_hand():
    """100 -> 110 -> 99 -> 121: returns 10%, -10%, 22.2%; the fall from 110 to 99 is a tenth."""
    a = of([110.0, 99.0, 121.0], held=[100.0, 90.0, 150.0], notional=[55.0, 0.0, 242.0])
    returns = np.array([0.1, -0.1, 121 / 99 - 1])
    assert value(a, "total_return_pct") == pytest.approx(21.0)
    assert value(a, "buy_hold_return_pct") == pytest.approx(50.0)
    assert value(a, "final_capital") == 121.0
    assert value(a, "max_drawdown_pct") == pytest.approx(10.0)
    mean = returns.sum() / 3
    assert value(a, "sharpe_ratio") == pytest.approx(mean / math.sqrt(((returns - mean) ** 2).sum() / 3) * ROOT)
    assert value(a, "sortino_ratio") == pytest.approx(mean / math.sqrt(0.1**2 / 3) * ROOT)
    assert value(a, "time_in_market_pct") == pytest.approx(200 / 3)
    assert value(a, "average_exposure") == pytest.approx((0.5 + 0 + 2) / 3)
    assert value(a, "largest_exposure") == pytest.approx(2.0)


def test_calmar_divides_a_year_s_return():
    """Two years in which 100 became 121 by way of 90 of 100: 10% a year over a fall of a tenth."""
    bars = 2 * 365 * DAY_BARS
    curve = [100.0] * bars
    curve[10], curve[-1] = 90.0, 121.0
    a = of(curve)
    assert value(a, "annual_return_pct") == pytest.approx(10.0)
    assert value(a, "calmar_ratio") == pytest.approx(1.0)


def test_a_fall_below_the_capital_at_the_start_counts_from_it():
    """The first bar may lose already."""
    assert value(of([80.0, 90.0]), "max_drawdown_pct") == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("sharpe_ratio", [100.0, 100.0]), ("sortino_ratio", [100.0, 110.0]), ("calmar_ratio", [100.0, 110.0]),
        ("annual_return_pct", [1e9]), ("win_rate_pct", [100.0]), ("profit_factor", [100.0]),
        ("average_trade", [100.0]), ("average_exposure", [-5.0]), ("largest_exposure", [0.0]),
    ],
)  # fmt: skip
def test_what_is_undefined_is_null(name, curve):
    """Nothing to divide by, or a number too large to say."""
    assert value(of(curve), name) is None


def test_an_account_that_is_lost_has_figures_all_the_same():
    """Below nothing there is no return, and no infinite one."""
    made = metrics("C", of([50.0, 0.0, 0.0]))
    GRID_METRICS.check(made)
    figures = dict(made.select("metric", "value").iter_rows())
    assert figures["total_return_pct"] == figures["annual_return_pct"] == -100.0
    assert all(v is None or math.isfinite(v) for v in figures.values())


def fills(rows: list[tuple[str, float, float]]) -> pl.DataFrame:
    """Fills of one lot each from (label, pnl, fee)."""
    n = len(rows)
    return GRID_FILLS.conform(
        pl.DataFrame(
            {
                "coin": ["C"] * n, "candle_ns": list(range(n)), "seq": list(range(1, n + 1)), "side": [1] * n,
                "label": [row[0] for row in rows], "price": [50.0] * n, "qty": [2.0] * n,
                "fee": [row[2] for row in rows], "pnl": [row[1] for row in rows], "liquidity": ["maker"] * n,
                "order_id": [None] * n, "wallet": [100.0] * n, "regime": [0] * n,
            }
        )
    )  # fmt: skip


def test_trades_by_hand():
    """Closings count net of their fee: 3 - 1, 1 - 1 (no win), -2 - 1; the opening pays its fee only."""
    rows = [
        ("BUY_OPEN_LONG", 0.0, 1.0),
        ("SELL_CLOSE_LONG", 3.0, 1.0),
        ("PRUNE_GAP", 1.0, 1.0),
        ("STOP_LONG", -2.0, 1.0),
    ]
    a = of([100.0], fills=fills(rows))
    want = {
        "total_trades": 3, "win_rate_pct": 100 / 3, "gross_profit": 2, "gross_loss": 3, "profit_factor": 2 / 3,
        "average_trade": -1 / 3, "longs_opened": 1, "longs_closed": 1, "stops_long": 1, "prune_count": 1,
        "prune_gap": 1, "fees_paid": 4, "turnover": 4,
    }  # fmt: skip
    assert {name: value(a, name) for name in want} == pytest.approx(want)


@given(st.lists(st.floats(0.5, 200.0), min_size=1, max_size=40))
def test_figures_of_any_curve_equal_plain_loops(curve):
    """Drawdown and Sharpe, one bar after the other."""
    a = of(curve)
    peak, fall, before, returns = 100.0, 0.0, 100.0, []
    for equity in curve:
        peak = max(peak, equity)
        fall = max(fall, 1 - equity / peak)
        returns.append(equity / before - 1)
        before = equity
    assert value(a, "max_drawdown_pct") == pytest.approx(100 * fall, abs=1e-9)
    mean = sum(returns) / len(returns)
    spread = math.sqrt(sum((r - mean) ** 2 for r in returns) / len(returns))
    if spread > 1e-12:
        assert value(a, "sharpe_ratio") == pytest.approx(mean / spread * ROOT, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def runs():
    """Two coins, the second one from bar 100 to 500 of the first with a hole in it, and the first one's arrays."""
    params = dataclasses.replace(some.BUSY, initial_capital=500.0)
    first = some.market(seed=3)
    raw = some.run(first, params)
    one = tables("AUSDT", first, raw, params)
    finer = some.minutes(4, 400, some.START_NS + 100 * some.INTERVAL_NS, 7.0)
    bars = some.bars_of(finer)
    bars = pl.concat([bars[:200], bars[230:]])
    second = type(first).of(bars, some.INTERVAL_NS, some.funding_of(bars, 4))
    return params, raw, one, tables("BUSDT", second, some.run(second, params), params)


def test_counts_are_those_of_the_engine(runs):
    """The engine counts too, also when it records nothing."""
    params, raw, one, _ = runs
    figures = dict(
        metrics("A", account(one, params.initial_capital, some.INTERVAL_NS)).select("metric", "value").rows()
    )
    S = raw.world.S
    assert figures["total_trades"] == S[layout.TRADES] > 50
    assert figures["win_rate_pct"] == pytest.approx(100 * S[layout.WINS] / S[layout.TRADES])
    assert figures["gross_profit"] == pytest.approx(S[layout.WON])
    assert figures["gross_loss"] == pytest.approx(S[layout.LOST])
    for k, label in enumerate(layout.LABELS[1:14], 1):
        name = {"BUY_OPEN_LONG": "longs_opened", "SELL_OPEN_SHORT": "shorts_opened", "SELL_CLOSE_LONG": "longs_closed",
                "BUY_CLOSE_SHORT": "shorts_closed", "STOP_LONG": "stops_long", "STOP_SHORT": "stops_short"}.get(
                    label, label.lower())  # fmt: skip
        if name in figures:
            assert figures[name] == S[layout.COUNT_AT + k], label
    assert figures["final_capital"] == raw.equity[-1, 1]
    earned = (one["grid_fills"]["pnl"] - one["grid_fills"]["fee"]).sum() + figures["funding_pnl"]
    assert earned == pytest.approx(figures["final_capital"] - params.initial_capital, rel=1e-9)


def test_the_portfolio_is_the_sum_of_the_accounts_bar_by_bar(runs):
    """On the union of the bars, the last known value carried: a loop with two dictionaries says the same."""
    _, _, one, two = runs
    a = joint([one, two], 1000.0, some.INTERVAL_NS)
    parts = [dict(each["grid_equity"].select("open_ns", "equity").iter_rows()) for each in (one, two)]
    last, slow = [500.0, 500.0], []
    for ns in sorted(parts[0].keys() | parts[1].keys()):
        last = [part.get(ns, before) for part, before in zip(parts, last, strict=True)]
        slow.append(sum(last))
    assert a.equity.tolist() == slow
    made = portfolio([one, two], 1000.0, some.INTERVAL_NS)
    figures = dict(made.select("metric", "value").iter_rows())
    assert set(made["coin"]) == {PORTFOLIO}
    peak = np.maximum.accumulate(np.maximum(slow, 1000.0))
    assert figures["max_drawdown_pct"] == pytest.approx(100 * (1 - np.array(slow) / peak).max())
    assert figures["total_return_pct"] == pytest.approx(100 * (slow[-1] / 1000 - 1))
    each = [
        dict(metrics("x", account(t, 500.0, some.INTERVAL_NS)).select("metric", "value").rows()) for t in (one, two)
    ]
    for name in ("total_trades", "fees_paid", "funding_pnl", "grids_laid", "halted_bars"):
        assert figures[name] == pytest.approx(each[0][name] + each[1][name]), name
    assert figures["buy_hold_return_pct"] == pytest.approx(sum(e["buy_hold_return_pct"] for e in each) / 2)
    assert figures["max_drawdown_pct"] != pytest.approx(sum(e["max_drawdown_pct"] for e in each) / 2)


def test_the_portfolio_of_one_coin_is_that_coin(runs):
    """Nothing is lost by adding up one account."""
    params, _, one, _ = runs
    alone = metrics(PORTFOLIO, account(one, params.initial_capital, some.INTERVAL_NS))
    assert portfolio([one], params.initial_capital, some.INTERVAL_NS).equals(alone)


def test_what_pages_show_adds_up_to_the_tables(runs):
    """Curves, trades, profit by label, guards, regimes, figures side by side."""
    params, _, one, two = runs
    curve = curve_of(one, params.initial_capital, some.INTERVAL_NS)
    assert curve["equity"].to_list() == one["grid_equity"]["equity"].to_list()
    assert curve["buy_hold"][0] == params.initial_capital
    assert joint_curve([one, two], 1000.0, some.INTERVAL_NS).height == 800
    every = pl.concat([one["grid_fills"], two["grid_fills"]])
    labelled = by_label(every)
    assert labelled["fills"].sum() == every.height
    assert labelled["net"].sum() == pytest.approx((every["pnl"] - every["fee"]).sum())
    assert by_guard(one["grid_verdicts"])["times"].sum() == one["grid_verdicts"].height
    assert by_regime(one["grid_regimes"])["share_pct"].sum() == pytest.approx(100.0)
    both = pl.concat(
        [metrics("AUSDT", of([101.0])), portfolio([one, two], 1000.0, some.INTERVAL_NS), metrics("BUSDT", of([99.0]))]
    )
    assert side_by_side(both).columns == ["metric", "unit", "A", "B", PORTFOLIO]


def test_trades_have_the_document_s_columns(runs):
    """Bar, time, price, quantity, label, regime by name, and profit less the exit's fee."""
    _, _, one, _ = runs
    rows = trades(one["grid_fills"], one["grid_equity"]["open_ns"].to_numpy())
    assert rows.columns == ["bar", "timestamp", "datetime", "price", "qty", "label", "regime", "pnl"]
    for got, fill in zip(rows.iter_rows(named=True), one["grid_fills"].iter_rows(named=True), strict=True):
        assert got["bar"] == (fill["candle_ns"] - some.START_NS) // some.INTERVAL_NS
        assert got["timestamp"] * 1_000_000 == fill["candle_ns"]
        opened = "OPEN" in fill["label"]
        assert got["pnl"] == (0.0 if opened else fill["pnl"] - fill["fee"])
    assert rows["datetime"][0].startswith("2024-01-0")
    assert set(rows["regime"]) <= {"NOISE", "UPTREND", "DOWNTREND", "BREAKOUT_UP", "BREAKOUT_DOWN"}


def test_the_busiest_stretch_holds_as_many_fills_as_it_should(runs):
    """No stretch with as many fills is shorter."""
    ns = runs[2]["grid_fills"]["candle_ns"].to_list()
    first, last = busiest(runs[2]["grid_fills"], 20)
    assert sum(first <= at <= last for at in ns) >= 20
    shortest = min(ns[k + 19] - ns[k] for k in range(len(ns) - 19))
    assert last - first == shortest + 2 * (shortest // 10)


def test_every_metric_is_named_and_explained():
    """Functions of their own say their formula; a count's label is its name."""
    made = metrics("C", of([101.0]))
    GRID_METRICS.check(made)
    assert made["metric"].to_list() == list(METRICS)
    for name, (unit, found) in METRICS.items():
        assert unit, name
        assert found.__doc__ or found.__name__ == "<lambda>", name
