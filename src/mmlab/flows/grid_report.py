"""A grid run's tables -> its page and charts: what `mmlab grid backtest` writes and `mmlab report` redraws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core import grid_schemas as tables
from mmlab.core.errors import LakeError
from mmlab.core.table import Table
from mmlab.grid.config import LOOK_AHEAD, coin_of
from mmlab.grid.metrics import PORTFOLIO
from mmlab.grid.summary import busiest, by_guard, by_label, by_regime, curve_of, joint_curve, side_by_side
from mmlab.report import page
from mmlab.store.parts import write_bytes_atomic
from mmlab.store.runs import read_json, read_table

EQUITY_SAID = (
    "Wallet and unrealised profit at the close of each bar, and what the same money had become in the coin; below, how "
    "far the equity lies under its highest so far, and the regime in force."
)
JOINT_SAID = (
    "All coins' accounts added up, each of which began with the same part of the capital; below, how far the sum lies "
    "under its highest so far."
)
TRADES_SAID = (
    "Every fill at its price. Green up: a long opened, blue down: closed; red down: a short opened, orange up: closed; "
    "crosses: stops; squares: prunes; black: liquidations; purple strokes: the circuit breaker halts."
)
CLOSE_UP = 120  # fills in a close look
SAID = {
    "profit_by_label": "What each kind of fill earned: pnl before fees, net after them; openings pay their fee only.",
    "guards": "How often each guard acted.",
    "regimes": "Bars at whose close a regime was in force.",
}


def write_page(run: Path, *, plot: bool) -> Path:
    """Write report.html and, with `plot`, COIN_equity.png, COIN_trades.png and a close look; returns the page's path.

    Raises LakeError for tables that are missing or torn.
    """
    manifest = read_json(run / "manifest.json")
    found = {table.name: need(run, table) for table in tables.GRID_TABLES}
    figures = draw(run, manifest, found) if plot else {}
    coins = [coin_of(symbol) for symbol in manifest["spec"]["symbols"]]
    shown = {
        "figures_of_each_coin": side_by_side(found["grid_metrics"]),
        "profit_by_label": by_label(found["grid_fills"]),
        "guards": by_guard(found["grid_verdicts"]),
        "regimes": by_regime(found["grid_regimes"]),
    }
    main = PORTFOLIO if len(coins) > 1 else found["grid_metrics"]["coin"][0]
    tiles = found["grid_metrics"].filter(coin=main)
    text = page.render(
        titled(f"Grid backtest of {', '.join(coins)}, {manifest['spec']['day']}", manifest),
        manifest,
        tiles,
        {name: image for name, (image, _, _) in figures.items()},
        shown,
        {name: alt for name, (_, alt, _) in figures.items()},
        {**SAID, **{name: said for name, (_, _, said) in figures.items()}},
    )
    write_bytes_atomic(run / "report.html", text.encode())
    return run / "report.html"


def draw(
    run: Path, manifest: Mapping[str, Any], found: Mapping[str, pl.DataFrame]
) -> dict[str, tuple[bytes, str, str]]:
    """Draw and write every chart; its bytes, what it shows in words, and its caption, by name."""
    from mmlab.report import canvas, grid_figures  # noqa: PLC0415 - matplotlib is an extra

    spec = manifest["spec"]
    symbols, interval_ns, each = list(spec["symbols"]), spec["interval_ns"], spec["capital_each"]
    own = {symbol: {name: part_of(frame, symbol) for name, frame in found.items()} for symbol in symbols}
    peer = "peer_" if "label" in manifest else ""
    drawn = {}
    if len(symbols) > 1:
        curve = joint_curve(list(own.values()), each * len(symbols), interval_ns)
        title = titled(f"{len(symbols)} coins together", manifest)
        drawn[f"portfolio_{peer}equity"] = (grid_figures.equity(title, curve), JOINT_SAID)
    for symbol, made in own.items():
        coin = coin_of(symbol)
        curve = curve_of(made, each, interval_ns)
        title = titled(f"{coin}: equity", manifest)
        drawn[f"{coin}_{peer}equity"] = (grid_figures.equity(title, curve, made["grid_regimes"]), EQUITY_SAID)
        parts = (made["grid_equity"], made["grid_fills"], made["grid_verdicts"])
        title = titled(f"{coin}: trades", manifest)
        drawn[f"{coin}_{peer}trades"] = (grid_figures.trade_map(title, *parts), TRADES_SAID)
        if made["grid_fills"].height > CLOSE_UP:
            title = titled(f"{coin}: a busy stretch", manifest)
            drawn[f"{coin}_{peer}close_up"] = (grid_figures.trade_map(title, *close_up(*parts)), TRADES_SAID)
    images = {}
    for name, (figure, said) in drawn.items():
        images[name] = (canvas.png(figure), canvas.says_of(figure), said)
        write_bytes_atomic(run / f"{name}.png", images[name][0])
    return images


def close_up(account: pl.DataFrame, fills: pl.DataFrame, verdicts: pl.DataFrame) -> tuple[pl.DataFrame, ...]:
    """The three tables in the stretch that is busiest."""
    span = busiest(fills, CLOSE_UP)
    instants = (("open_ns", account), ("candle_ns", fills), ("decided_ns", verdicts))
    return tuple(frame.filter(pl.col(name).is_between(*span)) for name, frame in instants)


def titled(text: str, manifest: Mapping[str, Any]) -> str:
    """A title that says so where fills look ahead."""
    return f"{text} ({LOOK_AHEAD})" if "label" in manifest else text


def need(run: Path, table: Table) -> pl.DataFrame:
    """A run's table; raises LakeError if it is missing or torn."""
    frame = read_table(run, table)
    if frame is None:
        raise LakeError(f"{run / table.name}.parquet is missing", remedy="make the run again")
    return frame


def part_of(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """One coin's rows."""
    return frame.filter(coin=symbol)
