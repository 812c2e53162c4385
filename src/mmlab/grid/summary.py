"""What a run's page, charts and files show of its tables: curves, trades, profit by label, figures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.spans import NS_PER_MS
from mmlab.grid.config import coin_of
from mmlab.grid.metrics import PORTFOLIO, Account, account, drawdown, joint, union
from mmlab.grid.regime import REGIME_NAMES

TRADE_COLUMNS = ("bar", "timestamp", "datetime", "price", "qty", "label", "regime", "pnl")


def curve(open_ns: npt.NDArray[np.int64], a: Account) -> pl.DataFrame:
    """open_ns, equity, buy_hold (what the same money had become in the coins) and drawdown_pct, a row a bar."""
    columns = {"open_ns": open_ns, "equity": a.equity, "buy_hold": a.held, "drawdown_pct": 100 * drawdown(a)}
    return pl.DataFrame(columns)


def curve_of(made: Mapping[str, pl.DataFrame], capital: float, interval_ns: int) -> pl.DataFrame:
    """The curve of one coin's tables."""
    return curve(made["grid_equity"]["open_ns"].to_numpy(), account(made, capital, interval_ns))


def joint_curve(made: Sequence[Mapping[str, pl.DataFrame]], capital: float, interval_ns: int) -> pl.DataFrame:
    """The curve of all coins' accounts added up, on the union of their bars."""
    return curve(union(made), joint(made, capital, interval_ns))


def trades(fills: pl.DataFrame, open_ns: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Fills in the columns of the strategy's document; `open_ns`: all bars of the run.

    bar counts from 0; timestamp is the candle's opening in ms; pnl is less the fee of closings, and 0 for openings.
    """
    bar = np.searchsorted(open_ns, fills["candle_ns"].to_numpy(), side="right") - 1
    opened = pl.col("label").str.contains("OPEN")
    return fills.with_columns(
        bar=pl.Series(bar, dtype=pl.Int64),
        timestamp=pl.col("candle_ns") // NS_PER_MS,
        datetime=pl.from_epoch("candle_ns", "ns").dt.strftime("%Y-%m-%d %H:%M:%S"),
        regime=pl.col("regime").replace_strict(REGIME_NAMES, return_dtype=pl.String),
        pnl=pl.when(opened).then(0.0).otherwise(pl.col("pnl") - pl.col("fee")),
    ).select(TRADE_COLUMNS)


def busiest(fills: pl.DataFrame, most: int) -> tuple[int, int]:
    """The shortest stretch of time with `most` fills in a row, with a tenth of it on either side; ns."""
    ns = fills["candle_ns"].to_numpy()
    k = int(np.argmin(ns[most - 1 :] - ns[: len(ns) - most + 1]))
    first, last = int(ns[k]), int(ns[k + most - 1])
    return first - (last - first) // 10, last + (last - first) // 10


def by_label(fills: pl.DataFrame) -> pl.DataFrame:
    """What each kind of fill moved and earned, by coin: pnl before fees, fees, and net; the largest net first."""
    net = pl.col("pnl") - pl.col("fee")
    found = fills.group_by("coin", "label", maintain_order=True).agg(
        pl.len().alias("fills"),
        (pl.col("price") * pl.col("qty")).sum().alias("notional"),
        pl.col("pnl").sum(),
        pl.col("fee").sum().alias("fees"),
        net.sum().alias("net"),
        (pl.col("liquidity") == "maker").mean().alias("maker_share"),
    )
    return found.sort("coin", "net", "label", descending=[False, True, False])


def by_guard(verdicts: pl.DataFrame) -> pl.DataFrame:
    """How often each guard acted, by coin."""
    return verdicts.group_by("coin", "guard").agg(pl.len().alias("times")).sort("coin", "guard")


def by_regime(regimes: pl.DataFrame) -> pl.DataFrame:
    """Bars and their share in each regime, by coin."""
    found = regimes.group_by("coin", "regime").agg(pl.len().alias("bars")).sort("coin", "regime")
    share = (pl.col("bars") / pl.col("bars").sum().over("coin") * 100).alias("share_pct")
    name = pl.col("regime").replace_strict(REGIME_NAMES, return_dtype=pl.String)
    return found.with_columns(share, regime=name)


def side_by_side(metrics: pl.DataFrame) -> pl.DataFrame:
    """grid_metrics with a column for each coin, the portfolio last."""
    coins = metrics["coin"].unique(maintain_order=True).to_list()
    ordered = [coin for coin in coins if coin != PORTFOLIO] + [coin for coin in coins if coin == PORTFOLIO]
    wide = metrics.select("metric", "unit").unique(maintain_order=True)
    for coin in ordered:
        own = metrics.filter(coin=coin).select("metric", pl.col("value").alias(coin_of(coin)))
        wide = wide.join(own, on="metric", how="left", maintain_order="left")
    return wide
