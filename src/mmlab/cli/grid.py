"""`mmlab grid backtest`, `mmlab grid lookahead`, `mmlab grid config`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli import options as o
from mmlab.cli.console import OUT, done, progress, table, warn
from mmlab.cli.flags import option
from mmlab.cli.several import listed

if TYPE_CHECKING:
    from mmlab.flows.grid import Where
    from mmlab.grid.config import Config

GRID = "Grid"


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Which coins, when, and with what parameters: a config file, and flags that count more than it does."""

    coins: Annotated[
        list[str] | None,
        option("--coins", help="BTC ETH SOL, or BTC,ETH; BTC/USDT and BTCUSDT mean BTC. Default: BTC.", panel=o.DATA),
    ] = None
    start: Annotated[
        str | None, option("--start", help="First day, UTC, like 2024-01-01 (the default).", panel=o.DATA)
    ] = None
    end: Annotated[
        str | None, option("--end", help="Last day, UTC, inclusive; default: where the data end.", panel=o.DATA)
    ] = None
    interval: Annotated[str | None, option("--interval", help="Length of a bar; default: 15m.", panel=o.DATA)] = None
    intrabar: Annotated[
        str | None, option("--intrabar", help="1m: 1-minute bars tell what happens inside a bar.", panel=o.DATA)
    ] = None
    venue: Annotated[
        str | None, option("--venue", env="VENUE", help="Needed only if two venues have the symbol.", panel=o.DATA)
    ] = None
    data_root: o.DataRoot = Path("data")
    config: Annotated[Path | None, option("--config", help="TOML as mmlab grid config prints it.", panel=GRID)] = None
    set_: Annotated[
        list[str] | None, option("--set", help="One parameter, like --set gamma=0.3; can be repeated.", panel=GRID)
    ] = None
    capital: Annotated[
        float | None, option("--capital", help="Quote currency, split between the coins; 10000.", panel=GRID)
    ] = None
    leverage: Annotated[float | None, option("--leverage", help="Notional / margin of an order; 1.", panel=GRID)] = None
    no_short: Annotated[bool, option("--no-short", help="Trade the long side only.", panel=GRID)] = False
    fills: Annotated[
        str | None,
        option(
            "--fills",
            help="next-bar; touch-through (a tick further); peer looks ahead and is for comparison only.",
            panel=o.FILLS,
        ),
    ] = None
    tick_size: Annotated[
        str | None, option("--tick-size", help="Price step; default: the one that the prices lie on.", panel=o.FILLS)
    ] = None
    lot_size: Annotated[str | None, option("--lot-size", help="Quantity step; default: none.", panel=o.FILLS)] = None
    min_notional: Annotated[
        float | None, option("--min-notional", help="Least notional of an entry; 5.", panel=o.FILLS)
    ] = None

    def spec(self) -> Config:
        """The config of the file, the flags and `--set`, the later ones counting more; raises UsageError."""
        from mmlab.flows.grid import read_config
        from mmlab.grid.config import assignments

        flags: dict[str, Any] = {
            "start": self.start, "end": self.end, "timeframe": self.interval, "intrabar": self.intrabar,
            "venue": self.venue, "initial_capital": self.capital, "leverage": self.leverage,
            "no_short": self.no_short or None, "fills": self.fills, "tick_size": self.tick_size,
            "lot_size": self.lot_size, "min_notional": self.min_notional,
        }  # fmt: skip
        if self.coins is not None:
            flags["coins"] = listed(self.coins)
        given = {name: value for name, value in flags.items() if value is not None}
        config = read_config(self.config).with_values(given, "the command")
        return config.with_values(assignments(self.set_ or []), "--set")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Where outputs go and how the run is named and logged."""

    out_root: o.OutRoot = Path("out")
    log_root: o.LogRoot = None
    log_level: Annotated[
        str, option("--log-level", env="LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.", panel=o.RUN)
    ] = "INFO"
    run_id: o.RunId = None

    def where(self, data_root: Path) -> Where:
        """The lake and the outputs."""
        from mmlab.flows.grid import Where

        return Where(data_root, self.out_root, self.log_root, self.log_level, self.run_id)


def backtest(
    grid: GridFlags,
    run: RunFlags,
    no_plot: Annotated[bool, option("--no-plot", help="Draw no charts.", panel=o.RUN)] = False,
    as_json: o.Json = False,
) -> None:
    """Run the grid over candles of the lake, each coin in an account of its own.

    Everything is decided at the close of a bar and live from the next one's open; inside a bar the adverse way comes
    first. Writes tables, trades as CSV, charts and a page. `--fills peer` reproduces the look-ahead of the strategy's
    earlier form, for comparison only.
    """
    from mmlab.cli.grid_console import header, summary
    from mmlab.flows.grid import backtest as flow

    config = grid.spec()
    with progress() as show:
        made = flow(run.where(grid.data_root), config, show, plot=not no_plot)
    warn(made.warnings)
    for line in (*header(config, made.days), *summary(config, made.metrics)):
        OUT.print(line, markup=False)
    figures: dict[str, dict[str, float | None]] = {}
    for coin, metric, value, _ in made.metrics.iter_rows():
        figures.setdefault(coin, {})[metric] = value
    label = {"label": made.label} if made.label else {}
    done({"path": str(made.path), **label, "metrics": figures, "warnings": made.warnings}, as_json)


def lookahead(
    grid: GridFlags,
    cuts: Annotated[int, option("--cuts", help="Bars after which everything is replaced.", panel=o.RUN)] = 20,
    seed: Annotated[int, option("--seed", help="Chooses the bars and draws what comes after them.", panel=o.RUN)] = 0,
    as_json: o.Json = False,
) -> None:
    """See that signals, decisions and fills of a config depend on nothing that comes later.

    Everything after a bar is replaced by other data, and all that was known up to its close must be the same bit for
    bit; and no order may be filled on a candle that opened before it was decided. Exit code 1 if either fails.
    """
    from mmlab.flows.grid import check_lookahead

    config = grid.spec()
    with progress() as show:
        found = check_lookahead(grid.data_root, config, cuts, seed, show)
    for symbol, finding in found.items():
        tested = f"{len(finding.cuts)} cuts, {finding.orders:,} orders"
        OUT.print(f"{symbol}: {'OK' if finding.ok else 'LOOK-AHEAD'} ({tested})", markup=False)
        if not finding.ok:
            OUT.print(f"  {finding.fault}", markup=False)
    done({symbol: {"ok": f.ok, "fault": f.fault, "cuts": f.cuts} for symbol, f in found.items()}, as_json)
    if not all(finding.ok for finding in found.values()):
        raise typer.Exit(1)


def config(
    as_table: Annotated[bool, typer.Option("--table", help="As a table instead of TOML.")] = False,
) -> None:
    """Print every parameter with its default and what it does, as the TOML that --config takes."""
    from dataclasses import fields

    from mmlab.grid.config import BacktestParams, default_toml, toml
    from mmlab.grid.params import GridParams

    if not as_table:
        print(default_toml(), end="")
        return
    for title, spec in (("strategy", GridParams()), ("backtest", BacktestParams())):
        rows = [(f.name, toml(getattr(spec, f.name)), f.metadata["doc"]) for f in fields(spec)]
        table(title, ("name", "default", "what it does"), rows)
