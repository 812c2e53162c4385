"""Does anything depend on what comes later? The future is replaced, and all that was known before must stay.

Two tests. Cuts: everything after the close of a bar is replaced by other data, and signals, decisions and fills up to
that close must be the same bit for bit. Order: no order may be filled on a candle that opens before the close at which
it was decided; the first test cannot see that, since such a fill uses the decision's own bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import UsageError
from mmlab.core.intervals import utc_text
from mmlab.grid.engine import Raw, simulate
from mmlab.grid.layout import CLOSED, FILLED, PLACED, ROLES, Floats, warm_up
from mmlab.grid.market import Market
from mmlab.grid.params import GridParams, VenueParams

PRICES = ("open", "high", "low", "close")
SPREAD = 0.05  # standard deviation of the logarithm by which a later bar's prices are moved
X_NAMES = ("close", "volume", "mean_volume", "atr", "z", "sigma", "kama", "er", "regime", "funding_rate", "close_ms",
           "first_candle")  # fmt: skip
PARTS = {
    "signals": X_NAMES,
    "orders": ("order_id", "what", "when", "side", "role", "level", "price", "qty"),
    "fills": ("bar", "candle", "side", "label", "price", "qty", "fee", "pnl", "maker", "order_id", "wallet", "regime"),
    "verdicts": ("bar", "guard", "side", "value", "limit"),
    "equity": ("wallet", "equity", "long_qty", "long_mean", "short_qty", "short_mean", "regime", "halted", "entries",
               "exits"),
}  # fmt: skip
Build = Callable[[pl.DataFrame, int, pl.DataFrame | None, pl.DataFrame | None], Market]


@dataclass(frozen=True)
class Finding:
    """What was tested, and what failed: empty text if nothing did."""

    cuts: tuple[int, ...]
    orders: int
    fault: str = ""

    @property
    def ok(self) -> bool:
        """True if nothing was found."""
        return not self.fault


def check(
    bars: pl.DataFrame, interval_ns: int, funding: pl.DataFrame | None, finer: pl.DataFrame | None,
    params: GridParams, venue: VenueParams, *, cuts: int, seed: int, build: Build = Market.of,
) -> Finding:  # fmt: skip
    """Run once as it is and once for each of `cuts` seeded bars with other data after it; what differs first.

    `build` makes the market of frames. Raises UsageError for bars that are too few to cut.
    """
    first, last = warm_up(params), bars.height - 2
    if cuts < 1 or last < first:
        raise UsageError(
            f"{cuts} cuts in {bars.height:,} bars, of which {first} warm up", remedy="give a longer span, and --cuts 20"
        )
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(np.arange(first, last + 1), min(cuts, last + 1 - first), replace=False))
    market = build(bars, interval_ns, funding, finer)
    known = market.rows(params)
    raw = simulate(known, market.candles, params, venue)
    finding = Finding(tuple(int(i) for i in at), int((raw.orders[:, 1] == PLACED).sum()), too_early(raw, market))
    for bar in finding.cuts:
        if not finding.ok:
            break
        other = build(*changed(bars, interval_ns, funding, finer, bar, rng))
        rows = other.rows(params)
        again = simulate(rows, other.candles, params, venue)
        fault = differs(market, until(market, known, raw, bar), until(other, rows, again, bar), bar)
        finding = Finding(finding.cuts, finding.orders, fault)
    return finding


def changed(
    bars: pl.DataFrame, interval_ns: int, funding: pl.DataFrame | None, finer: pl.DataFrame | None, bar: int,
    rng: np.random.Generator,
) -> tuple[pl.DataFrame, int, pl.DataFrame | None, pl.DataFrame | None]:  # fmt: skip
    """The same up to the close of `bar`; after it bars (with their minutes) in another order, at other prices."""
    n, kept = bars.height, bar + 1
    source = np.concatenate((np.arange(kept), kept + rng.permutation(n - kept)))
    factor = np.concatenate((np.ones(kept), np.exp(rng.normal(0.0, SPREAD, n - kept))))
    volume = np.concatenate((np.ones(kept), rng.exponential(1.0, n - kept)))
    scaled = [pl.col(name) * pl.Series(factor) for name in PRICES]
    drawn = bars[source].with_columns(*scaled, pl.col("volume") * pl.Series(volume), open_ns=bars["open_ns"])
    drawn = drawn.with_columns(pl.lit(None, pl.Float64).alias("buy_volume"))
    closes = int(bars["open_ns"][bar]) + interval_ns
    if funding is not None:
        later = (funding["ts_ns"] >= closes).to_numpy()
        rate = funding["rate"].to_numpy().copy()
        rate[later] = rng.normal(0.0, 0.001, int(later.sum()))
        funding = funding.with_columns(rate=pl.Series(rate))
    if finer is not None:
        finer = moved(finer, bars["open_ns"].to_numpy(), interval_ns, source, factor)
    return drawn, interval_ns, funding, finer


def moved(
    finer: pl.DataFrame, open_ns: npt.NDArray[np.int64], interval_ns: int, source: npt.NDArray[np.int64], factor: Floats
) -> pl.DataFrame:
    """Minutes where their bars have gone: bar k is now made of those of bar source[k], times factor[k]."""
    times = finer["open_ns"].to_numpy()
    place = np.searchsorted(open_ns, times, side="right") - 1
    within = (place >= 0) & (times - open_ns[np.maximum(place, 0)] < interval_ns)
    rows, place, times = finer.filter(pl.Series(within)), place[within], times[within]
    goes = np.argsort(source)[place]
    at = open_ns[goes] + times - open_ns[place]
    scaled = [pl.col(name) * pl.Series(factor[goes]) for name in PRICES]
    return rows.with_columns(*scaled, open_ns=pl.Series(at)).sort("open_ns")


def until(market: Market, rows: Floats, raw: Raw, bar: int) -> dict[str, Floats]:
    """All that is known at the close of `bar`: PARTS by name, one row each in the order in which they came about."""
    candles = market.first_candle[bar + 1]
    orders = raw.orders
    in_candle = np.isin(orders[:, 1], (FILLED, CLOSED))
    return {
        "signals": rows[: bar + 1],
        "orders": orders[np.where(in_candle, orders[:, 2] < candles, orders[:, 2] <= bar)],
        "fills": raw.fills[raw.fills[:, 0] <= bar],
        "verdicts": raw.verdicts[raw.verdicts[:, 0] <= bar],
        "equity": raw.equity[: bar + 1],
    }


def differs(market: Market, before: dict[str, Floats], after: dict[str, Floats], bar: int) -> str:
    """What of the past differs after the future was replaced, in words; empty if nothing does."""
    for part, columns in PARTS.items():
        was, now = before[part], after[part]
        n = min(len(was), len(now))
        wrong = np.ascontiguousarray(was[:n]).view(np.int64) != np.ascontiguousarray(now[:n]).view(np.int64)
        if not wrong.any() and len(was) == len(now):
            continue
        cut = f"with other data after {utc_text(closing(market, bar))}"
        if not wrong.any():
            return f"{cut} there are {len(now):,} rows of {part} up to then, not {len(was):,}"
        row, column = (int(k[0]) for k in np.nonzero(wrong))
        at = f"of the bar of {utc_text(int(market.open_ns[row]))}" if part in {"signals", "equity"} else f"in row {row}"
        return f"{cut} the {columns[column]} ({part}) {at} is {now[row, column]!r}, not {was[row, column]!r}"
    return ""


def too_early(raw: Raw, market: Market) -> str:
    """The first order that was filled on a candle which opened before the close at which it was decided, in words."""
    orders = raw.orders
    placed, filled = orders[orders[:, 1] == PLACED], orders[orders[:, 1] == FILLED]
    decided = dict(zip(placed[:, 0], placed[:, 2].astype(np.int64), strict=True))
    bars = np.array([decided[number] for number in filled[:, 0]], np.int64)
    candles = filled[:, 2].astype(np.int64)
    opens = market.candle_ns[candles]
    early = np.flatnonzero(opens < market.open_ns[bars] + market.interval_ns)
    if not early.size:
        return ""
    k = early[0]
    role = ROLES[int(filled[k, 4])].lower().replace("_", "-")
    closed = utc_text(closing(market, bars[k]))
    return (
        f"{early.size:,} of {len(filled):,} fills look ahead: the first, of {role} {int(filled[k, 0])}, was decided "
        f"at the close of {closed} and filled on the candle that opened at {utc_text(int(opens[k]))}, before it"
    )


def closing(market: Market, bar: int) -> int:
    """When a bar closes, ns."""
    return int(market.open_ns[bar]) + market.interval_ns
