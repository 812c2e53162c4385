"""The two passes over a day, compiled: over its book frames, and over its prints.

Imported only where these have to be compiled: probes.py and hits.py call them by core/native.py.
"""

from __future__ import annotations

import numpy as np

from mmlab.calib import layout as at
from mmlab.core.kernels import hot
from mmlab.core.native import Bytes, Floats, Ints, Ints2, Ints3
from mmlab.core.object_code import entry

OFF_GRID, MOST_STEPS = 1e-4, 2.0**62  # as in core/instrument.py
NS_PER_US, SAMPLE_NS = 1_000, 1_000_000_000


@hot
def _steps(values: Floats, per_unit: float, into: Ints) -> bool:
    """Nearest whole steps of some prices or quantities; whether all of them lie on the grid."""
    far = 0
    for i in range(values.size):
        exact = values[i] * per_unit
        whole = np.rint(exact)
        into[i] = int(whole)
        far += not (abs(exact - whole) <= OFF_GRID and abs(whole) < MOST_STEPS)
    return far == 0


@entry
def frames(
    recv_ns: Ints, recv_seq: Ints, run: Ints, epoch: Ints, bid: Floats, ask: Floats, per_unit: float,
    gap_from: Ints, gap_to: Ints, dwell_ns: int, threshold2: int, walk: Ints, epoch_at: Ints, laid: Ints2,
    market: Ints2, watch: Ints, origin_ns: int, bucket_ns: int, steps: Ints2,
) -> int:  # fmt: skip
    """Lay probes over frames, and add up what the book did, in one pass; returns how many intervals ended.

    At each frame: close what ends before it or at it, then open unless in a hole. Where a frame is out of time order
    or its prices are off the grid, returns -1 less its row. laid: (5, n_frames + 1), at.LAID_START_NS ..; market:
    (n_buckets, 4), without frames that lie in no bucket. walk, epoch_at, watch: where an earlier pass ended, brought
    forward. steps: (2, as many frames as are looked at in one go).
    """
    m, opened = 0, walk[at.OPEN] == 1
    start_ns, anchor2 = walk[at.START_NS], walk[at.ANCHOR]
    laid[at.LAID_START_NS, 0], laid[at.LAID_START_SEQ, 0], laid[at.LAID_MID2, 0] = start_ns, walk[at.START_SEQ], anchor2
    before_ns, before_seq, run_at, epoch_is = walk[at.LAST_NS], walk[at.LAST_FRAME_SEQ], epoch_at[0], epoch_at[1]
    g = _past(gap_from, gap_to, 0, before_ns)
    b, b_ends, second_ends = 0, -at.LAST_SEQ, (watch[at.PREV_NS] // SAMPLE_NS + 1) * SAMPLE_NS
    for a in range(0, recv_ns.size, steps.shape[1]):
        z = min(a + steps.shape[1], recv_ns.size)
        if not (_steps(bid[a:z], per_unit, steps[0]) and _steps(ask[a:z], per_unit, steps[1])):
            return -1 - a
        for i in range(a, z):
            t, seq, bid_ticks, ask_ticks = recv_ns[i], recv_seq[i], steps[0, i - a], steps[1, i - a]
            if t < before_ns or (t == before_ns and seq <= before_seq):
                return -1 - i
            mid2 = bid_ticks + ask_ticks
            breaks = run[i] != run_at or epoch[i] != epoch_is
            if t >= b_ends:
                b = (t - origin_ns) // bucket_ns
                b_ends = origin_ns + (b + 1) * bucket_ns
            second_ends = _watch(watch, market, t, ask_ticks - bid_ticks, mid2, breaks, second_ends, b)
            if opened and breaks:
                laid[at.LAID_END_NS, m], laid[at.LAID_END_SEQ, m] = before_ns, before_seq
                m, opened = m + 1, False
            before_ns, before_seq, run_at, epoch_is = t, seq, run[i], epoch[i]
            if g < gap_from.size and gap_from[g] < t:
                if opened:
                    laid[at.LAID_END_NS, m], laid[at.LAID_END_SEQ, m] = gap_from[g], at.LAST_SEQ
                    m, opened = m + 1, False
                g = _past(gap_from, gap_to, g, t)
                if g < gap_from.size and gap_from[g] < t:
                    continue  # in a hole
            if opened:
                if t - start_ns < dwell_ns and (threshold2 == 0 or abs(mid2 - anchor2) < threshold2):
                    continue
                laid[at.LAID_END_NS, m], laid[at.LAID_END_SEQ, m] = t, seq
                m += 1
            opened, start_ns, anchor2 = True, t, mid2
            laid[at.LAID_START_NS, m], laid[at.LAID_START_SEQ, m], laid[at.LAID_MID2, m] = t, seq, mid2
    walk[at.OPEN], walk[at.LAST_NS], walk[at.LAST_FRAME_SEQ] = opened, before_ns, before_seq
    epoch_at[0], epoch_at[1] = run_at, epoch_is
    if opened:
        walk[at.START_NS], walk[at.START_SEQ], walk[at.ANCHOR] = start_ns, laid[at.LAID_START_SEQ, m], anchor2
    return m


@hot
def _past(gap_from: Ints, gap_to: Ints, g: int, t: int) -> int:
    """The first hole from number g on that has not begun before t and ended by then."""
    while g < gap_from.size and gap_from[g] < t and gap_to[g] <= t:
        g += 1
    return g


@hot
def _watch(watch: Ints, market: Ints2, t: int, spread: int, mid2: int, breaks: bool, second_ends: int, b: int) -> int:
    """Add the time since the frame before, at that frame's spread, and each second's move; returns the second's end."""
    begins = breaks or watch[at.PREV_NS] < 0
    inside = not begins and 0 <= b < market.shape[0]
    if inside:
        stood = (t - watch[at.PREV_NS]) // NS_PER_US
        market[b, at.SPREAD_TICK_US] += watch[at.PREV_SPREAD] * stood
        market[b, at.SPREAD_US] += stood
    if begins or t >= second_ends:
        if inside:
            moved = mid2 - watch[at.SAMPLE_MID2]
            market[b, at.MOVE2] += moved * moved
            market[b, at.MOVE_US] += (t - watch[at.SAMPLE_AT]) // NS_PER_US
        watch[at.SAMPLE_AT], watch[at.SAMPLE_MID2] = t, mid2
        second_ends = (t // SAMPLE_NS + 1) * SAMPLE_NS
    watch[at.PREV_NS], watch[at.PREV_SPREAD] = t, spread
    return second_ends


@hot
def _add_span(into: Ints3, side: int, column: int, from_ns: int, to_ns: int, sign: int, bucket_ns: int) -> None:
    """Add (`sign` 1) or take away (-1) the time [from_ns, to_ns), from bucket 0 on, in the buckets it falls into."""
    b = from_ns // bucket_ns
    while from_ns < to_ns:
        edge = min(to_ns, (b + 1) * bucket_ns)
        into[b, side, column] += sign * (edge - from_ns)
        from_ns, b = edge, b + 1


@hot
def _late(ns: Ints, seq: Ints) -> int:
    """How many rows do not come after the row before."""
    late = 0
    for i in range(1, ns.size):
        late += (ns[i] < ns[i - 1]) | ((ns[i] == ns[i - 1]) & (seq[i] <= seq[i - 1]))
    return late


@hot
def _add_flow(flow: Ints2, ns: Ints, lots: Ints, taker: Bytes, origin_ns: int, bucket_ns: int) -> None:
    """The tape itself, in a probe's interval or not; prints outside the buckets are left out."""
    i = 0
    while i < ns.size:
        b = (ns[i] - origin_ns) // bucket_ns
        ends, first, added, bought = origin_ns + (b + 1) * bucket_ns, i, 0, 0
        while i < ns.size and ns[i] < ends:
            added += lots[i]
            bought += lots[i] * (taker[i] == 1)
            i += 1
        if 0 <= b < flow.shape[0]:
            flow[b, at.PRINTS] += i - first
            flow[b, at.LOTS] += added
            flow[b, at.BOUGHT] += bought


@entry
def prints(
    recv_ns: Ints, recv_seq: Ints, trade_ns: Ints, trade_id: Ints, price: Floats, qty: Floats, taker: Bytes,
    ticks_per_unit: float, lots_per_unit: float, start_ns: Ints, start_seq: Ints, end_ns: Ints, end_seq: Ints,
    mid2: Ints, rank_of: Ints, covered: Ints3, off: Ints3, hits: Ints3, lots: Ints3, rings: Ints3, flow: Ints2,
    origin_ns: int, bucket_ns: int, turn: int, rule: int, through: bool, taker_side: bool, goes: Ints, steps: Ints2,
) -> int:  # fmt: skip
    """Join prints to intervals, and add up what they hit; returns whether they are out of order or off their grids.

    off, hits and lots are differences along the distances, (n_buckets, 2 sides, n_deltas + 1); rings (n_buckets, 2,
    n_deltas); covered (n_buckets, 1, n_deltas if they take turns, else 1). rank_of: how many distances a reach of so
    many ticks has hit. turn: the number of the first interval where distances take turns, else -1. goes: JOIN_WIDTH to
    work in; steps: (2, as many prints as are looked at in one go).
    """
    for j in range(start_ns.size):
        column = 0 if turn < 0 else (turn + j) % rings.shape[2]
        _add_span(covered, 0, column, start_ns[j] - origin_ns, end_ns[j] - origin_ns, 1, bucket_ns)
    goes[:] = 0
    goes[at.INTERVAL], goes[at.LAST_ID] = -1, -1
    for a in range(0, recv_ns.size, steps.shape[1]):
        z = min(a + steps.shape[1], recv_ns.size)
        ns, seq, ticks, n_lots = recv_ns[a:z], recv_seq[a:z], steps[0, : z - a], steps[1, : z - a]
        on_grid = _steps(price[a:z], ticks_per_unit, ticks) and _steps(qty[a:z], lots_per_unit, n_lots)
        if not on_grid or _late(recv_ns[max(a - 1, 0) : z], recv_seq[max(a - 1, 0) : z]):
            return 1
        _add_flow(flow, ns, n_lots, taker[a:z], origin_ns, bucket_ns)
        _join(
            ns, seq, trade_ns[a:z], trade_id[a:z], ticks, n_lots, taker[a:z], start_ns, start_seq, end_ns, end_seq,
            mid2, rank_of, off, hits, lots, rings, origin_ns, bucket_ns, turn, rule, through, taker_side, goes,
        )  # fmt: skip
    return 0


@hot
def _join(
    ns: Ints, seq: Ints, trade_ns: Ints, trade_id: Ints, ticks: Ints, n_lots: Ints, taker: Bytes,
    start_ns: Ints, start_seq: Ints, end_ns: Ints, end_seq: Ints, mid2: Ints, rank_of: Ints,
    off: Ints3, hits: Ints3, lots: Ints3, rings: Ints3,
    origin_ns: int, bucket_ns: int, turn: int, rule: int, through: bool, taker_side: bool, goes: Ints,
) -> None:  # fmt: skip
    """Some prints after others; `goes` is what those left."""
    j, order, far, n_deltas = goes[at.INTERVAL], goes[at.ORDER], rank_of.size - 1, rings.shape[2]
    order_ns, order_id, order_taker = goes[at.LAST_TRADE_NS], goes[at.LAST_ID], goes[at.LAST_TAKER]
    until_ns, until_seq, mid2_at = (end_ns[j], end_seq[j], mid2[j]) if j >= 0 else (-1, -1, 0)
    next_ns, next_seq = (start_ns[j + 1], start_seq[j + 1]) if j + 1 < start_ns.size else (at.LAST_SEQ, at.LAST_SEQ)
    b, b_ends = 0, -at.LAST_SEQ
    for i in range(ns.size):
        t = ns[i]
        while (next_ns < t) | ((next_ns == t) & (next_seq <= seq[i])):  # the last interval that starts by this print
            j += 1
            until_ns, until_seq, mid2_at = end_ns[j], end_seq[j], mid2[j]
            next_ns, next_seq = (
                (start_ns[j + 1], start_seq[j + 1]) if j + 1 < start_ns.size else (at.LAST_SEQ, at.LAST_SEQ)
            )
            goes[at.BEST], goes[at.BEST + 1], goes[at.RECORD], goes[at.RECORD + 1] = 0, 0, -1, -1
        same_order = (trade_ns[i] == order_ns) & (taker[i] == order_taker) & (trade_id[i] == order_id + 1)
        order_ns, order_id, order_taker = trade_ns[i], trade_id[i], taker[i]
        order += not same_order
        if (rule == at.ALL_HITS) | ((rule == at.SWEEPS) & (not same_order)):  # what was reached by then counts again
            goes[at.BEST], goes[at.BEST + 1] = 0, 0
        below = mid2_at - 2 * ticks[i]  # at most one side is reached
        side = int(below <= 0)
        reach = min(max(abs(below) // 2 - through, 0), far)
        stands = ((t < until_ns) | ((t == until_ns) & (seq[i] < until_seq))) & (
            not taker_side or taker[i] == 2 * side - 1
        )
        low, rank = goes[at.BEST + side], rank_of[reach] * stands
        if rank <= low and (rule == at.FIRST_HIT or rank == 0):
            continue
        if t >= b_ends:
            b = (t - origin_ns) // bucket_ns
            b_ends = origin_ns + (b + 1) * bucket_ns
        first = 0
        goes[at.BEST + side] = max(low, rank)
        if turn >= 0:  # only one distance has a probe
            first = (turn + j) % n_deltas
            low, rank = max(low, first), min(rank, first + 1)
        if rule != at.FIRST_HIT and rank > first:
            lots[b, side, first] += n_lots[i]
            lots[b, side, rank] -= n_lots[i]
        if rank <= low:
            continue
        hits[b, side, low] += 1
        hits[b, side, rank] -= 1
        if rule == at.FIRST_HIT:
            lots[b, side, low] += n_lots[i]
            lots[b, side, rank] -= n_lots[i]
            _add_span(off, side, low, t - origin_ns, until_ns - origin_ns, 1, bucket_ns)
            _add_span(off, side, rank, t - origin_ns, until_ns - origin_ns, -1, bucket_ns)
        if goes[at.RECORD + side] == order and goes[at.BUCKET + side] == b:  # the same taker order reaches further
            rings[b, side, low - 1] -= 1
        rings[b, side, rank - 1] += 1
        goes[at.RECORD + side], goes[at.BUCKET + side] = order, b
    goes[at.INTERVAL], goes[at.ORDER] = j, order
    goes[at.LAST_TRADE_NS], goes[at.LAST_ID], goes[at.LAST_TAKER] = order_ns, order_id, order_taker
