"""Quote formulas: how far the centre of the quotes leaves the mid, and half their spread, all in quote currency."""

from __future__ import annotations

import numpy as np

from mmlab.core.kernels import kernel


@kernel
def avellaneda_stoikov(q: float, gamma: float, variance: float, tau: float, k: float) -> tuple[float, float]:
    """(shift of the centre below the mid, half spread): Avellaneda and Stoikov 2008, eqs. 29 and 30.

    q: position in order sizes; gamma: risk aversion, 1/quote currency; variance: of the mid, quote currency^2 / s;
    tau: time to the horizon, s; k: decay of the intensity, 1/quote currency.
    """
    risk = gamma * variance * tau
    return q * risk, risk / 2 + np.log1p(gamma / k) / gamma


@kernel
def glft(q: float, gamma: float, variance: float, A: float, k: float) -> tuple[float, float]:
    """(shift, half spread) far from the horizon: Gueant, Lehalle and Fernandez-Tapia 2013, closed form.

    bid = mid - shift - half, with half = c1 + S / 2, shift = q S, c1 = ln(1 + gamma / k) / gamma and
    S = sqrt(sigma^2 gamma / (2 k A) (1 + gamma / k)^(1 + k / gamma)). Units as above; A: 1/s and side.
    """
    log = np.log1p(gamma / k)
    skew = np.sqrt(variance * gamma / (2.0 * k * A) * np.exp((1.0 + k / gamma) * log))
    return q * skew, log / gamma + skew / 2


@kernel
def microprice(bid: float, ask: float, bid_qty: float, ask_qty: float) -> float:
    """The mid leaned towards the thinner side: (bid ask_qty + ask bid_qty) / (bid_qty + ask_qty); Gatheral and Oomen
    2010, the mid where nothing is shown."""
    shown = bid_qty + ask_qty
    price: float = (bid * ask_qty + ask * bid_qty) / shown if shown > 0.0 else (bid + ask) / 2.0
    return price
