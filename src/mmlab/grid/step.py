"""The step: what is decided at the close of a bar. One function for backtest, dry run and live (docs/grid.md, 4)."""

from __future__ import annotations

from mmlab.core.kernels import inner, kernel
from mmlab.grid.guards import break_circuit, check_var, prune, resting_stop, stop_at_close
from mmlab.grid.ladder import lay_entries, lay_exits, lay_grid, left, withdraw
from mmlab.grid.layout import (
    ANCHOR,
    BLOCKED,
    BY,
    CLOSE,
    COST_AT,
    DUE,
    ENTRIES_AT,
    ENTRY,
    ER,
    EXITS_AT,
    FILLED_SINCE,
    GRID_REGIME,
    HALTED,
    HAS_GRID,
    IN_FORCE,
    LEFT_AT,
    LEVELS,
    NEW_GRID,
    PEAK,
    PLACED,
    QTY,
    REGEN_DRIFT,
    REGIME,
    REPLACED,
    RUIN,
    RUINED,
    SPACING_AT,
    STOP,
    STOP_AT,
    STOP_ID_AT,
    TAKE_PROFIT,
    TRAIL,
    TRAILING,
    TRAILING_CAP,
    TRAILING_ER,
    WITHDRAWN,
    Floats,
    World,
    new_id,
    note_order,
    note_verdict,
)  # fmt: skip
from mmlab.grid.positions import equity

SAME = 1e-12  # relative: two quantities that differ by less are one


@inner
def decide(w: World, row: Floats, bar: int) -> None:
    """Everything that is decided at the close of `bar`, whose row is `row`; live from the next open."""
    S = w.S
    if S[RUINED]:
        return
    S[REGIME] = row[IN_FORCE]
    money = equity(w, row[CLOSE])
    if money <= 0:
        ruin(w, bar, money)
        return
    S[PEAK] = max(S[PEAK], money)
    break_circuit(w, row, bar)
    for side in range(2):
        w.market[side, BY] = 0.0
    for side in range(2):
        stop_at_close(w, row, bar, side)
    for side in range(2):
        prune(w, row, bar, side, money)
    for side in range(2):
        S[LEFT_AT + side], S[COST_AT + side] = left(w, side)
        lay_stop(w, row, bar, side)
    check_var(w, row, bar, money)
    laid = renew(w, row, bar, money)
    if S[HALTED] or S[BLOCKED]:
        for side in range(2):
            withdraw(w, w.entries, ENTRIES_AT, bar, side, ENTRY, WITHDRAWN)
    for side in range(2):
        if laid or differs(w, side):
            lay_exits(w, row, bar, side)


@kernel
def decide_bar(w: World, row: Floats, bar: int) -> None:
    """`decide` for callers outside compiled code: the live runner, one bar at a time."""
    decide(w, row, bar)


@inner
def ruin(w: World, bar: int, money: float) -> None:
    """Nothing is left to trade with."""
    S = w.S
    S[RUINED] = 1.0
    for side in range(2):
        withdraw(w, w.entries, ENTRIES_AT, bar, side, ENTRY, WITHDRAWN)
        withdraw(w, w.exits, EXITS_AT, bar, side, TAKE_PROFIT, WITHDRAWN)
        w.market[side, BY] = 0.0
        if S[STOP_AT + side] > 0:
            note_order(w, WITHDRAWN, bar, side, STOP, 0.0, S[STOP_AT + side], 0.0, S[STOP_ID_AT + side])
        S[STOP_AT + side] = 0.0
    note_verdict(w, bar, RUIN, 0, money, 0.0)


@inner
def lay_stop(w: World, row: Floats, bar: int, side: int) -> None:
    """The second stop of what will be left rests at the venue during the next bar."""
    S = w.S
    price = resting_stop(w, row, side)
    before = S[STOP_AT + side]
    if price == before:
        return
    if before > 0:
        note_order(w, REPLACED, bar, side, STOP, 0.0, before, 0.0, S[STOP_ID_AT + side])
    S[STOP_AT + side] = price
    if price > 0:
        S[STOP_ID_AT + side] = new_id(w)
        note_order(w, PLACED, bar, side, STOP, 0.0, price, S[LEFT_AT + side], S[STOP_ID_AT + side])


@inner
def renew(w: World, row: Floats, bar: int, money: float) -> bool:
    """Trail the anchor or lay a new grid where one is due; True if it was laid."""
    P, S, price = w.P, w.S, row[CLOSE]
    if S[HALTED] or S[BLOCKED]:
        return False
    spacing, drift = S[SPACING_AT], price - S[ANCHOR]
    trending = P[TRAILING] > 0 and S[REGIME] > 0 and row[ER] > P[TRAILING_ER]
    anchor, trailed = price, 0.0
    if S[HAS_GRID] and trending and drift > P[LEVELS] * spacing:
        target = S[ANCHOR] + drift / 2.0
        if P[TRAILING_CAP] > 0:
            target = min(target, P[TRAILING_CAP])
        if target > S[ANCHOR]:
            anchor, trailed = target, 1.0
    far = abs(drift) > P[REGEN_DRIFT] * spacing and not (trending and drift > 0)
    due = not S[HAS_GRID] or S[DUE] or S[REGIME] != S[GRID_REGIME] or S[FILLED_SINCE] >= 2 or far
    if not (trailed or due):
        return False
    for side in range(2):
        withdraw(w, w.entries, ENTRIES_AT, bar, side, ENTRY, REPLACED)
    lay_grid(w, row, money, anchor, trailed)
    note_verdict(w, bar, TRAIL if trailed else NEW_GRID, 0, anchor, S[SPACING_AT])
    S[HAS_GRID], S[DUE], S[FILLED_SINCE], S[GRID_REGIME] = 1.0, 0.0, 0.0, S[REGIME]
    lay_entries(w, row, bar, money)
    return True


@inner
def differs(w: World, side: int) -> bool:
    """True if the take-profits of a side are not for what it will hold."""
    total = 0.0
    for k in range(int(w.S[EXITS_AT + side])):
        total += w.exits[side, k, QTY]
    qty = float(w.S[LEFT_AT + side])
    return abs(total - qty) > SAME * max(total, qty)
