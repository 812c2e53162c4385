"""The venue's part: what one candle does to what rests (docs/grid.md, 3)."""

from __future__ import annotations

from mmlab.core.kernels import inner, kernel
from mmlab.grid.guards import cushion, reached, safe
from mmlab.grid.ladder import withdraw
from mmlab.grid.layout import (
    AT,
    BY,
    C_CLOSE,
    C_FUNDING,
    C_HIGH,
    C_LOW,
    C_MS,
    C_OPEN,
    CLOSE_LONG,
    CLOSED,
    DUE,
    ENTRIES_AT,
    ENTRY,
    EXITS_AT,
    FILLED,
    FILLED_SINCE,
    ID,
    LEVEL,
    LIQUIDATED,
    LIQUIDATION,
    LIQUIDATION_FEE,
    LOTS_AT,
    MAKER,
    MARKET_LOT,
    MARKET_QTY,
    PEER,
    QTY,
    SAFE,
    STOP,
    STOP_AT,
    STOP_ID_AT,
    STOP_LONG,
    STOPPED_AT,
    TAKE_PROFIT,
    TAKER,
    WALLET,
    At,
    Floats,
    World,
    note_order,
    note_verdict,
)  # fmt: skip
from mmlab.grid.positions import (
    DUST,
    close_first,
    close_lot,
    held,
    held_before,
    insure,
    open_lot,
    pay_funding,
    slipped,
)  # fmt: skip

BISECTIONS = 60


@inner
def trade(w: World, candle: Floats, at: At, first: bool) -> None:
    """One candle, in the order of docs/grid.md, section 3; `at`: bar and candle; `first`: of its bar."""
    P = w.P
    if candle[C_FUNDING] != 0:
        pay_funding(w, at, candle[C_FUNDING], candle[C_OPEN])
    w.S[SAFE] = safe(w, candle)
    if not (P[PEER] or w.S[SAFE]):
        for side in range(2):
            broke(w, candle, at, side, candle[C_OPEN], candle[C_OPEN])
    if first:
        for side in range(2):
            to_market(w, candle, at, side)
    for side in range(2):
        adverse_leg(w, candle, at, side)
    for side in range(2):
        take_profit(w, candle, at, side)


@kernel
def trade_candle(w: World, candle: Floats, bar: int, number: int, first: bool) -> None:
    """`trade` for callers outside compiled code: a dry run, one candle at a time."""
    trade(w, candle, (bar, number), first)


@inner
def to_market(w: World, candle: Floats, at: At, side: int) -> None:
    """Carry out what the last decision sent to the market."""
    order = w.market[side]
    if order[BY] == 0:
        return
    price = slipped(w, side, candle[C_CLOSE] if w.P[PEER] else candle[C_OPEN])
    label = int(order[BY])
    order[BY] = 0.0
    if order[MARKET_LOT] >= 0:
        close_lot(w, at, side, label, price, int(order[MARKET_LOT]), w.P[TAKER])
    else:
        close_first(w, at, side, label, price, order[MARKET_QTY], w.P[TAKER], 0.0, 0.0)


@inner
def adverse_leg(w: World, candle: Floats, at: At, side: int) -> None:
    """Entries of a side from the nearest on, its stop where its turn comes; the margin before each and at the end."""
    P, S = w.P, w.S
    sign = 1.0 - 2.0 * side
    extreme = candle[C_LOW] if side == 0 else candle[C_HIGH]
    opened, stop = candle[C_OPEN], S[STOP_AT + side]
    asked = stop == 0 or sign * (extreme - stop) > 0
    before = candle[C_CLOSE] if P[PEER] else opened
    if not asked and not P[PEER] and sign * (opened - stop) <= 0:
        fire(w, at, side, opened)
        asked = True
    n, filled, alive = int(S[ENTRIES_AT + side]), 0, True
    for k in range(n):
        order = w.entries[side, k]
        if not reached(P, order[AT], extreme, side == 0):
            break
        if not asked and sign * (order[AT] - stop) <= 0:
            asked = True
            if held(w, side) > 0:
                alive = not fails(w, candle, side, stop)
                if not alive:
                    before = bisected(w, candle, side, before, stop)
                    break
                before = stop
                fire(w, at, side, stop)
        gapped = not P[PEER] and sign * (opened - order[AT]) < 0
        price = opened if gapped else order[AT]
        alive = not fails(w, candle, side, price)
        if not alive:
            before = bisected(w, candle, side, before, price)
            break
        before = price
        open_lot(w, at, side, price, order[QTY], 0.0 if gapped else 1.0, candle[C_MS], order[ID])
        note_order(w, FILLED, at[1], side, ENTRY, order[LEVEL], order[AT], order[QTY], order[ID])
        filled += 1
    drop(w, w.entries, ENTRIES_AT, side, filled)
    S[FILLED_SINCE] += filled
    if not alive:
        liquidate(w, at, before)
    elif not asked and held(w, side) > 0:
        if not broke(w, candle, at, side, before, stop):
            fire(w, at, side, stop)
            broke(w, candle, at, side, stop, extreme)
    else:
        broke(w, candle, at, side, before, extreme)


@inner
def fire(w: World, at: At, side: int, price: float) -> None:
    """The resting stop's turn: it closes everything, if there is anything."""
    S = w.S
    qty = held(w, side)
    if qty <= 0:
        return
    note_order(w, FILLED, at[1], side, STOP, 0.0, S[STOP_AT + side], qty, S[STOP_ID_AT + side])
    close_first(w, at, side, STOP_LONG + side, slipped(w, side, price), qty, w.P[TAKER], 0.0, S[STOP_ID_AT + side])
    S[STOP_AT + side] = 0.0
    S[STOPPED_AT + side] += 1


@inner
def fails(w: World, candle: Floats, adverse: int, mark: float) -> bool:
    """True if at `mark`, on the leg that hurts one side, the margin is used up."""
    if w.S[SAFE] or w.S[LOTS_AT] + w.S[LOTS_AT + 1] == 0:
        return False
    return cushion(w, mark, mark, adverse, candle[C_MS]) <= 0


@inner
def bisected(w: World, candle: Floats, adverse: int, before: float, mark: float) -> float:
    """Where, between two marks, the margin was used up."""
    if cushion(w, before, mark, adverse, candle[C_MS]) <= 0:
        return before
    safe, price = before, mark
    for _ in range(BISECTIONS):
        middle = (safe + price) / 2.0
        if cushion(w, middle, mark, adverse, candle[C_MS]) > 0:
            safe = middle
        else:
            price = middle
    return price


@inner
def broke(w: World, candle: Floats, at: At, adverse: int, before: float, mark: float) -> bool:
    """Liquidate if the margin is used up at `mark`; True if it was."""
    if not fails(w, candle, adverse, mark):
        return False
    liquidate(w, at, bisected(w, candle, adverse, before, mark))
    return True


@inner
def liquidate(w: World, at: At, price: float) -> None:
    """Everything is closed at `price`, and every order is gone."""
    S = w.S
    rate = w.P[TAKER] + w.P[LIQUIDATION_FEE]
    for side in range(2):
        withdraw(w, w.entries, ENTRIES_AT, at[1], side, ENTRY, CLOSED)
        withdraw(w, w.exits, EXITS_AT, at[1], side, TAKE_PROFIT, CLOSED)
        qty = held(w, side)
        if qty > 0:
            close_first(w, at, side, LIQUIDATION, slipped(w, side, price), qty, rate, 0.0, 0.0)
        if S[STOP_AT + side] > 0:
            note_order(w, CLOSED, at[1], side, STOP, 0.0, S[STOP_AT + side], 0.0, S[STOP_ID_AT + side])
        S[STOP_AT + side] = 0.0
        w.market[side, BY] = 0.0
    value = S[WALLET]
    insure(w, at)
    S[DUE] = 1.0
    note_verdict(w, at[0], LIQUIDATED, 0, price, value)


@inner
def take_profit(w: World, candle: Floats, at: At, side: int) -> None:
    """Take-profits of a side from the nearest on, against lots that were open before this candle."""
    P, S = w.P, w.S
    sign = 1.0 - 2.0 * side
    extreme = candle[C_HIGH] if side == 0 else candle[C_LOW]
    n, filled = int(S[EXITS_AT + side]), 0
    whole = 0.0
    for k in range(n):
        order = w.exits[side, k]
        if not reached(P, order[AT], extreme, side == 1):
            break
        there = held_before(w, side, candle[C_MS])
        if k == 0:
            whole = there
        if there <= DUST * whole:
            break
        gapped = not P[PEER] and sign * (candle[C_OPEN] - order[AT]) > 0
        price = candle[C_OPEN] if gapped else order[AT]
        rate = P[TAKER] if gapped else P[MAKER]
        qty = min(order[QTY], there)
        close_first(w, at, side, CLOSE_LONG + side, price, qty, rate, 0.0 if gapped else 1.0, order[ID])
        note_order(w, FILLED, at[1], side, TAKE_PROFIT, order[LEVEL], order[AT], qty, order[ID])
        filled += 1
    drop(w, w.exits, EXITS_AT, side, filled)


@inner
def drop(w: World, book: Floats, count_at: int, side: int, filled: int) -> None:
    """Take the first orders of a side out of a book."""
    n = int(w.S[count_at + side])
    if filled > 0:
        for k in range(filled, n):
            for field in range(book.shape[2]):
                book[side, k - filled, field] = book[side, k, field]
        w.S[count_at + side] = n - filled
