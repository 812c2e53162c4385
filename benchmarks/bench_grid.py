"""The grid: bars a second of the compiled step, a year with its signals, a trial, and one strategy beside a peer.

Candles are generated: a seeded walk with volatility that clusters, 15 minutes each. Every call is warm (kernels are
compiled or loaded before) and checked: the wallet is the initial capital plus all cash flows.

The peer, backtesting.py, runs in an environment of its own, which is made once in the temporary folder. What both can
express: one level a side, hedged, entries and take-profits as limit orders a fixed distance from an anchor that is
laid anew after two entries or a drift of two spacings; no guards, no funding, no regimes. Both fill a limit order from
the bar after it was placed, and a take-profit from the bar after its entry.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.table import Timing, markdown, time_pairs, write
from mmlab.core.schemas import BARS
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.layout import TRADES, WALLET, warm_up
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.trial import Bench, Outcome
from mmlab.grid.windows import Windows

MANY, YEAR, SEED = 1_000_000, 35_136, 15
INTERVAL_NS = 900_000_000_000
PEER_VERSION = "0.6.6"
PEER = (f"backtesting=={PEER_VERSION}",)
CALLS, SPACING, UNITS, CASH, FEE, DRIFT = 5, 0.005, 5, 1_000_000.0, 0.0002, 2.0
OFF = 1e9  # a limit that nothing reaches


def candles(n: int, seed: int) -> pl.DataFrame:
    """`n` bars: five steps of a walk each, volatility by a slow AR(1), prices to the cent."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_normal(n) * 0.06
    level = np.zeros(n)
    for i in range(1, n):
        level[i] = 0.995 * level[i - 1] + shocks[i]
    steps = rng.standard_normal((n, 5)) * (0.0011 * np.exp(level - level.std()))[:, None]
    path = steps - steps.mean()  # no drift over the whole
    prices = np.round(100 * np.exp(np.cumsum(path.ravel()) - 0.5 * np.cumsum(path.ravel() ** 2)), 2).reshape(n, 5)
    opens = np.concatenate(([100.0], prices[:-1, -1]))
    frame = pl.DataFrame(
        {
            "open_ns": np.arange(n) * INTERVAL_NS, "open": opens, "high": np.maximum(prices.max(axis=1), opens),
            "low": np.minimum(prices.min(axis=1), opens), "close": prices[:, -1],
            "volume": rng.exponential(1_000.0, n), "buy_volume": None, "n_trades": None,
        }
    )  # fmt: skip
    return BARS.check(BARS.conform(frame))


def check(raw: Raw, capital: float) -> None:
    """All money is accounted for, and there was trading."""
    assert raw.world.S[TRADES] > 100
    if len(raw.fills):
        flows = float((raw.fills[:, 7] - raw.fills[:, 6]).sum())
        assert abs(capital + flows - raw.world.S[WALLET]) < 1e-9 * capital, "money is not conserved"


def step_loop() -> list[tuple[str, int, Timing]]:
    """All guards on, one account after the other: bars a second of the loop alone."""
    params = GridParams(kelly_window=50, trailing_enabled=True)
    found = []
    for fills in ("next-bar", "peer"):
        market = Market.of(candles(MANY, SEED), INTERVAL_NS)
        X, venue = market.rows(params), VenueParams(fills=fills, tick_size="0.01")
        check(simulate(X[:YEAR], market.candles[:YEAR], params, venue), params.initial_capital)
        [taken] = time_pairs(lambda: simulate(X, market.candles, params, venue, record=False), repeats=CALLS)  # noqa: B023
        assert isinstance(taken.result, Raw)
        check(taken.result, params.initial_capital)
        found.append((f"`--fills {fills}`, all guards", MANY, taken))
    return found


def year() -> tuple[str, int, Timing]:
    """A year from its frame of bars: checks, signals, regimes, the run with all its rows."""
    bars, params, venue = candles(YEAR, SEED), GridParams(), VenueParams(tick_size="0.01")

    def whole() -> Raw:
        market = Market.of(bars, INTERVAL_NS)
        return simulate(market.rows(params), market.candles, params, venue)

    [taken] = time_pairs(whole, repeats=CALLS)
    assert isinstance(taken.result, Raw)
    check(taken.result, params.initial_capital)
    return "a year, from the frame of bars to every row", YEAR, taken


def trial() -> tuple[str, int, Timing]:
    """A trial of the optimizer: three coins, four windows, train and held-out runs, signals from their parameters."""
    markets = tuple(Market.of(candles(YEAR, SEED + k), INTERVAL_NS) for k in range(3))
    start = int(markets[0].open_ns[0])
    windows = Windows.of(start, start + YEAR * INTERVAL_NS, INTERVAL_NS, 4, 0.0)
    bench = Bench(("A", "B", "C"), markets, (VenueParams(tick_size="0.01"),) * 3, windows, GridParams())
    drawn = iter(range(1, 10 * CALLS))  # each trial has a regime of its own, as drawn ones have

    def one() -> Outcome:
        k = next(drawn)
        return bench.run(GridParams(adx_trend_threshold=20.0 + k / 4, regime_hysteresis_bars=1 + k % 6))

    [taken] = time_pairs(one, repeats=CALLS)
    assert isinstance(taken.result, Outcome)
    assert all(score.trades > 20 for coin in taken.result.train for score in coin)
    return "a trial of the optimizer, 3 coins by 4 windows", 3 * YEAR, taken


def plain() -> GridParams:
    """What the peer can express."""
    return GridParams(
        grid_levels=1, max_inventory_per_side=1, grid_mode="arithmetic", spacing_floor=SPACING, grid_spacing_k=0.0,
        adaptive_floor_scale=0.0, gamma=1e-6, kappa=1e6, tp_concentration=1.0, regen_drift_mult=DRIFT,
        trailing_enabled=False, circuit_breaker_enabled=False, atr_sl_mult=OFF, deviance_sigma=OFF,
        max_position_age_hours=OFF, gap_prune_mult=OFF, funding_cost_ratio=OFF, offset_prune_ratio=OFF,
        max_drawdown_pct=1.0, order_pct=1.5 * UNITS * 100 / CASH, max_position_pct=100.0,
        regime_threshold=OFF, low_volume_threshold=0.0, kelly_window=0, fee_maker=FEE, fee_taker=FEE, slippage=0.0,
        initial_capital=CASH,
    )  # fmt: skip


def beside_the_peer() -> tuple[Timing, Timing, int, int]:
    """(ours, the peer's) seconds and closed trades, on one year of the same bars."""
    bars, params, venue = candles(YEAR, SEED), plain(), VenueParams(lot_size=str(UNITS), min_notional=0.0)
    market = Market.of(bars, INTERVAL_NS)
    X = market.rows(params)
    [ours] = time_pairs(lambda: simulate(X, market.candles, params, venue), repeats=CALLS)
    assert isinstance(ours.result, Raw)
    check(ours.result, CASH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bars.csv"
        columns = {name: name.capitalize() for name in ("open", "high", "low", "close", "volume")}
        bars.select("open_ns", *columns).rename(columns).write_csv(file)
        script = Path(__file__).parent / "peer" / "grid.py"
        numbers = (CALLS, SPACING, UNITS, CASH, FEE, DRIFT, warm_up(params))
        told = json.loads(subprocess.check_output([peer_python(), script, file, *map(str, numbers)], text=True))
    theirs = Timing(tuple(told["seconds"]), told)
    mine, other = int(ours.result.world.S[TRADES]), int(told["trades"])
    assert mine == other, "the two do not close the same trades"
    earned, by_them = ours.result.equity[-1, 1] - CASH, told["equity"] - CASH
    assert abs(earned / by_them - 1) < 0.005, "the two do not earn the same"
    return ours, theirs, mine, other


def peer_python() -> Path:
    """The interpreter of the peer's environment, which is made if it is not there."""
    folder = Path(tempfile.gettempdir()) / "mmlab-benchmarks-grid"
    python = folder / "bin" / "python"
    probe = f"import backtesting; assert backtesting.__version__ == {PEER_VERSION!r}"
    if not python.exists() or subprocess.run([python, "-c", probe], check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
    return python


def main() -> None:
    """Measure, check and write."""
    rows = [(*row, row[1] / row[2].median) for row in (*step_loop(), year(), trial())]
    write(
        "grid",
        markdown(
            ("what", "bars", "seconds", "bars/s"),
            [(what, f"{n:,}", f"{t.median:.3f}", f"**{each / 1e6:.2f} M**") for what, n, t, each in rows],
        ),
    )
    ours, theirs, mine, other = beside_the_peer()
    lines = [
        ("mmlab", f"{ours.median:.4f}", f"{YEAR / ours.median:,.0f}", f"{mine:,}", ""),
        (
            f"backtesting.py {PEER_VERSION}", f"{theirs.median:.3f}", f"{YEAR / theirs.median:,.0f}", f"{other:,}",
            f"**{statistics.median(theirs.runs) / ours.median:,.0f}**",
        ),
    ]  # fmt: skip
    write("grid_peer", markdown(("engine", "seconds", "bars/s", "closed trades", "times mmlab's"), lines))


if __name__ == "__main__":
    main()
