"""Lots and the wallet: opening, closing, funding; the only kernels that move money."""

from __future__ import annotations

from mmlab.core.kernels import inner
from mmlab.grid.layout import (
    CLOSE_LONG,
    CLOSE_SHORT,
    FUNDING,
    INSURANCE,
    KELLY_AT,
    KELLY_NEXT_AT,
    KELLY_WINDOW,
    KEPT_AT,
    LOST,
    LOT_CLASS,
    LOT_FEE,
    LOT_MS,
    LOT_NET,
    LOT_PAID,
    LOT_PRICE,
    LOT_QTY,
    LOT_WIDTH,
    LOTS_AT,
    MAKER,
    OPEN_LONG,
    PRUNE_OFFSET,
    REGIME,
    SLIPPAGE,
    STAGED_AT,
    STOP_LONG,
    TAKER,
    TRADES,
    WALLET,
    WINS,
    WON,
    At,
    World,
    note_fill,
)  # fmt: skip

DUST = 1e-12  # of what was there: less is none


@inner
def held(w: World, side: int) -> float:
    """Quantity of all lots of a side."""
    total = 0.0
    for k in range(int(w.S[LOTS_AT + side])):
        total += w.lots[side, k, LOT_QTY]
    return total


@inner
def held_before(w: World, side: int, ms: float) -> float:
    """Quantity of the lots that were open before `ms`."""
    total = 0.0
    for k in range(int(w.S[LOTS_AT + side])):
        if w.lots[side, k, LOT_MS] < ms:
            total += w.lots[side, k, LOT_QTY]
    return total


@inner
def unrealised(w: World, side: int, price: float) -> float:
    """Profit of all lots of a side if they were closed at `price`, without fees."""
    total = 0.0
    for k in range(int(w.S[LOTS_AT + side])):
        total += (price - w.lots[side, k, LOT_PRICE]) * w.lots[side, k, LOT_QTY]
    return total if side == 0 else -total


@inner
def equity(w: World, price: float) -> float:
    """Wallet and unrealised profit of both sides."""
    return float(w.S[WALLET]) + unrealised(w, 0, price) + unrealised(w, 1, price)


@inner
def slipped(w: World, side: int, price: float) -> float:
    """What closing a side at market gets for `price`."""
    worse = float(w.P[SLIPPAGE])
    return price * (1 - worse) if side == 0 else price * (1 + worse)


@inner
def open_lot(w: World, at: At, side: int, price: float, qty: float, maker: float, ms: float, order: float) -> None:
    """A new lot at `price`; `maker`: 1 or 0, whose fee it pays."""
    S = w.S
    fee = (w.P[MAKER] if maker else w.P[TAKER]) * price * qty
    S[WALLET] -= fee
    lot = w.lots[side, int(S[LOTS_AT + side])]
    lot[LOT_PRICE], lot[LOT_QTY], lot[LOT_MS] = price, qty, ms
    lot[LOT_PAID], lot[LOT_FEE], lot[LOT_NET] = 0.0, fee, 0.0
    lot[LOT_CLASS] = 0.0 if S[REGIME] == 0 else (1.0 if S[REGIME] > 0 else 2.0)
    S[LOTS_AT + side] += 1
    note_fill(w, at, side, OPEN_LONG + side, price, qty, fee, 0.0, maker, order)


@inner
def reduce_lot(w: World, side: int, k: int, qty: float, price: float, rate: float) -> float:
    """Close `qty` of lot k, which stays where it is; its profit before the closing fee, which is `rate`'s."""
    lot = w.lots[side, k]
    share = 1.0 if qty >= lot[LOT_QTY] else qty / lot[LOT_QTY]
    pnl = (price - lot[LOT_PRICE]) * qty
    if side == 1:
        pnl = -pnl
    fee = rate * price * qty
    lot[LOT_NET] += pnl - fee
    window = int(w.P[KELLY_WINDOW])
    if window > 0 and share == 1.0:
        kind = int(lot[LOT_CLASS])
        w.kelly[kind, int(w.S[KELLY_NEXT_AT + kind])] = lot[LOT_NET] - lot[LOT_FEE]
        w.S[KELLY_NEXT_AT + kind] = (w.S[KELLY_NEXT_AT + kind] + 1) % window
        w.S[KELLY_AT + kind] = min(w.S[KELLY_AT + kind] + 1, window)
    lot[LOT_PAID] -= lot[LOT_PAID] * share
    lot[LOT_QTY] = 0.0 if share == 1.0 else lot[LOT_QTY] - qty
    return float(pnl)


@inner
def settle(
    w: World,
    at: At,
    side: int,
    label: int,
    price: float,
    qty: float,
    rate: float,
    pnl: float,
    maker: float,
    order: float,
) -> None:
    """Book a closing of `qty` with profit `pnl`; lots of no quantity go."""
    S, lots = w.S, w.lots
    fee = rate * price * qty
    S[WALLET] += pnl - fee
    kept = 0
    for k in range(int(S[LOTS_AT + side])):
        if lots[side, k, LOT_QTY] > 0:
            if kept < k:
                for field in range(LOT_WIDTH):
                    lots[side, kept, field] = lots[side, k, field]
            kept += 1
    S[LOTS_AT + side] = kept
    if kept == 0:
        S[STAGED_AT + side] = 0.0
    net = pnl - fee
    S[TRADES] += 1
    if net > 0:
        S[WINS] += 1
        S[WON] += net
    else:
        S[LOST] -= net
    if CLOSE_LONG <= label <= CLOSE_SHORT or (STOP_LONG <= label <= PRUNE_OFFSET and net < 0):
        S[KEPT_AT + side] = max(0.0, S[KEPT_AT + side] + net)
    note_fill(w, at, side, label, price, qty, fee, pnl, maker, order)


@inner
def close_first(
    w: World, at: At, side: int, label: int, price: float, qty: float, rate: float, maker: float, order: float
) -> None:
    """Close `qty`, or what there is, first in first out."""
    left, pnl, done = qty, 0.0, 0.0
    whole = held(w, side)
    for k in range(int(w.S[LOTS_AT + side])):
        if left <= DUST * whole:
            break
        part = min(left, w.lots[side, k, LOT_QTY])
        if w.lots[side, k, LOT_QTY] - part <= DUST * whole:
            part = w.lots[side, k, LOT_QTY]
        pnl += reduce_lot(w, side, k, part, price, rate)
        left -= part
        done += part
    if done > 0:
        settle(w, at, side, label, price, done, rate, pnl, maker, order)


@inner
def close_lot(w: World, at: At, side: int, label: int, price: float, k: int, rate: float) -> None:
    """Close lot k."""
    qty = w.lots[side, k, LOT_QTY]
    pnl = reduce_lot(w, side, k, qty, price, rate)
    settle(w, at, side, label, price, qty, rate, pnl, 0.0, 0.0)


@inner
def pay_funding(w: World, at: At, rate: float, price: float) -> None:
    """A settlement: a positive rate is paid by longs to shorts."""
    for side in range(2):
        qty = held(w, side)
        if qty > 0:
            sign = 1.0 - 2.0 * side
            for k in range(int(w.S[LOTS_AT + side])):
                w.lots[side, k, LOT_PAID] += sign * rate * price * w.lots[side, k, LOT_QTY]
            paid = sign * rate * price * qty
            w.S[WALLET] -= paid
            note_fill(w, at, side, FUNDING, price, qty, 0.0, -paid, 0.0, 0.0)


@inner
def insure(w: World, at: At) -> None:
    """A wallet below zero after a liquidation: the insurance fund pays the rest."""
    if w.S[WALLET] < 0:
        gift = -w.S[WALLET]
        w.S[WALLET] = 0.0
        note_fill(w, at, 0, INSURANCE, 0.0, 0.0, 0.0, gift, 0.0, 0.0)
