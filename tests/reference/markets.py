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
from mmlab.sim.run import Result
from mmlab.sim.spec import FILL_MODELS, QUOTE_MODELS, BacktestSpec, FillSpec, QuoteSpec
from reference.backtest import Frame, Market, Print

Levels = tuple[tuple[int, int, int, int], ...]

TABLES = ("orders", "fills", "state")
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
    st.integers(0, 4**6 - 1),  # gaps and lots of the second and the third level, and how old the frame is
)
AGES = (0, MS, 30 * MS, 400 * MS)
OFFSET = 3_000 * MS  # of the venue's clock


def quarters(number: int) -> list[int]:
    """Its digits to the base of four."""
    return [number >> (2 * i) & 3 for i in range(6)]


def deeper(bid: int, ask: int, gaps: list[int]) -> Levels:
    """Two more levels of so many lots, so far apart; a gap of 0 and a price of 0 end a side."""
    made = []
    for gap in gaps:
        bid = max(bid - gap, 0) if gap and bid else 0
        ask = ask + gap if gap and ask else 0
        made.append((bid, 2 * gap if bid else 0, ask, 5 - gap if ask else 0))
    return tuple(made)


@st.composite
def markets(draw, most: int = 40) -> Market:
    """Random walks with equal times, epoch breaks, and prints at, inside and through the book."""
    mid, ns, epoch = draw(st.sampled_from([6, 10_000, 10_000])), START, 1
    frames, prints = [], []
    walk = draw(st.lists(steps, min_size=2, max_size=most))
    for seq, (wait, kind, move, below, above, hit, cut, more) in enumerate(walk):
        ns += wait
        if kind == "print" and (frames or seq < 1):
            prints.append(Print(ns, seq, max(mid + hit[0], 1), hit[1]))
            continue
        mid, epoch = max(mid + move, 5), epoch + (cut == 0)
        bid, ask, (*gaps, age, _) = mid - below[0], mid + above[0], quarters(more)
        rest = deeper(bid, ask, gaps[:2])
        frames.append(Frame(ns, seq, epoch, bid, below[1], ask, above[1], rest, ns - AGES[age] - OFFSET))
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
    account, post_only, model = some("spot", "margin"), some(True, False), some(*FILL_MODELS)
    reach = some("touch", "through", "queue") if model in ("trade_cross", "hybrid") else some("touch", "through")
    return BacktestSpec(
        draw(quotes(tick)),
        FillSpec(
            model, reach, some(0, 1, 2**63 - 1), some(0, 200, 5_000), some("behind", "proportional"), some(1, 1, 2, 3)
        ),
        qty=float(qty * lot),
        initial_cash=round(notional * some(0.0, 1.1, 2.5, 1_000.0), 8),
        initial_inventory=float(some(0, qty, 3 * qty + 1, 100) * lot),
        max_inventory=some(None, None, float((2 * qty + 1) * lot)),
        account=account,
        entry_latency_ms=some(0, 50, 300),
        cancel_latency_ms=some(0, 25, 700),
        requote_interval_ms=some(1, 50, 250),
        ttl_ms=some(0, 0, 60, 1_000),
        maker_fee=some(0.0, 0.001, -0.00025, 0.1),
        taker_fee=some(0.0, 0.00075, 0.1),
        post_only=post_only,
        response_latency_ms=some(0, 0, 10, 500),
        latency_jitter=some("none", "none", "exponential:20", "lognormal:0.8"),
        feed_latency=some("0", "0", "7.5", "recorded"),
        feed_floor_ms=some(0, 1, 40),
        time_in_force="GTC" if post_only else some("GTC", "IOC"),
        min_move_ticks=some(1, 1, 2, 4),
        orders_per_10s=some(0, 0, 3, 7),
        size_to_balance=account == "spot" and some(False, True),
        leverage=some(0.0, 0.0, 0.5, 3.0) if account == "margin" else 0.0,
    )


@st.composite
def quotes(draw, tick: Fraction) -> QuoteSpec:
    """Every quote model but a user's own, on a grid of `tick`."""
    some = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    model = some(*(m for m in QUOTE_MODELS if m != "strategy"))
    if model == "ladder":
        return QuoteSpec(model, deltas=some((1.0,), (0.5, 2.0), (1.0, 1.25, 4.0), (0.0, 3.0)))
    levels = {"levels": some(1, 1, 2, 4), "level_step_ticks": some(0.0, 1.0, 1.5)}
    if model not in ("avellaneda_stoikov", "glft"):
        half = some(0.0, 0.5, 1.0, 2.0, 3.0, 2_000.0)
        return QuoteSpec(model, half_spread_ticks=half, skew_ticks=some(0.0, 0.75, -1.0, 30.0), **levels)
    made = QuoteSpec(
        model,
        gamma=some(0.1, 2.0, 20.0),
        sigma=some(None, None, 0.0, 1.0, 3.0),
        sigma_window_s=some(2, 4),
        horizon_s=some(0.5, 5.0),
        k=some(None, 0.3),
        A=some(None, 2.0),
        horizon=some("rolling", "session"),
        sigma_method=some("rolling", "ewma"),
        sigma_halflife_s=some(0.5, 2.0),
        **levels,
    )
    return replace(made, sigma=float(Fraction(made.sigma) * tick)) if made.sigma else made


@st.composite
def cases(draw, most: int = 40) -> tuple[Market, BacktestSpec]:
    market = draw(markets(most))
    return market, draw(specs(market))


def tape(market: Market, levels: int = 3) -> events.Tape:
    """The market as decimals in the lake's columns, and from there as the engine's arrays."""
    tick, lot = Fraction(market.tick), Fraction(market.lot)

    def decimals(frame: Frame) -> list[float | None]:
        every = [(frame.bid, frame.bid_lots, frame.ask, frame.ask_lots), *frame.deeper, *[(0, 0, 0, 0)] * levels]
        made: list[float | None] = []
        for bid, shown, ask, offered in every[:levels]:
            made += [float(bid * tick), float(shown * lot)] if bid else [None, None]
            made += [float(ask * tick), float(offered * lot)] if ask else [None, None]
        return made

    frames = [(f.ns, f.seq, 1, f.epoch, *decimals(f), f.ns if f.event is None else f.event) for f in market.frames]
    prints = [(p.ns, p.seq, float(p.price * tick), float(p.lots * lot)) for p in market.prints]
    depth, trades = (
        pl.DataFrame(rows, schema={name: table.schema[name] for name in names}, orient="row")
        for rows, table, names in (
            (frames, schemas.DEPTH, events.depth_columns(levels, event_time=True)),
            (prints, schemas.TRADES, events.TRADE_COLUMNS),
        )
    )
    return events.tape(depth, trades, instrument(market))


def assert_same(a: Result | dict[str, pl.DataFrame], b: Result) -> None:
    for name in TABLES:
        mine = a[name] if isinstance(a, dict) else getattr(a, name)
        assert mine.equals(getattr(b, name)), f"{name}\n{mine.rows()}\n{getattr(b, name).rows()}"


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
            shown, rest = (
                rng.integers(9, size=2).tolist(),
                deeper(mid - 1, mid + 1, rng.integers(1, 4, size=2).tolist()),
            )
            event = ns - int(rng.integers(40)) * MS
            frames.append(Frame(ns, seq, 1 + seq // 200, mid - 1, shown[0], mid + 1, shown[1], rest, event))
        else:
            prints.append(Print(ns, seq, mid + int(rng.integers(-4, 5)), int(rng.integers(1, 9))))
    return Market(frames, prints, segments=SCHEDULES[seed % 3])
