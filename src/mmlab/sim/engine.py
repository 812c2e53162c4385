"""The compiled loop: one ordered stream of frames and prints, and every order from decision to end.

At each event of the tape, at time t:

1. `_advance` lives through the time since the event before: orders reach the venue, expire or are cancelled at their
   own instants; under `poisson` and `hybrid` each resting order's hazard A exp(-k delta) is integrated over the time
   that passed, piece by piece between those instants, the schedule's edges and the end of the book's life
   (`max_book_age_ms`), and its fill falls at the exact nanosecond.
2. A print fills orders by price (`trade_cross`, `hybrid`): best price first, then oldest, its quantity shared once.
   Where it reaches own buys and sells that have crossed, the oldest one's side comes first.
3. A frame replaces the book and may fill what it crosses (`price_cross`). If a decision is due, the strategy takes in
   the reports that have arrived, its quotes are compared with the orders at work, cancels and new orders leave, and
   the account is written down. A script, if there is one, says when that is and what is wanted, and every order at
   work gives way to what it wants.

An order that becomes active at t meets the book as it was before t, and prints from t on. It can be filled until its
cancel takes effect. The strategy knows what has been received, and its fills once their reports have arrived.
"""

from __future__ import annotations

import numpy as np

from mmlab.core.kernels import hot, inner, kernel, unlocked
from mmlab.sim import layout as at
from mmlab.sim import wants
from mmlab.sim.account import fill as fill_order
from mmlab.sim.account import learn, leave, refusal, to_balance
from mmlab.sim.clock import next_fill
from mmlab.sim.layout import World
from mmlab.sim.matching import arrive, book_at_queues, cross, match, print_at_queues, reached


@hot
def _next_instant(t: int, S: at.Ints, L: at.Ints) -> tuple[int, int, int]:
    """The first (time, order, 0 end or 1 arrival) up to t; order -1 if nothing happens until then."""
    when, which, kind = t, -1, 0
    for j in range(S[at.LIVE]):
        end = min(L[j, at.EXPIRE], L[j, at.EFFECTIVE])
        if end < when or (end == when and (which < 0 or kind == 1)):
            when, which, kind = end, j, 0
        if L[j, at.PHASE] == at.ON_ITS_WAY and (L[j, at.ACTIVE] < when or (L[j, at.ACTIVE] == when and which < 0)):
            when, which, kind = L[j, at.ACTIVE], j, 1
    return when, which, kind


@inner
def _advance(t: int, w: World) -> None:
    """Step 1: live from S[NOW] to t under the book in force."""
    S, L = w.S, w.L
    while True:
        when, which, kind = _next_instant(t, S, L)
        if w.P[at.BY_CLOCKS] == 1 and S[at.LIVE] > 0:
            j = next_fill(when, w)
            if j >= 0:
                fill_order(S[at.NOW], j, L[j, at.LEFT], L[j, at.PRICE], at.BY_CLOCK, w)
                continue
        S[at.NOW] = when
        if which < 0:
            return
        if kind == 1:
            arrive(when, which, w)
            continue
        gone = at.EXPIRED if L[which, at.EXPIRE] < L[which, at.EFFECTIVE] else at.CANCEL_ACK
        if gone == at.EXPIRED:
            L[which, at.WHY] = at.TTL_EXPIRE
        at.log_order(when, gone, L[which], at.FINE, w)
        leave(when, which, gone, w)


@hot
def _slot(j: int, w: World) -> int:
    """The innermost level whose wanted price order j holds, near enough, and which no older order holds; -1 if none."""
    s = 0 if w.L[j, at.SIDE] == 1 else 1
    for i in range(w.W.shape[1]):
        row = w.W[s, i]
        near = abs(w.L[j, at.PRICE] - row[at.WANT_PRICE]) < w.P[at.MIN_MOVE]
        if near and row[at.WANT_KEPT] == 0 and row[at.WANT_LOTS] > 0:
            return i
    return -1


@hot
def _is_wanted(s: int, w: World) -> bool:
    """Some quote is wanted on side s."""
    wanted = 0
    for i in range(w.W.shape[1]):
        wanted += w.W[s, i, at.WANT_LOTS]
    return wanted > 0


@hot
def _give_way(t: int, why: int, w: World) -> None:
    """Keep what stands where it is wanted, and cancel the rest; a script keeps nothing."""
    P, S, L, W = w.P, w.S, w.L, w.W
    for s in range(2):
        for i in range(W.shape[1]):
            W[s, i, at.WANT_KEPT] = 0
    for j in range(S[at.LIVE]):
        o = L[j]
        if o[at.REQUESTED] != at.NEVER:
            continue
        s = 0 if o[at.SIDE] == 1 else 1
        slot = _slot(j, w) if why == at.FINE and P[at.SCRIPTED] == 0 else -1
        if slot >= 0:
            W[s, slot, at.WANT_KEPT] = 1
            continue
        o[at.REQUESTED] = t
        if o[at.PHASE] == at.GONE:
            at.log_order(t, at.CANCEL_REJECT, o, at.IS_GONE, w)
            continue
        o[at.EFFECTIVE] = t + at.delay(at.CANCEL, t, o[at.ID], w) + at.delay(at.FEED, t, o[at.ID], w)
        o[at.WHY] = at.QUOTE_CHANGE if why == at.FINE and _is_wanted(s, w) else at.NO_QUOTE
        at.log_order(t, at.CANCEL_REQ, o, at.FINE, w)


@hot
def _send(t: int, s: int, i: int, until: int, why: int, w: World) -> None:
    """Send the order that is missing at level i of side s, or write down once why it may not be sent."""
    P, S, W = w.P, w.S, w.W
    side = 1 if s == 0 else -1
    price, lots = W[s, i, at.WANT_PRICE], W[s, i, at.WANT_LOTS]
    if P[at.TO_BALANCE] == 1 and why == at.FINE:
        part = to_balance(side, price, lots, w)
        lots = part if part > 0 else lots
    o = w.L[S[at.LIVE]]
    o[at.ID], o[at.SIDE], o[at.PRICE] = 0, side, price
    o[at.LEFT], o[at.SIZE], o[at.KNOWN] = lots, lots, lots
    o[at.ACTIVE] = t + at.delay(at.ENTRY, t, S[at.NEXT_ID], w) + at.delay(at.FEED, t, S[at.NEXT_ID], w)
    o[at.EXPIRE], o[at.UNTIL], o[at.REQUESTED], o[at.EFFECTIVE] = until, until, at.NEVER, at.NEVER
    o[at.PHASE], o[at.WHY], o[at.QUEUE], o[at.SHOWN], o[at.TRADED], o[at.AHEAD] = at.ON_ITS_WAY, 0, -1, -1, 0, -1
    refused = why if why != at.FINE else refusal(t, side, price, lots, w)
    if refused != at.FINE:
        if W[s, i, at.WANT_REFUSED] != refused:
            at.log_order(t, at.SKIPPED, o, refused, w)
        W[s, i, at.WANT_REFUSED] = refused
        return
    W[s, i, at.WANT_REFUSED] = at.FINE
    o[at.ID] = S[at.NEXT_ID]
    if P[at.TTL] > 0:
        o[at.EXPIRE] = o[at.UNTIL] = min(until, o[at.ACTIVE] + P[at.TTL])
    w.H[S[at.LIVE], 0], w.H[S[at.LIVE], 1] = -np.log(at.uniform(P[at.SEED], o[at.ID])), 0.0
    if P[at.LIMIT] > 0:
        w.T[S[at.SENT_AT] % P[at.LIMIT]] = t
        S[at.SENT_AT] += 1
    S[at.NEXT_ID] += 1
    S[at.LIVE] += 1
    at.log_order(t, at.PLACED, o, at.FINE, w)


@hot
def _decide(t: int, until: int, why: int, w: World) -> None:
    """Step 3: what is at work gives way to what is wanted; what is missing is sent; the account is written down."""
    W = w.W
    if why != at.FINE:
        for s in range(2):
            for i in range(W.shape[1]):
                W[s, i, at.WANT_PRICE], W[s, i, at.WANT_LOTS] = 0, w.P[at.QTY] if i == 0 else 0
    _give_way(t, why, w)
    for s in range(2):
        for i in range(W.shape[1]):
            if W[s, i, at.WANT_KEPT] == 1 or W[s, i, at.WANT_LOTS] == 0:
                W[s, i, at.WANT_REFUSED] = at.FINE
            else:
                _send(t, s, i, until, why, w)
    at.log_state(t, w)


@kernel
def settle(w: World) -> None:
    """Go on after SPEAK: W has been filled."""
    w = at.bare(w)
    _decide(w.S[at.NOW], at.NEVER, at.FINE, w)


@inner
def _obey(i: int, w: World) -> int:
    """Fill W from the script's line of frame i; until when its orders can be filled."""
    w.W[0, 0, at.WANT_PRICE], w.W[1, 0, at.WANT_PRICE] = w.script[i, at.LINE_BID], w.script[i, at.LINE_ASK]
    w.W[0, 0, at.WANT_LOTS] = w.P[at.QTY] if w.script[i, at.LINE_BID] > 0 else 0
    w.W[1, 0, at.WANT_LOTS] = w.P[at.QTY] if w.script[i, at.LINE_ASK] > 0 else 0
    return int(w.script[i, at.LINE_UNTIL])


@hot
def _live(t: int, w: World) -> None:
    """Step 1, in short where nothing happens before t but the passing of time."""
    S, L = w.S, w.L
    due, j = _next_instant(t, S, L)[1] >= 0, -1
    if w.P[at.BY_CLOCKS] == 1 and not due:
        j = next_fill(t, w)
    if j >= 0:
        fill_order(S[at.NOW], j, L[j, at.LEFT], L[j, at.PRICE], at.BY_CLOCK, w)
    if due or j >= 0:
        _advance(t, w)


@hot
def _print(t: int, p: int, w: World) -> None:
    """Step 2: print p meets the orders that rest."""
    if w.P[at.QUEUES] == 1:
        print_at_queues(w.prints[p, at.PRINT_PRICE], w.prints[p, at.PRINT_LOTS], w)
    if reached(w.prints[p, at.PRINT_PRICE], w.prints[p, at.PRINT_LOTS], w) >= 0:
        match(t, w.prints[p, at.PRINT_PRICE], w.prints[p, at.PRINT_LOTS], w)


@hot
def _frame(t: int, i: int, w: World) -> bool:
    """Step 3: frame i is the book; True if a strategy of the user's is to speak."""
    P, S = w.P, w.S
    S[at.TAKEN_BID], S[at.TAKEN_ASK] = 0, 0
    if P[at.QUEUES] == 1:
        book_at_queues(w)
    if P[at.BY_BOOKS] == 1 and S[at.LIVE] > 0:
        cross(t, w)
    wants.sample(t, w.frames[i, at.BREAK] == 1, w)
    scripted = P[at.SCRIPTED] == 1
    if scripted and w.script[i, at.LINE_DECIDES] == 0:
        return False
    if not scripted and S[at.DECIDED] >= 0 and t - S[at.DECIDED] < P[at.REQUOTE]:
        return False
    S[at.DECIDED] = t
    learn(t, w)
    if scripted:
        _decide(t, _obey(i, w), at.FINE, w)
    elif P[at.MODEL] == at.STRATEGY:
        wants.look(t, w)
        return True
    else:
        _decide(t, at.NEVER, wants.want(t, w), w)
    return False


@hot
def _is_full(w: World) -> bool:
    """The rows of one more event may not find room."""
    S = w.S
    room = (4 + w.deep.shape[1] // 2) * w.L.shape[0] + 16
    return bool(
        S[at.N_ORDERS] + room > w.orders.shape[0]
        or S[at.N_FILLS] + room > w.fills.shape[0]
        or S[at.N_STATE] + room > w.state.shape[0]
        or S[at.REPORT_N] + room > w.Q.shape[0]
    )


@unlocked
def walk(w: World) -> int:
    """Walk the tape from where S stands until it ends (DONE), a buffer is nearly full (ROOM: make room and call again)
    or a strategy of the user's is to speak (SPEAK: fill W, call `settle`, and call again)."""
    w = at.bare(w)
    S, prints = w.S, w.P[at.BY_PRINTS] == 1
    frames, tape_prints = w.frames, w.prints
    n_frames, n_prints = frames.shape[0], tape_prints.shape[0]
    while S[at.FRAME_AT] < n_frames or S[at.PRINT_AT] < n_prints:
        if _is_full(w):
            return at.ROOM
        i, p = S[at.FRAME_AT], S[at.PRINT_AT]
        is_frame = i < n_frames
        if is_frame and p < n_prints:
            frame_ns, print_ns = frames[i, at.FRAME_NS], tape_prints[p, at.PRINT_NS]
            earlier = frames[i, at.FRAME_SEQ] < tape_prints[p, at.PRINT_SEQ]
            is_frame = frame_ns < print_ns or (frame_ns == print_ns and earlier)
        t = frames[i, at.FRAME_NS] if is_frame else tape_prints[p, at.PRINT_NS]
        if S[at.LIVE] > 0:
            _live(t, w)
        S[at.NOW] = t
        if is_frame:
            S[at.FRAME_AT] += 1
            if _frame(t, i, w):
                return at.SPEAK
        else:
            S[at.PRINT_AT] += 1
            if prints and S[at.LIVE] > 0:
                _print(t, p, w)
    return at.DONE
