"""The compiled loop: one ordered stream of frames and prints, and every order from decision to end.

At each event of the tape, at time t:

1. `_advance` lives through the time since the event before: orders become active, expire or are
   cancelled at their own instants; under `poisson`, each active order's hazard A exp(-k delta) is
   integrated over the time that passed, piece by piece between those instants, the schedule's edges and
   the end of the book's life (`max_book_age_ms`), and its fill falls at the exact nanosecond. An order
   that becomes active against a touch that it crosses is refused (post-only) or takes from the touch.
2. A print fills orders by price alone (`trade_cross`): best price first, then oldest, its quantity
   shared once. Where it reaches own buys and sells that have crossed, the oldest one's side comes first.
3. A frame replaces the book; if a decision is due, quotes are compared with the orders at work,
   cancels and new orders leave, and the account is written down. A script, if there is one, says
   when that is and what is wanted, and every order at work gives way to what it wants.

An order that becomes active at t meets the book as it was before t, and prints from t on. It can be
filled until its cancel takes effect. The strategy knows what has been received, and its fills at once.
Everything is counted in ticks, lots and quanta of money; floats occur in quotes and hazards only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmlab.core.kernels import kernel
from mmlab.core.ledger import fee_quanta

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Segments = tuple[Ints, Ints, Floats, Floats]  # start_ns, end_ns, A, k
Lines = tuple[npt.NDArray[np.bool_], Ints, Ints, Ints]  # sim/script.py, frame by frame: decide, bid, ask, until_ns

NEVER = 2**62
S_PER_NS = 1e-9
MOST_QUANTA = 2.0**58  # an order worth more is not told apart from one that is never filled
MOST_EXPONENT = 50.0  # exp(50) a second fills at once; beyond it floats would overflow

# P: the specification in whole numbers
(QTY, ENTRY, CANCEL, REQUOTE, TTL, MAKER, TAKER, POST_ONLY, SPOT, CAP, PER, MIN_NOTIONAL, MODEL, POISSON, THROUGH, SEED,
 MAX_AGE, WINDOW, SCRIPTED) = range(19)  # fmt: skip
# F: the specification in decimals; sigma nan: measured; k nan: the intensity's
HALF_SPREAD, GAMMA, SIGMA, HORIZON, QUOTE_K, TICK = range(6)
# S: the state between events
(CASH, LOTS, FEES, LIVE, NEXT_ID, FRAME_AT, PRINT_AT, NOW, DECIDED, SKIP_BUY, SKIP_SELL, TAKEN_BID, TAKEN_ASK, SEGMENT,
 SAMPLE_NS, SAMPLE_MID2, RING_AT, RING_N, SUM_NS, SUM_MOVE2, N_ORDERS, N_FILLS, N_STATE,
 LAST_STATE_NS) = range(24)  # fmt: skip
# L: one live order a row, oldest first; H: its exponential draw, the hazard it has lived through, its rate
ID, SIDE, PRICE, LEFT, ACTIVE, EXPIRE, REQUESTED, EFFECTIVE, IS_ACTIVE, WHY, SIZE = range(11)

ACTIONS = ("PLACE", "REJECT", "SKIP", "CANCEL_REQ", "CANCEL_ACK", "EXPIRE", "FILL", "CLOSE_FILLED")
PLACED, REJECTED, SKIPPED, CANCEL_REQ, CANCEL_ACK, EXPIRED, FILLED, CLOSED = range(8)
STATUSES = ("OPEN", "CANCEL_PENDING", "CANCELLED", "EXPIRED", "FILLED", "REJECTED", "SKIPPED")
STATUS_OF = np.array([0, 5, 6, 1, 2, 3, 0, 4])  # by action; a partial fill keeps OPEN or CANCEL_PENDING
REFUSALS = (
    "", "post_only_would_cross", "insufficient_cash", "insufficient_inventory", "max_inventory", "min_notional",
    "no_sigma", "no_intensity",
)  # fmt: skip
(FINE, WOULD_CROSS, NO_CASH, NO_INVENTORY, OVER_CAP, TOO_SMALL, NO_SIGMA, NO_INTENSITY) = range(8)
CANCELS = ("", "QUOTE_CHANGE", "NO_DESIRED_QUOTE", "TTL_EXPIRE")
QUOTE_CHANGE, NO_QUOTE, TTL_EXPIRE = 1, 2, 3
FILL_REASONS = ("trade_cross", "poisson", "taker")
BY_PRINT, BY_CLOCK, BY_TAKING = range(3)
ORDER_WIDTH, FILL_WIDTH, STATE_WIDTH = 14, 8, 7


@kernel
def uniform(seed: int, order_id: int) -> float:
    """A number in (0, 1] from (seed, order id) alone: splitmix64 (Steele, Lea and Flood 2014)."""
    z = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(order_id) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


@kernel
def _log_order(t: int, action: int, o: Ints, reason: int, S: Ints, out: Ints) -> None:
    """One row of `orders` about order `o`."""
    status = STATUS_OF[action]
    if action == FILLED and o[REQUESTED] != NEVER:
        status = 1
    row = out[S[N_ORDERS]]
    row[0], row[1], row[2], row[3] = t, o[ID], action, status
    row[4], row[5], row[6], row[7] = o[SIDE], o[PRICE], o[SIZE], o[LEFT]
    row[8], row[9], row[10], row[11] = o[ACTIVE], o[EXPIRE], o[REQUESTED], o[EFFECTIVE]
    row[12], row[13] = reason, o[WHY]
    S[N_ORDERS] += 1


@kernel
def _log_state(t: int, mid2: int, S: Ints, L: Ints, out: Ints) -> None:
    """One row of `state`: the account and the best own quotes that are not being cancelled."""
    bid, ask = 0, 0
    for j in range(S[LIVE]):
        if L[j, REQUESTED] == NEVER:
            if L[j, SIDE] == 1:
                bid = max(bid, L[j, PRICE])
            else:
                ask = L[j, PRICE] if ask == 0 else min(ask, L[j, PRICE])
    row = out[S[N_STATE]]
    row[0], row[1], row[2], row[3], row[4], row[5], row[6] = t, S[LOTS], S[CASH], mid2, S[LIVE], bid, ask
    S[N_STATE] += 1
    S[LAST_STATE_NS] = t


@kernel
def _remove(j: int, S: Ints, L: Ints, H: Floats) -> None:
    """Take order j out, keeping the others in order of age."""
    for i in range(j, S[LIVE] - 1):
        L[i], H[i] = L[i + 1], H[i + 1]
    S[LIVE] -= 1


@kernel
def _fill(
    t: int, j: int, lots: int, price: int, how: int, mid2: int, P: Ints, S: Ints, L: Ints, H: Floats,
    orders: Ints, fills: Ints, state: Ints,
) -> None:  # fmt: skip
    """Fill `lots` of order j at `price`: money moves, three tables get their rows."""
    notional = price * lots * P[PER]
    fee = fee_quanta(notional, P[TAKER] if how == BY_TAKING else P[MAKER])
    S[CASH] -= L[j, SIDE] * notional + fee
    S[LOTS] += L[j, SIDE] * lots
    S[FEES] += fee
    L[j, LEFT] -= lots
    row = fills[S[N_FILLS]]
    row[0], row[1], row[2], row[3] = t, L[j, ID], L[j, SIDE], price
    row[4], row[5], row[6], row[7] = lots, fee, how, mid2
    S[N_FILLS] += 1
    _log_order(t, FILLED, L[j], FINE, S, orders)
    if L[j, LEFT] == 0:
        _log_order(t, CLOSED, L[j], FINE, S, orders)
        _remove(j, S, L, H)
    _log_state(t, mid2, S, L, state)


@kernel
def _segment(t: int, starts: Ints, ends: Ints, S: Ints) -> bool:
    """Move to the schedule's segment at or after t; True if t lies in it."""
    while S[SEGMENT] < starts.size and ends[S[SEGMENT]] <= t:
        S[SEGMENT] += 1
    inside: bool = S[SEGMENT] < starts.size and starts[S[SEGMENT]] <= t
    return inside


@kernel
def _next_instant(t: int, S: Ints, L: Ints) -> tuple[int, int, int]:
    """The first (time, order, 0 end or 1 activation) up to t; order -1 if nothing happens until then."""
    when, which, kind = t, -1, 0
    for j in range(S[LIVE]):
        end = min(L[j, EXPIRE], L[j, EFFECTIVE])
        if end < when or (end == when and (which < 0 or kind == 1)):
            when, which, kind = end, j, 0
        if L[j, IS_ACTIVE] == 0 and (L[j, ACTIVE] < when or (L[j, ACTIVE] == when and which < 0)):
            when, which, kind = L[j, ACTIVE], j, 1
    return when, which, kind


@kernel
def _advance(
    t: int, frame_ns: int, bid: int, ask: int, bid_lots: int, ask_lots: int,
    segments: Segments, P: Ints, S: Ints, L: Ints, H: Floats, orders: Ints, fills: Ints, state: Ints,
) -> None:  # fmt: skip
    """Step 1: live from S[NOW] to t under the book of `frame_ns`."""
    mid2 = bid + ask
    while True:
        when, which, kind = _next_instant(t, S, L)
        if P[POISSON] == 1 and S[LIVE] > 0:
            j = _clock(when, frame_ns, mid2, segments, P, S, L, H)
            if j >= 0:
                _fill(S[NOW], j, L[j, LEFT], L[j, PRICE], BY_CLOCK, mid2, P, S, L, H, orders, fills, state)
                continue
        S[NOW] = when
        if which < 0:
            return
        if kind == 0:
            gone = EXPIRED if L[which, EXPIRE] < L[which, EFFECTIVE] else CANCEL_ACK
            if gone == EXPIRED:
                L[which, WHY] = TTL_EXPIRE
            _log_order(when, gone, L[which], FINE, S, orders)
            _remove(which, S, L, H)
        else:
            _activate(when, which, bid, ask, bid_lots, ask_lots, P, S, L, H, orders, fills, state)


@kernel
def _clock(when: int, frame_ns: int, mid2: int, segments: Segments, P: Ints, S: Ints, L: Ints, H: Floats) -> int:
    """Live through the hazards from S[NOW] to `when`, or to the first fill before it; the order filled, or -1."""
    old = frame_ns + P[MAX_AGE]
    while S[NOW] < when:
        now, stop, filled = S[NOW], when, -1
        inside = _segment(now, segments[0], segments[1], S)
        if S[SEGMENT] < segments[0].size:
            stop = min(stop, segments[1][S[SEGMENT]] if inside else segments[0][S[SEGMENT]])
        if now < old:
            stop = min(stop, old)
            if inside:
                filled, stop = _hazard(now, stop, mid2, segments[2][S[SEGMENT]], segments[3][S[SEGMENT]], S, L, H)
        S[NOW] = stop
        if filled >= 0:
            return filled
    return -1


@kernel
def _hazard(now: int, stop: int, mid2: int, A: float, k: float, S: Ints, L: Ints, H: Floats) -> tuple[int, int]:
    """Integrate all active orders' hazards from `now` to `stop`, or to the first fill; returns it and its time."""
    filled = -1
    for j in range(S[LIVE]):
        if L[j, IS_ACTIVE] == 1:
            rate = _rate(j, mid2, A, k, L)
            H[j, 2] = rate
            wait = np.ceil((H[j, 0] - H[j, 1]) / rate / S_PER_NS) if rate > 0.0 else np.inf
            if wait < 9e18 and now + int(max(wait, 0.0)) < stop:
                filled, stop = j, now + int(max(wait, 0.0))
    for j in range(S[LIVE]):
        if L[j, IS_ACTIVE] == 1:
            H[j, 1] += H[j, 2] * ((stop - now) * S_PER_NS)
    return filled, stop


@kernel
def _rate(j: int, mid2: int, A: float, k: float, L: Ints) -> float:
    """Intensity of order j in 1/s: A exp(-k delta), delta its signed distance behind the mid in ticks."""
    delta = L[j, SIDE] * (mid2 - 2 * L[j, PRICE]) / 2.0
    rate: float = A * np.exp(min(-k * delta, MOST_EXPONENT))
    return rate


@kernel
def _activate(
    t: int, j: int, bid: int, ask: int, bid_lots: int, ask_lots: int,
    P: Ints, S: Ints, L: Ints, H: Floats, orders: Ints, fills: Ints, state: Ints,
) -> None:  # fmt: skip
    """Order j reaches the book: it rests, is refused, or takes what the touch still shows."""
    buys = L[j, SIDE] == 1
    touch = ask if buys else bid
    if (L[j, PRICE] < touch) if buys else (L[j, PRICE] > touch):
        L[j, IS_ACTIVE] = 1
        return
    if P[POST_ONLY] == 1:
        _log_order(t, REJECTED, L[j], WOULD_CROSS, S, orders)
        _remove(j, S, L, H)
        return
    L[j, IS_ACTIVE] = 1
    taken = TAKEN_ASK if buys else TAKEN_BID
    lots = min(L[j, LEFT], (ask_lots if buys else bid_lots) - S[taken])
    if lots > 0:
        S[taken] += lots
        _fill(t, j, lots, touch, BY_TAKING, bid + ask, P, S, L, H, orders, fills, state)


@kernel
def _reached(price: int, P: Ints, S: Ints, L: Ints) -> int:
    """The order that a print fills first: best price, then oldest, on the side of the oldest; -1 if none."""
    best = -1
    for j in range(S[LIVE]):
        side = L[j, SIDE]
        if L[j, IS_ACTIVE] == 0 or side * (L[j, PRICE] - price) < P[THROUGH]:
            continue
        if best < 0 or (L[best, SIDE] == side and side * L[j, PRICE] > side * L[best, PRICE]):
            best = j
    return best


@kernel
def _match(
    t: int, price: int, lots: int, mid2: int, P: Ints, S: Ints, L: Ints, H: Floats,
    orders: Ints, fills: Ints, state: Ints,
) -> None:  # fmt: skip
    """Step 2: share one print among the orders that it reaches."""
    best = _reached(price, P, S, L)
    while best >= 0 and lots > 0:
        part = min(lots, L[best, LEFT])
        lots -= part
        _fill(t, best, part, L[best, PRICE], BY_PRINT, mid2, P, S, L, H, orders, fills, state)
        best = _reached(price, P, S, L)


@kernel
def _sample(t: int, mid2: int, fresh: bool, S: Ints, R: Ints) -> None:
    """Once a second, the mid's squared move over the time since the last sample, into the rolling sums."""
    if fresh or S[SAMPLE_NS] < 0:
        S[SAMPLE_NS], S[SAMPLE_MID2] = t, mid2
        return
    if t - S[SAMPLE_NS] < 1_000_000_000:
        return
    at = S[RING_AT]
    if S[RING_N] == R.shape[0]:
        S[SUM_NS] -= R[at, 0]
        S[SUM_MOVE2] -= R[at, 1]
    else:
        S[RING_N] += 1
    R[at, 0], R[at, 1] = t - S[SAMPLE_NS], (mid2 - S[SAMPLE_MID2]) ** 2
    S[SUM_NS] += R[at, 0]
    S[SUM_MOVE2] += R[at, 1]
    S[RING_AT] = (at + 1) % R.shape[0]
    S[SAMPLE_NS], S[SAMPLE_MID2] = t, mid2


@kernel
def _quotes(
    t: int, bid: int, ask: int, segments: Segments, k_price: Floats, P: Ints, F: Floats, S: Ints
) -> tuple[int, int, int]:
    """Wanted (buy price, sell price) in ticks and why there is none; prices never cross the touch."""
    mid = (bid + ask) / 2.0
    shift, half = 0.0, F[HALF_SPREAD]
    if P[MODEL] == 1:
        k = F[QUOTE_K]
        if np.isnan(k):
            if not _segment(t, segments[0], segments[1], S):
                return 0, 0, NO_INTENSITY
            k = k_price[S[SEGMENT]]
        variance = F[SIGMA] ** 2
        if np.isnan(variance):
            if 2 * S[SUM_NS] < P[WINDOW] * 1_000_000_000:
                return 0, 0, NO_SIGMA
            variance = S[SUM_MOVE2] / 4.0 * F[TICK] ** 2 / (S[SUM_NS] * S_PER_NS)
        risk = F[GAMMA] * variance * F[HORIZON]
        shift = S[LOTS] / P[QTY] * risk / F[TICK]
        half = (risk / 2 + np.log1p(F[GAMMA] / k) / F[GAMMA]) / F[TICK]
    # a hair's breadth, so that a price on the grid is not rounded a tick away by float noise
    buy = min(int(np.floor(min(max(mid - shift - half, 0.0), float(ask)) + 1e-9)), ask - 1)
    most = MOST_QUANTA / max(P[QTY] * P[PER], 1)
    sell = max(int(np.ceil(max(min(mid - shift + half, most), 0.0) - 1e-9)), bid + 1)
    return buy, sell, FINE


@kernel
def _reserve(price: int, lots: int, dearest: int, P: Ints) -> int:
    """Quanta that a buy order may cost: notional, fee, and a quantum a lot, as each part's fee may round up."""
    notional = price * lots * P[PER]
    quanta: int = notional + fee_quanta(notional, dearest) + lots
    return quanta


@kernel
def _refusal(side: int, price: int, P: Ints, S: Ints, L: Ints) -> int:
    """Why a new order of this side may not be sent now; live orders reserve what they may need."""
    notional = price * P[QTY] * P[PER]
    if price <= 0 or notional < P[MIN_NOTIONAL]:
        return TOO_SMALL
    dearest = max(P[MAKER], P[TAKER], 0)
    cash, lots, same = S[CASH], S[LOTS], 0
    for j in range(S[LIVE]):
        if L[j, SIDE] == side:
            same += L[j, LEFT]
        if L[j, SIDE] == 1:
            cash -= _reserve(L[j, PRICE], L[j, LEFT], dearest, P)
        else:
            lots -= L[j, LEFT]
    if P[CAP] >= 0 and side * S[LOTS] + same + P[QTY] > P[CAP]:
        return OVER_CAP
    if P[SPOT] == 1 and side == 1 and cash < _reserve(price, P[QTY], dearest, P):
        return NO_CASH
    if P[SPOT] == 1 and side == -1 and lots < P[QTY]:
        return NO_INVENTORY
    return FINE


@kernel
def _decide(
    t: int, buy: int, sell: int, until: int, why: int, P: Ints, S: Ints, L: Ints, H: Floats, orders: Ints
) -> None:
    """Step 3: keep what stands at the wanted price, cancel the rest, then send what is missing.

    A script keeps nothing, and its price 0 asks for no order.
    """
    scripted = P[SCRIPTED] == 1
    kept_buy, kept_sell = False, False
    for j in range(S[LIVE]):
        if L[j, REQUESTED] != NEVER:
            continue
        wanted = buy if L[j, SIDE] == 1 else sell
        if why == FINE and L[j, PRICE] == wanted and not scripted:
            kept_buy, kept_sell = kept_buy or L[j, SIDE] == 1, kept_sell or L[j, SIDE] == -1
            continue
        L[j, REQUESTED], L[j, EFFECTIVE] = t, t + P[CANCEL]
        L[j, WHY] = NO_QUOTE if why != FINE or (scripted and wanted == 0) else QUOTE_CHANGE
        _log_order(t, CANCEL_REQ, L[j], FINE, S, orders)
    for side in (1, -1):
        skip = SKIP_BUY if side == 1 else SKIP_SELL
        wanted = buy if side == 1 else sell
        if (kept_buy if side == 1 else kept_sell) or (scripted and wanted == 0):
            S[skip] = FINE
            continue
        o = L[S[LIVE]]
        o[ID], o[SIDE], o[PRICE], o[LEFT], o[SIZE] = 0, side, wanted, P[QTY], P[QTY]
        o[ACTIVE], o[EXPIRE], o[REQUESTED], o[EFFECTIVE] = t + P[ENTRY], until, NEVER, NEVER
        o[IS_ACTIVE], o[WHY] = 0, 0
        refusal = why if why != FINE else _refusal(side, o[PRICE], P, S, L)
        if refusal != FINE:
            if S[skip] != refusal:
                _log_order(t, SKIPPED, o, refusal, S, orders)
            S[skip] = refusal
            continue
        S[skip] = FINE
        o[ID] = S[NEXT_ID]
        if P[TTL] > 0:
            o[EXPIRE] = min(until, o[ACTIVE] + P[TTL])
        H[S[LIVE], 0], H[S[LIVE], 1] = -np.log(uniform(P[SEED], o[ID])), 0.0
        S[NEXT_ID] += 1
        S[LIVE] += 1
        _log_order(t, PLACED, o, FINE, S, orders)


@kernel
def walk(
    frames: tuple[Ints, Ints, npt.NDArray[np.bool_], Ints, Ints, Ints, Ints],
    prints: tuple[Ints, Ints, Ints, Ints],
    segments: Segments,
    k_price: Floats,
    script: Lines,
    P: Ints, F: Floats, S: Ints, L: Ints, H: Floats, R: Ints,
    orders: Ints, fills: Ints, state: Ints,
) -> bool:  # fmt: skip
    """Walk the tape from where S stands until it ends (True) or a buffer is nearly full (False: call again)."""
    frame_ns, frame_seq, breaks, bids, bid_lots, asks, ask_lots = frames
    print_ns, print_seq, price, lots = prints
    room = 4 * L.shape[0] + 16
    while S[FRAME_AT] < frame_ns.size or S[PRINT_AT] < print_ns.size:
        i, p = S[FRAME_AT], S[PRINT_AT]
        if (
            S[N_ORDERS] + room > orders.shape[0] or S[N_FILLS] + room > fills.shape[0]
            or S[N_STATE] + room > state.shape[0]
        ):  # fmt: skip
            return False
        is_frame = p >= print_ns.size or (
            i < frame_ns.size
            and (frame_ns[i] < print_ns[p] or (frame_ns[i] == print_ns[p] and frame_seq[i] < print_seq[p]))
        )
        t = frame_ns[i] if is_frame else print_ns[p]
        if S[LIVE] > 0:
            b = i - 1
            due, j = _next_instant(t, S, L)[1] >= 0, -1
            if P[POISSON] == 1 and not due:
                j = _clock(t, frame_ns[b], bids[b] + asks[b], segments, P, S, L, H)
            if j >= 0:
                mid2 = bids[b] + asks[b]
                _fill(S[NOW], j, L[j, LEFT], L[j, PRICE], BY_CLOCK, mid2, P, S, L, H, orders, fills, state)
            if due or j >= 0:
                _advance(
                    t, frame_ns[b], bids[b], asks[b], bid_lots[b], ask_lots[b],
                    segments, P, S, L, H, orders, fills, state,
                )  # fmt: skip
        S[NOW] = t
        if not is_frame:
            S[PRINT_AT] += 1
            if P[POISSON] == 0 and _reached(price[p], P, S, L) >= 0:
                _match(t, price[p], lots[p], bids[i - 1] + asks[i - 1], P, S, L, H, orders, fills, state)
            continue
        S[FRAME_AT] += 1
        S[TAKEN_BID], S[TAKEN_ASK] = 0, 0
        mid2 = bids[i] + asks[i]
        _sample(t, mid2, breaks[i], S, R)
        scripted = P[SCRIPTED] == 1
        if script[0][i] if scripted else S[DECIDED] < 0 or t - S[DECIDED] >= P[REQUOTE]:
            S[DECIDED] = t
            if scripted:
                buy, sell, until, why = script[1][i], script[2][i], script[3][i], FINE
            else:
                buy, sell, why = _quotes(t, bids[i], asks[i], segments, k_price, P, F, S)
                until = NEVER
            _decide(t, buy, sell, until, why, P, S, L, H, orders)
            _log_state(t, mid2, S, L, state)
    return True
