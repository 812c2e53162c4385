"""What `mmlab grid backtest` prints: a head that says what was run, and a block of figures for each coin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mmlab.grid.config import LOOK_AHEAD, QUOTES, coin_of
from mmlab.grid.metrics import PORTFOLIO

if TYPE_CHECKING:
    import polars as pl

    from mmlab.grid.config import Config

RULE = "─" * 60
Values = dict[str, float | None]


def percent(name: str, *, signed: bool = False) -> Callable[[Values], str]:
    """A share with two decimals."""
    return lambda v: "-" if v[name] is None else f"{v[name]:{'+' if signed else ''},.2f}%"


def plain(name: str) -> Callable[[Values], str]:
    """A ratio with three decimals."""
    return lambda v: "-" if v[name] is None else f"{v[name]:,.3f}"


def money(name: str, *, signed: bool = False) -> Callable[[Values], str]:
    """An amount with two decimals."""
    return lambda v: "-" if v[name] is None else f"{v[name]:{'+' if signed else ''},.2f}"


def count(*names: str) -> Callable[[Values], str]:
    """Whole numbers, parted by a stroke."""
    return lambda v: " / ".join(f"{v[name] or 0:,.0f}" for name in names)


LINES: tuple[tuple[str, Callable[[Values], str]], ...] = (
    ("Return", percent("total_return_pct", signed=True)),
    ("Buy & Hold", percent("buy_hold_return_pct", signed=True)),
    ("Final capital", money("final_capital")),
    ("Max Drawdown", percent("max_drawdown_pct")),
    ("Sharpe", plain("sharpe_ratio")),
    ("Sortino", plain("sortino_ratio")),
    ("Calmar", plain("calmar_ratio")),
    ("Trades", count("total_trades")),
    ("Win rate", percent("win_rate_pct")),
    ("Profit factor", plain("profit_factor")),
    ("Longs open/close", count("longs_opened", "longs_closed")),
    ("Shorts open/close", count("shorts_opened", "shorts_closed")),
    ("Stops long/short", count("stops_long", "stops_short")),
    ("Prunes", count("prune_count")),
    ("Halts", lambda v: f"{v['circuit_breaker_triggers']:,.0f} ({v['halted_bars']:,.0f} bars)"),
    ("Trailing shifts", count("trailing_shifts")),
    ("VaR blocks", count("var_blocks")),
    ("Liquidations", count("liquidations")),
    ("Funding", money("funding_pnl", signed=True)),
    ("Fees", money("fees_paid")),
)


def header(config: Config, days: str) -> list[str]:
    """Mode, candles and fills; capital, leverage and shorts; coins and period; and a warning where fills look ahead."""
    p, b = config.params, config.backtest
    mode, regime = "Hedge Mode" if p.allow_short else "Long Only", "GMM" if p.use_ml_regime else "KAMA"
    first, _, last = days.partition("..")
    intrabar = f" (inside: {b.intrabar})" if b.intrabar else ""
    lines = [
        f"Grid | {mode} | {regime} Regime | {b.timeframe} Candles{intrabar} | Fills: {b.fills}",
        f"Capital: ${p.initial_capital:,.0f} | Leverage: {p.leverage:g}x | Short: {'ON' if p.allow_short else 'OFF'}",
        f"Coins: {', '.join(map(coin_of, b.symbols))} | Period: {dashed(first)} → {dashed(last or first)}",
    ]
    return [*lines, *([f"*** {LOOK_AHEAD} ***"] if b.look_ahead else [])]


def summary(config: Config, metrics: pl.DataFrame) -> list[str]:
    """A block of figures for each coin, and one for all together if there are several."""
    lines: list[str] = []
    for coin in metrics["coin"].unique(maintain_order=True):
        values = dict(metrics.filter(coin=coin).select("metric", "value").iter_rows())
        label = f" ({LOOK_AHEAD})" if config.backtest.look_ahead else ""
        lines += ["", RULE, f"  {pair(coin)} — Performance Summary{label}", RULE]
        lines += [f"  {name:<18}{show(values):>18}" for name, show in LINES]
    return lines


def pair(symbol: str) -> str:
    """`BTC/USDT` of BTCUSDT."""
    coin = coin_of(symbol)
    return "Portfolio" if symbol == PORTFOLIO else symbol if coin == symbol else f"{coin}/{QUOTES[0]}"


def dashed(day: str) -> str:
    """`2024-01-31` of 20240131."""
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"
