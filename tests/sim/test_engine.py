"""The compiled loop equals its slow twin row for row, and keeps its promises on any tape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmlab.core import ledger
from mmlab.core.errors import UsageError
from mmlab.core.ledger import Money
from mmlab.sim import account, clock, engine, layout, matching, quotes, wants
from mmlab.sim.run import Result, run
from mmlab.sim.script import Script
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Line, Market, Print, Twin
from reference.markets import CONSTANT, MS, START, TABLES, assert_same, busy, cases, instrument, intensity, still, tape

FAR = 2**62


def simulate(market: Market, spec: BacktestSpec, **options: object) -> Result:
    return run(tape(market), spec, intensity(market), **options)


def script(market: Market, lines: dict[int, Line]) -> Script:
    """`lines` by the number of their frame as the engine's columns."""
    n = len(market.frames)
    bid, ask, until = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, layout.NEVER)
    for i, (buy, sell, end) in lines.items():
        bid[i], ask[i], until[i] = buy, sell, layout.NEVER if end is None else end
    return Script(np.isin(np.arange(n), list(lines)), bid, ask, until)


def fixed(half: float = 1.0, fill: FillSpec | None = None, **flags: object) -> BacktestSpec:
    """A margin account without latency or fees, unless `flags` say otherwise."""
    flags = {"qty": 0.005, "account": "margin", "entry_latency_ms": 0, "cancel_latency_ms": 0, **flags}
    fees = {"maker_fee": 0.0, "taker_fee": 0.0, **flags}
    return BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=half), fill or FillSpec(), **fees)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_row_equals_the_slow_twins(case):
    market, spec = case
    assert_same(Twin(market, spec).run(), simulate(market, spec))


@settings(max_examples=30, deadline=None)
@given(case=cases(60))
def test_results_do_not_depend_on_the_size_of_the_buffers(case):
    market, spec = case
    assert_same(simulate(market, spec), simulate(market, spec, buffer_rows=1))


@st.composite
def scripted(draw: st.DrawFn) -> tuple[Market, BacktestSpec, dict[int, Line]]:
    """A case, and wanted quotes at some of its frames: about the book and across it, or none; for ever or not."""
    market, spec = draw(cases())
    lines: dict[int, Line] = {}
    for i, frame in enumerate(market.frames):
        if draw(st.booleans()):
            bid, ask = (
                draw(st.sampled_from([0, max(price + draw(st.integers(-3, 3)), 0)])) for price in (frame.bid, frame.ask)
            )
            lasts = draw(st.sampled_from([None, None, 0, 1, 60 * MS, 700 * MS]))
            lines[i] = (bid, ask, None if lasts is None else frame.ns + lasts)
    return market, spec, lines


@settings(max_examples=40, deadline=None)
@given(case=scripted())
def test_every_row_equals_the_slow_twins_when_a_script_quotes(case):
    market, spec, lines = case
    got = simulate(market, spec, script=script(market, lines))
    assert_same(Twin(market, spec, lines).run(), got)
    assert_same(simulate(market, spec, script=script(market, lines), buffer_rows=1), got)


SLOW = {"entry_latency_ms": 30, "cancel_latency_ms": 60, "response_latency_ms": 120}
BUSY_SPECS = [
    fixed(2.0, requote_interval_ms=50, entry_latency_ms=30, cancel_latency_ms=300),
    fixed(1.0, post_only=False, account="spot", initial_cash=1_000.0, initial_inventory=0.5, taker_fee=0.001),
    fixed(2.0, FillSpec("poisson"), ttl_ms=400, maker_fee=-0.0001),
    BacktestSpec(QuoteSpec(gamma=20.0, sigma_window_s=4), FillSpec("poisson"), qty=0.002, initial_inventory=0.01),
    fixed(2.0, FillSpec(reach="queue"), **SLOW, latency_jitter="exponential:40", feed_latency="recorded"),
    fixed(
        1.0, FillSpec(reach="queue", queue_cancels="proportional"), requote_interval_ms=50, min_move_ticks=3,
        max_inventory=0.02, cancel_latency_ms=400,
    ),
    replace(
        fixed(1.0, FillSpec("price_cross", book_levels=3), **SLOW, latency_jitter="lognormal:0.7", orders_per_10s=30),
        quote=QuoteSpec("ladder", deltas=(1.0, 2.5, 4.0)), qty=0.009,
    ),
    replace(
        fixed(1.0, FillSpec("hybrid", "through"), **SLOW, account="spot", initial_cash=1.7, initial_inventory=0.009),
        quote=QuoteSpec("inventory_skew", half_spread_ticks=1.0, skew_ticks=0.5, levels=3), size_to_balance=True,
    ),
    replace(
        fixed(1.0, FillSpec(book_levels=2), time_in_force="IOC", post_only=False, response_latency_ms=300),
        quote=QuoteSpec("microprice", half_spread_ticks=0.0, levels=2, level_step_ticks=0.5),
        entry_latency_ms=70, requote_interval_ms=50, leverage=0.5, initial_cash=10.0,
    ),
    replace(
        fixed(1.0, FillSpec("hybrid", "queue"), feed_latency="3.5"),
        quote=QuoteSpec(
            "glft", gamma=5.0, sigma_method="ewma", sigma_halflife_s=3.0, levels=2, A=2.0, k=0.4, horizon="session"
        ),
    ),
]  # fmt: skip
NAMES = [
    "margin", "taking", "poisson", "formula", "queue", "proportional", "ladder", "skew", "ioc", "glft",
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("spec", BUSY_SPECS, ids=NAMES)
def test_a_busy_market_equals_the_slow_twins_and_trades(spec, seed):
    market = busy(seed)
    got = simulate(market, spec, buffer_rows=1)
    assert_same(Twin(market, spec).run(), got)
    assert got.fills.height > 10


@pytest.fixture
def interpreted(monkeypatch) -> Iterator[None]:
    """All kernels as plain Python, wherever they are used."""
    for module in (layout, quotes, clock, account, matching, wants, engine, ledger):
        for name, kernel in vars(module).copy().items():
            if hasattr(kernel, "py_func"):
                monkeypatch.setattr(module, name, kernel.py_func)
    with np.errstate(over="ignore"):  # splitmix64 means to wrap around
        yield


@pytest.mark.parametrize("spec", BUSY_SPECS, ids=NAMES)
def test_the_kernels_are_also_plain_python(spec, request):
    market = busy(2, 250)
    compiled = simulate(market, spec)
    request.getfixturevalue("interpreted")
    assert not hasattr(engine.walk, "py_func")
    assert_same(simulate(market, spec), compiled)


def test_the_same_run_twice_gives_the_same_tables():
    for spec in BUSY_SPECS:
        assert_same(simulate(busy(1), spec), simulate(busy(1), spec))


@settings(max_examples=20, deadline=None)
@given(case=cases(), at=st.integers(1, 40), what=st.sampled_from(["drop", "change"]))
def test_no_row_knows_an_event_that_follows_it(case, at, what):
    market, spec = case
    times = sorted({e.ns for e in [*market.frames, *market.prints]})
    cut = times[at % len(times)]
    assume(cut > market.frames[0].ns)
    frames, prints = ([e for e in part if e.ns < cut] for part in (market.frames, market.prints))
    known = max(e.ns for e in [*frames, *prints])  # instants after the last event are not lived through
    if what == "change":
        known = cut
        frames += [replace(f, bid=f.bid + 3, ask=f.ask + 5, bid_lots=1, epoch=9) for f in market.frames if f.ns >= cut]
        prints += [replace(p, price=p.price + 4, lots=20) for p in market.prints if p.ns >= cut]
    before = pl.col("recv_ns") < known
    whole, other = simulate(market, spec), simulate(replace(market, frames=frames, prints=prints), spec)
    for name in TABLES:
        assert getattr(whole, name).filter(before).equals(getattr(other, name).filter(before)), name


@settings(max_examples=20, deadline=None)
@given(case=cases(60))
def test_an_order_is_filled_only_within_its_life_and_its_size(case):
    market, spec = case
    got = simulate(market, spec)
    over = got.orders.filter(pl.col("action").is_in(["REJECT", "EXPIRE", "CANCEL_ACK", "CLOSE_FILLED"]))
    assert not over["order_id"].is_duplicated().any()
    late = got.fills.join(over.select("order_id", over_ns="recv_ns"), on="order_id")
    assert late.filter(pl.col("recv_ns") > pl.col("over_ns")).is_empty()
    life = got.orders.filter(pl.col("order_id") > 0).group_by("order_id").agg(
        pl.col("active_recv_ns").first(),
        pl.min_horizontal("cancel_effective_ns", "expire_recv_ns").min().fill_null(FAR).alias("end"),
        pl.col("qty").first().alias("size"),
    )  # fmt: skip
    fills = got.fills.join(life, on="order_id")
    assert fills.height == got.fills.height
    assert fills.filter(pl.col("recv_ns") < pl.col("active_recv_ns")).is_empty()
    assert fills.filter(pl.col("recv_ns") >= pl.col("end")).is_empty()
    filled = fills.group_by("order_id").agg(pl.col("qty").sum(), pl.col("size").first())
    assert (filled["qty"] <= filled["size"] * (1 + 1e-9)).all()


@settings(max_examples=20, deadline=None)
@given(case=cases(60))
def test_neither_a_print_nor_a_touch_is_used_twice(case):
    market, spec = case
    fills = simulate(market, spec).fills.with_columns((pl.col("qty") / float(market.lot)).round().alias("lots"))
    for ns in {p.ns for p in market.prints}:
        filled = fills.filter((pl.col("recv_ns") == ns) & (pl.col("reason") == "trade_cross"))["lots"].sum()
        assert filled <= sum(p.lots for p in market.prints if p.ns == ns)
    for i, frame in enumerate(market.frames):
        until = market.frames[i + 1].ns if i + 1 < len(market.frames) else FAR
        if (i and market.frames[i - 1].ns == frame.ns) or until == frame.ns:
            continue  # frames of one instant share their takers
        took = (pl.col("reason") == "taker") & (pl.col("recv_ns") > frame.ns) & (pl.col("recv_ns") < until)
        crossed = (pl.col("reason") == "price_cross") & (pl.col("recv_ns") == frame.ns)
        shown = fills.filter(took | crossed)
        for side in (1, -1):
            most = sum(lots for _, lots in frame.levels(-side, spec.fill.book_levels))
            assert shown.filter(pl.col("side") == side)["lots"].sum() <= most


@settings(max_examples=20, deadline=None)
@given(case=cases(60))
def test_a_spot_account_is_never_overdrawn_and_the_cap_holds(case):
    market, spec = case
    spot = simulate(market, replace(spec, account="spot", leverage=0.0)).state
    assert spot.select((pl.col("cash") >= 0).all() & (pl.col("inventory") >= 0).all()).item()
    if spec.max_inventory is not None:
        most = simulate(market, spec).state["inventory"].abs().to_numpy().max()
        assert most <= max(spec.max_inventory, spec.initial_inventory) * (1 + 1e-9)


def test_one_lot_parts_whose_fees_round_up_never_overdraw_an_account_that_had_just_enough():
    frames = [Frame(START, 0, 1, 5, 1, 7, 1), Frame(START + 2_000 * MS, 99, 1, 5, 1, 7, 1)]
    prints = [Print(START + i * MS, i, 5, 1) for i in range(1, 60)]
    market = Market(frames, prints, "0.00000001", "1")
    money = Money.of(instrument(market))
    for enough in range(270, 350, 2):
        spec = fixed(1.0, qty=50.0, account="spot", initial_cash=money.amount(enough), maker_fee=0.1)
        got = simulate(market, spec)
        assert (got.state["cash"] >= 0).all()
    assert got.fills.height == 50


@settings(max_examples=30, deadline=None)
@given(case=cases(), later=st.sampled_from([1, 40, 400]))
def test_an_order_that_enters_later_is_not_filled_earlier(case, later):
    market, spec = case
    spec = replace(
        spec, fill=replace(spec.fill, model="trade_cross"), requote_interval_ms=10**6, ttl_ms=0, post_only=True,
        time_in_force="GTC",
    )  # fmt: skip
    first = []
    for latency in (spec.entry_latency_ms, spec.entry_latency_ms + later):
        got = simulate(market, replace(spec, entry_latency_ms=latency))
        refused = got.orders.filter((pl.col("order_id") == 1) & (pl.col("action") == "REJECT"))
        assume(refused.is_empty())  # a refused order frees cash, or leaves the print to others
        first.append(min(got.fills.filter(pl.col("order_id") == 1)["recv_ns"].to_list(), default=FAR))
    assert first[0] <= first[1]


# ---- single facts, by hand


def two(prints: list[Print], *more: Frame) -> Market:
    """Bid 9_999, ask 10_001 from START on, then `more`, and a last frame after ten seconds."""
    last = Frame(START + 10_000 * MS, 999, 1, 9_999, 5, 10_001, 5)
    return Market([Frame(START, 0, 1, 9_999, 5, 10_001, 5), *more, last], prints, segments=CONSTANT)


def test_touch_fills_at_the_price_and_through_a_tick_beyond():
    market = two([Print(START + MS, 1, 9_999, 2), Print(START + 2 * MS, 2, 9_998, 2)])
    spec = fixed(1.0, requote_interval_ms=10**6)
    assert simulate(market, spec).fills["recv_ns"].to_list() == [START + MS, START + 2 * MS]
    through = replace(spec, fill=FillSpec(reach="through"))
    assert simulate(market, through).fills["recv_ns"].to_list() == [START + 2 * MS]


def test_a_print_that_shares_the_time_of_activation_fills_and_one_at_the_cancels_effect_does_not():
    prints = [Print(START + 50 * MS, 1, 9_000, 1), Print(START + 325 * MS, 3, 9_000, 1)]
    market = two(prints, Frame(START + 300 * MS, 2, 1, 10_009, 5, 10_011, 5))
    got = simulate(market, fixed(1.0, entry_latency_ms=50, cancel_latency_ms=25))
    assert got.fills.select("recv_ns", "order_id").rows() == [(START + 50 * MS, 1)]
    ack = got.orders.filter((pl.col("action") == "CANCEL_ACK") & (pl.col("order_id") == 1))
    assert ack["recv_ns"].to_list() == [START + 325 * MS]


def test_a_fill_that_follows_a_frame_at_the_same_instant_keeps_the_mid_it_happened_at():
    frames = [Frame(START + 300 * MS, 2, 1, 10_005, 5, 10_007, 5)]
    market = two([Print(START + 300 * MS, 1, 9_000, 1), Print(START + 300 * MS, 3, 9_000, 1)], *frames)
    got = simulate(market, fixed(1.0, cancel_latency_ms=50))
    assert got.fills["mid"].to_list() == [100.0, 100.06]


def test_one_print_serves_the_better_price_first_then_the_older_order():
    better = Frame(START + 300 * MS, 1, 1, 10_001, 5, 10_003, 5)
    market = two([Print(START + 301 * MS, 2, 9_000, 8)], better)
    got = simulate(market, fixed(1.0, cancel_latency_ms=700))
    assert got.fills.select("order_id", "price", "qty").rows() == [(3, 100.01, 0.005), (1, 99.99, 0.003)]


def test_a_crossing_order_takes_what_the_touch_still_shows_and_rests_with_what_is_left():
    jump = Frame(START + 10 * MS, 1, 1, 9_996, 5, 9_997, 3)
    market = two([Print(START + 60 * MS, 2, 9_999, 9)], jump)
    got = simulate(market, fixed(1.0, post_only=False, entry_latency_ms=50, requote_interval_ms=10**6))
    assert got.fills.select("reason", "price", "qty", "liquidity").rows() == [
        ("taker", 99.97, 0.003, "taker"),
        ("trade_cross", 99.99, 0.002, "maker"),
    ]
    refused = simulate(market, fixed(1.0, entry_latency_ms=50)).orders.filter(pl.col("action") == "REJECT")
    assert refused.select("order_id", "reject_reason").rows() == [(1, "post_only_would_cross")]


def test_a_line_of_a_script_sends_new_orders_even_at_the_old_price_and_frames_without_one_change_nothing():
    market = two(
        [], Frame(START + 10 * MS, 1, 1, 9_999, 5, 10_001, 5), Frame(START + 600 * MS, 2, 1, 9_989, 5, 10_011, 5)
    )
    lines = {0: (9_998, 10_002, None), 1: (9_998, 0, START + 400 * MS)}
    got = simulate(market, fixed(cancel_latency_ms=25), script=script(market, lines))
    assert got.orders.select("recv_ns", "order_id", "action", "side", "price", "cancel_reason").rows() == [
        (START, 1, "PLACE", 1, 99.98, ""),
        (START, 2, "PLACE", -1, 100.02, ""),
        (START + 10 * MS, 1, "CANCEL_REQ", 1, 99.98, "QUOTE_CHANGE"),
        (START + 10 * MS, 2, "CANCEL_REQ", -1, 100.02, "NO_DESIRED_QUOTE"),
        (START + 10 * MS, 3, "PLACE", 1, 99.98, ""),
        (START + 35 * MS, 1, "CANCEL_ACK", 1, 99.98, "QUOTE_CHANGE"),
        (START + 35 * MS, 2, "CANCEL_ACK", -1, 100.02, "NO_DESIRED_QUOTE"),
        (START + 400 * MS, 3, "EXPIRE", 1, 99.98, "TTL_EXPIRE"),
    ]


def test_a_script_may_decide_at_every_frame_while_no_cancel_takes_effect():
    """Orders pile up beyond what a quote model could have at work."""
    market = still(3, every_ms=1)
    lines = dict.fromkeys(range(len(market.frames)), (9_990, 10_010, None))
    got = simulate(market, fixed(cancel_latency_ms=500, requote_interval_ms=1_000), script=script(market, lines))
    assert got.orders.filter(pl.col("action") == "PLACE").height == 2 * len(market.frames)
    assert got.state["open_orders"].max() == 2 * 501


def test_a_script_that_does_not_fit_is_refused():
    market, none = two([]), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="1 lines for 2 book frames"):
        simulate(market, fixed(), script=Script(none[:1] == 0, none[:1], none[:1], none[:1]))
    with pytest.raises(ValueError, match="ends before it is sent"):
        simulate(market, fixed(), script=script(market, {0: (9_998, 0, START - 1)}))
    with pytest.raises(ValueError, match="differ in length"):
        Script(none == 0, none, none[:1], none)
    with pytest.raises(ValueError, match="below 0"):
        Script(none == 0, none, none - 1, none)
    with pytest.raises(UsageError, match="too large to be counted"):
        simulate(market, fixed(), script=script(market, {0: (0, 2**55, None)}))


def test_an_order_so_far_away_that_its_rate_is_zero_just_waits():
    market = replace(still(30), segments=((0, FAR, 1.0, 2.0),))
    got = simulate(market, fixed(2_000.0, FillSpec("poisson")))
    assert got.fills.is_empty()
    assert got.orders["action"].to_list() == ["PLACE", "PLACE"]


def test_a_quote_beyond_all_prices_is_kept_within_what_can_be_counted():
    spec = BacktestSpec(QuoteSpec(gamma=50.0, sigma=1e9, k=0.3), account="margin", initial_inventory=-5.0)
    got = simulate(still(3), spec)
    assert got.orders.filter((pl.col("action") == "PLACE") & (pl.col("side") == -1))["price"].min() > 100.01
