"""What look-ahead was worth: the grid on real candles under every fill rule, into docs/grid.md.

`python -m benchmarks.bench_grid_real BARS_15M FUNDING BARS_1M`: Parquet files of BTCUSDT perpetual candles and funding
(timestamp in ms, open, high, low, close, volume; timestamp, fundingRate), which are not part of the project. The year
is 2024; the month of 1-minute candles is whatever the third file holds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.table import markdown, write
from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.layout import TRADES
from mmlab.grid.market import Market
from mmlab.grid.params import FILLS, GridParams, VenueParams

PAGE = Path(__file__).parent.parent / "docs" / "grid.md"
YEAR = (1_704_067_200_000, 1_735_689_600_000)  # 2024, ms
TICK, QUARTER_NS = "0.1", 15 * NS_PER_MIN
EARLIER = GridParams(  # as the earlier form of the strategy was published, after its optimizer
    adx_trend_threshold=31.1022, regime_threshold=0.0500612, er_trend_threshold=0.679668, regime_hysteresis_bars=2,
    grid_spacing_k=1.22717, grid_levels=7, spacing_floor=0.00426233, order_pct=0.07, regen_drift_mult=1.05983,
    adaptive_floor_scale=0.662188, tp_concentration=0.818051, gamma=0.470663, kappa=2.50071, max_inventory_per_side=3,
    as_time_horizon=279.043, trailing_enabled=False, deviance_sigma=3.4064, gap_prune_mult=3.0014,
    funding_cost_ratio=0.400804, offset_prune_ratio=4.77626, prune_cooldown_bars=24, max_drawdown_pct=0.163156,
    atr_sl_mult=3.13, max_position_pct=0.600191, initial_capital=300.0, leverage=6.0, stop_cooldown_bars=85,
    low_volume_threshold=0.439733, funding_harvest_threshold=3.69e-4, kelly_window=48, use_ml_regime=True,
)  # fmt: skip
SPECS = {
    "the earlier form's": EARLIER,
    "the earlier form's, full sizes (no Kelly)": replace(EARLIER, kelly_window=0),
    "the document's defaults": GridParams(),
    "the document's defaults, full sizes (no Kelly)": GridParams(kelly_window=0),
}


def bars(file: Path, low: int, high: int) -> pl.DataFrame:
    """A file's candles within [low, high) ms."""
    frame = pl.read_parquet(file).filter(pl.col("timestamp").is_between(low, high - 1))
    named = frame.select(
        (pl.col("timestamp") * NS_PER_MS).alias("open_ns"), "open", "high", "low", "close", "volume",
        pl.lit(None, pl.Float64).alias("buy_volume"), pl.lit(None, pl.Int64).alias("n_trades"),
    )  # fmt: skip
    return BARS.conform(named)


def settlements(file: Path) -> pl.DataFrame:
    """A file's funding."""
    frame = pl.read_parquet(file)
    return frame.select((pl.col("timestamp") * NS_PER_MS).alias("ts_ns"), pl.col("fundingRate").alias("rate"))


def line(raw: Raw, params: GridParams) -> tuple[str, str, str, str]:
    """Return, greatest drawdown, Sharpe ratio a year, trades closed."""
    equity = raw.equity[:, 1]
    change = np.diff(equity) / equity[:-1]
    fall = (1 - equity / np.maximum.accumulate(equity)).max()
    sharpe = change.mean() / change.std(ddof=1) * np.sqrt(96 * 365)
    flows = (raw.fills[:, 7] - raw.fills[:, 6]).sum()
    assert abs(params.initial_capital + flows - raw.equity[-1, 0]) < 1e-9 * params.initial_capital
    total = equity[-1] / params.initial_capital - 1
    return f"**{total:+.1%}**", f"{fall:.1%}", f"{sharpe:.1f}", f"{int(raw.world.S[TRADES]):,}"


def year(file: Path, funding: Path) -> str:
    """2024 under every specification and fill rule."""
    market = Market.of(bars(file, *YEAR), QUARTER_NS, settlements(funding))
    rows = []
    for name, params in SPECS.items():
        X = market.rows(params)
        for fills in FILLS:
            raw = simulate(X, market.candles, params, VenueParams(fills=fills, tick_size=TICK))
            rows.append((name, f"`{fills}`", *line(raw, params)))
    held = market.bars["close"][-1] / market.bars["open"][0] - 1
    rows.append(("buy and hold", "", f"{held:+.1%}", "", "", ""))
    return markdown(("parameters", "fills", "return", "drawdown", "Sharpe", "trades"), rows)


def month(file: Path, funding: Path, minutes: Path) -> str:
    """The month of minutes, with what happened inside its bars known and unknown."""
    stamps = pl.read_parquet(minutes, columns=["timestamp"])["timestamp"]
    quarter = QUARTER_NS // NS_PER_MS
    low, high = -(-int(stamps.min()) // quarter) * quarter, (int(stamps.max()) + 60_000) // quarter * quarter
    rows = []
    for name, finer in (("15 minutes", None), ("1 minute", bars(minutes, low, high))):
        market = Market.of(bars(file, low, high), QUARTER_NS, settlements(funding), finer)
        for spec, params in list(SPECS.items())[1::2]:
            own = replace(params, use_ml_regime=False)
            raw = simulate(market.rows(own), market.candles, own, VenueParams(tick_size=TICK))
            rows.append((spec, name, *line(raw, own)))
    rows.sort(key=lambda row: row[0])
    return markdown(("parameters", "candles inside the bar", "return", "drawdown", "Sharpe", "trades"), rows)


def main() -> None:
    """Run, check and write."""
    quarters, funding, minutes = (Path(text) for text in sys.argv[1:4])
    write("year", year(quarters, funding), PAGE)
    write("month", month(quarters, funding, minutes), PAGE)


if __name__ == "__main__":
    main()
