"""Files of candles and funding as people have them: seeded, a few months, prices to the tenth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

QUARTER_MS, DAY_MS = 900_000, 86_400_000
START_MS = 1_704_067_200_000  # 2024-01-01
DAYS = 120


def write_candles(folder: Path, coin: str, price: float, seed: int, days: int = DAYS) -> None:
    """`COIN-15m.csv` and `COIN-funding.csv`: a walk with no drift and volatility that clusters."""
    rng = np.random.default_rng(seed)
    n = days * 96
    level = np.zeros(n)
    for i in range(1, n):
        level[i] = 0.99 * level[i - 1] + 0.08 * rng.standard_normal()
    steps = rng.standard_normal((n, 5)) * (0.0010 * np.exp(level))[:, None]
    walk = np.cumsum(steps - steps.mean() - steps.var() / 2).reshape(n, 5)
    prices = np.round(price * np.exp(walk), 1)
    opens = np.concatenate(([price], prices[:-1, -1]))
    frame = pl.DataFrame(
        {
            "timestamp": START_MS + np.arange(n) * QUARTER_MS, "open": opens,
            "high": np.maximum(prices.max(axis=1), opens), "low": np.minimum(prices.min(axis=1), opens),
            "close": prices[:, -1], "volume": np.round(rng.exponential(800.0, n), 3),
        }
    )  # fmt: skip
    frame.write_csv(folder / f"{coin}-15m.csv")
    rates = np.round(rng.normal(1e-4, 1e-4, days * 3), 8)
    stamps = START_MS + np.arange(days * 3) * DAY_MS // 3
    pl.DataFrame({"timestamp": stamps, "fundingRate": rates}).write_csv(folder / f"{coin}-funding.csv")


def write_all(folder: Path) -> None:
    """The files that the README works on."""
    write_candles(folder, "BTC", 42_000.0, 1)
    write_candles(folder, "ETH", 2_300.0, 2)
