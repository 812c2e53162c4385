"""The calibration of hftbacktest's tutorial on one day: `tutorial.py MODE FILE.npz CALLS TICK LOT`, in the peer's env.

It follows the notebook "GLFT Market Making Model and Grid Trading". Every 100 ms the replay notes how far from the mid
of 100 ms before the farthest print since went, on whichever side; a window's distances are counted in bins of half a
tick, a bin once for each 100 ms whose print went beyond it; a straight line through the logarithms of the first 70
bins gives A and k. Windows are those of `mmlab calibrate schedule`: every 15 minutes, the 2 hours before. The tutorial
itself fits the last 10 minutes every 5 seconds, which is more work.

MODE is `written` (as the tutorial has it: `@njit`, hence compiled in every process, the mid's changes noted for a
volatility that is not computed here, room for ten million steps, `nanmax` of a pair) or `light` (the same figures
without the mid's changes and the spare room, with a plain maximum, and with the fit's kernels cached on disk; numba
refuses to cache the replay, whose market is a class of compiled methods around C pointers).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hftbacktest import BUY_EVENT, BacktestAsset, ROIVectorMarketDepthBacktest
from numba import njit

Floats = npt.NDArray[np.float64]
Kernels = tuple[Callable[..., Any], Callable[..., Any]]

STEP_NS = 100_000_000
PER_MINUTE = 600  # steps
TRAIN, EVERY = 120 * PER_MINUTE, 15 * PER_MINUTE
BINS, FITTED = 500, 70  # half ticks
MOST, DAY = 10_000_000, 24 * 60 * PER_MINUTE


@njit
def replay_written(market, most):
    """Farthest print and change of the mid in each step, in ticks."""
    tick = market.depth(0).tick_size
    farthest, moved = np.full(most, np.nan), np.full(most, np.nan)
    mid, step = np.nan, 0
    while market.elapse(STEP_NS) == 0:
        if not np.isnan(mid):
            far = -np.inf
            for trade in market.last_trades(0):
                side = 1 if trade.ev & BUY_EVENT == BUY_EVENT else -1
                far = np.nanmax([far, side * (trade.px / tick - mid)])
            farthest[step] = far
        market.clear_last_trades(0)
        book = market.depth(0)
        before, mid = mid, (book.best_bid_tick + book.best_ask_tick) / 2
        moved[step] = mid - before
        step += 1
    return farthest[:step], moved[:step]


@njit
def replay_light(market, most):
    """Farthest print in each step, in ticks."""
    tick = market.depth(0).tick_size
    farthest = np.full(most, np.nan)
    mid, step = np.nan, 0
    while market.elapse(STEP_NS) == 0:
        if not np.isnan(mid):
            far = -np.inf
            for trade in market.last_trades(0):
                side = 1 if trade.ev & BUY_EVENT == BUY_EVENT else -1
                far = max(far, side * (trade.px / tick - mid))
            farthest[step] = far
        market.clear_last_trades(0)
        book = market.depth(0)
        mid = (book.best_bid_tick + book.best_ask_tick) / 2
        step += 1
    return (farthest[:step],)


def beyond(farthest, bins):
    """Steps whose farthest print went beyond each bin, up to the last bin that any reached."""
    last = 0
    for far in farthest:
        if np.isfinite(far):
            reached = round(far / 0.5) - 1
            if 0 <= reached < len(bins):
                bins[:reached] += 1
                last = max(last, reached)
    return bins[:last]


def line(x, y):
    """Slope and intercept of least squares."""
    n, sum_x, sum_y = len(x), np.sum(x), np.sum(y)
    slope = (n * np.sum(x * y) - sum_x * sum_y) / (n * np.sum(x**2) - sum_x**2)
    return slope, (sum_y - slope * sum_x) / n


def open_market(file: str, tick: float, lot: float) -> ROIVectorMarketDepthBacktest:
    """The tutorial's backtest; no order is ever sent, so latency, queue and fees do not matter."""
    asset = (
        BacktestAsset()
        .data([file])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .power_prob_queue_model(2.0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(tick)
        .lot_size(lot)
        .roi_lb(0.0)
        .roi_ub(3000.0)
        .last_trades_capacity(10_000)
    )
    return ROIVectorMarketDepthBacktest([asset])


def fits(farthest: Floats, kernels: Kernels) -> list[tuple[float, float]]:
    """(A, k) of each window, both sides together, by half ticks."""
    count, straight = kernels
    bins, x = np.zeros(BINS), np.arange(BINS) + 0.5
    found = []
    for end in range(TRAIN, farthest.size + 1, EVERY):
        bins[:] = 0
        rate = count(farthest[end - TRAIN : end], bins)[:FITTED] / (TRAIN * STEP_NS / 1e9)
        slope, intercept = straight(x[: rate.size], np.log(rate))
        found.append((float(np.exp(intercept)), float(-slope)))
    return found


def main() -> None:
    """Calibrate as often as asked; print the fits, and the seconds of each call."""
    mode, file, calls, tick, lot = sys.argv[1:]
    replay, most = (replay_light, DAY) if mode == "light" else (replay_written, MOST)
    compiled = njit(cache=mode == "light")
    kernels = compiled(beyond), compiled(line)
    seconds = []
    for _ in range(int(calls)):
        began = time.perf_counter()
        market = open_market(file, float(tick), float(lot))
        farthest = replay(market, most)[0]
        market.close()
        found = fits(farthest, kernels)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"fits": found, "seconds": seconds}))


if __name__ == "__main__":
    main()
