"""The notebook's way in: any frame with the document's columns, names that are checked, results that are whole."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mmlab import grid
from mmlab.core.errors import TableError, UsageError
from mmlab.core.grid_schemas import GRID_TABLES
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.strategy import market_of
from reference import grid_frames as some

FINER = some.minutes(2, 400)
BARS = some.bars_of(FINER)
TIMES = (pl.col("open_ns") // 1_000_000).alias("timestamp")
FRAME = BARS.select(TIMES, "open", "high", "low", "close", "volume")
FUNDING = some.funding_of(BARS, 2)
SETTLED = FUNDING.select((pl.col("ts_ns") // 1_000_000).alias("timestamp"), pl.col("rate").alias("fundingRate"))
CONFIG = {"spacing_floor": 0.001, "grid_spacing_k": 0.3, "adaptive_floor_scale": 0.3, "order_pct": 0.2, "kappa": 50}


@pytest.fixture(scope="module")
def result():
    return grid.GridStrategy(CONFIG, leverage=3, kelly_window=0, tick_size="0.01").run(FRAME, SETTLED)


def test_a_result_has_everything_the_document_asks_of_it(result):
    """By attribute and by key."""
    assert len(result.equity_curve) == len(result.regime_log) == FRAME.height
    assert result["metrics"]["total_return_pct"] == result.metrics["total_return_pct"]
    assert result.metrics["final_capital"] == result.equity_curve[-1]
    assert result.trades.height == result.tables["grid_fills"].height > 50
    assert set(np.unique(result.regime_log)) <= set(grid.REGIME_NAMES)
    for table in GRID_TABLES:
        table.check(result.tables[table.name])
    with pytest.raises(KeyError):
        result["equity"]


def test_frames_and_mappings_of_any_kind_are_the_same(result):
    """Polars, a dictionary of arrays or lists, times in ms or ns, more columns than are needed."""
    strategy = grid.GridStrategy(CONFIG, leverage=3, kelly_window=0, tick_size="0.01")
    arrays = {name: FRAME[name].to_numpy() for name in FRAME.columns}
    lists = {name: FRAME[name].to_list() for name in FRAME.columns}
    wide = FRAME.with_columns(datetime=pl.lit("x"))
    for frame, funding in ((arrays, SETTLED), (lists, SETTLED.to_dict()), (wide, FUNDING), (BARS, SETTLED)):
        assert strategy.run(frame, funding).trades.equals(result.trades)


def test_minutes_tell_what_happened_inside(result):
    """And without funding nothing is paid."""
    strategy = grid.GridStrategy(CONFIG, leverage=3, kelly_window=0, tick_size="0.01")
    finer = strategy.run(FRAME, SETTLED, FINER.select(TIMES, "open", "high", "low", "close", "volume"))
    assert not finer.trades.equals(result.trades)
    assert (finer.trades["timestamp"] % 900_000 != 0).any()
    assert strategy.run(FRAME).metrics["funding_pnl"] == 0.0 != result.metrics["funding_pnl"]


def test_a_config_is_names_and_values_or_parameters():
    """Changes count more; names of the venue's demands are taken too."""
    made = grid.GridStrategy({**grid.STRATEGY_PARAMS, "gamma": 0.1}, gamma=0.2, fills="touch-through")
    assert made.params == GridParams(gamma=0.2)
    assert made.venue == VenueParams(fills="touch-through")
    assert grid.GridStrategy(GridParams(gamma=0.7)).params.gamma == 0.7
    assert grid.GridStrategy().params == GridParams()


@pytest.mark.parametrize(
    ("config", "message"),
    [({"gama": 1}, "config: unknown gama"), ({"gamma": 0}, "config: gamma is 0"),
     ({"fills": "magic"}, "config: --fills is 'magic'")],
)  # fmt: skip
def test_names_and_values_that_cannot_be_are_told(config, message):
    """As those of a file."""
    with pytest.raises(UsageError) as caught:
        grid.GridStrategy(**config)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        (FRAME.drop("timestamp"), TableError, "frame has no column 'timestamp'"),
        (FRAME.drop("close"), TableError, "frame has no column 'close'"),
        (FRAME[:1], UsageError, "1 candles"),
        (FRAME[:50], UsageError, "50 bars are too few"),
        (FRAME.reverse(), TableError, "apart"),
        (pl.concat([FRAME[:200], FRAME[199:]]), TableError, "0 s apart"),
        (FRAME.with_columns(high=pl.col("low") - 1), TableError, "high is the highest"),
        (FRAME.with_columns(close=pl.lit(float("nan"))), TableError, "finite"),
    ],
)
def test_frames_that_cannot_be_meant_are_told(frame, error, message):
    """The column, the row or the rule."""
    with pytest.raises(error, match=message):
        grid.GridStrategy().run(frame)


def test_a_sweep_is_a_run_of_each_combination():
    """In their order, with the figures that each run alone has; also over a market that is there already."""
    made = grid.sweep(FRAME, CONFIG, funding=SETTLED, gamma=[0.1, 1.0], grid_levels=[3, 6])
    assert made.select("gamma", "grid_levels").rows() == [(0.1, 3), (0.1, 6), (1.0, 3), (1.0, 6)]
    for row in made.iter_rows(named=True):
        alone = grid.GridStrategy(CONFIG, gamma=row["gamma"], grid_levels=row["grid_levels"]).run(FRAME, SETTLED)
        assert {name: row[name] for name in alone.metrics} == alone.metrics
    again = grid.sweep(market_of(FRAME, SETTLED), CONFIG, gamma=[0.1, 1.0], grid_levels=[3, 6])
    assert made.equals(again)


def test_names_that_are_not_there_are_not_made_up():
    """As any module says it."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = grid.nothing
    assert all(getattr(grid, name) is not None for name in grid.__all__)
