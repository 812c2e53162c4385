"""Profit in parts: by hand, against a twin in fractions, and summing up exactly in runs of the real engine."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import ATTRIBUTION, COMPONENTS, FILLS, HORIZONS_S, MARKOUTS, STATE
from mmlab.report.attribution import Mids, Parts, attribution, check_sum, markouts
from mmlab.report.metrics import metrics
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.markets import CONSTANT, busy, cases, instrument, intensity, tape

S = 1_000_000_000


def table(contract, rows):
    return contract.check(pl.DataFrame(rows, schema=contract.schema, orient="row"))


def values(frame: pl.DataFrame, horizon_s: int, side: str) -> list[float]:
    chosen = frame.filter(horizon_s=horizon_s, side=side)
    assert chosen["component"].to_list() == list(COMPONENTS)
    return chosen["value"].to_list()


# A mid of 100, 101 from second 4, 99 from second 8, 104 from second 40; the run ends at second 50.
MIDS = Mids(np.array([0, 4, 8, 40]) * S, np.array([20_000, 20_200, 19_800, 20_800]))
BOUGHT_AND_SOLD = table(
    FILLS,
    [
        (2 * S, 1, 1, 99.5, 0.02, 0.002, "maker", "trade_cross", 100.0),
        (7 * S, 2, -1, 100.5, 0.01, -0.001, "maker", "trade_cross", 101.0),
    ],
)
HELD = table(
    STATE,
    [
        (0, 1.0, 10.0, 100.0, 110.0, 0, None, None),
        (50 * S, 1.01, 9.014, 104.0, 114.054, 0, None, None),
    ],
)


def test_two_fills_and_an_opening_position_by_hand():
    """One unit held from 100 to 104; bought 0.02 half below the mid, sold 0.01 half below it too."""
    got = attribution(BOUGHT_AND_SOLD, HELD, MIDS, Instrument("v", "S", "0.01", "0.001"))
    for horizon_s, bought, sold in (
        (1, [0.01, 0.0, 0.08, -0.002], [-0.005, 0.02, -0.05, 0.001]),  # the mid of second 8 is in force at 7 + 1
        (5, [0.01, 0.02, 0.06, -0.002], [-0.005, 0.02, -0.05, 0.001]),
        (30, [0.01, -0.02, 0.1, -0.002], [-0.005, 0.02, -0.05, 0.001]),
        (60, [0.01, 0.08, 0.0, -0.002], [-0.005, -0.03, 0.0, 0.001]),  # both end with the run
    ):
        assert values(got, horizon_s, "bid") == pytest.approx(bought)
        assert values(got, horizon_s, "ask") == pytest.approx(sold)
        assert values(got, horizon_s, "opening") == [0.0, 0.0, 4.0, 0.0]
        assert sum(values(got, horizon_s, "both")) == pytest.approx(114.054 - 110)
    counted = got.filter(component="fees").select("horizon_s", "side", "fills", "fills_cut").rows()
    assert counted == [
        (h, side, n, n if h == 60 else 0)
        for h in HORIZONS_S
        for side, n in (("bid", 1), ("ask", 1), ("opening", 0), ("both", 2))
    ]


def test_markouts_by_hand():
    """In quote currency for one unit; what the run did not live to see is null."""
    got = markouts(BOUGHT_AND_SOLD, HELD, MIDS, Instrument("v", "S", "0.01", "0.001"))
    names = ("spread_earned", *(f"markout_{h}s" for h in HORIZONS_S))
    assert got.select(names).rows() == [(0.5, 0.0, 1.0, -1.0, None), (-0.5, 2.0, 2.0, 2.0, None)]
    assert got.select(FILLS.empty().drop("fee", "liquidity", "reason").columns).equals(
        BOUGHT_AND_SOLD.drop("fee", "liquidity", "reason")
    )


def test_a_markout_at_the_last_instant_is_known():
    """A fill exactly one horizon before the end is not cut."""
    fills = BOUGHT_AND_SOLD.with_columns(recv_ns=pl.col("recv_ns") + 13 * S)  # at 15 and 20 seconds
    got = markouts(fills, HELD, MIDS, Instrument("v", "S", "0.01", "0.001"))
    assert got["markout_30s"].to_list() == [4.0, -3.0]
    cut = attribution(fills, HELD, MIDS, Instrument("v", "S", "0.01", "0.001")).filter(side="both", component="fees")
    assert cut["fills_cut"].to_list() == [0, 0, 0, 2]


def exact(decimal: float) -> Fraction:
    return Fraction(Decimal(repr(decimal)))


def twin(market, fills, state) -> dict[tuple[int, str], list[Fraction | int]]:
    """One fill at a time, in fractions of quote currency, from the printed tables and the market's own frames."""
    tick = Fraction(market.tick)
    first, last = (exact(state["mid"][i]) for i in (0, -1))
    end, parts = state["recv_ns"][-1], {}
    for h in HORIZONS_S:
        for side in ("bid", "ask", "opening", "both"):
            parts[h, side] = [Fraction(0)] * 4 + [0, 0]
        for own in ("opening", "both"):
            parts[h, own][2] += exact(state["inventory"][0]) * (last - first)
        for fill in fills.iter_rows(named=True):
            until, price, mid, qty, fee = (
                fill["recv_ns"] + h * S,
                *(exact(fill[n]) for n in ("price", "mid", "qty", "fee")),
            )
            cut = until > end
            seen = [f for f in market.frames if f.ns <= until][-1]
            later = last if cut else (seen.bid + seen.ask) * tick / 2
            moves = (mid - price, later - mid, last - later)
            for own in ("bid" if fill["side"] == 1 else "ask", "both"):
                for i, move in enumerate(moves):
                    parts[h, own][i] += fill["side"] * move * qty
                parts[h, own][3] -= fee
                parts[h, own][4] += 1
                parts[h, own][5] += cut
    return parts


def check(market, spec: BacktestSpec) -> pl.DataFrame:
    """Run the engine, and hold both tables against the twin and the account; returns the fills."""
    played, rules = tape(market), instrument(market)
    found = run(played, spec, intensity(market))
    mids = Mids(played.frame_ns, played.bid + played.ask)
    got = ATTRIBUTION.check(attribution(found.fills, found.state, mids, rules))
    figures = dict(metrics(found.orders, found.fills, found.state, rules).select("metric", "value").iter_rows())
    expected = twin(market, found.fills, found.state)
    change = exact(found.state["mtm_value"][-1]) - exact(found.state["mtm_value"][0])
    for (h, side), (*parts, fills, cut) in expected.items():
        assert values(got, h, side) == [float(part) for part in parts]
        assert set(got.filter(horizon_s=h, side=side).select("fills", "fills_cut").rows()) == {(fills, cut)}
        if side == "both":
            assert sum(parts) == change
            assert float(sum(parts)) == figures["pnl_total"]
            assert sum(parts[:3]) == sum(sum(expected[h, own][:3]) for own in ("bid", "ask", "opening"))
    check_markouts(market, found.fills, found.state, MARKOUTS.check(markouts(found.fills, found.state, mids, rules)))
    return found.fills


def check_markouts(market, fills, state, got) -> None:
    for fill, row in zip(fills.iter_rows(named=True), got.iter_rows(named=True), strict=True):
        assert all(row[name] == fill[name] for name in ("recv_ns", "order_id", "side", "price", "qty", "mid"))
        assert row["spread_earned"] == float(fill["side"] * (exact(fill["mid"]) - exact(fill["price"])))
        for h in HORIZONS_S:
            until = fill["recv_ns"] + h * S
            seen = [f for f in market.frames if f.ns <= until][-1]
            move = (seen.bid + seen.ask) * Fraction(market.tick) / 2 - exact(fill["mid"])
            assert row[f"markout_{h}s"] == (float(fill["side"] * move) if until <= state["recv_ns"][-1] else None)


@settings(max_examples=48)
@given(cases())
def test_the_parts_add_up_to_the_profit_in_every_run(case):
    """Whatever the market, the strategy, the account and the fees: exactly, at every horizon."""
    check(*case)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", ["trade_cross", "poisson"])
def test_the_parts_add_up_in_long_runs_with_many_fills(seed, model):
    """Two minutes, so that every horizon ends within the run for some fills and after it for others."""
    market = replace(busy(seed, 3_000), tick="0.01", lot="0.000001")
    market = replace(market, frames=[replace(f, bid=f.bid - 1) for f in market.frames], segments=CONSTANT)
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=1.5), FillSpec(model), qty=0.000007, initial_inventory=0.000021,
        account="margin", maker_fee=0.0003, taker_fee=0.0007, post_only=seed % 2 == 0, entry_latency_ms=40 * (seed % 3),
        cancel_latency_ms=100, requote_interval_ms=50,
    )  # fmt: skip
    fills = check(market, spec)
    assert fills.height > 50
    span = market.frames[-1].ns - fills["recv_ns"].to_numpy()
    assert span.min() < 5 * S
    assert span.max() > 60 * S


def test_a_run_without_fills_has_its_opening_position_only():
    """All of it is inventory, and there is no markout."""
    rules = Instrument("v", "S", "0.01", "0.001")
    state = HELD.with_columns(inventory=pl.lit(-2.0))
    got = attribution(FILLS.empty(), state, MIDS, rules)
    assert values(got, 5, "both") == values(got, 5, "opening") == [0.0, 0.0, -8.0, 0.0]
    assert markouts(FILLS.empty(), state, MIDS, rules).schema == MARKOUTS.schema


def test_parts_that_miss_half_a_quantum_are_a_fault():
    """No table is written that does not add up."""
    check_sum(Parts((5, -3, 2, -1)), 3)
    with pytest.raises(DataError, match="add up to 3 half quanta, and it is 4"):
        check_sum(Parts((5, -3, 2, -1)), 4)
