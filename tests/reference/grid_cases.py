"""Markets and parameters at random for the grid and its twin, what each makes of them, and where they differ."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from mmlab.grid import layout
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.params import GridParams, VenueParams
from reference.grid import Candle, Result, Row, run

INTERVAL_MS = 900_000
START_MS = 1_735_689_600_000
CLOSE = 1e-9


@dataclass(frozen=True)
class Case:
    """All that a run depends on."""

    rows: list[Row]
    candles: list[list[Candle]]
    settlements: list[tuple[int, float]]
    params: GridParams
    venue: VenueParams

    def twin(self) -> Result:
        return run(self.rows, self.candles, self.settlements, INTERVAL_MS, self.params, self.venue)

    def engine(self, record: bool = True) -> Raw:
        return simulate(*arrays(self), self.params, self.venue, record=record)

    def warm_up(self) -> int:
        return layout.warm_up(self.params)


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The engine's bars and candles; settlements of one candle are one rate."""
    flat = [candle for bar in case.candles for candle in bar]
    closes = [candle[0] for candle in flat[1:]] + [flat[-1][0] + INTERVAL_MS // len(case.candles[-1])]
    C = np.zeros((len(flat), layout.C_WIDTH))
    C[:, layout.C_MS] = [candle[0] for candle in flat]
    C[:, [layout.C_OPEN, layout.C_HIGH, layout.C_LOW, layout.C_CLOSE]] = [candle[1:] for candle in flat]
    for ts, rate in case.settlements:
        if flat[0][0] <= ts < closes[-1]:
            C[np.searchsorted(closes, ts, side="right"), layout.C_FUNDING] += rate
    X = np.zeros((len(case.rows), layout.X_WIDTH))
    first = np.cumsum([0] + [len(bar) for bar in case.candles])
    for i, row in enumerate(case.rows):
        X[i, layout.CLOSE], X[i, layout.VOLUME], X[i, layout.MEAN_VOLUME] = row.close, row.volume, row.mean_volume
        X[i, layout.ATR], X[i, layout.Z], X[i, layout.SIGMA] = row.atr, row.z, row.sigma
        X[i, layout.KAMA], X[i, layout.ER], X[i, layout.IN_FORCE] = row.kama, row.er, row.regime
        X[i, layout.RATE], X[i, layout.CLOSE_MS] = row.rate, row.open_ms + INTERVAL_MS
        X[i, layout.FIRST_CANDLE] = first[i]
    return X, C


# ---- at random


def draw(seed: int) -> Case:
    """A case of everything that the parameters allow, and more of what is rare than a market has."""
    rng = Random(seed)
    start = rng.choice([1.0, 100.0, 100.0, 40_000.0])
    params, venue = draw_params(rng, start)
    rows, candles, settlements = draw_market(rng, start, venue)
    return Case(rows, candles, settlements, params, venue)


def draw_params(rng: Random, start: float) -> tuple[GridParams, VenueParams]:
    pick = rng.choice
    arithmetic = rng.random() < 0.3
    # few enough lots that the last digit of a float is far below the 1e-9 of a lot that rounding forgives; and no
    # least notional or funding that a size or a payment could equal to the last digit
    lot = pick(["0", "0", *{1.0: ["1", "10"], 100.0: ["0.01", "1"], 40_000.0: ["0.001", "0.1"]}[start]])
    params = GridParams(
        kama_period=pick([1, 4]), adx_period=pick([3, 11]), atr_period=pick([2, 14, 22]),
        regime_timeframe_mult=pick([1, 4]), grid_spacing_k=pick([0.0, 0.0, 0.3, 1.0]),
        grid_levels=pick([1, 2, 3, 5, 10]),
        max_orders=pick([1, 12, *[500] * 8]), spacing_floor=pick([2e-4, 1e-3, 1e-3, 0.003, 0.02]),
        order_pct=pick([0.02, 0.1, 0.3, 1.0]), regen_drift_mult=pick([0.5, 2.0, 50.0]),
        adaptive_floor_scale=pick([0.0, 0.0, 0.3, 1.5]), tp_concentration=pick([0.0, 0.3, 0.6, 1.0]),
        grid_mode="arithmetic" if arithmetic else "geometric", gamma=pick([0.01, 0.5, 0.5, 5.0]),
        kappa=pick([0.1, 1.5, 50.0, 50.0]), max_inventory_per_side=pick([1, 2, 4, 10, 50]),
        as_time_horizon=pick([1.0, 96.0, 96.0, 2000.0]), trailing_enabled=rng.random() < 0.7,
        trailing_activation_er=pick([0.0, 0.3, 0.65]), trailing_reserve_pct=pick([0.0, 0.25, 1.0]),
        trailing_cap_price=pick([0.0, 0.0, 101.0, 1.02, 40_500.0]), circuit_breaker_enabled=rng.random() < 0.7,
        halt_z_threshold=pick([-3.0, -1.5]), resume_z_threshold=pick([-1.0, 0.5, -1.5]),
        max_position_age_hours=pick([0.0, 2.0, 24.0, 1000.0]), deviance_sigma=pick([1.0, 3.0, 30.0, 30.0]),
        gap_prune_mult=pick([0.5, 3.0, 100.0, 100.0]), funding_cost_ratio=pick([0.0, 0.053, 0.47, 50.0, 50.0]),
        offset_prune_ratio=pick([0.1, 1.5, 10.0]), prune_cooldown_bars=pick([0, 4, 24]),
        max_drawdown_pct=pick([0.02, 0.15, 1.0, 1.0, 1.0]), var_confidence=pick([0.5, 0.95, 0.999]),
        atr_sl_mult=pick([0.3, 1.5, 3.5, 30.0]), max_position_pct=pick([0.3, 0.7, 3.0, 30.0]),
        funding_threshold=pick([0.0, 3e-4]), initial_capital=pick([300.0, 10_000.0, 1e6 if lot == "0" else 5_000.0]),
        fee_maker=pick([2e-4, -5e-5, 0.0]), fee_taker=pick([5e-4, 0.0]), slippage=pick([0.0, 5e-4, 5e-4, 0.01]),
        leverage=pick([1.0, 1.0, 3.0, 20.0, 125.0]), allow_short=rng.random() < 0.8,
        stop_cooldown_bars=pick([1, 10, 48]), stop_cooldown_thresh=pick([1, 2, 4]),
        low_volume_threshold=pick([0.0, 0.5, 1.0]), funding_harvest_threshold=pick([0.0, 2e-4, 1.0]),
        kelly_window=pick([0, 0, 10, 20, 50, 1_000]),
    )  # fmt: skip
    venue = VenueParams(
        tick_size=pick(["0", "0", "0.1", "0.01", "0.0001"]), lot_size=lot,
        min_notional=pick([1e-6, 1e-6, 5.3, 97.0]), liquidation_fee=pick([0.0, 0.0125]),
        fills=pick(["next-bar", "next-bar", "touch-through", "peer"]),
    )  # fmt: skip
    if rng.random() < 0.12:
        params = replace(params, **DARING)
    return params, venue


DARING = {  # nothing that would sell before the venue does
    "leverage": 20.0, "order_pct": 0.3, "max_position_pct": 30.0, "atr_sl_mult": 30.0, "deviance_sigma": 30.0,
    "gap_prune_mult": 100.0, "max_drawdown_pct": 1.0, "kelly_window": 0, "max_orders": 500, "trailing_reserve_pct": 0.0,
    "max_position_age_hours": 1000.0, "offset_prune_ratio": 10.0, "spacing_floor": 0.003,
    "circuit_breaker_enabled": False,
}  # fmt: skip


def draw_market(
    rng: Random, start: float, venue: VenueParams
) -> tuple[list[Row], list[list[Candle]], list[tuple[int, float]]]:
    """A walk with drifts, jumps and gaps; indicators that follow it; rates, volumes and regimes of their own."""
    bars, minutes = rng.randint(40, 200), rng.random() < 0.35 and venue.fills != "peer"
    vol, jumps, gaps = rng.choice([0.002, 0.004, 0.015]), rng.choice([0.0, 0.01, 0.03]), rng.choice([0.0, 0.3])
    tick = Fraction(venue.tick_size)

    def on_tick(price: float) -> float:
        price = min(max(price, start / 20), start * 20)
        return float(max(round(Fraction(price) / tick), 1) * tick) if tick else price

    rows, candles, closes = [], [], []
    price, drift, regime, rate, dry, atr, kama = on_tick(start), 0.0, 0, 1e-4, 1.0, start * vol, start
    for i in range(bars):
        if rng.random() < 0.06:
            drift = rng.choice([0.0, 0.0, vol / 2, -vol / 2])
        if rng.random() < 0.08:
            regime = rng.choice([-2, -1, 0, 0, 0, 1, 2])
        if rng.random() < 0.1:
            rate = rng.choice([0.0, 1e-4, -1e-4, 5e-4, -5e-4, 3e-3, -3e-3])
        dry = rng.choice([1.0, 1.0, 0.1]) if rng.random() < 0.1 else dry
        parts = 15 if minutes and rng.random() < 0.9 else 1
        here = []
        for k in range(parts):
            move = vol / math.sqrt(parts)
            opened = on_tick(price * math.exp(rng.gauss(0, 3 * move)) if rng.random() < gaps / parts else price)
            jump = rng.choice([-1, -1, 1]) * rng.uniform(0.03, 0.3) if rng.random() < jumps / parts else 0.0
            price = on_tick(opened * math.exp(rng.gauss(drift / parts, move) + jump))
            high = on_tick(max(opened, price) * (1 + abs(rng.gauss(0, move))))
            low = on_tick(min(opened, price) * (1 - abs(rng.gauss(0, move))))
            open_ms = START_MS + i * INTERVAL_MS + k * INTERVAL_MS // parts
            here.append((open_ms, opened, max(high, opened, price), min(low, opened, price), price))
        candles.append(here)
        high, low = max(candle[2] for candle in here), min(candle[3] for candle in here)
        atr += (high - low - atr) / 7
        kama += rng.choice([0.05, 0.3]) * (price - kama)
        closes.append(price)
        mean = sum(closes[-20:]) / len(closes[-20:])
        rows.append(
            Row(
                here[0][0], here[0][1], high, low, price, rng.lognormvariate(0, 0.5) * dry, rng.choice([1.0, 1.0, 0.0]),
                atr, (price - mean) / atr if atr > 0 else 0.0, vol * rng.choice([0.0, 0.2, 1.0, 1.0]), kama,
                rng.random(), regime, rate,
            )
        )  # fmt: skip
    every, scale = rng.choice([32, 32, 4, 1]), rng.choice([1.0, 1.0, 20.0])
    settlements = [
        (START_MS + i * INTERVAL_MS + rng.choice([0, 0, 1, -1, 430_000]), rows[i].rate * scale)
        for i in range(0, bars, every)
    ]
    return rows, candles, settlements


def shaken(case: Case, after: int, seed: int) -> Case:
    """The same case up to bar `after`, with another market from there on: as long, on the same times."""
    rng = Random(seed)
    factor, tick = rng.choice([0.5, 0.9, 1.2, 3.0]), Fraction(case.venue.tick_size)

    def other(price: float) -> float:
        return float(max(round(Fraction(price * factor) / tick), 1) * tick) if tick else price * factor

    rows = [
        row
        if i <= after
        else replace(row, close=other(row.close), atr=row.atr * 3, z=-row.z, sigma=row.sigma * 2, regime=-row.regime, er=1 - row.er, rate=-row.rate)  # noqa: E501
        for i, row in enumerate(case.rows)
    ]  # fmt: skip
    candles = [
        bar if i <= after else [(c[0], *(other(price) for price in c[1:])) for c in bar]
        for i, bar in enumerate(case.candles)
    ]
    end = case.rows[after].open_ms + INTERVAL_MS
    settlements = [(ts, rate if ts < end else -2 * rate) for ts, rate in case.settlements]
    return replace(case, rows=rows, candles=candles, settlements=settlements)


# ---- what the engine made, in the twin's words


def fills_of(raw: Raw) -> list[dict]:
    """Fills without flows of funding and insurance."""
    names = ("bar", "candle", "side", "label", "price", "qty", "fee", "pnl", "maker", "order", "wallet", "regime")
    found = [dict(zip(names, row, strict=True)) for row in raw.fills.tolist()]
    for each in found:
        each["label"] = layout.LABELS[int(each["label"])]
    return [each for each in found if each["label"] not in ("FUNDING", "INSURANCE")]


def flows_of(raw: Raw, label: str) -> list[tuple[int, int, float]]:
    """Candle, side and amount that the wallet got."""
    code = layout.LABELS.index(label)
    return [(int(row[1]), int(row[2]), row[7]) for row in raw.fills.tolist() if row[3] == code]


def resting_of(case: Case, raw: Raw) -> list[dict[int, tuple[str, int, float, float]]]:
    """What rests after the decision of each bar by the engine's own record: order id to role, side, price, qty."""
    bar_of = [i for i, bar in enumerate(case.candles) for _ in bar]
    peer = case.venue.fills == "peer"
    live: dict[int, tuple[str, int, float, float]] = {}
    found = []
    events = raw.orders.tolist()
    at = 0
    for i in range(len(case.rows)):
        while at < len(events):
            number, what, when, side, role, _, price, qty = events[at]
            traded = what in (layout.FILLED, layout.CLOSED)
            bar = bar_of[int(when)] if traded else int(when)
            if bar > i or (bar == i and peer and traded):
                break
            if what == layout.PLACED:
                assert number not in live
                live[number] = (layout.ROLES[int(role)], int(side), price, qty)
            else:
                assert live.pop(number)[:2] == (layout.ROLES[int(role)], int(side))
            at += 1
        found.append(dict(live))
    return found


def near(a: float, b: float, scale: float = 0.0) -> bool:
    return abs(a - b) <= CLOSE * max(abs(a), abs(b)) + 1e-11 * scale


def differences(case: Case, slow: Result, raw: Raw) -> str:
    """The first difference between the two, in words; empty: none."""
    fast = fills_of(raw)
    for k, (a, b) in enumerate(zip(slow.fills, fast, strict=False)):
        scale = a["price"] * a["qty"]
        same = all(a[name] == b[name] for name in ("bar", "candle", "side", "label", "maker"))
        if not same or not all(near(a[name], b[name], scale) for name in ("price", "qty", "fee", "pnl")):
            return f"fill {k}: twin {a}, engine {b}"
    if len(fast) != len(slow.fills):
        k = min(len(fast), len(slow.fills))
        return f"fills: twin {len(slow.fills)} {slow.fills[k : k + 1]}, engine {len(fast)} {fast[k : k + 1]}"
    paid = Counter[tuple[int, int]]()
    for each in slow.funding:
        paid[each["candle"], each["side"]] -= each["paid"]
    for name, mine, theirs in (
        ("funding", {key: amount for key, amount in paid.items() if amount}, flows_of(raw, "FUNDING")),
        ("insurance", {(each["candle"], 1): each["amount"] for each in slow.insurance}, flows_of(raw, "INSURANCE")),
    ):
        got = {(candle, side): amount for candle, side, amount in theirs}
        scale = case.params.initial_capital
        if mine.keys() != got.keys() or not all(near(mine[key], got[key], scale) for key in mine):
            return f"{name}: twin {mine}, engine {got}"
    mine = Counter(slow.verdicts)
    theirs = Counter((int(bar), int(side), layout.GUARDS[int(guard)]) for bar, guard, side, *_ in raw.verdicts.tolist())
    if mine != theirs:
        return f"verdicts: only the twin {sorted((mine - theirs).elements())}, only the engine {sorted((theirs - mine).elements())}"  # noqa: E501
    return different_bars(case, slow, raw)


def different_bars(case: Case, slow: Result, raw: Raw) -> str:
    capital = case.params.initial_capital
    for i, (a, line, live) in enumerate(zip(slow.equity, raw.equity.tolist(), resting_of(case, raw), strict=True)):
        for name, value in zip(("wallet", "equity", "long_qty", None, "short_qty"), line, strict=False):
            if name and not near(a[name], value, 100 * capital):
                return f"bar {i} {name}: twin {a[name]}, engine {value}"
        if a["halted"] != bool(int(line[7]) & 1):
            return f"bar {i} halted: twin {a['halted']}"
        for role, key in (("ENTRY", "entries"), ("TAKE_PROFIT", "exits"), ("STOP", "stops")):
            mine = sorted(a[key]) if key != "stops" else sorted((s, p, 0.0) for s, p in a["stops"].items())
            theirs = sorted((s, p, q if role != "STOP" else 0.0) for r, s, p, q in live.values() if r == role)
            if len(mine) != len(theirs) or not all(
                x[0] == y[0] and near(x[1], y[1]) and near(x[2], y[2]) for x, y in zip(mine, theirs, strict=True)
            ):
                return f"bar {i} {role}: twin {mine}, engine {theirs}"
    return ""
