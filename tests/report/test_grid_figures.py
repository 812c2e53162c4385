"""The charts of a grid run show every kind of fill in its colour, and say so where there is nothing to show."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from matplotlib.colors import to_hex

from mmlab.core.grid_schemas import GRID_EQUITY, GRID_FILLS, GRID_LABELS, GRID_REGIMES, GRID_VERDICTS
from mmlab.grid.summary import curve_of
from mmlab.grid.tables import tables
from mmlab.report.canvas import png, says_of
from mmlab.report.grid_figures import HALT, MARKERS, REGIMES, equity, trade_map
from reference import grid_frames as some


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    params = dataclasses.replace(some.BUSY, halt_z_threshold=-1.5)
    market = some.market(seed=8, bars=500)
    return tables("C", market, some.run(market, params), params)


def test_the_curve_has_its_panels(frames):
    """Equity beside buy and hold, alone, the drawdown, and a strip of all regimes."""
    curve = curve_of(frames, 1000.0, some.INTERVAL_NS)
    figure = equity("C: equity", curve, frames["grid_regimes"])
    assert len(figure.axes) == 4
    held, own = (line.get_ydata() for line in figure.axes[0].get_lines()[:2])
    assert held[0] == own[0] == 1000.0
    assert own[-1] == frames["grid_equity"]["equity"][-1]
    drawn = sum(len(band.get_paths()) for band in figure.axes[3].collections)
    codes = frames["grid_regimes"]["regime"]
    assert drawn == 1 + (codes != codes.shift(1)).sum()
    named = {text.get_text() for text in figure.axes[3].get_legend().get_texts()}
    assert named == {name for name, _ in REGIMES.values()}
    assert says_of(figure) == "C: equity"
    assert len(equity("all", curve).axes) == 3


def test_every_kind_of_fill_has_its_marker(frames):
    """As many markers as fills of each kind that is there, in the document's colours; halts of the breaker."""
    figure = trade_map("C: trades", frames["grid_equity"], frames["grid_fills"], frames["grid_verdicts"])
    (ax,) = figure.axes
    drawn = [(len(c.get_offsets()), to_hex(c.get_facecolor()[0])) for c in ax.collections]
    counts = dict(frames["grid_fills"]["label"].value_counts().rows())
    wanted = [(counts[label], to_hex(colour)) for label, (_, colour) in MARKERS.items() if label in counts]
    halts = frames["grid_verdicts"].filter(guard="HALT").height
    assert halts > 0
    assert drawn == [*wanted, (halts, to_hex(HALT))]
    assert set(MARKERS) == set(GRID_LABELS)
    assert "fills" in says_of(figure)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(texts) == len(set(texts))


def test_the_colours_are_those_of_the_document():
    """Green, blue, red, orange, dark red, black; purple for the breaker."""
    colours = {label: to_hex(colour) for label, (_, colour) in MARKERS.items()}
    assert colours["BUY_OPEN_LONG"] == to_hex("tab:green")
    assert colours["SELL_CLOSE_LONG"] == to_hex("tab:blue")
    assert colours["SELL_OPEN_SHORT"] == to_hex("tab:red")
    assert colours["BUY_CLOSE_SHORT"] == to_hex("tab:orange")
    assert colours["STOP_LONG"] == colours["STOP_SHORT"] == to_hex("darkred")
    assert colours["LIQUIDATION"] == to_hex("black")


def test_nothing_to_show_is_said(frames):
    """Empty tables give a figure in words, a run without fills a line."""
    assert says_of(equity("C", pl.DataFrame(schema={"open_ns": pl.Int64}))) == "C"
    empty = (GRID_EQUITY.empty(), GRID_FILLS.empty(), GRID_VERDICTS.empty())
    assert len(png(trade_map("C", *empty))) > 1000
    quiet = trade_map("C", frames["grid_equity"], GRID_FILLS.empty(), GRID_VERDICTS.empty())
    assert "0 fills" in says_of(quiet)
    one = GRID_REGIMES.empty().clear(1).with_columns(regime=pl.lit(0, pl.Int8), open_ns=pl.lit(0, pl.Int64))
    curve = pl.DataFrame({"open_ns": [0], "equity": [1.0], "buy_hold": [1.0], "drawdown_pct": [0.0]})
    assert len(png(equity("C", curve, one))) > 1000


def test_the_same_tables_make_the_same_bytes(frames):
    """No time, no chance."""
    curve = curve_of(frames, 1000.0, some.INTERVAL_NS)
    assert png(equity("C", curve, frames["grid_regimes"])) == png(equity("C", curve, frames["grid_regimes"]))
