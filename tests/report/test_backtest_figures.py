"""The figures of a backtest say what their tables say, say so when there is nothing, and give the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from mmlab.core import schemas
from mmlab.core.schemas import COMPONENTS
from mmlab.flows.report import close_up, drawings, tables
from mmlab.report import backtest_figures as draw
from mmlab.report.attribution import Mids, attribution, markouts
from mmlab.report.backtest import MOST_FILLS, markouts_by_horizon, quoted_by_time
from mmlab.report.backtest_fills import ASSUMES, assumptions, name, side_by_side
from mmlab.report.canvas import png, says_of
from mmlab.report.figures import fills_on_price
from mmlab.report.page import CAPTIONS
from mmlab.sim.run import run
from mmlab.sim.spec import FILL_MODELS, REACHES, BacktestSpec, QuoteSpec
from reference.markets import busy, instrument, tape

S = 1_000_000_000


@pytest.fixture(scope="module")
def made() -> dict[str, pl.DataFrame]:
    """Tables of a run of two minutes, and of an invented comparison."""
    market = replace(busy(8, 3_000), tick="0.01", lot="0.000001")
    played, rules = tape(market), instrument(market)
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=1.5), qty=0.000007, initial_inventory=0.000021, account="margin",
        maker_fee=0.0003, requote_interval_ms=50,
    )  # fmt: skip
    from mmlab.sim.intensity import Intensity

    found = run(played, spec, Intensity.none())
    after = (found.fills, found.state, Mids(played.frame_ns, played.bid + played.ask), rules)
    return {
        "orders": found.orders, "fills": found.fills, "state": found.state, "attribution": attribution(*after),
        "markouts": markouts(*after), "fill_models": compared(),
    }  # fmt: skip


def compared() -> pl.DataFrame:
    """Two fill models with figures made up so that each shows in its place."""
    rows = []
    for number, (model, reach, at) in enumerate([("trade_cross", "queue", 10.0), ("poisson", "touch", -20.0)], 1):
        rows += [
            (number, "parameter", "fill_model", None, model, ""),
            (number, "parameter", "fill_reach", None, reach, ""),
        ]
        figures = {
            "pnl_total": at + 1,
            "fees": 4.0,
            "fills": 7.0,
            "fill_ratio": 0.5,
            "max_drawdown": 3.0,
            "sharpe": None,
        }
        rows += [(number, "metric", metric, value, None, "1") for metric, value in figures.items()]
        parts = (at, -2.0, 7.0, -4.0)
        rows += [(number, "part", part, v, None, "quote") for part, v in zip(COMPONENTS, parts, strict=True)]
    return schemas.FILL_MODELS.check(pl.DataFrame(rows, schema=schemas.FILL_MODELS.schema, orient="row"))


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(artist.get_text() for artist in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_the_waterfall_steps_from_the_spread_to_the_total(made):
    """Each bar begins where the one before ended, and the last one is their sum."""
    figure = draw.waterfall(made["attribution"])
    bars = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in figure.axes[0].patches]
    values = made["attribution"].filter(horizon_s=5, side="both")["value"].to_list()
    ends = np.cumsum(values)
    assert [bottom for bottom, _ in bars] == pytest.approx([0, *ends[:3], 0])
    assert [top for _, top in bars] == pytest.approx([*ends, ends[3]])
    state = made["state"]
    assert bars[-1][1] == pytest.approx(state["mtm_value"][-1] - state["mtm_value"][0])
    said = texts(figure)
    assert f"{made['fills'].height:,} fills" in said
    assert "on the position held at the start" in said


def test_markouts_are_drawn_as_the_table_says(made):
    """Means with their intervals where there are any, and the box of each side at each horizon."""
    figure = draw.markouts_drawn(made["markouts"])
    top, low = figure.axes
    every = markouts_by_horizon(made["markouts"])
    [means] = [c for c in low.containers if "mean markout" in c.get_label()]
    np.testing.assert_allclose(means[0].get_ydata(), every["mean"].to_numpy())
    reached = np.array([segment[:, 1] for segment in means[2][0].get_segments() if len(segment)])
    limits = every.drop_nulls("low").select("low", "high").to_numpy()
    np.testing.assert_allclose(reached, limits)
    [kept] = [line for line in low.lines if "spread earned" in str(line.get_label())]
    np.testing.assert_allclose(kept.get_ydata(), every["kept"].to_numpy())
    boxes = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in top.patches]
    both = pl.concat([markouts_by_horizon(made["markouts"], side) for side in (1, -1)])
    np.testing.assert_allclose(boxes, both.select("p25", "p75").to_numpy())
    assert "no interval where the run is too short" in texts(figure)


def test_latencies_end_at_the_longest_wait_of_each_kind(made):
    figure = draw.latency(made["orders"], made["fills"])
    placed = made["orders"].filter(action="PLACE")
    [line] = [one for one in figure.axes[0].lines if str(one.get_label()).startswith("decision")]
    assert line.get_label() == f"decision to the venue ({placed.height:,})"
    assert set(np.asarray(line.get_xdata()).tolist()) == {50.0}
    assert (line.get_ydata()[0], line.get_ydata()[-1]) == (0.0, 1.0)
    assert says_of(figure).startswith("Medians: 50 ms to the venue, 25 ms to cancel")


def test_quoted_time_is_stacked_to_the_whole(made):
    """The title weighs each stretch by how long it is."""
    figure = draw.quoted(made["state"])
    shares = quoted_by_time(made["state"])
    held = shares["end_ns"] - shares["start_ns"]
    assert f"both {(shares['both'] * held).sum() / held.sum():.1%}" in figure.get_suptitle()
    tops = [patch.get_paths()[0].vertices[:, 1].max() for patch in figure.axes[0].collections]
    assert tops[-1] == pytest.approx(1.0)


def test_fills_are_coloured_by_where_the_mid_went_after_them(made):
    """In bps of the mid; one that the end of the run cut has no value, hence a colour of its own."""
    after = made["markouts"].head(900)
    after = after.with_columns(markout_5s=pl.when(pl.int_range(pl.len()) < 890).then("markout_5s"))
    figure = fills_on_price(made["state"], after)
    for markers, side in zip(figure.axes[0].collections, (1, -1), strict=True):
        rows = after.filter(side=side)
        expected = (rows["markout_5s"] / rows["mid"] * 10_000).to_numpy()
        np.testing.assert_allclose(np.ma.filled(markers.get_array(), np.nan), expected)
        assert (markers.norm.vmin, markers.norm.vmax) == (-markers.norm.vmax, -markers.norm.vmin)
    assert "bps in its favour" in texts(figure)


def test_where_there_are_many_fills_every_so_many_th_is_drawn(made):
    many = pl.concat([made["markouts"]] * 3).sort("recv_ns")
    figure = fills_on_price(made["state"], many)
    every = -(-many.height // 1_000)
    assert f"one fill in {every} is drawn" in texts(figure)
    drawn = sum(len(markers.get_offsets()) for markers in figure.axes[0].collections)
    assert drawn == sum(-(-many.filter(side=side).height // every) for side in (1, -1))


def test_the_close_up_has_the_rows_of_its_stretch_only(made):
    state, fills = close_up(made["state"], made["markouts"])
    assert 0 < state.height < made["state"].height
    assert fills.height > 0
    assert state["recv_ns"][-1] - state["recv_ns"][0] <= 10 * S
    inside = made["markouts"].filter(pl.col("recv_ns").is_between(fills["recv_ns"][0], fills["recv_ns"][-1]))
    assert fills.equals(inside)
    assert fills.height > MOST_FILLS / 2, "the busiest stretch of the shortest width"


def test_fill_models_stand_side_by_side_with_the_parts_of_their_profit():
    """`fees` is the part, which is below 0, not the metric, which is what was paid."""
    got = side_by_side(compared())
    assert got["model"].to_list() == ["trade_cross queue", "poisson"]
    assert got["pnl_total"].to_list() == [11.0, -19.0]
    for row in got.iter_rows(named=True):
        assert sum(row[part] for part in COMPONENTS) == row["pnl_total"]
    assert got["fees"].to_list() == [-4.0, -4.0]
    figure = draw.fill_models(got)
    assert "from -19 (poisson) to +11 (trade_cross queue)" in figure.get_suptitle()
    [totals] = [line for line in figure.axes[0].lines if line.get_label() == "total"]
    assert list(totals.get_xdata()) == [-19.0, 11.0]
    for y, row in enumerate(got.reverse().iter_rows(named=True)):
        widths = [bar.get_width() for bar in figure.axes[0].patches if bar.get_y() + 0.3 == pytest.approx(y)]
        assert widths == [row[part] for part in COMPONENTS]
        ends = [
            bar.get_x() + bar.get_width() for bar in figure.axes[0].patches if bar.get_y() + 0.3 == pytest.approx(y)
        ]
        assert max(ends) == sum(row[part] for part in COMPONENTS if row[part] > 0)
        assert min(ends) == sum(row[part] for part in COMPONENTS if row[part] < 0)


def test_every_fill_model_says_what_it_assumes():
    """All that a specification allows: price_cross and poisson know no queue."""
    allowed = {name(m, r) for m in FILL_MODELS for r in REACHES if r != "queue" or m not in ("price_cross", "poisson")}
    assert set(ASSUMES) == allowed
    assert assumptions(compared())["assumes"].to_list() == [ASSUMES["trade_cross queue"], ASSUMES["poisson"]]


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (lambda: draw.waterfall(schemas.ATTRIBUTION.empty()), "no attribution"),
        (lambda: draw.markouts_drawn(schemas.MARKOUTS.empty()), "no fills in this run"),
        (lambda: draw.latency(schemas.ORDERS.empty(), schemas.FILLS.empty()), "no order was sent"),
        (lambda: draw.quoted(schemas.STATE.empty()), "no time passed"),
        (lambda: fills_on_price(*close_up(schemas.STATE.empty(), schemas.MARKOUTS.empty())), "no state rows"),
    ],
)
def test_an_empty_table_is_said(figure, said):
    assert said in texts(figure())


def test_fills_that_all_lie_at_the_end_have_no_markouts(made):
    cut = made["markouts"].with_columns(pl.lit(None, pl.Float64).alias(f"markout_{h}s") for h in schemas.HORIZONS_S)
    assert "ends within 1 s of every fill" in texts(draw.markouts_drawn(cut))
    assert png(fills_on_price(made["state"].head(50), cut.head(3)))


def test_a_backtest_has_every_figure_and_table_with_a_caption_each(made):
    """In the page's order; a run without markouts still has its fills on the price."""
    wanted = [
        "equity", "where_it_came_from", "inventory", "fills_on_price", "quotes_close_up", "markouts", "latency",
        "quoted_time", "fill_models",
    ]  # fmt: skip
    assert list(drawings(made, None)) == wanted
    shown = tables(made, "pnl_total")
    assert list(shown) == [
        "attribution_by_horizon", "markouts_by_horizon", "waiting_times", "fill_models_side_by_side",
        "what_each_fill_model_assumes",
    ]  # fmt: skip
    assert {*wanted, *shown} <= {*CAPTIONS, "what_each_fill_model_assumes"}
    old = {table: made[table] for table in ("orders", "fills", "state")}
    assert list(drawings(old, None)) == [
        "equity", "inventory", "fills_on_price", "quotes_close_up", "latency", "quoted_time",
    ]  # fmt: skip


@pytest.mark.parametrize("figure", ["markouts", "quotes_close_up"])
def test_the_same_tables_give_the_same_bytes(made, figure):
    first, second = (png(drawings(made, None)[figure]()) for _ in range(2))
    assert first == second
    assert len(first) < 150_000
