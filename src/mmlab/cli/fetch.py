"""`mmlab fetch klines` and `fetch funding`: candles and settlements from the venue's public REST into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmlab.cli import options as o
from mmlab.cli.console import ERR, OUT, done, progress, warn
from mmlab.cli.flags import option

if TYPE_CHECKING:
    from mmlab.flows.fetch import Fetched, FetchSpec

VENUE = "Venue"
SHOWN = 5  # gaps that are named
Start = Annotated[str, option("--start", help="UTC day or time: 2024-01-01, 2024-01-01T08:00.", panel=o.DATA)]
End = Annotated[
    str | None, option("--end", help="Likewise; a day is fetched whole. Until now, if not given.", panel=o.DATA)
]
RestUrl = Annotated[
    str, option("--rest-url", env="REST_URL", help="Another address than the venue's own.", panel=VENUE)
]
Tries = Annotated[int, option("--tries", help="How often one page is asked for, before the command ends.", panel=VENUE)]
Venue = Annotated[str, option("--venue", env="VENUE", help="binance-spot or binance-usdm.", panel=o.DATA)]


def klines(
    symbol: o.Symbol,
    interval: Annotated[str, option("--interval", help="Length of a candle: 1m, 15m, 1h, 1d.", panel=o.DATA)],
    start: Start,
    end: End = None,
    venue: Venue = "binance-usdm",
    data_root: o.DataRoot = Path("data"),
    rest_url: RestUrl = "",
    tries: Tries = 6,
    as_json: o.Json = False,
) -> None:
    """Fetch candles that the lake does not have yet, as far as they are closed by the venue's clock.

    What is in the lake is not asked for again; each page is written as it comes, so the same command goes on
    where another one was stopped. It keeps to two fifths of the venue's limit, waits when told to, and asks
    again after errors that pass. What the venue does not have is named.
    """
    from mmlab.flows.fetch import fetch_klines
    from mmlab.flows.rest import Patience

    spec = _spec(symbol, start, end, venue, data_root, rest_url)
    with progress() as show:
        made = fetch_klines(spec, interval, show, _say, Patience(tries))
    _told(spec, f"{interval} candles", made, as_json)


def funding(
    symbol: o.Symbol,
    start: Start,
    end: End = None,
    venue: Venue = "binance-usdm",
    data_root: o.DataRoot = Path("data"),
    rest_url: RestUrl = "",
    tries: Tries = 6,
    as_json: o.Json = False,
) -> None:
    """Fetch a perpetual's settlements that the lake does not have yet.

    What is in the lake is not asked for again; each page is written as it comes.
    """
    from mmlab.flows.fetch import fetch_funding
    from mmlab.flows.rest import Patience

    spec = _spec(symbol, start, end, venue, data_root, rest_url)
    with progress() as show:
        made = fetch_funding(spec, show, _say, Patience(tries))
    _told(spec, "settlements", made, as_json)


def _spec(symbol: str, start: str, end: str | None, venue: str, data_root: Path, rest_url: str) -> FetchSpec:
    from mmlab.flows.fetch import FetchSpec, parse_instant

    end_ns = None if end is None else parse_instant("--end", end, end=True)
    return FetchSpec(
        venue, symbol.strip().upper(), parse_instant("--start", start), end_ns, data_root, rest_url
    )  # fmt: skip


def _say(text: str) -> None:
    """A wait, on standard error, so that nobody takes it for a hang."""
    ERR.print(text, markup=False)


def _told(spec: FetchSpec, what: str, made: Fetched, as_json: bool) -> None:
    """What came, from when to when, and what the venue does not have."""
    from mmlab.core.intervals import utc_text

    OUT.print(
        f"{made.new:,} new {what} of {spec.symbol}, {made.held:,} were there: {utc_text(made.first_ns)} to "
        f"{utc_text(made.last_ns)} UTC, {made.requests} requests"
    )
    if made.before is not None:
        warn([f"{spec.venue} has none before {utc_text(made.first_ns)}"])
    told = [f"{utc_text(from_ns)} to {utc_text(to_ns)}" for from_ns, to_ns in made.gaps]
    warn([f"{spec.venue} has none from {text}" for text in told[:SHOWN]])
    if told[SHOWN:]:
        warn([f"and {len(told) - SHOWN} more gaps (--json names them all)"])
    path = spec.data_root / f"venue={spec.venue}" / f"symbol={spec.symbol}"
    done({"path": str(path), "new": made.new, "held": made.held, "requests": made.requests, "gaps": told}, as_json)
