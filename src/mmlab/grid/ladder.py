"""Laying a grid: its spacing and skew, the entries on it, the take-profits, and taking them away."""

from __future__ import annotations

import math

from mmlab.core.kernels import inner
from mmlab.grid.layout import (
    ANCHOR,
    AT,
    ATR,
    BEFORE_AT,
    BY,
    CLOSE,
    COOL_UNTIL,
    ENTRIES_AT,
    ENTRY,
    ER,
    EXITS_AT,
    FLOOR_SCALE,
    FUNDING_BIAS,
    GAMMA,
    GRID_SPACING_K,
    HARVEST,
    HORIZON,
    ID,
    KAPPA,
    LEFT_AT,
    LEVEL,
    LEVELS,
    LEVERAGE,
    LOT_DEN,
    LOT_NUM,
    LOT_PRICE,
    LOT_QTY,
    LOTS_AT,
    LOW_VOLUME,
    MARGIN,
    MARKET_LOT,
    MARKET_QTY,
    MAX_LOTS,
    MAX_ORDERS,
    MAX_POSITION,
    MEAN_VOLUME,
    MIN_NOTIONAL,
    NO_ROOM,
    OPEN_AT,
    ORDER_PCT,
    PLACED,
    QTY,
    RATE,
    REFERENCE,
    REGIME,
    REPLACED,
    RESERVATION,
    RESTING,
    ROOM_AT,
    SHORTS,
    SIGMA,
    SPACING_AT,
    SPACING_FLOOR,
    TAKE_PROFIT,
    TICK_DEN,
    TICK_NUM,
    TOO_MANY,
    TOO_SMALL,
    TP_CONCENTRATION,
    TRAILED,
    TRAILING_RESERVE,
    VOLUME,
    Floats,
    World,
    new_id,
    note_order,
    note_verdict,
)  # fmt: skip
from mmlab.grid.levels import funding_bias, kelly_share, next_level, rounded, spread, tilt, whole_lots
from mmlab.grid.positions import DUST, held

QUIET = 0.7  # of the cap in thin markets
FORGIVING = 1 - 1e-9
MOST_SKEW = 0.5  # of the anchor


@inner
def left(w: World, side: int) -> tuple[float, float]:
    """Quantity and cost of what a side will hold once its order for the market is done."""
    order = w.market[side]
    sold, lot = 0.0, -1
    if order[BY] > 0:
        sold, lot = order[MARKET_QTY], int(order[MARKET_LOT])
    qty, cost = 0.0, 0.0
    dust = DUST * sold
    for k in range(int(w.S[LOTS_AT + side])):
        q = w.lots[side, k, LOT_QTY]
        if lot >= 0:
            q = 0.0 if k == lot else q
        elif sold > dust:
            part = min(sold, q)
            sold -= part
            q = q - part if q - part > dust else 0.0
        qty += q
        cost += q * w.lots[side, k, LOT_PRICE]
    return qty, cost


@inner
def lay_grid(w: World, row: Floats, money: float, anchor: float, trailed: float) -> None:
    """Set anchor, spacings and reservation price of a new grid."""
    P, S = w.P, w.S
    price, atr, sigma = row[CLOSE], row[ATR], row[SIGMA]
    floor = max(P[SPACING_FLOOR], atr / price * P[FLOOR_SCALE])
    base = max(P[GRID_SPACING_K] * atr, floor * price)
    against, along = 1.0 + row[ER], max(0.5, 1.0 - row[ER] / 2.0)
    best = price * spread(P[GAMMA], sigma, P[HORIZON], P[KAPPA])
    for side in range(2):
        trend = S[REGIME] if side == 0 else -S[REGIME]
        S[SPACING_AT + side] = max(best, base * (along if trend > 0 else against if trend < 0 else 1.0))
    q = (held(w, 0) - held(w, 1)) * price / (P[MAX_POSITION] * money)
    q = min(1.0, max(-1.0, q))
    S[ANCHOR], S[REFERENCE], S[TRAILED] = anchor, price, trailed
    skew = q * P[GAMMA] * sigma * sigma * P[HORIZON]
    S[RESERVATION] = anchor * (1.0 - min(MOST_SKEW, max(-MOST_SKEW, skew)))


@inner
def lay_entries(w: World, row: Floats, bar: int, money: float) -> None:
    """Lay entries of the sides that the regime allows, level by level, long first, within room and margin."""
    P, S = w.P, w.S
    price, regime = row[CLOSE], S[REGIME]
    thin = row[MEAN_VOLUME] > 0 and row[VOLUME] < P[LOW_VOLUME] * row[MEAN_VOLUME]
    cap = money * P[MAX_POSITION] * (QUIET if thin else 1.0)
    if S[TRAILED]:
        cap *= 1.0 - P[TRAILING_RESERVE]
    S[MARGIN], S[RESTING] = money * P[LEVERAGE], 0.0
    for side in range(2):
        qty = S[LEFT_AT + side]
        S[ROOM_AT + side] = cap - qty * price
        S[MARGIN] -= qty * price
        S[RESTING] += P[LEVELS] if qty > 0 else 0.0
        S[BEFORE_AT + side] = min(S[RESERVATION], price) if side == 0 else max(S[RESERVATION], price)
    S[OPEN_AT] = regime >= 0
    S[OPEN_AT + 1] = regime <= 0 and P[SHORTS] > 0
    size = money * P[LEVERAGE] * P[ORDER_PCT] * kelly_share(w, 0 if regime == 0 else (1 if regime > 0 else 2))
    if bar <= S[COOL_UNTIL]:
        size *= 0.5
    for n in range(1, int(P[LEVELS]) + 1):
        for side in range(2):
            if S[OPEN_AT + side]:
                lay_entry(w, row, bar, side, n, size)


@inner
def lay_entry(w: World, row: Floats, bar: int, side: int, n: int, size: float) -> None:
    """Level n of a side, if it lies on its side of the price; or no more of this side. `size`: notional before tilt."""
    P, S = w.P, w.S
    spacing = S[SPACING_AT + side] * funding_bias(S[REGIME], row[RATE], side, P[FUNDING_BIAS])
    at = next_level(w, n, side == 1, S[BEFORE_AT + side], spacing)
    if math.isnan(at):  # left out
        return
    S[BEFORE_AT + side] = at
    at = rounded(at, P[TICK_NUM], P[TICK_DEN], side == 1)
    if at <= 0 or (at >= row[CLOSE] if side == 0 else at <= row[CLOSE]):
        return
    if lots_left(w, side) + S[ENTRIES_AT + side] >= P[MAX_LOTS]:
        S[OPEN_AT + side] = 0.0
        return
    wanted = size * tilt(S[REGIME], row[RATE], side, P[HARVEST])
    room = min(S[ROOM_AT + side], S[MARGIN])
    qty = whole_lots(min(wanted, room) / at, P[LOT_NUM], P[LOT_DEN])
    if qty <= 0 or qty * at < P[MIN_NOTIONAL] * FORGIVING:
        if room < wanted:
            note_verdict(w, bar, NO_ROOM, 1 - 2 * side, wanted, room)
        else:
            note_verdict(w, bar, TOO_SMALL, 1 - 2 * side, wanted, P[MIN_NOTIONAL])
        S[OPEN_AT + side] = 0.0
    elif S[RESTING] >= P[MAX_ORDERS]:
        note_verdict(w, bar, TOO_MANY, 1 - 2 * side, S[RESTING], P[MAX_ORDERS])
        S[OPEN_AT + side] = 0.0
    else:
        place(w, w.entries, ENTRIES_AT, bar, side, ENTRY, n, at, qty)
        S[RESTING] += 1
        S[MARGIN] -= qty * at
        S[ROOM_AT + side] -= qty * at


@inner
def lots_left(w: World, side: int) -> int:
    """Lots that a side will have once its order for the market is done."""
    n = int(w.S[LOTS_AT + side])
    order = w.market[side]
    if order[BY] == 0:
        return n
    if order[MARKET_LOT] >= 0:
        return n - 1
    sold = order[MARKET_QTY]
    for k in range(n):
        if sold < w.lots[side, k, LOT_QTY] * (1 - DUST):
            return n - k
        sold -= w.lots[side, k, LOT_QTY]
    return 0


@inner
def lay_exits(w: World, row: Floats, bar: int, side: int) -> None:
    """Lay the take-profits of a side anew, for what it will hold."""
    P, S = w.P, w.S
    withdraw(w, w.exits, EXITS_AT, bar, side, TAKE_PROFIT, REPLACED)
    total = float(S[LEFT_AT + side])
    if total <= 0:
        return
    n, there, before, up = 1, 0, S[RESERVATION], side == 0
    while there < P[LEVELS]:
        at = next_level(w, n, up, before, S[SPACING_AT + side])
        n += 1
        if math.isnan(at):  # left out
            continue
        before = at
        at = rounded(at, P[TICK_NUM], P[TICK_DEN], up)
        if at <= 0:
            break
        if (at > row[CLOSE]) if up else (at < row[CLOSE]):
            w.exits[side, there, AT] = at
            there += 1
    share_out(w, bar, side, total, there)


@inner
def share_out(w: World, bar: int, side: int, total: float, there: int) -> None:
    """Lay so many take-profits, whose prices are in the book already: the first for its share, the others alike."""
    P = w.P
    rest = total - total * P[TP_CONCENTRATION]
    other = 0.0 if there <= 1 else whole_lots(rest / (there - 1), P[LOT_NUM], P[LOT_DEN])
    for k in range(there):
        qty = total - other * (there - 1) if k == 0 else other
        if qty > DUST * total:
            place(w, w.exits, EXITS_AT, bar, side, TAKE_PROFIT, k + 1, w.exits[side, k, AT], qty)


@inner
def place(
    w: World, book: Floats, count_at: int, bar: int, side: int, role: int, level: float, price: float, qty: float
) -> None:
    """Add an order to a side of a book."""
    order = book[side, int(w.S[count_at + side])]
    order[AT], order[QTY], order[ID], order[LEVEL] = price, qty, new_id(w), level
    w.S[count_at + side] += 1
    note_order(w, PLACED, bar, side, role, level, price, qty, order[ID])


@inner
def withdraw(w: World, book: Floats, count_at: int, bar: int, side: int, role: int, why: int) -> None:
    """Take all orders of a side out of a book; `bar`: whose decision it was."""
    for k in range(int(w.S[count_at + side])):
        order = book[side, k]
        note_order(w, why, bar, side, role, order[LEVEL], order[AT], order[QTY], order[ID])
    w.S[count_at + side] = 0.0
