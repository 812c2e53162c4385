"""A run's arrays (grid/layout.py) -> the tables of core/grid_schemas.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.grid_schemas import (
    GRID_EQUITY,
    GRID_FILLS,
    GRID_FLOWS,
    GRID_ORDERS,
    GRID_REGIMES,
    GRID_STATUSES,
    GRID_VERDICTS,
)
from mmlab.core.table import Table
from mmlab.grid.engine import Raw
from mmlab.grid.layout import CLOSED, FILLED, FUNDING, GUARDS, LABELS, PLACED, ROLES, Floats
from mmlab.grid.market import Ints, Market
from mmlab.grid.params import GridParams

BLOCKED_BIT = 2.0
LIQUIDITY = ("taker", "maker")


@dataclass(frozen=True)
class Clock:
    """When bars open and close and when candles open, in ns UTC."""

    open_ns: Ints
    close_ns: Ints
    candle_ns: Ints

    @classmethod
    def of(cls, market: Market) -> Clock:
        """That of a market."""
        return cls(market.open_ns, market.open_ns + market.interval_ns, market.candle_ns)


def tables(coin: str, market: Market, raw: Raw, params: GridParams) -> dict[str, pl.DataFrame]:
    """Every table of one coin's run but the metrics, by name; `coin` is the symbol in their first column."""
    clock = Clock.of(market)
    made: dict[Table, pl.DataFrame] = {
        GRID_ORDERS: orders(raw, clock),
        GRID_FILLS: fills(raw, clock),
        GRID_FLOWS: flows(raw, clock),
        GRID_EQUITY: equity(raw, clock, market),
        GRID_VERDICTS: verdicts(raw, clock),
        GRID_REGIMES: regimes(raw, market, params),
    }
    return {table.name: table.conform(frame.with_columns(coin=pl.lit(coin))) for table, frame in made.items()}


def orders(raw: Raw, clock: Clock) -> pl.DataFrame:
    """Each order's first row with its last: how and when it ended; one that still rests has none."""
    number, what, when = (raw.orders[:, k].astype(np.int64) for k in range(3))
    placed = what == PLACED
    in_candle = np.isin(what, (FILLED, CLOSED))
    ended_ns = np.zeros(len(when), np.int64)
    ended_ns[in_candle] = clock.candle_ns[when[in_candle]]
    ended_ns[~in_candle] = clock.close_ns[when[~in_candle]]
    first = raw.orders[placed]
    begun = pl.DataFrame(
        {
            "order_id": number[placed],
            "placed_ns": clock.close_ns[when[placed]],
            "side": first[:, 3],
            "role": named(ROLES, first[:, 4]),
            "level": first[:, 5],
            "price": first[:, 6],
            "qty": first[:, 7],
        }
    )
    ended = pl.DataFrame(
        {"order_id": number[~placed], "ended_ns": ended_ns[~placed], "status": named(GRID_STATUSES, what[~placed])}
    )
    return begun.join(ended, on="order_id", how="left", maintain_order="left").with_columns(
        pl.col("status").fill_null(GRID_STATUSES[PLACED])
    )


def fills(raw: Raw, clock: Clock) -> pl.DataFrame:
    """What was bought and sold, numbered from 1."""
    rows = raw.fills[raw.fills[:, 3] < FUNDING]
    return pl.DataFrame(
        {
            "candle_ns": clock.candle_ns[rows[:, 1].astype(np.int64)],
            "seq": np.arange(1, len(rows) + 1),
            "side": rows[:, 2],
            "label": named(LABELS, rows[:, 3]),
            "price": rows[:, 4],
            "qty": rows[:, 5],
            "fee": rows[:, 6],
            "pnl": rows[:, 7],
            "liquidity": named(LIQUIDITY, rows[:, 8]),
            "order_id": present(rows[:, 9], rows[:, 9] > 0),
            "wallet": rows[:, 10],
            "regime": rows[:, 11],
        }
    )


def flows(raw: Raw, clock: Clock) -> pl.DataFrame:
    """Funding, and what the insurance fund paid."""
    rows = raw.fills[raw.fills[:, 3] >= FUNDING]
    funding = rows[:, 3] == FUNDING
    return pl.DataFrame(
        {
            "candle_ns": clock.candle_ns[rows[:, 1].astype(np.int64)],
            "flow": named(LABELS, rows[:, 3]),
            "side": np.where(funding, rows[:, 2], 0.0),
            "price": present(rows[:, 4], funding),
            "qty": present(rows[:, 5], funding),
            "amount": rows[:, 7],
        }
    )


def equity(raw: Raw, clock: Clock, market: Market) -> pl.DataFrame:
    """The account at each bar's close."""
    bars, lines = span(raw), raw.equity
    return pl.DataFrame(
        {
            "open_ns": clock.open_ns[bars],
            "close": market.bars["close"][bars],
            "wallet": lines[:, 0],
            "equity": lines[:, 1],
            "long_qty": lines[:, 2],
            "long_mean": present(lines[:, 3], lines[:, 2] > 0),
            "short_qty": lines[:, 4],
            "short_mean": present(lines[:, 5], lines[:, 4] > 0),
            "entries": lines[:, 8],
            "exits": lines[:, 9],
            "halted": lines[:, 7] % BLOCKED_BIT > 0,
            "blocked": lines[:, 7] >= BLOCKED_BIT,
        }
    )


def verdicts(raw: Raw, clock: Clock) -> pl.DataFrame:
    """What guards did."""
    rows = raw.verdicts
    return pl.DataFrame(
        {
            "decided_ns": clock.close_ns[rows[:, 0].astype(np.int64)],
            "guard": named(GUARDS, rows[:, 1]),
            "side": rows[:, 2],
            "value": rows[:, 3],
            "threshold": rows[:, 4],
        }
    )


def regimes(raw: Raw, market: Market, params: GridParams) -> pl.DataFrame:
    """What was known at each bar's close."""
    bars, known = span(raw), market.signals(params)
    return pl.DataFrame(
        {
            "open_ns": market.open_ns[bars],
            "regime": market.regime(params)[bars],
            "er": known.er[bars],
            "kama": known.kama[bars],
            "atr": known.atr[bars],
            "adx": known.adx[bars],
            "z": known.z[bars],
            "sigma": known.sigma[bars],
            "funding_rate": market.rate[bars],
        }
    )


def span(raw: Raw) -> slice:
    """The bars that were run."""
    return slice(raw.low, raw.low + len(raw.equity))


def named(texts: tuple[str, ...], codes: Floats | Ints) -> pl.Series:
    """The texts of codes."""
    return pl.Series(texts, dtype=pl.String).gather(pl.Series(codes.astype(np.int64)))


def present(values: Floats, where: npt.NDArray[np.bool_]) -> pl.Series:
    """Values where a condition holds, null elsewhere."""
    return pl.select(pl.when(pl.Series(where)).then(pl.Series(values)).otherwise(None)).to_series()
