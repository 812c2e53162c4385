"""Markets in which no grid has an edge: bars drawn in blocks and mirrored at random, and a walk on the price's ticks.

What a strategy on resting orders could know is which way the price goes next. Blocks of whole bars (Politis and Romano
1994) keep how ranges, volumes and quiet and busy hours follow each other; turning each bar over at random keeps all
of that and takes every dependence of one bar's direction on what was before: drift, trends and returns to a mean. To
take the mean only would leave in the null what a grid lives on: returns to a mean within a block. What happens inside
a bar stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_DAY
from mmlab.grid.layout import C_FUNDING, Floats, warm_up
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.trial import Bench, stretch
from mmlab.grid.windows import Span

BLOCK_NS = NS_PER_DAY  # mean length of a block
MEMORY = 672  # bars of the mean volume, the longest that a signal looks back
LEAST = 1e-6  # of the capital: a ruined account's growth is not minus infinity


@dataclass(frozen=True)
class Verdict:
    """What the test found. p = (1 + k) / (1 + n), k of n paths on which at least as much was earned."""

    growth: float  # log growth on the held-out stretches, mean over the coins
    null: tuple[float, ...]  # the same on each path
    p_value: float
    significant: bool

    @classmethod
    def of(cls, growth: float, null: Sequence[float], alpha: float = 0.05) -> Verdict:
        """Significant: something was earned, and at most 5% of paths without an edge earn as much."""
        p = (1 + sum(each >= growth for each in null)) / (1 + len(null))
        return cls(growth, tuple(null), p, growth > 0 and p <= alpha)


def growth(bench: Bench, params: GridParams) -> float:
    """Log growth over the test stretches, each with a fresh account; mean over the coins."""
    total = 0.0
    for market, venue in zip(bench.markets, bench.venues, strict=True):
        X = market.rows(params)
        total += sum(grown(market, X, venue, params, span) for span in bench.windows.test)
    return total / len(bench.coins)


def grown(market: Market, X: Floats, venue: VenueParams, params: GridParams, span: Span) -> float:
    """Log growth of one run."""
    left = stretch(market, X, venue, params, span).equity[-1, 1] / params.initial_capital
    return math.log(max(float(left), LEAST))


def null_growth(bench: Bench, params: GridParams, seed: int, number: int) -> float:
    """The same statistic on path `number` of `seed`; signals are made anew on it, one stretch in memory at a time.

    Coins get the same blocks and the same turns, so that they go on moving together.
    """
    total = 0.0
    for market, venue in zip(bench.markets, bench.venues, strict=True):
        for k, span in enumerate(bench.windows.test):
            made, part = path(market, span, max(MEMORY, warm_up(params)), [seed, number, k])
            total += grown(made, made.rows(params), venue, params, part)
    return total / len(bench.coins)


def path(market: Market, span: Span, before: int, seed: Sequence[int], *, turn: bool = True) -> tuple[Market, Span]:
    """A market of resampled bars as long as the span, with `before` more ahead of it for the signals; and the span.

    Bars are taken as they lie against the close before them, with their volume and settlements, from the span alone, in
    blocks of geometric length (mean a day) that go on at the same time of the day, round from its end to its start. A
    turned bar has all returns against the close before it, in simple terms, with the other sign: exactly a martingale.
    """
    low, high = span.bars(market.open_ns)
    opens = market.open_ns[low:high]
    n = before + high - low
    open_ns = opens[0] + market.interval_ns * (np.arange(n) - before)
    source, sign = drawn(opens, open_ns, market.interval_ns, seed)
    sign = sign if turn else np.ones(n)
    was = np.concatenate((market.bars["open"][:1], market.bars["close"]))[low:high][source]
    o, h, l, c = (market.bars[name][low:high][source] / was - 1 for name in ("open", "high", "low", "close"))  # noqa: E741
    up = sign > 0
    factor = 1 + sign * c
    start = market.bars["close"][max(low - 1, 0)] * np.concatenate(([1.0], np.cumprod(factor)[:-1]))
    bars = pl.DataFrame(
        {
            "open_ns": open_ns,
            "open": start * (1 + sign * o),
            "high": start * (1 + np.where(up, h, -l)),
            "low": start * (1 + np.where(up, l, -h)),
            "close": start * factor,
            "volume": market.bars["volume"][low:high][source],
        }
    )
    rates = np.add.reduceat(market.candles[:, C_FUNDING], market.first_candle)[low:high][source]
    paid = np.flatnonzero(rates)
    funding = pl.DataFrame({"ts_ns": open_ns[paid], "rate": rates[paid]})
    made = Market.of(BARS.conform(filled(bars)), market.interval_ns, funding)
    return made, Span(int(open_ns[before]), int(open_ns[-1]) + market.interval_ns)


def drawn(
    opens: npt.NDArray[np.int64], open_ns: npt.NDArray[np.int64], interval_ns: int, seed: Sequence[int]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each bar of the path which of the span's it is, and whether it is turned over (-1) or not (+1)."""
    rng = np.random.default_rng(list(seed))
    n, day = len(open_ns), NS_PER_DAY // interval_ns
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    ends = rng.random(n) < interval_ns / BLOCK_NS
    where = rng.random(n)
    hours = opens // interval_ns % day
    alike = [np.flatnonzero(hours == hour) for hour in range(day)]
    source = np.empty(n, np.int64)
    for t in range(n):
        same = alike[int(open_ns[t] // interval_ns % day)]
        if t > 0 and not ends[t] and source[t - 1] + 1 < len(opens):
            source[t] = source[t - 1] + 1
        elif len(same):
            source[t] = same[int(where[t] * len(same))]
        else:
            source[t] = int(where[t] * len(opens))
    return source, sign


def walk(n: int, interval_ns: int, seed: Sequence[int], *, ticks: int = 10_000, steps: int = 900) -> pl.DataFrame:
    """Bars of a fair walk by single ticks of 0.1: every price is met on the way, so that an order fills at its price.

    Starts at `ticks` ticks, `steps` steps a bar; rows of BARS from 2024-01-01. Any rule that only looks back earns
    nothing on it before fees, on average: the walk is a martingale, and no fill is better or worse than its price.
    """
    rng = np.random.default_rng(list(seed))
    closes, highs, lows = (np.empty(n, np.int64) for _ in range(3))
    at = ticks
    for i in range(n):
        way = at + np.cumsum(2 * rng.integers(0, 2, steps, dtype=np.int64) - 1)
        highs[i], lows[i], closes[i] = max(at, way.max()), min(at, way.min()), way[-1]
        at = closes[i]
    opens = np.concatenate(([ticks], closes[:-1]))
    prices = {name: v / 10 for name, v in (("open", opens), ("high", highs), ("low", lows), ("close", closes))}
    start = 1_704_067_200_000_000_000
    frame = pl.DataFrame({"open_ns": start + interval_ns * np.arange(n), **prices, "volume": 1 + rng.random(n)})
    return BARS.conform(filled(frame))


def filled(frame: pl.DataFrame) -> pl.DataFrame:
    """With the columns of BARS that the grid does not read."""
    return frame.with_columns(buy_volume=pl.lit(None, pl.Float64), n_trades=pl.lit(None, pl.Int64))
