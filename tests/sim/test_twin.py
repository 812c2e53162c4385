"""The compiled loop equals its slow twin row by row, and keeps its promises on any tape."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmlab.core.instrument import Instrument
from mmlab.sim import events
from mmlab.sim.intensity import FOREVER, Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.slow_backtest import Market, Twin

INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.001")
START = 1_000_000_000_000
MS = 1_000_000


@st.composite
def markets(draw, most: int = 40) -> Market:
    """Frames and prints on one sequence: equal times, epochs, jumps through own quotes, thin and thick prints."""
    ns, mid, epoch = START, 10_000, 1
    frames, prints = [], []
    for seq in range(1, draw(st.integers(3, most)) + 1):
        ns += draw(st.sampled_from([0, 1, 7 * MS, 60 * MS, 260 * MS, 1100 * MS, 7000 * MS]))
        if draw(st.booleans()) or seq == 1:
            mid += draw(st.integers(-4, 4))
            epoch += draw(st.integers(0, 12)) == 0
            half = draw(st.integers(1, 3))
            lots = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
            frames.append((ns, seq, epoch, mid - half, lots[0], mid + draw(st.integers(0, 3)), lots[1]))
        else:
            prints.append((ns, seq, mid + draw(st.integers(-6, 6)), draw(st.integers(1, 12))))
    frames = [(*f[:5], max(f[5], f[3] + 1), f[6]) for f in frames]
    return Market(frames, prints, Decimal("0.01"), Decimal("0.001"), draw(st.sampled_from(SCHEDULES)))


SCHEDULES = [
    [(0, FOREVER, 1.5, 0.25)],
    [(0, FOREVER, 40.0, 0.6)],
    [(START, START + 500 * MS, 5.0, 0.2), (START + 800 * MS, START + 9000 * MS, 20.0, 0.7)],
    [(START + 300 * MS, START + 2000 * MS, 8.0, 0.3), (START + 2000 * MS, START + 2001 * MS, 900.0, 0.01)],
]

specs = st.builds(
    BacktestSpec,
    quote=st.one_of(
        st.builds(
            QuoteSpec, model=st.just("fixed_spread"), half_spread_ticks=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0])
        ),
        st.builds(
            QuoteSpec,
            gamma=st.sampled_from([0.1, 2.0, 20.0]),
            sigma=st.sampled_from([None, 0.0, 0.05, 0.5]),
            sigma_window_s=st.sampled_from([2, 4]),
            horizon_s=st.sampled_from([0.5, 5.0]),
            k=st.sampled_from([None, 0.3]),
        ),
    ),
    fill=st.builds(
        FillSpec,
        model=st.sampled_from(["trade_cross", "poisson"]),
        reach=st.sampled_from(["touch", "through"]),
        seed=st.integers(0, 5),
        max_book_age_ms=st.sampled_from([0, 200, 5000]),
    ),
    qty=st.sampled_from([0.001, 0.005, 0.01]),
    initial_cash=st.sampled_from([0.3, 1.0, 1.5, 1000.0]),
    initial_inventory=st.sampled_from([0.0, 0.004, 0.02]),
    max_inventory=st.sampled_from([None, 0.011]),
    account=st.sampled_from(["spot", "margin"]),
    entry_latency_ms=st.sampled_from([0, 50, 300]),
    cancel_latency_ms=st.sampled_from([0, 25, 700]),
    requote_interval_ms=st.sampled_from([1, 100, 250]),
    ttl_ms=st.sampled_from([0, 60, 1000]),
    maker_fee=st.sampled_from([0.0, 0.001, -0.00025]),
    taker_fee=st.sampled_from([0.0, 0.00075]),
    post_only=st.booleans(),
)


def tape(market: Market, upto: int | None = None) -> events.Tape:
    """The market as the engine's arrays, optionally only the events before a time."""
    frames = [f for f in market.frames if upto is None or f[0] < upto]
    prints = [p for p in market.prints if upto is None or p[0] < upto]
    columns = ("recv_ns", "recv_seq", "epoch_id", "bid", "bid_lots", "ask", "ask_lots")
    d = pl.DataFrame(frames, schema=dict.fromkeys(columns, pl.Int64), orient="row")
    depth = d.select(
        "recv_ns", "recv_seq", pl.lit(1, pl.Int64).alias("run_id"), "epoch_id",
        bid_px_1=pl.col("bid") / 100, bid_qty_1=pl.col("bid_lots") / 1000,
        ask_px_1=pl.col("ask") / 100, ask_qty_1=pl.col("ask_lots") / 1000,
    )  # fmt: skip
    t = pl.DataFrame(prints, schema=dict.fromkeys(("recv_ns", "recv_seq", "p", "q"), pl.Int64), orient="row")
    trades = t.select("recv_ns", "recv_seq", price=pl.col("p") / 100, qty=pl.col("q") / 1000)
    return events.tape(depth, trades, INSTRUMENT)


def intensity(market: Market) -> Intensity:
    start, end, A, k = (np.array(column) for column in zip(*market.segments, strict=True))
    return Intensity(start, end, A, k)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(market=markets(), spec=specs)
def test_every_row_equals_the_slow_twins(market, spec):
    """All three tables, all columns, over both quote models, both fill models and every flag."""
    got = run(tape(market), spec, intensity(market))
    orders, fills, state = Twin(market, spec).run()
    for name, mine, theirs in (
        ("orders", got.orders, orders),
        ("fills", got.fills, fills),
        ("state", got.state, state),
    ):
        assert mine.equals(theirs), f"{name}\n{mine}\n{theirs}"


@settings(max_examples=60, deadline=None)
@given(market=markets(60), spec=specs, rows=st.just(1))
def test_results_do_not_depend_on_how_much_is_walked_at_once(market, spec, rows):
    """Small buffers make many calls of the kernel, and the same tables."""
    whole, parts = run(tape(market), spec, intensity(market)), run(tape(market), spec, intensity(market), rows)
    assert whole.orders.equals(parts.orders)
    assert whole.fills.equals(parts.fills)
    assert whole.state.equals(parts.state)


@settings(max_examples=120, deadline=None)
@given(market=markets(), spec=specs, at=st.integers(1, 39))
def test_nothing_knows_what_follows(market, spec, at):
    """Dropping every event from an instant on leaves every row before it as it was."""
    times = sorted({f[0] for f in market.frames} | {p[0] for p in market.prints})
    cut = times[min(at, len(times) - 1)]
    if cut <= market.frames[0][0]:
        return
    whole, part = run(tape(market), spec, intensity(market)), run(tape(market, cut), spec, intensity(market))
    last = max(t for t in times if t < cut)
    for name in ("orders", "fills", "state"):
        a, b = (getattr(r, name).filter(pl.col("recv_ns") < last) for r in (whole, part))
        assert a.equals(b), name


@settings(max_examples=150, deadline=None)
@given(market=markets(60), spec=specs)
def test_promises_hold_on_any_tape(market, spec):
    """No fill outside an order's life, no print or touch used twice, no overdraft, no position beyond the cap."""
    got = run(tape(market), spec, intensity(market))
    columns = ("active_recv_ns", "cancel_req_ns", "cancel_effective_ns", "expire_recv_ns")
    fills = got.fills.join(got.orders.group_by("order_id").agg(pl.col(columns).max()), on="order_id")
    t, effective = pl.col("recv_ns"), pl.col("cancel_effective_ns")
    assert fills.filter(t < pl.col("active_recv_ns")).is_empty()
    assert fills.filter(t >= pl.col("expire_recv_ns")).is_empty()
    # at the very instant of the effect only what came before the request may have been filled
    assert fills.filter((t > effective) | ((t == effective) & (pl.col("cancel_req_ns") < t))).is_empty()
    for ns in {p[0] for p in market.prints}:
        crossed = got.fills.filter((pl.col("recv_ns") == ns) & (pl.col("reason") == "trade_cross"))
        assert round(crossed["qty"].sum() * 1000) <= sum(p[3] for p in market.prints if p[0] == ns)
    placed = got.orders.filter(pl.col("action") == "PLACE")
    filled = got.fills.group_by("order_id").agg(pl.col("qty").sum()).join(placed, on="order_id")
    assert (filled["qty"] <= filled["qty_right"] + 1e-9).all()
    if spec.account == "spot":
        assert (got.state["cash"] >= 0).all()
        assert (got.state["inventory"] >= 0).all()
    if spec.max_inventory is not None:
        assert got.state["inventory"].abs().to_numpy().max() <= max(spec.max_inventory, spec.initial_inventory) + 1e-9


@settings(max_examples=150, deadline=None)
@given(market=markets(), spec=specs, more=st.sampled_from([1, 40, 400]))
def test_more_latency_never_fills_the_first_order_earlier(market, spec, more):
    """The first order of a run, entered later, is filled at the same time or later, or not at all."""
    spec = replace(spec, fill=replace(spec.fill, model="trade_cross"), requote_interval_ms=10**6, ttl_ms=0)
    first = []
    for latency in (spec.entry_latency_ms, spec.entry_latency_ms + more):
        got = run(tape(market), replace(spec, entry_latency_ms=latency), intensity(market))
        times = got.fills.filter((pl.col("order_id") == 1) & (pl.col("liquidity") == "maker"))["recv_ns"]
        first.append(times[0] if times.len() else FOREVER)
    if not spec.post_only:
        return  # an order that comes later may take, or rest, where it would not have
    assert first[1] >= first[0] or first[0] == FOREVER


def seeded(n: int) -> Market:
    """A market that is the same each time."""
    rng = np.random.default_rng(8)
    mids = 10_000 + rng.integers(-2, 3, n).cumsum()
    frames = [(START + i * 150 * MS, 2 * i, 1, int(m) - 1, 5, int(m) + 1, 5) for i, m in enumerate(mids)]
    prints = [(f[0] + 40 * MS, f[1] + 1, f[3] + int(rng.integers(-2, 5)), 3) for f in frames]
    return Market(frames, prints, Decimal("0.01"), Decimal("0.001"), SCHEDULES[1])


@pytest.mark.parametrize("model", ["trade_cross", "poisson"])
def test_the_compiled_loop_equals_its_own_source(model):
    """numba changes nothing: every function run as plain Python gives the same tables."""
    from mmlab.core import ledger
    from mmlab.sim import engine

    market = seeded(30)
    spec = BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=1.0), FillSpec(model), initial_inventory=0.02, entry_latency_ms=1
    )
    fast = run(tape(market), spec, intensity(market))
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        for module in (engine, ledger):
            for name, kernel in vars(module).items():
                if hasattr(kernel, "py_func"):
                    patch.setattr(module, name, kernel.py_func)
        patch.setattr(engine, "fee_quanta", ledger.fee_quanta)
        slow = run(tape(market), spec, intensity(market))
    assert fast.fills.height >= 3
    assert fast.orders.equals(slow.orders)
    assert fast.fills.equals(slow.fills)
    assert fast.state.equals(slow.state)
