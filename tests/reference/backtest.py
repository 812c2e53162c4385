"""The slow obvious twin of the backtest: objects, lists, Python integers and fractions; ticks, lots, ns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import polars as pl

from mmlab.core.schemas import FILLS, ORDERS, STATE
from mmlab.core.table import Table
from mmlab.sim.spec import BacktestSpec
from mmlab.sim.strategy import MEMORY, View

NS_PER_MS = 1_000_000
WORD = 2**64
HOUR = 3_600 * 10**9
Line = tuple[int, int, int | None]  # of a script: bid, ask (0: no order), and when their orders end
Wanted = dict[int, list[tuple[int, int]]]  # by side: price and lots (0: none) of each level, the innermost first


@dataclass(frozen=True)
class Frame:
    ns: int
    seq: int
    epoch: int
    bid: int
    bid_lots: int
    ask: int
    ask_lots: int
    deeper: tuple[tuple[int, int, int, int], ...] = ()  # bid, lots, ask, lots of the second level on; 0: none
    event: int | None = None  # the venue's time; None: at its receipt

    def levels(self, side: int, n: int) -> list[tuple[int, int]]:
        """Price and lots of the first n bids (side 1) or asks."""
        every = [(self.bid, self.bid_lots, self.ask, self.ask_lots), *self.deeper][:n]
        return [(bid, shown) if side == 1 else (ask, offered) for bid, shown, ask, offered in every]


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
    over: str = ""  # its last status, once it is over at the venue
    known: int = 0  # what is left of it as far as reports tell
    queue: int | None = None  # what stands before it; None: not known
    ahead: int | None = None  # the same at the last print at its price
    shown: int | None = None  # at its price in the last book, while that is the touch
    traded: int = 0  # at its price since that book

    @property
    def end(self) -> int | None:
        return min((t for t in (self.expire, self.effective) if t is not None), default=None)

    @property
    def is_open(self) -> bool:
        return self.resting and not self.over


@dataclass
class Report:
    at: int
    order: Order
    lots: int
    cash: Fraction
    is_last: bool


def splitmix64(seed: int, number: int) -> float:
    """Steele, Lea and Flood (2014), stream `seed`, as a number of 53 bits between 0 and 1."""
    z = (seed * 0xD1342543DE82EF95 + number * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    z = z ^ (z >> 31)
    return ((z >> 11) + 0.5) / 2**53


def exact(decimal: float | str) -> Fraction:
    return Fraction(str(decimal))


@dataclass
class Twin:
    """`series` are measured latencies by kind: (time, latency) in ns. `strategy` is a function of the user's."""

    market: Market
    spec: BacktestSpec
    script: dict[int, Line] | None = None
    series: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    strategy: Callable[[View], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        market, spec = self.market, self.spec
        self.tick, self.lot = exact(market.tick), exact(market.lot)
        self.quantum = Fraction(1, 10**8)
        while (self.tick * self.lot / self.quantum).denominator != 1:
            self.quantum /= 10
        self.qty = self.in_lots(spec.qty)
        self.lots = self.known_lots = self.in_lots(spec.initial_inventory)
        self.cap = None if spec.max_inventory is None else self.in_lots(spec.max_inventory)
        self.cash = self.known_cash = exact(spec.initial_cash)
        self.now, self.decided = 0, -math.inf
        self.book: Frame | None = None
        self.offered: dict[int, list[list[int]]] = {}
        self.sent_at: list[int] = []
        self.live: list[Order] = []
        self.reports: list[Report] = []
        self.n_reported = 0
        self.refused: dict[tuple[int, int], str] = {}
        self.sampled: tuple[int, int] | None = None
        self.moves: list[tuple[int, int]] = []
        self.memory = [0.0] * MEMORY
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
            elif self.spec.fill.model in ("trade_cross", "hybrid"):
                self.share(event)
        if not self.state or (self.state[-1]["recv_ns"], self.state[-1]["mid"]) != (
            self.now,
            float(self.mid * self.tick),
        ):
            self.write_state()
        made = ((ORDERS, self.orders), (FILLS, self.fills), (STATE, self.state))
        return {table.name: as_table(table, rows) for table, rows in made}

    # ---- how long things take

    def latency(self, kind: str, number: int) -> int:
        """Of entry, cancel or response: measured, drawn, or constant."""
        if kind in self.series:
            measured = self.series[kind]
            return [ns for t, ns in measured if t <= self.now][-1] if measured[0][0] <= self.now else measured[0][1]
        constant = getattr(self.spec, f"{kind}_latency_ms") * NS_PER_MS
        name, _, size = self.spec.latency_jitter.partition(":")
        u = splitmix64(self.spec.fill.seed, number + ((("entry", "cancel", "response").index(kind) + 1) << 48))
        p = (math.floor(u * 4096) + 0.5) / 4096
        if name == "exponential":
            return round(constant - float(size) * NS_PER_MS * math.log(1 - p))
        if name == "lognormal" and constant:
            return round(constant * math.exp(float(size) * NormalDist().inv_cdf(p)))
        return constant

    def feed_latency(self) -> int:
        """How old the book is: beyond the least of the past hour, which is the clocks' offset and the fastest way."""
        if self.spec.feed_latency != "recorded":
            return math.floor(float(self.spec.feed_latency) * NS_PER_MS)
        known = [f for f in self.market.frames if f.ns <= self.now]
        ages = [(f.ns, f.ns - (f.ns if f.event is None else f.event)) for f in known]
        least = min(age for ns, age in ages if ns >= known[-1].ns - HOUR)
        return ages[-1][1] - least + self.spec.feed_floor_ms * NS_PER_MS

    def report(self, order: Order, lots: int, cash: Fraction, is_last: bool) -> None:
        self.n_reported += 1
        at = self.now + self.latency("response", self.n_reported)
        self.last_report = max(at, getattr(self, "last_report", at))
        self.reports.append(Report(self.last_report, order, lots, cash, is_last))

    def learn(self) -> None:
        for report in [r for r in self.reports if r.at <= self.now]:
            self.reports.remove(report)
            self.known_lots += report.lots
            self.known_cash += report.cash
            report.order.known -= abs(report.lots)
            if report.is_last:
                self.live.remove(report.order)

    # ---- between two events

    def something_happens_before(self, t: int) -> bool:
        """The next end, activation or fill by the clock up to t; ends come before activations, old before young."""
        there = [(i, o) for i, o in enumerate(self.live) if not o.over]
        ends = [(o.end, 0, i) for i, o in there if o.end is not None and o.end <= t]
        starts = [(o.active, 1, i) for i, o in there if not o.resting and o.active <= t]
        when, what, which = min(ends + starts, default=(t, 2, 0))
        if self.spec.fill.model in ("poisson", "hybrid") and self.clock_fills_before(when):
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
        resting = [o for o in self.live if o.is_open]
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
        if order.effective is not None and order.effective == order.end:
            self.is_over(order, "CANCEL_ACK", "CANCELLED")
        else:
            self.expires(order, "TTL_EXPIRE")

    def expires(self, order: Order, why: str) -> None:
        order.why = why
        self.is_over(order, "EXPIRE", "EXPIRED")

    def is_over(self, order: Order, action: str, status: str, refusal: str = "") -> None:
        """At the venue, which sends word of it."""
        self.write_order(order, action, status, refusal)
        order.over = status
        self.report(order, 0, Fraction(0), True)

    def arrive(self, order: Order) -> None:
        crosses = order.side * order.price >= order.side * (self.book.ask if order.side == 1 else self.book.bid)
        if crosses and self.spec.post_only:
            self.is_over(order, "REJECT", "REJECTED", "post_only_would_cross")
            return
        order.resting = True
        self.join(order)
        if crosses:
            self.take(order, order.price, "taker")
        if self.spec.time_in_force == "IOC" and not order.over:
            self.expires(order, "IOC")

    def take(self, order: Order, limit: int, reason: str) -> None:
        """What the other side still offers up to `limit`, the best price first."""
        for level in self.offered[order.side]:
            price, lots = level
            part = min(order.left, lots)
            if order.side * price <= order.side * limit and part > 0:
                level[1] -= part
                self.fill(order, part, price if reason == "taker" else order.price, reason)

    # ---- the queue before an order

    def join(self, order: Order) -> None:
        """All that is shown at the touch is before it; nothing where it is better; behind the touch nobody knows."""
        touch, shown = self.touch(order.side)
        better = order.side * (order.price - touch)
        order.queue = 0 if better > 0 else shown if better == 0 else None
        order.shown, order.traded = (shown if better == 0 else None), 0

    def touch(self, side: int) -> tuple[int, int]:
        return (self.book.bid, self.book.bid_lots) if side == 1 else (self.book.ask, self.book.ask_lots)

    def queue_sees_book(self, order: Order) -> None:
        if order.queue is None:
            self.join(order)
            return
        touch, shown = self.touch(order.side)
        better = order.side * (order.price - touch)
        if better > 0:
            order.queue = 0
        if better == 0:
            if self.spec.fill.queue_cancels == "proportional" and order.shown is not None:
                before = order.shown - order.traded
                cancelled = max(before - shown, 0)
                order.queue -= math.floor(Fraction(cancelled * order.queue, before)) if cancelled else 0
            order.queue = min(order.queue, shown)
        order.shown, order.traded = (shown if better == 0 else None), 0

    # ---- events

    def share(self, event: Print) -> None:
        """Best price first, then oldest; own crossed orders: the side of the oldest one that is reached.

        At its very price, the queue before an order has its part of the print before any own order there.
        """
        queues, left = self.spec.fill.reach == "queue", event.lots
        for order in self.live:
            if order.is_open and order.price == event.price:
                order.ahead = order.queue
                order.traded += event.lots
                order.queue = None if order.queue is None else max(order.queue - event.lots, 0)
        while left > 0:
            hit = {}
            for order in [o for o in self.live if o.is_open]:
                beyond = order.side * (order.price - event.price)
                room = left
                if queues and beyond == 0:
                    room = 0 if order.ahead is None else left - order.ahead
                if room > 0 and beyond >= (1 if self.spec.fill.reach == "through" else 0):
                    hit[order] = room
            if not hit:
                return
            side = next(iter(hit)).side
            best = max((o for o in hit if o.side == side), key=lambda o: (o.side * o.price, -o.id))
            part = min(hit[best], best.left)
            left -= part
            self.fill(best, part, best.price, "trade_cross")

    def see(self, frame: Frame) -> None:
        cut = self.book is not None and self.book.epoch != frame.epoch
        self.book = frame
        depth = self.spec.fill.book_levels
        self.offered = {side: [list(level) for level in frame.levels(-side, depth) if level[0]] for side in (1, -1)}
        for order in self.live:
            if order.is_open:
                self.queue_sees_book(order)
        if self.spec.fill.model == "price_cross":
            self.cross()
        mid2 = frame.bid + frame.ask
        if self.sampled is None or cut:
            self.sampled = (frame.ns, mid2)
        elif frame.ns - self.sampled[0] >= 10**9:
            self.moves.append((frame.ns - self.sampled[0], mid2 - self.sampled[1]))
            self.sampled = (frame.ns, mid2)
        if self.script is not None:
            line = self.script.get(self.market.frames.index(frame))
            if line is not None:
                self.learn()
                self.obey(*line)
                self.write_state()
        elif frame.ns - self.decided >= self.spec.requote_interval_ms * NS_PER_MS:
            self.decided = frame.ns
            self.learn()
            self.decide()
            self.write_state()

    def cross(self) -> None:
        """A book that reaches resting orders fills them as far as it shows, best price first, then oldest."""
        beyond = 1 if self.spec.fill.reach == "through" else 0
        for side in (1, -1):
            mine = [o for o in self.live if o.is_open and o.side == side]
            for order in sorted(mine, key=lambda o: (-side * o.price, o.id)):
                self.take(order, order.price - side * beyond, "price_cross")

    def decide(self) -> None:
        wanted, none = self.quotes()
        kept: set[tuple[int, int]] = set()
        for order in self.live:
            if order.asked is not None:
                continue
            stays = [
                (order.side, level)
                for level, (price, lots) in enumerate(wanted[order.side])
                if lots and abs(price - order.price) < self.spec.min_move_ticks and (order.side, level) not in kept
            ]
            if stays and not none:
                kept.add(stays[0])
            else:
                nothing = none or not any(lots for _, lots in wanted[order.side])
                self.cancel(order, "NO_DESIRED_QUOTE" if nothing else "QUOTE_CHANGE")
        for side in (1, -1):
            for level, (price, lots) in enumerate(wanted[side]):
                if lots and (side, level) not in kept:
                    self.send(side, level, price, lots, none)
                else:
                    self.refused[side, level] = ""

    def obey(self, bid: int, ask: int, until: int | None) -> None:
        """Everything at work goes, and what the script wants is sent anew."""
        wanted = {1: bid, -1: ask}
        for order in self.live:
            if order.asked is None:
                self.cancel(order, "QUOTE_CHANGE" if wanted[order.side] else "NO_DESIRED_QUOTE")
        for side, price in wanted.items():
            if price:
                self.send(side, 0, price, self.qty, "", until)
            else:
                self.refused[side, 0] = ""

    def cancel(self, order: Order, why: str) -> None:
        order.asked = self.now
        if order.over:
            self.write_order(order, "CANCEL_REJECT", order.over, "order_is_gone")
            return
        order.effective = self.now + self.latency("cancel", order.id) + self.feed_latency()
        order.why = why
        self.write_order(order, "CANCEL_REQ", "CANCEL_PENDING")

    def send(self, side: int, level: int, price: int, lots: int, none: str, until: int | None = None) -> None:
        if self.spec.size_to_balance and not none and price > 0:
            lots = max((n for n in range(1, lots + 1) if not self.unpaid(side, price, n)), default=lots)
        number = len(self.sent_at) + 1
        active = self.now + self.latency("entry", number) + self.feed_latency()
        order = Order(0, side, price, lots, lots, active, until, known=lots)
        refusal = none or self.refusal(side, price, lots)
        if refusal and refusal != self.refused.get((side, level), ""):
            self.write_order(order, "SKIP", "SKIPPED", refusal)
        self.refused[side, level] = refusal
        if refusal:
            return
        self.sent_at.append(self.now)
        order.id, order.patience = number, -math.log(splitmix64(self.spec.fill.seed, number))
        if self.spec.ttl_ms:
            order.expire = min(active + self.spec.ttl_ms * NS_PER_MS, until or math.inf)
        self.live.append(order)
        self.write_order(order, "PLACE", "OPEN")

    # ---- what is wanted

    def quotes(self) -> tuple[Wanted, str]:
        """What is wanted on each side in ticks and lots, or why nothing is."""
        q = self.spec.quote
        outward = list(q.deltas) or [i * q.level_step_ticks for i in range(q.levels)]
        if self.strategy is not None:
            return self.ask_the_user(outward), ""
        inventory = self.known_lots / self.qty
        centre, half = float(self.mid), q.half_spread_ticks
        if q.model in ("avellaneda_stoikov", "glft"):
            shift, half, none = self.formula(inventory)
            if none:
                nothing = [(0, self.qty)] + [(0, 0)] * (len(outward) - 1)
                return {1: nothing, -1: nothing}, none
            centre -= shift
        elif q.model == "ladder":
            half = 0.0
        elif q.model == "inventory_skew":
            centre -= q.skew_ticks * inventory
        elif q.model == "microprice":
            book = self.book
            if book.bid_lots + book.ask_lots:
                leaned = book.bid * book.ask_lots + book.ask * book.bid_lots
                centre = float(Fraction(leaned, book.bid_lots + book.ask_lots))
            centre -= q.skew_ticks * inventory
        wanted: Wanted = {1: [], -1: []}
        highest, lowest = self.book.ask - 1, self.book.bid + 1
        for out in outward:
            buy = max(min(math.floor(centre - half - out + 1e-9), highest), 0)
            sell = max(math.ceil(centre + half + out - 1e-9), lowest)
            wanted[1].append((buy, self.qty))
            wanted[-1].append((sell, self.qty))
            highest, lowest = buy - 1, sell + 1
        return wanted, ""

    def formula(self, inventory: float) -> tuple[float, float, str]:
        """Shift of the centre and half spread in ticks: Avellaneda and Stoikov (2008), eqs. 29 and 30, or the
        closed form of Gueant, Lehalle and Fernandez-Tapia (2013)."""
        q, tick = self.spec.quote, float(self.tick)
        inside = [s for s in self.market.segments if s[0] <= self.now < s[1]]
        if not inside and (q.k is None or (q.model == "glft" and q.A is None)):
            return 0.0, 0.0, "no_intensity"
        A = inside[0][2] if q.A is None and inside else q.A
        k = (inside[0][3] if q.k is None else q.k) / tick
        variance = self.variance() if q.sigma is None else q.sigma**2
        if variance is None:
            return 0.0, 0.0, "no_sigma"
        g = q.gamma
        if q.model == "glft":
            c1 = math.log1p(g / k) / g
            s = math.sqrt(variance * g / (2 * k * A)) * (1 + g / k) ** ((1 + k / g) / 2)
            return inventory * s / tick, (c1 + s / 2) / tick, ""
        tau = q.horizon_s
        if q.horizon == "session":
            length = round(q.horizon_s * 10**9)
            tau = (length - (self.now - self.market.frames[0].ns) % length) * 1e-9
        half = g * variance * tau / 2 + math.log1p(g / k) / g
        return inventory * g * variance * tau / tick, half / tick, ""

    def variance(self) -> float | None:
        """Of the mid, quote currency squared a second; None until enough of the past is known."""
        q = self.spec.quote
        if q.sigma_method == "ewma":
            if sum(ns for ns, _ in self.moves) < q.sigma_halflife_s * 10**9:
                return None
            age, time, squares = 0.0, 0.0, 0.0
            for ns, move in reversed(self.moves):
                weight = 0.5 ** (age / q.sigma_halflife_s)
                time, squares, age = time + weight * ns / 1e9, squares + weight * move**2, age + ns / 1e9
            return squares / 4 * float(self.tick) ** 2 / time
        known = self.moves[-q.sigma_window_s :]
        ns = sum(ns for ns, _ in known)
        if ns < q.sigma_window_s * 10**9 / 2:
            return None
        return float(sum((Fraction(move, 2) * self.tick) ** 2 for _, move in known) / Fraction(ns, 10**9))

    def ask_the_user(self, outward: list[float]) -> Wanted:
        q, book, inside = self.spec.quote, self.book, [s for s in self.market.segments if s[0] <= self.now < s[1]]
        variance = self.variance() if q.sigma is None else q.sigma**2
        view = View(
            t_ns=self.now,
            bid=float(book.bid * self.tick),
            ask=float(book.ask * self.tick),
            bid_qty=float(book.bid_lots * self.lot),
            ask_qty=float(book.ask_lots * self.lot),
            mid=float(self.mid * self.tick),
            inventory=float(self.known_lots * self.lot),
            cash=float(self.known_cash),
            sigma=math.nan if variance is None else math.sqrt(variance),
            A=inside[0][2] if inside else math.nan,
            k=inside[0][3] if inside else math.nan,
            tick_size=float(self.tick),
            qty=self.spec.qty,
            memory=self.memory,
        )
        said = self.strategy(view)
        bid, ask, bid_qty, ask_qty = said if len(said) == 4 else (*said, self.spec.qty, self.spec.qty)
        wanted: Wanted = {}
        for side, price, qty in ((1, bid, bid_qty), (-1, ask, ask_qty)):
            lots = math.floor(Fraction(qty) / self.lot + Fraction(1, 10**6)) if qty > 0 else 0
            if math.isnan(price):
                wanted[side] = [(0, 0)] * len(outward)
                continue
            nearest = side * (book.ask if side == 1 else book.bid) - 1 if self.spec.post_only else math.inf
            wanted[side] = []
            for out in outward:
                inward = side * Fraction(price) / self.tick - Fraction(out) + Fraction(1, 10**6)
                nearest = min(math.floor(inward), nearest)
                wanted[side].append((max(side * nearest, 0), lots))
                nearest -= 1
        return wanted

    # ---- what may be sent, as far as is known

    def refusal(self, side: int, price: int, lots: int) -> str:
        if price <= 0 or price * lots * self.tick * self.lot < exact(self.market.min_notional):
            return "min_notional"
        after = side * self.known_lots + sum(o.known for o in self.live if o.side == side) + lots
        if self.cap is not None and after > self.cap:
            return "max_inventory"
        if self.unpaid(side, price, lots):
            return self.unpaid(side, price, lots)
        leverage = exact(self.spec.leverage)
        equity = self.known_cash + self.known_lots * self.lot * self.mid * self.tick
        if leverage and after > 0 and after * self.lot * price * self.tick > leverage * equity:
            return "insufficient_margin"
        limit = self.spec.orders_per_10s
        if limit and len([t for t in self.sent_at if t > self.now - 10 * 10**9]) >= limit:
            return "order_limit"
        return ""

    def unpaid(self, side: int, price: int, lots: int) -> str:
        """Whether a spot account lacks what an order may need, beside what the others may."""
        same = [o for o in self.live if o.side == side]
        if self.spec.account == "margin":
            return ""
        reserved = sum(self.dearest(o.price, o.known) for o in same)
        if side == 1 and reserved + self.dearest(price, lots) > self.known_cash:
            return "insufficient_cash"
        if side == -1 and sum(o.known for o in same) + lots > self.known_lots:
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
        self.report(order, order.side * lots, -(order.side * notional + fee), False)
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
            self.is_over(order, "CLOSE_FILLED", "FILLED")
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
        at_work = [o for o in self.live if o.asked is None and not o.over]
        buys, sells = ([o.price for o in at_work if o.side == side] for side in (1, -1))
        mid = self.mid * self.tick
        self.state.append(
            {
                "recv_ns": self.now, "inventory": float(self.lots * self.lot), "cash": float(self.cash),
                "mid": float(mid), "mtm_value": float(self.cash + self.lots * self.lot * mid),
                "open_orders": len([o for o in self.live if not o.over]),
                "bid_px": float(max(buys) * self.tick) if buys else None,
                "ask_px": float(min(sells) * self.tick) if sells else None,
            }
        )  # fmt: skip


def as_table(table: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return table.check(pl.DataFrame(rows, schema=table.schema, orient="row"))
