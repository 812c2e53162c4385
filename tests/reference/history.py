"""A venue of candles alone, in a thread, and what it has as the lake should have it, worked out row by row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from urllib.parse import parse_qs, urlsplit

import polars as pl

from mmlab.core.intervals import parse_interval
from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_DAY
from mmlab.flows.rest import Time
from mmlab.serve.candles import Candles, CandleSpec
from mmlab.serve.faults import Fault
from mmlab.serve.market import Listing, State
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec, Venue
from reference.child import stand

SYMBOL = "TESTUSDT"
MARKET = CandleSpec((SYMBOL,), seed=5, usdm=True)
FAST = 30  # times as fast as real time, where a test has to wait for minutes


def ns(text: str) -> int:
    """A UTC time, like 2024-03-01T12:00."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


NOW = ns("2024-03-05T12:07:30")


class Asked:
    """A running venue: its address, and what it was asked for."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.url = f"http://127.0.0.1:{venue.port}"

    def requests(self, what: str = "") -> list[dict[str, str]]:
        """Queries of the requests of a path (of all), in order, with `path` and the venue's time."""
        found = []
        for line in self.venue.truth.of("request"):
            parts = urlsplit(line["path"])
            if not what or parts.path.endswith(f"/{what}"):
                query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
                found.append({**query, "path": parts.path, "at_ns": line["at_ns"]})
        return found


@contextmanager
def history(
    *faults: Fault, market: CandleSpec = MARKET, clock_ns: Callable[[], int] = lambda: NOW, weight_per_min: int = 0,
) -> Iterator[Asked]:  # fmt: skip
    """A venue whose clock stands at NOW, unless it is given another."""
    states = {symbol: State(Listing(symbol, "0.01", "0.00001")) for symbol in market.symbols}
    spec = ServeSpec(weight_per_min=weight_per_min)
    standing = stand(lambda: Venue(states, (), spec, clock_ns, faults, Truth(), candles=Candles(market)))
    try:
        yield Asked(standing.venue)
    finally:
        standing.stop()


def fast() -> Time:
    """Clocks that begin at NOW, at the middle of a minute, and run FAST times as fast as real ones."""
    began = time.monotonic_ns()
    return Time(
        lambda: NOW + (time.monotonic_ns() - began) * FAST,
        lambda: time.monotonic_ns() * FAST,
        lambda seconds: time.sleep(seconds / FAST),
    )


def bars(start: str, end: str, interval: str = "15m", market: CandleSpec = MARKET) -> pl.DataFrame:
    """The market's candles that opened in [start, end), day by day."""
    days = range(ns(start) // NS_PER_DAY, -(-ns(end) // NS_PER_DAY))
    rows = [row for day in days for row in one_day(day, parse_interval(interval), market)]
    found = BARS.conform(pl.DataFrame(rows, schema=list(BARS.schema), orient="row"))
    return found.filter((pl.col("open_ns") >= ns(start)) & (pl.col("open_ns") < ns(end)))


@cache
def one_day(day: int, step: int, market: CandleSpec) -> list[tuple[float, ...]]:
    """A day's candles as rows of BARS, from ticks and lots."""
    made = Candles(market).bars(SYMBOL, step, day * NS_PER_DAY, (day + 1) * NS_PER_DAY, 1440, 1 << 61)
    rows = []
    for i, at in enumerate(made.open_ns.tolist()):
        prices = [round(int(getattr(made, name)[i]) * 0.01, 2) for name in ("open", "high", "low", "close")]
        volume, bought = (round(int(each[i]) * 0.00001, 5) for each in (made.volume, made.bought))
        rows.append((at, *prices, volume, bought, int(made.trades[i])))
    return rows


def settlements(start: str, end: str) -> list[tuple[int, float]]:
    """(due at, rate) of the market's settlements in [start, end)."""
    found = Candles(MARKET).funding(SYMBOL, ns(start), ns(end), 10**6, 1 << 61)
    return [(at // (3600 * 10**9) * 3600 * 10**9, rate / 1e8) for at, rate in found]
