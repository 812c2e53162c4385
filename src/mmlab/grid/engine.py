"""The walk over bars and their candles: decide, trade, and what was made of it, in arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import UsageError
from mmlab.core.kernels import borrowed, inner, kernel
from mmlab.grid.layout import (
    BLOCKED,
    C_CLOSE,
    CLOSE,
    ENTRIES_AT,
    EQUITY_WIDTH,
    EXITS_AT,
    FILL_WIDTH,
    FINAL_CLOSE,
    FIRST_CANDLE,
    HALTED,
    LOT_PRICE,
    LOT_QTY,
    LOTS_AT,
    N_FILLS,
    N_ORDERS,
    N_VERDICTS,
    ORDER_WIDTH,
    PEER,
    RECORD,
    REGIME,
    TAKER,
    VERDICT_WIDTH,
    WALLET,
    WARM_UP,
    Floats,
    World,
    pack,
    world,
)  # fmt: skip
from mmlab.grid.matching import trade
from mmlab.grid.params import FILLS, GridParams, VenueParams
from mmlab.grid.positions import close_first, equity, held
from mmlab.grid.step import decide

ROOM = 4096  # rows of each kind to begin with


@dataclass(frozen=True)
class Raw:
    """What a run made: the state at its end, rows (see layout), and a line for each bar from `low` on."""

    world: World
    equity: Floats
    fills: Floats
    orders: Floats
    verdicts: Floats
    low: int


def simulate(
    X: Floats, C: Floats, params: GridParams, venue: VenueParams,
    *, low: int = 0, high: int | None = None, record: bool = True,
) -> Raw:  # fmt: skip
    """Run bars [low, high) of `X` (bars, layout.X_WIDTH) over candles `C` (candles, layout.C_WIDTH).

    Bar i's candles are rows X[i, FIRST_CANDLE] up to X[i + 1, FIRST_CANDLE] of C. Without `record` only the equity and
    the counts in the state are made. Raises UsageError for a span that is empty.
    """
    high = len(X) if high is None else high
    if venue.fills == FILLS[2] and len(C) != len(X):
        raise UsageError("--fills peer knows no finer candles", remedy="leave --intrabar out")
    if not np.isfinite(X).all():
        raise UsageError(
            f"row {np.argwhere(~np.isfinite(X))[0][0]} of the signals is not a number", remedy="check the bars"
        )
    if not 0 <= low < high <= len(X):
        raise UsageError(f"no bars from {low} to {high} of {len(X)}", remedy="choose a longer span")
    w = world(pack(params, venue, record), params.initial_capital)
    lines = np.zeros((high - low, EQUITY_WIDTH))
    room = max(ROOM, 6 * (high - low)) if record else 1
    made = [np.empty((room, width)) for width in (FILL_WIDTH, ORDER_WIDTH, VERDICT_WIDTH)]
    rows = np.zeros(3, np.int64)
    at = low
    while at < high:
        at = walk(w, X, C, at, low, high, lines, made[0], made[1], made[2], rows)
        if at < high:
            made = [np.concatenate((part, np.empty_like(part))) for part in made]
    fills, orders, verdicts = (part[:n] for part, n in zip(made, rows, strict=True))
    return Raw(w, lines, fills, orders, verdicts, low)


@kernel
def walk(
    w: World,
    X: Floats,
    C: Floats,
    start: int,
    low: int,
    high: int,
    lines: Floats,
    fills: Floats,
    orders: Floats,
    verdicts: Floats,
    rows: npt.NDArray[np.int64],
) -> int:
    """Bars from `start` on; the bar it came to: `high`, or one whose rows may need more room."""
    P, S = w.P, w.S
    X, C, lines = borrowed(X), borrowed(C), borrowed(lines)
    for i in range(start, high):
        if P[RECORD] and (
            rows[0] + len(w.fills) > len(fills)
            or rows[1] + len(w.orders) > len(orders)
            or rows[2] + len(w.verdicts) > len(verdicts)
        ):
            return i
        first = int(X[i, FIRST_CANDLE])
        last = int(X[i + 1, FIRST_CANDLE]) if i + 1 < len(X) else len(C)
        if P[PEER] and i >= P[WARM_UP]:
            decide(w, X[i], i)
        for j in range(first, last):
            trade(w, C[j], (i, j), j == first)
        write_line(w, X[i, CLOSE], lines[i - low])
        if not P[PEER] and i >= P[WARM_UP]:
            decide(w, X[i], i)
        line = lines[i - low]
        line[6], line[7] = S[REGIME], S[HALTED] + 2 * S[BLOCKED]
        line[8], line[9] = S[ENTRIES_AT] + S[ENTRIES_AT + 1], S[EXITS_AT] + S[EXITS_AT + 1]
        if i + 1 == high:
            finish(w, C, i, last - 1, line)
        if P[RECORD]:
            rows[0] = moved(w.fills, int(S[N_FILLS]), fills, rows[0])
            rows[1] = moved(w.orders, int(S[N_ORDERS]), orders, rows[1])
            rows[2] = moved(w.verdicts, int(S[N_VERDICTS]), verdicts, rows[2])
            S[N_FILLS] = S[N_ORDERS] = S[N_VERDICTS] = 0.0
    return high


@inner
def moved(made: Floats, n: int, rows: Floats, at: int) -> int:
    """Copy the bar's rows to the run's; how many there are then."""
    for k in range(n):
        for field in range(rows.shape[1]):
            rows[at + k, field] = made[k, field]
    return at + n


@inner
def write_line(w: World, close: float, line: Floats) -> None:
    """Money and positions at a bar's close."""
    line[0], line[1] = w.S[WALLET], equity(w, close)
    for side in range(2):
        cost = 0.0
        for k in range(int(w.S[LOTS_AT + side])):
            cost += w.lots[side, k, LOT_QTY] * w.lots[side, k, LOT_PRICE]
        qty = held(w, side)
        line[2 + 2 * side], line[3 + 2 * side] = qty, cost / qty if qty > 0 else 0.0


@inner
def finish(w: World, C: Floats, bar: int, candle: int, line: Floats) -> None:
    """Close both sides at the last close."""
    price = C[candle, C_CLOSE]
    for side in range(2):
        qty = held(w, side)
        if qty > 0:
            close_first(w, (bar, candle), side, FINAL_CLOSE, price, qty, w.P[TAKER], 0.0, 0.0)
    write_line(w, price, line)
