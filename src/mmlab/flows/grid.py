"""`mmlab grid backtest` and `mmlab grid lookahead`: candles of the lake -> tables, trades and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mmlab.core.errors import UsageError
from mmlab.core.grid_schemas import GRID_METRICS, GRID_TABLES
from mmlab.flows.grid_report import write_page
from mmlab.flows.grid_run import Coin, Where, begin_grid, read_coin, read_coins, read_config
from mmlab.flows.run import Progress, no_progress
from mmlab.grid import lookahead
from mmlab.grid.config import LOOK_AHEAD, Config, coin_of
from mmlab.grid.engine import simulate
from mmlab.grid.metrics import account, metrics, portfolio
from mmlab.grid.params import GridParams
from mmlab.grid.summary import trades
from mmlab.grid.tables import tables

__all__ = ["Backtested", "Coin", "Where", "backtest", "check_lookahead", "read_coin", "read_coins", "read_config"]
Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class Backtested:
    """Where the run lies, its figures (grid_metrics), what the user should know of it, and the days that it covers."""

    path: Path
    metrics: pl.DataFrame
    warnings: list[str]
    days: str
    label: str  # of every output; empty unless fills look ahead


def backtest(
    where: Where, config: Config, progress: Progress = no_progress, *, plot: bool = True
) -> Backtested:  # fmt: skip
    """Run every coin in an account of its own, with capital / number of coins each, and write what came of it.

    With `plot` the charts are drawn too; the page is written in any case. Raises what `read_coin` and `begin_grid`
    raise, and UsageError if charts are wanted and matplotlib is not there.
    """
    if plot:
        need_plots()
    coins = read_coins(where.data_root, config.backtest)
    share = dataclasses.replace(config.params, initial_capital=config.params.initial_capital / len(coins))
    with begin_grid(where, "backtest", config, coins, progress) as run:
        made: dict[str, Tables] = {}
        for done, coin in enumerate(coins):
            with run.step(f"simulate {coin.symbol}"):
                made[coin.symbol] = run_coin(coin, share, config)
            progress("backtest", done + 1, len(coins))
        figures = figures_of(made, config.params.initial_capital, coins[0].interval_ns)
        for table in GRID_TABLES:
            if table is GRID_METRICS:
                run.folder.write_table(table, figures)
            else:
                run.folder.write_table(table, pl.concat([made[symbol][table.name] for symbol in sorted(made)]))
        for coin in coins:
            rows = trades(made[coin.symbol]["grid_fills"], coin.market.open_ns)
            run.folder.write_bytes(file_name(config, coin.symbol, "trades.csv"), csv(rows))
            if rows.is_empty():
                run.warn(f"{coin.symbol}: no order was filled")
        ticks = {coin.symbol: config.backtest.at_venue(coin.tick_size).tick_size for coin in coins}
        told = {
            "symbols": list(made),
            "tick_sizes": ticks,
            "capital_each": share.initial_capital,
            "interval_ns": coins[0].interval_ns,
        }
        path = run.commit(told)
    write_page(path, plot=plot)
    return Backtested(path, figures, run.warnings, str(run.days), LOOK_AHEAD if config.backtest.look_ahead else "")


def run_coin(coin: Coin, params: GridParams, config: Config) -> dict[str, pl.DataFrame]:
    """One coin's tables but the metrics."""
    venue = config.backtest.at_venue(coin.tick_size)
    raw = simulate(coin.market.rows(params), coin.market.candles, params, venue)
    return tables(coin.symbol, coin.market, raw, params)


def figures_of(made: Mapping[str, Tables], capital: float, interval_ns: int) -> pl.DataFrame:
    """grid_metrics of every coin and, if there are several, of all together."""
    share = capital / len(made)
    found = [metrics(symbol, account(each, share, interval_ns)) for symbol, each in made.items()]
    if len(made) > 1:
        found.append(portfolio(list(made.values()), capital, interval_ns))
    return pl.concat(found)


def csv(rows: pl.DataFrame) -> bytes:
    """The same bytes for the same rows; decimals written out."""
    return rows.write_csv(float_scientific=False).encode()


def file_name(config: Config, symbol: str, end: str) -> str:
    """`BTC_trades.csv`; with `peer` in it where fills look ahead."""
    return f"{coin_of(symbol)}_{'peer_' if config.backtest.look_ahead else ''}{end}"


def need_plots() -> None:
    """Raise UsageError without the extra `plots`."""
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        raise UsageError("matplotlib is not installed", remedy="pip install 'mmlab[plots]', or --no-plot") from None


def check_lookahead(
    data_root: Path, config: Config, cuts: int, seed: int, progress: Progress = no_progress
) -> dict[str, lookahead.Finding]:
    """Whether each coin's signals, decisions and fills depend on anything later; raises as `read_coin` does."""
    found = {}
    coins = read_coins(data_root, config.backtest)
    for done, coin in enumerate(coins):
        venue = config.backtest.at_venue(coin.tick_size)
        frames = (coin.bars, coin.interval_ns, coin.funding, coin.finer)
        found[coin.symbol] = lookahead.check(*frames, config.params, venue, cuts=cuts, seed=seed)
        progress("lookahead", done + 1, len(coins))
    return found
