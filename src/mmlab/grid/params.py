"""Every parameter of the grid: its default, what it does, and the values it may have; and how a run is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmlab.core.errors import UsageError

FILLS = ("next-bar", "touch-through", "peer")
GRID_MODES = ("geometric", "arithmetic")
MOST_LEVELS, MOST_LOTS, MOST_TRADES = 200, 500, 1_000


def param(default: Any, doc: str, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Any:
    """A field with what it means and the closed range of its values; `above` leaves `low` itself out."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "above": above})


@dataclass(frozen=True)
class GridParams:
    """What the strategy does; docs/grid.md tells where each enters. Raises UsageError for a value out of its range."""

    kama_period: int = param(10, "bars of the higher timeframe in the efficiency ratio", 1, 10_000)
    kama_fast: int = param(2, "fast period of KAMA", 1, 10_000)
    kama_slow: int = param(30, "slow period of KAMA", 1, 10_000)
    atr_period: int = param(14, "bars in ATR and in the rolling volatility", 1, 10_000)
    adx_period: int = param(14, "bars in ADX", 1, 10_000)
    adx_trend_threshold: float = param(25.0, "below this ADX a trend counts as noise", 0, 100)
    regime_threshold: float = param(0.15, "KAMA's slope in ATRs that makes a trend; twice that a breakout", 0)
    er_trend_threshold: float = param(0.5, "least efficiency ratio of a trend", 0, 1)
    regime_hysteresis_bars: int = param(3, "bars that a new regime holds before it is taken", 1, 10_000)
    regime_timeframe_mult: int = param(4, "bars in a bar of the higher timeframe", 1, 672)
    use_ml_regime: bool = param(False, "regimes by a Gaussian mixture instead of KAMA")
    grid_spacing_k: float = param(1.0, "spacing in ATRs", 0)
    grid_levels: int = param(10, "levels a side", 1, MOST_LEVELS)
    max_orders: int = param(500, "most orders that rest at a time", 1)
    spacing_floor: float = param(0.005, "least spacing as a fraction of the price", 1e-5, 1)
    order_pct: float = param(0.05, "an order's margin as a fraction of equity, before Kelly", 0, 1, above=True)
    regen_drift_mult: float = param(2.0, "spacings from the anchor at which the grid is laid anew", 0, above=True)
    adaptive_floor_scale: float = param(1.5, "least spacing in ATRs", 0)
    tp_concentration: float = param(0.6, "share of the position in the nearest take-profit", 0, 1)
    grid_mode: str = param("geometric", "geometric or arithmetic levels")
    gamma: float = param(0.5, "risk aversion of Avellaneda and Stoikov, per unit of return", 0, above=True)
    kappa: float = param(1.5, "decay of fill intensity per sigma of distance", 0, above=True)
    max_inventory_per_side: int = param(10, "most lots a side", 1, MOST_LOTS)
    as_time_horizon: float = param(96.0, "horizon of the inventory's risk, in bars", 0, above=True)
    trailing_enabled: bool = param(True, "let the anchor follow a trend upwards")
    trailing_activation_er: float = param(0.65, "least efficiency ratio to trail", 0, 1)
    trailing_reserve_pct: float = param(0.25, "share of the cap kept free while trailed", 0, 1)
    trailing_cap_price: float = param(0.0, "the anchor trails no higher than this; 0: no cap", 0)
    circuit_breaker_enabled: bool = param(True, "withdraw entries in a crash")
    halt_z_threshold: float = param(-3.0, "z-score below which entries are withdrawn")
    resume_z_threshold: float = param(-1.0, "z-score above which they come back")
    max_position_age_hours: float = param(24.0, "age from which a losing lot is pruned", 0)
    deviance_sigma: float = param(3.0, "ATRs from KAMA at which the worst lot is pruned", 0)
    gap_prune_mult: float = param(3.0, "spacings from the price at which a losing lot is pruned", 0)
    funding_cost_ratio: float = param(0.5, "funding paid, in spacings' profit, at which a lot is pruned", 0)
    offset_prune_ratio: float = param(1.5, "a loss times this is paid for by kept profit", 0)
    prune_cooldown_bars: int = param(4, "bars between prunes of a side", 0)
    max_drawdown_pct: float = param(0.15, "most VaR and drawdown; lots are shed from 75% of it", 0, 1, above=True)
    var_confidence: float = param(0.95, "confidence of the VaR", 0.5, 0.999999)
    atr_sl_mult: float = param(
        3.5, "ATRs from the mean entry to the first stop; 1.5 times to the second", 0, above=True
    )
    max_position_pct: float = param(0.7, "most notional a side as a fraction of equity", 0, 1000, above=True)
    funding_threshold: float = param(3e-4, "funding rate that shifts the entries' spacing", 0)
    initial_capital: float = param(10_000.0, "what the wallet starts with, quote currency", 0, above=True)
    fee_maker: float = param(2e-4, "fee of resting orders, fraction of the notional", -0.01, 0.1)
    fee_taker: float = param(5e-4, "fee of market orders", -0.01, 0.1)
    slippage: float = param(5e-4, "how much worse market orders and stops fare", 0, 0.1)
    leverage: float = param(1.0, "an order's notional is its margin times this", 1, 125)
    allow_short: bool = param(True, "trade the short side as well")
    stop_cooldown_bars: int = param(48, "bars that stops count together, and sizes stay halved", 1)
    stop_cooldown_thresh: int = param(2, "stops that halve the sizes", 1)
    low_volume_threshold: float = param(0.5, "volume against its 7-day mean below which the cap shrinks to 70%", 0)
    funding_harvest_threshold: float = param(2e-4, "funding rate from which the receiving side is larger", 0)
    kelly_window: int = param(50, "trades in the Kelly estimate; 0: full sizes", 0, MOST_TRADES)

    def __post_init__(self) -> None:
        check(self)
        if self.grid_mode not in GRID_MODES:
            raise UsageError(f"grid_mode is {self.grid_mode!r}", remedy=f"choose one of {', '.join(GRID_MODES)}")
        if self.resume_z_threshold < self.halt_z_threshold:
            raise UsageError(
                f"resume_z_threshold {self.resume_z_threshold} lies below halt_z_threshold {self.halt_z_threshold}",
                remedy="resume at a higher z than halt",
            )
        if self.kama_fast > self.kama_slow:
            raise UsageError(f"kama_fast {self.kama_fast} is above kama_slow {self.kama_slow}", remedy="swap them")


@dataclass(frozen=True)
class VenueParams:
    """What the venue demands; 0 for a step means none. Raises UsageError for a value out of its range."""

    tick_size: str = param("0", "price step")
    lot_size: str = param("0", "quantity step")
    min_notional: float = param(5.0, "least notional of an entry, quote currency", 0)
    liquidation_fee: float = param(0.0125, "fee of a liquidation, fraction of the notional", 0, 0.1)
    fills: str = param("next-bar", "how a limit order fills in a candle")

    def __post_init__(self) -> None:
        check(self)
        if self.fills not in FILLS:
            raise UsageError(f"--fills is {self.fills!r}", remedy=f"choose one of {', '.join(FILLS)}")


def check(spec: Any) -> None:
    """Raise UsageError naming a field of the wrong type or out of its range."""
    for each in dataclasses.fields(spec):
        value: Any = getattr(spec, each.name)
        meta = each.metadata
        kind: Any = type(each.default)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise UsageError(f"{each.name} is {value!r}", remedy=f"give a {KINDS[kind]}: {meta['doc']}")
        if kind in (int, float):
            low, high, above = meta["low"], meta["high"], meta["above"]
            if not (low < value <= high if above else low <= value <= high) or not abs(value) < math.inf:
                span = f"above {low:g}" if above else f"{low:g} or more" if low > -math.inf else "a finite number"
                most = f", at most {high:g}" if high < math.inf else ""
                raise UsageError(f"{each.name} is {value}", remedy=f"give {span}{most}: {meta['doc']}")


KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def from_mapping(kind: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """A spec from names and values, whole numbers taken for floats; UsageError for an unknown name."""
    fields = {each.name: each for each in dataclasses.fields(kind)}
    unknown = [name for name in given if name not in fields]
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(sorted(unknown))}", remedy=f"known: {', '.join(fields)}")
    values = {
        name: float(value) if type(fields[name].default) is float and type(value) is int else value
        for name, value in given.items()
    }
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", remedy=error.remedy) from None
