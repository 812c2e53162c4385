"""What the grid and its optimizer find where there is nothing to find: 200 fair walks and 200 resampled markets.

Writes docs/grid-null.md. `python -m benchmarks.bench_grid_null [paths]`; about four minutes on two cores.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binom

from benchmarks.table import markdown, write
from mmlab.core.schemas import BARS as BARS_TABLE
from mmlab.grid.engine import simulate
from mmlab.grid.market import Market
from mmlab.grid.null import Verdict, filled, growth, null_growth, path, walk
from mmlab.grid.params import FILLS, GridParams, VenueParams
from mmlab.grid.robust import cluster
from mmlab.grid.score import Part, chained
from mmlab.grid.search import UNIFORM, Evaluated, finished, search
from mmlab.grid.space import DEFAULT, set_to, space
from mmlab.grid.trial import Bench, stretch
from mmlab.grid.windows import Span, Windows

PAGE = Path(__file__).parent.parent / "docs" / "grid-null.md"
REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "BTCUSDT_usdm_15m.parquet"
INTERVAL_NS = 900_000_000_000
BARS, BEFORE = 2_000, 700
TRIALS, PATHS, ALPHA = 24, 19, 0.05
FREE = {"fee_maker": 0.0, "fee_taker": 0.0, "slippage": 0.0, "kelly_window": 0}
TIGHT = {"leverage": 3.0, "order_pct": 0.1, "max_position_pct": 2.0, "grid_spacing_k": 0.5, "spacing_floor": 0.001,
         "adaptive_floor_scale": 0.3, "max_drawdown_pct": 1.0}  # fmt: skip
GRIDS = {"defaults": GridParams(**FREE), "tight, 3x": GridParams(**FREE, **TIGHT)}
VENUE = VenueParams(tick_size="0.1", liquidation_fee=0.0, min_notional=0.0)
Earned = dict[tuple[str, str], float]


def earned(market: Market, low: int) -> Earned:
    """Return of each grid under each fill rule, before fees and funding."""
    found = {}
    for name, params in GRIDS.items():
        X = market.rows(params)
        for fills in FILLS:
            raw = simulate(
                X, market.candles, params, dataclasses.replace(VENUE, fills=fills), low=low, record=False
            )  # fmt: skip
            found[name, fills] = float(raw.equity[-1, 1]) / params.initial_capital - 1
    return found


def on_walk(number: int) -> Earned:
    """A fair walk by ticks."""
    return earned(Market.of(walk(BARS, INTERVAL_NS, [1, number]), INTERVAL_NS), 0)


def on_blocks(number: int) -> Earned:
    """Three weeks of BTC's bars of 2024, resampled in blocks and turned over at random."""
    market = real()
    at = 1_000 + number * 157 % (len(market) - BARS - 2_000)
    span = Span(int(market.open_ns[at]), int(market.open_ns[at + BARS]))
    return earned(path(market, span, BEFORE, [2, number])[0], BEFORE)


def on_turned_walk(number: int) -> Earned:
    """A fair walk, resampled in blocks and turned over: what resampling by itself adds, which is nothing."""
    market = Market.of(walk(BARS + 100, INTERVAL_NS, [4, number]), INTERVAL_NS)
    span = Span(int(market.open_ns[100]), int(market.open_ns[-1]) + INTERVAL_NS)
    return earned(path(market, span, BEFORE, [5, number])[0], BEFORE)


_real: list[Market] = []


def real() -> Market:
    """BTCUSDT 15m 2024, read once a process."""
    if not _real:
        year = pl.read_parquet(REAL).filter(pl.from_epoch("timestamp", "ms").dt.year() == 2024)
        bars = filled(year.with_columns(open_ns=pl.col("timestamp") * 1_000_000))
        _real.append(Market.of(BARS_TABLE.conform(bars), INTERVAL_NS))
    return _real[0]


def optimized(number: int) -> tuple[bool, bool, float, float, str]:
    """A whole search on a fair walk before fees: significant, passed, p, hold-out return, the word for robustness."""
    market = Market.of(walk(BARS, INTERVAL_NS, [3, number]), INTERVAL_NS)
    start, end = int(market.open_ns[0]), int(market.open_ns[-1]) + INTERVAL_NS
    windows = Windows.of(start, end, INTERVAL_NS, 2, 0.2)
    ahead = Market.of(
        walk(BARS, INTERVAL_NS, [3, number]).filter(pl.col("open_ns") < windows.searched.high_ns), INTERVAL_NS
    )
    base = GridParams(**FREE)
    asked = space({name: DEFAULT[name] for name in DEFAULT if name != "kelly_window"}, base)
    bench = Bench(("WALK",), (ahead,), (VENUE,), windows, base)

    def evaluate(batch: Sequence[dict[str, Any]]) -> Evaluated:
        yield from ((k, bench.run(set_to(base, values, ""))) for k, values in enumerate(batch))

    trials = search([], asked, TRIALS, number, evaluate, lambda _: None)
    scored = finished(trials)
    chosen = cluster(asked, [t.params for t in scored], [t.value or 0.0 for t in scored],
                     [t.user_attrs["drawn"] == UNIFORM for t in scored], number)  # fmt: skip
    params = set_to(base, chosen.params, "")
    null = [null_growth(bench, params, number, k) for k in range(PATHS)]
    verdict = Verdict.of(growth(bench, params), null, ALPHA)
    test = [each.value for each in bench.run(params).test[0]]
    passed = sum(test) > 0 and sum(each > 0 for each in test) * 2 >= len(test)
    assert windows.holdout is not None
    raw = stretch(market, market.rows(params), VENUE, params, windows.holdout)
    held = chained([Part.of(raw, params.initial_capital)]).total_return
    return verdict.significant, passed, verdict.p_value, held, chosen.label


def lines(name: str, found: list[Earned]) -> list[list[object]]:
    """A row for each grid and fill rule: mean, its standard error, how many errors it is from 0."""
    made: list[list[object]] = []
    for grid, fills in found[0]:
        r = np.array([each[grid, fills] for each in found])
        error = r.std(ddof=1) / math.sqrt(len(r))
        made.append(
            [name, grid, fills, len(r), f"{100 * r.mean():+.3f}%", f"{100 * error:.3f}%", f"{r.mean() / error:+.1f}"]
        )
    return made


def main(paths: int) -> None:
    """Run all three studies, and write their tables."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = lines("fair walk", list(pool.map(on_walk, range(paths), chunksize=5)))
        rows += lines("fair walk, blocks turned over", list(pool.map(on_turned_walk, range(paths), chunksize=5)))
        if REAL.exists():
            rows += lines("BTC 2024, blocks turned over", list(pool.map(on_blocks, range(paths), chunksize=5)))
        found = list(pool.map(optimized, range(paths), chunksize=2))
    heads = ("market", "grid", "--fills", "paths", "mean return", "standard error", "errors from 0")
    write("engine", markdown(heads, rows), PAGE)
    significant = sum(each[0] for each in found)
    low, high = (int(binom.ppf(q, paths, ALPHA)) for q in (0.025, 0.975))
    held = np.array([each[3] for each in found])
    p = np.array([each[2] for each in found])
    words = Counter(each[4] for each in found)
    told = [
        ["searches", paths],
        ["of which `significant` at 5%", f"{significant} ({100 * significant / paths:.1f}%)"],
        ["if each were at 5% exactly, 95% of such studies had", f"{low} to {high}"],
        ["p at most 0.05 / 0.25 / 0.5", " / ".join(f"{100 * (p <= q).mean():.1f}%" for q in (0.05, 0.25, 0.5))],
        ["held-out windows passed", f"{100 * np.mean([each[1] for each in found]):.1f}%"],
        ["mean return on the hold-out",
         f"{100 * held.mean():+.3f}% (standard error {100 * held.std(ddof=1) / math.sqrt(paths):.3f}%)"],
        ["robustness", ", ".join(f"{word} {n}" for word, n in words.most_common())],
    ]  # fmt: skip
    write("optimizer", markdown(("", ""), told), PAGE)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
