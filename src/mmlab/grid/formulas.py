"""The grid's formulas one by one, on plain numbers: spacing, levels, skew, margin, liquidation, value at risk."""

from __future__ import annotations

import math

from scipy.special import ndtri

from mmlab.core.errors import UsageError
from mmlab.grid.guards import TIERS
from mmlab.grid.levels import AWAY, LARGEST, NEAR

STEPS, CLOSE_ENOUGH = 10, 1e-6  # of the search for the tier of a liquidation price, in quote currency


def dynamic_spacing(atr: float, spacing_k: float, spacing_floor: float, ref_price: float) -> float:
    """max(k ATR, floor * price), in quote currency: (500, 1.0, 0.005, 50000) gives 500."""
    return max(spacing_k * atr, spacing_floor * ref_price)


def grid_levels(
    anchor_price: float, buy_spacing: float, sell_spacing: float, count: int, mode: str = "geometric"
) -> tuple[list[float], list[float]]:
    """(buys, sells) from the nearest on. Geometric levels keep off round numbers while they stay in order; one that
    another was moved over is left out. Raises UsageError for another mode.
    """
    if mode not in ("geometric", "arithmetic"):
        raise UsageError(f"mode is {mode!r}", remedy="choose geometric or arithmetic")
    sides = []
    for spacing, up in ((buy_spacing, False), (sell_spacing, True)):
        made: list[float] = []
        before = anchor_price
        for n in range(1, count + 1):
            if mode == "arithmetic":
                made.append(anchor_price + spacing * n if up else anchor_price - spacing * n)
                continue
            step = (1 + spacing / anchor_price) ** n
            raw = anchor_price * step if up else anchor_price / step
            moved = off_round_number(raw)
            beyond = [price for price in (moved, raw) if (price > before if up else price < before)]
            made += beyond[:1]
            before = made[-1] if made else before
        sides.append([price for price in made if price > 0])
    return sides[0], sides[1]


def off_round_number(price: float) -> float:
    """`price`, or 0.15% of the round number away from it where it is nearer than 0.1%; above 0."""
    step, fives = LARGEST, True
    while price < 2 * step:
        step = step / 2 if fives else step / 5
        fives = not fives
    magnet = math.floor(price / step + 0.5) * step
    if abs(price - magnet) / magnet >= NEAR:
        return price
    return price + AWAY * magnet if price >= magnet else price - AWAY * magnet


def reservation_price(
    mid_price: float, inventory_q: float, gamma: float, volatility: float, time_horizon: float = 96.0
) -> float:
    """s (1 - q gamma sigma^2 T), Avellaneda and Stoikov (2008, eq. 29) in returns; q in [-1, 1], sigma and T in bars.

    (50000, 0.3, 0.5, 0.002) gives 49997.12.
    """
    return mid_price * (1 - inventory_q * gamma * volatility**2 * time_horizon)


def optimal_spread(volatility: float, gamma: float, kappa: float, time_horizon: float = 96.0) -> float:
    """gamma sigma^2 T + (2 / gamma) ln(1 + gamma sigma / kappa), as a fraction of the price (eq. 30, in returns).

    `kappa` is the decay of the fill intensity for each sigma of distance: k = kappa / sigma per unit of return.
    """
    return gamma * volatility**2 * time_horizon + 2 / gamma * math.log1p(gamma * volatility / kappa)


def skewed_grid(
    mid_price: float, inventory_q: float, gamma: float, volatility: float, kappa: float, time_horizon: float = 96.0
) -> tuple[float, float, float]:
    """(buy spacing, sell spacing, anchor) in quote currency: the optimal spread on both sides, the anchor skewed."""
    spacing = mid_price * optimal_spread(volatility, gamma, kappa, time_horizon)
    return spacing, spacing, reservation_price(mid_price, inventory_q, gamma, volatility, time_horizon)


def margin_tier(notional: float) -> tuple[float, float]:
    """(maintenance rate, amount) of a notional: 100,000 is in the second tier, (0.005, 50)."""
    for most, rate, amount in TIERS:
        if notional <= most:
            return float(rate), float(amount)
    raise UsageError(f"notional is {notional}", remedy="give a number")


def maintenance_margin(notional: float) -> float:
    """notional * rate - amount; without jumps from tier to tier."""
    rate, amount = margin_tier(notional)
    return notional * rate - amount


def liquidation_price(entry_price: float, position_size: float, wallet_balance: float, side: int) -> float:
    """Where one position eats up the wallet down to its maintenance margin; 0: nowhere. side: +1 long, -1 short.

    Long (W - Q E + c) / (Q (m - 1)), short (W + Q E + c) / (Q (m + 1)), with the tier (m, c) of the price itself:
    (50000, 0.1, 1000, 1) gives 40160.64 and -1 gives 59760.96. Leverage plays no part: it only limits orders.
    """
    if position_size <= 0 or side not in (1, -1):
        raise UsageError(f"position {position_size}, side {side}", remedy="give a size above 0, and +1 or -1")
    price = entry_price
    for _ in range(STEPS):
        rate, amount = margin_tier(position_size * price)
        before, cost = price, position_size * entry_price
        if side > 0:
            price = (wallet_balance - cost + amount) / (position_size * (rate - 1))
        else:
            price = (wallet_balance + cost + amount) / (position_size * (rate + 1))
        price = max(price, 0.0)
        if abs(price - before) < CLOSE_ENOUGH:
            break
    return price


def value_at_risk(portfolio_value: float, sigma: float, confidence: float = 0.95) -> float:
    """What a bar may cost at this confidence: value * z * sigma, z the normal quantile (1.645 at 95%)."""
    return portfolio_value * float(ndtri(confidence)) * sigma


def exceeds_var(
    portfolio_value: float, sigma: float, max_drawdown_pct: float, equity: float, confidence: float = 0.95
) -> bool:
    """True if the value at risk is more than `max_drawdown_pct` of the equity: no more entries then."""
    return value_at_risk(portfolio_value, sigma, confidence) > max_drawdown_pct * equity
