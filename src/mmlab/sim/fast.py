"""The same walk for what metrics need alone: it jumps over what changes nothing, and rows are summed as they are made.

Jumped over, where orders have no clocks of their own: the prints between two frames when none of them goes as far as
an own order, by the highest and lowest price of each such gap; and a frame whose touch is that of the one before, when
the last decision found nothing to do, no order is due, no report has come in and no print reached an order since. The
rows of `orders` and `state` are folded into sums at once. Everything else is done by the kernels of the plain walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmlab.core.kernels import borrowed, hot, unlocked
from mmlab.core.ledger import Money
from mmlab.core.spans import NS_PER_MIN
from mmlab.sim import layout as at
from mmlab.sim import run as plain
from mmlab.sim.engine import _frame, _is_full, _live, _print
from mmlab.sim.events import GAP_HIGH, GAP_LOW, GAP_PRINTS, Tape
from mmlab.sim.intensity import Intensity
from mmlab.sim.latency import delays
from mmlab.sim.layout import World
from mmlab.sim.matching import book_at_queues
from mmlab.sim.spec import BacktestSpec

ROWS = 1 << 13
COUNTED = 2.0**59  # quanta: beyond it the plain walk is asked, which says what outgrew its whole numbers
NOT_YET = -1

# N: whole numbers summed over the rows
(PLACED, CANCELS, FILLED, WAITED, SEEN_FILLS, SEEN_STATES, FIRST_NS, FIRST_LOTS, FIRST_MID2, LAST_NS, LAST_MID2,
 HAS_BID, HAS_ASK, BID_NS, ASK_NS, BOTH_NS, LOOK_NS, LOOKS, BELOW_SINCE, BELOW_NS, TOO_LARGE) = range(21)  # fmt: skip
# V: values of the account, quote currency
VALUE, HIGH, FALL, FALL_FROM, FALL_TO, SCALE = range(6)


@dataclass(frozen=True)
class Sums:
    """What is left of a run's rows.

    fills: the kernel's rows. looks: the account's value each minute, quote currency. fall: its deepest fall, from and
    to. below_ns: its longest time below its highest. quoted_ns: how long there was an own bid, an ask, both.
    """

    fills: at.Ints
    looks: at.Floats
    fall: tuple[float, float]
    below_ns: int
    quoted_ns: tuple[int, int, int]
    placed: int
    cancels: int
    filled: int
    waited_ns: int
    span_ns: tuple[int, int]
    first: tuple[int, int]  # lots, half ticks
    last_mid2: int


def sums(tape: Tape, spec: BacktestSpec, intensity: Intensity, rows: int = ROWS) -> Sums | None:
    """Simulate; None for a run that only the plain walk can do. Raises what the plain one raises."""
    if spec.quote.model == "strategy":
        return None
    w = plain._world(tape, spec, intensity, rows, None, delays(spec, None, tape.frame_ns, tape.exch_ns))
    first, last = tape.span_ns
    N, V = np.zeros(TOO_LARGE + 1, np.int64), np.zeros(SCALE + 1)
    looks = np.zeros((last - first) // NS_PER_MIN + 1)
    N[BELOW_SINCE], V[SCALE] = NOT_YET, 2 * 10 ** Money.of(tape.instrument).digits
    made: list[at.Ints] = []
    status = at.ROOM
    while status != at.DONE:
        status = hurry(w, tape.gaps, N, V, looks)
        if status == at.DONE:
            plain._last_state(tape, w)
            close(w, N, V, looks)
        made.append(w.fills[: w.S[at.N_FILLS]].copy())
        w.S[at.N_FILLS] = N[SEEN_FILLS] = 0
        w = w._replace(Q=plain._room_for_reports(w))
    if N[TOO_LARGE]:
        return None
    n = N.tolist()
    return Sums(
        fills=np.concatenate(made),
        looks=looks[: n[LOOKS]],
        fall=(float(V[FALL_FROM]), float(V[FALL_TO])),
        below_ns=n[BELOW_NS],
        quoted_ns=(n[BID_NS], n[ASK_NS], n[BOTH_NS]),
        placed=n[PLACED],
        cancels=n[CANCELS],
        filled=n[FILLED],
        waited_ns=n[WAITED],
        span_ns=(n[FIRST_NS], n[LAST_NS]),
        first=(n[FIRST_LOTS], n[FIRST_MID2]),
        last_mid2=n[LAST_MID2],
    )


@hot
def _sum_orders(w: World, N: at.Ints) -> None:
    """Count the rows of `orders`, and let them go. Each FILLED row is that of the next row of `fills`."""
    for r in range(w.S[at.N_ORDERS]):
        row = w.orders[r]
        if row[2] == at.PLACED:
            N[PLACED] += 1
        elif row[2] == at.CANCEL_REQ:
            N[CANCELS] += 1
        elif row[2] == at.FILLED:
            lots = w.fills[N[SEEN_FILLS], 4]
            N[SEEN_FILLS] += 1
            if row[7] + lots == row[6]:  # the order's first fill
                N[FILLED] += 1
                N[WAITED] += row[0] - row[8]
    w.S[at.N_ORDERS] = 0


@hot
def _look_at(t: int, N: at.Ints, V: at.Floats, looks: at.Floats) -> None:
    """The account at every full minute before t, as the last row said."""
    while N[LOOK_NS] < t:
        looks[N[LOOKS]] = V[VALUE]
        N[LOOKS] += 1
        N[LOOK_NS] += NS_PER_MIN


@hot
def _sum_states(w: World, N: at.Ints, V: at.Floats, looks: at.Floats) -> None:
    """Take in the rows of `state`, and let them go."""
    per = w.P[at.PER]
    for r in range(w.S[at.N_STATE]):
        row = w.state[r]
        t, lots, cash, mid2 = row[0], row[1], row[2], row[3]
        if max(np.float64(abs(cash)), abs(lots) * (mid2 * np.float64(per))) > COUNTED:
            N[TOO_LARGE] = 1
        value = np.float64(2 * cash + lots * mid2 * per) / V[SCALE]
        if N[SEEN_STATES] == 0:
            N[FIRST_NS], N[FIRST_LOTS], N[FIRST_MID2], N[LAST_NS], N[LOOK_NS] = t, lots, mid2, t, t
            V[HIGH], V[FALL_FROM], V[FALL_TO] = value, value, value
        _look_at(t, N, V, looks)
        held = t - N[LAST_NS]
        N[BID_NS] += held * N[HAS_BID]
        N[ASK_NS] += held * N[HAS_ASK]
        N[BOTH_NS] += held * N[HAS_BID] * N[HAS_ASK]
        N[HAS_BID], N[HAS_ASK] = row[5] > 0, row[6] > 0
        V[HIGH] = max(V[HIGH], value)
        if V[HIGH] - value > V[FALL]:
            V[FALL], V[FALL_FROM], V[FALL_TO] = V[HIGH] - value, V[HIGH], value
        if value < V[HIGH]:
            if N[BELOW_SINCE] == NOT_YET:
                N[BELOW_SINCE] = t
        elif N[BELOW_SINCE] != NOT_YET:
            N[BELOW_NS] = max(N[BELOW_NS], t - N[BELOW_SINCE])
            N[BELOW_SINCE] = NOT_YET
        N[SEEN_STATES] += 1
        N[LAST_NS], N[LAST_MID2], V[VALUE] = t, mid2, value
    w.S[at.N_STATE] = 0


@hot
def _sum(w: World, N: at.Ints, V: at.Floats, looks: at.Floats) -> None:
    """Take in all rows but those of `fills`."""
    if w.S[at.N_ORDERS] > 0:
        _sum_orders(w, N)
    if w.S[at.N_STATE] > 0:
        _sum_states(w, N, V, looks)


@unlocked
def close(w: World, N: at.Ints, V: at.Floats, looks: at.Floats) -> None:
    """The last row, and what lasts to the end."""
    w = at.bare(w)
    _sum(w, N, V, looks)
    _look_at(N[LAST_NS] + 1, N, V, looks)
    if N[BELOW_SINCE] != NOT_YET:
        N[BELOW_NS] = max(N[BELOW_NS], N[LAST_NS] - N[BELOW_SINCE])


@hot
def _outlook(w: World) -> tuple[int, int, int]:
    """From which price down a print meets an own bid, from which up an ask, and when the first order is due."""
    L, top, low, due = w.L, -at.NEVER, at.NEVER, at.NEVER
    for j in range(w.S[at.LIVE]):
        if L[j, at.PHASE] == at.GONE:
            continue
        if w.P[at.BY_PRINTS] == 1 and L[j, at.SIDE] == 1:
            top = max(top, L[j, at.PRICE] - w.P[at.BEYOND])
        elif w.P[at.BY_PRINTS] == 1:
            low = min(low, L[j, at.PRICE] + w.P[at.BEYOND])
        due = min(due, L[j, at.EXPIRE], L[j, at.EFFECTIVE])
        if L[j, at.PHASE] == at.ON_ITS_WAY:
            due = min(due, L[j, at.ACTIVE])
    return top, low, due


@hot
def _is_by_formula(w: World) -> bool:
    """Quotes need a volatility and k."""
    return bool(w.P[at.MODEL] == at.AVELLANEDA_STOIKOV or w.P[at.MODEL] == at.GLFT)


@hot
def _until(t: int, w: World) -> int:
    """Until when the intensity that quotes go by is that of t."""
    asked = _is_by_formula(w) and np.isnan(w.F[at.QUOTE_K])
    asked |= w.P[at.MODEL] == at.GLFT and np.isnan(w.F[at.QUOTE_A])
    s = w.S[at.SEGMENT]
    if not asked or s >= w.edges.shape[0]:
        return at.NEVER
    return int(w.edges[s, at.ENDS] if w.edges[s, at.STARTS] <= t else w.edges[s, at.STARTS])


@hot
def _may_rest(w: World) -> bool:
    """A decision that found nothing to do finds nothing again while its inputs are the same."""
    P = w.P
    timed = P[at.LIMIT] > 0 or (P[at.SESSION] > 0 and P[at.MODEL] == at.AVELLANEDA_STOIKOV)
    return P[at.BY_CLOCKS] == 0 and P[at.BY_BOOKS] == 0 and P[at.SCRIPTED] == 0 and not timed


@hot
def _is_measured(w: World) -> bool:
    """The quotes go by a volatility that is measured on the way."""
    return _is_by_formula(w) and np.isnan(w.F[at.SIGMA])


@hot
def _is_same(i: int, t: int, measured: bool, w: World) -> bool:
    """Frame i tells a decision nothing that the frame before did not."""
    S, now, before = w.S, w.frames[i], w.frames[i - 1]
    if now[at.BID] != before[at.BID] or now[at.ASK] != before[at.ASK]:
        return False
    if w.P[at.MODEL] == at.MICROPRICE and (
        now[at.BID_LOTS] != before[at.BID_LOTS] or now[at.ASK_LOTS] != before[at.ASK_LOTS]
    ):
        return False
    if measured and (now[at.BREAK] == 1 or t - S[at.SAMPLE_NS] >= 1_000_000_000):
        return False
    return bool(S[at.REPORT_AT] == S[at.REPORT_N] or w.Q[S[at.REPORT_AT], at.REPORT_NS] > t)


@hot
def _pass(i: int, t: int, w: World) -> None:
    """Frame i changes nothing but the queues and the time of the last decision."""
    S = w.S
    S[at.FRAME_AT], S[at.NOW], S[at.TAKEN_BID], S[at.TAKEN_ASK] = i + 1, t, 0, 0
    if w.P[at.QUEUES] == 1:
        book_at_queues(w)
    if t - S[at.DECIDED] >= w.P[at.REQUOTE]:
        S[at.DECIDED] = t


@unlocked
def hurry(w: World, gaps: at.Ints, N: at.Ints, V: at.Floats, looks: at.Floats) -> int:
    """`engine.walk`, from where S stands, until DONE or ROOM; rows go into N, V and looks, but for `fills`."""
    w, gaps, N, V, looks = at.bare(w), borrowed(gaps), borrowed(N), borrowed(V), borrowed(looks)
    S, frames, prints = w.S, w.frames, w.prints
    n_frames, n_prints = frames.shape[0], prints.shape[0]
    by_prints, jumps, measured, may_rest = w.P[at.BY_PRINTS] == 1, w.P[at.BY_CLOCKS] == 0, _is_measured(w), _may_rest(w)
    rests, until = False, 0  # the last decision found nothing to do, and until when that holds
    top, low, due = _outlook(w)
    while S[at.FRAME_AT] < n_frames or S[at.PRINT_AT] < n_prints:
        if _is_full(w):
            return at.ROOM
        i, p = S[at.FRAME_AT], S[at.PRINT_AT]
        is_last = i == n_frames
        if p < (n_prints if is_last else gaps[i, GAP_PRINTS]):
            if not is_last and (S[at.LIVE] == 0 or (jumps and gaps[i, GAP_LOW] > top and gaps[i, GAP_HIGH] < low)):
                S[at.PRINT_AT] = gaps[i, GAP_PRINTS]
            elif not is_last and jumps and low > prints[p, at.PRINT_PRICE] > top:
                S[at.PRINT_AT] += 1
                continue
            else:
                t, rests = prints[p, at.PRINT_NS], False
                if S[at.LIVE] > 0:
                    _live(t, w)
                S[at.NOW] = t
                S[at.PRINT_AT] += 1
                if by_prints and S[at.LIVE] > 0:
                    _print(t, p, w)
                _sum(w, N, V, looks)
                top, low, due = _outlook(w)
                continue
        t = frames[i, at.FRAME_NS]
        if rests and t < due and t < until and _is_same(i, t, measured, w):
            _pass(i, t, w)
            continue
        if S[at.LIVE] > 0:
            _live(t, w)
        S[at.NOW] = t
        S[at.FRAME_AT] += 1
        n_orders, decided = S[at.N_ORDERS], S[at.DECIDED]
        _frame(t, i, w)
        rests = may_rest and S[at.DECIDED] != decided and S[at.N_ORDERS] == n_orders
        until = _until(t, w)
        _sum(w, N, V, looks)
        top, low, due = _outlook(w)
    return at.DONE
