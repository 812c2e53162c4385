"""What to simulate: the account, the orders' life, the quote model and the fill model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal

from mmlab.core.errors import UsageError
from mmlab.core.ledger import RATE_UNIT

QUOTE_MODELS = (
    "fixed_spread", "avellaneda_stoikov", "ladder", "glft", "inventory_skew", "microprice", "strategy",
)  # fmt: skip
FILL_MODELS = ("trade_cross", "price_cross", "poisson", "hybrid")
ACCOUNTS = ("spot", "margin")
REACHES = ("touch", "through", "queue")
QUEUE_CANCELS = ("behind", "proportional")
SIGMA_METHODS = ("rolling", "ewma")
HORIZONS = ("rolling", "session")
TIMES_IN_FORCE = ("GTC", "IOC")
JITTERS = ("none", "exponential", "lognormal")
MOST_LEVELS = 100


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
    """How quotes are made; q is the position in order sizes, h half_spread_ticks, all but gamma's models in ticks.

    fixed_spread: mid -/+ h.
    ladder: mid -/+ each of `deltas`.
    inventory_skew: mid - skew_ticks q -/+ h.
    microprice: the mid leaned towards the thinner side, - skew_ticks q -/+ h.
    avellaneda_stoikov: r = mid - q gamma sigma^2 tau and r -/+ (gamma sigma^2 tau / 2 + ln(1 + gamma / k) / gamma)
    (Avellaneda and Stoikov 2008, eqs. 29 and 30), with gamma in 1/quote currency, sigma in quote currency per root
    second, k per price, converted from `k` per tick (None: the intensity's own), and tau = horizon_s, or what is left
    of it where `horizon` is session: sessions of horizon_s follow one another from the first frame on.
    glft: its stationary form (Gueant, Lehalle and Fernandez-Tapia 2013), which needs A as well.
    strategy: a function of the user's, `strategy` = file.py:name.

    sigma None is measured on the past: `rolling` over the last `sigma_window_s` moves of a second or more, `ewma` with
    a half-life of `sigma_halflife_s`. Any model but ladder may quote `levels` a side, each `level_step_ticks` further.
    """

    model: str = "avellaneda_stoikov"
    half_spread_ticks: float = 2.0
    gamma: float = 0.1
    sigma: float | None = None
    sigma_window_s: int = 600
    horizon_s: float = 1.0
    k: float | None = None
    A: float | None = None
    deltas: tuple[float, ...] = ()
    levels: int = 1
    level_step_ticks: float = 1.0
    skew_ticks: float = 0.0
    horizon: str = "rolling"
    sigma_method: str = "rolling"
    sigma_halflife_s: float = 300.0
    strategy: str | None = None

    def __post_init__(self) -> None:
        one_of("--quote-model", self.model, QUOTE_MODELS)
        at_least("--half-spread-ticks", self.half_spread_ticks, 0)
        above("--gamma", self.gamma)
        above("--horizon-s", self.horizon_s)
        if self.horizon_s > 1e9:
            raise UsageError(f"--horizon-s is {self.horizon_s}", remedy="give at most 1e9 seconds")
        if self.sigma is not None:
            at_least("--sigma", self.sigma, 0)
        if self.sigma_window_s < 2:
            raise UsageError(f"--sigma-window-s is {self.sigma_window_s}", remedy="give at least 2 seconds")
        if self.k is not None:
            above("--quote-k", self.k)
        if self.A is not None:
            above("--quote-A", self.A)
        one_of("--horizon", self.horizon, HORIZONS)
        one_of("--sigma-method", self.sigma_method, SIGMA_METHODS)
        above("--sigma-halflife-s", self.sigma_halflife_s)
        at_least("--level-step-ticks", self.level_step_ticks, 0)
        if not math.isfinite(self.skew_ticks):
            raise UsageError(f"--skew-ticks is {self.skew_ticks}", remedy="give a finite number")
        if not 1 <= self.levels <= MOST_LEVELS:
            raise UsageError(f"--levels is {self.levels}", remedy=f"give 1 to {MOST_LEVELS}")
        self._check_ladder()
        if (self.strategy is None) != (self.model != "strategy"):
            raise UsageError(
                f"--quote-model is {self.model!r}, --strategy {self.strategy!r}",
                remedy="give --strategy file.py:name, which is the quote model then",
            )

    def _check_ladder(self) -> None:
        """Distances are the ladder's, ascending; it has its own levels."""
        if (self.model == "ladder") != bool(self.deltas):
            raise UsageError(
                f"--quote-model is {self.model!r}, --ladder {','.join(map(str, self.deltas)) or 'not given'}",
                remedy="give --quote-model ladder with --ladder, distances from the mid in ticks",
            )
        for delta in self.deltas:
            at_least("--ladder", delta, 0)
        if list(self.deltas) != sorted(set(self.deltas)) or len(self.deltas) > MOST_LEVELS:
            raise UsageError(
                f"--ladder is {','.join(map(str, self.deltas))}", remedy=f"give up to {MOST_LEVELS} ascending distances"
            )
        if self.deltas and self.levels > 1:
            raise UsageError(f"--levels is {self.levels}", remedy="a ladder has as many levels as distances")

    @property
    def outward(self) -> tuple[float, ...]:
        """How far each level lies beyond the model's half spread, ticks."""
        return self.deltas or tuple(i * self.level_step_ticks for i in range(self.levels))

    @property
    def needs(self) -> str:
        """Which of the intensity's A and k the quotes take from it."""
        needed = {"avellaneda_stoikov": "k", "glft": "Ak"}.get(self.model, "")
        given = {"A": self.A is not None, "k": self.k is not None}
        return "".join(name for name in needed if not given[name])


@dataclass(frozen=True)
class FillSpec:
    """Which orders the market fills.

    trade_cross: a print fills it, up to the print's quantity, shared once among own orders. `reach` touch: a print at
    its price or beyond; through: a tick beyond; queue: beyond, or at its price once prints have consumed the queue
    before it. It flatters at the touch, where a queue stands before the order, and through is a lower bound.
    The queue is all that is shown when the order's price is first seen at the touch; what is cancelled leaves from
    behind it (`queue_cancels` behind: it shrinks only to what is still shown) or in proportion. It flatters where
    hidden or other levels' orders come first, and is harsh on an order that joined its level early.
    price_cross: a book whose other side reaches the order fills it, up to what `book_levels` of that side show in each
    frame. It knows nothing of fills at the touch, and flatters a large order, as each frame shows its quantity anew.
    poisson: each order is filled whole after an exponential waiting time whose rate is A exp(-k delta), delta in ticks
    from the mid, integrated over real elapsed time. It knows nothing of who trades against it: no adverse selection.
    hybrid: trade_cross and poisson race; the sum of both flatters unless (A, k) count what prints do not show.
    """

    model: str = "trade_cross"
    reach: str = "touch"
    seed: int = 42
    max_book_age_ms: int = 5_000
    queue_cancels: str = "behind"
    book_levels: int = 1

    def __post_init__(self) -> None:
        one_of("--fill-model", self.model, FILL_MODELS)
        one_of("--fill-reach", self.reach, REACHES)
        one_of("--queue-cancels", self.queue_cancels, QUEUE_CANCELS)
        at_least("--seed", self.seed, 0)
        if self.seed >= 2**63:
            raise UsageError(f"--seed is {self.seed}", remedy="give a number below 2**63")
        at_least("--max-book-age-ms", self.max_book_age_ms, 0)
        if not 1 <= self.book_levels <= MOST_LEVELS:
            raise UsageError(f"--book-levels is {self.book_levels}", remedy="give 1 (the touch) or more")
        if self.reach == "queue" and self.model in ("price_cross", "poisson"):
            raise UsageError(
                f"--fill-reach is 'queue', --fill-model {self.model!r}", remedy="prints consume queues: trade_cross"
            )

    @property
    def clocks(self) -> bool:
        """Orders are filled by their Poisson clocks."""
        return self.model in ("poisson", "hybrid")

    @property
    def prints(self) -> bool:
        """Orders are filled by prints."""
        return self.model in ("trade_cross", "hybrid")


@dataclass(frozen=True)
class Jitter:
    """What is drawn per order on top of a constant latency: nothing, exponential (mean in ms added) or lognormal
    (sigma of the logarithm, the constant being the median)."""

    name: str = "none"
    size: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Jitter:
        """From `none`, `exponential:MEAN_MS` or `lognormal:SIGMA`; raises UsageError."""
        name, _, size = text.partition(":")
        remedy = "give none, exponential:MEAN_MS or lognormal:SIGMA"
        try:
            made = cls(name, float(size) if size else 0.0)
        except ValueError:
            raise UsageError(f"--latency-jitter is {text!r}", remedy=remedy) from None
        if name not in JITTERS or (name == "none") != (not size) or not 0 <= made.size <= 1e6:
            raise UsageError(f"--latency-jitter is {text!r}", remedy=remedy)
        return made


@dataclass(frozen=True)
class BacktestSpec:
    """The whole of a backtest. Quantities in base currency, money in quote currency, fees as fractions.

    account: spot (an order reserves the cash or inventory it may need) or margin (`max_inventory` binds, and
    `leverage`: with it filled, the position's notional may be that many times the equity at most; 0: no limit).

    Times an order takes: decided, entry latency, at the venue; cancel sent, cancel latency, off the book; filled,
    response latency, known. `latency_jitter` is drawn on top, `latency_file` replaces them by measured series.
    `feed_latency`: how old what is received is, in ms or `recorded`. On the recorder's clock an order that is at the
    venue at T meets what is received from T + feed latency on, so entry and cancel take that much longer.

    time_in_force: GTC, or IOC (an order takes what it can when it arrives, and the rest is gone). min_move_ticks: an
    order stays while it is less than this from where it is wanted. size_to_balance: an order that a spot account
    cannot pay for or does not hold is made as small as it can be.
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
    response_latency_ms: int = 0
    latency_jitter: str = "none"
    latency_file: str | None = None
    feed_latency: str = "0"
    feed_floor_ms: int = 1
    time_in_force: str = "GTC"
    min_move_ticks: int = 1
    orders_per_10s: int = 0
    size_to_balance: bool = False
    leverage: float = 0.0

    def __post_init__(self) -> None:
        above("--qty", self.qty)
        one_of("--account", self.account, ACCOUNTS)
        for flag in ("entry_latency_ms", "cancel_latency_ms", "response_latency_ms", "feed_floor_ms", "ttl_ms"):
            at_least("--" + flag.replace("_", "-"), getattr(self, flag), 0)
        self._check_kinds()
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

    def _check_kinds(self) -> None:
        """Flags that exclude or need one another."""
        one_of("--time-in-force", self.time_in_force, TIMES_IN_FORCE)
        if self.time_in_force == "IOC" and self.post_only:
            raise UsageError("--time-in-force is IOC and --post-only is set", remedy="give --allow-taking")
        if self.jitter.name != "none" and self.latency_file is not None:
            raise UsageError("--latency-jitter and --latency-file are both given", remedy="give one of them")
        if not self.feed_recorded:
            at_least("--feed-latency", _number("--feed-latency", self.feed_latency), 0)
        at_least("--leverage", self.leverage, 0)
        if self.leverage and self.account == "spot":
            raise UsageError(f"--leverage is {self.leverage:g}, --account spot", remedy="give --account margin")
        if self.size_to_balance and self.account == "margin":
            raise UsageError("--size-to-balance is set, --account margin", remedy="it is for spot accounts")
        if self.min_move_ticks < 1:
            raise UsageError(f"--min-move-ticks is {self.min_move_ticks}", remedy="give at least 1 tick")
        if not 0 <= self.orders_per_10s <= 100_000:
            raise UsageError(f"--orders-per-10s is {self.orders_per_10s}", remedy="give 0 (no limit) to 100000")

    @property
    def jitter(self) -> Jitter:
        """What is drawn on top of the latencies."""
        return Jitter.parse(self.latency_jitter)

    @property
    def feed_recorded(self) -> bool:
        """The feed latency is that of the recorded clocks."""
        return self.feed_latency == "recorded"


def _number(flag: str, text: str) -> float:
    """`text` as a number; raises UsageError."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{flag} is {text!r}", remedy="give a number of ms, or recorded") from None
