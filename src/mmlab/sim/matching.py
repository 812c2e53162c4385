"""The venue: orders that arrive, prints and books that fill them, and the queue before them."""

from __future__ import annotations

from mmlab.core.kernels import hot, inner
from mmlab.sim import layout as at
from mmlab.sim.account import fill, leave
from mmlab.sim.layout import World


@inner
def arrive(t: int, j: int, w: World) -> None:
    """Order j reaches the book: it rests, is refused, or takes what the book still shows."""
    P, o, now = w.P, w.L[j], w.S[at.FRAME_AT] - 1
    order_id, side = o[at.ID], o[at.SIDE]
    touch = w.frames[now, at.ASK] if side == 1 else w.frames[now, at.BID]
    crosses = side * o[at.PRICE] >= side * touch
    if crosses and P[at.POST_ONLY] == 1:
        at.log_order(t, at.REJECTED, o, at.WOULD_CROSS, w)
        leave(t, j, at.REJECTED, w)
        return
    o[at.PHASE] = at.RESTING
    if P[at.QUEUES] == 1:
        _join(o, w)
    if crosses:
        _take(t, j, o[at.PRICE], at.BY_TAKING, w)
    if P[at.IOC] == 1 and j < w.S[at.LIVE] and w.L[j, at.ID] == order_id and w.L[j, at.PHASE] == at.RESTING:
        w.L[j, at.WHY] = at.IOC_REST
        at.log_order(t, at.EXPIRED, w.L[j], at.FINE, w)
        leave(t, j, at.EXPIRED, w)


@inner
def _take(t: int, j: int, limit: int, how: int, w: World) -> None:
    """Fill order j from the other side of the book up to `limit`, from what other own orders have left there.

    A taker pays each level's price; an order that rested (`how` price_cross) gets its own.
    """
    S, now, o = w.S, w.S[at.FRAME_AT] - 1, w.L[j]
    side, own = o[at.SIDE], o[at.PRICE]
    taken = at.TAKEN_ASK if side == 1 else at.TAKEN_BID
    gone, left = S[taken], o[at.LEFT]
    levels = w.deep.shape[1] // 4
    for level in range(max(levels, 1)):
        if levels == 0:
            price, shown = (
                w.frames[now, at.ASK if side == 1 else at.BID],
                w.frames[now, at.ASK_LOTS if side == 1 else at.BID_LOTS],
            )
        else:
            price = w.deep[now, 4 * level + (at.DEEP_ASK if side == 1 else at.DEEP_BID)]
            shown = w.deep[now, 4 * level + (at.DEEP_ASK_LOTS if side == 1 else at.DEEP_BID_LOTS)]
        if price <= 0 or side * price > side * limit:
            return
        part = min(left, shown - gone)
        gone = max(gone - shown, 0)
        if part > 0:
            S[taken] += part
            left -= part
            fill(t, j, part, price if how == at.BY_TAKING else own, how, w)
            if left == 0:
                return


@inner
def cross(t: int, w: World) -> None:
    """price_cross: the new book's other side fills resting orders that it reaches, best price first, then oldest."""
    now = w.S[at.FRAME_AT] - 1
    for side in (1, -1):
        touch = w.frames[now, at.ASK] if side == 1 else w.frames[now, at.BID]
        while True:
            best = -1
            for j in range(w.S[at.LIVE]):
                o = w.L[j]
                if o[at.PHASE] != at.RESTING or o[at.SIDE] != side or side * (o[at.PRICE] - touch) < w.P[at.BEYOND]:
                    continue
                if best < 0 or side * o[at.PRICE] > side * w.L[best, at.PRICE]:
                    best = j
            if best < 0:
                break
            order_id = w.L[best, at.ID]
            _take(t, best, w.L[best, at.PRICE] - side * w.P[at.BEYOND], at.BY_BOOK, w)
            if best < w.S[at.LIVE] and w.L[best, at.ID] == order_id and w.L[best, at.PHASE] == at.RESTING:
                break  # it took all there was


@hot
def reached(price: int, lots: int, w: World) -> int:
    """The order that a print fills first: best price, then oldest, on the side of the oldest; -1 if none."""
    L, best = w.L, -1
    for j in range(w.S[at.LIVE]):
        side = L[j, at.SIDE]
        beyond = side * (L[j, at.PRICE] - price)
        if L[j, at.PHASE] != at.RESTING or beyond < w.P[at.BEYOND]:
            continue
        if w.P[at.QUEUES] == 1 and beyond == 0 and (L[j, at.AHEAD] < 0 or L[j, at.AHEAD] >= lots):
            continue
        if best < 0 or (L[best, at.SIDE] == side and side * L[j, at.PRICE] > side * L[best, at.PRICE]):
            best = j
    return best


@inner
def match(t: int, price: int, lots: int, w: World) -> None:
    """Share one print among the orders that it reaches; at its very price, an order's queue comes first."""
    left, best = lots, reached(price, lots, w)
    while best >= 0:
        o = w.L[best]
        part = min(left, o[at.LEFT])
        if w.P[at.QUEUES] == 1 and o[at.PRICE] == price:
            part = min(part, left - o[at.AHEAD])
        left -= part
        fill(t, best, part, o[at.PRICE], at.BY_PRINT, w)
        best = reached(price, left, w) if left > 0 else -1


@hot
def print_at_queues(price: int, lots: int, w: World) -> None:
    """A print consumes the queue before every order at its price; AHEAD keeps what stood there when it came."""
    for j in range(w.S[at.LIVE]):
        o = w.L[j]
        if o[at.PHASE] == at.RESTING and o[at.PRICE] == price:
            o[at.AHEAD] = o[at.QUEUE]
            o[at.TRADED] += lots
            if o[at.QUEUE] > 0:
                o[at.QUEUE] = max(o[at.QUEUE] - lots, 0)


@hot
def book_at_queues(w: World) -> None:
    """A new book: queues that are known shrink with what is shown, and an order whose price becomes the touch joins."""
    for j in range(w.S[at.LIVE]):
        o = w.L[j]
        if o[at.PHASE] != at.RESTING:
            continue
        if o[at.QUEUE] < 0:
            _join(o, w)
            continue
        better, shown = _place(o, w)
        if better > 0:
            o[at.QUEUE] = 0
        elif better == 0:
            before = o[at.SHOWN] - o[at.TRADED]
            if w.P[at.PROPORTIONAL] == 1 and o[at.SHOWN] >= 0 and before > shown:
                o[at.QUEUE] -= (before - shown) * o[at.QUEUE] // before
            o[at.QUEUE] = min(o[at.QUEUE], shown)
        o[at.SHOWN], o[at.TRADED] = shown if better == 0 else -1, 0


@inner
def _place(o: at.Ints, w: World) -> tuple[int, int]:
    """How many ticks the order is better than its side's touch, and what is shown there."""
    now = w.S[at.FRAME_AT] - 1
    if o[at.SIDE] == 1:
        return int(o[at.PRICE] - w.frames[now, at.BID]), int(w.frames[now, at.BID_LOTS])
    return int(w.frames[now, at.ASK] - o[at.PRICE]), int(w.frames[now, at.ASK_LOTS])


@inner
def _join(o: at.Ints, w: World) -> None:
    """The queue before an order at the touch is all that is shown, before a better one none, behind it unknown (-1)."""
    better, shown = _place(o, w)
    o[at.QUEUE] = 0 if better > 0 else shown if better == 0 else -1
    o[at.SHOWN], o[at.TRADED] = shown if better == 0 else -1, 0
