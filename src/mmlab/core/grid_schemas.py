"""The tables of a grid run, declared once; times are nanoseconds UTC of the venue's candles."""

from __future__ import annotations

import polars as pl

from mmlab.core.table import Column, Rule, Table

POSITION = Column("side", pl.Int8, "position: +1 long, -1 short", values=(1, -1))
EITHER = Column("side", pl.Int8, "position: +1 long, -1 short, 0 both", values=(1, -1, 0))
PRICE = Column("price", pl.Float64, "price", "quote currency", low=0.0)
QTY = Column("qty", pl.Float64, "quantity", "base currency", low=0.0)
COIN = Column("coin", pl.String, "symbol")
CANDLE = Column("candle_ns", pl.Int64, "when the candle opened in which it happened", "ns UTC", low=0)
OPEN = Column("open_ns", pl.Int64, "when the bar opened", "ns UTC", low=0)

GRID_ROLES = ("ENTRY", "TAKE_PROFIT", "STOP")
GRID_STATUSES = ("OPEN", "FILLED", "REPLACED", "WITHDRAWN", "CLOSED")
GRID_LABELS = (
    "BUY_OPEN_LONG", "SELL_OPEN_SHORT", "SELL_CLOSE_LONG", "BUY_CLOSE_SHORT", "STOP_LONG", "STOP_SHORT",
    "PRUNE_VAR_WARNING", "PRUNE_DEVIANCE", "PRUNE_OLDEST", "PRUNE_GAP", "PRUNE_FUNDING", "PRUNE_OFFSET", "LIQUIDATION",
    "FINAL_CLOSE",
)  # fmt: skip
GRID_FLOW_KINDS = ("FUNDING", "INSURANCE")
GRID_REGIMES_CODES = (0, 1, -1, 2, -2)

GRID_ORDERS = Table(
    "grid_orders",
    "one order that rested at the venue",
    (
        COIN,
        Column("order_id", pl.Int64, "number of the order within its coin, from 1", low=1),
        Column("placed_ns", pl.Int64, "close of the bar at which it was decided; live from then on", "ns UTC", low=0),
        Column(
            "ended_ns",
            pl.Int64,
            "close of the bar that took it away, or open of the candle that filled it; null: still resting",
            "ns UTC",
            nullable=True,
        ),
        POSITION,
        Column("role", pl.String, "what it is for", values=GRID_ROLES),
        Column("level", pl.Int64, "level of the grid, from 1; 0 for stops", low=0),
        PRICE,
        QTY,
        Column("status", pl.String, "how it ended; CLOSED: a liquidation took it", values=GRID_STATUSES),
    ),
    key=("coin", "order_id"),
    order=("coin", "order_id"),
)  # fmt: skip

GRID_FILLS = Table(
    "grid_fills",
    "one fill",
    (
        COIN,
        CANDLE,
        Column("seq", pl.Int64, "number of the fill within its coin, from 1", low=1),
        POSITION,
        Column("label", pl.String, "what happened", values=GRID_LABELS),
        PRICE,
        QTY,
        Column("fee", pl.Float64, "fee paid", "quote currency"),
        Column("pnl", pl.Float64, "profit of what was closed, before the fee; 0 for openings", "quote currency"),
        Column("liquidity", pl.String, "whose fee was paid", values=("maker", "taker")),
        Column("order_id", pl.Int64, "the order that filled; null for market orders", "", True),
        Column("wallet", pl.Float64, "wallet after it", "quote currency"),
        Column("regime", pl.Int8, "regime in force", values=GRID_REGIMES_CODES),
    ),
    key=("coin", "seq"),
    order=("coin", "seq"),
)  # fmt: skip

GRID_FLOWS = Table(
    "grid_flows",
    "one cash flow that is no fill",
    (
        COIN,
        CANDLE,
        Column(
            "flow", pl.String, "funding, or what the insurance fund pays after a liquidation", values=GRID_FLOW_KINDS
        ),
        EITHER,
        Column(
            "price", pl.Float64, "price that the funding was settled at; null for insurance", "quote currency", True
        ),
        Column("qty", pl.Float64, "position that it was settled on; null for insurance", "base currency", True),
        Column("amount", pl.Float64, "received; below 0: paid", "quote currency"),
    ),
    order=("coin", "candle_ns"),
)  # fmt: skip

GRID_EQUITY = Table(
    "grid_equity",
    "the account at the close of one bar",
    (
        COIN,
        OPEN,
        Column("close", pl.Float64, "closing price", "quote currency", low=0.0),
        Column("wallet", pl.Float64, "money without open positions", "quote currency"),
        Column("equity", pl.Float64, "wallet and unrealised profit", "quote currency"),
        Column("long_qty", pl.Float64, "long position", "base currency", low=0.0),
        Column("long_mean", pl.Float64, "its mean entry price; null when flat", "quote currency", True),
        Column("short_qty", pl.Float64, "short position", "base currency", low=0.0),
        Column("short_mean", pl.Float64, "its mean entry price; null when flat", "quote currency", True),
        Column("entries", pl.Int64, "entries that rest after the bar's decision", low=0),
        Column("exits", pl.Int64, "take-profits that rest after the bar's decision", low=0),
        Column("halted", pl.Boolean, "the circuit breaker is open"),
        Column("blocked", pl.Boolean, "the value at risk allows no entries"),
    ),
    key=("coin", "open_ns"),
    order=("coin", "open_ns"),
)

GRID_VERDICTS = Table(
    "grid_verdicts",
    "one thing that a guard did, and why",
    (
        COIN,
        Column(
            "decided_ns",
            pl.Int64,
            "close of the bar; for LIQUIDATED the close of the bar in which it happened",
            "ns UTC",
            low=0,
        ),
        Column("guard", pl.String, "what it did"),
        EITHER,
        Column("value", pl.Float64, "what was measured"),
        Column("threshold", pl.Float64, "what it was measured against"),
    ),
    order=("coin", "decided_ns"),
)  # fmt: skip

GRID_REGIMES = Table(
    "grid_regimes",
    "what was known at the close of one bar",
    (
        COIN,
        OPEN,
        Column("regime", pl.Int8, "in force: 0 noise, +1/-1 trend, +2/-2 breakout", values=GRID_REGIMES_CODES),
        Column("er", pl.Float64, "efficiency ratio of the higher timeframe", "1"),
        Column("kama", pl.Float64, "KAMA of the higher timeframe", "quote currency"),
        Column("atr", pl.Float64, "average true range", "quote currency"),
        Column("adx", pl.Float64, "average directional index", "1"),
        Column("z", pl.Float64, "distance from the mean of 20 bars", "ATR"),
        Column("sigma", pl.Float64, "standard deviation of log returns of a bar", "1"),
        Column("funding_rate", pl.Float64, "last settled funding rate", "1"),
    ),
    key=("coin", "open_ns"),
    order=("coin", "open_ns"),
)

GRID_METRICS = Table(
    "grid_metrics",
    "one figure of a grid run",
    (
        Column("coin", pl.String, "symbol, or PORTFOLIO: all coins of the run in one account each, summed"),
        Column("metric", pl.String, "name"),
        Column("value", pl.Float64, "value; null where the run does not define it", nullable=True),
        Column("unit", pl.String, "unit"),
    ),
    key=("coin", "metric"),
    rules=(Rule("named", pl.col("metric").str.len_chars() > 0),),
)

GRID_TABLES = (
    GRID_ORDERS, GRID_FILLS, GRID_FLOWS, GRID_EQUITY, GRID_VERDICTS, GRID_REGIMES, GRID_METRICS,
)  # fmt: skip
