"""Where everything lies in the engine's arrays, what its codes mean, and the kernels that write rows.

Everything is counted in ticks, lots, ns and quanta of money; floats occur in quotes and hazards only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmlab.core.kernels import borrowed, hot, kernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEVER = 2**62
S_PER_NS = 1e-9
MOST_QUANTA = 2.0**58  # an order worth more is not told apart from one that is never filled

# P: the specification in whole numbers
(QTY, REQUOTE, TTL, MAKER, TAKER, POST_ONLY, IOC, SPOT, CAP, PER, MIN_NOTIONAL, MODEL, BY_CLOCKS, BY_PRINTS, BY_BOOKS,
 BEYOND, QUEUES, PROPORTIONAL, SEED, MAX_AGE, WINDOW, EWMA, SCRIPTED, MIN_MOVE, LIMIT, SESSION, START, TO_BALANCE,
 AT_ONCE, TICK_NUM, TICK_DEN, LOT_NUM, LOT_DEN, DELAYS) = range(34)  # fmt: skip
P_WIDTH = DELAYS + 16  # where in `delays` each kind's times and values begin and end
# F: the specification in decimals; sigma nan: measured; A, k nan: the intensity's. Then the sums of the exponentially
# weighted variance, what a strategy of the user's sees, and how far each level lies outward, in ticks
(HALF_SPREAD, GAMMA, SIGMA, HORIZON, QUOTE_K, TICK, SKEW, HALFLIFE, LEVERAGE, MONEY, QUOTE_A, EW_S, EW_MOVE2, EW_SEEN,
 SEEN_AT) = range(15)  # fmt: skip
SEEN = ("bid", "ask", "bid_qty", "ask_qty", "mid", "inventory", "cash", "sigma", "A", "k")
OUTWARD = SEEN_AT + len(SEEN)
# S: the state between events
(CASH, LOTS, FEES, LIVE, NEXT_ID, FRAME_AT, PRINT_AT, NOW, DECIDED, TAKEN_BID, TAKEN_ASK, SEGMENT, SAMPLE_NS,
 SAMPLE_MID2, RING_AT, RING_N, SUM_NS, SUM_MOVE2, N_ORDERS, N_FILLS, N_STATE, LAST_STATE_NS, KNOWN_CASH, KNOWN_LOTS,
 REPORT_AT, REPORT_N, LAST_REPORT, N_REPORTED, SENT_AT, LAST_STATE_MID2, DELAY_AT) = range(31)  # fmt: skip
S_WIDTH = DELAY_AT + 4  # where each of the four series of latencies stands
# L: one live order a row, oldest first; H: its exponential draw, the hazard it has lived through, its rate
(ID, SIDE, PRICE, LEFT, ACTIVE, EXPIRE, REQUESTED, EFFECTIVE, PHASE, WHY, SIZE, KNOWN, QUEUE, SHOWN, TRADED, AHEAD,
 UNTIL, ENDED) = range(18)  # fmt: skip
ON_ITS_WAY, RESTING, GONE = range(3)  # PHASE; GONE: over at the venue, and the strategy has not heard of it
# Q: reports on their way to the strategy
REPORT_NS, REPORT_ID, REPORT_LOTS, REPORT_CASH, REPORT_END = range(5)
# W: wanted by side (0 bids, 1 asks) and level, and why it was last refused there
WANT_PRICE, WANT_LOTS, WANT_KEPT, WANT_REFUSED = range(4)
# the tape: frames and prints; deep: four columns a level; script, frame by frame; edges and rates by segment
FRAME_NS, FRAME_SEQ, BREAK, BID, BID_LOTS, ASK, ASK_LOTS = range(7)
PRINT_NS, PRINT_SEQ, PRINT_PRICE, PRINT_LOTS = range(4)
DEEP_BID, DEEP_BID_LOTS, DEEP_ASK, DEEP_ASK_LOTS = range(4)
LINE_DECIDES, LINE_BID, LINE_ASK, LINE_UNTIL = range(4)
STARTS, ENDS = range(2)
RATE_A, RATE_K, RATE_K_PRICE = range(3)
# kinds of latency
ENTRY, CANCEL, RESPONSE, FEED = range(4)

ACTIONS = (
    "PLACE", "REJECT", "SKIP", "CANCEL_REQ", "CANCEL_ACK", "EXPIRE", "FILL", "CLOSE_FILLED", "CANCEL_REJECT",
)  # fmt: skip
PLACED, REJECTED, SKIPPED, CANCEL_REQ, CANCEL_ACK, EXPIRED, FILLED, CLOSED, CANCEL_REJECT = range(9)
STATUSES = ("OPEN", "CANCEL_PENDING", "CANCELLED", "EXPIRED", "FILLED", "REJECTED", "SKIPPED")
STATUS_OF = np.array([0, 5, 6, 1, 2, 3, 0, 4, 4])  # by action; a partial fill keeps OPEN or CANCEL_PENDING
REFUSALS = (
    "", "post_only_would_cross", "insufficient_cash", "insufficient_inventory", "max_inventory", "min_notional",
    "no_sigma", "no_intensity", "insufficient_margin", "order_limit", "order_is_gone",
)  # fmt: skip
(FINE, WOULD_CROSS, NO_CASH, NO_INVENTORY, OVER_CAP, TOO_SMALL, NO_SIGMA, NO_INTENSITY, NO_MARGIN, OVER_LIMIT,
 IS_GONE) = range(11)  # fmt: skip
CANCELS = ("", "QUOTE_CHANGE", "NO_DESIRED_QUOTE", "TTL_EXPIRE", "IOC")
QUOTE_CHANGE, NO_QUOTE, TTL_EXPIRE, IOC_REST = 1, 2, 3, 4
FILL_REASONS = ("trade_cross", "poisson", "taker", "price_cross")
BY_PRINT, BY_CLOCK, BY_TAKING, BY_BOOK = range(4)
LIQUIDITY = ("maker", "maker", "taker", "maker")  # by fill reason
MODELS = ("fixed_spread", "avellaneda_stoikov", "ladder", "glft", "inventory_skew", "microprice", "strategy")
FIXED, AVELLANEDA_STOIKOV, LADDER, GLFT, INVENTORY_SKEW, MICROPRICE, STRATEGY = range(7)
ORDER_WIDTH, FILL_WIDTH, STATE_WIDTH = 14, 8, 7

# what a walk along the tape ends with
ROOM, DONE, SPEAK = range(
    3
)  # give room in the buffers and call again; the tape is over; say what is wanted, then settle


class World(NamedTuple):
    """All that the kernels read and write; one value, so that each takes what it needs.

    P, F: specification; S: state; L, H: live orders; W: wanted quotes; R: ring of the mid's moves; T: ring of the
    times of orders sent; Q: reports on their way; the rows made; the tape; levels of the book from the touch on (width
    0: the touch alone); a script's lines; the intensity by segment; latencies, one after the other.
    """

    P: Ints
    F: Floats
    S: Ints
    L: Ints
    H: Floats
    W: Ints
    R: Ints
    T: Ints
    Q: Ints
    orders: Ints
    fills: Ints
    state: Ints
    frames: Ints
    prints: Ints
    deep: Ints
    script: Ints
    edges: Ints
    rates: Floats
    delays: Ints


@kernel
def uniform(seed: int, number: int) -> float:
    """A number in (0, 1] from (seed, number) alone: splitmix64 (Steele, Lea and Flood 2014)."""
    z = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


@hot
def delay(kind: int, t: int, number: int, w: World) -> int:
    """Latency in ns of message `number` sent at t: the series' last value by then, the constant, or a draw."""
    first, n = w.P[DELAYS + 4 * kind], w.P[DELAYS + 4 * kind + 1]
    values, n_values = w.P[DELAYS + 4 * kind + 2], w.P[DELAYS + 4 * kind + 3]
    if n > 0:
        at = w.S[DELAY_AT + kind]
        while at + 1 < n and w.delays[first + at + 1] <= t:
            at += 1
        w.S[DELAY_AT + kind] = at
        return int(w.delays[values + at])
    if n_values == 1:
        return int(w.delays[values])
    drawn = int(uniform(w.P[SEED], number + ((kind + 1) << 48)) * n_values)
    return int(w.delays[values + min(drawn, n_values - 1)])


@hot
def mid2(w: World) -> int:
    """The mid of the book in force, in half ticks."""
    at = w.S[FRAME_AT] - 1
    return int(w.frames[at, BID] + w.frames[at, ASK])


@hot
def log_order(t: int, action: int, o: Ints, reason: int, w: World) -> None:
    """One row of `orders` about order `o`."""
    status = STATUS_OF[action]
    if action == FILLED and o[REQUESTED] != NEVER:
        status = 1
    if action == CANCEL_REJECT:
        status = STATUS_OF[o[ENDED]]
    row = w.orders[w.S[N_ORDERS]]
    row[0], row[1], row[2], row[3] = t, o[ID], action, status
    row[4], row[5], row[6], row[7] = o[SIDE], o[PRICE], o[SIZE], o[LEFT]
    row[8], row[9], row[10], row[11] = o[ACTIVE], o[UNTIL], o[REQUESTED], o[EFFECTIVE]
    row[12], row[13] = reason, o[WHY]
    w.S[N_ORDERS] += 1


@kernel
def log_state(t: int, w: World) -> None:
    """One row of `state`: the account at the venue and the best own quotes there that are not being cancelled."""
    S, L = w.S, w.L
    bid, ask, live = 0, 0, 0
    for j in range(S[LIVE]):
        live += L[j, PHASE] != GONE
        if L[j, REQUESTED] == NEVER and L[j, PHASE] != GONE:
            if L[j, SIDE] == 1:
                bid = max(bid, L[j, PRICE])
            else:
                ask = L[j, PRICE] if ask == 0 else min(ask, L[j, PRICE])
    row = w.state[S[N_STATE]]
    row[0], row[1], row[2], row[3], row[4], row[5], row[6] = t, S[LOTS], S[CASH], mid2(w), live, bid, ask
    S[N_STATE] += 1
    S[LAST_STATE_NS], S[LAST_STATE_MID2] = t, row[3]


@hot
def bare(w: World) -> World:
    """The same arrays without counting who holds them, which would cost more than most steps; `w` must outlive it."""
    return World(
        borrowed(w.P),
        borrowed(w.F),
        borrowed(w.S),
        borrowed(w.L),
        borrowed(w.H),
        borrowed(w.W),
        borrowed(w.R),
        borrowed(w.T),
        borrowed(w.Q),
        borrowed(w.orders),
        borrowed(w.fills),
        borrowed(w.state),
        borrowed(w.frames),
        borrowed(w.prints),
        borrowed(w.deep),
        borrowed(w.script),
        borrowed(w.edges),
        borrowed(w.rates),
        borrowed(w.delays),
    )
