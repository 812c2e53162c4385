"""Where everything lies in the grid's arrays, what its codes mean, and the kernels that write rows."""

from __future__ import annotations

import dataclasses
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mmlab.core.instrument import Grid as Steps
from mmlab.core.kernels import inner
from mmlab.grid.params import FILLS, MOST_LEVELS, MOST_LOTS, MOST_TRADES, GridParams, VenueParams

Floats = npt.NDArray[np.float64]
At = tuple[int, int]  # bar and candle

LONG, SHORT = 0, 1  # sides; the sign of side s is 1 - 2 s
# P: the parameters
(GRID_SPACING_K, LEVELS, MAX_ORDERS, SPACING_FLOOR, ORDER_PCT, REGEN_DRIFT, FLOOR_SCALE, TP_CONCENTRATION, ARITHMETIC,
 GAMMA, KAPPA, MAX_LOTS, HORIZON, TRAILING, TRAILING_ER, TRAILING_RESERVE, TRAILING_CAP, BREAKER, HALT_Z, RESUME_Z,
 MAX_AGE_MS, DEVIANCE, GAP_MULT, FUNDING_RATIO, OFFSET_RATIO, PRUNE_COOLDOWN, MAX_DRAWDOWN, Z_CONFIDENCE, SL_MULT,
 MAX_POSITION, FUNDING_BIAS, CAPITAL, MAKER, TAKER, SLIPPAGE, LEVERAGE, SHORTS, STOP_BARS, STOP_THRESH, LOW_VOLUME,
 HARVEST, KELLY_WINDOW, TICK_NUM, TICK_DEN, LOT_NUM, LOT_DEN, MIN_NOTIONAL, LIQUIDATION_FEE, THROUGH, PEER, WARM_UP,
 RECORD, P_WIDTH) = range(53)  # fmt: skip
# S: the state between bars; where a name ends with _AT there is one for each side
(WALLET, PEAK, ANCHOR, RESERVATION, REFERENCE, SPACING_AT, _, HAS_GRID, TRAILED, GRID_REGIME, FILLED_SINCE, DUE, HALTED,
 BLOCKED, RUINED, STOP_COUNT, LAST_STOP, COOL_UNTIL, PRUNED_AT, _, STAGED_AT, _, KEPT_AT, _, LOTS_AT, _, ENTRIES_AT, _,
 EXITS_AT, _, STOP_AT, _, STOP_ID_AT, _, STOPPED_AT, _, REGIME, NEXT_ID, N_FILLS, N_ORDERS, N_VERDICTS,
 TRADES, WINS, WON, LOST, KELLY_AT, _, _, KELLY_NEXT_AT, _, _,
 MARGIN, RESTING, ROOM_AT, _, OPEN_AT, _, BEFORE_AT, _, SAFE, LEFT_AT, _, COST_AT, _, COUNT_AT) = range(65)  # fmt: skip
# one lot, one entry or take-profit, one order for the market, one bar (X), one candle (C)
LOT_PRICE, LOT_QTY, LOT_MS, LOT_PAID, LOT_FEE, LOT_CLASS, LOT_NET, LOT_WIDTH = range(8)
AT, QTY, ID, LEVEL, ORDER_FIELDS = range(5)
BY, MARKET_QTY, MARKET_LOT, MARKET_FIELDS = range(4)
(CLOSE, VOLUME, MEAN_VOLUME, ATR, Z, SIGMA, KAMA, ER, IN_FORCE, RATE, CLOSE_MS, FIRST_CANDLE, X_WIDTH) = range(13)
C_OPEN, C_HIGH, C_LOW, C_CLOSE, C_FUNDING, C_MS, C_WIDTH = range(7)

LABELS = (
    "", "BUY_OPEN_LONG", "SELL_OPEN_SHORT", "SELL_CLOSE_LONG", "BUY_CLOSE_SHORT", "STOP_LONG", "STOP_SHORT",
    "PRUNE_VAR_WARNING", "PRUNE_DEVIANCE", "PRUNE_OLDEST", "PRUNE_GAP", "PRUNE_FUNDING", "PRUNE_OFFSET", "LIQUIDATION",
    "FINAL_CLOSE", "FUNDING", "INSURANCE",
)  # fmt: skip
(NOTHING, OPEN_LONG, OPEN_SHORT, CLOSE_LONG, CLOSE_SHORT, STOP_LONG, STOP_SHORT, VAR_WARNING, PRUNE_DEVIANCE,
 PRUNE_OLDEST, PRUNE_GAP, PRUNE_FUNDING, PRUNE_OFFSET, LIQUIDATION, FINAL_CLOSE, FUNDING,
 INSURANCE) = range(17)  # fmt: skip
GUARDS = (
    "HALT", "RESUME", "STOP_STAGE_1", "STOP_STAGE_2", *LABELS[VAR_WARNING : PRUNE_OFFSET + 1], "VAR_BLOCK", "TRAILING",
    "NEW_GRID", "TOO_SMALL", "TOO_MANY", "COOLDOWN", "RUINED", "LIQUIDATED",
    "NO_ROOM",
)  # fmt: skip
(HALT, RESUME, STAGE_1, STAGE_2, GUARD_PRUNE, _, _, _, _, _, VAR_BLOCK, TRAIL, NEW_GRID, TOO_SMALL, TOO_MANY, COOLDOWN,
 RUIN, LIQUIDATED, NO_ROOM) = range(19)  # fmt: skip
S_WIDTH = COUNT_AT + len(LABELS) + len(GUARDS)
MOST_CANDLES = 60  # of one bar
ROLES = ("ENTRY", "TAKE_PROFIT", "STOP")
ENTRY, TAKE_PROFIT, STOP = range(3)
ENDS = ("", "FILLED", "REPLACED", "WITHDRAWN", "CLOSED")
PLACED, FILLED, REPLACED, WITHDRAWN, CLOSED = range(5)
# rows made: fills, what became of orders, what guards did, one line a bar
FILL_WIDTH = 12  # bar, candle, side, label, price, qty, fee, pnl, maker, order id, wallet after, regime
ORDER_WIDTH = 8  # id, what (PLACED or how it ended), bar (candle if FILLED or CLOSED), side, role, level, price, qty
VERDICT_WIDTH = 5  # bar, guard, side, value, limit
EQUITY_WIDTH = 10  # wallet, equity, long qty, long mean, short qty, short mean, regime, halted, entries, exits


# rows of one bar, at most: every level of both sides, every lot, and what sixty candles bring by themselves
BAR_FILLS = 4 * (MOST_LEVELS + 1) + 2 * MOST_LOTS + 8 + 6 * MOST_CANDLES
BAR_ORDERS = 16 * (MOST_LEVELS + 1) + 16
BAR_VERDICTS = 32 + MOST_CANDLES
WORLD = np.dtype(
    [
        ("P", np.float64, (P_WIDTH,)),  # parameters
        ("S", np.float64, (S_WIDTH,)),  # state
        ("lots", np.float64, (2, MOST_LOTS + 1, LOT_WIDTH)),
        ("entries", np.float64, (2, MOST_LEVELS, ORDER_FIELDS)),
        ("exits", np.float64, (2, MOST_LEVELS, ORDER_FIELDS)),
        ("market", np.float64, (2, MARKET_FIELDS)),
        ("kelly", np.float64, (3, MOST_TRADES)),  # profits of trades, by class of regime
        ("fills", np.float64, (BAR_FILLS, FILL_WIDTH)),  # rows of the bar at hand
        ("orders", np.float64, (BAR_ORDERS, ORDER_WIDTH)),
        ("verdicts", np.float64, (BAR_VERDICTS, VERDICT_WIDTH)),
    ]
)


class World(Protocol):
    """One record of type WORLD, as kernels see it: a pointer to all of a run's state."""

    P: Floats
    S: Floats
    lots: Floats
    entries: Floats
    exits: Floats
    market: Floats
    kelly: Floats
    fills: Floats
    orders: Floats
    verdicts: Floats


def pack(params: GridParams, venue: VenueParams, record: bool) -> Floats:
    """Shape (P_WIDTH,) parameters as the kernels read them."""
    p = params
    tick, lot = (_steps(text, name) for text, name in ((venue.tick_size, "tick size"), (venue.lot_size, "lot size")))
    values = (
        p.grid_spacing_k, p.grid_levels, p.max_orders, p.spacing_floor, p.order_pct, p.regen_drift_mult,
        p.adaptive_floor_scale, p.tp_concentration, p.grid_mode == "arithmetic", p.gamma, p.kappa,
        p.max_inventory_per_side, p.as_time_horizon, p.trailing_enabled, p.trailing_activation_er,
        p.trailing_reserve_pct, p.trailing_cap_price, p.circuit_breaker_enabled, p.halt_z_threshold,
        p.resume_z_threshold, p.max_position_age_hours * 3_600_000, p.deviance_sigma, p.gap_prune_mult,
        p.funding_cost_ratio, p.offset_prune_ratio, p.prune_cooldown_bars, p.max_drawdown_pct,
        ndtri(p.var_confidence), p.atr_sl_mult, p.max_position_pct, p.funding_threshold, p.initial_capital,
        p.fee_maker, p.fee_taker, p.slippage, p.leverage, p.allow_short, p.stop_cooldown_bars, p.stop_cooldown_thresh,
        p.low_volume_threshold, p.funding_harvest_threshold, p.kelly_window, *tick, *lot, venue.min_notional,
        venue.liquidation_fee, venue.fills == FILLS[1], venue.fills == FILLS[2], warm_up(p), record,
    )  # fmt: skip
    return np.array(values, np.float64)


def _steps(text: str, name: str) -> tuple[float, float]:
    """Numerator and denominator of a step; (0, 1): none."""
    if text in ("0", "0.0"):
        return 0.0, 1.0
    steps = Steps.of(text, name)
    return float(steps.num), float(steps.den)


def warm_up(params: GridParams) -> int:
    """The first bar at whose close anything is decided, counted from 0."""
    p = params
    return max(p.regime_timeframe_mult * (p.kama_period + 1), 2 * p.adx_period, p.atr_period + 1, 20)


def world(P: Floats, capital: float) -> World:
    """A fresh account: one record of type WORLD, the whole state of a run, as plain bytes."""
    made = cast(World, np.rec.array(np.zeros(1, WORLD))[0])
    S = made.S
    made.P[:] = P
    S[WALLET] = S[PEAK] = capital
    S[DUE] = 1.0
    S[LAST_STOP] = S[PRUNED_AT] = S[PRUNED_AT + 1] = -1e15
    S[COOL_UNTIL] = -1.0
    return made


assert len(dataclasses.fields(GridParams)) == 53  # a parameter more: pack it, and give it an effect


@inner
def note_fill(
    w: World,
    at: At,
    side: int,
    label: int,
    price: float,
    qty: float,
    fee: float,
    pnl: float,
    maker: float,
    order: float,
) -> None:
    """Count a fill or a flow; `at`: bar and candle."""
    S = w.S
    S[COUNT_AT + label] += 1
    if w.P[RECORD]:
        row = w.fills[int(S[N_FILLS])]
        row[0], row[1], row[2], row[3] = at[0], at[1], 1 - 2 * side, label
        row[4], row[5], row[6], row[7] = price, qty, fee, pnl
        row[8], row[9], row[10], row[11] = maker, order, S[WALLET], S[REGIME]
        S[N_FILLS] += 1


@inner
def note_order(
    w: World, what: int, when: int, side: int, role: int, level: float, price: float, qty: float, order: float
) -> None:
    """Write what became of an order."""
    if w.P[RECORD]:
        row = w.orders[int(w.S[N_ORDERS])]
        row[0], row[1], row[2], row[3] = order, what, when, 1 - 2 * side
        row[4], row[5], row[6], row[7] = role, level, price, qty
        w.S[N_ORDERS] += 1


@inner
def note_verdict(w: World, bar: int, guard: int, sign: float, value: float, limit: float) -> None:
    """Count what a guard did, and why; sign 0: both sides."""
    S = w.S
    S[COUNT_AT + len(LABELS) + guard] += 1
    if w.P[RECORD]:
        row = w.verdicts[int(S[N_VERDICTS])]
        row[0], row[1], row[2], row[3], row[4] = bar, guard, sign, value, limit
        S[N_VERDICTS] += 1


@inner
def new_id(w: World) -> float:
    """The next order's number, from 1."""
    w.S[NEXT_ID] += 1
    return float(w.S[NEXT_ID])
