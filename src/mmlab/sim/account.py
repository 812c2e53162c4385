"""Money and what the strategy knows of it: fills, reports on their way, and whether an order may be sent."""

from __future__ import annotations

from mmlab.core.kernels import hot, inner
from mmlab.core.ledger import fee_quanta
from mmlab.sim import layout as at
from mmlab.sim.layout import World

LIMIT_NS = 10_000_000_000  # venues count orders in 10 s


@inner
def remove(j: int, w: World) -> None:
    """Take order j out, keeping the others in order of age."""
    for i in range(j, w.S[at.LIVE] - 1):
        for column in range(w.L.shape[1]):
            w.L[i, column] = w.L[i + 1, column]
        for column in range(w.H.shape[1]):
            w.H[i, column] = w.H[i + 1, column]
    w.S[at.LIVE] -= 1


@inner
def leave(t: int, j: int, action: int, w: World) -> None:
    """Order j is over at the venue at t; without response latency it is forgotten at once."""
    if w.P[at.AT_ONCE] == 1:
        remove(j, w)
        return
    o = w.L[j]
    o[at.PHASE], o[at.ENDED] = at.GONE, action
    o[at.EXPIRE], o[at.EFFECTIVE] = at.NEVER, at.NEVER
    _report(t, o[at.ID], 0, 0, 1, w)


@inner
def _report(t: int, order_id: int, lots: int, cash: int, end: int, w: World) -> None:
    """Send word of what happened at t; reports arrive in the order in which they were sent."""
    S = w.S
    S[at.N_REPORTED] += 1
    known = max(S[at.LAST_REPORT], t + at.delay(at.RESPONSE, t, S[at.N_REPORTED], w))
    S[at.LAST_REPORT] = known
    row = w.Q[S[at.REPORT_N]]
    row[0], row[1], row[2], row[3], row[4] = known, order_id, lots, cash, end
    S[at.REPORT_N] += 1


@hot
def learn(t: int, w: World) -> None:
    """Take in the reports that have arrived by t."""
    S, Q, L = w.S, w.Q, w.L
    while S[at.REPORT_AT] < S[at.REPORT_N] and Q[S[at.REPORT_AT], at.REPORT_NS] <= t:
        row = Q[S[at.REPORT_AT]]
        S[at.REPORT_AT] += 1
        S[at.KNOWN_LOTS] += row[at.REPORT_LOTS]
        S[at.KNOWN_CASH] += row[at.REPORT_CASH]
        for j in range(S[at.LIVE]):
            if L[j, at.ID] == row[at.REPORT_ID]:
                L[j, at.KNOWN] -= abs(row[at.REPORT_LOTS])
                if row[at.REPORT_END] == 1:
                    remove(j, w)
                break
    if S[at.REPORT_AT] == S[at.REPORT_N]:
        S[at.REPORT_AT], S[at.REPORT_N] = 0, 0


@inner
def fill(t: int, j: int, lots: int, price: int, how: int, w: World) -> None:
    """Fill `lots` of order j at `price`: money moves, three tables get their rows, word is sent to the strategy."""
    P, S, o = w.P, w.S, w.L[j]
    notional = price * lots * P[at.PER]
    fee = fee_quanta(notional, P[at.TAKER] if how == at.BY_TAKING else P[at.MAKER])
    cash = -(o[at.SIDE] * notional + fee)
    S[at.CASH] += cash
    S[at.LOTS] += o[at.SIDE] * lots
    S[at.FEES] += fee
    o[at.LEFT] -= lots
    row = w.fills[S[at.N_FILLS]]
    row[0], row[1], row[2], row[3] = t, o[at.ID], o[at.SIDE], price
    row[4], row[5], row[6], row[7] = lots, fee, how, at.mid2(w)
    S[at.N_FILLS] += 1
    at.log_order(t, at.FILLED, o, at.FINE, w)
    if P[at.AT_ONCE] == 1:
        S[at.KNOWN_CASH], S[at.KNOWN_LOTS], o[at.KNOWN] = S[at.CASH], S[at.LOTS], o[at.LEFT]
    else:
        _report(t, o[at.ID], o[at.SIDE] * lots, cash, 0, w)
    if o[at.LEFT] == 0:
        at.log_order(t, at.CLOSED, o, at.FINE, w)
        leave(t, j, at.CLOSED, w)
    at.log_state(t, w)


@hot
def _reserve(price: int, lots: int, dearest: int, w: World) -> int:
    """Quanta that a buy order may cost: notional, fee, and a quantum a lot, as each part's fee may round up."""
    notional = price * lots * w.P[at.PER]
    return int(notional + fee_quanta(notional, dearest) + lots)


@hot
def _free(side: int, w: World) -> tuple[int, int, int]:
    """(cash, lots to sell, lots at work on this side) as the strategy knows them; orders reserve what they may need."""
    P, S, L = w.P, w.S, w.L
    dearest = max(P[at.MAKER], P[at.TAKER], 0)
    cash, lots, same = S[at.KNOWN_CASH], S[at.KNOWN_LOTS], 0
    for j in range(S[at.LIVE]):
        if L[j, at.SIDE] == side:
            same += L[j, at.KNOWN]
        if L[j, at.SIDE] == 1:
            cash -= _reserve(L[j, at.PRICE], L[j, at.KNOWN], dearest, w)
        else:
            lots -= L[j, at.KNOWN]
    return cash, lots, same


@inner
def to_balance(side: int, price: int, lots: int, w: World) -> int:
    """As many of `lots` as a spot account can pay for or holds; 0 if none."""
    P = w.P
    if P[at.SPOT] == 0 or price <= 0:
        return lots
    cash, held, _ = _free(side, w)
    if side == -1:
        return max(min(lots, held), 0)
    dearest = max(P[at.MAKER], P[at.TAKER], 0)
    part = min(lots, max(cash, 0) // (price * P[at.PER]))
    while part > 0 and _reserve(price, part, dearest, w) > cash:
        part -= max((_reserve(price, part, dearest, w) - cash) // (2 * price * P[at.PER] + 2), 1)
    return int(max(part, 0))


@hot
def refusal(t: int, side: int, price: int, size: int, w: World) -> int:
    """Why a new order may not be sent now, as far as the strategy knows."""
    P, S = w.P, w.S
    notional = price * size * P[at.PER]
    if price <= 0 or notional < P[at.MIN_NOTIONAL]:
        return at.TOO_SMALL
    cash, lots, same = _free(side, w)
    after = side * S[at.KNOWN_LOTS] + same + size
    if P[at.CAP] >= 0 and after > P[at.CAP]:
        return at.OVER_CAP
    if P[at.SPOT] == 1 and side == 1 and cash < _reserve(price, size, max(P[at.MAKER], P[at.TAKER], 0), w):
        return at.NO_CASH
    if P[at.SPOT] == 1 and side == -1 and lots < size:
        return at.NO_INVENTORY
    why = at.FINE
    if P[at.LIMIT] > 0 and w.T[S[at.SENT_AT] % P[at.LIMIT]] > t - LIMIT_NS:
        why = at.OVER_LIMIT
    if w.F[at.LEVERAGE] > 0.0 and after > 0 and 2.0 * after * price * P[at.PER] > w.F[at.LEVERAGE] * _equity2(w):
        why = at.NO_MARGIN
    return why


@hot
def _equity2(w: World) -> float:
    """Twice the equity, quanta: a mid is in half ticks."""
    known: float = 2.0 * w.S[at.KNOWN_CASH] + float(w.S[at.KNOWN_LOTS]) * at.mid2(w) * w.P[at.PER]
    return known
