"""Probes as real orders: recordings that the join and the paper exchange both read, and the script between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from mmlab.calib.probes import Intervals
from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.sim import events
from mmlab.sim.layout import NEVER
from mmlab.sim.run import Result
from mmlab.sim.script import Script
from reference import probes as slow
from reference.markets import GRIDS, MS, START

LAST_SEQ = 2**63 - 1  # an interval that ends like this ends with all prints of its last instant
TABLES = {
    schemas.DEPTH: ("recv_ns", "recv_seq", "run_id", "epoch_id", "bid_px_1", "bid_qty_1", "ask_px_1", "ask_qty_1"),
    schemas.TRADES: ("recv_ns", "recv_seq", "trade_ns", "trade_id", "price", "qty", "taker"),
    schemas.GAPS: ("from_ns", "to_ns", "stream"),
}

Fate = tuple[int | None, int]  # when a probe was first hit (None: never), and for how long it was at risk, ns


@dataclass(frozen=True)
class Recording:
    """Frames, prints and holes, with the columns of TABLES, of one instrument."""

    depth: pl.DataFrame
    trades: pl.DataFrame
    gaps: pl.DataFrame
    instrument: Instrument

    @property
    def tape(self) -> events.Tape:
        """What the engine walks."""
        return events.tape(self.depth, self.trades, self.instrument)

    @property
    def prints(self) -> list[slow.Print]:
        """What the obvious loop goes through."""
        tape, t = self.tape, self.trades
        numbers = (t[name] for name in ("recv_ns", "recv_seq", "trade_ns", "trade_id"))
        return list(map(slow.Print, *numbers, tape.price.tolist(), tape.lots.tolist(), t["taker"]))


def recording(n: int, choose: Callable[..., Any]) -> Recording:
    """`n` events: equal times, epochs, half ticks, sweeps, wide and narrow books, holes, prints of one side only.

    `choose` picks one of its arguments: hypothesis draws short recordings, a generator long ones.
    """
    tick, lot = choose(*GRIDS)
    ns, mid, epoch, trade_id, trade_ns = START, 10_000, 1, 0, START
    early, one_sided = choose(0, 0, 1, 3), choose(0, 0, 0, 1, -1)
    frames, prints, gaps = [], [], []
    for seq in range(1, n + 1):
        ns += choose(0, 0, 0, 1, 2, MS, 7 * MS, 60 * MS, 500 * MS)
        if (seq > early and choose(True, False, False)) or (seq == n and not frames):
            mid, epoch = mid + choose(-3, -1, 0, 0, 0, 0, 1, 2), epoch + (choose(*range(12)) == 0)
            bid, ask = mid - choose(1, 1, 2, 9), mid + choose(0, 1, 2, 9)
            frames.append((ns, seq, 1, epoch, decimal(bid, tick), decimal(2, lot), decimal(ask, tick), 0.0))
        else:
            far = choose(-9, -5, -3, -2, -1, 0, 1, 2, 3, 5, 9)
            if choose(True, False):  # the first print of another taker order
                trade_id, trade_ns = trade_id + choose(0, 1), ns
            trade_id += 1
            price, lots = mid + (abs(far) * one_sided or far), choose(1, 1, 2, 7)
            prints.append((ns, seq, trade_ns, trade_id, decimal(price, tick), decimal(lots, lot), choose(1, -1)))
        if choose(*range(15)) == 0:
            start = ns + choose(-1, 0, 0, 0, 1, 5 * MS)
            gaps.append((start, start + choose(0, 1, 60 * MS, 700 * MS), choose("depth", "trade", "bookTicker")))
    made = (
        pl.DataFrame(rows, schema={name: table.schema[name] for name in names}, orient="row")
        for rows, (table, names) in zip((frames, prints, gaps), TABLES.items(), strict=True)
    )
    return Recording(*made, Instrument("synth", "TEST", tick, lot))


def decimal(steps: int, unit: str) -> float:
    """Whole ticks or lots as the lake keeps them."""
    return float(steps * Fraction(unit))


def rows(laid: Intervals) -> list[tuple[int, int, int, int, int]]:
    """Start, end and anchor of every interval, as Python's integers."""
    columns = (laid.start_ns, laid.start_seq, laid.end_ns, laid.end_seq, laid.mid2)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def script(laid: Intervals, tape: events.Tape, delta: int) -> Script:
    """Every probe at `delta` as one order a side: sent where its interval starts, gone where it ends.

    A probe on a half tick goes to the tick behind it, which the same prints reach. An interval ends at a frame's
    place in the tape, where the script decides again (for the next probe, or for none); or with a hole's first
    instant, whose prints still belong to it, so that its orders end 1 ns later; or where it began: it never stood.
    """
    frame = {key: i for i, key in enumerate(zip(tape.frame_ns.tolist(), tape.frame_seq.tolist(), strict=True))}
    decide, until = np.zeros(len(frame), np.bool_), np.full(len(frame), NEVER)
    bid, ask = np.zeros(len(frame), np.int64), np.zeros(len(frame), np.int64)
    for start_ns, start_seq, end_ns, end_seq, mid2 in rows(laid):
        at = frame[start_ns, start_seq]
        decide[at], bid[at], ask[at] = True, (mid2 - 2 * delta) // 2, -((-mid2 - 2 * delta) // 2)
        if end_seq == LAST_SEQ:
            until[at] = end_ns + 1
        elif (end_ns, end_seq) == (start_ns, start_seq):
            until[at] = end_ns
        else:
            decide[frame[end_ns, end_seq]] = True
    return Script(decide, bid, ask, until)


def fates(played: Result, laid: Intervals) -> list[Fate]:
    """What became of each interval's bid order and ask order, in that order; every one was sent and none refused."""
    orders = played.orders
    assert set(orders["action"]) <= {"PLACE", "FILL", "CLOSE_FILLED", "CANCEL_REQ", "CANCEL_ACK", "EXPIRE"}
    sent = orders.filter(pl.col("action") == "PLACE")
    assert sent["order_id"].to_list() == list(range(1, 2 * laid.start_ns.size + 1))
    assert sent["side"].to_list() == [1, -1] * laid.start_ns.size
    assert sent["active_recv_ns"].to_list() == np.repeat(laid.start_ns, 2).tolist()
    assert set(played.fills["reason"]) <= {"trade_cross"}
    assert played.fills["order_id"].n_unique() == played.fills.height
    filled = dict(played.fills.select("order_id", "recv_ns").iter_rows())
    ends = pl.min_horizontal("expire_recv_ns", "cancel_effective_ns").min()
    end_of = dict(orders.group_by("order_id").agg(ends).iter_rows())
    late = np.repeat(laid.end_seq == LAST_SEQ, 2).tolist()  # these orders' last instant is their end less 1 ns
    found = []
    for number, start, more in zip(sent["order_id"], sent["active_recv_ns"], late, strict=True):
        hit = filled.get(number)
        found.append((hit, (end_of[number] - more if hit is None else hit) - start))
    return found
