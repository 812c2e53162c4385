"""The slow obvious twin of the backtest: objects, lists, Python integers and fractions; ticks, lots, ns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import polars as pl

from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.core.table import Table
from mmlab.sim.spec import BacktestSpec

NS_PER_MS = 1_000_000
WORD = 2**64
Line = tuple[int, int, int | None]  # of a script: bid, ask (0: no order), and when their orders end


@dataclass(frozen=True)
class Frame:
    ns: int
    seq: int
    epoch: int
    bid: int
    bid_lots: int
    ask: int
    ask_lots: int


@dataclass(frozen=True)
class Print:
    ns: int
    seq: int
    price: int
    lots: int


@dataclass(frozen=True)
class Market:
    frames: list[Frame]
    prints: list[Print]
    tick: str = "0.01"
    lot: str = "0.001"
    min_notional: str = "0"
    segments: tuple[tuple[int, int, float, float], ...] = ()  # start ns, end ns, A, k


@dataclass(eq=False)
class Order:
    id: int
    side: int
    price: int
    size: int
    left: int
    active: int
    expire: int | None = None
    asked: int | None = None
    effective: int | None = None
    why: str = ""
    resting: bool = False
    patience: float = 0.0
    hazard: float = 0.0

    @property
    def end(self) -> int | None:
        return min((t for t in (self.expire, self.effective) if t is not None), default=None)


def splitmix64(seed: int, number: int) -> float:
    """Steele, Lea and Flood (2014), stream `seed`, as a number of 53 bits between 0 and 1."""
    z = (seed * 0xD1342543DE82EF95 + number * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    z = z ^ (z >> 31)
    return ((z >> 11) + 0.5) / 2**53


def exact(decimal: float | str) -> Fraction:
    return Fraction(str(decimal))


class Twin:
    def __init__(self, market: Market, spec: BacktestSpec, script: dict[int, Line] | None = None) -> None:
        self.market, self.spec, self.script = market, spec, script
        self.tick, self.lot = exact(market.tick), exact(market.lot)
        self.quantum = Fraction(1, 10**8)
        while (self.tick * self.lot / self.quantum).denominator != 1:
            self.quantum /= 10
        self.qty = self.in_lots(spec.qty)
        self.lots = self.in_lots(spec.initial_inventory)
        self.cap = None if spec.max_inventory is None else self.in_lots(spec.max_inventory)
        self.cash = exact(spec.initial_cash)
        self.now, self.decided = 0, -math.inf
        self.book: Frame | None = None
        self.sent = 0
        self.live: list[Order] = []
        self.taken = {1: 0, -1: 0}
        self.refused = {1: "", -1: ""}
        self.sampled: tuple[int, int] | None = None
        self.moves: list[tuple[int, int]] = []
        self.orders: list[dict[str, Any]] = []
        self.fills: list[dict[str, Any]] = []
        self.state: list[dict[str, Any]] = []

    def in_lots(self, qty: float) -> int:
        return math.trunc(exact(qty) / self.lot)

    @property
    def mid(self) -> Fraction:
        return Fraction(self.book.bid + self.book.ask, 2)

    def run(self) -> dict[str, pl.DataFrame]:
        events = sorted([*self.market.frames, *self.market.prints], key=lambda e: (e.ns, e.seq))
        for event in events:
            if self.book is not None:
                while self.something_happens_before(event.ns):
                    pass
            self.now = event.ns
            if isinstance(event, Frame):
                self.see(event)
            elif self.spec.fill.model == "trade_cross":
                self.share(event)
        if not self.state or self.state[-1]["recv_ns"] < self.now:
            self.write_state()
        made = ((ORDERS, self.orders), (FILLS, self.fills), (STATE, self.state))
        return {table.name: as_table(table, rows) for table, rows in made}

    # ---- between two events

    def something_happens_before(self, t: int) -> bool:
        """The next end, activation or fill by the clock up to t; ends come before activations, old before young."""
        ends = [(o.end, 0, i) for i, o in enumerate(self.live) if o.end is not None and o.end <= t]
        starts = [(o.active, 1, i) for i, o in enumerate(self.live) if not o.resting and o.active <= t]
        when, what, which = min(ends + starts, default=(t, 2, 0))
        if self.spec.fill.model == "poisson" and self.clock_fills_before(when):
            return True
        self.now = when
        if what == 0:
            self.end(self.live[which])
        elif what == 1:
            self.arrive(self.live[which])
        return what < 2

    def clock_fills_before(self, when: int) -> bool:
        while self.now < when:
            dead = self.book.ns + self.spec.fill.max_book_age_ms * NS_PER_MS
            edges = [dead] + [edge for segment in self.market.segments for edge in segment[:2]]
            stop = min([when] + [edge for edge in edges if edge > self.now])
            inside = [s for s in self.market.segments if s[0] <= self.now < s[1]]
            if inside and self.now < dead and self.race(stop, *inside[0][2:]):
                return True
            self.now = stop
        return False

    def race(self, stop: int, A: float, k: float) -> bool:
        """All resting orders' clocks run at constant rates until `stop` or the first fill."""
        resting = [o for o in self.live if o.resting]
        rates = [A * math.exp(min(-k * float(o.side * (self.mid - o.price)), 50.0)) for o in resting]
        rings = []
        for i, (order, rate) in enumerate(zip(resting, rates, strict=True)):
            wait = (order.patience - order.hazard) / rate / 1e-9 if rate > 0 else math.inf
            if wait < 1e18:
                rings.append((self.now + max(math.ceil(wait), 0), i))
        until, first = min(rings, default=(stop, -1))
        until = min(until, stop)
        for order, rate in zip(resting, rates, strict=True):
            order.hazard += rate * ((until - self.now) * 1e-9)
        self.now = until
        if first >= 0 and until < stop:
            order = resting[first]
            self.fill(order, order.left, order.price, "poisson")
            return True
        return False

    def end(self, order: Order) -> None:
        cancelled = order.effective is not None and order.effective == order.end
        if not cancelled:
            order.why = "TTL_EXPIRE"
        self.write_order(order, *(("CANCEL_ACK", "CANCELLED") if cancelled else ("EXPIRE", "EXPIRED")))
        self.live.remove(order)

    def arrive(self, order: Order) -> None:
        touch, shown = (self.book.ask, self.book.ask_lots) if order.side == 1 else (self.book.bid, self.book.bid_lots)
        order.resting = True
        if order.side * order.price < order.side * touch:
            return
        if self.spec.post_only:
            self.write_order(order, "REJECT", "REJECTED", "post_only_would_cross")
            self.live.remove(order)
            return
        part = min(order.left, shown - self.taken[order.side])
        if part > 0:
            self.taken[order.side] += part
            self.fill(order, part, touch, "taker")

    # ---- events

    def share(self, event: Print) -> None:
        """Best price first, then oldest; own crossed orders: the side of the oldest one that is reached."""
        beyond = 1 if self.spec.fill.reach == "through" else 0
        left = event.lots
        while left > 0:
            hit = [o for o in self.live if o.resting and o.side * (o.price - event.price) >= beyond]
            if not hit:
                return
            best = max((o for o in hit if o.side == hit[0].side), key=lambda o: (o.side * o.price, -o.id))
            part = min(left, best.left)
            left -= part
            self.fill(best, part, best.price, "trade_cross")

    def see(self, frame: Frame) -> None:
        cut = self.book is not None and self.book.epoch != frame.epoch
        self.book, self.taken = frame, {1: 0, -1: 0}
        mid2 = frame.bid + frame.ask
        if self.sampled is None or cut:
            self.sampled = (frame.ns, mid2)
        elif frame.ns - self.sampled[0] >= 10**9:
            self.moves.append((frame.ns - self.sampled[0], mid2 - self.sampled[1]))
            self.sampled = (frame.ns, mid2)
        if self.script is not None:
            line = self.script.get(self.market.frames.index(frame))
            if line is not None:
                self.obey(*line)
                self.write_state()
        elif frame.ns - self.decided >= self.spec.requote_interval_ms * NS_PER_MS:
            self.decided = frame.ns
            self.decide()
            self.write_state()

    def decide(self) -> None:
        wanted, none = self.quotes()
        stays = [o for o in self.live if o.asked is None and not none and o.price == wanted[o.side]]
        for order in self.live:
            if order.asked is None and order not in stays:
                self.cancel(order, "NO_DESIRED_QUOTE" if none else "QUOTE_CHANGE")
        for side in (1, -1):
            if side in [o.side for o in stays]:
                self.refused[side] = ""
            else:
                self.send(side, wanted[side], none)

    def obey(self, bid: int, ask: int, until: int | None) -> None:
        """Everything at work goes, and what the script wants is sent anew."""
        wanted = {1: bid, -1: ask}
        for order in self.live:
            if order.asked is None:
                self.cancel(order, "QUOTE_CHANGE" if wanted[order.side] else "NO_DESIRED_QUOTE")
        for side, price in wanted.items():
            if price:
                self.send(side, price, "", until)
            else:
                self.refused[side] = ""

    def cancel(self, order: Order, why: str) -> None:
        order.asked, order.effective = self.now, self.now + self.spec.cancel_latency_ms * NS_PER_MS
        order.why = why
        self.write_order(order, "CANCEL_REQ", "CANCEL_PENDING")

    def send(self, side: int, price: int, none: str, until: int | None = None) -> None:
        active = self.now + self.spec.entry_latency_ms * NS_PER_MS
        order = Order(0, side, price, self.qty, self.qty, active, until)
        refusal = none or self.refusal(side, price)
        if refusal and refusal != self.refused[side]:
            self.write_order(order, "SKIP", "SKIPPED", refusal)
        self.refused[side] = refusal
        if refusal:
            return
        self.sent += 1
        order.id, order.patience = self.sent, -math.log(splitmix64(self.spec.fill.seed, self.sent))
        if self.spec.ttl_ms:
            order.expire = min(active + self.spec.ttl_ms * NS_PER_MS, until or math.inf)
        self.live.append(order)
        self.write_order(order, "PLACE", "OPEN")

    def quotes(self) -> tuple[dict[int, int], str]:
        """Wanted prices by side in ticks, or why there are none (Avellaneda and Stoikov 2008, eqs. 29 and 30)."""
        q, tick, nothing = self.spec.quote, float(self.tick), {1: 0, -1: 0}
        centre, half = float(self.mid), q.half_spread_ticks
        if q.model == "avellaneda_stoikov":
            now = [q.k] if q.k is not None else [s[3] for s in self.market.segments if s[0] <= self.now < s[1]]
            if not now:
                return nothing, "no_intensity"
            k = now[0] / tick
            variance = self.variance() if q.sigma is None else q.sigma**2
            if variance is None:
                return nothing, "no_sigma"
            centre -= self.lots / self.qty * q.gamma * variance * q.horizon_s / tick
            half = (q.gamma * variance * q.horizon_s / 2 + math.log1p(q.gamma / k) / q.gamma) / tick
        buy = min(math.floor(centre - half + 1e-9), self.book.ask - 1)
        sell = max(math.ceil(centre + half - 1e-9), self.book.bid + 1)
        return {1: max(buy, 0), -1: sell}, ""

    def variance(self) -> float | None:
        """Of the mid, quote currency squared a second; None until half of the window is known."""
        known = self.moves[-self.spec.quote.sigma_window_s :]
        ns = sum(ns for ns, _ in known)
        if ns < self.spec.quote.sigma_window_s * 10**9 / 2:
            return None
        return float(sum((Fraction(move, 2) * self.tick) ** 2 for _, move in known) / Fraction(ns, 10**9))

    def refusal(self, side: int, price: int) -> str:
        if price <= 0 or price * self.qty * self.tick * self.lot < exact(self.market.min_notional):
            return "min_notional"
        same = [o for o in self.live if o.side == side]
        after = side * self.lots + sum(o.left for o in same) + self.qty
        if self.cap is not None and after > self.cap:
            return "max_inventory"
        if self.spec.account == "margin":
            return ""
        if side == 1 and sum(self.dearest(o.price, o.left) for o in same) + self.dearest(price, self.qty) > self.cash:
            return "insufficient_cash"
        if side == -1 and sum(o.left for o in same) + self.qty > self.lots:
            return "insufficient_inventory"
        return ""

    def dearest(self, price: int, lots: int) -> Fraction:
        """What a buy may cost: the notional, the dearer fee, and a quantum a lot for the rounding of parts."""
        notional = price * lots * self.tick * self.lot
        rate = max(self.spec.maker_fee, self.spec.taker_fee, 0)
        return notional + self.fee(notional, rate) + lots * self.quantum

    def fee(self, notional: Fraction, rate: float) -> Fraction:
        return math.floor(notional * exact(rate) / self.quantum + Fraction(1, 2)) * self.quantum

    # ---- rows

    def fill(self, order: Order, lots: int, price: int, reason: str) -> None:
        taker = reason == "taker"
        notional = price * lots * self.tick * self.lot
        fee = self.fee(notional, self.spec.taker_fee if taker else self.spec.maker_fee)
        self.cash -= order.side * notional + fee
        self.lots += order.side * lots
        order.left -= lots
        self.fills.append(
            {
                "recv_ns": self.now, "order_id": order.id, "side": order.side, "price": float(price * self.tick),
                "qty": float(lots * self.lot), "fee": float(fee), "liquidity": "taker" if taker else "maker",
                "reason": reason, "mid": float(self.mid * self.tick),
            }
        )  # fmt: skip
        self.write_order(order, "FILL", "OPEN" if order.asked is None else "CANCEL_PENDING")
        if order.left == 0:
            self.write_order(order, "CLOSE_FILLED", "FILLED")
            self.live.remove(order)
        self.write_state()

    def write_order(self, order: Order, action: str, status: str, refusal: str = "") -> None:
        self.orders.append(
            {
                "recv_ns": self.now, "order_id": order.id, "action": action, "status": status, "side": order.side,
                "price": float(order.price * self.tick), "qty": float(order.size * self.lot),
                "remaining_qty": float(order.left * self.lot), "active_recv_ns": order.active,
                "expire_recv_ns": order.expire, "cancel_req_ns": order.asked, "cancel_effective_ns": order.effective,
                "reject_reason": refusal, "cancel_reason": order.why,
            }
        )  # fmt: skip

    def write_state(self) -> None:
        at_work = [o for o in self.live if o.asked is None]
        buys, sells = ([o.price for o in at_work if o.side == side] for side in (1, -1))
        mid = self.mid * self.tick
        self.state.append(
            {
                "recv_ns": self.now, "inventory": float(self.lots * self.lot), "cash": float(self.cash),
                "mid": float(mid), "mtm_value": float(self.cash + self.lots * self.lot * mid),
                "open_orders": len(self.live),
                "bid_px": float(max(buys) * self.tick) if buys else None,
                "ask_px": float(min(sells) * self.tick) if sells else None,
            }
        )  # fmt: skip


def as_table(table: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return table.check(pl.DataFrame(rows, schema=table.schema, orient="row"))
