"""Candles and settlements as venues and documents write them: dumps, CSV, Parquet and REST answers, row by row.

Known shapes (data.binance.vision and the REST pages of Binance):

* dumps of candles, with or without a header: open_time, open, high, low, close, volume, close_time,
  quote_volume, count, taker_buy_volume, taker_buy_quote_volume, ignore; times in ms, in microseconds for
  spot since 2025;
* dumps of settlements: calc_time, funding_interval_hours, last_funding_rate;
* the documents' own: timestamp (ms), open, high, low, close, volume; timestamp, fundingRate;
* REST: rows of twelve, objects of fundingTime and fundingRate.

Whether the last candle of a file was finished cannot be seen in it, and is taken for granted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl

from mmlab.core.errors import DataError, FeedError, UsageError
from mmlab.core.intervals import interval_text, parse_interval, utc_text
from mmlab.core.schemas import BARS, FUNDING
from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.core.table import Table
from mmlab.venues.columns import BadRow, Raw, instants_ns, is_number, numbers, read_csv, read_parquet

DUMP = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip
BAR_TIMES = ("open_time", "timestamp")
PRICES = ("open", "high", "low", "close")
SETTLED_TIMES = ("calc_time", "fundingtime", "timestamp")
RATES = ("last_funding_rate", "fundingrate", "funding_rate")
NOT_ASKED = {*DUMP, "funding_interval_hours", "symbol", "markprice", "mark_price"}  # known, and of no use here
ON_THE_HOUR_NS = NS_PER_MIN  # a settlement is stamped some milliseconds after the hour that it is due
HOUR_NS = 60 * NS_PER_MIN


@dataclass(frozen=True)
class Parsed:
    """What a file holds: rows of a contract by time, their interval (0 for settlements), what was set aside."""

    table: Table
    frame: pl.DataFrame
    interval_ns: int
    bad: tuple[BadRow, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def read_table(name: str, content: bytes) -> Raw:
    """A CSV or Parquet file's columns, by its first bytes; raises DataError naming the file."""
    return read_parquet(name, content) if content.startswith(b"PAR1") else read_csv(name, content, DUMP)


def kind_of(raw: Raw) -> str:
    """`klines`, `funding`, or empty: what the columns are those of."""
    if set(PRICES) <= set(raw.frame.columns):
        return "klines"
    return "funding" if _first(raw, RATES) and _first(raw, SETTLED_TIMES) else ""


def parse_klines(raw: Raw, interval_ns: int | None = None) -> Parsed:
    """Candles of a file; the interval is read off their spacing, and checked where it is given.

    Raises DataError for columns that are missing, rows of one time that contradict each other, and a file
    without a readable candle; UsageError where the interval is not the file's, or cannot be known.
    """
    time = _need(raw, BAR_TIMES, (*PRICES, "volume"))
    rows, bad, warnings = _bars(raw, time)
    if rows.is_empty():
        raise _unreadable(raw, bad)
    spacing = _spacing(raw, rows, interval_ns)
    if interval_ns is not None and spacing not in {None, interval_ns}:
        raise UsageError(
            f"{raw.name} has {_length(spacing)} candles, --interval says {interval_text(interval_ns)}",
            remedy="leave --interval out, or check the file",
        )
    interval = interval_ns or spacing
    if interval is None:
        raise UsageError(f"{raw.name} has one candle: how long is it?", remedy="give --interval, like 15m")
    text = _length(interval)
    try:
        parse_interval(text)
    except UsageError as error:
        raise DataError(f"{raw.name} has {text} candles", remedy=error.remedy) from None
    on_grid = pl.col("open_ns") % interval == 0
    for row, ns in rows.filter(~on_grid).select("_row", "open_ns").iter_rows():
        bad.append(BadRow(row, f"starts at {utc_text(ns)}, which is no multiple of {text}"))
    rows = rows.filter(on_grid)
    if rows.is_empty():
        raise _unreadable(raw, bad)
    if rows["volume"].sum() == 0.0:
        warnings.append(f"{raw.name}: every volume is 0: are these candles of a mark or index price?")
    rows = _in_order(raw, BARS, rows, warnings)
    return Parsed(BARS, rows, interval, tuple(sorted(bad, key=lambda b: b.row)), tuple(warnings))


def parse_funding(raw: Raw) -> Parsed:
    """Settlements of a file. A stamp within a minute of an hour is that hour's: sources differ in the milliseconds.

    Raises DataError for columns that are missing, rows of one time that contradict each other, and a file
    without a readable settlement.
    """
    time = _need(raw, SETTLED_TIMES, ())
    rate = _first(raw, RATES)
    if rate is None:
        raise DataError(f"{raw.name} has no column fundingRate or last_funding_rate", remedy=_has(raw))
    rows, bad, warnings = _settlements(raw, time, rate)
    if rows.is_empty():
        raise _unreadable(raw, bad)
    return Parsed(FUNDING, _in_order(raw, FUNDING, rows, warnings), 0, tuple(bad), tuple(warnings))


def parse_rest_klines(body: bytes) -> pl.DataFrame:
    """The answer of `klines` as rows of BARS by time, an unfinished last one too; raises FeedError for other things."""
    rows = _decoded(body, list[tuple[int, str, str, str, str, str, int, str, int, str, str, str]])
    raw = Raw("klines", "row", pl.DataFrame(rows, schema=list(DUMP), orient="row").with_row_index("_row", 1))
    return _answer(raw, BARS, lambda: _bars(raw, "open_time"))


class _Settlement(msgspec.Struct):
    fundingTime: int
    fundingRate: str


def parse_rest_funding(body: bytes) -> pl.DataFrame:
    """The answer of `fundingRate` as rows of FUNDING by time; raises FeedError for what is none."""
    rows = [(each.fundingTime, each.fundingRate) for each in _decoded(body, list[_Settlement])]
    columns = ["fundingtime", "fundingrate"]
    raw = Raw("fundingRate", "row", pl.DataFrame(rows, schema=columns, orient="row").with_row_index("_row", 1))
    return _answer(raw, FUNDING, lambda: _settlements(raw, *columns))


# -- rows ---------------------------------------------------------------------------------------------


def _bars(raw: Raw, time: str) -> tuple[pl.DataFrame, list[BadRow], list[str]]:
    """Rows of BARS with their number `_row`, those that cannot be meant, and what is strange about the columns."""
    buys, count = (name if name in raw.frame.columns else None for name in ("taker_buy_volume", "count"))
    wanted = [*PRICES, "volume"]
    open_ns, warnings = instants_ns(raw, time)
    frame = raw.frame.select(
        "_row",
        open_ns.alias("open_ns"),
        *(numbers(name).alias(name) for name in wanted),
        (numbers(buys) if buys else pl.lit(None, pl.Float64)).alias("buy_volume"),
        (numbers(count).cast(pl.Int64, strict=False) if count else pl.lit(None, pl.Int64)).alias("n_trades"),
    )
    high, low, volume, bought = (pl.col(name) for name in ("high", "low", "volume", "buy_volume"))
    faults = [
        *(is_number(name, needed=True) for name in wanted),
        *(is_number(name, needed=False) for name in (buys, count) if name),
        (low <= 0, pl.format("low is {}: a price is above 0", low)),
        ((volume < 0) | (bought < 0), pl.lit("a volume is below 0")),
        (high < pl.max_horizontal("open", "low", "close"), pl.format("high {} is below another price", high)),
        (low > pl.min_horizontal("open", "close"), pl.format("low {} is above another price", low)),
        (bought > volume, pl.format("the taker's volume {} is more than all of it, {}", bought, volume)),
    ]
    if count:
        prints, text = pl.col("n_trades"), f"raw:{count}"
        faults.append(((prints < 0) | (prints != numbers(text)), pl.format("count is {}", text)))
    rows, bad = _split(raw, time, "open_ns", frame, faults)
    warnings += _unread(raw, time)
    return rows, bad, warnings


def _settlements(raw: Raw, time: str, rate: str) -> tuple[pl.DataFrame, list[BadRow], list[str]]:
    """Rows of FUNDING with their number, those that cannot be meant, and what is strange about the columns."""
    stamp, warnings = instants_ns(raw, time)
    due = (stamp + HOUR_NS // 2) // HOUR_NS * HOUR_NS
    at = pl.when((stamp - due).abs() <= ON_THE_HOUR_NS).then(due).otherwise(stamp)
    frame = raw.frame.select("_row", at.alias("ts_ns"), numbers(rate).alias("rate"))
    faults = [
        is_number(rate, needed=True),
        (pl.col("rate").abs() >= 1, pl.format("the rate {} is no fraction of a notional", "rate")),
    ]
    rows, bad = _split(raw, time, "ts_ns", frame, faults)
    warnings += _unread(raw, time, rate)
    return rows, bad, warnings


def _unread(raw: Raw, *read: str) -> list[str]:
    """A warning that names the columns that nobody asked for, if there are any."""
    known = {"_row", *read, *NOT_ASKED}
    names = [f"{c!r}" for c in (*raw.frame.columns, *raw.unread) if c not in known]
    return [f"{raw.name}: columns that were not read: {', '.join(names)}"] if names else []


def _split(
    raw: Raw, time: str, key: str, frame: pl.DataFrame, faults: list[tuple[pl.Expr, pl.Expr]]
) -> tuple[pl.DataFrame, list[BadRow]]:
    """The rows that are whole, and for each other one the first thing that is wrong with it."""
    both = pl.concat([frame, raw.frame.drop("_row").rename(lambda name: f"raw:{name}")], how="horizontal")
    stamp = pl.format("{} is {}, no time in milliseconds or microseconds", pl.lit(time), _shown(f"raw:{time}"))
    told = [(pl.col(key).is_null(), stamp), *faults]
    reason = pl.coalesce(pl.when(broken.fill_null(False)).then(what) for broken, what in told)
    both = both.with_columns(reason.alias("_reason"))
    wrong = both.filter(pl.col("_reason").is_not_null()).select("_row", "_reason")
    return both.filter(pl.col("_reason").is_null()).select(frame.columns), [
        *raw.bad,
        *(BadRow(*r) for r in wrong.iter_rows()),
    ]


def _shown(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).fill_null("empty")


def _in_order(raw: Raw, table: Table, rows: pl.DataFrame, warnings: list[str]) -> pl.DataFrame:
    """Rows of the contract by time, each time once; raises DataError for two that contradict each other."""
    key, values = table.key[0], [name for name in table.schema if name not in table.key]
    back = rows.filter(pl.col(key) < pl.col(key).shift(1))
    if back.height:
        warnings.append(
            f"{raw.name}: {back.height:,} times run backwards, the first at {raw.unit} {back['_row'][0]}: sorted"
        )
    rows = rows.sort(key, "_row")
    again = pl.col(key) == pl.col(key).shift(1)
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in values)
    marked = rows.with_columns(_again=again.fill_null(False), _before=pl.col("_row").shift(1), _differs=differs)
    clash = marked.filter("_again", "_differs")
    if clash.height:
        row, before, ns = clash.select("_row", "_before", key).row(0)
        raise DataError(
            f"{raw.name}: {raw.unit}s {before} and {row} contradict each other about {utc_text(ns)}",
            remedy=f"{clash.height:,} such pairs: take one of the two out of the file",
        )
    twice = marked.filter("_again")
    if twice.height:
        warnings.append(f"{raw.name}: {twice.height:,} rows come twice, the first at {raw.unit} {twice['_row'][0]}")
    return table.conform(marked.filter(~pl.col("_again")))


def _spacing(raw: Raw, rows: pl.DataFrame, told_ns: int | None) -> int | None:
    """How long the candles are: by their ends where the file has them, else by the steps between them.

    A step that most of them have is it; where holes are so many that none is, what the user told, or what
    divides every step. None for one candle without an end.
    """
    if "close_time" in raw.frame.columns:
        close_ns, _ = instants_ns(raw, "close_time")
        ends = rows.join(raw.frame.select("_row", close_ns.alias("_end")), on="_row")
        lengths = (ends["_end"] - ends["open_ns"]).drop_nulls()
        if lengths.len():  # an end is 1 ms or 1 us before the next start
            return _commonest((lengths + NS_PER_S - 1) // NS_PER_S * NS_PER_S)[0]
    steps = rows["open_ns"].unique().sort().diff().drop_nulls()
    if not steps.len():
        return None
    step, count = _commonest(steps)
    return step if 2 * count > steps.len() else told_ns or math.gcd(*steps.to_list())


def _commonest(lengths: pl.Series) -> tuple[int, int]:
    """The value that most have, of two the smaller, and how many have it."""
    counts = lengths.value_counts().sort("count", lengths.name, descending=[True, False])
    return int(counts[lengths.name][0]), int(counts["count"][0])


def _length(interval_ns: int | None) -> str:
    """`15m`; for what is no interval its seconds."""
    try:
        return interval_text(interval_ns or 0)
    except UsageError:
        return f"{(interval_ns or 0) / 1e9:g} s"


def _first(raw: Raw, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in raw.frame.columns), None)


def _need(raw: Raw, times: tuple[str, ...], others: tuple[str, ...]) -> str:
    """The column of times; raises DataError naming what is missing."""
    time = _first(raw, times)
    missing = [name for name in others if name not in raw.frame.columns]
    if time is None:
        also = ": a datetime without its zone is not enough" if "datetime" in raw.frame.columns else ""
        raise DataError(f"{raw.name} has no column {' or '.join(times)}{also}", remedy=_has(raw))
    if missing:
        raise DataError(f"{raw.name} has no column {', '.join(missing)}", remedy=_has(raw))
    return time


def _has(raw: Raw) -> str:
    return f"its columns are {', '.join(c for c in raw.frame.columns if c != '_row')}; timestamp is in ms"


def _unreadable(raw: Raw, bad: list[BadRow]) -> DataError:
    why = f"{raw.unit} {bad[0].row} {bad[0].reason}" if bad else "it is empty"
    return DataError(f"{raw.name} has no row that can be read ({why})", remedy="check that it is the right file")


def _decoded(body: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FeedError(f"bad answer: {error}") from None


def _answer(raw: Raw, table: Table, read: Any) -> pl.DataFrame:
    """Rows of an answer, all of them whole; raises FeedError otherwise."""
    if raw.frame.is_empty():
        return table.empty()
    rows, bad, _ = read()
    if bad:
        raise FeedError(f"bad answer: {raw.name} row {bad[0].row}: {bad[0].reason}")
    try:
        return _in_order(raw, table, rows, [])
    except DataError as error:
        raise FeedError(f"bad answer: {error.message}") from None
