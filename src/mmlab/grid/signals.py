"""Signals on candles: trend, range, volatility and volume, by the bar and by the completed block of bars.

Arrays have one row a bar, shape (n,), finite numbers and prices above 0; answers are float64 of the same shape, never
NaN. Row i is made from rows up to i alone, and has the same bits whatever comes after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import UsageError
from mmlab.core.kernels import kernel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FLAT_PATH = 1e-12  # below it a market has not moved and an efficiency says nothing
FLAT_RANGE = 1e-9  # the same for distances that are measured in ranges


def efficiency_ratio(close: npt.ArrayLike, period: int = 10) -> Floats:
    """How straight the way of the last `period` bars was: |C[i] - C[i-p]| / sum of |C[j] - C[j-1]|, 0 to 1.

    0 in the first `period` rows and where the way is no longer than 1e-12. Kaufman, Smarter Trading (1995).
    """
    close = _floats(close)
    steps = np.zeros_like(close)
    steps[1:] = np.abs(np.diff(close))
    path = moving_sum(steps, _bars(period))[period:]
    net = np.abs(close[period:] - close[:-period])
    found = np.zeros_like(close)
    np.divide(net, path, out=found[period:], where=path > FLAT_PATH)
    return np.minimum(found, 1.0)


def kama(close: npt.ArrayLike, er: npt.ArrayLike, fast: int = 2, slow: int = 30) -> Floats:
    """Kaufman's adaptive moving average: K[0] = C[0], K[i] = K[i-1] + s·(C[i] - K[i-1]).

    s = (er·(f - g) + g)² with f = 2/(fast+1), g = 2/(slow+1). Kaufman, Smarter Trading (1995).
    """
    f, g = 2 / (_bars(fast, "fast") + 1), 2 / (_bars(slow, "slow") + 1)
    close, er = _columns(close, er)
    weights = np.square(er * (f - g) + g)
    weights[:1] = 1.0
    return np.asarray(_smoothed(close, weights))


def true_range(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike) -> Floats:
    """The bar's range with the gap before it: max(H - L, |H - C[i-1]|, |L - C[i-1]|), H - L in row 0. Wilder (1978)."""
    high, low, close = _columns(high, low, close)
    found = high - low
    before = close[:-1]
    found[1:] = np.maximum(found[1:], np.maximum(np.abs(high[1:] - before), np.abs(low[1:] - before)))
    return found


def atr_ema(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> Floats:
    """Exponential average of the true range with α = 2/(period + 1), from TR[0] on.

    What the strategy's document calls Wilder's; it forgets about twice as fast as `atr_wilder`.
    """
    ranges = true_range(high, low, close)
    weights = np.full_like(ranges, 2 / (_bars(period) + 1))
    weights[:1] = 1.0
    return np.asarray(_smoothed(ranges, weights))


def atr_wilder(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> Floats:
    """Wilder's average true range: the mean of the first `period` ranges, then α = 1/period; 0 in the rows before.

    Wilder, New Concepts in Technical Trading Systems (1978).
    """
    return _wilder(true_range(high, low, close), _bars(period), first=0)


def z_score(close: npt.ArrayLike, atr: npt.ArrayLike, period: int = 20) -> Floats:
    """Distance from the mean of the last `period` closes (of fewer at the start) in ATRs; 0 where ATR <= 1e-9."""
    close, atr = _columns(close, atr)
    away = close - moving_sum(close, _bars(period)) / np.minimum(np.arange(1, close.size + 1), period)
    return np.divide(away, atr, out=np.zeros_like(close), where=atr > FLAT_RANGE)


def rolling_volatility(close: npt.ArrayLike, period: int = 14) -> Floats:
    """Population standard deviation of the last `period` log returns, per bar; 0 in the first `period` rows.

    Each window's deviations are taken from its own mean: nothing is left over of bars that are gone.
    """
    close = _floats(close)
    returns = np.zeros_like(close)
    returns[1:] = np.log(close[1:] / close[:-1])
    return np.asarray(_deviation(returns, _bars(period)))


def adx(high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, period: int = 14) -> Floats:
    """Wilder's average directional index, 0 to 100: Wilder's mean of DX = 100·|DI+ - DI-| / (DI+ + DI-).

    DM+ = rise of the high where it is above 0 and above the fall of the low, DM- the reverse; DI = 100 · Wilder's sum
    of DM over that of TR, from row `period` on. TR cancels in DX, so that `close` plays no part but in its length. The
    first value is the mean of the first `period` DX, in row 2·period - 1; 0 before. Wilder (1978).
    """
    high, low, _ = _columns(high, low, close)
    rise, fall = np.zeros_like(high), np.zeros_like(low)
    rise[1:], fall[1:] = np.diff(high), -np.diff(low)
    up = _wilder(np.where((rise > fall) & (rise > 0), rise, 0.0), _bars(period), first=1)
    down = _wilder(np.where((fall > rise) & (fall > 0), fall, 0.0), period, first=1)
    both = up + down
    dx = np.divide(100 * np.abs(up - down), both, out=np.zeros_like(both), where=both > 0)
    return _wilder(dx, period, first=period)


def mean_volume(volume: npt.ArrayLike, period: int = 672) -> Floats:
    """Mean of the `period` bars BEFORE the bar (of fewer at the start), what its own volume is measured by; row 0: 0.

    672 bars of 15 minutes are a week.
    """
    volume = _floats(volume)
    found = np.zeros_like(volume)
    sums = moving_sum(volume, _bars(period))[:-1]
    found[1:] = sums / np.minimum(np.arange(1, sums.size + 1), period)
    return found


def funding_known(open_ns: npt.ArrayLike, interval_ns: int, ts_ns: npt.ArrayLike, rate: npt.ArrayLike) -> Floats:
    """The last rate that was settled before the bar closed (at open_ns + interval_ns, not at that instant); 0 if none.

    open_ns: shape (n,), ts_ns and rate: shape (m,), in time order.
    """
    closes = np.asarray(open_ns, np.int64) + interval_ns
    known = np.searchsorted(np.asarray(ts_ns, np.int64), closes, side="left")
    return np.concatenate(([0.0], _floats(rate)))[known]


@dataclass(frozen=True)
class Blocks:
    """Completed blocks of bars by the clock: high, low, close of shape (m,); `last` of shape (n,), one row a bar.

    last[i]: the block that was the last to be complete when bar i closed, -1 before the first.
    """

    last: Ints
    high: Floats
    low: Floats
    close: Floats


@dataclass(frozen=True)
class Trend:
    """Of the last completed block, one row a bar: its signals, and its forerunner's `kama`; 0 before the first."""

    kama: Floats
    kama_before: Floats
    er: Floats
    atr: Floats


def higher_timeframe(
    open_ns: npt.ArrayLike, interval_ns: int, high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike,
    multiple: int = 4,
) -> Blocks:  # fmt: skip
    """Blocks of `multiple` bars, cut where open_ns // (multiple·interval_ns) changes, wherever the data begin.

    A block is complete when its last bar by the clock has closed or, if bars are missing, any bar of a later block;
    one without bars is no block. open_ns: int64 ns in time order.
    """
    opens = np.asarray(open_ns, np.int64)
    _, high, low, close = _columns(opens, high, low, close)
    span = _bars(multiple, "multiple") * interval_ns
    block = opens // span
    new = np.ones(opens.size, np.bool_)
    new[1:] = block[1:] != block[:-1]
    last = np.cumsum(new) - 1
    last[opens % span < span - interval_ns] -= 1
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], opens.size) - 1
    count = int(last[-1]) + 1 if last.size else 0
    if not count:
        return Blocks(last, *(np.empty(0) for _ in range(3)))
    highest, lowest = np.maximum.reduceat(high, starts), np.minimum.reduceat(low, starts)
    return Blocks(last, highest[:count], lowest[:count], close[ends[:count]])


def trend_signals(
    open_ns: npt.ArrayLike, interval_ns: int, high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, *,
    multiple: int = 4, er_period: int = 10, fast: int = 2, slow: int = 30, atr_period: int = 14,
) -> Trend:  # fmt: skip
    """`efficiency_ratio`, `kama` and `atr_ema` of the blocks of `higher_timeframe`, spread to the bars.

    Periods count blocks. In the first block's rows `kama_before` is its own `kama`: no slope yet.
    """
    blocks = higher_timeframe(open_ns, interval_ns, high, low, close, multiple)
    er = efficiency_ratio(blocks.close, er_period)
    line = kama(blocks.close, er, fast, slow)
    before = np.concatenate((line[:1], line[:-1]))
    atr = atr_ema(blocks.high, blocks.low, blocks.close, atr_period)
    return Trend(*(np.concatenate(([0.0], found))[blocks.last + 1] for found in (line, before, er, atr)))


def moving_sum(values: Floats, period: int) -> Floats:
    """Sum of the last `period` values, of fewer at the start.

    Rows are cut into stretches of `period`; a window is the end of one and the start of the next, each summed by
    itself. So nothing is ever taken away, and small values next to large ones that are gone are not lost in rounding.
    """
    size = values.size
    period = min(period, max(size, 1))
    whole = np.zeros((-(-size // period), period))
    whole.flat[:size] = values
    found: Floats = np.cumsum(whole, axis=1).ravel()[:size]
    ends = np.cumsum(whole[:, ::-1], axis=1)[:, ::-1]
    ends[:, 0] = 0.0  # a window that starts with a stretch is that stretch
    found[period:] += ends.ravel()[1 : size - period + 1]
    return found


def _wilder(values: Floats, period: int, *, first: int) -> Floats:
    """The mean of the `period` values from row `first` on, in its last row, and from there α = 1/period; 0 before."""
    seed = first + period - 1
    weights = np.full_like(values, 1 / period)
    weights[:seed] = 0.0
    if seed < values.size:
        values = values.copy()
        values[seed] = moving_sum(values[first : seed + 1], period)[-1] / period
        weights[seed] = 1.0
    return np.asarray(_smoothed(values, weights))


@kernel
def _smoothed(values: Floats, weights: Floats) -> Floats:
    """y[i] = y[i-1] + weights[i]·(values[i] - y[i-1]), from 0."""
    found = np.empty_like(values)
    level = 0.0
    for i in range(values.size):
        level += weights[i] * (values[i] - level)
        found[i] = level
    return found


@kernel
def _deviation(values: Floats, period: int) -> Floats:
    """Population standard deviation of the last `period` values; 0 in the first `period` rows."""
    found = np.zeros_like(values)
    for i in range(period, values.size):
        mean, squares = 0.0, 0.0
        for j in range(i - period + 1, i + 1):
            mean += values[j]
        mean /= period
        for j in range(i - period + 1, i + 1):
            squares += (values[j] - mean) ** 2
        found[i] = np.sqrt(squares / period)
    return found


def _floats(values: npt.ArrayLike) -> Floats:
    """A copy of one's own: kernels are compiled again for each kind of array, and those of tables are read-only."""
    return np.array(values, np.float64)


def _columns(*columns: npt.ArrayLike) -> list[Floats]:
    """Copies of columns of the same table; raises UsageError if their lengths differ."""
    copies = [_floats(column) for column in columns]
    if len({copy.size for copy in copies}) > 1:
        lengths = ", ".join(f"{copy.size}" for copy in copies)
        raise UsageError(f"columns of {lengths} rows", remedy="give columns of the same bars")
    return copies


def _bars(count: int, name: str = "period") -> int:
    """`count`, if it is one of bars; raises UsageError."""
    if count < 1:
        raise UsageError(f"{name} is {count}", remedy=f"give a {name} of at least 1 bar")
    return count
