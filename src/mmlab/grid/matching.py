"""The venue's part: what one candle does to what rests (docs/grid.md, 3)."""

from __future__ import annotations

from mmlab.core.kernels import inner
from mmlab.grid.guards import cushion, reached
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
    STOP,
    STOP_AT,
    STOP_ID_AT,
    STOP_LONG,
    STOPPED_AT,
    TAKE_PROFIT,
    TAKER,
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
    S = w.S
    if candle[C_FUNDING] != 0:
        pay_funding(w, at, candle[C_FUNDING], candle[C_OPEN])
    if first:
        for side in range(2):
            to_market(w, candle, at, side)
    for side in range(2):
        adverse_leg(w, candle, at, side)
    if S[LOTS_AT] + S[LOTS_AT + 1] > 0:
        for side in range(2):
            test_margin(w, candle, at, side)
    for side in range(2):
        take_profit(w, candle, at, side)


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
    """Entries of a side from the nearest on, and its stop where its turn comes."""
    P, S = w.P, w.S
    sign = 1.0 - 2.0 * side
    extreme = candle[C_LOW] if side == 0 else candle[C_HIGH]
    opened = candle[C_OPEN]
    asked = S[STOP_AT + side] == 0 or sign * (extreme - S[STOP_AT + side]) > 0
    if not asked and not P[PEER] and sign * (opened - S[STOP_AT + side]) <= 0:
        fire(w, at, side, opened)
        asked = True
    n, filled = int(S[ENTRIES_AT + side]), 0
    for k in range(n):
        order = w.entries[side, k]
        price = order[AT]
        if not reached(P, price, extreme, side == 0):
            break
        if not asked and sign * (price - S[STOP_AT + side]) <= 0:
            fire(w, at, side, S[STOP_AT + side])
            asked = True
        gapped = not P[PEER] and sign * (opened - price) < 0
        open_lot(w, at, side, opened if gapped else price, order[QTY], 0.0 if gapped else 1.0, candle[C_MS], order[ID])
        note_order(w, FILLED, at[1], side, ENTRY, order[LEVEL], price, order[QTY], order[ID])
        filled += 1
    drop(w, w.entries, ENTRIES_AT, side, filled)
    S[FILLED_SINCE] += filled
    if not asked:
        fire(w, at, side, S[STOP_AT + side])


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
def test_margin(w: World, candle: Floats, at: At, adverse: int) -> None:
    """Liquidate if the extreme that hurts one side leaves less than the maintenance margin."""
    S = w.S
    if S[LOTS_AT] + S[LOTS_AT + 1] == 0:
        return
    extreme = candle[C_LOW] if adverse == 0 else candle[C_HIGH]
    ms = candle[C_MS]
    short_of = cushion(w, extreme, extreme, adverse, ms)
    if short_of > 0:
        return
    price = candle[C_OPEN]
    if cushion(w, price, extreme, adverse, ms) > 0:
        safe, price = price, extreme
        for _ in range(BISECTIONS):
            middle = (safe + price) / 2.0
            if cushion(w, middle, extreme, adverse, ms) > 0:
                safe = middle
            else:
                price = middle
    for side in range(2):
        withdraw(w, w.entries, ENTRIES_AT, at[1], side, ENTRY, CLOSED)
        withdraw(w, w.exits, EXITS_AT, at[1], side, TAKE_PROFIT, CLOSED)
        qty = held(w, side)
        if qty > 0:
            rate = w.P[TAKER] + w.P[LIQUIDATION_FEE]
            close_first(w, at, side, LIQUIDATION, slipped(w, side, price), qty, rate, 0.0, 0.0)
        if S[STOP_AT + side] > 0:
            note_order(w, CLOSED, at[1], side, STOP, 0.0, S[STOP_AT + side], 0.0, S[STOP_ID_AT + side])
        S[STOP_AT + side] = 0.0
    insure(w, at)
    S[DUE] = 1.0
    note_verdict(w, at[0], LIQUIDATED, 0, price, short_of)


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
