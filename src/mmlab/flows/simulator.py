"""The grid on coins of the lake, for notebooks and scripts: `BacktestSimulator().run_single("BTC/USDT")`.

    from mmlab.flows.simulator import BacktestSimulator, GridStrategy, STRATEGY_PARAMS

    sim = BacktestSimulator({**STRATEGY_PARAMS, "gamma": 0.3}, data_root="data")
    result = sim.run_single("BTC/USDT", start="2024-01-01", end="2024-12-31")
    result.metrics["sharpe_ratio"], result.trades, result.equity_curve, result.warnings
    each = sim.run_multi(["BTC", "ETH"], start="2024-01-01")     # {"BTC": Result, "ETH": Result, "_portfolio": ...}
    sim.sweep("BTC", start="2024-01-01", gamma=[0.1, 0.5, 1.0])

Nothing is written: `mmlab grid backtest` does the same and keeps tables, charts and a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.flows.grid_run import Coin, read_coins
from mmlab.grid.config import BacktestParams, Config
from mmlab.grid.market import Market
from mmlab.grid.metrics import PORTFOLIO, joint, metrics, union
from mmlab.grid.params import GridParams, VenueParams, from_mapping
from mmlab.grid.strategy import STRATEGY_PARAMS, GridStrategy, Result, sweep

__all__ = [
    "STRATEGY_PARAMS", "BacktestSimulator", "GridParams", "GridStrategy", "Portfolio", "Result", "VenueParams", "sweep",
]  # fmt: skip
ALSO_CALLED = {"start_date": "start", "end_date": "end"}  # by the strategy's document


@dataclass(frozen=True)
class Portfolio:
    """All coins' accounts added up: bars' openings in ns and equity at their closes, and the figures of that curve."""

    open_ns: npt.NDArray[np.int64]
    equity_curve: npt.NDArray[np.float64]
    metrics: dict[str, float | None]
    tables: dict[str, pl.DataFrame]

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class BacktestSimulator:
    """Runs over candles of the lake under `data_root`.

    config: names and values of GridParams; backtest_config: of BacktestParams (coins, start, end, timeframe, fills,
    intrabar, tick_size...). Raises UsageError for names and values that cannot be, LakeError if there are no candles.
    """

    def __init__(
        self, config: Mapping[str, Any] | GridParams | None = None, backtest_config: Mapping[str, Any] | None = None,
        data_root: str | Path = "data",
    ) -> None:  # fmt: skip
        given = {ALSO_CALLED.get(name, name): value for name, value in (backtest_config or {}).items()}
        spec = from_mapping(BacktestParams, {n: "" if v is None else v for n, v in given.items()}, "backtest_config")
        self.config = Config(GridStrategy(config).params, spec)
        self.data_root = Path(data_root)

    def run_single(self, coin: str, start: str | None = None, end: str | None = None) -> Result:
        """One coin with the whole capital."""
        config, (read,) = self._read((coin,), start, end)
        return run(read, config, config.params)

    def run_multi(
        self, coins: Sequence[str] | None = None, start: str | None = None, end: str | None = None
    ) -> dict[str, Result | Portfolio]:  # fmt: skip
        """Each coin in an account of its own with its part of the capital, by name; `_portfolio`: all together."""
        config, read = self._read(coins, start, end)
        capital = config.params.initial_capital
        share = dataclasses.replace(config.params, initial_capital=capital / len(read))
        found = {
            name: run(coin, config, share) for name, coin in zip(config.backtest.coins, read, strict=True)
        }  # fmt: skip
        made = [result.tables for result in found.values()]
        together = joint(made, capital, read[0].interval_ns)
        figures = metrics(PORTFOLIO, together)
        whole = dict(figures.select("metric", "value").iter_rows())
        return {**found, "_portfolio": Portfolio(union(made), together.equity, whole, {"grid_metrics": figures})}

    def sweep(
        self, coin: str, start: str | None = None, end: str | None = None, **values: Iterable[Any]
    ) -> pl.DataFrame:  # fmt: skip
        """Every combination of values over one coin, as `run_single` runs each; one row each, see `sweep`."""
        config, (read,) = self._read((coin,), start, end)
        venue = dataclasses.asdict(config.backtest.at_venue(read.tick_size))
        fixed = {name: [value] for name, value in venue.items() if name not in values}
        return sweep(read.market, config.params, **fixed, **values).drop(fixed)

    def market(self, coin: str, start: str | None = None, end: str | None = None) -> Market:
        """One coin's candles as the engine reads them, for code of one's own."""
        _, (read,) = self._read((coin,), start, end)
        return read.market

    def frame(self, coin: str, start: str | None = None, end: str | None = None) -> pl.DataFrame:
        """One coin's candles with `timestamp` in ms, for code of one's own and GridStrategy.run."""
        _, (read,) = self._read((coin,), start, end)
        times = (pl.col("open_ns") // 1_000_000).alias("timestamp")
        return read.bars.select(times, "open", "high", "low", "close", "volume")

    def _read(
        self, coins: Sequence[str] | None, start: str | None, end: str | None
    ) -> tuple[Config, list[Coin]]:  # fmt: skip
        given = {"coins": list(coins) if coins is not None else None, "start": start, "end": end}
        config = self.config.with_values({n: v for n, v in given.items() if v is not None}, "the simulator")
        return config, read_coins(self.data_root, config.backtest)


def run(coin: Coin, config: Config, params: GridParams) -> Result:
    """One coin with these parameters, at the venue of the config."""
    venue = config.backtest.at_venue(coin.tick_size)
    strategy = GridStrategy(params, **{f.name: getattr(venue, f.name) for f in dataclasses.fields(venue)})
    return strategy.run_market(coin.market, coin=coin.symbol, warnings=coin.warnings)
