"""Small markets for the tests of the backtest: strategies that draw them, and the tape that the engine walks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import polars as pl
from hypothesis import strategies as st

from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.sim import events
from mmlab.sim.intensity import FOREVER, Intensity
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Market, Print

START = 1_700_000_000 * 10**9
MS = 10**6
CONSTANT = ((0, FOREVER, 1.5, 0.25),)
SCHEDULES = (
    CONSTANT,
    ((0, FOREVER, 60.0, 0.6),),
    ((START, START + 500 * MS, 5.0, 0.2), (START + 800 * MS, START + 9_000 * MS, 30.0, 0.7)),
    ((START + 300 * MS, START + 2_000 * MS, 8.0, 0.3), (START + 2_000 * MS, START + 2_001 * MS, 900.0, 0.01)),
    ((START - 9_000 * MS, START + 60 * MS, 1.0, 2.0), (START + 60 * MS, START + 70_000 * MS, 10.0, 900.0)),
)
GRIDS = (("0.01", "0.001"), ("0.00000001", "1"), ("0.05", "0.00001"), ("0.00001", "0.0001"))

steps = st.tuples(
    st.sampled_from([0, 0, 1, 7 * MS, 25 * MS, 50 * MS, 60 * MS, 260 * MS, 1_100 * MS, 7_000 * MS]),
    st.sampled_from(["frame", "frame", "print"]),
    st.integers(-4, 4),  # move of the mid
    st.tuples(st.integers(1, 3), st.integers(0, 9)),  # width and lots, a side
    st.tuples(st.integers(0, 3), st.integers(0, 9)),
    st.tuples(st.integers(-7, 7), st.integers(1, 12)),  # print: ticks from the mid, lots
    st.integers(0, 9),  # 0: a new epoch
)


@st.composite
def markets(draw, most: int = 40) -> Market:
    """Random walks with equal times, epoch breaks, and prints at, inside and through the book."""
    mid, ns, epoch = draw(st.sampled_from([6, 10_000, 10_000])), START, 1
    frames, prints = [], []
    for seq, (wait, kind, move, below, above, hit, cut) in enumerate(draw(st.lists(steps, min_size=2, max_size=most))):
        ns += wait
        if kind == "print" and (frames or seq < 1):
            prints.append(Print(ns, seq, max(mid + hit[0], 1), hit[1]))
            continue
        mid, epoch = max(mid + move, 5), epoch + (cut == 0)
        frames.append(Frame(ns, seq, epoch, mid - below[0], below[1], mid + above[0], above[1]))
    if not frames:
        frames.append(Frame(ns, most, 1, mid - 1, 3, mid + 1, 3))
    tick, lot = draw(st.sampled_from(GRIDS))
    least = draw(st.sampled_from(["0", "0", str(float(9_998 * 2 * Fraction(tick) * Fraction(lot)))]))
    return Market(frames, prints, tick, lot, least, draw(st.sampled_from(SCHEDULES)))


@st.composite
def specs(draw, market: Market) -> BacktestSpec:
    """Every model and flag, in amounts that suit the market's grid."""
    some = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    tick, lot = Fraction(market.tick), Fraction(market.lot)
    qty = some(1, 2, 5, 10)
    notional = float(10_000 * tick * qty * lot)
    fixed = QuoteSpec("fixed_spread", half_spread_ticks=some(0.0, 0.5, 1.0, 2.0, 3.0, 2_000.0))
    by_formula = QuoteSpec(
        gamma=some(0.1, 2.0, 20.0),
        sigma=some(None, None, 0.0, 1.0, 3.0),
        sigma_window_s=some(2, 4),
        horizon_s=some(0.5, 5.0),
        k=some(None, 0.3),
    )
    if by_formula.sigma:
        by_formula = replace(by_formula, sigma=float(Fraction(by_formula.sigma) * tick))
    return BacktestSpec(
        some(fixed, by_formula),
        FillSpec(some("trade_cross", "poisson"), some("touch", "through"), some(0, 1, 2**63 - 1), some(0, 200, 5_000)),
        qty=float(qty * lot),
        initial_cash=round(notional * some(0.0, 1.1, 2.5, 1_000.0), 8),
        initial_inventory=float(some(0, qty, 3 * qty + 1, 100) * lot),
        max_inventory=some(None, None, float((2 * qty + 1) * lot)),
        account=some("spot", "margin"),
        entry_latency_ms=some(0, 50, 300),
        cancel_latency_ms=some(0, 25, 700),
        requote_interval_ms=some(1, 50, 250),
        ttl_ms=some(0, 0, 60, 1_000),
        maker_fee=some(0.0, 0.001, -0.00025, 0.1),
        taker_fee=some(0.0, 0.00075, 0.1),
        post_only=some(True, False),
    )


@st.composite
def cases(draw, most: int = 40) -> tuple[Market, BacktestSpec]:
    market = draw(markets(most))
    return market, draw(specs(market))


def tape(market: Market) -> events.Tape:
    """The market as decimals in the lake's columns, and from there as the engine's arrays."""
    tick, lot = Fraction(market.tick), Fraction(market.lot)
    frames = [
        (f.ns, f.seq, 1, f.epoch, float(f.bid * tick), float(f.bid_lots * lot), float(f.ask * tick),
         float(f.ask_lots * lot))
        for f in market.frames
    ]  # fmt: skip
    prints = [(p.ns, p.seq, float(p.price * tick), float(p.lots * lot)) for p in market.prints]
    depth, trades = (
        pl.DataFrame(rows, schema={name: table.schema[name] for name in names}, orient="row")
        for rows, table, names in (
            (frames, schemas.DEPTH, events.DEPTH_COLUMNS),
            (prints, schemas.TRADES, events.TRADE_COLUMNS),
        )
    )
    return events.tape(depth, trades, instrument(market))


def instrument(market: Market) -> Instrument:
    return Instrument("synth", "TEST", market.tick, market.lot, market.min_notional)


def intensity(market: Market) -> Intensity:
    if not market.segments:
        return Intensity.none()
    start, end, A, k = (np.array(column) for column in zip(*market.segments, strict=True))
    return Intensity(start, end, A, k)


def still(seconds: int, every_ms: int = 1_000, bid: int = 9_999, ask: int = 10_001) -> Market:
    """A book that never moves."""
    frames = [Frame(START + i * every_ms * MS, i, 1, bid, 5, ask, 5) for i in range(seconds * 1_000 // every_ms + 1)]
    return Market(frames, [], segments=CONSTANT)


def busy(seed: int, n: int = 600) -> Market:
    """A longer market than hypothesis draws: it moves, jumps and trades on both sides of the book."""
    rng = np.random.default_rng(seed)
    ns, mid, frames, prints = START, 10_000, [], []
    for seq in range(n):
        ns += int(rng.integers(0, 90)) * MS
        if rng.random() < 0.5 or seq == 0:
            mid += int(rng.integers(-2, 3))
            frames.append(Frame(ns, seq, 1 + seq // 200, mid - 1, int(rng.integers(9)), mid + 1, int(rng.integers(9))))
        else:
            prints.append(Print(ns, seq, mid + int(rng.integers(-4, 5)), int(rng.integers(1, 9))))
    return Market(frames, prints, segments=SCHEDULES[seed % 3])
