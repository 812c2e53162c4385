"""Candles and funding of one coin, as the engine reads them: one row a bar, one row a candle."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import TableError, UsageError
from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS
from mmlab.grid import gmm, regime, signals
from mmlab.grid.layout import (
    ATR,
    C_CLOSE,
    C_FUNDING,
    C_MS,
    C_OPEN,
    C_WIDTH,
    CLOSE,
    CLOSE_MS,
    ER,
    FIRST_CANDLE,
    IN_FORCE,
    KAMA,
    MEAN_VOLUME,
    RATE,
    SIGMA,
    VOLUME,
    X_WIDTH,
    Floats,
    Z,
)  # fmt: skip
from mmlab.grid.params import GridParams

Ints = npt.NDArray[np.int64]
FEWEST = 100  # bars to run on
Z_BARS = 20  # in the mean that the z-score is taken from
ML_SEED = 42


@dataclass(frozen=True)
class Signals:
    """What is known at each bar's close, shape (n,) each; kama, er and trend_atr of the higher timeframe."""

    atr: Floats
    z: Floats
    sigma: Floats
    adx: Floats
    kama: Floats
    kama_before: Floats
    er: Floats
    trend_atr: Floats


@dataclass(frozen=True)
class Market:
    """Bars of one interval, the candles inside them, and funding settlements; `of` makes and checks it.

    Signals are computed once for each choice of the parameters that they depend on.
    """

    interval_ns: int
    open_ns: Ints
    bars: dict[str, Floats]  # open, high, low, close, volume, shape (n,)
    candles: Floats  # shape (m, C_WIDTH); m = n without finer candles
    first_candle: Ints  # shape (n,): where each bar's candles begin
    rate: Floats  # last settled funding rate at each close, shape (n,)
    mean_volume: Floats
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        bars: pl.DataFrame,
        interval_ns: int,
        funding: pl.DataFrame | None = None,
        finer: pl.DataFrame | None = None,
    ) -> Market:
        """From frames as in the lake (tables `bars` and `funding`); `finer`: 1-minute bars for what happened inside.

        Where all minutes of a bar are there, they take its place; elsewhere the bar is its own candle. Raises
        TableError for bars out of order, off their interval or contradicted by their minutes, UsageError for too few.
        """
        check_bars(bars, interval_ns)
        columns = {
            name: bars[name].to_numpy().astype(np.float64) for name in ("open", "high", "low", "close", "volume")
        }
        open_ns = bars["open_ns"].to_numpy().astype(np.int64)
        candles, candle_ns, spans, first = inside(open_ns, columns, interval_ns, finer)
        rate = np.zeros(len(open_ns))
        if funding is not None and not funding.is_empty():
            ts, rates = funding["ts_ns"].to_numpy(), funding["rate"].to_numpy()
            rate = signals.funding_known(open_ns, interval_ns, ts, rates)
            settle(candles, candle_ns, spans, ts, rates)
        volume = signals.mean_volume(columns["volume"])
        return cls(interval_ns, open_ns, columns, candles, first, rate, volume)

    def __len__(self) -> int:
        return len(self.open_ns)

    @property
    def candle_ns(self) -> Ints:
        """When each candle opens, shape (m,)."""
        opens: Ints = self.candles[:, C_MS].astype(np.int64) * NS_PER_MS
        return opens

    def signals(self, params: GridParams) -> Signals:
        """Everything but the regime, for these periods."""
        p = params
        key = (p.atr_period, p.adx_period, p.kama_period, p.kama_fast, p.kama_slow, p.regime_timeframe_mult)
        if key not in self._kept:
            high, low, close = (self.bars[name] for name in ("high", "low", "close"))
            atr = signals.atr_ema(high, low, close, p.atr_period)
            trend = signals.trend_signals(
                self.open_ns, self.interval_ns, high, low, close, multiple=p.regime_timeframe_mult,
                er_period=p.kama_period, fast=p.kama_fast, slow=p.kama_slow, atr_period=p.atr_period,
            )  # fmt: skip
            self._kept[key] = Signals(
                atr, signals.z_score(close, atr, Z_BARS), signals.rolling_volatility(close, p.atr_period),
                signals.adx(high, low, close, p.adx_period), trend.kama, trend.kama_before, trend.er, trend.atr,
            )  # fmt: skip
        found: Signals = self._kept[key]
        return found

    def regime(self, params: GridParams) -> npt.NDArray[np.int8]:
        """The regime in force at each close: raw, then ADX's veto, then hysteresis."""
        known = self.signals(params)
        if params.use_ml_regime:
            high, low, close = (self.bars[name] for name in ("high", "low", "close"))
            if "ml" not in self._kept:
                self._kept["ml"] = gmm.gmm_regime(self.open_ns, self.interval_ns, high, low, close, seed=ML_SEED)
            raw = self._kept["ml"]
        else:
            raw = regime.step_regime(
                known.kama, known.kama_before, known.er, known.trend_atr, params.regime_threshold,
                params.er_trend_threshold,
            )  # fmt: skip
        return regime.hysteresis(regime.veto(raw, known.adx, params.adx_trend_threshold), params.regime_hysteresis_bars)

    def rows(self, params: GridParams) -> Floats:
        """Shape (n, X_WIDTH): what `decide` reads at each close."""
        known = self.signals(params)
        X = np.empty((len(self), X_WIDTH))
        X[:, CLOSE], X[:, VOLUME], X[:, MEAN_VOLUME] = self.bars["close"], self.bars["volume"], self.mean_volume
        X[:, ATR], X[:, Z], X[:, SIGMA] = known.atr, known.z, known.sigma
        X[:, KAMA], X[:, ER], X[:, IN_FORCE], X[:, RATE] = known.kama, known.er, self.regime(params), self.rate
        X[:, CLOSE_MS] = (self.open_ns + self.interval_ns) // NS_PER_MS
        X[:, FIRST_CANDLE] = self.first_candle
        return X


def check_bars(bars: pl.DataFrame, interval_ns: int) -> None:
    """Raise TableError unless the bars are whole, in order and on their interval; UsageError if they are too few."""
    if bars.height < FEWEST:
        raise UsageError(f"{bars.height} bars are too few", remedy=f"give at least {FEWEST}: a longer span of days")
    BARS.check(bars)
    off = bars.filter(pl.col("open_ns") % interval_ns != 0)
    if not off.is_empty():
        raise TableError(
            f"the bar of {utc(off['open_ns'][0])} does not start on its interval", remedy="check --interval"
        )
    flat = bars.filter(pl.min_horizontal("open", "high", "low", "close") <= 0)
    if not flat.is_empty():
        raise TableError(f"the bar of {utc(flat['open_ns'][0])} has a price of 0", remedy="import it again")


def inside(
    open_ns: Ints, columns: dict[str, Floats], interval_ns: int, finer: pl.DataFrame | None
) -> tuple[Floats, Ints, Ints, Ints]:
    """Candles (m, C_WIDTH), when they open, how long they last in ns, and where each bar's begin."""
    n, each = len(open_ns), interval_ns // NS_PER_MIN
    own = np.column_stack([columns[name] for name in ("open", "high", "low", "close")])
    if finer is None or finer.is_empty() or each <= 1:
        whole = np.zeros(n, np.bool_)
        minute_ns, minutes, place = np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, np.int64)
    else:
        minute_ns = finer["open_ns"].to_numpy().astype(np.int64)
        minutes = np.column_stack([finer[name].to_numpy() for name in ("open", "high", "low", "close")])
        place = np.searchsorted(open_ns, minute_ns, side="right") - 1
        within = (place >= 0) & (minute_ns - open_ns[np.maximum(place, 0)] < interval_ns)
        whole = np.bincount(place[within], minlength=n) == each
        kept = within & whole[np.maximum(place, 0)]
        minute_ns, minutes, place = minute_ns[kept], minutes[kept], place[kept]
        agree(open_ns[whole], own[whole], minutes.reshape(-1, each, 4))
    opens = np.concatenate((open_ns[~whole], minute_ns))
    order = np.argsort(opens, kind="stable")
    candles = np.zeros((len(opens), C_WIDTH))
    candles[:, C_OPEN : C_CLOSE + 1] = np.concatenate((own[~whole], minutes))[order]
    candles[:, C_MS] = opens[order] // NS_PER_MS
    spans = np.concatenate((np.full(n - whole.sum(), interval_ns), np.full(len(minute_ns), NS_PER_MIN)))[order]
    counts = np.where(whole, each, 1)
    return candles, opens[order], spans, np.cumsum(counts) - counts


def agree(open_ns: Ints, own: Floats, minutes: Floats) -> None:
    """Raise TableError if minutes (k, each, 4) do not make up their bars (k, 4)."""
    made = np.column_stack(
        (minutes[:, 0, 0], minutes[:, :, 1].max(axis=1), minutes[:, :, 2].min(axis=1), minutes[:, -1, 3])
    )
    wrong = np.flatnonzero((made != own).any(axis=1))
    if wrong.size:
        k = wrong[0]
        raise TableError(
            f"the 1-minute bars of {utc(open_ns[k])} make {made[k].tolist()}, the bar is {own[k].tolist()} "
            f"({wrong.size} bars differ)", remedy="import both from one source, or leave --intrabar out",
        )  # fmt: skip


def settle(candles: Floats, candle_ns: Ints, spans: Ints, ts_ns: Ints, rates: Floats) -> None:
    """Add each settlement's rate to the first candle that closes after it; those before the first candle are none."""
    place = np.searchsorted(candle_ns + spans, ts_ns, side="right")
    held = (place < len(candles)) & (ts_ns >= candle_ns[0])
    np.add.at(candles[:, C_FUNDING], place[held], rates[held])


def utc(ns: int) -> str:
    """`2024-01-01 00:15` UTC."""
    return f"{datetime.fromtimestamp(int(ns) / 1e9, UTC):%Y-%m-%d %H:%M}"
