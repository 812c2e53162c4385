"""What a quote model wants: prices and lots by side and level, from the past alone."""

from __future__ import annotations

import numpy as np

from mmlab.core.kernels import hot, inner, kernel
from mmlab.sim import layout as at
from mmlab.sim.clock import segment
from mmlab.sim.layout import World
from mmlab.sim.quotes import avellaneda_stoikov, glft, microprice

HAIR = 1e-9  # ticks; a price on the grid is not rounded a tick away by float noise
USERS_HAIR = 1e-6  # the same for prices that were computed in quote currency
SAMPLE_NS = 1_000_000_000


@hot
def sample(t: int, fresh: bool, w: World) -> None:
    """Once a second, the mid's squared move over the time since the last sample, into the sums of the variance."""
    S, R, F, mid2 = w.S, w.R, w.F, at.mid2(w)
    if fresh or S[at.SAMPLE_NS] < 0:
        S[at.SAMPLE_NS], S[at.SAMPLE_MID2] = t, mid2
        return
    ns, move2 = t - S[at.SAMPLE_NS], (mid2 - S[at.SAMPLE_MID2]) ** 2
    if ns < SAMPLE_NS:
        return
    S[at.SAMPLE_NS], S[at.SAMPLE_MID2] = t, mid2
    if w.P[at.EWMA] == 1:
        s = ns * at.S_PER_NS
        kept = 0.5 ** (s / F[at.HALFLIFE])
        F[at.EW_S] = kept * F[at.EW_S] + s
        F[at.EW_MOVE2] = kept * F[at.EW_MOVE2] + move2
        F[at.EW_SEEN] += s
        return
    ring = S[at.RING_AT]
    if S[at.RING_N] == R.shape[0]:
        S[at.SUM_NS] -= R[ring, 0]
        S[at.SUM_MOVE2] -= R[ring, 1]
    else:
        S[at.RING_N] += 1
    R[ring, 0], R[ring, 1] = ns, move2
    S[at.SUM_NS] += ns
    S[at.SUM_MOVE2] += move2
    S[at.RING_AT] = (ring + 1) % R.shape[0]


@hot
def variance(w: World) -> float:
    """Of the mid, quote currency squared a second; nan until half of the window or a half-life has been seen."""
    P, F, S = w.P, w.F, w.S
    if not np.isnan(F[at.SIGMA]):
        return float(F[at.SIGMA] ** 2)
    tick2 = F[at.TICK] ** 2
    if P[at.EWMA] == 1:
        return float(F[at.EW_MOVE2] / 4.0 * tick2 / F[at.EW_S]) if F[at.EW_SEEN] >= F[at.HALFLIFE] else np.nan
    if 2 * S[at.SUM_NS] < P[at.WINDOW] * SAMPLE_NS:
        return np.nan
    return float(S[at.SUM_MOVE2] / 4.0 * tick2 / (S[at.SUM_NS] * at.S_PER_NS))


@hot
def want(t: int, w: World) -> int:
    """Fill W with the model's quotes; returns why there are none. Prices never cross the touch."""
    now, F, model = w.S[at.FRAME_AT] - 1, w.F, w.P[at.MODEL]
    centre, half = (w.frames[now, at.BID] + w.frames[now, at.ASK]) / 2.0, F[at.HALF_SPREAD]
    q = w.S[at.KNOWN_LOTS] / w.P[at.QTY]
    if model in (at.AVELLANEDA_STOIKOV, at.GLFT):
        shift, half, why = _by_formula(t, q, model, w)
        if why != at.FINE:
            return why
        centre -= shift
    elif model in (at.INVENTORY_SKEW, at.MICROPRICE):
        if model == at.MICROPRICE:
            shown = float(w.frames[now, at.BID_LOTS]), float(w.frames[now, at.ASK_LOTS])
            centre = microprice(float(w.frames[now, at.BID]), float(w.frames[now, at.ASK]), shown[0], shown[1])
        centre -= F[at.SKEW] * q
    spread(centre, half, w)
    return at.FINE


@hot
def _by_formula(t: int, q: float, model: int, w: World) -> tuple[float, float, int]:
    """(shift, half spread) in ticks by Avellaneda-Stoikov or GLFT, and why there is none."""
    F, A, k = w.F, w.F[at.QUOTE_A], w.F[at.QUOTE_K]
    if np.isnan(k) or (model == at.GLFT and np.isnan(A)):
        if not segment(t, w):
            return 0.0, 0.0, at.NO_INTENSITY
        A = w.rates[w.S[at.SEGMENT], at.RATE_A] if np.isnan(A) else A
        k = w.rates[w.S[at.SEGMENT], at.RATE_K_PRICE] if np.isnan(k) else k
    now = variance(w)
    if np.isnan(now):
        return 0.0, 0.0, at.NO_SIGMA
    if model == at.GLFT:
        shift, half = glft(q, F[at.GAMMA], now, A, k)
    else:
        tau = F[at.HORIZON]
        if w.P[at.SESSION] > 0:
            tau = (w.P[at.SESSION] - (t - w.P[at.START]) % w.P[at.SESSION]) * at.S_PER_NS
        shift, half = avellaneda_stoikov(q, F[at.GAMMA], now, tau, k)
    return shift / F[at.TICK], half / F[at.TICK], at.FINE


@hot
def spread(centre: float, half: float, w: World) -> None:
    """Levels about `centre` (ticks), each G ticks beyond `half`; none crosses the touch, and no two meet."""
    now, W, P = w.S[at.FRAME_AT] - 1, w.W, w.P
    bid, ask = w.frames[now, at.BID], w.frames[now, at.ASK]
    most = at.MOST_QUANTA / max(P[at.QTY] * P[at.PER], 1)
    highest, lowest = ask - 1, bid + 1
    for i in range(W.shape[1]):
        out = half + w.F[at.OUTWARD + i]
        buy = min(int(np.floor(min(max(centre - out, 0.0), float(ask)) + HAIR)), highest)
        sell = max(int(np.ceil(max(min(centre + out, most), 0.0) - HAIR)), lowest)
        W[0, i, at.WANT_PRICE], W[1, i, at.WANT_PRICE] = buy, sell
        W[0, i, at.WANT_LOTS], W[1, i, at.WANT_LOTS] = P[at.QTY], P[at.QTY]
        highest, lowest = max(buy - 1, 0), sell + 1


@inner
def look(t: int, w: World) -> None:
    """What a strategy of the user's sees at t, into V in the order of SEEN: decimals of quote and base currency."""
    now, P, S, V = w.S[at.FRAME_AT] - 1, w.P, w.S, w.F[at.SEEN_AT :]
    tick, lot = P[at.TICK_DEN], P[at.LOT_DEN]
    V[0], V[1] = w.frames[now, at.BID] * P[at.TICK_NUM] / tick, w.frames[now, at.ASK] * P[at.TICK_NUM] / tick
    V[2], V[3] = w.frames[now, at.BID_LOTS] * P[at.LOT_NUM] / lot, w.frames[now, at.ASK_LOTS] * P[at.LOT_NUM] / lot
    V[4] = (w.frames[now, at.BID] + w.frames[now, at.ASK]) * P[at.TICK_NUM] / (2 * tick)
    V[5], V[6] = S[at.KNOWN_LOTS] * P[at.LOT_NUM] / lot, S[at.KNOWN_CASH] / w.F[at.MONEY]
    V[7] = np.sqrt(variance(w))
    inside = segment(t, w)
    V[8] = w.rates[S[at.SEGMENT], at.RATE_A] if inside else np.nan
    V[9] = w.rates[S[at.SEGMENT], at.RATE_K] if inside else np.nan


@kernel
def answer(bid: float, ask: float, bid_qty: float, ask_qty: float, w: World) -> None:
    """A user's strategy has spoken: prices to the grid, outward, and, post-only, no further than short of the touch;
    lots floored; nan for no order on a side. Raises ValueError for an order that is worth too much to be counted."""
    P, now = w.P, w.S[at.FRAME_AT] - 1
    most = at.MOST_QUANTA / max(P[at.QTY] * P[at.PER], 1)
    highest, lowest = int(most), -int(most)
    if P[at.POST_ONLY] == 1:
        highest, lowest = w.frames[now, at.ASK] - 1, w.frames[now, at.BID] + 1
    for s in range(2):
        price, qty = (bid, bid_qty) if s == 0 else (ask, ask_qty)
        ticks = min(max(price * P[at.TICK_DEN] / P[at.TICK_NUM], -most), most)
        lots = int(min(qty * P[at.LOT_DEN] / P[at.LOT_NUM], at.MOST_QUANTA) + USERS_HAIR) if qty > 0.0 else 0
        for i in range(w.W.shape[1]):
            row, out = w.W[s, i], w.F[at.OUTWARD + i]
            row[at.WANT_PRICE], row[at.WANT_LOTS] = 0, 0
            if np.isnan(price):
                continue
            if s == 0:
                highest = min(int(np.floor(max(ticks - out, -1.0) + USERS_HAIR)), highest)
            else:
                lowest = max(int(np.ceil(min(ticks + out, most) - USERS_HAIR)), lowest)
            row[at.WANT_PRICE], row[at.WANT_LOTS] = max(highest if s == 0 else lowest, 0), lots
            highest, lowest = (highest - 1, lowest) if s == 0 else (highest, lowest + 1)
            dearest = float(max(row[at.WANT_PRICE], w.frames[now, at.ASK]))
            if lots > P[at.QTY] and dearest * lots * P[at.PER] > at.MOST_QUANTA:
                raise ValueError("an order is worth too much to be counted exactly")
