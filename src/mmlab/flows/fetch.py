"""`mmlab fetch`: the candles and settlements that the lake lacks, from the venue's REST, written page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

from mmlab.core.errors import DataError, FeedError, UsageError
from mmlab.core.intervals import FUNDING as SETTLED
from mmlab.core.intervals import interval_text, parse_interval, utc_text
from mmlab.core.schemas import BARS, FUNDING
from mmlab.core.spans import NS_PER_MIN, NS_PER_MS, NS_PER_S
from mmlab.core.table import Table
from mmlab.flows.rest import REAL_TIME, Patience, Rest, Time
from mmlab.store.candles import AbsentError, Candles
from mmlab.venues import history
from mmlab.venues.endpoints import Request
from mmlab.venues.klines import ON_THE_HOUR_NS, parse_rest_funding, parse_rest_klines

HOUR_NS = 60 * NS_PER_MIN
RARELY = 8  # hours: no perpetual settles more rarely
SETTLE_NS = 5 * NS_PER_S  # after its end, until a candle is taken for final
Span = tuple[int, int]  # [from, to) in ns


@dataclass(frozen=True)
class FetchSpec:
    """What of whom: [start_ns, end_ns) in ns UTC; without an end, until now. `rest_url` empty is the venue's own."""

    venue: str
    symbol: str
    start_ns: int
    end_ns: int | None = None
    data_root: Path = Path("data")
    rest_url: str = ""

    def __post_init__(self) -> None:
        if self.end_ns is not None and self.start_ns >= self.end_ns:
            raise UsageError(
                f"--start {utc_text(self.start_ns)} is not before --end {utc_text(self.end_ns)}",
                remedy="write the earlier one as --start",
            )


@dataclass(frozen=True)
class Fetched:
    """What came of it: rows that are new and that were there, requests, and what the venue does not have."""

    new: int
    held: int
    requests: int
    first_ns: int  # of the rows in the range, now
    last_ns: int
    before: Span | None  # the venue has nothing so early
    gaps: list[Span]


@dataclass(frozen=True)
class Series:
    """One series of a venue: how it is asked for, read, and looked through for what is missing."""

    table: Table
    interval: str
    what: str
    step_ns: int  # from one row to where the next may be
    slack_ns: int  # by which the venue's stamp of a row may be off
    request: Callable[[int, int, int], Request]  # first and last ms, both included, and the number of rows
    read: Callable[[bytes], pl.DataFrame]
    missing: Callable[[list[int], int, int], list[Span]]  # times that are there, start, end


def fetch_klines(
    spec: FetchSpec, interval: str, show: Callable[[str, int, int], None], say: Callable[[str], None],
    patience: Patience | None = None, clocks: Time = REAL_TIME,
) -> Fetched:  # fmt: skip
    """Fetch candles of `interval` that opened in the range and are closed, and that the lake does not have.

    Raises UsageError for what cannot be meant (an unknown symbol, a start after the end), DataError for a venue
    that refuses or does not answer; what came before is in the lake then.
    """
    rest = Rest(spec.venue, spec.symbol, spec.data_root, spec.rest_url, patience or Patience(), say, clocks)
    step_ns = parse_interval(interval)
    name = interval_text(step_ns)

    def request(first_ms: int, last_ms: int, limit: int) -> Request:
        return history.klines(rest.venue, spec.symbol, name, first_ms, last_ms, limit)

    request(0, 0, 1)  # an interval that the venue does not have is told before anything is asked

    def missing(have: list[int], start_ns: int, end_ns: int) -> list[Span]:
        return absent(have, start_ns, end_ns, step_ns)

    candles = Series(BARS, name, f"{name} candles", step_ns, 0, request, parse_rest_klines, missing)
    return _fetch(spec, candles, rest, show)


def fetch_funding(
    spec: FetchSpec, show: Callable[[str, int, int], None], say: Callable[[str], None],
    patience: Patience | None = None, clocks: Time = REAL_TIME,
) -> Fetched:  # fmt: skip
    """Fetch settlements of the range that the lake does not have; raises as `fetch_klines`, and for spot."""
    rest = Rest(spec.venue, spec.symbol, spec.data_root, spec.rest_url, patience or Patience(), say, clocks)

    def request(first_ms: int, last_ms: int, _limit: int) -> Request:
        return history.funding(rest.venue, spec.symbol, first_ms, last_ms)

    request(0, 0, 1)
    settled = Series(FUNDING, SETTLED, "settlements", HOUR_NS, ON_THE_HOUR_NS, request, parse_rest_funding, unsettled)
    return _fetch(spec, settled, rest, show)


def _fetch(spec: FetchSpec, series: Series, rest: Rest, show: Callable[[str, int, int], None]) -> Fetched:
    lake = Candles(spec.data_root)
    have = _have(lake, series, spec, spec.end_ns)
    end_ns = spec.end_ns
    wanted = [] if end_ns is None else series.missing(have, spec.start_ns, end_ns)
    new = 0
    if end_ns is None or wanted:
        end_ns = min(end_ns or 1 << 62, _final(rest.set_clock(), series))
        if end_ns <= spec.start_ns:
            raise UsageError(f"nothing from {utc_text(spec.start_ns)} on is over yet", remedy="give an earlier --start")
        wanted = series.missing(have, spec.start_ns, end_ns)
        new = _fill(spec, series, rest, lake, wanted, show)
        have = _have(lake, series, spec, end_ns) if new else [at for at in have if at < end_ns]
    if not have:
        raise _nothing(spec, series, rest, end_ns)
    gaps = series.missing(have, spec.start_ns, end_ns)
    before = gaps.pop(0) if gaps and gaps[0][0] < have[0] else None
    if series.table is FUNDING and gaps and have[-1] < gaps[-1][0] and end_ns - have[-1] <= RARELY * HOUR_NS:
        gaps.pop()  # the next settlement is not due yet
    return Fetched(new, len(have) - new, rest.requests, have[0], have[-1], before, gaps)


def _final(now_ns: int, series: Series) -> int:
    """The instant before which everything that started is over, by the venue's clock."""
    if series.table is FUNDING:
        return now_ns
    return (now_ns - SETTLE_NS) // series.step_ns * series.step_ns


def _have(lake: Candles, series: Series, spec: FetchSpec, end_ns: int | None) -> list[int]:
    """The times of the range's rows in the lake."""
    try:
        if series.table is FUNDING:
            rows = lake.funding(spec.symbol, spec.start_ns, end_ns, spec.venue)
        else:
            rows = lake.bars(spec.symbol, series.interval, spec.start_ns, end_ns, spec.venue)
    except AbsentError:
        return []
    return rows[series.table.key[0]].to_list()


def _fill(
    spec: FetchSpec, series: Series, rest: Rest, lake: Candles, wanted: list[Span],
    show: Callable[[str, int, int], None],
) -> int:  # fmt: skip
    """Ask for each stretch and write each page as it comes; returns how many rows are new."""
    unit = HOUR_NS if series.table is FUNDING else series.step_ns
    total = sum((to_ns - from_ns) // unit for from_ns, to_ns in wanted)
    source = {"fetched": rest.address, "symbol": spec.symbol, "interval": series.interval}
    new = done = 0
    show(f"fetch {series.what}", 0, total)
    for from_ns, to_ns in wanted:
        for page in _pages(series, rest, from_ns, to_ns):
            written = lake.write(
                series.table, spec.venue, spec.symbol, series.interval, page, replace=False, source=source
            )
            new += written.new
            show(f"fetch {series.what}", done + (page[series.table.key[0]][-1] - from_ns) // unit, total)
        done += (to_ns - from_ns) // unit
        show(f"fetch {series.what}", done, total)
    return new


def _pages(series: Series, rest: Rest, from_ns: int, to_ns: int) -> Iterator[pl.DataFrame]:
    """The venue's rows of a stretch, the oldest first. It answers with the oldest that it has from a time on, and
    so steps over what it does not have; an empty answer is the end of what it has."""
    key = series.table.key[0]
    while from_ns < to_ns:
        limit = min(-(-(to_ns - from_ns) // series.step_ns), history.ROWS)
        rows = _page(series, rest, from_ns, to_ns, limit)
        if rows.is_empty():
            return
        yield rows
        from_ns = rows[key][-1] + series.step_ns


def _page(series: Series, rest: Rest, from_ns: int, to_ns: int, limit: int) -> pl.DataFrame:
    """One answer, its rows of the range by time; one with others was not meant for us."""
    key, first_ns, end_ns = series.table.key[0], max(from_ns - series.slack_ns, 0), to_ns + series.slack_ns

    def read(body: bytes) -> pl.DataFrame:
        rows = series.read(body)
        if rows.height and not (rows[key][0] >= first_ns and rows[key][-1] < end_ns):
            raise FeedError("bad answer: other times than were asked for")
        return rows.filter((pl.col(key) >= from_ns) & (pl.col(key) < to_ns))

    return rest.ask(series.request(-(-first_ns // NS_PER_MS), (end_ns - 1) // NS_PER_MS, limit), read)


def _nothing(spec: FetchSpec, series: Series, rest: Rest, end_ns: int) -> DataError:
    """The error for a range of which the venue has nothing: it says where what it has begins."""
    first = _page(series, rest, 0, rest.now_ns(), 1)
    text = f"{spec.venue} has no {series.what} of {spec.symbol} from {utc_text(spec.start_ns)} to {utc_text(end_ns)}"
    if first.is_empty():
        return DataError(text, remedy="it has none at all: check --symbol and --venue")
    at_ns = first[series.table.key[0]][0]
    other = "give a later --end" if at_ns >= end_ns else "give another stretch"
    return DataError(text, remedy=f"its first is of {utc_text(at_ns)}: {other}")


# -- what is missing ----------------------------------------------------------------------------------


def absent(have: list[int], start_ns: int, end_ns: int, step_ns: int) -> list[Span]:
    """Stretches of [start_ns, end_ns) without bars, by the grid of `step_ns`; `have` are ascending starts of bars."""
    first, end = (-(-ns // step_ns) * step_ns for ns in (start_ns, end_ns))
    edges = [first - step_ns, *(at for at in have if first <= at < end), end]
    return [(before + step_ns, after) for before, after in pairwise(edges) if after - before > step_ns]


def unsettled(have: list[int], start_ns: int, end_ns: int) -> list[Span]:
    """Stretches of [start_ns, end_ns) in which there may be settlements that `have`, ascending, lacks.

    Settlements are due at full hours, every 8, 4 or 1 of them, and the schedule may change. Missing is what is
    longer than 8 hours, or than both stretches beside it; and at both ends whatever holds a full hour.
    """
    inside = [at for at in have if start_ns <= at < end_ns]
    if not inside:
        return [(start_ns, end_ns)]
    found: list[Span] = []
    hours = [(at + HOUR_NS // 2) // HOUR_NS for at in inside]
    apart = [after - before for before, after in pairwise(hours)]
    if -(-start_ns // HOUR_NS) < hours[0]:
        found.append((start_ns, inside[0]))
    for i, hour in enumerate(apart):
        beside = [*apart[max(i - 1, 0) : i], *apart[i + 1 : i + 2]]
        if hour > min(max(beside, default=RARELY), RARELY):
            found.append((inside[i] + HOUR_NS, inside[i + 1]))
    if inside[-1] + HOUR_NS < end_ns:
        found.append((inside[-1] + HOUR_NS, end_ns))
    return found


def parse_instant(flag: str, text: str, *, end: bool = False) -> int:
    """`2024-12-31` or `2024-12-31T08:00` (UTC, unless it names an offset) in ns; as an end, a day is meant whole.

    Raises UsageError naming the flag.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{flag} is {text!r}", remedy="give a UTC day or time, like 2024-12-31 or 2024-12-31T08:00"
        ) from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if end and len(text.strip()) <= len("2024-12-31"):
        at += timedelta(days=1)
    if at.year < 1971:
        raise UsageError(f"{flag} is {text!r}", remedy="give a day since 1971")
    return round(at.timestamp() * 1000) * NS_PER_MS
