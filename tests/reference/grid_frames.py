"""Small candles for the tests of the grid's rim: seeded minutes with jumps, the bars that they make, and funding."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmlab.core.schemas import BARS, FUNDING
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams

MINUTE_NS = 60 * 10**9
INTERVAL_NS = 15 * MINUTE_NS
START_NS = 1_704_067_200 * 10**9  # 2024-01-01
EIGHT_HOURS_NS = 32 * INTERVAL_NS
BUSY = GridParams(
    spacing_floor=0.001, grid_spacing_k=0.3, adaptive_floor_scale=0.3, order_pct=0.2, kelly_window=0, leverage=3.0,
    max_position_pct=2.0, kappa=50.0, atr_sl_mult=1.5, initial_capital=1000.0,
)  # fmt: skip
VENUE = VenueParams(tick_size="0.01", lot_size="0.001")


def minutes(seed: int, bars: int, start_ns: int = START_NS, price: float = 100.0) -> pl.DataFrame:
    """A walk of 15 minutes a bar on a tick of 0.01, with a jump now and then."""
    rng = np.random.default_rng(seed)
    n = 15 * bars
    steps = rng.normal(0.0, 0.0008, n) + rng.normal(0.0, 0.01, n) * (rng.random(n) < 0.004)
    close = np.round(price * np.exp(np.cumsum(steps)), 2)
    opened = np.concatenate(([price], close[:-1]))
    reach = np.round(close * rng.exponential(0.0004, (2, n)), 2)
    return BARS.conform(
        pl.DataFrame(
            {
                "open_ns": start_ns + MINUTE_NS * np.arange(n),
                "open": opened,
                "high": np.round(np.maximum(opened, close) + reach[0], 2),
                "low": np.round(np.minimum(opened, close) - reach[1], 2),
                "close": close,
                "volume": np.round(rng.exponential(10.0, n), 3),
            }
        ).with_columns(buy_volume=pl.lit(None), n_trades=pl.lit(None))
    )


def bars_of(finer: pl.DataFrame) -> pl.DataFrame:
    """The 15-minute bars of minutes."""
    place = (pl.col("open_ns") // INTERVAL_NS * INTERVAL_NS).alias("open_ns")
    made = finer.group_by(place, maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    return BARS.conform(made.with_columns(buy_volume=pl.lit(None), n_trades=pl.lit(None)))


def funding_of(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A settlement every eight hours."""
    first, last = int(bars["open_ns"][0]), int(bars["open_ns"][-1])
    times = np.arange(first, last, EIGHT_HOURS_NS)
    rates = np.round(np.random.default_rng(seed).normal(1e-4, 3e-4, len(times)), 8)
    return FUNDING.conform(pl.DataFrame({"ts_ns": times, "rate": rates}))


def market(seed: int = 0, bars: int = 800, *, inside: bool = False) -> Market:
    """A market of so many bars, with or without its minutes."""
    finer = minutes(seed, bars)
    made = bars_of(finer)
    return Market.of(made, INTERVAL_NS, funding_of(made, seed), finer if inside else None)


def run(made: Market, params: GridParams = BUSY, venue: VenueParams = VENUE) -> Raw:
    """What the engine makes of it."""
    return simulate(made.rows(params), made.candles, params, venue)
