"""The grid on frames: candles in, result out; one run or a sweep over parameters, for notebooks and scripts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import TableError, UsageError
from mmlab.core.schemas import BARS, FUNDING
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS
from mmlab.grid.config import names, values_of
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.layout import Floats
from mmlab.grid.market import Market
from mmlab.grid.metrics import Account, account, metrics
from mmlab.grid.params import GridParams, VenueParams, from_mapping
from mmlab.grid.summary import trades
from mmlab.grid.tables import Clock, equity, fills, flows, tables, verdicts

PRICES = ("open", "high", "low", "close", "volume")
STRATEGY_PARAMS: dict[str, Any] = values_of(GridParams())
COIN = "COIN"  # in the tables of a frame that has no name


@dataclass(frozen=True)
class Result:
    """What a run made. `result["metrics"]` works as `result.metrics` does, as in the strategy's document.

    equity_curve: at each bar's close, shape (bars,); regime_log: regime in force (see regime.REGIME_NAMES), shape
    (bars,); trades: bar, timestamp (ms), datetime, price, qty, label, regime, pnl; metrics: by name, None where
    undefined; tables: the frames of core/grid_schemas.py by name.
    """

    params: GridParams
    venue: VenueParams
    equity_curve: Floats
    regime_log: npt.NDArray[np.int8]
    trades: pl.DataFrame
    metrics: dict[str, float | None]
    tables: dict[str, pl.DataFrame]
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None


class GridStrategy:
    """The strategy with its parameters: `GridStrategy(gamma=0.3, fills="touch-through").run(frame)`.

    config: names and values of GridParams (others keep their defaults), or a GridParams; `changes` count more, and may
    name VenueParams too. Raises UsageError for a name or a value that cannot be.
    """

    def __init__(self, config: Mapping[str, Any] | GridParams | None = None, **changes: Any) -> None:
        given = values_of(config) if isinstance(config, GridParams) else dict(config or {})
        at_venue = {name: changes.pop(name) for name in names(VenueParams()) if name in changes}
        self.params: GridParams = from_mapping(GridParams, {**given, **changes}, "config")
        self.venue: VenueParams = from_mapping(VenueParams, at_venue, "config")

    def run(self, frame: Any, funding: Any = None, minutes: Any = None, *, coin: str = COIN) -> Result:
        """Run over candles; see `market_of` for what the frames may be."""
        return self.run_market(market_of(frame, funding, minutes), coin=coin)

    def run_market(self, made: Market, *, coin: str = COIN, warnings: Sequence[str] = ()) -> Result:
        """The same over a market that is there already."""
        raw = simulate(made.rows(self.params), made.candles, self.params, self.venue)
        frames = tables(coin, made, raw, self.params)
        figures = metrics(coin, account(frames, self.params.initial_capital, made.interval_ns))
        return Result(
            self.params, self.venue, raw.equity[:, 1].copy(), made.regime(self.params),
            trades(frames["grid_fills"], made.open_ns), dict(figures.select("metric", "value").iter_rows()),
            {**frames, "grid_metrics": figures}, list(warnings),
        )  # fmt: skip


def market_of(frame: Any, funding: Any = None, minutes: Any = None) -> Market:
    """Candles, settlements and finer candles as the engine reads them.

    frame: anything with columns `timestamp` (opening, ms UTC; or `open_ns`), open, high, low, close and volume: a
    Polars or pandas frame, or a mapping; the bars' length is the least distance of two rows. funding: `timestamp`
    (ms; or `ts_ns`) and `fundingRate` (or `rate`); None: no funding. minutes: 1-minute candles of the same span, which
    tell what happened inside the bars. Raises TableError naming a column that is missing, or rows that cannot be.
    """
    bars = candles(frame, "frame")
    opens = bars["open_ns"].to_numpy()
    if len(opens) < 2:
        raise UsageError(f"{len(opens)} candles", remedy="give at least 100")
    interval_ns = int(np.diff(opens).min())
    if interval_ns <= 0 or interval_ns % NS_PER_MIN:
        raise TableError(f"candles that are {interval_ns / 1e9:g} s apart", remedy="sort them by time, each once")
    finer = None if minutes is None else candles(minutes, "minutes")
    return Market.of(bars, interval_ns, None if funding is None else settlements(funding), finer)


def candles(frame: Any, what: str) -> pl.DataFrame:
    """Rows of the table `bars`."""
    times = instants(frame, "open_ns", what)
    columns = {name: pl.Series(column(frame, name, what).astype(np.float64)) for name in PRICES}
    rows = pl.DataFrame({"open_ns": times, **columns})
    return BARS.conform(rows.with_columns(buy_volume=pl.lit(None), n_trades=pl.lit(None)))


def settlements(frame: Any) -> pl.DataFrame:
    """Rows of the table `funding`; null rates are left out."""
    rate = column(frame, "rate" if "rate" in columns_of(frame) else "fundingRate", "funding").astype(np.float64)
    rows = pl.DataFrame({"ts_ns": instants(frame, "ts_ns", "funding"), "rate": rate})
    return FUNDING.conform(rows.filter(pl.col("rate").is_finite()).sort("ts_ns"))


def instants(frame: Any, ns_name: str, what: str) -> npt.NDArray[np.int64]:
    """Times in ns, of a column in ns or of `timestamp` in ms."""
    if ns_name in columns_of(frame):
        return column(frame, ns_name, what).astype(np.int64)
    return column(frame, "timestamp", what).astype(np.int64) * NS_PER_MS


def column(frame: Any, name: str, what: str) -> npt.NDArray[Any]:
    """A column as an array; raises TableError if it is missing."""
    if name not in columns_of(frame):
        raise TableError(
            f"{what} has no column {name!r}", remedy=f"it needs timestamp (ms) and {', '.join(PRICES)}"
            if what != "funding" else "it needs timestamp (ms) and fundingRate",
        )  # fmt: skip
    return np.asarray(frame[name])


def columns_of(frame: Any) -> list[str]:
    """Names of a frame's or a mapping's columns."""
    return list(getattr(frame, "columns", frame))


def sweep(
    frame: Any, config: Mapping[str, Any] | GridParams | None = None, *, funding: Any = None, minutes: Any = None,
    **values: Iterable[Any],
) -> pl.DataFrame:  # fmt: skip
    """Every combination of values: `sweep(frame, gamma=[0.1, 0.5], grid_levels=[5, 10])`; one row each, in that order.

    Columns: the parameters, then every metric. The best row is picked in hindsight: it says nothing of the future.
    Raises as `market_of` and GridStrategy do.
    """
    made = frame if isinstance(frame, Market) else market_of(frame, funding, minutes)
    rows = []
    for combination in itertools.product(*(list(each) for each in values.values())):
        chosen = dict(zip(values, combination, strict=True))
        strategy = GridStrategy(config, **chosen)
        raw = simulate(made.rows(strategy.params), made.candles, strategy.params, strategy.venue)
        figures = metrics(COIN, light_account(raw, made, strategy.params.initial_capital))
        rows.append({**chosen, **dict(figures.select("metric", "value").iter_rows())})
    return pl.DataFrame(rows, infer_schema_length=None)


def light_account(raw: Raw, made: Market, capital: float) -> Account:
    """The account of a run, without the table of orders, which figures do not need."""
    clock = Clock.of(made)
    frames = {
        "grid_equity": equity(raw, clock, made),
        "grid_fills": fills(raw, clock),
        "grid_flows": flows(raw, clock),
        "grid_verdicts": verdicts(raw, clock),
    }
    return account(frames, capital, made.interval_ns)
