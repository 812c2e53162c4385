"""Tables of a backtest -> the `metrics` table; each metric is one function's answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.kernels import kernel
from mmlab.core.ledger import Account, Money
from mmlab.core.schemas import METRICS
from mmlab.core.spans import NS_PER_S
from mmlab.report import over_time
from mmlab.report.exact import Ints, Trades, dot, half_tick_grid, total, whole

Row = tuple[str, float | None, str]  # metric, value, unit
MOST_LOTS, MOST_MONEY = 2**31, 2**61  # below them the account's products can be counted in 64 bits


def metrics(orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame, instrument: Instrument) -> pl.DataFrame:
    """One row per figure. The position held at the start counts at the first mid: nothing was earned on it yet."""
    trades = Trades.of(fills, instrument)
    earned = profit(trades, state, instrument)
    return figures(trades, earned, Sent.of(orders, fills), Course.of(state, instrument), instrument)


def figures(trades: Trades, earned: Profit, sent: Sent, course: Course, instrument: Instrument) -> pl.DataFrame:
    """The table, from what its rows count."""
    rows = [
        *money_rows(trades, earned, course, instrument),
        *order_rows(sent, trades, instrument),
        *account_rows(course),
    ]
    return METRICS.conform(pl.DataFrame(rows, schema=["metric", "value", "unit"], orient="row", strict=False))


def money_rows(trades: Trades, found: Profit, course: Course, instrument: Instrument) -> list[Row]:
    """What was earned, what it cost, and on how much trading.

    pnl_total: change of cash + inventory * mid over the run; it is realised_pnl (what was bought against what was
    sold, at average cost) + unrealised_pnl (the position at the last mid, less its cost) - fees (maker_fees +
    taker_fees; below 0: rebates). turnover: price * qty of all fills; maker_share and taker_share: their parts of it.
    spread_earned_bps: side * (mid at the fill - price) * qty, and pnl_bps: pnl_total, in 1/10,000 of the turnover.
    The others are told where they are computed.
    """
    unit = quote_unit(instrument)
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
        ("sharpe", course.sharpe, "1"),
        ("max_drawdown", course.max_drawdown, "quote"),
        ("drawdown_duration", course.drawdown_duration, "s"),
    ]


def order_rows(sent: Sent, trades: Trades, instrument: Instrument) -> list[Row]:
    """How many orders were sent and cancelled, and what came of them.

    orders_placed: orders sent; orders_filled: of them, those with a fill, even a partial one; fill_ratio: their part.
    fills: executions. cancels: cancels that were sent. buy_qty, sell_qty: quantity bought, sold.
    """
    fills = trades.ns.size
    return [
        ("orders_placed", sent.placed, "1"),
        ("orders_filled", sent.filled, "1"),
        ("fill_ratio", ratio(sent.filled, sent.placed), "1"),
        ("fills", fills, "1"),
        ("cancels", sent.cancels, "1"),
        ("cancels_per_fill", ratio(sent.cancels, fills), "1"),
        ("buy_qty", quantity(trades, 1, instrument), "base"),
        ("sell_qty", quantity(trades, -1, instrument), "base"),
        ("time_to_first_fill_mean", sent.time_to_first_fill, "s"),
    ]


def account_rows(course: Course) -> list[Row]:
    """How long there were quotes, and what was held for how long.

    quoted_*_share: parts of the time with own quotes at work. inventory_mean, _std, _p05, _p50 and _p95: of the
    position over time. final_inventory, max_abs_inventory: the last, and the largest either way. duration: from the
    first row of `state` to the last.
    """
    return [
        *((f"quoted_{side}_share", value, "1") for side, value in course.quoted.items()),
        ("final_inventory", course.final_inventory, "base"),
        ("max_abs_inventory", course.max_abs_inventory, "base"),
        *((f"inventory_{name}", value, "base") for name, value in course.positions.figures().items()),
        ("duration", max(course.passed_ns, 1) / NS_PER_S, "s"),
    ]


@dataclass(frozen=True)
class Sent:
    """What became of the orders: sent, cancelled, filled; and how long those that were filled had waited, together."""

    placed: int
    cancels: int
    filled: int
    waited_ns: int
    waits: int  # the filled orders of which it is known

    @classmethod
    def of(cls, orders: pl.DataFrame, fills: pl.DataFrame) -> Sent:
        """From the tables."""
        active = orders.filter(pl.col("action") == "PLACE").select("order_id", "active_recv_ns")
        first = fills.group_by("order_id").agg(pl.col("recv_ns").min())
        waits = first.join(active, on="order_id").select(pl.col("recv_ns") - pl.col("active_recv_ns")).to_series()
        return cls(active.height, count(orders, "CANCEL_REQ"), first.height, int(waits.sum()), waits.len())

    @property
    def time_to_first_fill(self) -> float | None:
        """Mean time from an order's activation to its first fill, over the orders that were filled."""
        return self.waited_ns / self.waits / NS_PER_S if self.waits else None


@dataclass(frozen=True)
class Course:
    """The account over time; `over_time` tells each figure."""

    sharpe: float | None
    max_drawdown: float
    drawdown_duration: float
    quoted: dict[str, float | None]
    final_inventory: float
    max_abs_inventory: float
    positions: over_time.Positions
    passed_ns: int

    @classmethod
    def of(cls, state: pl.DataFrame, instrument: Instrument) -> Course:
        """From a `state` table."""
        return cls(
            over_time.sharpe(state, instrument),
            over_time.max_drawdown(state, instrument),
            over_time.drawdown_duration(state),
            over_time.quoted(state),
            state["inventory"][-1],
            float(state["inventory"].abs().to_numpy().max()),
            over_time.Positions.of(state, instrument),
            state["recv_ns"][-1] - state["recv_ns"][0],
        )


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
    first, last = (half_ticks(state["mid"][row], instrument) for row in (0, -1))
    return profit_of(trades, whole_lots(state["inventory"][0], instrument), first, last, instrument)


def profit_of(trades: Trades, lots: int, first_mid2: int, last_mid2: int, instrument: Instrument) -> Profit:
    """The profit of an account that begins with `lots` at the first mid; mids in half ticks."""
    per = Money.of(instrument).per_tick_lot
    account = fold(trades, Account(lots=lots, cost=lots * first_mid2 * per), instrument)
    return Profit(account.realised, account.lots * last_mid2 * per - account.cost, account.fees)


def fold(trades: Trades, account: Account, instrument: Instrument) -> Account:
    """The account after all fills, exactly, in half quanta."""
    per = Money.of(instrument).per_tick_lot
    money = abs(account.cost) + 2 * per * volume(trades)
    if abs(account.lots) + total(trades.lots) < MOST_LOTS and money < MOST_MONEY:
        columns = trades.side, trades.ticks * (2 * per), trades.lots
        lots, cost, realised = (int(part) for part in average_cost(*columns, account.lots, account.cost))
        fees = account.fees + 2 * total(trades.fee)
        return replace(account, lots=lots, cost=cost, realised=account.realised + realised, fees=fees)
    return fold_slowly(trades, account, per)


def fold_slowly(trades: Trades, account: Account, per: int) -> Account:
    """The same with whole numbers of any size."""
    columns = (c.tolist() for c in (trades.side, trades.ticks, trades.lots, trades.fee))
    for side, ticks, lots, fee in zip(*columns, strict=True):
        account = account.fill(side, lots, 2 * ticks * lots * per, 2 * fee)
    return account


@kernel
def average_cost(side: Ints, price: Ints, lots: Ints, held: int, cost: int) -> tuple[int, int, int]:
    """(lots, cost, realised) after all fills, by `Account.fill`; whoever calls sees to it that nothing overflows."""
    realised = 0
    for i in range(side.size):
        closing, released = 0, 0
        if side[i] * held < 0:
            closing = min(lots[i], abs(held))
            each, rest = cost // abs(held), cost % abs(held)
            released = each * closing + rest * closing // abs(held)
        realised -= side[i] * price[i] * closing + released
        cost += side[i] * price[i] * (lots[i] - closing) - released
        held += side[i] * lots[i]
    return held, cost, realised


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
