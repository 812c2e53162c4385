"""The tables say what the arrays say: a plain loop over the rows makes the same, and every contract holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mmlab.core.grid_schemas import GRID_TABLES
from mmlab.core.schemas import TABLES
from mmlab.grid import layout
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.market import Market
from mmlab.grid.params import VenueParams
from mmlab.grid.tables import tables
from reference import grid_frames as some

CASES = {
    "plain": (some.BUSY, some.VENUE, False),
    "minutes": (some.BUSY, some.VENUE, True),
    "peer": (some.BUSY, dataclasses.replace(some.VENUE, fills="peer"), False),
    "liquidated": (
        dataclasses.replace(
            some.BUSY, leverage=125.0, max_position_pct=100.0, order_pct=1.0, atr_sl_mult=50.0, deviance_sigma=50.0,
            max_drawdown_pct=1.0,
        ),
        VenueParams(),
        True,
    ),
    "one level": (dataclasses.replace(some.BUSY, grid_levels=1, allow_short=False), some.VENUE, False),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def made(request) -> tuple[str, Market, Raw, dict[str, Any]]:
    params, venue, inside = CASES[request.param]
    market = some.market(seed=5, inside=inside)
    raw = some.run(market, params, venue)
    return request.param, market, raw, tables("COINUSDT", market, raw, params)


def test_every_table_meets_its_contract(made):
    """Columns, types, keys, order, and the values that are allowed."""
    _, _, _, frames = made
    for table in GRID_TABLES:
        if table.name != "grid_metrics":
            table.check(frames[table.name])
            assert (frames[table.name]["coin"] == "COINUSDT").all()
    assert {table.name for table in GRID_TABLES} <= set(TABLES)


def test_orders_are_what_a_loop_over_the_rows_says(made):
    """Each order's first row, and the row that ended it."""
    _, market, raw, frames = made
    slow: dict[int, dict[str, Any]] = {}
    for number, what, when, side, role, level, price, qty in raw.orders.tolist():
        closes = int(market.open_ns[int(when)]) + some.INTERVAL_NS if when < len(market) else None
        if what == layout.PLACED:
            assert number not in slow
            slow[number] = {
                "coin": "COINUSDT", "order_id": number, "placed_ns": closes, "ended_ns": None, "side": side,
                "role": layout.ROLES[int(role)], "level": level, "price": price, "qty": qty, "status": "OPEN",
            }  # fmt: skip
            continue
        assert slow[number]["status"] == "OPEN"
        slow[number]["status"] = layout.ENDS[int(what)]
        inside = what in (layout.FILLED, layout.CLOSED)
        slow[number]["ended_ns"] = int(market.candle_ns[int(when)]) if inside else closes
    assert frames["grid_orders"].to_dicts() == list(slow.values())
    assert len(slow) > 100


def test_fills_and_flows_part_the_rows_between_them(made):
    """By label; together they are all the money there is."""
    name, market, raw, frames = made
    fills, flows = [], []
    for row in raw.fills.tolist():
        candle_ns, label = int(market.candle_ns[int(row[1])]), layout.LABELS[int(row[3])]
        if label in ("FUNDING", "INSURANCE"):
            own = label == "FUNDING"
            flows.append((candle_ns, label, row[2] if own else 0, *((row[4], row[5]) if own else (None, None)), row[7]))
        else:
            liquidity = "maker" if row[8] else "taker"
            fills.append((candle_ns, len(fills) + 1, row[2], label, *row[4:8], liquidity, row[9] or None, *row[10:]))
    assert frames["grid_fills"].drop("coin").rows() == fills
    assert frames["grid_flows"].drop("coin").rows() == flows
    assert {flow[1] for flow in flows} == {"INSURANCE" if name == "liquidated" else "FUNDING"}
    if name == "liquidated":
        assert "LIQUIDATION" in {fill[3] for fill in fills}
    earned = sum(fill[7] - fill[6] for fill in fills) + sum(flow[-1] for flow in flows)
    assert earned == pytest.approx(raw.equity[-1, 0] - CASES[name][0].initial_capital, rel=1e-9, abs=1e-6)


def test_lines_verdicts_and_regimes_are_those_of_their_bars(made):
    """One line a bar, guards at the close of theirs."""
    name, market, raw, frames = made
    equity = frames["grid_equity"]
    assert equity["open_ns"].to_list() == market.open_ns.tolist()
    assert equity["equity"].to_list() == raw.equity[:, 1].tolist()
    assert equity["halted"].to_list() == [flags % 2 == 1 for flags in raw.equity[:, 7]]
    assert equity["blocked"].to_list() == [flags >= 2 for flags in raw.equity[:, 7]]
    for side, at in (("long", 2), ("short", 4)):
        means = [mean if qty > 0 else None for qty, mean in raw.equity[:, at : at + 2].tolist()]
        assert equity[f"{side}_mean"].to_list() == means
    decided = [int(market.open_ns[int(row[0])]) + some.INTERVAL_NS for row in raw.verdicts]
    assert frames["grid_verdicts"]["decided_ns"].to_list() == decided
    assert frames["grid_verdicts"]["guard"].to_list() == [layout.GUARDS[int(row[1])] for row in raw.verdicts]
    X = market.rows(CASES[name][0])
    regimes = frames["grid_regimes"]
    for column, at in (("regime", layout.IN_FORCE), ("er", layout.ER), ("kama", layout.KAMA), ("z", layout.Z),
                       ("atr", layout.ATR), ("sigma", layout.SIGMA), ("funding_rate", layout.RATE)):  # fmt: skip
        assert np.array_equal(regimes[column].to_numpy(), X[:, at]), column


def test_a_run_of_some_bars_has_their_lines_only():
    """`low` and `high` of the engine."""
    market = some.market(seed=5)
    raw = simulate(market.rows(some.BUSY), market.candles, some.BUSY, some.VENUE, low=200, high=500)
    frames = tables("C", market, raw, some.BUSY)
    assert frames["grid_equity"]["open_ns"].to_list() == market.open_ns[200:500].tolist()
    assert frames["grid_regimes"].height == 300
    assert frames["grid_fills"]["candle_ns"].min() >= market.open_ns[200]


def test_a_run_without_orders_has_empty_tables_of_the_right_kind():
    """An account too small for any order."""
    market = some.market(seed=5, bars=120)
    params = dataclasses.replace(some.BUSY, initial_capital=1.0)
    frames = tables("C", market, some.run(market, params), params)
    for name in ("grid_orders", "grid_fills", "grid_flows"):
        assert frames[name].is_empty()
        TABLES[name].check(frames[name])
