"""Exposure of own orders equals the obvious loop on real backtests, and gives back the intensity behind the fills."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib import orders as module
from mmlab.calib.orders import EXPOSED, Tally, exposures, tally, without_mid
from mmlab.core.errors import DataError, TableError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.sim.run import Result, run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference import orders as slow
from reference.backtest import Market
from reference.markets import MS, START, busy, cases, instrument, intensity, still, tape

INSTRUMENT = Instrument("synth", "TEST", "0.01", "0.001")
SUMS = ("exposure_ns", "hits", "lots", "orders")


def simulate(market: Market, spec: BacktestSpec) -> Result:
    return run(tape(market), spec, intensity(market))


def arrays(holes: slow.Holes) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([hole[i] for hole in holes], np.int64) for i in (0, 1))


def narrow(got: Result) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The columns that are needed, and no others."""
    return (
        got.orders.select(module.ORDER_COLUMNS),
        got.fills.select(module.FILL_COLUMNS),
        got.state.select(module.STATE_COLUMNS),
    )


def check(market: Market, got: Result, holes: slow.Holes, bucket_ns: int, low: float, high: float | None) -> Tally:
    """Fast and slow agree on every row and on every cell; returns the fast tally."""
    tables = narrow(got)
    fast = exposures(*tables, instrument(market), arrays(holes))
    rows, unknown = slow.exposures(*tables, market.tick, market.lot, holes)
    assert fast.schema == EXPOSED
    names = [name for name in EXPOSED if name != "holes_ns"]
    assert fast.select(names).to_dicts() == [{name: row[name] for name in names} for row in rows]
    assert without_mid(*tables) == unknown
    for row, mine in zip(rows, fast["holes_ns"].to_list(), strict=True):
        edges = [row["active_ns"], *(mine or []), row["end_ns"]]
        assert [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b] == row["known"]
    # from before the run, so that the last hit lies within a bucket
    origin = START - bucket_ns // 3
    last = max(int(got.state["recv_ns"][-1]), origin)
    n_buckets = (last - origin) // bucket_ns + 1
    where = {"origin_ns": origin, "bucket_ns": bucket_ns, "n_buckets": n_buckets}
    summed = tally(fast, min_delta_ticks=low, max_delta_ticks=high, **where)
    wanted = {
        row["distance2"] / 2 for row in rows if low <= row["distance2"] / 2 <= (math.inf if high is None else high)
    }
    assert list(summed.deltas) == sorted(wanted)
    assert all(getattr(summed, name).shape == (n_buckets, 2, len(wanted)) for name in SUMS)
    for d, delta in enumerate(summed.deltas):
        for s, side in enumerate((1, -1)):
            for b in {*range(min(n_buckets, 30)), n_buckets - 1}:
                span = (origin + b * bucket_ns, origin + (b + 1) * bucket_ns)
                cell = tuple(getattr(summed, name)[b, s, d] for name in SUMS)
                assert cell == slow.cell(rows, side, Fraction(delta), span)
    kept = fast.filter(pl.col("distance2") / 2 >= low, pl.col("distance2") / 2 <= (math.inf if high is None else high))
    assert summed.exposure_ns.sum() == kept["exposure_ns"].sum()
    assert summed.hits.sum() == kept["hit"].sum()
    assert summed.lots.sum() == kept["lots"].sum()
    assert summed.orders.sum() == kept.height
    return summed


@st.composite
def holes_of(draw, got: Result) -> slow.Holes:
    """Holes that start and end at, just before and just after the run's own instants; some touch, some are empty."""
    times = sorted(
        {*got.orders["recv_ns"], *got.orders["active_recv_ns"], *got.state["recv_ns"], *got.fills["recv_ns"]}
    )
    near = st.builds(lambda ns, off: ns + off, st.sampled_from(times), st.sampled_from([-1, 0, 0, 1, 3 * MS]))
    edges = sorted(draw(st.lists(near, max_size=8)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=100, deadline=None)
@given(
    case=cases(60),
    data=st.data(),
    bucket_ns=st.sampled_from([13 * MS + 7, 100 * MS, 1_000 * MS, 60_000 * MS]),
    low=st.sampled_from([0.0, 0.5, 1.0, -5.0]),
    high=st.sampled_from([None, 0.5, 2.0, 2.5, 50.0]),
)
def test_exposures_and_sums_of_any_backtest_equal_the_obvious_loop(case, data, bucket_ns, low, high):
    market, spec = case
    got = simulate(market, spec)
    check(market, got, data.draw(holes_of(got)), bucket_ns, low, high)


@settings(max_examples=24, deadline=None)
@given(case=cases(60), keep=st.integers(0, 30))
def test_a_state_that_starts_late_leaves_orders_without_a_mid_and_counts_them(case, keep):
    market, spec = case
    got = simulate(market, spec)
    late = replace(got, state=got.state.tail(keep + 1))
    check(market, late, [], 1_000 * MS, 0.0, None)


def quotes(half: float, fill: FillSpec | None = None, **flags: Any) -> BacktestSpec:
    flags = {"qty": 0.005, "account": "margin", "maker_fee": 0.0, "taker_fee": 0.0, **flags}
    return BacktestSpec(QuoteSpec("fixed_spread", half_spread_ticks=half), fill or FillSpec(), **flags)


BUSY = {
    "partial": quotes(2.0, requote_interval_ms=50, entry_latency_ms=30, cancel_latency_ms=300),
    "taking": quotes(0.0, post_only=False, entry_latency_ms=70),
    "expiring": quotes(2.5, FillSpec("poisson"), ttl_ms=400, cancel_latency_ms=100),
    "through": quotes(1.0, FillSpec(reach="through"), ttl_ms=200, requote_interval_ms=100),
}


@pytest.mark.parametrize("name", BUSY)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_busy_market_equals_the_obvious_loop_and_shows_every_end(name, seed):
    market = busy(seed)
    got = simulate(market, BUSY[name])
    holes = [(START + i * 3_000 * MS, START + i * 3_000 * MS + 700 * MS) for i in range(9)]
    summed = check(market, got, holes, 5_000 * MS, 0.0, None)
    assert summed.hits.sum() > 10
    fast = exposures(got.orders, got.fills, got.state, instrument(market), arrays(holes))
    ends = {"fill", "cancel"} | ({"expire"} if BUSY[name].ttl_ms else set())
    assert ends <= set(fast["end_reason"])
    assert fast.filter(~pl.col("hit"), pl.col("end_reason") == "fill").height > 0
    assert fast["holes_ns"].drop_nulls().len() > 5
    if name == "partial":
        assert got.fills.height > got.fills["order_id"].n_unique()
    if name == "taking":
        took = got.fills.filter(pl.col("liquidity") == "taker")["order_id"].unique()
        assert took.len() > 5
        assert not fast["order_id"].is_in(took.implode()).any()


@settings(max_examples=32, deadline=None)
@given(case=cases(60))
def test_an_order_ends_when_the_backtest_says_that_it_did(case):
    market, spec = case
    got = simulate(market, spec)
    fast = exposures(got.orders, got.fills, got.state, instrument(market))
    last = got.state["recv_ns"][-1]
    for row in fast.filter(pl.col("end_ns") < last).to_dicts():
        action = {"fill": "FILL", "cancel": "CANCEL_ACK", "expire": "EXPIRE"}[row["end_reason"]]
        steps = got.orders.filter(pl.col("order_id") == row["order_id"], pl.col("action") == action)
        assert steps["recv_ns"][0] == row["end_ns"]


# ---- the rate that made the fills


@pytest.mark.parametrize("bid", [9_999, 9_998], ids=["whole", "half"])
@pytest.mark.parametrize("ttl_ms", [0, 700])
def test_poisson_fills_on_a_still_book_give_back_the_intensity_that_made_them(bid, ttl_ms):
    """Within 3 standard errors at each distance, however the orders end; nobody told it A and k."""
    A, k = 1.5, 0.25
    market = still(8_000, bid=bid)
    for half in (1.0, 2.0, 4.0, 7.0):
        spec = quotes(half, FillSpec("poisson", seed=11), ttl_ms=ttl_ms, entry_latency_ms=50)
        got = simulate(market, spec)
        fast = exposures(got.orders, got.fills, got.state, instrument(market))
        summed = tally(
            fast, min_delta_ticks=0, max_delta_ticks=None, origin_ns=START, bucket_ns=9_000_000 * MS, n_buckets=1
        )
        assert summed.deltas == (half + (0.5 if bid == 9_998 else 0.0),)
        rate = summed.hits.sum() / (summed.exposure_ns.sum() / 1e9)
        assert summed.hits.sum() > 500
        assert rate == pytest.approx(A * math.exp(-k * summed.deltas[0]), rel=3 / math.sqrt(summed.hits.sum()))


# ---- single facts, by hand


def order(number: int, action: str = "PLACE", at: int = 0, **more: Any) -> dict[str, Any]:
    """A step of a buy of 0.005 at 99.98, active after 10 ns, GTC."""
    return {
        "recv_ns": at, "order_id": number, "action": action, "status": "OPEN", "side": 1, "price": 99.98, "qty": 0.005,
        "remaining_qty": 0.005, "active_recv_ns": 10, "expire_recv_ns": None, "cancel_req_ns": None,
        "cancel_effective_ns": None, "reject_reason": "", "cancel_reason": "", **more,
    }  # fmt: skip


def fill(number: int, at: int, qty: float = 0.005, **more: Any) -> dict[str, Any]:
    return {
        "recv_ns": at, "order_id": number, "side": 1, "price": 99.98, "qty": qty, "fee": 0.0, "liquidity": "maker",
        "reason": "trade_cross", "mid": 100.0, **more,
    }  # fmt: skip


def moment(at: int, mid: float = 100.0) -> dict[str, Any]:
    return {
        "recv_ns": at, "inventory": 0.0, "cash": 0.0, "mid": mid, "mtm_value": 0.0, "open_orders": 0, "bid_px": None,
        "ask_px": None,
    }  # fmt: skip


def tables(
    orders: list[dict[str, Any]], fills: list[dict[str, Any]] | None = None, state: list[dict[str, Any]] | None = None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tables as a backtest leaves them; the mid is 100 from 0 on, and the run ends at 1000."""
    state = [moment(0), moment(1000)] if state is None else state
    return tuple(
        table.check(pl.DataFrame(rows, schema=table.schema))
        for table, rows in ((ORDERS, orders), (FILLS, fills or []), (STATE, state))
    )


def exposed(*args: Any, holes: slow.Holes = ()) -> pl.DataFrame:
    return exposures(*tables(*args), INSTRUMENT, arrays(holes))


def row(*args: Any, holes: slow.Holes = ()) -> dict[str, Any]:
    (only,) = exposed(*args, holes=holes).to_dicts()
    return only


def sums(frame: pl.DataFrame, **options: Any) -> Tally:
    spans = {"min_delta_ticks": 0, "max_delta_ticks": None, "origin_ns": 0, "bucket_ns": 100, "n_buckets": 11}
    return tally(frame, **{**spans, **options})


def test_parts_of_a_fill_count_once_with_the_lots_of_the_first_instant():
    fills = [fill(1, 60, 0.001), fill(1, 60, 0.002), fill(1, 70, 0.001), fill(1, 90, 0.001)]
    got = row([order(1)], fills)
    assert (got["hit"], got["hit_ns"], got["lots"]) == (True, 60, 3)
    assert (got["end_ns"], got["exposure_ns"], got["end_reason"]) == (60, 50, "fill")
    summed = sums(exposed([order(1)], fills))
    assert (summed.hits.sum(), summed.lots.sum(), summed.orders.sum()) == (1, 3, 1)


def test_the_time_to_live_ends_the_exposure():
    got = row([order(1, expire_recv_ns=300), order(1, "EXPIRE", 300, expire_recv_ns=300)])
    assert (got["exposure_ns"], got["end_reason"], got["hit"], got["hit_ns"], got["lots"]) == (
        290,
        "expire",
        False,
        None,
        0,
    )


def test_an_order_stays_at_risk_until_its_cancel_takes_effect():
    asked = order(1, "CANCEL_REQ", 200, cancel_req_ns=200, cancel_effective_ns=225)
    got = row([order(1), asked])
    assert (got["exposure_ns"], got["end_reason"]) == (215, "cancel")
    assert row([order(1), asked], [fill(1, 224)])["end_reason"] == "fill"


def test_the_first_end_counts_and_a_cancel_goes_before_an_expiry_of_the_same_instant():
    def ended(expire: int, effective: int) -> tuple[int, str]:
        steps = [order(1, expire_recv_ns=expire), order(1, "CANCEL_REQ", 200, cancel_effective_ns=effective)]
        got = row(steps)
        return got["end_ns"], got["end_reason"]

    assert ended(300, 225) == (225, "cancel")
    assert ended(210, 225) == (210, "expire")
    assert ended(225, 225) == (225, "cancel")
    again = [order(1, "CANCEL_REQ", at, cancel_effective_ns=at + 25) for at in (200, 210)]
    assert row([order(1), *again])["end_ns"] == 225


def test_the_end_of_the_run_censors():
    asked = order(1, "CANCEL_REQ", 990, cancel_effective_ns=1_015)
    got = row([order(1, expire_recv_ns=5_000), asked])
    assert (got["end_ns"], got["exposure_ns"], got["end_reason"], got["hit"]) == (1000, 990, "end_of_run", False)


def test_an_order_that_never_became_active_is_none():
    early = [order(1, active_recv_ns=50), order(1, "CANCEL_REQ", 20, cancel_effective_ns=50)]
    assert exposed(early).is_empty()
    assert exposed([order(1, active_recv_ns=1000)]).is_empty()
    assert exposed([order(1, active_recv_ns=1010)]).is_empty()


def test_an_order_that_is_filled_as_it_becomes_active_is_a_hit_without_exposure():
    got = row([order(1)], [fill(1, 10)])
    assert (got["hit"], got["exposure_ns"]) == (True, 0)


def test_orders_that_were_refused_or_never_sent_are_none():
    refused = order(1, "REJECT", 10, status="REJECTED", reject_reason="post_only_would_cross")
    skipped = order(0, "SKIP", 0, status="SKIPPED", reject_reason="insufficient_cash")
    assert exposed([order(1), skipped, refused]).is_empty()


def test_an_order_that_took_on_arrival_is_left_out_with_what_rests_of_it():
    took = fill(1, 10, 0.002, liquidity="taker", reason="taker")
    assert exposed([order(1)], [took, fill(1, 10, 0.001), fill(1, 80, 0.002)]).is_empty()


@pytest.mark.parametrize(
    ("side", "price", "mid", "distance2"),
    [
        (1, 99.98, 100.0, 4),
        (1, 99.98, 100.005, 5),
        (-1, 100.01, 100.005, 1),
        (-1, 99.99, 100.005, -3),
        (1, 100.0, 100.0, 0),
    ],
)
def test_the_distance_is_signed_and_exact_in_half_ticks(side, price, mid, distance2):
    frame = exposed([order(1, side=side, price=price)], [], [moment(0, mid), moment(1000)])
    assert frame["distance2"].to_list() == [distance2]
    assert sums(frame).deltas == ((distance2 / 2,) if distance2 >= 0 else ())
    assert sums(frame, min_delta_ticks=-9).deltas == (distance2 / 2,)


def test_distances_that_no_double_holds_are_exact():
    """3.5 ticks of 0.1 at prices 0.1 to 29.9, where a floor of floats would often fall into the distance below."""
    coarse, numbers = Instrument("synth", "TEST", "0.1", "0.001"), range(1, 300)
    steps = [order(n, price=n / 10, active_recv_ns=10 * n) for n in numbers]
    state = [moment(10 * n, (2 * n + 7) / 20) for n in numbers]
    got = exposures(*tables(steps, [], [*state, moment(9_000)]), coarse)
    assert got["distance2"].to_list() == [7] * 299


def test_of_several_states_at_one_time_the_last_is_in_force():
    state = [moment(0, 101.0), moment(10, 102.0), moment(10, 100.0), moment(11, 103.0), moment(1000)]
    assert row([order(1)], [], state)["distance2"] == 4


def test_an_order_without_a_mid_is_left_out_and_counted():
    none = [order(3), order(3, "CANCEL_REQ", 5, cancel_effective_ns=10)]
    args = tables([order(1), order(2, active_recv_ns=20), *none], [], [moment(20), moment(1000)])
    assert exposures(*args, INSTRUMENT)["order_id"].to_list() == [2]
    assert without_mid(*args) == 1


def test_a_hole_is_no_exposure_and_a_fill_strictly_inside_is_no_hit():
    def seen(at: int) -> tuple[Any, ...]:
        got = row([order(1)], [fill(1, at)], holes=[(100, 200), (300, 310)])
        return got["exposure_ns"], got["hit"], got["hit_ns"], got["lots"], got["holes_ns"]

    assert seen(100) == (90, True, 100, 5, None)
    assert seen(101) == (90, False, None, 0, [100, 101])
    assert seen(199) == (90, False, None, 0, [100, 199])
    assert seen(200) == (90, True, 200, 5, [100, 200])
    assert seen(305) == (190, False, None, 0, [100, 200, 300, 305])
    assert seen(400) == (280, True, 400, 5, [100, 200, 300, 310])


def test_an_order_whose_whole_life_lies_in_a_hole_is_none():
    assert exposed([order(1, expire_recv_ns=300)], holes=[(10, 300)]).is_empty()
    assert exposed([order(1)], [fill(1, 10)], holes=[(9, 11)]).is_empty()


def test_a_hole_is_taken_from_the_buckets_it_lies_in():
    summed = sums(exposed([order(1)], [fill(1, 400)], holes=[(150, 320)]))
    assert summed.exposure_ns[:, 0, 0].tolist() == [90, 50, 0, 80, 0, 0, 0, 0, 0, 0, 0]
    assert summed.hits[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert not summed.exposure_ns[:, 1].any()


def test_an_order_that_ends_at_its_arrival_was_never_at_risk():
    """IOC: what it cannot take expires at once, without a time to live or a cancel; it is no order until the end."""
    end = order(1, "EXPIRE", 10, status="EXPIRED", cancel_reason="IOC")
    assert exposed([order(1), end]).is_empty()
    assert exposed([order(1), order(1, "EXPIRE", 300)])["exposure_ns"].to_list() == [290]


def test_a_rejected_cancel_and_the_rule_that_filled_change_nothing():
    """The venue had filled it before; by a book that crossed it is a hit as well as by a print."""
    late = order(1, "CANCEL_REJECT", 400, cancel_req_ns=400, reject_reason="order_is_gone")
    for reason in ("trade_cross", "poisson", "price_cross"):
        found = exposed([order(1), late], [fill(1, 300, reason=reason)])
        assert found.equals(exposed([order(1)], [fill(1, 300)]))
        assert found["hit"].to_list() == [True]


def test_both_sides_and_the_bounds_of_the_distance_are_inclusive():
    steps = [order(1), order(2, side=-1, price=100.03), order(3, price=99.99)]
    frame = exposed(steps, [fill(3, 50)])
    summed = sums(frame, min_delta_ticks=2, max_delta_ticks=3)
    assert summed.deltas == (2.0, 3.0)
    assert summed.exposure_ns.sum(axis=0).tolist() == [[990, 0], [0, 990]]
    assert summed.hits.sum() == 0
    assert sums(frame, min_delta_ticks=0.5, max_delta_ticks=1.5).hits[0].tolist() == [[1], [0]]


def test_no_orders_at_all_give_an_empty_tally():
    for state in ([moment(0), moment(1000)], []):
        frame = exposed([], [], state)
        assert frame.schema == EXPOSED
        assert frame.is_empty()
        assert without_mid(*tables([], [], state)) == 0
    summed = sums(frame)
    assert summed.deltas == ()
    assert all(getattr(summed, name).shape == (11, 2, 0) for name in SUMS)


@pytest.mark.parametrize(
    ("origin", "n", "covers"),
    [(0, 2, True), (11, 3, False), (10, 2, True), (0, 1, False), (-200, 3, False), (0, 3, True)],
)
def test_buckets_that_do_not_cover_the_orders_are_refused(origin, n, covers):
    """At risk from 10, filled at 150; a fill at the very end of the last bucket belongs to none."""
    frame = exposed([order(1)], [fill(1, 150)])
    if covers:
        assert sums(frame, origin_ns=origin, n_buckets=n).exposure_ns.sum() == 140
    else:
        with pytest.raises(ValueError, match="outside of the buckets"):
            sums(frame, origin_ns=origin, n_buckets=n)
    with pytest.raises(ValueError, match="outside of the buckets"):
        sums(frame, origin_ns=50, n_buckets=1)
    unfilled = exposed([order(1, expire_recv_ns=150)])
    assert sums(unfilled, origin_ns=50, n_buckets=1, min_delta_ticks=3).hits.size == 0
    assert sums(unfilled, bucket_ns=150, n_buckets=1).exposure_ns.sum() == 140
    with pytest.raises(ValueError, match="outside of the buckets"):
        sums(frame, bucket_ns=150, n_buckets=1)


def test_tables_that_do_not_belong_together_are_refused():
    late = [order(1), order(1, "CANCEL_REQ", 100, cancel_effective_ns=125)]
    for steps, fills, state, what in (
        ([order(1)], [fill(2, 50)], None, "order 2 was filled but never placed"),
        (late, [fill(1, 126)], None, "order 1 was filled before or after its life"),
        (late, [fill(1, 9)], None, "order 1 was filled before or after its life"),
        ([order(1)], [fill(1, 1001)], None, "order 1 was filled before or after its life"),
        ([order(1), order(1)], [], None, "several orders of one number"),
        ([order(1)], [], [], "no rows of state"),
    ):
        with pytest.raises(DataError, match=what):
            exposed(steps, fills, state)
    steps, fills, state = tables([order(1)], [fill(1, 50), fill(1, 60)])
    with pytest.raises(DataError, match="fills rows are not in time order"):
        exposures(steps, fills.reverse(), state, INSTRUMENT)
    with pytest.raises(DataError, match="state rows are not in time order"):
        exposures(steps, fills, state.reverse(), INSTRUMENT)


def test_what_is_off_its_grid_is_refused():
    for steps, fills, state in (
        ([order(1, price=99.985)], [], None),
        ([order(1)], [fill(1, 50, 0.0005)], None),
        ([order(1)], [], [moment(0, 100.0025), moment(1000)]),
    ):
        with pytest.raises(TableError, match="is not a multiple of the"):
            exposed(steps, fills, state)


@pytest.mark.parametrize("holes", [[(20, 10)], [(10, 30), (20, 40)], [(50, 60), (10, 20)]])
def test_holes_that_are_not_disjoint_and_ascending_are_refused(holes):
    with pytest.raises(ValueError, match="disjoint and ascending"):
        exposed([order(1)], holes=holes)
