"""A tape and a specification -> the tables `orders`, `fills` and `state`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import UsageError
from mmlab.core.instrument import Instrument, per_price
from mmlab.core.ledger import Money
from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.sim import engine
from mmlab.sim import layout as e
from mmlab.sim.events import Tape
from mmlab.sim.intensity import Intensity
from mmlab.sim.latency import Delays, Series, delays
from mmlab.sim.layout import World
from mmlab.sim.script import Script
from mmlab.sim.spec import BacktestSpec, rate_e9
from mmlab.sim.strategy import Step, Strategy

BUFFER_ROWS = 1 << 16
MOST_QUANTA = 2**60
LONGEST_NS = 2**60  # 36 years
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """The tables of one backtest."""

    orders: pl.DataFrame
    fills: pl.DataFrame
    state: pl.DataFrame


def run(
    tape: Tape,
    spec: BacktestSpec,
    intensity: Intensity,
    buffer_rows: int = BUFFER_ROWS,
    script: Script | None = None,
    series: Series | None = None,
    strategy: Strategy | None = None,
) -> Result:
    """Simulate; `script` decides in place of the spec's quote model and its requote interval, `series` are measured
    latencies in place of the spec's, `strategy` is what the spec's names.

    Raises UsageError for a specification that the instrument does not allow, or for what a strategy does wrong.
    """
    if strategy is None and spec.quote.model == "strategy" and script is None:
        raise ValueError("the spec names a strategy that was not given")
    w = _world(tape, spec, intensity, buffer_rows, script, delays(spec, series, tape.frame_ns, tape.exch_ns))
    step: Step = engine.walk
    if strategy is not None:
        step = strategy.stepper(float(tape.instrument.tick_size), spec.qty)
    made: list[Future[Result]] = []
    status = e.ROOM
    with ThreadPoolExecutor(1) as beside:  # rows become frames while the engine walks on
        while status != e.DONE:
            status = step(w)
            if status == e.DONE:
                _last_state(tape, w)
            orders, fills, state = _taken(w)
            made.append(beside.submit(_frames, orders, fills, state, tape.instrument))
            w = w._replace(Q=_room_for_reports(w))
    del w
    parts = [part.result() for part in made]
    return Result(
        ORDERS.check(pl.concat([part.orders for part in parts], rechunk=True)),
        FILLS.check(pl.concat([part.fills for part in parts], rechunk=True)),
        STATE.check(pl.concat([part.state for part in parts], rechunk=True)),
    )


def _taken(w: World) -> Iterator[Rows]:
    """Orders, fills and states made so far, which make room for the next."""
    for buffer, count in zip((w.orders, w.fills, w.state), (e.N_ORDERS, e.N_FILLS, e.N_STATE), strict=True):
        yield buffer[: w.S[count]].copy()
        w.S[count] = 0


def _frames(orders: Rows, fills: Rows, state: Rows, instrument: Instrument) -> Result:
    """Kernel rows -> tables."""
    return Result(_orders(orders, instrument), _fills(fills, instrument), _state(state, instrument))


def _world(
    tape: Tape, spec: BacktestSpec, intensity: Intensity, buffer_rows: int, script: Script | None, delay: Delays
) -> World:
    """Everything that the engine walks with, at the first event."""
    n, levels = tape.frame_ns.size, len(spec.quote.outward)
    leaving_ns = delay.longest_leaving_ns
    live = 2 * levels * (min(math.ceil(leaving_ns / _ns(spec.requote_interval_ms)), n) + 4)
    if script is not None:
        script.check(tape.frame_ns)
        levels, live = 1, script.most_live(tape.frame_ns, leaving_ns)
    deep = _deep(tape, spec.fill.book_levels)
    rows = max(buffer_rows, 2 * ((4 + deep.shape[1] // 2) * live + 16))
    P, packed = (
        _whole(tape, spec, script, delay),
        [a for pair in zip(delay.times, delay.values, strict=True) for a in pair],
    )
    P[e.DELAYS : e.P_WIDTH] = np.ravel([(start, a.size) for start, a in zip(_starts(packed), packed, strict=True)])
    return World(
        P=P,
        F=_decimals(tape, spec),
        S=_start(tape, spec),
        L=np.zeros((live, e.ENDED + 1), np.int64),
        H=np.zeros((live, 3)),
        W=np.zeros((2, levels, e.WANT_REFUSED + 1), np.int64),
        R=np.zeros((min(spec.quote.sigma_window_s, n), 2), np.int64),
        T=np.full(max(spec.orders_per_10s, 1), -e.NEVER, np.int64),
        Q=np.zeros((rows, e.REPORT_END + 1), np.int64),
        orders=np.zeros((rows, e.ORDER_WIDTH), np.int64),
        fills=np.zeros((rows, e.FILL_WIDTH), np.int64),
        state=np.zeros((rows, e.STATE_WIDTH), np.int64),
        frames=tape.frames,
        prints=tape.prints,
        deep=deep,
        script=(script or Script.none()).lines,
        edges=np.column_stack([intensity.start_ns, intensity.end_ns]),
        rates=_rates(intensity, tape.instrument),
        delays=np.concatenate(packed),
    )


def _deep(tape: Tape, levels: int) -> Rows:
    """So many levels of the book, nothing for the touch alone; a tape may have more."""
    if levels == 1:
        return np.empty((0, 0), np.int64)
    if tape.deep.shape[1] < 4 * levels:
        raise ValueError(f"the tape has fewer than {levels} levels of the book")
    return np.ascontiguousarray(tape.deep[:, : 4 * levels])


def _starts(parts: list[Rows]) -> list[int]:
    """Where each part begins when they lie one after the other."""
    return [0, *np.cumsum([part.size for part in parts])[:-1].tolist()]


def _rates(intensity: Intensity, instrument: Instrument) -> npt.NDArray[np.float64]:
    """A, k per tick and k per price of each segment."""
    k_price = [per_price(k, float(instrument.tick_size)) for k in intensity.k]
    return np.column_stack([intensity.A, intensity.k, np.array(k_price, np.float64)])


def _room_for_reports(w: World) -> Rows:
    """The reports still on their way, in a table with at least as much room again."""
    at, n = int(w.S[e.REPORT_AT]), int(w.S[e.REPORT_N])
    Q = w.Q if 4 * (n - at) < w.Q.shape[0] else np.zeros((2 * w.Q.shape[0], 5), np.int64)
    Q[: n - at] = w.Q[at:n].copy()
    w.S[e.REPORT_AT], w.S[e.REPORT_N] = 0, n - at
    return Q


def _whole(tape: Tape, spec: BacktestSpec, script: Script | None, delay: Delays) -> Rows:
    """The kernel's whole numbers: lots, ns, quanta, codes."""
    instrument, money = tape.instrument, Money.of(tape.instrument)
    lots = _floor_lots(spec.qty, instrument)
    if lots < 1:
        raise UsageError(
            f"--qty {spec.qty:g} is less than a lot of {instrument.lot_size}", remedy="give a larger --qty"
        )
    dearest = 0 if script is None else max(int(script.bid.max()), int(script.ask.max()))
    _countable(lots, tape, f"--qty {spec.qty:g}", dearest)
    fill, ticks, steps = spec.fill, instrument.ticks, instrument.lots
    whole = {
        e.QTY: lots,
        e.REQUOTE: _ns(spec.requote_interval_ms),
        e.TTL: _ns(spec.ttl_ms),
        e.MAKER: rate_e9(spec.maker_fee, "--maker-fee"),
        e.TAKER: rate_e9(spec.taker_fee, "--taker-fee"),
        e.POST_ONLY: spec.post_only,
        e.IOC: spec.time_in_force == "IOC",
        e.SPOT: spec.account == "spot",
        e.CAP: -1 if spec.max_inventory is None else min(_floor_lots(spec.max_inventory, instrument), 2**62),
        e.PER: money.per_tick_lot,
        e.MIN_NOTIONAL: money.quanta(float(instrument.min_notional), "minimum notional"),
        e.MODEL: e.MODELS.index(spec.quote.model),
        e.BY_CLOCKS: fill.clocks,
        e.BY_PRINTS: fill.prints,
        e.BY_BOOKS: fill.model == "price_cross",
        e.BEYOND: fill.reach == "through",
        e.QUEUES: fill.reach == "queue",
        e.PROPORTIONAL: fill.queue_cancels == "proportional",
        e.SEED: fill.seed,
        e.MAX_AGE: _ns(fill.max_book_age_ms),
        e.WINDOW: min(spec.quote.sigma_window_s, 2**32),
        e.EWMA: spec.quote.sigma_method == "ewma",
        e.SCRIPTED: script is not None,
        e.MIN_MOVE: min(spec.min_move_ticks, 2**60),
        e.LIMIT: spec.orders_per_10s,
        e.SESSION: round(spec.quote.horizon_s * NS_PER_S) if spec.quote.horizon == "session" else 0,
        e.START: tape.frame_ns[0],
        e.TO_BALANCE: spec.size_to_balance,
        e.AT_ONCE: delay.at_once,
        e.TICK_NUM: ticks.num, e.TICK_DEN: ticks.den, e.LOT_NUM: steps.num, e.LOT_DEN: steps.den,
    }  # fmt: skip
    P = np.zeros(e.P_WIDTH, np.int64)
    for place, value in whole.items():
        P[place] = value
    return P


def _ns(ms: int) -> int:
    """Milliseconds as ns; 36 years are as good as forever, and their sums with a time are still counted."""
    return min(ms * NS_PER_MS, LONGEST_NS)


def _countable(lots: int, tape: Tape, what: str, dearest: int = 0) -> int:
    """`lots`; raises UsageError if they are worth too much to be counted, at the tape's prices or at `dearest`."""
    if abs(lots) * max(int(tape.ask.max()), dearest) * Money.of(tape.instrument).per_tick_lot > MOST_QUANTA:
        raise UsageError(f"{what} is too large to be counted exactly", remedy="give a smaller one")
    return lots


def _decimals(tape: Tape, spec: BacktestSpec) -> npt.NDArray[np.float64]:
    """The kernel's decimals; k is converted from ticks to price here and in `_world`, by the one function."""
    quote, tick = spec.quote, float(tape.instrument.tick_size)
    sigma = math.nan if quote.sigma is None else quote.sigma
    k = math.nan if quote.k is None else per_price(quote.k, tick)
    F = np.zeros(e.OUTWARD + len(quote.outward))
    F[e.OUTWARD :] = quote.outward
    F[e.HALF_SPREAD] = 0.0 if quote.model == "ladder" else quote.half_spread_ticks
    F[e.GAMMA], F[e.SIGMA], F[e.HORIZON], F[e.QUOTE_K], F[e.TICK] = quote.gamma, sigma, quote.horizon_s, k, tick
    F[e.SKEW], F[e.HALFLIFE], F[e.LEVERAGE] = quote.skew_ticks, quote.sigma_halflife_s, spec.leverage
    F[e.MONEY], F[e.QUOTE_A] = 10.0 ** Money.of(tape.instrument).digits, math.nan if quote.A is None else quote.A
    return F


def _start(tape: Tape, spec: BacktestSpec) -> Rows:
    """The state before the first event."""
    S = np.zeros(e.S_WIDTH, np.int64)
    S[e.CASH] = Money.of(tape.instrument).quanta(spec.initial_cash, "--initial-cash")
    held = _floor_lots(spec.initial_inventory, tape.instrument)
    S[e.LOTS] = _countable(held, tape, f"--initial-inventory {spec.initial_inventory:g}")
    S[e.KNOWN_CASH], S[e.KNOWN_LOTS] = S[e.CASH], S[e.LOTS]
    S[e.NEXT_ID], S[e.DECIDED], S[e.SAMPLE_NS] = 1, -1, -1
    return S


def _floor_lots(qty: float, instrument: Instrument) -> int:
    """Whole lots in `qty`, rounded towards zero; a hair's breadth keeps a multiple of the lot whole."""
    exact = qty * instrument.lots.per_unit
    return math.trunc(exact + math.copysign(1e-6, exact))


def _last_state(tape: Tape, w: World) -> None:
    """The account at the end of the tape, unless the last row says all of it: a fill comes with its own row."""
    if w.S[e.LAST_STATE_NS] < tape.span_ns[1] or w.S[e.LAST_STATE_MID2] != tape.bid[-1] + tape.ask[-1]:
        e.log_state(tape.span_ns[1], w)


def _names(names: tuple[str, ...], codes: Rows) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(codes)


def _orders(a: Rows, instrument: Instrument) -> pl.DataFrame:
    """Kernel rows -> `orders`."""
    ticks, lots = instrument.ticks, instrument.lots
    frame = pl.DataFrame(
        {
            "recv_ns": a[:, 0], "order_id": a[:, 1],
            "action": _names(e.ACTIONS, a[:, 2]), "status": _names(e.STATUSES, a[:, 3]),
            "side": a[:, 4], "price": ticks.to_decimal(a[:, 5]),
            "qty": lots.to_decimal(a[:, 6]), "remaining_qty": lots.to_decimal(a[:, 7]),
            "active_recv_ns": a[:, 8], "expire_recv_ns": a[:, 9],
            "cancel_req_ns": a[:, 10], "cancel_effective_ns": a[:, 11],
            "reject_reason": _names(e.REFUSALS, a[:, 12]), "cancel_reason": _names(e.CANCELS, a[:, 13]),
        }
    )  # fmt: skip
    absent = ("expire_recv_ns", "cancel_req_ns", "cancel_effective_ns")
    return ORDERS.conform(frame.with_columns(pl.when(pl.col(n) < e.NEVER).then(pl.col(n)) for n in absent))


def _fills(a: Rows, instrument: Instrument) -> pl.DataFrame:
    """Kernel rows -> `fills`."""
    money, how = Money.of(instrument), a[:, 6]
    return FILLS.conform(
        pl.DataFrame(
            {
                "recv_ns": a[:, 0], "order_id": a[:, 1], "side": a[:, 2],
                "price": instrument.ticks.to_decimal(a[:, 3]), "qty": instrument.lots.to_decimal(a[:, 4]),
                "fee": a[:, 5] / 10**money.digits,
                "liquidity": _names(e.LIQUIDITY, how), "reason": _names(e.FILL_REASONS, how),
                "mid": _mid(a[:, 7], instrument),
            }
        )
    )  # fmt: skip


def _mid(mid2: Rows, instrument: Instrument) -> npt.NDArray[np.float64]:
    """Half ticks -> price."""
    ticks = instrument.ticks
    return (mid2 * ticks.num).astype(np.float64) / (2 * ticks.den)


def _state(a: Rows, instrument: Instrument) -> pl.DataFrame:
    """Kernel rows -> `state`; 2 * value is a whole number of quanta, so one division rounds once."""
    money, ticks = Money.of(instrument), instrument.ticks
    if a.size and max(np.abs(a[:, 2]).max(), (np.abs(a[:, 1]) * (a[:, 3] * float(money.per_tick_lot))).max()) > 2**61:
        raise UsageError("the position outgrew what can be counted exactly", remedy="give --max-inventory")
    twice = 2 * a[:, 2] + a[:, 1] * a[:, 3] * money.per_tick_lot
    columns: dict[str, Any] = {
        "recv_ns": a[:, 0], "inventory": instrument.lots.to_decimal(a[:, 1]), "cash": a[:, 2] / 10**money.digits,
        "mid": _mid(a[:, 3], instrument), "mtm_value": twice / (2 * 10**money.digits), "open_orders": a[:, 4],
        "bid_px": ticks.to_decimal(a[:, 5]), "ask_px": ticks.to_decimal(a[:, 6]),
    }  # fmt: skip
    frame = pl.DataFrame(columns)
    return STATE.conform(frame.with_columns(pl.when(pl.col(n) > 0).then(pl.col(n)) for n in ("bid_px", "ask_px")))
