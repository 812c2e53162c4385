"""Tables of a backtest -> the `metrics` table; each metric is one function's answer."""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Account, Money
from mmlab.core.schemas import METRICS
from mmlab.core.spans import NS_PER_S


def metrics(orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame, instrument: Instrument) -> pl.DataFrame:
    """One row per figure. The position held at the start counts at the first mid: nothing was earned on it yet."""
    money = Money.of(instrument)
    start, end = state.row(0, named=True), state.row(-1, named=True)
    account = fold(fills, opening(start, instrument), instrument)
    unrealised = account.lots * half_ticks(end["mid"], instrument) * money.per_tick_lot - account.cost
    quote = {
        "pnl_total": account.realised - account.fees + unrealised,
        "realised_pnl": account.realised,
        "unrealised_pnl": unrealised,
        "fees": account.fees,
    }
    placed = orders.filter(pl.col("action") == "PLACE").height
    filled = fills["order_id"].n_unique()
    seconds = max(end["recv_ns"] - start["recv_ns"], 1) / NS_PER_S
    unit2 = 2 * 10**money.digits
    rows: list[tuple[str, float | None, str]] = [(name, q / unit2, "quote") for name, q in quote.items()]
    rows += [
        ("turnover", turnover(fills, instrument), "quote"),
        ("max_drawdown", max_drawdown(state), "quote"),
        ("orders_placed", placed, "1"),
        ("orders_filled", filled, "1"),
        ("fill_ratio", filled / placed if placed else None, "1"),
        ("fills", fills.height, "1"),
        ("buy_qty", quantity(fills, 1, instrument), "base"),
        ("sell_qty", quantity(fills, -1, instrument), "base"),
        ("final_inventory", end["inventory"], "base"),
        ("max_abs_inventory", float(state["inventory"].abs().to_numpy().max()), "base"),
        ("time_to_first_fill_mean", time_to_first_fill(orders, fills), "s"),
        ("duration", seconds, "s"),
    ]
    return METRICS.conform(pl.DataFrame(rows, schema=["metric", "value", "unit"], orient="row", strict=False))


def opening(start: dict[str, float], instrument: Instrument) -> Account:
    """The account at the first state row in half quanta (a mid is in half ticks), its position at that row's mid."""
    lots = steps(start["inventory"], instrument.lot_size)
    return Account(lots=lots, cost=lots * half_ticks(start["mid"], instrument) * Money.of(instrument).per_tick_lot)


def fold(fills: pl.DataFrame, account: Account, instrument: Instrument) -> Account:
    """The account after all fills, exactly, in half quanta."""
    money = Money.of(instrument)
    for side, price, qty, fee in fills.select("side", "price", "qty", "fee").iter_rows():
        lots = steps(qty, instrument.lot_size)
        notional = steps(price, instrument.tick_size) * lots * money.per_tick_lot
        account = account.fill(side, lots, 2 * notional, 2 * money.quanta(fee, "fee"))
    return account


def turnover(fills: pl.DataFrame, instrument: Instrument) -> float:
    """Price times quantity over all fills, in quote currency."""
    ticks = instrument.ticks.to_steps(fills["price"].to_numpy())
    lots = instrument.lots.to_steps(fills["qty"].to_numpy())
    money = Money.of(instrument)
    return money.amount(int((ticks * lots).sum()) * money.per_tick_lot)


def steps(value: float, step: str) -> int:
    """A decimal as a whole number of steps."""
    return int((Decimal(repr(value)) / Decimal(step)).to_integral_value())


def half_ticks(mid: float, instrument: Instrument) -> int:
    """A mid as a whole number of half ticks."""
    return steps(2 * mid, instrument.tick_size)


def max_drawdown(state: pl.DataFrame) -> float:
    """Largest fall of the mark-to-market value from its highest so far, as a positive number."""
    value = state["mtm_value"]
    return float((value.cum_max() - value).to_numpy().max())


def quantity(fills: pl.DataFrame, side: int, instrument: Instrument) -> float:
    """Quantity bought (side +1) or sold (-1)."""
    lots = instrument.lots.to_steps(fills.filter(pl.col("side") == side)["qty"].to_numpy())
    return float(instrument.lots.to_decimal(lots.sum(keepdims=True))[0])


def time_to_first_fill(orders: pl.DataFrame, fills: pl.DataFrame) -> float | None:
    """Mean time from an order's activation to its first fill, over the orders that were filled."""
    active = orders.filter(pl.col("action") == "PLACE").select("order_id", "active_recv_ns")
    first = fills.group_by("order_id").agg(pl.col("recv_ns").min())
    waits = first.join(active, on="order_id").select(pl.col("recv_ns") - pl.col("active_recv_ns")).to_series()
    return int(waits.sum()) / waits.len() / NS_PER_S if waits.len() else None
