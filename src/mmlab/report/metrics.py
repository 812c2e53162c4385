"""Tables of a backtest -> the `metrics` table; each metric is one function's answer."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Account, Money
from mmlab.core.schemas import METRICS
from mmlab.core.spans import NS_PER_S
from mmlab.report import over_time
from mmlab.report.exact import Trades, dot, half_tick_grid, total, whole

Row = tuple[str, float | None, str]  # metric, value, unit


def metrics(orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame, instrument: Instrument) -> pl.DataFrame:
    """One row per figure. The position held at the start counts at the first mid: nothing was earned on it yet."""
    trades = Trades.of(fills, instrument)
    rows = [
        *money_rows(trades, state, instrument),
        *order_rows(orders, fills, trades, instrument),
        *account_rows(state, instrument),
    ]
    return METRICS.conform(pl.DataFrame(rows, schema=["metric", "value", "unit"], orient="row", strict=False))


def money_rows(trades: Trades, state: pl.DataFrame, instrument: Instrument) -> list[Row]:
    """What was earned, what it cost, and on how much trading.

    pnl_total: change of cash + inventory * mid over the run; it is realised_pnl (what was bought against what was
    sold, at average cost) + unrealised_pnl (the position at the last mid, less its cost) - fees (maker_fees +
    taker_fees; below 0: rebates). turnover: price * qty of all fills; maker_share and taker_share: their parts of it.
    spread_earned_bps: side * (mid at the fill - price) * qty, and pnl_bps: pnl_total, in 1/10,000 of the turnover.
    The others are told where they are computed.
    """
    found, unit = profit(trades, state, instrument), quote_unit(instrument)
    traded, spread = volume(trades), dot(trades.side * (trades.mid2 - 2 * trades.ticks), trades.lots)
    per = Money.of(instrument).per_tick_lot
    return [
        ("pnl_total", found.total / unit, "quote"),
        ("realised_pnl", found.realised / unit, "quote"),
        ("unrealised_pnl", found.unrealised / unit, "quote"),
        ("fees", found.fees / unit, "quote"),
        ("maker_fees", 2 * total(trades.fee[trades.maker]) / unit, "quote"),
        ("taker_fees", 2 * total(trades.fee[~trades.maker]) / unit, "quote"),
        ("turnover", 2 * traded * per / unit, "quote"),
        ("maker_share", ratio(volume(trades.where(trades.maker)), traded), "1"),
        ("taker_share", ratio(volume(trades.where(~trades.maker)), traded), "1"),
        ("spread_earned_bps", ratio(10_000 * spread, 2 * traded), "bps"),
        ("pnl_bps", ratio(10_000 * found.total, 2 * traded * per), "bps"),
        ("sharpe", over_time.sharpe(state, instrument), "1"),
        ("max_drawdown", over_time.max_drawdown(state, instrument), "quote"),
        ("drawdown_duration", over_time.drawdown_duration(state), "s"),
    ]


def order_rows(orders: pl.DataFrame, fills: pl.DataFrame, trades: Trades, instrument: Instrument) -> list[Row]:
    """How many orders were sent and cancelled, and what came of them.

    orders_placed: orders sent; orders_filled: of them, those with a fill, even a partial one; fill_ratio: their part.
    fills: executions. cancels: cancels that were sent. buy_qty, sell_qty: quantity bought, sold.
    """
    placed, filled, asked = count(orders, "PLACE"), fills["order_id"].n_unique(), count(orders, "CANCEL_REQ")
    return [
        ("orders_placed", placed, "1"),
        ("orders_filled", filled, "1"),
        ("fill_ratio", ratio(filled, placed), "1"),
        ("fills", fills.height, "1"),
        ("cancels", asked, "1"),
        ("cancels_per_fill", ratio(asked, fills.height), "1"),
        ("buy_qty", quantity(trades, 1, instrument), "base"),
        ("sell_qty", quantity(trades, -1, instrument), "base"),
        ("time_to_first_fill_mean", time_to_first_fill(orders, fills), "s"),
    ]


def account_rows(state: pl.DataFrame, instrument: Instrument) -> list[Row]:
    """How long there were quotes, and what was held for how long.

    quoted_*_share: parts of the time with own quotes at work. inventory_mean, _std, _p05, _p50 and _p95: of the
    position over time. final_inventory, max_abs_inventory: the last, and the largest either way. duration: from the
    first row of `state` to the last.
    """
    positions = over_time.Positions.of(state, instrument).figures()
    seconds = max(state["recv_ns"][-1] - state["recv_ns"][0], 1) / NS_PER_S
    return [
        *((f"quoted_{side}_share", value, "1") for side, value in over_time.quoted(state).items()),
        ("final_inventory", state["inventory"][-1], "base"),
        ("max_abs_inventory", float(state["inventory"].abs().to_numpy().max()), "base"),
        *((f"inventory_{name}", value, "base") for name, value in positions.items()),
        ("duration", seconds, "s"),
    ]


@dataclass(frozen=True)
class Profit:
    """A run's profit in half quanta (a mid is in half ticks); total = realised + unrealised - fees."""

    realised: int
    unrealised: int
    fees: int

    @property
    def total(self) -> int:
        """Change of the account's value, cash + inventory * mid, from the first row of `state` to the last."""
        return self.realised + self.unrealised - self.fees


def profit(trades: Trades, state: pl.DataFrame, instrument: Instrument) -> Profit:
    """The average-cost account after all fills, its position at the last mid."""
    account = fold(trades, opening(state.row(0, named=True), instrument), instrument)
    value = account.lots * half_ticks(state["mid"][-1], instrument) * Money.of(instrument).per_tick_lot
    return Profit(account.realised, value - account.cost, account.fees)


def opening(start: dict[str, Any], instrument: Instrument) -> Account:
    """The account at the first state row in half quanta, its position at that row's mid."""
    lots = whole_lots(start["inventory"], instrument)
    return Account(lots=lots, cost=lots * half_ticks(start["mid"], instrument) * Money.of(instrument).per_tick_lot)


def fold(trades: Trades, account: Account, instrument: Instrument) -> Account:
    """The account after all fills, exactly, in half quanta."""
    per = Money.of(instrument).per_tick_lot
    columns = (c.tolist() for c in (trades.side, trades.ticks, trades.lots, trades.fee))
    for side, ticks, lots, fee in zip(*columns, strict=True):
        account = account.fill(side, lots, 2 * ticks * lots * per, 2 * fee)
    return account


def quote_unit(instrument: Instrument) -> int:
    """Half quanta in one unit of quote currency."""
    return int(2 * 10 ** Money.of(instrument).digits)


def whole_lots(qty: float, instrument: Instrument) -> int:
    """A quantity as a whole number of lots."""
    return int(whole(pl.Series([qty]).to_numpy(), instrument.lots)[0])


def half_ticks(mid: float, instrument: Instrument) -> int:
    """A mid as a whole number of half ticks."""
    return int(whole(pl.Series([mid]).to_numpy(), half_tick_grid(instrument))[0])


def volume(trades: Trades) -> int:
    """Price times quantity over all fills, in ticks times lots: what turnover and shares of volume count."""
    return dot(trades.ticks, trades.lots)


def ratio(part: int, of: int) -> float | None:
    """part / of, rounded once; None if there is nothing to divide by."""
    return float(Fraction(part, of)) if of else None


def count(orders: pl.DataFrame, action: str) -> int:
    """Rows of `orders` with this action."""
    return int((orders["action"] == action).sum())


def quantity(trades: Trades, side: int, instrument: Instrument) -> float:
    """Quantity bought (side +1) or sold (-1)."""
    lots = instrument.lots
    return float(Fraction(total(trades.lots[trades.side == side]) * lots.num, lots.den))


def time_to_first_fill(orders: pl.DataFrame, fills: pl.DataFrame) -> float | None:
    """Mean time from an order's activation to its first fill, over the orders that were filled."""
    active = orders.filter(pl.col("action") == "PLACE").select("order_id", "active_recv_ns")
    first = fills.group_by("order_id").agg(pl.col("recv_ns").min())
    waits = first.join(active, on="order_id").select(pl.col("recv_ns") - pl.col("active_recv_ns")).to_series()
    return int(waits.sum()) / waits.len() / NS_PER_S if waits.len() else None
