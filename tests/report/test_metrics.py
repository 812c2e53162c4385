"""Figures of a run, on a case small enough to compute by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest

from mmlab.core.instrument import Instrument
from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.report.metrics import metrics
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.markets import busy, instrument, intensity, tape

INSTRUMENT = Instrument("v", "S", "0.01", "0.001")
S = 1_000_000_000


def table(contract, rows):
    return contract.check(pl.DataFrame(rows, schema=contract.schema, orient="row"))


def order(ns, id, action, status, side=1):
    return (ns, id, action, status, side, 100.0, 0.01, 0.01, ns + S, None, None, None, "", "")


def state(ns, inventory, cash, mid, bid=None, ask=None):
    return (ns, inventory, cash, mid, round(cash + inventory * mid, 9), 0, bid, ask)


def figures(orders, fills, states) -> dict[str, float | None]:
    frames = (table(c, r) for c, r in ((ORDERS, orders), (FILLS, fills), (STATE, states)))
    return dict(metrics(*frames, INSTRUMENT).select("metric", "value").iter_rows())


def test_a_round_trip_by_hand():
    """Bought 0.01 at 100, sold 0.005 at 101, fees 0.001 and 0.0005; the rest is marked at 102."""
    got = figures(
        [
            order(0, 1, "PLACE", "OPEN"),
            order(0, 2, "PLACE", "OPEN", -1),
            order(0, 3, "PLACE", "OPEN"),
            order(S, 3, "CANCEL_REQ", "CANCEL_PENDING"),
        ],
        [
            (3 * S, 1, 1, 100.0, 0.01, 0.001, "maker", "trade_cross", 100.5),
            (5 * S, 2, -1, 101.0, 0.005, 0.0005, "taker", "taker", 100.5),
        ],
        [
            state(0, 0.0, 10.0, 100.0, 99.0),
            state(3 * S, 0.01, 8.999, 99.0, 98.0, 103.0),
            state(5 * S, 0.005, 9.5035, 101.0, None, 103.0),
            state(10 * S, 0.005, 9.5035, 102.0, 99.0),
        ],
    )
    expected = {
        "pnl_total": 0.0135, "realised_pnl": 0.005, "unrealised_pnl": 0.01, "fees": 0.0015, "turnover": 1.505,
        "max_drawdown": 0.011, "orders_placed": 3, "orders_filled": 2, "fill_ratio": 2 / 3, "fills": 2,
        "buy_qty": 0.01, "sell_qty": 0.005, "final_inventory": 0.005, "max_abs_inventory": 0.01,
        "time_to_first_fill_mean": 3.0, "duration": 10.0,
        "maker_fees": 0.001, "taker_fees": 0.0005, "maker_share": 1.0 / 1.505, "taker_share": 0.505 / 1.505,
        "spread_earned_bps": 1e4 * (0.5 * 0.01 + 0.5 * 0.005) / 1.505, "pnl_bps": 1e4 * 0.0135 / 1.505,
        "sharpe": None, "drawdown_duration": 2.0, "cancels": 1, "cancels_per_fill": 0.5,
        "quoted_bid_share": 0.5, "quoted_ask_share": 0.7, "quoted_both_share": 0.2,
        "inventory_mean": 0.0045, "inventory_std": 0.0035, "inventory_p05": 0.0, "inventory_p50": 0.005,
        "inventory_p95": 0.01,
    }  # fmt: skip
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == (value if value is None else pytest.approx(value, abs=1e-9)), name


def test_a_position_held_from_the_start_earned_nothing_before_it():
    """0.01 held at 100, marked at 103: 0.03, all of it unrealised."""
    got = figures([], [], [state(0, 0.01, 5.0, 100.0), state(S, 0.01, 5.0, 103.0)])
    assert (got["pnl_total"], got["realised_pnl"], got["unrealised_pnl"]) == (0.03, 0.0, 0.03)
    assert got["fill_ratio"] is None
    assert got["time_to_first_fill_mean"] is None


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("account", ["spot", "margin"])
@pytest.mark.parametrize("model", ["trade_cross", "poisson"])
def test_profit_is_the_change_of_value_exactly(seed, account, model):
    """Held against a fold of the printed decimals; a quantum is 1e-8, so a mid between ticks is half a quantum."""
    market = replace(busy(seed), tick="0.01", lot="0.000001")
    market = replace(market, frames=[replace(f, bid=f.bid - 1) for f in market.frames])
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=1.5), FillSpec(model), qty=0.000007, initial_inventory=0.000021,
        account=account, maker_fee=0.0003, entry_latency_ms=0, cancel_latency_ms=100, requote_interval_ms=50,
    )  # fmt: skip
    got = run(tape(market), spec, intensity(market))
    figures = metrics(got.orders, got.fills, got.state, instrument(market))
    value = {name: exact(x) for name, x in figures.select("metric", "value").iter_rows() if x is not None}
    first, last = (got.state.row(i, named=True) for i in (0, -1))
    cash, held, turnover, fees = Fraction(1000), exact(first["inventory"]), Fraction(0), Fraction(0)
    for fill in got.fills.iter_rows(named=True):
        notional = exact(fill["price"]) * exact(fill["qty"])
        cash -= fill["side"] * notional + exact(fill["fee"])
        held += fill["side"] * exact(fill["qty"])
        turnover, fees = turnover + notional, fees + exact(fill["fee"])
    assert got.fills.height > 10
    assert (cash, held) == (exact(last["cash"]), exact(last["inventory"]))
    assert (turnover, fees) == (value["turnover"], value["fees"])
    assert exact(last["mtm_value"]) == cash + held * exact(last["mid"])
    assert value["pnl_total"] == exact(last["mtm_value"]) - exact(first["mtm_value"])
    assert value["pnl_total"] == value["realised_pnl"] + value["unrealised_pnl"] - value["fees"]
    assert value["fees"] == value["maker_fees"] + value["taker_fees"]


def exact(decimal: float) -> Fraction:
    return Fraction(Decimal(repr(decimal)))


def test_a_run_without_fills_has_figures():
    """Zeros, and nulls where there is nothing to divide by."""
    got = figures([order(0, 1, "PLACE", "OPEN")], [], [state(0, 0.0, 5.0, 100.0), state(S, 0.0, 5.0, 99.0)])
    assert (got["pnl_total"], got["turnover"], got["max_drawdown"], got["fills"], got["buy_qty"]) == (0, 0, 0, 0, 0)
    assert (got["fill_ratio"], got["time_to_first_fill_mean"]) == (0.0, None)
    for name in ("maker_share", "taker_share", "spread_earned_bps", "pnl_bps", "cancels_per_fill", "sharpe"):
        assert got[name] is None, name


def test_a_run_of_one_instant_has_figures():
    """No time passed: no share of it, and nothing was held for any of it."""
    got = figures([], [], [state(5, 0.01, 5.0, 100.0)])
    assert (got["pnl_total"], got["drawdown_duration"], got["final_inventory"]) == (0.0, 0.0, 0.01)
    for name in ("quoted_bid_share", "inventory_mean", "inventory_std", "inventory_p50", "sharpe"):
        assert got[name] is None, name


def test_orders_that_are_worth_more_than_63_bits_are_summed_exactly():
    """A turnover of 40 fills of 5e8 each at 1e-9 a quantum: each fits, their sum in quanta does not."""
    dear = Instrument("v", "S", "0.00001", "0.0001")
    rows = [(i, 1, 1, 5e6, 100.0, 0.1, "maker", "trade_cross", 5e6) for i in range(40)]
    states = [state(0, 0.0, 0.0, 5e6), state(S, 4000.0, -2e10 - 4, 5e6)]
    frames = (table(c, r) for c, r in ((ORDERS, []), (FILLS, rows), (STATE, states)))
    got = dict(metrics(*frames, dear).select("metric", "value").iter_rows())
    assert (got["turnover"], got["buy_qty"], got["fees"], got["pnl_total"]) == (2e10, 4000.0, 4.0, -4.0)
