"""What keeps the account alive: breaker, stops, prunes, VaR, and the venue's margin and liquidation."""

from __future__ import annotations

import numpy as np

from mmlab.core.kernels import inner
from mmlab.grid.ladder import left
from mmlab.grid.layout import (
    AT,
    ATR,
    BLOCKED,
    BREAKER,
    BY,
    C_HIGH,
    C_LOW,
    CLOSE,
    CLOSE_MS,
    COOL_UNTIL,
    COOLDOWN,
    COST_AT,
    DEVIANCE,
    DUE,
    ENTRIES_AT,
    EXITS_AT,
    FUNDING_RATIO,
    GAP_MULT,
    GUARD_PRUNE,
    HALT,
    HALT_Z,
    HALTED,
    KAMA,
    KEPT_AT,
    LAST_STOP,
    LEFT_AT,
    LOT_DEN,
    LOT_MS,
    LOT_NUM,
    LOT_PAID,
    LOT_PRICE,
    LOT_QTY,
    LOTS_AT,
    MARKET_LOT,
    MARKET_QTY,
    MAX_AGE_MS,
    MAX_DRAWDOWN,
    OFFSET_RATIO,
    PEAK,
    PRUNE_COOLDOWN,
    PRUNE_DEVIANCE,
    PRUNE_FUNDING,
    PRUNE_GAP,
    PRUNE_OFFSET,
    PRUNE_OLDEST,
    PRUNED_AT,
    QTY,
    RESUME,
    RESUME_Z,
    SIGMA,
    SL_MULT,
    SLIPPAGE,
    SPACING_AT,
    STAGE_1,
    STAGE_2,
    STAGED_AT,
    STOP_BARS,
    STOP_COUNT,
    STOP_LONG,
    STOP_THRESH,
    STOPPED_AT,
    TAKER,
    THROUGH,
    TICK_DEN,
    TICK_NUM,
    VAR_BLOCK,
    VAR_WARNING,
    WALLET,
    Z_CONFIDENCE,
    Floats,
    World,
    Z,
    note_verdict,
)  # fmt: skip
from mmlab.grid.levels import rounded, whole_lots
from mmlab.grid.positions import held

# most notional of a tier, its maintenance rate, and the amount that keeps the margin without jumps (Binance USD-M)
TIERS = np.array(
    [
        (50_000.0, 0.004, 0.0), (250_000.0, 0.005, 50.0), (1_000_000.0, 0.01, 1_300.0),
        (5_000_000.0, 0.025, 16_300.0), (25_000_000.0, 0.05, 141_300.0), (100_000_000.0, 0.1, 1_391_300.0),
        (np.inf, 0.125, 3_891_300.0),
    ]
)  # fmt: skip
WARNED = 0.75  # of the greatest drawdown: from here on lots are shed
ALMOST = 1 - 1e-6  # of a tick
SECOND_STOP = 1.5  # times the first stop's distance


@inner
def maintenance(notional: float) -> float:
    """Maintenance margin of one position."""
    for k in range(TIERS.shape[0]):
        if notional <= TIERS[k, 0]:
            return float(notional * TIERS[k, 1] - TIERS[k, 2])
    return notional


@inner
def break_circuit(w: World, row: Floats, bar: int) -> None:
    """Halt in a crash, resume after it."""
    P, S, z = w.P, w.S, row[Z]
    if not P[BREAKER]:
        return
    if not S[HALTED]:
        if z < P[HALT_Z]:
            S[HALTED] = 1.0
            note_verdict(w, bar, HALT, 0, z, P[HALT_Z])
    elif z > P[RESUME_Z]:
        S[HALTED] = 0.0
        S[DUE] = 1.0
        note_verdict(w, bar, RESUME, 0, z, P[RESUME_Z])


@inner
def count_stop(w: World, bar: int) -> None:
    """A stop has fired: a new grid is due, and stops in a row halve the sizes."""
    P, S = w.P, w.S
    S[DUE] = 1.0
    S[STOP_COUNT] = S[STOP_COUNT] + 1 if bar - S[LAST_STOP] <= P[STOP_BARS] else 1.0
    S[LAST_STOP] = bar
    if S[STOP_COUNT] >= P[STOP_THRESH]:
        S[COOL_UNTIL] = bar + P[STOP_BARS]
        note_verdict(w, bar, COOLDOWN, 0, S[STOP_COUNT], P[STOP_THRESH])


@inner
def stop_at_close(w: World, row: Floats, bar: int, side: int) -> None:
    """Stage 1 and 2 of the stop on the closing price; what fires becomes an order for the market."""
    P, S = w.P, w.S
    if S[STOPPED_AT + side]:
        S[STOPPED_AT + side] = 0.0
        count_stop(w, bar)
    n = int(S[LOTS_AT + side])
    if n == 0:
        return
    sign = 1.0 - 2.0 * side
    qty, cost = left(w, side)
    reach = P[SL_MULT] * row[ATR]
    first, second = cost / qty - sign * reach, cost / qty - sign * SECOND_STOP * reach
    order = w.market[side]
    if sign * (row[CLOSE] - second) <= 0:
        order[BY], order[MARKET_QTY], order[MARKET_LOT] = STOP_LONG + side, qty, -1.0
        note_verdict(w, bar, STAGE_2, sign, row[CLOSE], second)
        count_stop(w, bar)
    elif not S[STAGED_AT + side] and sign * (row[CLOSE] - first) <= 0:
        half = whole_lots(qty / 2.0, P[LOT_NUM], P[LOT_DEN])
        order[BY], order[MARKET_QTY], order[MARKET_LOT] = STOP_LONG + side, half if half > 0 else qty, -1.0
        S[STAGED_AT + side] = 1.0
        note_verdict(w, bar, STAGE_1, sign, row[CLOSE], first)
        count_stop(w, bar)


@inner
def resting_stop(w: World, row: Floats, side: int) -> float:
    """Where the second stop of what will be left rests; 0: nothing will be left."""
    qty, cost = w.S[LEFT_AT + side], w.S[COST_AT + side]
    if qty <= 0:
        return 0.0
    reach = float(SECOND_STOP * w.P[SL_MULT] * row[ATR])
    price = cost / qty - (1.0 - 2.0 * side) * reach
    return max(rounded(price, w.P[TICK_NUM], w.P[TICK_DEN], side == 1), 0.0)


@inner
def prune(w: World, row: Floats, bar: int, side: int, money: float) -> None:
    """Choose the lot that the first rule which applies names, and send it to the market."""
    S = w.S
    n = int(S[LOTS_AT + side])
    if n == 0 or w.market[side, BY] > 0:
        return
    why, lot, value, limit = choose(w, row, bar, side, money)
    if lot < 0:
        return
    order = w.market[side]
    order[BY], order[MARKET_QTY], order[MARKET_LOT] = why, w.lots[side, lot, LOT_QTY], lot
    S[PRUNED_AT + side] = bar
    note_verdict(w, bar, GUARD_PRUNE + why - VAR_WARNING, 1 - 2 * side, value, limit)


@inner
def choose(w: World, row: Floats, bar: int, side: int, money: float) -> tuple[int, int, float, float]:
    """(label, lot, value, limit) of the rule that applies first; lot -1: none."""
    P, S, price = w.P, w.S, row[CLOSE]
    sign = 1.0 - 2.0 * side
    worst, loss, extreme, gap, gap_lot, paid_lot = find(w, side, price)
    drawdown = (S[PEAK] - money) / S[PEAK]
    edge = row[KAMA] - sign * P[DEVIANCE] * row[ATR]
    oldest, dear, spacing = w.lots[side, 0], w.lots[side, paid_lot], S[SPACING_AT + side]
    age = row[CLOSE_MS] - oldest[LOT_MS]
    why, lot, value, limit = 0, -1, 0.0, 0.0
    if drawdown > WARNED * P[MAX_DRAWDOWN] and worst >= 0:
        why, lot, value, limit = VAR_WARNING, worst, drawdown, WARNED * P[MAX_DRAWDOWN]
    elif S[HALTED]:
        pass
    elif sign * (price - edge) < 0:
        why, lot, value, limit = PRUNE_DEVIANCE, extreme, price, edge
    elif bar - S[PRUNED_AT + side] < P[PRUNE_COOLDOWN]:
        pass
    elif age > P[MAX_AGE_MS] and sign * (price - oldest[LOT_PRICE]) <= 0:
        why, lot, value, limit = PRUNE_OLDEST, 0, age, P[MAX_AGE_MS]
    elif gap_lot >= 0 and gap > P[GAP_MULT] * spacing:
        why, lot, value, limit = PRUNE_GAP, gap_lot, gap, P[GAP_MULT] * spacing
    elif dear[LOT_PAID] > P[FUNDING_RATIO] * spacing * dear[LOT_QTY]:
        why, lot, value, limit = PRUNE_FUNDING, paid_lot, dear[LOT_PAID], P[FUNDING_RATIO] * spacing * dear[LOT_QTY]
    elif worst >= 0 and loss * P[OFFSET_RATIO] < S[KEPT_AT + side]:
        why, lot, value, limit = PRUNE_OFFSET, worst, loss, S[KEPT_AT + side]
    return why, lot, value, limit


@inner
def find(w: World, side: int, price: float) -> tuple[int, float, int, float, int, int]:
    """The lot that loses most and its loss, the extreme one, the farthest not in profit, the one that paid most."""
    sign = 1.0 - 2.0 * side
    worst, loss, extreme, gap, gap_lot, paid_lot = -1, 0.0, 0, -1.0, -1, 0
    for k in range(int(w.S[LOTS_AT + side])):
        lot = w.lots[side, k]
        ahead = sign * (price - lot[LOT_PRICE])
        if -ahead * lot[LOT_QTY] > loss:
            worst, loss = k, -ahead * lot[LOT_QTY]
        if sign * (lot[LOT_PRICE] - w.lots[side, extreme, LOT_PRICE]) > 0:
            extreme = k
        if ahead <= 0 and -ahead > gap:
            gap_lot, gap = k, -ahead
        if lot[LOT_PAID] > w.lots[side, paid_lot, LOT_PAID]:
            paid_lot = k
    return worst, loss, extreme, gap, gap_lot, paid_lot


@inner
def check_var(w: World, row: Floats, bar: int, money: float) -> None:
    """Block entries while the value at risk of both sides is beyond what may be lost."""
    P, S = w.P, w.S
    value = (held(w, 0) + held(w, 1)) * row[CLOSE] * P[Z_CONFIDENCE] * row[SIGMA]
    S[BLOCKED] = 1.0 if value > P[MAX_DRAWDOWN] * money else 0.0
    if S[BLOCKED]:
        S[DUE] = 1.0
        note_verdict(w, bar, VAR_BLOCK, 0, value, P[MAX_DRAWDOWN] * money)


@inner
def safe(w: World, candle: Floats) -> bool:
    """True if nothing that can happen in this candle uses up the margin: a bound, so that most need no test.

    Everything that is held or may be filled loses what it can at worst, and pays every fee and the highest margin.
    """
    P, S = w.P, w.S
    low, high = candle[C_LOW], candle[C_HIGH]
    bottom = min(low, w.exits[0, 0, AT]) if S[EXITS_AT] > 0 else low
    top = max(high, w.exits[1, 0, AT]) if S[EXITS_AT + 1] > 0 else high
    value, total = S[WALLET], 0.0
    for k in range(int(S[LOTS_AT])):
        value -= max(0.0, w.lots[0, k, LOT_PRICE] - bottom) * w.lots[0, k, LOT_QTY]
        total += w.lots[0, k, LOT_QTY]
    for k in range(int(S[LOTS_AT + 1])):
        value -= max(0.0, top - w.lots[1, k, LOT_PRICE]) * w.lots[1, k, LOT_QTY]
        total += w.lots[1, k, LOT_QTY]
    for side in range(2):
        for k in range(int(S[ENTRIES_AT + side])):
            price = w.entries[side, k, AT]
            if price < low if side == 0 else price > high:
                break
            value -= (price - low if side == 0 else high - price) * w.entries[side, k, QTY]
            total += w.entries[side, k, QTY]
    fees = 4.0 * (abs(P[TAKER]) + P[SLIPPAGE]) + TIERS[TIERS.shape[0] - 1, 1]
    return bool(value > fees * total * max(top, high))


@inner
def cushion(w: World, mark: float, extreme: float, adverse: int, ms: float) -> float:
    """Equity less maintenance margin at `mark`, on the way to `extreme`, which hurts the side `adverse`.

    Of the other side only what was open before `ms` counts, less what its take-profits within reach of `extreme` close.
    """
    P, S = w.P, w.S
    sign = 1.0 - 2.0 * adverse
    other = 1 - adverse
    value, notional = S[WALLET], 0.0
    for k in range(int(S[LOTS_AT + adverse])):
        lot = w.lots[adverse, k]
        value += sign * (mark - lot[LOT_PRICE]) * lot[LOT_QTY]
        notional += mark * lot[LOT_QTY]
    exits, at, remaining = int(S[EXITS_AT + other]), 0, 0.0
    if exits > 0 and not reached(P, w.exits[other, 0, AT], extreme, adverse == 0):
        exits = 0  # the nearest is not reached, so none is
    if exits > 0:
        remaining = w.exits[other, 0, QTY]
    opposite = 0.0
    for k in range(int(S[LOTS_AT + other])):
        lot = w.lots[other, k]
        if lot[LOT_MS] >= ms:
            continue
        rest = lot[LOT_QTY]
        while rest > 0 and at < exits and reached(P, w.exits[other, at, AT], extreme, adverse == 0):
            part = min(rest, remaining)
            value -= sign * (w.exits[other, at, AT] - lot[LOT_PRICE]) * part
            rest -= part
            remaining -= part
            if remaining <= 0:
                at += 1
                if at < exits:
                    remaining = w.exits[other, at, QTY]
        value -= sign * (mark - lot[LOT_PRICE]) * rest
        opposite += mark * rest
    return float(value - maintenance(notional) - maintenance(opposite))


@inner
def reached(P: Floats, price: float, extreme: float, down: bool) -> bool:
    """True if a candle that went to `extreme` (down: its low) fills a limit order at `price`."""
    if not P[THROUGH]:
        return extreme <= price if down else extreme >= price
    if P[TICK_NUM] == 0:
        return extreme < price if down else extreme > price
    tick = float(P[TICK_NUM] / P[TICK_DEN] * ALMOST)
    return extreme <= price - tick if down else extreme >= price + tick
