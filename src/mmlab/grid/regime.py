"""Regimes: what the slope of an adaptive average, its straightness and the ADX say about a bar."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import UsageError
from mmlab.grid.signals import Floats

Codes = npt.NDArray[np.int8]

NOISE, UPTREND, DOWNTREND, BREAKOUT_UP, BREAKOUT_DOWN = 0, 1, -1, 2, -2
REGIME_NAMES = {
    NOISE: "NOISE",
    UPTREND: "UPTREND",
    DOWNTREND: "DOWNTREND",
    BREAKOUT_UP: "BREAKOUT_UP",
    BREAKOUT_DOWN: "BREAKOUT_DOWN",
}
NO_RANGE = 1e-12  # below it a slope cannot be measured


def detect_regime(
    kama: Floats, er: Floats, atr: Floats, threshold: float = 0.15, er_trend_threshold: float = 0.5
) -> Codes:
    """`step_regime` with the slope from row to row; row 0, which has no slope, is NOISE. Arrays of shape (n,)."""
    kama = np.asarray(kama, np.float64)
    return step_regime(kama, np.concatenate((kama[:1], kama[:-1])), er, atr, threshold, er_trend_threshold)


def step_regime(
    kama: Floats, kama_before: Floats, er: Floats, atr: Floats, threshold: float = 0.15, er_trend_threshold: float = 0.5
) -> Codes:
    """Regime codes from slope = (kama - kama_before) / atr, as `trend_signals` gives them; all of shape (n,).

    |slope| > 2·threshold: a breakout that way; else, where er > er_trend_threshold, |slope| > threshold: a trend that
    way; else NOISE. Where atr < 1e-12 the row before holds on (NOISE if there is none).
    """
    kama, kama_before, er, atr = (np.asarray(a, np.float64) for a in (kama, kama_before, er, atr))
    measured = atr >= NO_RANGE
    slope = np.divide(kama - kama_before, atr, out=np.zeros_like(kama), where=measured)
    steep = np.abs(slope)
    strength = np.where(steep > 2 * threshold, 2, (steep > threshold) & (er > er_trend_threshold))
    return held((np.sign(slope) * strength).astype(np.int8), measured)


def veto(regime: Codes, adx: Floats, threshold: float) -> Codes:
    """UPTREND and DOWNTREND become NOISE where adx < threshold; a breakout stays, for the ADX comes too late for it.

    So says the strategy's document; its code silenced breakouts too. Arrays of shape (n,).
    """
    weak = (np.abs(regime) == UPTREND) & (np.asarray(adx) < threshold)
    return np.where(weak, NOISE, regime).astype(np.int8)


def hysteresis(raw: Codes, bars: int) -> Codes:
    """The regime in force, shape (n,): `raw` counts when it has been the same for `bars` rows, a breakout at once.

    1 takes each row as it is, 2 waits for the second equal row. NOISE until something counts. Raises UsageError for
    less than 1.
    """
    if bars < 1:
        raise UsageError(f"hysteresis of {bars} bars", remedy="give at least 1: each bar's regime as it is")
    raw = np.asarray(raw, np.int8)
    rows = np.arange(raw.size)
    new = np.ones(raw.size, np.bool_)
    new[1:] = raw[1:] != raw[:-1]
    since = np.maximum.accumulate(np.where(new, rows, 0))
    return held(raw, (rows - since >= bars - 1) | (np.abs(raw) == BREAKOUT_UP))


def held(codes: Codes, counts: npt.NDArray[np.bool_]) -> Codes:
    """Each row's code, or that of the last row before it that counts; NOISE before the first. Arrays of shape (n,)."""
    last = np.maximum.accumulate(np.where(counts, np.arange(codes.size), -1))
    return np.where(last >= 0, codes[last], NOISE).astype(np.int8)
