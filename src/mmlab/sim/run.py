"""A tape and a specification -> the tables `orders`, `fills` and `state`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import UsageError
from mmlab.core.instrument import Instrument, per_price
from mmlab.core.ledger import Money
from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.core.spans import NS_PER_MS
from mmlab.sim import engine as e
from mmlab.sim.events import Tape
from mmlab.sim.intensity import Intensity
from mmlab.sim.script import Script
from mmlab.sim.spec import QUOTE_MODELS, BacktestSpec, rate_e9

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
) -> Result:
    """Simulate; `script` decides in place of the spec's quote model and its requote interval.

    Raises UsageError for a specification that the instrument does not allow.
    """
    n = tape.frame_ns.size
    live = 2 * (min(math.ceil((spec.entry_latency_ms + spec.cancel_latency_ms) / spec.requote_interval_ms), n) + 4)
    if script is not None:
        script.check(tape.frame_ns)
        live = script.most_live(tape.frame_ns, _ns(spec.cancel_latency_ms))
    P, F, S = _whole(tape, spec, script), _decimals(tape, spec), _start(tape, spec)
    L, H = np.zeros((live, 11), np.int64), np.zeros((live, 3))
    R = np.zeros((min(spec.quote.sigma_window_s, n), 2), np.int64)
    frames = (tape.frame_ns, tape.frame_seq, tape.breaks, tape.bid, tape.bid_lots, tape.ask, tape.ask_lots)
    first = tape.print_ns.searchsorted(tape.frame_ns[0])  # prints before the first frame meet no order
    prints = (tape.print_ns[first:], tape.print_seq[first:], tape.price[first:], tape.lots[first:])
    segments = (intensity.start_ns, intensity.end_ns, intensity.A, intensity.k)
    k_price = np.array([per_price(k, float(tape.instrument.tick_size)) for k in intensity.k], np.float64)
    lines = (script or Script.none()).lines
    rows = max(buffer_rows, 16 * live + 64)
    buffers = [np.zeros((rows, width), np.int64) for width in (e.ORDER_WIDTH, e.FILL_WIDTH, e.STATE_WIDTH)]
    made: list[list[Rows]] = [[], [], []]
    done = False
    while not done:
        done = e.walk(frames, prints, segments, k_price, lines, P, F, S, L, H, R, *buffers)
        if done:
            _last_state(tape, S, L, buffers[2])
        for kept, buffer, count in zip(made, buffers, (e.N_ORDERS, e.N_FILLS, e.N_STATE), strict=True):
            kept.append(buffer[: S[count]].copy())
            S[count] = 0
    orders, fills, state = (np.concatenate(parts) for parts in made)
    return Result(
        ORDERS.check(_orders(orders, tape.instrument)),
        FILLS.check(_fills(fills, tape.instrument)),
        STATE.check(_state(state, tape.instrument)),
    )


def _whole(tape: Tape, spec: BacktestSpec, script: Script | None) -> Rows:
    """The kernel's whole numbers: lots, ns, quanta, codes."""
    instrument, money = tape.instrument, Money.of(tape.instrument)
    lots = _floor_lots(spec.qty, instrument)
    if lots < 1:
        raise UsageError(
            f"--qty {spec.qty:g} is less than a lot of {instrument.lot_size}", remedy="give a larger --qty"
        )
    dearest = 0 if script is None else max(int(script.bid.max()), int(script.ask.max()))
    _countable(lots, tape, f"--qty {spec.qty:g}", dearest)
    P = np.zeros(19, np.int64)
    P[e.QTY] = lots
    P[e.ENTRY], P[e.CANCEL] = _ns(spec.entry_latency_ms), _ns(spec.cancel_latency_ms)
    P[e.REQUOTE], P[e.TTL] = _ns(spec.requote_interval_ms), _ns(spec.ttl_ms)
    P[e.MAKER], P[e.TAKER] = rate_e9(spec.maker_fee, "--maker-fee"), rate_e9(spec.taker_fee, "--taker-fee")
    P[e.POST_ONLY], P[e.SPOT] = spec.post_only, spec.account == "spot"
    P[e.CAP] = -1 if spec.max_inventory is None else min(_floor_lots(spec.max_inventory, instrument), 2**62)
    P[e.PER], P[e.MIN_NOTIONAL] = money.per_tick_lot, money.quanta(float(instrument.min_notional), "minimum notional")
    P[e.MODEL] = QUOTE_MODELS.index(spec.quote.model)
    P[e.POISSON], P[e.THROUGH] = spec.fill.model == "poisson", spec.fill.reach == "through"
    P[e.SEED], P[e.MAX_AGE] = spec.fill.seed, _ns(spec.fill.max_book_age_ms)
    P[e.WINDOW], P[e.SCRIPTED] = min(spec.quote.sigma_window_s, 2**32), script is not None
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
    """The kernel's decimals; k is converted from ticks to price here and in `run`, by the one function."""
    quote, tick = spec.quote, float(tape.instrument.tick_size)
    sigma = math.nan if quote.sigma is None else quote.sigma
    k = math.nan if quote.k is None else per_price(quote.k, tick)
    return np.array([quote.half_spread_ticks, quote.gamma, sigma, quote.horizon_s, k, tick])


def _start(tape: Tape, spec: BacktestSpec) -> Rows:
    """The state before the first event."""
    S = np.zeros(24, np.int64)
    S[e.CASH] = Money.of(tape.instrument).quanta(spec.initial_cash, "--initial-cash")
    held = _floor_lots(spec.initial_inventory, tape.instrument)
    S[e.LOTS] = _countable(held, tape, f"--initial-inventory {spec.initial_inventory:g}")
    S[e.NEXT_ID], S[e.DECIDED], S[e.SAMPLE_NS] = 1, -1, -1
    return S


def _floor_lots(qty: float, instrument: Instrument) -> int:
    """Whole lots in `qty`, rounded towards zero; a hair's breadth keeps a multiple of the lot whole."""
    exact = qty * instrument.lots.per_unit
    return math.trunc(exact + math.copysign(1e-6, exact))


def _last_state(tape: Tape, S: Rows, L: Rows, out: Rows) -> None:
    """The account at the end of the tape."""
    mid2 = int(tape.bid[-1] + tape.ask[-1])
    if S[e.LAST_STATE_NS] < tape.span_ns[1]:
        e._log_state(tape.span_ns[1], mid2, S, L, out)


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
                "liquidity": _names(("maker", "maker", "taker"), how), "reason": _names(e.FILL_REASONS, how),
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
    if max(np.abs(a[:, 2]).max(), (np.abs(a[:, 1]) * (a[:, 3] * float(money.per_tick_lot))).max()) > 2**61:
        raise UsageError("the position outgrew what can be counted exactly", remedy="give --max-inventory")
    twice = 2 * a[:, 2] + a[:, 1] * a[:, 3] * money.per_tick_lot
    columns: dict[str, Any] = {
        "recv_ns": a[:, 0], "inventory": instrument.lots.to_decimal(a[:, 1]), "cash": a[:, 2] / 10**money.digits,
        "mid": _mid(a[:, 3], instrument), "mtm_value": twice / (2 * 10**money.digits), "open_orders": a[:, 4],
        "bid_px": ticks.to_decimal(a[:, 5]), "ask_px": ticks.to_decimal(a[:, 6]),
    }  # fmt: skip
    frame = pl.DataFrame(columns)
    return STATE.conform(frame.with_columns(pl.when(pl.col(n) > 0).then(pl.col(n)) for n in ("bid_px", "ask_px")))
