"""What to simulate: the account, the orders' life, the quote model and the fill model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal

from mmlab.core.errors import UsageError
from mmlab.core.ledger import RATE_UNIT

QUOTE_MODELS = ("fixed_spread", "avellaneda_stoikov")
FILL_MODELS = ("trade_cross", "poisson")
ACCOUNTS = ("spot", "margin")
REACHES = ("touch", "through")


def rate_e9(rate: float, flag: str) -> int:
    """A fee rate in 1e-9 of the notional; raises UsageError beyond 10% or finer than 1e-9."""
    if not -0.1 <= rate <= 0.1:
        raise UsageError(f"{flag} is {rate}", remedy="give a fraction of the notional, like 0.001 for 10 bps")
    exact = Decimal(repr(rate)) * RATE_UNIT
    if exact != exact.to_integral_value():
        raise UsageError(f"{flag} is {rate}", remedy="give at most nine decimals")
    return int(exact)


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UsageError(f"{flag} is {value!r}", remedy=f"choose one of {', '.join(allowed)}")


def at_least(flag: str, value: float, low: float) -> None:
    """Raise UsageError unless `value` is a finite number not below `low`."""
    if not low <= value < math.inf:
        raise UsageError(f"{flag} is {value}", remedy=f"give a number of {low:g} or more")


def above(flag: str, value: float) -> None:
    """Raise UsageError unless `value` is a finite number above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f"{flag} is {value}", remedy="give a number above 0")


@dataclass(frozen=True)
class QuoteSpec:
    """How quotes are made.

    fixed_spread: mid -/+ half_spread_ticks.
    avellaneda_stoikov: r = mid - q gamma sigma^2 tau and r -/+ (gamma sigma^2 tau / 2 + ln(1 + gamma / k) / gamma)
    (Avellaneda and Stoikov 2008, eqs. 29 and 30), with q in order sizes, gamma in 1/quote currency, sigma in
    quote currency per root second (None: measured on the last `sigma_window_s` moves of a second or more),
    tau = horizon_s, and k per price, converted from `k` per tick (None: the intensity's own).
    """

    model: str = "avellaneda_stoikov"
    half_spread_ticks: float = 2.0
    gamma: float = 0.1
    sigma: float | None = None
    sigma_window_s: int = 600
    horizon_s: float = 1.0
    k: float | None = None

    def __post_init__(self) -> None:
        one_of("--quote-model", self.model, QUOTE_MODELS)
        at_least("--half-spread-ticks", self.half_spread_ticks, 0)
        above("--gamma", self.gamma)
        above("--horizon-s", self.horizon_s)
        if self.sigma is not None:
            at_least("--sigma", self.sigma, 0)
        if self.sigma_window_s < 2:
            raise UsageError(f"--sigma-window-s is {self.sigma_window_s}", remedy="give at least 2 seconds")
        if self.k is not None:
            above("--quote-k", self.k)


@dataclass(frozen=True)
class FillSpec:
    """Which orders the market fills.

    trade_cross: a print at the order's price or beyond (`through`: a tick beyond) fills it, up to the print's
    quantity, shared once among own orders. It flatters where a queue stands before the order.
    poisson: each order is filled whole after an exponential waiting time whose rate is A exp(-k delta), delta
    in ticks from the mid, integrated over real elapsed time. It knows nothing of who trades against it.
    """

    model: str = "trade_cross"
    reach: str = "touch"
    seed: int = 42
    max_book_age_ms: int = 5_000

    def __post_init__(self) -> None:
        one_of("--fill-model", self.model, FILL_MODELS)
        one_of("--fill-reach", self.reach, REACHES)
        at_least("--seed", self.seed, 0)
        if self.seed >= 2**63:
            raise UsageError(f"--seed is {self.seed}", remedy="give a number below 2**63")
        at_least("--max-book-age-ms", self.max_book_age_ms, 0)


@dataclass(frozen=True)
class BacktestSpec:
    """The whole of a backtest. Quantities in base currency, money in quote currency, fees as fractions.

    account: spot (an order reserves the cash or inventory it may need) or margin (only `max_inventory` binds).
    """

    quote: QuoteSpec = field(default_factory=QuoteSpec)
    fill: FillSpec = field(default_factory=FillSpec)
    qty: float = 0.001
    initial_cash: float = 1000.0
    initial_inventory: float = 0.0
    max_inventory: float | None = None
    account: str = "spot"
    entry_latency_ms: int = 50
    cancel_latency_ms: int = 25
    requote_interval_ms: int = 250
    ttl_ms: int = 0
    maker_fee: float = 0.001
    taker_fee: float = 0.001
    post_only: bool = True

    def __post_init__(self) -> None:
        above("--qty", self.qty)
        one_of("--account", self.account, ACCOUNTS)
        for flag in ("entry_latency_ms", "cancel_latency_ms", "ttl_ms"):
            at_least("--" + flag.replace("_", "-"), getattr(self, flag), 0)
        if self.requote_interval_ms < 1:
            raise UsageError(f"--requote-interval-ms is {self.requote_interval_ms}", remedy="give at least 1 ms")
        if self.max_inventory is not None:
            above("--max-inventory", self.max_inventory)
        for name in ("initial_cash", "initial_inventory"):
            flag, value = "--" + name.replace("_", "-"), getattr(self, name)
            if self.account == "spot":
                at_least(flag, value, 0)
            elif not math.isfinite(value):
                raise UsageError(f"{flag} is {value}", remedy="give a finite number")
        rate_e9(self.maker_fee, "--maker-fee")
        rate_e9(self.taker_fee, "--taker-fee")
