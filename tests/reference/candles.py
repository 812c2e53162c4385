"""Candles for tests: drawn by hypothesis, or walked from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

MINUTE = 60_000_000_000
QUARTER = 15 * MINUTE
START = 19_723 * 96 * QUARTER  # 2024-01-01


@dataclass(frozen=True)
class Candles:
    """Columns of bars of 15 minutes."""

    open_ns: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    def __len__(self) -> int:
        return self.close.size

    def part(self, start: int, end: int | None = None) -> Candles:
        """Some of the bars."""
        return Candles(*(column[start:end] for column in vars(self).values()))


row = st.tuples(
    st.sampled_from([0, 0, 0, 0, 1, 2, 5, 9]),  # bars missing before it
    st.sampled_from([0, 0, 1, -1, 7, -7, 130, -130, 2_000, -2_000]),  # change of the close, ticks
    st.integers(0, 60),  # highest above open and close
    st.integers(0, 60),  # lowest below them
    st.sampled_from([0.0, 1e-9, 0.3, 2.0, 1e12]),
)
rows = st.lists(row, max_size=90)


def candles(drawn, first: int = 0) -> Candles:
    """From rows of hypothesis; the first bar opens `first` bars after a day's start."""
    at, last, made = first - 1, 10_000, []
    for missing, change, up, down, volume in drawn:
        at, before, last = at + 1 + missing, last, max(last + change, 100)
        made.append((at, max(before, last) + up, min(before, last) - down, last, volume))
    columns = np.array(made).reshape(-1, 5).T
    ticks = (columns[i] / 100 for i in (1, 2, 3))
    return Candles(START + columns[0].astype(np.int64) * QUARTER, *ticks, columns[4].copy())


def walk(count: int, seed: int, first: int = 0) -> Candles:
    """A random walk whose volatility changes."""
    rng = np.random.default_rng(seed)
    scale = 0.002 * np.exp(np.sin(np.arange(count) / 150))
    close = 1_000 * np.exp(np.cumsum(rng.normal(0, scale)))
    before = np.concatenate(([1_000.0], close[:-1]))
    wicks = np.abs(rng.normal(0, scale, (2, count)))
    high, low = np.maximum(before, close) * (1 + wicks[0]), np.minimum(before, close) * (1 - wicks[1])
    return Candles(START + (first + np.arange(count)) * QUARTER, high, low, close, rng.exponential(5, count))
