"""What a backtest promises whatever the market does: money, limits, and fills that never come too early."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Money
from mmlab.sim import layout
from mmlab.sim.run import Result, run
from mmlab.sim.script import Script
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Market, Print, splitmix64
from reference.markets import MS, START, cases, instrument, intensity, still, tape

FAR = 2**62
S = 1_000 * MS


def simulate(market: Market, spec: BacktestSpec, **options: object) -> Result:
    return run(tape(market), spec, intensity(market), **options)


def exact(decimal: float) -> Fraction:
    return Fraction(repr(decimal))


@settings(max_examples=25, deadline=None)
@given(case=cases(60))
def test_cash_and_inventory_are_what_the_fills_add_up_to(case):
    """At every row of state that is the last of its instant, to the last quantum."""
    market, spec = case
    got = simulate(market, spec)
    quantum = Fraction(1, 10 ** Money.of(instrument(market)).digits)
    fills = got.fills.to_dicts()
    for row in got.state.unique("recv_ns", keep="last").to_dicts():
        done = [f for f in fills if f["recv_ns"] <= row["recv_ns"]]
        paid = sum(f["side"] * exact(f["price"]) * exact(f["qty"]) + exact(f["fee"]) for f in done)
        assert abs(exact(row["cash"]) - (exact(spec.initial_cash) - paid)) < quantum * (len(done) + 1)
        held = exact(spec.initial_inventory) + sum(f["side"] * exact(f["qty"]) for f in done)
        assert row["inventory"] == pytest.approx(float(held), rel=1e-12, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(case=cases(60), slow=st.sampled_from([0, 20, 900]), jitter=st.sampled_from(["none", "exponential:200"]))
def test_whatever_the_strategy_has_not_heard_of_yet_no_account_is_overdrawn_and_no_cap_is_passed(case, slow, jitter):
    market, spec = case
    spec = replace(spec, response_latency_ms=slow, latency_jitter=jitter)
    spot = simulate(market, replace(spec, account="spot", leverage=0.0)).state
    assert spot["cash"].min() >= 0
    assert spot["inventory"].min() >= 0
    capped = replace(spec, max_inventory=spec.max_inventory or 2 * spec.qty)
    most = simulate(market, capped).state["inventory"].abs().to_numpy().max()
    assert most <= max(capped.max_inventory, spec.initial_inventory) * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(case=cases(60), limit=st.integers(1, 6))
def test_no_ten_seconds_see_more_orders_than_the_limit(case, limit):
    market, spec = case
    got = simulate(market, replace(spec, orders_per_10s=limit, requote_interval_ms=1))
    sent = got.orders.filter(pl.col("action") == "PLACE")["recv_ns"].to_numpy()
    for ns in sent:
        assert ((sent > ns - 10 * S) & (sent <= ns)).sum() <= limit


@st.composite
def single(draw: st.DrawFn) -> tuple[Market, BacktestSpec, Script]:
    """One quote a side, sent at one frame at or behind the touch, and cancelled at a later one."""
    market, spec = draw(cases(60))
    n = len(market.frames)
    start = draw(st.integers(0, max(n // 2, 0)))
    end = draw(st.integers(start, n))
    bid, ask, decide = np.zeros(n, np.int64), np.zeros(n, np.int64), np.isin(np.arange(n), [start, end])
    frame = market.frames[start]
    bid[start], ask[start] = max(frame.bid - draw(st.integers(0, 3)), 1), frame.ask + draw(st.integers(0, 3))
    spec = replace(
        spec, account="margin", leverage=0.0, max_inventory=None, post_only=True, time_in_force="GTC",
        orders_per_10s=0, size_to_balance=False, ttl_ms=0,
    )  # fmt: skip
    return market, spec, Script(decide, bid, ask, np.full(n, layout.NEVER))


def filled(got: Result, order: int, lot: str) -> dict[int, int]:
    """Lots of an order by the time that they were filled."""
    made: dict[int, int] = {}
    for ns, qty in got.fills.filter(pl.col("order_id") == order).select("recv_ns", "qty").iter_rows():
        made[ns] = made.get(ns, 0) + round(exact(qty) / Fraction(lot))
    return made


def refused(got: Result) -> set[int]:
    return set(got.orders.filter(pl.col("action") == "REJECT")["order_id"])


@settings(max_examples=40, deadline=None)
@given(case=single(), entry=st.sampled_from([0, 1, 40, 400]), cancel=st.sampled_from([0, 1, 40, 400]))
def test_more_latency_never_gives_an_earlier_first_fill(case, entry, cancel):
    """Under every fill model, of the same order."""
    market, spec, script = case
    later = replace(
        spec,
        entry_latency_ms=spec.entry_latency_ms + entry,
        cancel_latency_ms=spec.cancel_latency_ms + cancel,
        latency_jitter="none",
    )
    spec = replace(spec, latency_jitter="none")
    one, two = simulate(market, spec, script=script), simulate(market, later, script=script)
    for order in (1, 2):
        if order in refused(one):
            continue
        ones, twos = (min(filled(got, order, market.lot), default=FAR) for got in (one, two))
        if entry == 0:  # it only lives longer
            assert twos <= ones
            assert ones in (FAR, twos)
        if cancel == 0:
            assert twos >= ones


@settings(max_examples=30, deadline=None)
@given(case=single())
def test_a_queue_fills_no_more_than_the_touch_and_through_no_more_than_a_queue(case):
    """At any time, of the same order."""
    market, spec, script = case
    made = []
    for reach in ("touch", "queue", "through"):
        fill = replace(spec.fill, model="trade_cross", reach=reach)
        made.append(simulate(market, replace(spec, fill=fill), script=script))
    for order in (1, 2):
        by_reach = [filled(got, order, market.lot) for got in made]
        for ns in {ns for found in by_reach for ns in found}:
            touch, queue, through = (sum(n for at, n in found.items() if at <= ns) for found in by_reach)
            assert through <= queue <= touch


# ---- single facts, by hand


def margin(**flags: object) -> BacktestSpec:
    given_flags = {"qty": 0.005, "account": "margin", "entry_latency_ms": 0, "cancel_latency_ms": 0, **flags}
    return BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=1.0), **{"maker_fee": 0.0, **given_flags})


def book(at_ms: int, seq: int, bid: int, lots: int = 5) -> Frame:
    return Frame(START + at_ms * MS, seq, 1, bid, lots, bid + 2, lots)


def test_a_queue_is_consumed_by_prints_and_only_what_is_left_of_one_fills():
    """Five stand before; 3 trade, 2 are left; 4 trade: 2 for them, 2 for the order; then all of it."""
    prints = [Print(START + i * MS, i, 9_999, lots) for i, lots in ((1, 3), (2, 4), (3, 9))]
    market = Market([book(0, 0, 9_999), book(10_000, 99, 9_999)], prints)
    got = simulate(market, margin(fill=FillSpec(reach="queue"), requote_interval_ms=10**6))
    assert got.fills.select("recv_ns", "qty").rows() == [(START + 2 * MS, 0.002), (START + 3 * MS, 0.003)]


def test_two_own_orders_behind_one_queue_share_what_a_print_leaves_of_it():
    """Ten are sold to a level of five others and twice five own: five are left for the own ones, not ten."""
    n, lines = 3, np.array([True, True, False])
    frames = [book(0, 0, 9_999), book(10, 1, 9_999), book(10_000, 99, 9_999)]
    market = Market(frames, [Print(START + 20 * MS, 5, 9_999, 10)])
    script = Script(lines, np.array([9_999, 9_999, 0]), np.zeros(n, np.int64), np.full(n, layout.NEVER))
    spec = margin(fill=FillSpec(reach="queue"), cancel_latency_ms=700)
    got = simulate(market, spec, script=script)
    assert got.fills.select("order_id", "qty").rows() == [(1, 0.005)]
    small = simulate(market, replace(spec, qty=0.003), script=script)
    assert small.fills.select("order_id", "qty").rows() == [(1, 0.003), (2, 0.002)]


@pytest.mark.parametrize(("cancels", "ahead"), [("behind", 4), ("proportional", 2)])
def test_what_is_cancelled_leaves_from_behind_or_in_proportion(cancels, ahead):
    """Eight shown, of which four trade; then two of the four others are cancelled, and three more join behind."""
    prints = [Print(START + 5 * MS, 1, 9_999, 4), Print(START + 30 * MS, 4, 9_999, 5)]
    market = Market([book(0, 0, 9_999, 8), book(10, 2, 9_999, 2 if ahead == 2 else 4), book(20, 3, 9_999, 7),
                     book(9_000, 9, 9_999)], prints)  # fmt: skip
    spec = margin(fill=FillSpec(reach="queue", queue_cancels=cancels), requote_interval_ms=10**6)
    assert simulate(market, spec).fills["qty"].to_list() == [pytest.approx((5 - ahead) / 1000)]


def test_an_order_whose_end_is_not_known_of_holds_its_level_and_its_cancel_is_rejected():
    frames = [book(0, 0, 9_999), book(300, 2, 9_999), book(600, 3, 9_989), book(900, 4, 9_989), book(9_000, 9, 9_989)]
    market = Market(frames, [Print(START + 10 * MS, 1, 9_999, 5)])
    got = simulate(market, margin(response_latency_ms=700, ttl_ms=20_000))
    steps = got.orders.filter(pl.col("order_id") == 1)
    assert steps.select("recv_ns", "action", "status", "reject_reason").rows() == [
        (START, "PLACE", "OPEN", ""),
        (START + 10 * MS, "FILL", "OPEN", ""),
        (START + 10 * MS, "CLOSE_FILLED", "FILLED", ""),
        (START + 600 * MS, "CANCEL_REJECT", "FILLED", "order_is_gone"),
    ]
    assert steps["expire_recv_ns"].to_list() == [START + 20_000 * MS] * 4
    assert steps["cancel_effective_ns"].null_count() == 4
    bids = got.orders.filter((pl.col("side") == 1) & (pl.col("action") == "PLACE"))
    assert bids["recv_ns"].to_list() == [START, START + 600 * MS]


def test_the_last_row_of_state_has_the_last_mid_even_if_a_fill_shares_its_instant():
    end = START + 400 * MS
    frames = [book(0, 0, 9_999), Frame(end, 3, 1, 10_009, 5, 10_011, 5)]
    got = simulate(Market(frames, [Print(end, 2, 9_999, 5)]), margin(requote_interval_ms=10**6))
    assert got.state.select("recv_ns", "mid", "inventory").rows()[-2:] == [(end, 100.0, 0.005), (end, 100.1, 0.005)]


def test_a_taker_pays_each_levels_price_and_an_order_that_rested_gets_its_own():
    deep = ((9_997, 4, 10_002, 3), (9_990, 9, 10_004, 9))
    frames = [
        Frame(START, 0, 1, 9_999, 5, 10_001, 5, deep),
        Frame(START + 10 * MS, 1, 1, 9_990, 5, 9_996, 2, ((9_980, 1, 9_998, 2), (9_970, 1, 10_003, 9))),
        Frame(START + 9_000 * MS, 2, 1, 9_990, 5, 9_996, 2, ((9_980, 1, 9_998, 2), (9_970, 1, 10_003, 9))),
    ]
    taking = margin(post_only=False, entry_latency_ms=50, fill=FillSpec(book_levels=3), requote_interval_ms=10**6)
    got = simulate(Market(frames, []), taking)
    assert got.fills.select("price", "qty", "reason").rows() == [(99.96, 0.002, "taker"), (99.98, 0.002, "taker")]
    resting = replace(taking, entry_latency_ms=0, fill=FillSpec("price_cross", book_levels=3))
    got = simulate(Market(frames[:2], []), resting)
    assert got.fills.select("price", "qty", "reason").rows() == [(99.99, 0.002, "price_cross")] * 2
    touch = simulate(Market(frames[:2], []), replace(resting, fill=FillSpec("price_cross")))
    assert touch.fills["qty"].to_list() == [0.002]


def test_a_leverage_bounds_the_position_and_never_keeps_one_from_being_reduced():
    spec = margin(qty=1.0, initial_cash=100.0, leverage=1.5)
    sent = simulate(still(1), spec).orders.filter(pl.col("action") == "PLACE")
    assert sent["side"].to_list() == [1, -1]  # 100 of 150
    got = simulate(still(1), replace(spec, leverage=0.9)).orders
    assert set(got["reject_reason"]) == {"insufficient_margin"}
    bankrupt = simulate(still(1), replace(spec, initial_cash=50.0, initial_inventory=-1.0)).orders
    assert bankrupt.select("side", "action", "reject_reason").rows() == [
        (1, "PLACE", ""), (-1, "SKIP", "insufficient_margin"),
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    tick_lot=st.sampled_from([("0.00000001", "1"), ("0.01", "0.001"), ("0.00000001", "0.1")]),
    bid=st.integers(1, 40),
    cash=st.integers(0, 3_000),
    held=st.integers(0, 60),
    fee=st.sampled_from([0.0, 0.001, 0.1]),
)
def test_an_order_sized_to_the_balance_is_the_largest_that_can_be_paid(tick_lot, bid, cash, held, fee):
    """And none is refused where one lot could be paid or is held."""
    market = replace(still(1, bid=bid, ask=bid + 2), tick=tick_lot[0], lot=tick_lot[1])
    rules = Instrument("synth", "TEST", *tick_lot)
    money, lot = Money.of(rules), Fraction(tick_lot[1])
    cash *= money.per_tick_lot
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=1.0), qty=float(50 * lot), initial_cash=money.amount(cash),
        initial_inventory=float(held * lot), size_to_balance=True, maker_fee=fee, taker_fee=0.0,
    )  # fmt: skip
    assume(Fraction(repr(spec.initial_cash)) * 10**money.digits == cash)

    def needed(n: int) -> int:
        notional = bid * n * money.per_tick_lot
        return notional + int(notional * Fraction(repr(fee)) + Fraction(1, 2)) + n

    can = {1: max((n for n in range(51) if needed(n) <= cash), default=0), -1: min(held, 50)}
    sent = simulate(market, spec).orders.filter((pl.col("recv_ns") == START) & (pl.col("action") == "PLACE"))
    found = {side: round(exact(qty) / lot) for side, qty in sent.select("side", "qty").iter_rows()}
    assert found == {side: n for side, n in can.items() if n}


def test_an_order_that_is_hardly_ever_filled_is_not_filled_before_time_began():
    """A wait of 260 years, added to a time of today, is beyond what whole numbers of 64 bits count."""
    seconds = 8.2e9
    k = math.log(60 * seconds / -math.log(splitmix64(42, 1))) / 49
    market = replace(still(1), segments=((0, FAR, 60.0, k),))
    spec = replace(margin(fill=FillSpec("poisson")), quote=QuoteSpec("ladder", deltas=(49.0,)))
    assert simulate(market, spec).fills.is_empty()


def test_levels_below_the_lowest_price_are_refused_and_not_negative():
    market = still(1, bid=2, ask=4)
    got = simulate(market, replace(margin(), quote=QuoteSpec("fixed_spread", half_spread_ticks=1.0, levels=6)))
    bids = got.orders.filter(pl.col("side") == 1)
    assert bids["price"].to_list() == [0.02, 0.01, 0.0, 0.0, 0.0, 0.0]
    assert bids["action"].to_list() == ["PLACE"] * 2 + ["SKIP"] * 4


def test_a_tape_may_have_more_levels_than_fills_look_at_but_not_fewer():
    market, spec = still(1), margin(fill=FillSpec("price_cross", book_levels=3))
    with pytest.raises(ValueError, match="fewer than 3 levels"):
        run(tape(market, 2), spec, intensity(market))
    run(tape(market, 5), spec, intensity(market))
