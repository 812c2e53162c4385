"""Every parameter of the grid enters somewhere: another value makes another run. What is wrong is refused."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import polars as pl
import pytest

from mmlab.core.errors import UsageError
from mmlab.core.schemas import BARS
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams, from_mapping

QUARTER = 900_000_000_000
BARS_MADE = 4_000
# what makes a parameter count that counts for nothing at its neighbours' defaults
WITH = {
    "trailing_activation_er": {"trailing_enabled": True, "grid_levels": 2, "er_trend_threshold": 0.3},
    "trailing_enabled": {"grid_levels": 2, "trailing_activation_er": 0.3, "er_trend_threshold": 0.3},
    "trailing_reserve_pct": {"grid_levels": 2, "trailing_activation_er": 0.3, "max_position_pct": 0.05},
    "trailing_cap_price": {"grid_levels": 2, "trailing_activation_er": 0.3, "er_trend_threshold": 0.3},
    "max_orders": {"max_inventory_per_side": 5},
    "max_drawdown_pct": {"leverage": 20.0, "max_position_pct": 20.0, "order_pct": 0.3},
    "var_confidence": {"leverage": 20.0, "max_position_pct": 20.0, "kelly_window": 0, "max_drawdown_pct": 0.05},
    "kappa": {"kappa": 0.5, "spacing_floor": 0.001},
    "funding_cost_ratio": {"max_position_age_hours": 1e6, "gap_prune_mult": 1e6, "offset_prune_ratio": 1e6},
    "stop_cooldown_bars": {"atr_sl_mult": 1.0},
    "stop_cooldown_thresh": {"atr_sl_mult": 1.0},
    "max_position_pct": {"order_pct": 0.3},
    "low_volume_threshold": {"order_pct": 0.3, "kelly_window": 0},
    "max_inventory_per_side": {"order_pct": 0.01},
    "leverage": {"max_position_pct": 5.0},
    "gap_prune_mult": {"max_position_age_hours": 1e6, "offset_prune_ratio": 1e6},
    "max_position_age_hours": {"offset_prune_ratio": 1e6},
}  # fmt: skip
OTHER = {
    "kama_period": 5, "kama_fast": 5, "kama_slow": 12, "atr_period": 7, "adx_period": 7, "adx_trend_threshold": 5.0,
    "regime_threshold": 0.05, "er_trend_threshold": 0.1, "regime_hysteresis_bars": 1, "regime_timeframe_mult": 2,
    "use_ml_regime": True, "grid_spacing_k": 3.0, "grid_levels": 4, "max_orders": 6, "spacing_floor": 0.012,
    "order_pct": 0.03, "regen_drift_mult": 1.0, "adaptive_floor_scale": 3.0, "tp_concentration": 0.9,
    "grid_mode": "arithmetic", "gamma": 5.0, "kappa": 0.2, "max_inventory_per_side": 2, "as_time_horizon": 900.0,
    "trailing_enabled": False, "trailing_activation_er": 0.95, "trailing_reserve_pct": 0.9, "trailing_cap_price": 1.0,
    "circuit_breaker_enabled": False, "halt_z_threshold": -2.0, "resume_z_threshold": 1.0,
    "max_position_age_hours": 2.0, "deviance_sigma": 1.0, "gap_prune_mult": 0.5, "funding_cost_ratio": 0.0,
    "offset_prune_ratio": 0.1, "prune_cooldown_bars": 40, "max_drawdown_pct": 0.02, "var_confidence": 0.999,
    "atr_sl_mult": 1.0, "max_position_pct": 0.2, "funding_threshold": 1e-5, "initial_capital": 777.0, "fee_maker": 1e-4,
    "fee_taker": 1e-3, "slippage": 0.0, "leverage": 3.0, "allow_short": False, "stop_cooldown_bars": 400,
    "stop_cooldown_thresh": 1, "low_volume_threshold": 1.5, "funding_harvest_threshold": 1e-5, "kelly_window": 0,
}  # fmt: skip
OTHER_VENUE = {"tick_size": "1", "lot_size": "0.01", "min_notional": 45.0, "fills": "peer"}


@cache
def market() -> Market:
    """Calm, trends up and down, a crash; volumes that dry up; funding of both signs."""
    rng = np.random.default_rng(11)
    n = BARS_MADE
    drift = 0.0012 * np.sign(np.sin(np.arange(n) / 170)) * (np.arange(n) // 500 % 2)
    steps = drift[:, None] / 5 + rng.standard_normal((n, 5)) * 0.0012 * (1 + (np.arange(n) // 300 % 3))[:, None] / 1.5
    steps[n // 2 : n // 2 + 3] -= 0.012
    prices = np.round(20_100 * np.exp(np.cumsum(steps).reshape(n, 5)), 2)
    opens = np.concatenate((prices[:1, 0], prices[:-1, -1]))
    bars = pl.DataFrame(
        {
            "open_ns": (19_723 * 96 + np.arange(n)) * QUARTER, "open": opens,
            "high": np.maximum(prices.max(axis=1), opens), "low": np.minimum(prices.min(axis=1), opens),
            "close": prices[:, -1], "volume": rng.exponential(100.0, n), "buy_volume": None, "n_trades": None,
        }
    )  # fmt: skip
    funding = pl.DataFrame(
        {"ts_ns": bars["open_ns"].gather_every(32, 8), "rate": rng.normal(0, 6e-4, -(-(n - 8) // 32))}
    )
    return Market.of(BARS.conform(bars), QUARTER, funding)


def run(params: GridParams, venue: VenueParams) -> Raw:
    return simulate(market().rows(params), market().candles, params, venue)


def differ(one: Raw, other: Raw) -> bool:
    return one.fills.shape != other.fills.shape or not np.array_equal(one.fills, other.fills)


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(GridParams)])
def test_another_value_makes_another_run(name):
    if name == "use_ml_regime":
        pytest.importorskip("sklearn")
    base = GridParams(**WITH.get(name, {}))
    other = dataclasses.replace(base, **{name: OTHER[name]})
    assert getattr(base, name) != OTHER[name]
    assert differ(run(base, VenueParams()), run(other, VenueParams()))


@pytest.mark.parametrize("name", OTHER_VENUE)
def test_what_the_venue_demands_makes_another_run(name):
    assert differ(run(GridParams(), VenueParams()), run(GridParams(), VenueParams(**{name: OTHER_VENUE[name]})))


def test_the_liquidation_fee_is_paid():
    reckless = GridParams(leverage=125.0, max_position_pct=120.0, order_pct=1.0, kelly_window=0, max_drawdown_pct=1.0)
    with_fee, without = (run(reckless, VenueParams(liquidation_fee=fee)) for fee in (0.0125, 0.0))
    assert differ(with_fee, without)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gama": 1.0}, "grid.toml: unknown gama"),
        ({"skew_factor": 0.8}, "grid.toml: unknown skew_factor"),
        ({"gamma": 0}, "grid.toml: gamma is 0.0"),
        ({"gamma": "high"}, "grid.toml: gamma is 'high'"),
        ({"gamma": True}, "grid.toml: gamma is True"),
        ({"gamma": float("nan")}, "grid.toml: gamma is nan"),
        ({"grid_levels": 2.5}, "grid.toml: grid_levels is 2.5"),
        ({"grid_levels": 0}, "grid.toml: grid_levels is 0"),
        ({"grid_mode": "round"}, "grid.toml: grid_mode is 'round'"),
        ({"allow_short": 1}, "grid.toml: allow_short is 1"),
        ({"halt_z_threshold": 0.0}, "grid.toml: resume_z_threshold -1.0 lies below halt_z_threshold 0.0"),
        ({"kama_fast": 31}, "grid.toml: kama_fast 31 is above kama_slow 30"),
        ({"leverage": 126}, "grid.toml: leverage is 126.0"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given, said):
    with pytest.raises(UsageError) as error:
        from_mapping(GridParams, given, "grid.toml")
    assert error.value.message.startswith(said)
    assert error.value.remedy


def test_a_whole_number_is_taken_where_a_number_is_wanted():
    assert from_mapping(GridParams, {"gamma": 1}, "grid.toml") == GridParams(gamma=1.0)
