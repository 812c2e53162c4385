"""Every table of the lake and of the outputs, declared once.

Times are nanoseconds UTC: `recv_ns` is the recorder's clock, `exch_ns` and `trade_ns` the venue's.
Prices and quantities are doubles that print shortest as the venue's own decimal text.
Side and taker are +1 for a buyer, -1 for a seller.
"""

from __future__ import annotations

import polars as pl

from mmlab.core.calib_schemas import (
    CALIBRATION_TABLES,
    COUNT_RULES,
    CURVES,
    FAMILIES,
    FIT_METHODS,
    FITS,
    POINTS,
    QUOTE_SIDES,
    SCORES,
    STABILITY,
    VALIDATION,
    WINDOW_METRICS,
    WINDOWS,
)
from mmlab.core.grid_search_schemas import GRID
from mmlab.core.table import Column, Rule, Table

__all__ = [  # noqa: RUF022 - those of calibration are declared in their own file
    "COUNT_RULES", "CURVES", "FAMILIES", "FIT_METHODS", "FITS", "POINTS", "QUOTE_SIDES", "SCORES", "STABILITY",
    "VALIDATION", "WINDOW_METRICS", "WINDOWS",
]  # fmt: skip

LEVELS = 20  # book levels a side kept in `depth` unless told otherwise

RECV = Column("recv_ns", pl.Int64, "when the message was received, recorder's clock", "ns UTC", low=0)
SEQ = Column("recv_seq", pl.Int64, "number of the message within its run, from 1", low=0)
RUN = Column("run_id", pl.Int64, "recording run: the recorder's clock at its first message", "ms UTC", low=0)
EXCH = Column("exch_ns", pl.Int64, "event time, venue's clock", "ns UTC")
EXCH_OR_NONE = Column("exch_ns", pl.Int64, "event time, venue's clock; null where the venue sends none", "ns UTC", True)
EPOCH = Column(
    "epoch_id", pl.Int64, "counts the stretches of one run in which the book was in sync; 0 is unsynced", low=0
)
SIDE = Column("side", pl.Int8, "+1 bid or buy, -1 ask or sell", values=(1, -1))
PRICE = Column("price", pl.Float64, "price", "quote currency", low=0.0)
QTY = Column("qty", pl.Float64, "quantity", "base currency", low=0.0)


def depth(levels: int = LEVELS) -> Table:
    """The `depth` contract for books kept `levels` deep; level 1 is the touch, deeper ones may be absent."""
    names = [(side, kind, i) for i in range(1, levels + 1) for side in ("bid", "ask") for kind in ("px", "qty")]
    ladder = tuple(
        Column(
            f"{side}_{kind}_{i}",
            pl.Float64,
            f"{'price' if kind == 'px' else 'quantity'} of {side} level {i}",
            "quote currency" if kind == "px" else "base currency",
            nullable=i > 1,
        )
        for side, kind, i in names
    )
    update = Column("update_id", pl.Int64, "the venue's id of the last update in the book")
    return Table(
        "depth",
        "the top levels of the book after one update, only while synced and two-sided",
        (RECV, EXCH_OR_NONE, SEQ, RUN, EPOCH, update, *ladder),
        key=("recv_ns", "recv_seq"),
        order=("recv_ns", "recv_seq"),
        rules=(Rule("book is not crossed", pl.col("bid_px_1") < pl.col("ask_px_1")),),
    )


DEPTH = depth()

DIFFS = Table(
    "diffs",
    "one changed level of one raw book update (an update that changes none has one row of side 0)",
    (
        RECV,
        EXCH,
        SEQ,
        RUN,
        EPOCH,
        Column("first_id", pl.Int64, "first update id in the message"),
        Column("last_id", pl.Int64, "last update id in the message"),
        Column("prev_id", pl.Int64, "last id of the message before, where the venue sends it", nullable=True),
        Column("side", pl.Int8, "+1 bid, -1 ask, 0 nothing changed", values=(1, -1, 0)),
        Column("price", pl.Float64, "level's price", "quote currency", nullable=True),
        Column("qty", pl.Float64, "level's new quantity; 0 removes it", "base currency", nullable=True),
    ),
    key=("recv_ns", "recv_seq", "side", "price"),
)

SNAPSHOTS = Table(
    "snapshots",
    "one level of a REST snapshot of the book",
    (
        RECV,
        SEQ,
        RUN,
        Column("event_id", pl.Int64, "row of `events` that loaded it"),
        Column("last_update_id", pl.Int64, "the venue's id of the last update in the snapshot"),
        SIDE,
        PRICE,
        QTY,
    ),
    key=("recv_ns", "recv_seq", "side", "price"),
)


def _prints(name: str, row: str, id_doc: str) -> Table:
    return Table(
        name,
        row,
        (
            RECV,
            EXCH,
            Column("trade_ns", pl.Int64, "time of the match, venue's clock", "ns UTC"),
            SEQ,
            RUN,
            Column("trade_id", pl.Int64, id_doc),
            PRICE,
            QTY,
            Column("taker", pl.Int8, "+1 the buyer took, -1 the seller took", values=(1, -1)),
            Column("source", pl.String, "ws: received live; rest: filled in later", values=("ws", "rest")),
        ),
        key=("recv_ns", "recv_seq"),
        order=("recv_ns", "recv_seq"),
        counters=("recv_seq", "trade_id"),
        rules=(Rule("price and qty are above 0", (pl.col("price") > 0) & (pl.col("qty") > 0)),),
    )


TRADES = _prints("trades", "one print of the trade tape", "the venue's trade id")
AGG_TRADES = _prints("agg_trades", "one aggregated print of the trade tape", "the venue's aggregate id")

BOOK_TICKER = Table(
    "book_ticker",
    "best bid and ask, as the venue pushed them",
    (
        RECV,
        EXCH_OR_NONE,
        SEQ,
        RUN,
        Column("update_id", pl.Int64, "the venue's book update id"),
        Column("bid_px", pl.Float64, "best bid", "quote currency"),
        Column("bid_qty", pl.Float64, "quantity at the best bid", "base currency"),
        Column("ask_px", pl.Float64, "best ask", "quote currency"),
        Column("ask_qty", pl.Float64, "quantity at the best ask", "base currency"),
    ),
    key=("recv_ns", "recv_seq"),
    order=("recv_ns", "recv_seq"),
)

EVENT_KINDS = (
    "run_start",
    "run_stop",
    "window_open",
    "window_close",
    "connect",
    "disconnect",
    "handover",
    "snapshot_request",
    "snapshot_loaded",
    "snapshot_failed",
    "snapshot_discarded",
    "sync",
    "resync",
    "gap",
    "backfill",
    "crash_recovered",
    "clock_step",
    "status_change",
    "schema_drift",
    "quarantine",
    "one_sided",
    "rest_wait",
    "silence",
    "overload",
    "disk_low",
)

EVENTS = Table(
    "events",
    "one entry of the recording ledger",
    (
        RECV,
        Column("event_id", pl.Int64, "number of the entry within its run, from 1", low=1),
        RUN,
        EPOCH,
        Column("kind", pl.String, "what happened", values=EVENT_KINDS),
        Column("details", pl.String, "the particulars, a JSON object"),
    ),
    key=("run_id", "event_id"),
    order=("run_id", "event_id"),
)

GAPS = Table(
    "gaps",
    "a declared hole: what is missing between two instants",
    (
        Column("from_ns", pl.Int64, "last message received before the hole", "ns UTC", low=0),
        Column("to_ns", pl.Int64, "first message received after it", "ns UTC", low=0),
        RUN,
        Column("stream", pl.String, "depth, trade, aggTrade or bookTicker"),
        Column("first_missing", pl.Int64, "first id that never came", nullable=True),
        Column("last_missing", pl.Int64, "last id that never came", nullable=True),
        Column("reason", pl.String, "why it is known to be missing"),
    ),
    order=("from_ns",),
    rules=(Rule("a hole ends after it starts", pl.col("from_ns") <= pl.col("to_ns")),),
)

QUARANTINE = Table(
    "quarantine",
    "one input line that could not be read, kept byte for byte",
    (
        RUN,
        Column("source", pl.String, "name of the input file, or connection of the recorder"),
        Column("line_no", pl.Int64, "line of the file, from 1; recorded: recv_seq", low=1),
        Column("reason", pl.String, "what was wrong with it"),
        Column("raw", pl.Binary, "the line as it stood"),
    ),
    key=("run_id", "source", "line_no"),
)

LATENCY_KINDS = ("venue", "journal")

LATENCY = Table(
    "latency",
    "how long messages took within one minute of a recording, by stream",
    (
        RECV,
        SEQ,
        RUN,
        Column("stream", pl.String, "depth, trade, aggTrade or bookTicker; all for the journal"),
        Column(
            "kind",
            pl.String,
            "venue: event time to receipt, by two clocks; journal: receipt to write",
            "",
            values=LATENCY_KINDS,
        ),
        Column("n", pl.Int64, "messages", low=1),
        *(Column(q, pl.Int64, f"{q} of the latency", "ns") for q in ("p50", "p90", "p99", "p999")),
        Column("max", pl.Int64, "the largest", "ns"),
    ),
    key=("recv_ns", "recv_seq", "stream", "kind"),
    order=("recv_ns", "recv_seq"),
)

BARS = Table(
    "bars",
    "one candle",
    (
        Column("open_ns", pl.Int64, "start of the bar", "ns UTC", low=0),
        *(Column(n, pl.Float64, f"{n} price", "quote currency", low=0.0) for n in ("open", "high", "low", "close")),
        Column("volume", pl.Float64, "traded quantity", "base currency", low=0.0),
        Column("buy_volume", pl.Float64, "of which buyers took", "base currency", nullable=True, low=0.0),
        Column("n_trades", pl.Int64, "prints in the bar", nullable=True, low=0),
    ),
    key=("open_ns",),
    order=("open_ns",),
    rules=(
        Rule("prices and volumes are finite", pl.all_horizontal(pl.col(pl.Float64).is_finite().fill_null(True))),
        Rule("prices are above 0", pl.col("low") > 0),
        Rule("high is the highest, low the lowest", (pl.col("high") >= pl.max_horizontal("open", "close", "low"))
             & (pl.col("low") <= pl.min_horizontal("open", "close"))),
        Rule("buy_volume is part of volume", (pl.col("buy_volume") <= pl.col("volume")).fill_null(True)),
    ),
)  # fmt: skip

FUNDING = Table(
    "funding",
    "one funding settlement",
    (
        Column("ts_ns", pl.Int64, "settlement time, venue's clock", "ns UTC", low=0),
        Column("rate", pl.Float64, "paid by longs to shorts, as a fraction of the notional", "1"),
    ),
    key=("ts_ns",),
    order=("ts_ns",),
    rules=(Rule("rate is finite", pl.col("rate").is_finite()),),
)

ORDER_ACTIONS = (
    "PLACE", "REJECT", "SKIP", "CANCEL_REQ", "CANCEL_ACK", "CANCEL_REJECT", "EXPIRE", "FILL", "CLOSE_FILLED",
)  # fmt: skip
FILL_REASONS = ("trade_cross", "price_cross", "poisson", "taker")
ORDER_STATUSES = ("OPEN", "CANCEL_PENDING", "CANCELLED", "EXPIRED", "FILLED", "REJECTED", "SKIPPED")

ORDERS = Table(
    "orders",
    "one step in the life of an order",
    (
        Column("recv_ns", pl.Int64, "when it happened", "ns UTC"),
        Column("order_id", pl.Int64, "number of the order within the run, from 1; 0 for a quote never sent", low=0),
        Column("action", pl.String, "what happened", values=ORDER_ACTIONS),
        Column("status", pl.String, "the order's status after it", values=ORDER_STATUSES),
        SIDE,
        PRICE,
        QTY,
        Column("remaining_qty", pl.Float64, "not yet filled", "base currency", low=0.0),
        Column("active_recv_ns", pl.Int64, "from when it can be filled", "ns UTC"),
        Column("expire_recv_ns", pl.Int64, "when its time to live ends; null for GTC", "ns UTC", True),
        Column("cancel_req_ns", pl.Int64, "when its cancel was sent", "ns UTC", True),
        Column("cancel_effective_ns", pl.Int64, "when its cancel takes effect", "ns UTC", True),
        Column("reject_reason", pl.String, "why it was refused or never sent, else empty"),
        Column("cancel_reason", pl.String, "why it was cancelled, else empty"),
    ),
    order=("recv_ns",),
)

FILLS = Table(
    "fills",
    "one execution of an own order",
    (
        Column("recv_ns", pl.Int64, "when it was filled", "ns UTC"),
        Column("order_id", pl.Int64, "the order", low=1),
        SIDE,
        PRICE,
        QTY,
        Column("fee", pl.Float64, "fee paid (negative: rebate received)", "quote currency"),
        Column("liquidity", pl.String, "maker or taker", values=("maker", "taker")),
        Column("reason", pl.String, "the fill model's rule that filled it", values=FILL_REASONS),
        Column("mid", pl.Float64, "mid at the fill", "quote currency"),
    ),
    order=("recv_ns",),
)

STATE = Table(
    "state",
    "the account, at every quote decision and after every fill",
    (
        Column("recv_ns", pl.Int64, "when", "ns UTC"),
        Column("inventory", pl.Float64, "position", "base currency"),
        Column("cash", pl.Float64, "cash after fees", "quote currency"),
        Column("mid", pl.Float64, "mid of the book", "quote currency"),
        Column("mtm_value", pl.Float64, "cash + inventory * mid", "quote currency"),
        Column("open_orders", pl.Int64, "own orders that may still be filled", low=0),
        Column("bid_px", pl.Float64, "own best bid at work", "quote currency", True),
        Column("ask_px", pl.Float64, "own best ask at work", "quote currency", True),
    ),
    order=("recv_ns",),
)

METRICS = Table(
    "metrics",
    "one figure of a run",
    (
        Column("metric", pl.String, "name"),
        Column("value", pl.Float64, "value; null where the run does not define it", nullable=True),
        Column("unit", pl.String, "unit"),
    ),
    key=("metric",),
)

SWEEP = Table(
    "sweep",
    "one parameter or one metric of one run of a sweep",
    (
        Column("number", pl.Int64, "number of the run within the sweep, from 1, in the order of the grid", low=1),
        Column("role", pl.String, "parameter: what was set; metric: what came of it", values=("parameter", "metric")),
        Column("name", pl.String, "name of the parameter or metric"),
        Column("value", pl.Float64, "as a number; null if it is none", nullable=True),
        Column("text", pl.String, "a parameter's value as a --sweep writes it; null for a metric", nullable=True),
        Column("unit", pl.String, "a metric's unit; empty for a parameter"),
    ),
    key=("number", "role", "name"),
    order=("number",),
)

FILL_MODELS = Table(
    "fill_models",
    "one setting or one figure of a run of the same strategy under one of several fill models",
    (
        Column("number", pl.Int64, "number of the fill model, from 1, in the order of the comparison", low=1),
        Column(
            "role",
            pl.String,
            "parameter: what was set; metric: as in `metrics`; part: of the profit, as in `attribution` at 5 s",
            values=("parameter", "metric", "part"),
        ),
        Column("name", pl.String, "name of the parameter, metric or part"),
        Column("value", pl.Float64, "as a number; null if it is none", nullable=True),
        Column("text", pl.String, "a parameter's value; null for a metric or part", nullable=True),
        Column("unit", pl.String, "unit; empty for a parameter"),
    ),
    key=("number", "role", "name"),
    order=("number",),
)

HORIZONS_S = (1, 5, 30, 60)
COMPONENTS = ("spread_earned", "adverse_selection", "inventory", "fees")

ATTRIBUTION = Table(
    "attribution",
    "one part of a run's profit, as seen at one horizon; a horizon's rows of side both add up to pnl_total",
    (
        Column("horizon_s", pl.Int64, "how long after a fill its adverse selection ends", "s", low=1),
        Column(
            "side",
            pl.String,
            "whose part: fills that bought, that sold, the position held at the start, or all of these",
            values=("bid", "ask", "opening", "both"),
        ),
        Column(
            "component",
            pl.String,
            "the mid less the price at the fill, the mid's move within the horizon, its move after it, -fees",
            values=COMPONENTS,
        ),
        Column("value", pl.Float64, "profit, below 0: loss", "quote currency"),
        Column("fills", pl.Int64, "fills behind it", low=0),
        Column("fills_cut", pl.Int64, "of them, those less than the horizon before the end: held to the end", low=0),
    ),
    key=("horizon_s", "side", "component"),
    order=("horizon_s",),
)

MARKOUTS = Table(
    "markouts",
    "one fill and where the mid went after it, in profit of one unit",
    (
        Column("recv_ns", pl.Int64, "when it was filled", "ns UTC"),
        Column("order_id", pl.Int64, "the order", low=1),
        SIDE,
        PRICE,
        QTY,
        Column("mid", pl.Float64, "mid at the fill", "quote currency"),
        Column("spread_earned", pl.Float64, "side * (mid - price)", "quote currency"),
        *(
            Column(
                f"markout_{h}s",
                pl.Float64,
                f"side * (mid {h} s after the fill - mid); null where the run ends before",
                "quote currency",
                nullable=True,
            )
            for h in HORIZONS_S
        ),
    ),
    order=("recv_ns",),
)

LAKE_TABLES = (
    DEPTH, DIFFS, SNAPSHOTS, TRADES, AGG_TRADES, BOOK_TICKER, EVENTS, GAPS, QUARANTINE, LATENCY, BARS, FUNDING,
)  # fmt: skip
RUN_TABLES = (*CALIBRATION_TABLES, ORDERS, FILLS, STATE, METRICS, ATTRIBUTION, MARKOUTS, SWEEP, FILL_MODELS, *GRID)
TABLES = {table.name: table for table in LAKE_TABLES + RUN_TABLES}
