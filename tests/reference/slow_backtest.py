"""The slow, obvious twin of the backtest: objects and lists, one `if` for each thing that may happen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal

import polars as pl

from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.sim.spec import BacktestSpec

MASK = 2**64 - 1
S_PER_NS = 1e-9


@dataclass(frozen=True)
class Market:
    """Frames (ns, seq, epoch, bid, bid lots, ask, ask lots) and prints (ns, seq, price, lots); ticks and lots."""

    frames: list[tuple[int, int, int, int, int, int, int]]
    prints: list[tuple[int, int, int, int]]
    tick: Decimal
    lot: Decimal
    segments: list[tuple[int, int, float, float]]  # start ns, end ns, A, k


@dataclass
class Order:
    """One own order."""

    id: int
    side: int
    price: int
    size: int
    left: int
    active_ns: int
    expire_ns: int | None
    threshold: float
    requested_ns: int | None = None
    effective_ns: int | None = None
    why: str = ""
    is_active: bool = False
    hazard: float = 0.0

    @property
    def end_ns(self) -> float:
        """When it is gone at the latest."""
        return min(t for t in (self.expire_ns, self.effective_ns, math.inf) if t is not None)


def draw(seed: int, order_id: int) -> float:
    """One Exp(1) number from seed and order id: splitmix64."""
    z = (seed * 0xD1342543DE82EF95 + order_id * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    return -math.log(((z >> 11) + 0.5) * 2.0**-53)


def ns(ms: float) -> int:
    """Milliseconds as nanoseconds."""
    return int(ms) * 1_000_000


@dataclass
class Twin:
    """A whole backtest; `run` fills the three lists of rows."""

    market: Market
    spec: BacktestSpec
    orders: list[dict] = field(default_factory=list)
    fills: list[dict] = field(default_factory=list)
    state: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        m, s = self.market, self.spec
        self.qty = int(Decimal(repr(s.qty)) / m.lot)
        self.cap = None if s.max_inventory is None else int(Decimal(repr(s.max_inventory)) / m.lot)
        self.cash = Decimal(repr(s.initial_cash))
        self.lots = int(Decimal(repr(s.initial_inventory)) / m.lot)
        self.live: list[Order] = []
        self.next_id = 1
        self.now = 0
        self.book: tuple | None = None
        self.taken = {1: 0, -1: 0}
        self.decided: int | None = None
        self.skip = {1: "", -1: ""}
        self.sample: tuple[int, int] | None = None
        self.moves: list[tuple[int, int]] = []

    # -- the walk ------------------------------------------------------------------------------------

    def run(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Every event in order of (ns, seq); prints before the first frame meet nobody."""
        m = self.market
        events = [(f[0], f[1], "frame", f) for f in m.frames] + [(p[0], p[1], "print", p) for p in m.prints]
        epoch = None
        for t, _, kind, event in sorted(events, key=lambda e: (e[0], e[1])):
            if self.book is None and kind == "print":
                continue
            self.live_until(t)
            if kind == "print":
                if self.spec.fill.model == "trade_cross":
                    self.on_print(t, event[2], event[3])
                continue
            self.book, self.taken = event, {1: 0, -1: 0}
            self.on_frame(t, epoch is not None and event[2] != epoch)
            epoch = event[2]
        last = max(e[0] for e in events)
        if self.state[-1]["recv_ns"] < last:
            self.write_state(last)
        return self.table(ORDERS, self.orders), self.table(FILLS, self.fills), self.table(STATE, self.state)

    def table(self, contract, rows) -> pl.DataFrame:
        """Rows as a table that meets its contract."""
        return contract.check(pl.DataFrame(rows, schema=contract.schema, orient="row"))

    # -- time between events -------------------------------------------------------------------------

    def live_until(self, t: int) -> None:
        """Everything that happens by itself up to t, in order of time: fills by the clock, ends, activations."""
        while True:
            due = [(o.end_ns, 0, i) for i, o in enumerate(self.live) if o.end_ns <= t]
            due += [(o.active_ns, 1, i) for i, o in enumerate(self.live) if not o.is_active and o.active_ns <= t]
            when, kind, which = min(due, default=(t, 2, -1))
            if self.live and self.spec.fill.model == "poisson" and when > self.now:
                reached = self.live_by_the_clock(int(when))
                self.now = reached
                if reached < when or self.just_filled:
                    continue
            self.now = int(when)
            if which < 0:
                return
            order = self.live[which]
            if kind == 0:
                self.end(order)
            else:
                self.activate(order)

    def live_by_the_clock(self, until: int) -> int:
        """Live on with constant rates, to `until`, to where a rate changes, or to the first fill."""
        self.just_filled = False
        dead = self.book[0] + ns(self.spec.fill.max_book_age_ms)
        edges = [t for a, b, _, _ in self.market.segments for t in (a, b)] + [dead]
        stop = min([until, *(t for t in edges if t > self.now)])
        inside = [(A, k) for a, b, A, k in self.market.segments if a <= self.now < b and self.now < dead]
        if not inside:
            return stop
        [(A, k)] = inside
        active = [o for o in self.live if o.is_active]
        rates = [A * math.exp(min(-k * (o.side * (self.mid2 - 2 * o.price) / 2.0), 50.0)) for o in active]
        first = None
        for order, rate in zip(active, rates, strict=True):
            left = (order.threshold - order.hazard) / rate / S_PER_NS if rate > 0 else math.inf
            wait = max(math.ceil(left), 0) if left < 9e18 else math.inf
            if self.now + wait < stop:
                first, stop = order, self.now + wait
        for order, rate in zip(active, rates, strict=True):
            order.hazard += rate * ((stop - self.now) * S_PER_NS)
        if first is not None:
            self.just_filled = True
            self.fill(stop, first, first.left, first.price, "poisson")
        return stop

    just_filled = False

    def end(self, order: Order) -> None:
        """Its time to live is over, or its cancel takes effect."""
        expired = order.expire_ns is not None and (order.effective_ns is None or order.expire_ns < order.effective_ns)
        if expired:
            order.why = "TTL_EXPIRE"
        action, status = ("EXPIRE", "EXPIRED") if expired else ("CANCEL_ACK", "CANCELLED")
        self.write_order(self.now, order, action, status)
        self.live.remove(order)

    def activate(self, order: Order) -> None:
        """It reaches the book of the last frame: rests, is refused, or takes from the touch."""
        _, _, _, bid, bid_lots, ask, ask_lots = self.book
        crosses = order.price >= ask if order.side == 1 else order.price <= bid
        if crosses and self.spec.post_only:
            self.write_order(self.now, order, "REJECT", "REJECTED", "post_only_would_cross")
            self.live.remove(order)
            return
        order.is_active = True
        if crosses:
            touch, shown = (ask, ask_lots) if order.side == 1 else (bid, bid_lots)
            lots = min(order.left, shown - self.taken[order.side])
            if lots > 0:
                self.taken[order.side] += lots
                self.fill(self.now, order, lots, touch, "taker")

    # -- events --------------------------------------------------------------------------------------

    def on_print(self, t: int, price: int, lots: int) -> None:
        """Share the print: buys at or above its price, sells at or below, best first, then oldest."""
        beyond = 1 if self.spec.fill.reach == "through" else 0
        hit = [o for o in self.live if o.is_active and o.side * (o.price - price) >= beyond]
        for order in sorted(hit, key=lambda o: (-o.side * o.price, o.id)):
            part = min(lots, order.left)
            if part > 0:
                lots -= part
                self.fill(t, order, part, order.price, "trade_cross")

    def on_frame(self, t: int, fresh: bool) -> None:
        """A new book: sample the mid, and decide if it is time."""
        if fresh or self.sample is None:
            self.sample = (t, self.mid2)
        elif t - self.sample[0] >= 10**9:
            self.moves.append((t - self.sample[0], (self.mid2 - self.sample[1]) ** 2))
            self.moves = self.moves[-self.spec.quote.sigma_window_s :]
            self.sample = (t, self.mid2)
        if self.decided is None or t - self.decided >= ns(self.spec.requote_interval_ms):
            self.decided = t
            self.decide(t)
            self.write_state(t)

    def decide(self, t: int) -> None:
        """Wanted against open: cancel what stands elsewhere, then send what is missing, the buy first."""
        wanted, why = self.quotes(t)
        kept = set()
        for order in self.live:
            if order.requested_ns is not None:
                continue
            if not why and order.price == wanted[order.side]:
                kept.add(order.side)
                continue
            order.requested_ns, order.effective_ns = t, t + ns(self.spec.cancel_latency_ms)
            order.why = "NO_DESIRED_QUOTE" if why else "QUOTE_CHANGE"
            self.write_order(t, order, "CANCEL_REQ", "CANCEL_PENDING")
        for side in (1, -1):
            if side in kept:
                self.skip[side] = ""
                continue
            active = t + ns(self.spec.entry_latency_ms)
            order = Order(0, side, wanted[side], self.qty, self.qty, active, None, 0.0)
            refusal = why or self.refusal(side, wanted[side])
            if refusal:
                if refusal != self.skip[side]:
                    self.write_order(t, order, "SKIP", "SKIPPED", refusal)
                self.skip[side] = refusal
                continue
            self.skip[side] = ""
            order.id, order.threshold = self.next_id, draw(self.spec.fill.seed, self.next_id)
            order.expire_ns = active + ns(self.spec.ttl_ms) if self.spec.ttl_ms else None
            self.next_id += 1
            self.live.append(order)
            self.write_order(t, order, "PLACE", "OPEN")

    def quotes(self, t: int) -> tuple[dict[int, int], str]:
        """Wanted prices by side, in ticks, or why there are none."""
        _, _, _, bid, _, ask, _ = self.book
        q, tick = self.spec.quote, float(self.market.tick)
        mid, shift, half = (bid + ask) / 2.0, 0.0, q.half_spread_ticks
        if q.model == "avellaneda_stoikov":
            k_ticks = q.k
            if k_ticks is None:
                now = [k for a, b, _, k in self.market.segments if a <= t < b]
                if not now:
                    return {1: 0, -1: 0}, "no_intensity"
                [k_ticks] = now
            if q.sigma is not None:
                variance = q.sigma**2
            else:
                elapsed = sum(dt for dt, _ in self.moves)
                if 2 * elapsed < q.sigma_window_s * 10**9:
                    return {1: 0, -1: 0}, "no_sigma"
                variance = sum(m for _, m in self.moves) / 4.0 * tick**2 / (elapsed * S_PER_NS)
            k_price = k_ticks / tick
            risk = q.gamma * variance * q.horizon_s
            shift = self.lots / self.qty * risk / tick
            half = (risk / 2 + math.log1p(q.gamma / k_price) / q.gamma) / tick
        buy = min(math.floor(mid - shift - half + 1e-9), ask - 1)
        sell = max(math.ceil(mid - shift + half - 1e-9), bid + 1)
        return {1: max(buy, 0), -1: sell}, ""

    def refusal(self, side: int, price: int) -> str:
        """Why an order may not be sent: what live orders may need is set aside for them."""
        s = self.spec
        if price <= 0:
            return "min_notional"
        same = sum(o.left for o in self.live if o.side == side)
        if self.cap is not None and side * self.lots + same + self.qty > self.cap:
            return "max_inventory"
        if s.account == "spot" and side == 1:
            held = sum(self.cost(o.price, o.left) for o in self.live if o.side == 1)
            if self.cash - held < self.cost(price, self.qty):
                return "insufficient_cash"
        if s.account == "spot" and side == -1:
            held = sum(o.left for o in self.live if o.side == -1)
            if self.lots - held < self.qty:
                return "insufficient_inventory"
        return ""

    def cost(self, price: int, lots: int) -> Decimal:
        """The most that a buy may cost: notional, the dearer fee, and 1e-8 a lot for rounding."""
        notional = price * lots * self.market.tick * self.market.lot
        dearest = max(self.spec.maker_fee, self.spec.taker_fee, 0.0)
        return notional + self.fee(notional, dearest) + lots * Decimal("1e-8")

    @staticmethod
    def fee(notional: Decimal, rate: float) -> Decimal:
        """Rounded half up (towards plus infinity) to 1e-8."""
        exact = notional * Decimal(repr(rate)) * 10**8
        return Decimal(math.floor(exact + Decimal("0.5"))) / 10**8

    # -- what is written -----------------------------------------------------------------------------

    def fill(self, t: int, order: Order, lots: int, price: int, reason: str) -> None:
        """Money and lots change hands; rows in all three tables."""
        m = self.market
        notional = price * lots * m.tick * m.lot
        fee = self.fee(notional, self.spec.taker_fee if reason == "taker" else self.spec.maker_fee)
        self.cash -= order.side * notional + fee
        self.lots += order.side * lots
        order.left -= lots
        self.fills.append(
            {
                "recv_ns": t, "order_id": order.id, "side": order.side, "price": float(price * m.tick),
                "qty": float(lots * m.lot), "fee": float(fee), "liquidity": "taker" if reason == "taker" else "maker",
                "reason": reason, "mid": float(self.mid2 * m.tick / 2),
            }
        )  # fmt: skip
        self.write_order(t, order, "FILL", "OPEN" if order.requested_ns is None else "CANCEL_PENDING")
        if order.left == 0:
            self.write_order(t, order, "CLOSE_FILLED", "FILLED")
            self.live.remove(order)
        self.write_state(t)

    def write_order(self, t: int, o: Order, action: str, status: str, refused: str = "") -> None:
        """One row of `orders`."""
        m = self.market
        self.orders.append(
            {
                "recv_ns": t, "order_id": o.id, "action": action, "status": status, "side": o.side,
                "price": float(o.price * m.tick), "qty": float(o.size * m.lot), "remaining_qty": float(o.left * m.lot),
                "active_recv_ns": o.active_ns, "expire_recv_ns": o.expire_ns, "cancel_req_ns": o.requested_ns,
                "cancel_effective_ns": o.effective_ns, "reject_reason": refused, "cancel_reason": o.why,
            }
        )  # fmt: skip

    def write_state(self, t: int) -> None:
        """One row of `state`."""
        m = self.market
        own = {side: [o.price for o in self.live if o.side == side and o.requested_ns is None] for side in (1, -1)}
        value = self.cash + self.lots * m.lot * self.mid2 * m.tick / 2
        self.state.append(
            {
                "recv_ns": t, "inventory": float(self.lots * m.lot), "cash": float(self.cash),
                "mid": float(self.mid2 * m.tick / 2), "mtm_value": float(value), "open_orders": len(self.live),
                "bid_px": float(max(own[1]) * m.tick) if own[1] else None,
                "ask_px": float(min(own[-1]) * m.tick) if own[-1] else None,
            }
        )  # fmt: skip

    @property
    def mid2(self) -> int:
        """The mid in half ticks."""
        return self.book[3] + self.book[5]
