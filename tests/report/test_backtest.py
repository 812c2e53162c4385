"""What the figures of a backtest show, against slow twins that go fill by fill, order by order, nanosecond by
nanosecond."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from mmlab.core.schemas import COMPONENTS, FILLS, HORIZONS_S, MARKOUTS, ORDERS, STATE
from mmlab.report.attribution import Mids, attribution, markouts
from mmlab.report.backtest import (
    MOST_FILLS,
    QUOTED,
    TO_CANCEL,
    TO_FILL,
    TO_VENUE,
    WIDTHS_S,
    blocks_of,
    busy_span,
    latency,
    markouts_by_horizon,
    parts_by_horizon,
    quoted_by_time,
    too_late,
    waits,
)
from mmlab.report.over_time import quoted
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.markets import CONSTANT, busy, instrument, intensity, tape

S = 1_000_000_000
SPEC = BacktestSpec(
    QuoteSpec("fixed_spread", half_spread_ticks=1.5), qty=0.000007, initial_inventory=0.000021, account="margin",
    maker_fee=0.0003, entry_latency_ms=40, cancel_latency_ms=300, requote_interval_ms=50,
    latency_jitter="lognormal:0.6",
)  # fmt: skip


@pytest.fixture(scope="module", params=["trade_cross", "poisson"])
def made(request) -> dict[str, pl.DataFrame]:
    """Tables of a run of two minutes with many fills, some of them partial or after a cancel was sent."""
    market = replace(busy(5, 3_000), tick="0.01", lot="0.000001", segments=CONSTANT)
    played, rules = tape(market), instrument(market)
    found = run(played, replace(SPEC, fill=FillSpec(request.param)), intensity(market))
    after = (found.fills, found.state, Mids(played.frame_ns, played.bid + played.ask), rules)
    return {
        "orders": found.orders, "fills": found.fills, "state": found.state, "attribution": attribution(*after),
        "markouts": markouts(*after),
    }  # fmt: skip


def test_the_small_table_of_parts_adds_up_at_every_horizon(made):
    got = parts_by_horizon(made["attribution"])
    assert got["horizon_s"].to_list() == list(HORIZONS_S)
    state = made["state"]
    earned = state["mtm_value"][-1] - state["mtm_value"][0]
    for row in got.iter_rows(named=True):
        rows = made["attribution"].filter(horizon_s=row["horizon_s"], side="both")
        assert [row[name] for name in COMPONENTS] == rows["value"].to_list()
        assert row["pnl_total"] == pytest.approx(earned, abs=1e-9)
        assert (row["fills"], row["fills_cut"]) == rows.select("fills", "fills_cut").row(0)


def exact(value: float) -> Fraction:
    return Fraction(repr(value))


def twin_mean(rows: list[dict], name: str) -> float:
    """Sum of qty * markout over sum of qty * mid, in fractions."""
    parts = sum(exact(r["qty"]) * exact(r[name]) for r in rows)
    return float(10_000 * parts / sum(exact(r["qty"]) * exact(r["mid"]) for r in rows))


def twin_interval(rows: list[dict], name: str, horizon_s: int, mean: float) -> tuple[float, float] | None:
    """Block by block: the score is what the block's markouts are more than the mean of its notional."""
    first, span = rows[0]["recv_ns"], rows[-1]["recv_ns"] - rows[0]["recv_ns"] + 1
    n = max(min(16, span // (2 * horizon_s * S)), 1)
    scores: dict[int, float] = {}
    for r in rows:
        block = (r["recv_ns"] - first) // -(-span // n)
        scores[block] = scores.get(block, 0.0) + r["qty"] * (10_000 * r[name] - mean * r["mid"])
    b = len(scores)
    if b < 8:
        return None
    whole = sum(r["qty"] * r["mid"] for r in rows)
    half = student.ppf(0.975, b - 1) * math.sqrt(sum(u * u for u in scores.values()) * b / (b - 1)) / whole
    return mean - half, mean + half


@pytest.mark.parametrize("side", [None, 1, -1])
def test_markouts_by_horizon_against_a_twin(made, side):
    """Mean, interval, quantiles, what is kept; fills that the end of the run cut are counted and left out."""
    chosen = [r for r in made["markouts"].iter_rows(named=True) if side in (None, r["side"])]
    seen_intervals = 0
    for got in markouts_by_horizon(made["markouts"], side).iter_rows(named=True):
        name = f"markout_{got['horizon_s']}s"
        rows = [r for r in chosen if r[name] is not None]
        assert (got["fills"], got["cut"]) == (len(rows), len(chosen) - len(rows))
        mean = twin_mean(rows, name)
        assert got["mean"] == pytest.approx(mean, rel=1e-9, abs=1e-12)
        kept = [{**r, "kept": r[name] + r["spread_earned"]} for r in rows]
        assert got["kept"] == pytest.approx(twin_mean(kept, "kept"), rel=1e-9)
        limits = twin_interval(rows, name, got["horizon_s"], mean)
        if limits is None:
            assert (got["low"], got["high"]) == (None, None)
        else:
            seen_intervals += 1
            assert (got["low"], got["high"]) == pytest.approx(limits, rel=1e-9)
        for percent in (5, 25, 50, 75, 95):
            at_or_below = [r for r in rows if 10_000 * r[name] / r["mid"] <= got[f"p{percent:02}"]]
            below = [r for r in at_or_below if 10_000 * r[name] / r["mid"] < got[f"p{percent:02}"]]
            whole = sum(r["qty"] * r["mid"] for r in rows)
            assert sum(r["qty"] * r["mid"] for r in at_or_below) >= whole * percent / 100 * (1 - 1e-9)
            assert sum(r["qty"] * r["mid"] for r in below) < whole * percent / 100
    assert seen_intervals == 2, "two minutes are long enough for 1 s and 5 s only"


def test_the_mean_markout_is_the_adverse_selection_of_the_fills_that_were_not_cut(made):
    """At a horizon whose cut fills are left out on both sides of the equation."""
    end = made["state"]["recv_ns"][-1]
    early = made["markouts"].filter(pl.col("recv_ns") + 5 * S <= end)
    got = markouts_by_horizon(early).filter(horizon_s=5).row(0, named=True)
    notional = (early["qty"] * early["mid"]).sum()
    late = made["markouts"].filter(pl.col("recv_ns") + 5 * S > end)
    moved = (late["qty"] * late["side"] * (made["state"]["mid"][-1] - late["mid"])).sum()
    adverse = made["attribution"].filter(horizon_s=5, side="both", component="adverse_selection")["value"][0]
    assert got["mean"] / 10_000 * notional == pytest.approx(adverse - moved, abs=1e-9)


def test_a_run_without_fills_has_markouts_of_nothing():
    got = markouts_by_horizon(MARKOUTS.empty())
    assert got["fills"].to_list() == [0, 0, 0, 0]
    assert got["mean"].null_count() == got["p50"].null_count() == 4


def test_blocks_are_long_against_the_horizon_and_cover_all_fills():
    ns = np.sort(np.random.default_rng(1).integers(0, 900 * S, 500))
    for horizon_s, n in ((1, 16), (5, 16), (30, 14), (60, 7)):
        blocks = blocks_of(ns, horizon_s)
        assert (blocks.min(), blocks.max()) == (0, n - 1)
        lengths = [np.ptp(ns[blocks == b]) for b in range(n)]
        assert max(lengths) <= 900 * S / n + 1
    assert blocks_of(np.array([5 * S]), 60).tolist() == [0]


def test_waits_order_by_order_against_a_twin(made):
    """And the counts: cancels of orders that were gone already took no effect, and are not among them."""
    venue, cancelled, filled = [], [], {}
    active = {}
    for row in made["orders"].iter_rows(named=True):
        if row["action"] == "PLACE":
            venue.append(row["active_recv_ns"] - row["recv_ns"])
            active[row["order_id"]] = row["active_recv_ns"]
        elif row["action"] == "CANCEL_REQ":
            cancelled.append(row["cancel_effective_ns"] - row["recv_ns"])
        elif row["action"] == "FILL" and row["order_id"] not in filled:
            filled[row["order_id"]] = row["recv_ns"] - active[row["order_id"]]
    got = waits(made["orders"], made["fills"])
    assert got[TO_VENUE].tolist() == venue
    assert got[TO_CANCEL].tolist() == cancelled
    assert got[TO_FILL].tolist() == list(filled.values())
    assert min(filled.values()) >= 0
    shown = latency(made["orders"], made["fills"])
    for row, ns in zip(shown.iter_rows(named=True), (venue, cancelled, list(filled.values())), strict=True):
        ms = sorted(wait / 1e6 for wait in ns)
        assert row["orders"] == len(ms)
        assert row["mean_ms"] == pytest.approx(sum(ms) / len(ms))
        for percent in (5, 25, 50, 75, 95, 99):
            assert row[f"p{percent:02}_ms"] == ms[-(-len(ms) * percent // 100) - 1]
        assert row["max_ms"] == ms[-1]


def test_fills_that_came_too_late_are_those_of_orders_whose_cancel_was_sent(made):
    """Row by row, as both may fall on one instant."""
    sent, late = set(), 0
    for row in made["orders"].iter_rows(named=True):
        if row["action"] == "CANCEL_REQ":
            sent.add(row["order_id"])
        late += row["action"] == "FILL" and row["order_id"] in sent
    assert too_late(made["orders"]) == (late, made["fills"].height)
    assert late


def test_no_orders_no_waits():
    assert latency(ORDERS.empty(), FILLS.empty()).is_empty()
    assert too_late(ORDERS.empty()) == (0, 0)


def state(ns: list[int], bid: list[float | None], ask: list[float | None]) -> pl.DataFrame:
    decimals = {"bid_px": pl.Float64, "ask_px": pl.Float64}
    one = pl.DataFrame({"recv_ns": ns, "bid_px": bid, "ask_px": ask}, schema_overrides=decimals)
    rest = {"inventory": 0.0, "cash": 0.0, "mid": 1.0, "mtm_value": 0.0, "open_orders": 0}
    return STATE.conform(one.with_columns(**{name: pl.lit(value) for name, value in rest.items()}))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), min_size=1, max_size=20), st.integers(1, 9))
def test_quoted_time_nanosecond_by_nanosecond(rows, bins):
    """The row in force at each nanosecond, counted in its bin."""
    ns = np.cumsum([wait for wait, _, _ in rows]).tolist()
    table = state(ns, [1.0 if b else None for _, b, _ in rows], [1.0 if a else None for _, _, a in rows])
    got = quoted_by_time(table, bins)
    kinds = {(True, True): "both", (True, False): "bid only", (False, True): "ask only", (False, False): "none"}
    assert got.height == min(bins, ns[-1] - ns[0])
    for row in got.iter_rows(named=True):
        held = dict.fromkeys(QUOTED, 0)
        for now in range(row["start_ns"], row["end_ns"]):
            at = max(i for i, then in enumerate(ns) if then <= now)
            held[kinds[rows[at][1:]]] += 1
        span = row["end_ns"] - row["start_ns"]
        assert {name: row[name] for name in QUOTED} == {name: n / span for name, n in held.items()}
    if got.height:
        assert (got["start_ns"][0], got["end_ns"][-1]) == (ns[0], ns[-1])
        assert got["start_ns"][1:].to_list() == got["end_ns"][:-1].to_list()


def test_quoted_time_agrees_with_the_metrics(made):
    shares = quoted_by_time(made["state"])
    held = shares["end_ns"] - shares["start_ns"]
    whole = {name: (shares[name] * held).sum() / held.sum() for name in QUOTED}
    found = quoted(made["state"])
    assert whole["both"] == pytest.approx(found["both"])
    assert whole["both"] + whole["bid only"] == pytest.approx(found["bid"])
    assert sum(whole.values()) == pytest.approx(1)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.sampled_from([5, 45, 400, 5_000]))
def test_the_close_look_is_the_busiest_stretch_of_the_widest_width_that_is_not_too_busy(seed, n, length_s):
    rng = np.random.default_rng(seed)
    first, last = 7 * S, 7 * S + length_s * S
    ns = np.sort(rng.integers(first, last + 1, n))
    start, end = busy_span(ns, first, last)
    assert first <= start < end <= last

    def most(width: int) -> int:
        return max(int(((ns >= a) & (ns <= a + width)).sum()) for a in ns)

    widths = [min(w, length_s) * S for w in WIDTHS_S]
    fitting = [w for w in widths if most(w) <= MOST_FILLS]
    assert end - start == (fitting[0] if fitting else widths[-1])
    assert ((ns >= start) & (ns <= end)).sum() == most(end - start)


def test_without_fills_the_close_look_is_the_middle_of_the_run():
    none = np.array([], np.int64)
    assert busy_span(none, 0, 1_000 * S) == (200 * S, 800 * S)
    assert busy_span(none, 5 * S, 8 * S) == (5 * S, 8 * S)
