"""The slow obvious twin of the grid: docs/grid.md word for word, with objects, lists and Python floats.

`run` is the only entry. The numbers in brackets are the sections of docs/grid.md; a comment that begins with "Read:"
marks a place where the page leaves a choice, and says which one was taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from statistics import NormalDist, fmean

from mmlab.grid.params import GridParams, VenueParams

LONG, SHORT = 1, -1
SAME = 1e-12  # two quantities that differ by less than this part of themselves are the same
HOUR_MS = 3_600_000
OPENED = {LONG: "BUY_OPEN_LONG", SHORT: "SELL_OPEN_SHORT"}
TAKEN = {LONG: "SELL_CLOSE_LONG", SHORT: "BUY_CLOSE_SHORT"}
STOPPED = {LONG: "STOP_LONG", SHORT: "STOP_SHORT"}
LABELS = (
    *OPENED.values(), *TAKEN.values(), *STOPPED.values(), "PRUNE_VAR_WARNING", "PRUNE_DEVIANCE", "PRUNE_OLDEST",
    "PRUNE_GAP", "PRUNE_FUNDING", "PRUNE_OFFSET", "LIQUIDATION", "FINAL_CLOSE",
)  # fmt: skip
TIERS = (  # notional up to, rate, amount
    (50_000.0, 0.004, 0.0),
    (250_000.0, 0.005, 50.0),
    (1_000_000.0, 0.01, 1_300.0),
    (5_000_000.0, 0.025, 16_300.0),
    (25_000_000.0, 0.05, 141_300.0),
    (100_000_000.0, 0.10, 1_391_300.0),
    (math.inf, 0.125, 3_891_300.0),
)
Candle = tuple[int, float, float, float, float]  # open ms, open, high, low, close


@dataclass(frozen=True)
class Row:
    """One bar, all known at its close."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    mean_volume: float
    atr: float
    z: float
    sigma: float
    kama: float
    er: float
    regime: int
    rate: float


@dataclass
class Result:
    """What happened: fills, funding and insurance in the order of time, and one row of `equity` a bar."""

    fills: list[dict] = field(default_factory=list)
    funding: list[dict] = field(default_factory=list)
    insurance: list[dict] = field(default_factory=list)
    equity: list[dict] = field(default_factory=list)
    verdicts: list[tuple[int, int, str]] = field(default_factory=list)  # bar, side (0: both), what a guard did
    liquidated: list[tuple[int, float]] = field(default_factory=list)  # candle, price before slippage


@dataclass(eq=False)
class Lot:
    price: float
    qty: float
    opened_ms: int  # when the candle that filled it opened
    candle: int
    fee: float  # what opening it cost
    regime: int
    paid: float = 0.0  # funding, net of what was received
    net: float = 0.0  # profit of the parts closed so far, less their fees


@dataclass(frozen=True)
class Order:
    price: float
    qty: float


@dataclass(frozen=True)
class Market:
    """A market order of the last decision: a lot, or a quantity first in first out."""

    label: str
    qty: float
    lot: Lot | None = None


@dataclass(eq=False)
class Position:
    """One side: what it holds, what rests for it, and what the strategy remembers of it."""

    side: int
    lots: list[Lot] = field(default_factory=list)
    entries: list[Order] = field(default_factory=list)
    exits: list[Order] = field(default_factory=list)
    stop: float | None = None
    market: Market | None = None
    stage_1_fired: bool = False
    stop_fired: bool = False  # the resting one, since the last decision
    last_prune: int | None = None
    kept_profit: float = 0.0

    @property
    def qty(self) -> float:
        return sum(lot.qty for lot in self.lots)

    def profit(self, price: float) -> float:
        return sum(self.side * (price - lot.price) * lot.qty for lot in self.lots)

    def withdraw(self) -> None:
        self.entries, self.exits, self.stop, self.market = [], [], None, None


@dataclass(frozen=True)
class Grid:
    """Where the last grid was laid."""

    anchor: float
    r: float
    p: float
    regime: int
    spacing: dict[int, float]


def run(
    rows: list[Row],
    candles: list[list[Candle]],
    settlements: list[tuple[int, float]],
    interval_ms: int,
    params: GridParams,
    venue: VenueParams,
) -> Result:
    """The whole backtest; candles[i] are those of bar i, settlements are (time in ms, rate)."""
    return Twin(rows, candles, settlements, interval_ms, params, venue).run()


def maintenance(notional: float) -> float:
    """[3] The maintenance margin of one side's notional."""
    for most, rate, amount in TIERS:
        if notional <= most:
            return notional * rate - amount
    raise AssertionError(notional)


def round_down(x: float, step: Fraction) -> float:
    return float(math.floor(x * step.denominator / step.numerator + 1e-6) * step) if step else x


def round_up(x: float, step: Fraction) -> float:
    return float(math.ceil(x * step.denominator / step.numerator - 1e-6) * step) if step else x


def magnets() -> Iterator[float]:
    """10000, 5000, 1000, ... , 1, 0.5, 0.1, ..."""
    yield 10_000.0
    for power in range(3, -300, -1):
        yield float(f"5e{power}")
        yield float(f"1e{power}")


def nudged(price: float) -> float:
    """[4.6] Away from the nearest round number, if that is close."""
    inc = next(inc for inc in magnets() if price >= 2 * inc)
    magnet = math.floor(price / inc + 0.5) * inc
    if abs(price - magnet) / magnet >= 0.001:
        return price
    return price + 0.0015 * magnet if price >= magnet else price - 0.0015 * magnet


def taken(lots: list[Lot], qty: float) -> list[tuple[Lot, float]]:
    """Which part of which lot `qty` closes, first in, first out.

    Read: what would be left of a lot and is less than SAME of all lots is closed with it: no dust counts as a lot.
    """
    parts, left = [], qty
    dust = SAME * sum(lot.qty for lot in lots)
    for lot in lots:
        if left <= dust:
            break
        part = lot.qty if lot.qty - left <= dust else left
        parts.append((lot, part))
        left -= part
    return parts


def without(lots: list[Lot], parts: list[tuple[Lot, float]]) -> list[Lot]:
    """The lots that are left when `parts` are closed: copies, with their share of funding."""
    gone = {id(lot): part for lot, part in parts}
    left = []
    for lot in lots:
        share = (lot.qty - gone.get(id(lot), 0.0)) / lot.qty
        if share > 0:
            # Read: what a lot paid in funding is divided when a part of it is closed.
            left.append(replace(lot, qty=lot.qty - gone.get(id(lot), 0.0), paid=lot.paid * share))
    return left


def kelly(trades: list[tuple[float, int]], regime: int, window: int) -> float:
    """[4.7] The factor of the sizes; trades are (net profit, sign of the regime the lot opened in)."""
    if window == 0:
        return 1.0
    # Read: the last `window` of those trades, not those among the last `window`.
    mine = [net for net, sign in trades if sign == sign_of(regime)][-window:]
    if len(mine) < 20:
        return 0.1
    wins, losses = [net for net in mine if net > 0], [-net for net in mine if net <= 0]
    if not wins:
        f = 0.0
    elif not any(losses):  # Read: trades of exactly 0 alone are no losses
        f = 1.0
    else:
        won = len(wins) / len(mine)
        f = won - (1 - won) * fmean(losses) / fmean(wins)
    return min(max(0.25 * f, 0.1), 1.0)


def sign_of(regime: int) -> int:
    return (regime > 0) - (regime < 0)


class Twin:
    """The account, the venue and the strategy."""

    def __init__(
        self,
        rows: list[Row],
        candles: list[list[Candle]],
        settlements: list[tuple[int, float]],
        interval_ms: int,
        params: GridParams,
        venue: VenueParams,
    ) -> None:
        self.rows, self.candles, self.interval_ms, self.params, self.venue = rows, candles, interval_ms, params, venue
        self.tick, self.lot = Fraction(venue.tick_size), Fraction(venue.lot_size)
        self.peer = venue.fills == "peer"
        self.settled = self.by_candle(settlements)
        self.wallet = params.initial_capital
        self.long, self.short = Position(LONG), Position(SHORT)
        self.sides = (self.long, self.short)
        self.trades: list[tuple[float, int]] = []
        self.out = Result()
        self.bar = self.number = -1  # of the bar and of the candle that is traded
        self.regime = 0  # at the last decision
        self.peak = params.initial_capital
        self.ruined = self.halted = False
        self.due = True
        self.grid: Grid | None = None
        self.entries_since_grid = 0
        self.stops_counted, self.last_stop, self.cooldown_until = 0, -math.inf, -math.inf

    def by_candle(self, settlements: list[tuple[int, float]]) -> dict[int, list[float]]:
        """The rates settled in each candle: the first that closes after the settlement."""
        every = [candle for bar in self.candles for candle in bar]
        last = every[-1][0] + self.interval_ms // len(self.candles[-1])
        closes = [candle[0] for candle in every[1:]] + [last]
        found: dict[int, list[float]] = {}
        for ts, rate in sorted(settlements, key=lambda settlement: settlement[0]):
            if ts >= every[0][0] and ts < last:
                found.setdefault(next(k for k, close in enumerate(closes) if close > ts), []).append(rate)
        return found

    def run(self) -> Result:
        """[1] The order of things."""
        p = self.params
        warm_up = max(p.regime_timeframe_mult * (p.kama_period + 1), 2 * p.adx_period, p.atr_period + 1, 20)
        for i in range(len(self.rows)):
            self.bar = i
            if not self.peer:
                self.trade(i)
            if i >= warm_up:
                self.decide(i)
            decided = self.resting()
            if self.peer:
                self.trade(i)
            if i == len(self.rows) - 1:
                self.final_close()
            equity = self.equity(self.rows[i].close)
            money = {"wallet": self.wallet, "equity": equity, "long_qty": self.long.qty, "short_qty": self.short.qty}
            self.out.equity.append({**money, "halted": self.halted, **decided})
        return self.out

    def resting(self) -> dict:
        return {
            "entries": [(each.side, order.price, order.qty) for each in self.sides for order in each.entries],
            "exits": [(each.side, order.price, order.qty) for each in self.sides for order in each.exits],
            "stops": {each.side: each.stop for each in self.sides if each.stop is not None},
        }

    def final_close(self) -> None:
        """[5] Both sides at the last close, without slippage."""
        for each in self.sides:
            parts = [(lot, lot.qty) for lot in each.lots]
            self.close(each, parts, self.rows[-1].close, "FINAL_CLOSE", self.params.fee_taker)

    # ---- [2] Money

    def equity(self, price: float) -> float:
        return self.wallet + self.long.profit(price) + self.short.profit(price)

    def open(self, each: Position, order: Order, price: float, *, maker: bool, time_ms: int) -> None:
        rate = self.params.fee_maker if maker else self.params.fee_taker
        fee = rate * price * order.qty
        self.wallet -= fee
        each.lots.append(Lot(price, order.qty, time_ms, self.number, fee, self.regime))
        self.entries_since_grid += 1
        self.note(each, OPENED[each.side], price, order.qty, fee, 0.0, maker=maker)

    def close(
        self,
        each: Position,
        parts: list[tuple[Lot, float]],
        price: float,
        label: str,
        rate: float,
        *,
        maker: bool = False,
    ) -> None:
        """Close parts of lots at a price: one order, one fill; a lot that is closed whole is one trade."""
        if not parts:
            return
        for lot, part in parts:
            lot.net += each.side * (price - lot.price) * part - rate * price * part
            if part == lot.qty:
                self.trades.append((lot.net - lot.fee, sign_of(lot.regime)))
        qty = sum(part for _, part in parts)
        pnl = sum(each.side * (price - lot.price) * part for lot, part in parts)
        fee = rate * price * qty
        self.wallet += pnl - fee
        each.lots = without(each.lots, parts)
        if not each.lots:
            each.stage_1_fired = False
        takes_profit = label == TAKEN[each.side]
        stops_or_prunes = label == STOPPED[each.side] or label.startswith("PRUNE_")
        if takes_profit or (stops_or_prunes and pnl - fee < 0):
            # Read: kept profit is counted order by order, not lot by lot.
            each.kept_profit = max(each.kept_profit + pnl - fee, 0.0)
        self.note(each, label, price, qty, fee, pnl, maker=maker)

    def note(
        self, each: Position, label: str, price: float, qty: float, fee: float, pnl: float, *, maker: bool
    ) -> None:
        amounts = {"price": price, "qty": qty, "fee": fee, "pnl": pnl, "maker": maker}
        where = {"bar": self.bar, "candle": self.number, "side": each.side, "label": label}
        self.out.fills.append({**where, **amounts})

    def verdict(self, side: int, guard: str) -> None:
        self.out.verdicts.append((self.bar, side, guard))

    def slipped(self, each: Position, price: float) -> float:
        """What closing a side at market gets (long: it sells) or pays (short: it buys)."""
        return price * (1 - each.side * self.params.slippage)

    # ---- [3] Trade: one candle against what rests

    def trade(self, i: int) -> None:
        for k, candle in enumerate(self.candles[i]):
            self.number += 1
            self.settle(candle)
            if not self.peer:
                for each in self.sides:
                    self.broken(each, candle[1], candle[1])
            if k == 0:
                self.market_orders(candle)
            for each in self.sides:
                self.adverse_leg(each, candle)
            for each in self.sides:
                self.take_profits(each, candle)

    def settle(self, candle: Candle) -> None:
        """[3.1]"""
        price = candle[1]
        for rate in self.settled.get(self.number, []):
            for each in self.sides:
                paid = 0.0
                for lot in each.lots:
                    flow = each.side * rate * lot.qty * price
                    lot.paid += flow
                    paid += flow
                if each.lots:
                    self.wallet -= paid
                    flow = {"rate": rate, "price": price, "qty": each.qty, "paid": paid}
                    self.out.funding.append({"candle": self.number, "side": each.side, **flow})

    def market_orders(self, candle: Candle) -> None:
        """[3.2] In `peer`: at the close of the bar's first candle."""
        for each in self.sides:
            order, each.market = each.market, None
            if order is not None:
                price = self.slipped(each, candle[4] if self.peer else candle[1])
                self.close(each, self.parts_of(each, order), price, order.label, self.params.fee_taker)

    @staticmethod
    def parts_of(each: Position, order: Market) -> list[tuple[Lot, float]]:
        return taken(each.lots, order.qty) if order.lot is None else [(order.lot, order.lot.qty)]

    def adverse_leg(self, each: Position, candle: Candle) -> None:
        """[3.3] Entries and the stop in the order in which a falling price (short: a rising one) meets them."""
        side, o = each.side, candle[1]
        nearest_first = sorted(each.entries, key=lambda order: -side * order.price)
        before, after = nearest_first, []
        if each.stop is not None:
            # Read: in `peer`, where a stop never fills at the open, it has its turn by its price alone.
            if side * o <= side * each.stop and not self.peer:
                before, after = [], nearest_first
            else:
                before = [order for order in nearest_first if side * order.price > side * each.stop]
                after = [order for order in nearest_first if side * order.price <= side * each.stop]
        mark = candle[4] if self.peer else o
        for what in [*before, None, *after]:
            price = self.stop_price(each, candle) if what is None else self.entry_price(each, what, candle)
            if price is None:
                continue
            if self.broken(each, mark, price):
                return
            mark = price
            if what is None:
                self.stop(each, price)
            else:
                self.entry(each, what, price, candle)
        self.broken(each, mark, candle[3] if side == LONG else candle[2])

    def reached(self, order_side: int, price: float, candle: Candle) -> bool:
        """The rule of --fills: a buy (1) needs the low, a sell (-1) the high."""
        _, _, high, low, _ = candle
        return self.reaches(order_side, price, low if order_side == LONG else high)

    def reaches(self, order_side: int, price: float, extreme: float) -> bool:
        if self.venue.fills != "touch-through":
            return order_side * extreme <= order_side * price
        if self.tick == 0:
            return order_side * extreme < order_side * price
        return order_side * extreme <= order_side * price - float(self.tick) * (1 - 1e-6)

    def entry_price(self, each: Position, order: Order, candle: Candle) -> float | None:
        """What an entry fills at; None: it is not reached."""
        if not self.reached(each.side, order.price, candle):
            return None
        gapped = each.side * candle[1] < each.side * order.price and not self.peer
        return candle[1] if gapped else order.price

    def entry(self, each: Position, order: Order, price: float, candle: Candle) -> None:
        each.entries.remove(order)
        self.open(each, order, price, maker=price == order.price, time_ms=candle[0])

    def stop_price(self, each: Position, candle: Candle) -> float | None:
        """What the stop fires at, before slippage; None: it does not."""
        _, o, high, low, _ = candle
        extreme = low if each.side == LONG else high
        if each.stop is None or not each.lots or each.side * extreme > each.side * each.stop:
            return None
        return o if each.side * o <= each.side * each.stop and not self.peer else each.stop

    def stop(self, each: Position, price: float) -> None:
        parts = [(lot, lot.qty) for lot in each.lots]
        self.close(each, parts, self.slipped(each, price), STOPPED[each.side], self.params.fee_taker)
        each.stop, each.stop_fired = None, True

    def broken(self, each: Position, before: float, mark: float) -> bool:
        """[3.5] Liquidate if the margin is used up at the mark, on the leg that hurts this side."""
        if not (self.long.lots or self.short.lots):
            return False
        realised, left = self.with_take_profits(self.short if each is self.long else self.long, mark)
        positions = [each, left]
        if not self.broke(mark, positions, realised):
            return False
        alive, dead = before, mark
        if self.broke(before, positions, realised):
            dead = before
        else:
            for _ in range(60):
                middle = (alive + dead) / 2
                if self.broke(middle, positions, realised):
                    dead = middle
                else:
                    alive = middle
        self.liquidate(dead)
        return True

    def broke(self, price: float, positions: list[Position], realised: float) -> bool:
        """E <= M."""
        equity = self.wallet + realised + sum(each.profit(price) for each in positions)
        return equity <= sum(maintenance(each.qty * price) for each in positions)

    def with_take_profits(self, each: Position, mark: float) -> tuple[float, Position]:
        """What the take-profits in reach would earn of the lots from before this candle, and those that stay."""
        old, realised = [lot for lot in each.lots if lot.candle < self.number], 0.0
        for order in self.nearest_exits(each):
            if self.reaches(-each.side, order.price, mark):
                parts = taken(old, order.qty)
                realised += sum(each.side * (order.price - lot.price) * part for lot, part in parts)
                old = without(old, parts)
        return realised, Position(each.side, old)

    def liquidate(self, at: float) -> None:
        self.out.liquidated.append((self.number, at))
        rate = self.params.fee_taker + self.venue.liquidation_fee
        for each in self.sides:
            self.close(each, [(lot, lot.qty) for lot in each.lots], self.slipped(each, at), "LIQUIDATION", rate)
            each.withdraw()
        if self.wallet < 0:
            self.out.insurance.append({"candle": self.number, "bar": self.bar, "amount": -self.wallet})
            self.wallet = 0.0
        self.due = True
        self.verdict(0, "LIQUIDATED")

    @staticmethod
    def nearest_exits(each: Position) -> list[Order]:
        return sorted(each.exits, key=lambda order: each.side * order.price)

    def take_profits(self, each: Position, candle: Candle) -> None:
        """[3.5] They close what was open before this candle."""
        o = candle[1]
        for order in self.nearest_exits(each):
            parts = taken([lot for lot in each.lots if lot.candle < self.number], order.qty)
            if not parts or not self.reached(-each.side, order.price, candle):
                continue
            # Read: a take-profit that filled with what was left to close is done; its rest does not stay.
            each.exits.remove(order)
            if each.side * o > each.side * order.price and not self.peer:
                self.close(each, parts, o, TAKEN[each.side], self.params.fee_taker)
            else:
                self.close(each, parts, order.price, TAKEN[each.side], self.params.fee_maker, maker=True)

    # ---- [4] Decide: at the close of bar i

    def decide(self, i: int) -> None:
        row = self.rows[i]
        self.regime = row.regime
        c, equity = row.close, self.equity(row.close)
        if self.ruined:
            return
        if equity <= 0:
            self.ruined = True
            self.verdict(0, "RUINED")
            for each in self.sides:
                each.withdraw()
            return
        self.peak = max(self.peak, equity)
        self.circuit_breaker(row)
        self.stops(i, row)
        for each in self.sides:
            if each.lots and each.market is None:
                self.prune(i, row, each, equity)
        left = {each.side: self.left_of(each) for each in self.sides}
        blocked = self.blocked(row, equity)
        if blocked:
            self.due = True
            self.verdict(0, "VAR_BLOCK")
        if self.halted or blocked:
            self.long.entries, self.short.entries = [], []
        anchor, trailed = self.wanted_anchor(row, blocked=blocked)
        laid = anchor is not None
        if anchor is not None:
            self.verdict(0, "TRAILING" if trailed else "NEW_GRID")
            self.lay(i, row, equity, anchor, left, trailed=trailed)
        for each, lots in zip(self.sides, left.values(), strict=True):
            will_hold = sum(lot.qty for lot in lots)
            resting = sum(order.qty for order in each.exits)
            if laid or abs(resting - will_hold) > SAME * will_hold:
                each.exits = self.exits(each, will_hold, c)
            level = self.stop_level(each.side, lots, row.atr, 1.5) if lots else 0.0
            level = round_down(level, self.tick) if each.side == LONG else round_up(level, self.tick)
            each.stop = level if level > 0 else None

    def left_of(self, each: Position) -> list[Lot]:
        """The lots that will be left after the market orders of this decision."""
        return list(each.lots) if each.market is None else without(each.lots, self.parts_of(each, each.market))

    def circuit_breaker(self, row: Row) -> None:
        """[4, step 1]"""
        if not self.params.circuit_breaker_enabled:
            return
        if not self.halted and row.z < self.params.halt_z_threshold:
            self.halted = True
            self.verdict(0, "HALT")
        elif self.halted and row.z > self.params.resume_z_threshold:
            self.halted = False
            self.due = True
            self.verdict(0, "RESUME")

    def stop_level(self, side: int, lots: list[Lot], atr: float, times: float) -> float:
        mean = sum(lot.price * lot.qty for lot in lots) / sum(lot.qty for lot in lots)
        return mean - side * times * self.params.atr_sl_mult * atr

    def stops(self, i: int, row: Row) -> None:
        """[4, step 2]"""
        for each in self.sides:
            if each.stop_fired:
                each.stop_fired = False
                self.count_stop(i)
        for each in self.sides:
            if not each.lots:
                continue
            if each.side * row.close <= each.side * self.stop_level(each.side, each.lots, row.atr, 1.5):
                each.market = Market(STOPPED[each.side], each.qty)
                self.verdict(each.side, "STOP_STAGE_2")
                self.count_stop(i)
            elif (
                each.side * row.close <= each.side * self.stop_level(each.side, each.lots, row.atr, 1.0)
                and not each.stage_1_fired
            ):
                half = round_down(each.qty / 2, self.lot)
                each.market = Market(STOPPED[each.side], half if half > 0 else each.qty)
                each.stage_1_fired = True
                self.verdict(each.side, "STOP_STAGE_1")
                self.count_stop(i)

    def count_stop(self, i: int) -> None:
        cooldown = self.params.stop_cooldown_bars
        self.stops_counted = self.stops_counted + 1 if i - self.last_stop <= cooldown else 1
        self.last_stop = i
        if self.stops_counted >= self.params.stop_cooldown_thresh:
            self.cooldown_until = i + cooldown
            self.verdict(0, "COOLDOWN")
        self.due = True

    def prune(self, i: int, row: Row, each: Position, equity: float) -> None:
        """[4, step 3]"""
        found = self.to_prune(i, row, each, equity)
        if found is not None:
            label, lot = found
            each.market = Market(label, lot.qty, lot)
            each.last_prune = i
            self.verdict(each.side, label)

    def to_prune(self, i: int, row: Row, each: Position, equity: float) -> tuple[str, Lot] | None:  # noqa: PLR0911
        p, c, side, lots = self.params, row.close, each.side, each.lots
        spacing = self.grid.spacing[side] if self.grid else math.nan

        def loss(lot: Lot) -> float:
            return side * (lot.price - c) * lot.qty

        worst = max(lots, key=loss)  # max() takes the first, so the older, of equals
        if (self.peak - equity) / self.peak > 0.75 * p.max_drawdown_pct and loss(worst) > 0:
            return "PRUNE_VAR_WARNING", worst
        if self.halted:
            return None
        if side * c < side * row.kama - p.deviance_sigma * row.atr:
            return "PRUNE_DEVIANCE", max(lots, key=lambda lot: side * lot.price)
        if each.last_prune is not None and i - each.last_prune < p.prune_cooldown_bars:
            return None
        under = [lot for lot in lots if side * (c - lot.price) <= 0]
        age_ms = row.open_ms + self.interval_ms - lots[0].opened_ms
        if age_ms > p.max_position_age_hours * HOUR_MS and lots[0] in under:
            return "PRUNE_OLDEST", lots[0]
        if under:
            farthest = max(under, key=lambda lot: abs(c - lot.price))
            if abs(c - farthest.price) > p.gap_prune_mult * spacing:
                return "PRUNE_GAP", farthest
        dearest = max(lots, key=lambda lot: lot.paid)
        if dearest.paid > p.funding_cost_ratio * spacing * dearest.qty:
            return "PRUNE_FUNDING", dearest
        if loss(worst) > 0 and loss(worst) * p.offset_prune_ratio < each.kept_profit:
            return "PRUNE_OFFSET", worst
        return None

    def blocked(self, row: Row, equity: float) -> bool:
        """[4, step 4]"""
        notional = (self.long.qty + self.short.qty) * row.close
        z_conf = NormalDist().inv_cdf(self.params.var_confidence)
        return notional * z_conf * row.sigma > self.params.max_drawdown_pct * equity

    def wanted_anchor(self, row: Row, *, blocked: bool) -> tuple[float | None, bool]:
        """[4, steps 5 and 6] Where a new grid is to be laid now (None: nowhere), and whether it trailed there."""
        p, c, grid = self.params, row.close, self.grid
        trending = p.trailing_enabled and row.regime > 0 and row.er > p.trailing_activation_er
        if grid is not None:
            reach = grid.spacing[LONG]
            if trending and not self.halted and not blocked and c > grid.anchor + p.grid_levels * reach:
                moved = grid.anchor + (c - grid.anchor) / 2
                if p.trailing_cap_price > 0:
                    moved = max(min(moved, p.trailing_cap_price), grid.anchor)
                if moved > grid.anchor:
                    return moved, True
            drifted = abs(c - grid.anchor) > p.regen_drift_mult * reach and not (trending and c > grid.anchor)
            if row.regime != grid.regime or self.entries_since_grid >= 2 or drifted:
                self.due = True
        if self.due and not self.halted and not blocked:
            return c, False
        return None, False

    # ---- [4] The grid

    def lay(self, i: int, row: Row, equity: float, anchor: float, left: dict[int, list[Lot]], *, trailed: bool) -> None:
        p, c = self.params, row.close
        floor = max(p.spacing_floor, row.atr / c * p.adaptive_floor_scale)
        base = max(p.grid_spacing_k * row.atr, floor * c)
        factor = {LONG: 1.0, SHORT: 1.0}
        if row.regime != 0:
            with_trend = sign_of(row.regime)
            factor = {with_trend: max(0.5, 1 - row.er / 2), -with_trend: 1 + row.er}
        variance = p.gamma * row.sigma**2 * p.as_time_horizon
        optimal = c * (variance + (2 / p.gamma) * math.log1p(p.gamma * row.sigma / p.kappa))
        spacing = {side: max(optimal, base * factor[side]) for side in (LONG, SHORT)}
        # Read: the skew is that of the positions as they are, before the market orders of this bar.
        q = (self.long.qty - self.short.qty) * c / (p.max_position_pct * equity)
        q = min(max(q, -1.0), 1.0)
        self.grid = Grid(anchor, anchor * (1 - min(max(q * variance, -0.5), 0.5)), c, row.regime, spacing)
        self.due, self.entries_since_grid = False, 0
        self.lay_entries(i, row, equity, left, trailed=trailed)

    def lay_entries(self, i: int, row: Row, equity: float, left: dict[int, list[Lot]], *, trailed: bool) -> None:
        """[4.5 to 4.7]"""
        p, c, grid = self.params, row.close, self.grid
        assert grid is not None
        wider, tilt = {LONG: 1.0, SHORT: 1.0}, {LONG: 1.0, SHORT: 1.0}
        if row.regime == 0:
            if abs(row.rate) > p.funding_threshold:
                wider = {LONG: 1.2, SHORT: 0.8} if row.rate > 0 else {LONG: 0.8, SHORT: 1.2}
            if abs(row.rate) > p.funding_harvest_threshold:
                tilt = {LONG: 0.75, SHORT: 1.25} if row.rate > 0 else {LONG: 1.25, SHORT: 0.75}
        halved = 0.5 if i <= self.cooldown_until else 1.0
        pct = p.order_pct * kelly(self.trades, row.regime, p.kelly_window) * halved
        dry = row.mean_volume > 0 and row.volume < p.low_volume_threshold * row.mean_volume
        cap = equity * p.max_position_pct * (0.7 if dry else 1.0) * (1 - p.trailing_reserve_pct if trailed else 1.0)
        notional = {side: sum(lot.qty for lot in lots) * c for side, lots in left.items()}
        margin_room = equity * p.leverage - notional[LONG] - notional[SHORT]
        # Read: "a position" is, like the room, what will be left after the market orders.
        resting = p.grid_levels * sum(1 for lots in left.values() if lots)
        room, laying = {}, {}
        for each in self.sides:
            side, each.entries = each.side, []
            room[side] = cap - notional[side]
            if row.regime * side >= 0 and (side == LONG or p.allow_short):
                first = min(grid.r, c) if side == LONG else max(grid.r, c)
                laying[side] = list(self.levels(-side, grid.spacing[side] * wider[side], first, p.grid_levels))
        for n in range(p.grid_levels):
            for each in self.sides:
                side = each.side
                if side not in laying or n >= len(laying[side]):
                    continue
                price = laying[side][n]
                if price is None or side * price >= side * c:
                    continue
                size = equity * pct * tilt[side] * p.leverage
                most = min(room[side], margin_room)
                qty = round_down(min(size, most) / price, self.lot)
                if len(left[side]) + len(each.entries) >= p.max_inventory_per_side:
                    del laying[side]
                    continue
                if qty <= 0 or qty * price < self.venue.min_notional * (1 - 1e-9) or resting + 1 > p.max_orders:
                    fits = qty > 0 and qty * price >= self.venue.min_notional * (1 - 1e-9)
                    self.verdict(side, "TOO_MANY" if fits else "NO_ROOM" if most < size else "TOO_SMALL")
                    del laying[side]
                    continue
                each.entries.append(Order(price, qty))
                room[side], margin_room, resting = room[side] - qty * price, margin_room - qty * price, resting + 1

    def levels(self, direction: int, spacing: float, before: float, most: int | None = None) -> Iterator[float | None]:
        """[4.6] Level 1, 2, ... above (1) or below (-1) r, on the tick; None: left out.

        The last one is `most`, or the last above 0.
        """
        grid = self.grid
        assert grid is not None
        n = 0
        while most is None or n < most:
            n += 1
            arithmetic = self.params.grid_mode == "arithmetic"
            if arithmetic:
                level = grid.r + direction * spacing * n
            else:
                times = (1 + spacing / grid.p) ** n
                level = grid.r * times if direction > 0 else grid.r / times
            if level <= 0:  # also where the skew is so large that r itself is not above 0
                return
            if not arithmetic:
                moved = nudged(level)
                if direction * moved > direction * before:
                    level = moved
                if not direction * level > direction * before:
                    yield None
                    continue
                before = level
            price = round_up(level, self.tick) if direction > 0 else round_down(level, self.tick)
            if price <= 0:
                return
            yield price

    def exits(self, each: Position, qty: float, c: float) -> list[Order]:
        """[4.8] The take-profits of a side for the quantity it will hold."""
        p, side = self.params, each.side
        if qty == 0:
            return []
        assert self.grid is not None
        prices: list[float] = []
        for price in self.levels(side, self.grid.spacing[side], self.grid.r):
            if price is not None and side * price > side * c:
                prices.append(price)
            if len(prices) == p.grid_levels:
                break
        # Read: where the levels end at zero, those that there are share the quantity; without any nothing is laid.
        if not prices:
            return []
        others = len(prices) - 1
        part = round_down((1 - p.tp_concentration) * qty / others, self.lot) if others else 0.0
        slices = [qty - others * part] + [part] * others
        # Read: a first slice that is only what the division left is 0.
        return [Order(price, slice) for price, slice in zip(prices, slices, strict=True) if slice > SAME * qty]
