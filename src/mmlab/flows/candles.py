"""`mmlab import klines`, `mmlab import funding` and `mmlab bars`: candles and settlements into the lake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core.errors import DataError, LakeError, UsageError
from mmlab.core.intervals import FUNDING as SETTLED
from mmlab.core.intervals import interval_text, parse_interval, utc_text
from mmlab.core.schemas import AGG_TRADES, BARS, FUNDING, TRADES
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, day_of_ns, day_start_ns
from mmlab.core.table import Table
from mmlab.flows.candle_files import Source, read_sources
from mmlab.flows.check import day_refs
from mmlab.flows.run import Progress, no_progress
from mmlab.store.candles import Candles, Written, merge, month_of
from mmlab.store.lake import DayRef, Lake
from mmlab.tape.bars import Hole, cut_bars, from_trades, holes, settlement_holes, spans_by_ids
from mmlab.venues.columns import BadRow
from mmlab.venues.endpoints import VENUES

TRADE_COLUMNS = ("trade_ns", "trade_id", "price", "qty", "taker")
PADS_NS = (60 * NS_PER_MIN, 2 * NS_PER_DAY)  # how far beyond a day its neighbours are read: enough in nearly all cases


@dataclass(frozen=True)
class Stored:
    """What came into one series of the lake, and how the series is now.

    `set_aside` are rows that could not be meant, by file; `left_out` the starts of candles that trades were
    recorded of, but not all; `holes` those of the whole series as it is in the lake now.
    """

    venue: str
    symbol: str
    interval: str
    path: Path
    written: Written
    holes: list[Hole]
    set_aside: dict[str, tuple[BadRow, ...]]
    warnings: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()


def import_klines(
    files: Sequence[Path], symbol: str, data_root: Path, *, venue: str = "binance-usdm", interval: str | None = None,
    replace: bool = False, progress: Progress = no_progress,
) -> Stored:  # fmt: skip
    """Candles of files into the lake, all of one length, or none: what contradicts the lake stops it, unless `replace`.

    Rows that cannot be meant are set aside, and the others go in. Raises UsageError for what cannot be meant,
    DataError for files that are torn or contradict each other or the lake.
    """
    _check(venue, symbol)
    sources = read_sources(files, "klines", symbol, parse_interval(interval) if interval else None, progress)
    lengths = {source.parsed.interval_ns: source.name for source in reversed(sources)}
    if len(lengths) > 1:
        told = " and ".join(f"{name} has {interval_text(ns)} candles" for ns, name in sorted(lengths.items()))
        raise UsageError(told, remedy="import the lengths one by one")
    return _import(BARS, sources, Candles(data_root), venue, symbol, interval_text(next(iter(lengths))), replace)


def import_funding(
    files: Sequence[Path], symbol: str, data_root: Path, *, venue: str = "binance-usdm", replace: bool = False,
    progress: Progress = no_progress,
) -> Stored:  # fmt: skip
    """Settlements of files into the lake; raises as `import_klines` does."""
    _check(venue, symbol)
    sources = read_sources(files, "funding", symbol, None, progress)
    return _import(FUNDING, sources, Candles(data_root), venue, symbol, SETTLED, replace)


def _check(venue: str, symbol: str) -> None:
    if venue not in VENUES:
        raise UsageError(f"unknown venue {venue!r}", remedy=f"give --venue {' or '.join(VENUES)}")
    if not symbol:
        raise UsageError("the symbol is empty", remedy="give --symbol like BTCUSDT")


def _import(
    table: Table, sources: list[Source], candles: Candles, venue: str, symbol: str, interval: str, replace: bool
) -> Stored:
    rows = joined(table, sources)
    key = table.key[0]
    command = "import funding" if table is FUNDING else "import klines"
    times = [source.parsed.frame[key] for source in sources]
    spans = [(month_of(at[0]), month_of(at[-1]), s.about) for at, s in zip(times, sources, strict=True)]

    def came_from(month: str) -> dict[str, Any]:
        return {"command": command, "files": [about for first, last, about in spans if first <= month <= last]}

    written = candles.write(table, venue, symbol, interval, rows, replace=replace, source=came_from)
    aside = {source.name: source.parsed.bad for source in sources if source.parsed.bad}
    warnings = tuple(text for source in sources for text in source.parsed.warnings)
    found, path = series_holes(candles, venue, symbol, interval), candles.folder(table, venue, symbol, interval)
    return Stored(venue, symbol, interval, path, written, found, aside, warnings)


def joined(table: Table, sources: Sequence[Source]) -> pl.DataFrame:
    """Rows of all files by time, each once; raises DataError for two files that contradict each other."""
    key = table.key[0]
    rows = pl.concat([source.parsed.frame.with_columns(_file=pl.lit(n)) for n, source in enumerate(sources)])
    twice = pl.col(key).is_duplicated()
    again, names = rows.filter(twice), [source.name for source in sources]
    merged = table.empty()
    for (n,), own in again.group_by("_file", maintain_order=True):
        made = merge(table, merged, own.drop("_file"))
        if made.contradiction is not None:
            at = made.contradiction[1][key]
            other = again.filter((pl.col(key) == at) & (pl.col("_file") != n))["_file"][0]
            raise DataError(
                f"{names[other]} and {names[n]} contradict each other about {utc_text(at)}",
                remedy="import only the one that is right",
            )
        merged = made.rows
    return pl.concat([rows.filter(~twice).drop("_file"), merged]).sort(key)


def series_holes(candles: Candles, venue: str, symbol: str, interval: str) -> list[Hole]:
    """What is missing within a series as it is in the lake."""
    if interval == SETTLED:
        return settlement_holes(candles.funding(symbol, venue=venue))
    return holes(candles.bars(symbol, interval, venue=venue), parse_interval(interval))


def make_bars(
    lake: Lake, symbol: str, interval: str, *, day: str | None = None, venue: str | None = None, replace: bool = False,
    progress: Progress = no_progress,
) -> Stored:  # fmt: skip
    """Candles from the recorded trades of days (all there are, if none are named), into the lake.

    A candle is made where the ids of the trades show that none is missing in it, prints that were filled in
    later by REST counted: they carry the venue's time. Days beside those asked for are read where
    they are needed to show it. Without single trades a day's aggregated ones do, and n_trades stays null.
    Raises LakeError for days that are missing, DataError where no candle is whole, or one contradicts the lake.
    """
    interval_ns = parse_interval(interval)
    refs = day_refs(lake, symbol, day, venue)
    venues = sorted({ref.venue for ref in refs})
    if len(venues) > 1:
        raise UsageError(f"{symbol} is at {' and '.join(venues)}", remedy=f"choose one: --venue {venues[0]}")
    known = {ref.day: ref for ref in lake.days(venues[0], symbol)}
    made, left_out, inputs = [BARS.empty()], list[int](), list[tuple[str, dict[str, Any]]]()
    for n, ref in enumerate(refs, 1):
        table = TRADES if lake.manifest(ref).tables.get(TRADES.name) else AGG_TRADES
        beside = [known[each] for each in (ref.day + timedelta(days=d) for d in (-1, 0, 1)) if each in known]
        bars, cut = _day_bars(lake, ref, beside, table, interval_ns)
        made.append(bars)
        left_out += cut
        listed = {f"{table.name}/{p.file}": p.sha256 for p in lake.manifest(ref).tables.get(table.name, [])}
        inputs.append((f"{ref.day:%Y%m%d}", listed))
        progress("bars", n, len(refs))
    rows = pl.concat(made)
    if rows.is_empty():
        raise DataError(
            f"no {interval} candle of {symbol} was recorded whole: {len(left_out)} have trades, but not provably all",
            remedy="choose a shorter --interval, or more days",
        )
    name = interval_text(interval_ns)

    def came_from(month: str) -> dict[str, Any]:
        return {"command": "bars", "days": {day: listed for day, listed in inputs if day.startswith(month)}}

    candles = Candles(lake.root)
    written = candles.write(BARS, venues[0], symbol, name, rows, replace=replace, source=came_from)
    found = series_holes(candles, venues[0], symbol, name)
    path = candles.folder(BARS, venues[0], symbol, name)
    return Stored(venues[0], symbol, name, path, written, found, {}, left_out=tuple(left_out))


def _day_bars(
    lake: Lake, ref: DayRef, beside: Sequence[DayRef], table: Table, interval_ns: int
) -> tuple[pl.DataFrame, list[int]]:
    """The candles of one UTC day by the venue's clock, and the starts of those that are cut."""
    start = day_start_ns(ref.day)
    end = start + NS_PER_DAY
    trades = table.empty().select(TRADE_COLUMNS)
    for pad in PADS_NS:
        near = pl.col("trade_ns").is_between(start - pad, end + pad)
        trades = _collected(lake.scan(beside, table, TRADE_COLUMNS).filter(near), table, ref)
        times = trades["trade_ns"].to_numpy()
        before, after = bool((times < start).any()), bool((times >= end).any())
        if (before or beside[0] == ref) and (after or beside[-1] == ref):
            break
    trades = trades.sort("trade_ns", "trade_id").unique(("trade_ns", "trade_id"), keep="first", maintain_order=True)
    spans = spans_by_ids(trades)
    within = pl.col("open_ns").is_between(start, end, closed="left")
    bars = from_trades(trades, interval_ns, spans).filter(within)
    if table is AGG_TRADES:
        bars = bars.with_columns(n_trades=pl.lit(None, pl.Int64))
    return bars, [ns for ns in cut_bars(trades, interval_ns, spans) if day_of_ns(ns) == ref.day]


def _collected(lazy: pl.LazyFrame, table: Table, ref: DayRef) -> pl.DataFrame:
    """The rows; raises LakeError for a part that is torn."""
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LakeError(
            f"table {table.name!r} at {ref.day:%Y%m%d} cannot be read: {str(error).splitlines()[0]}",
            remedy="mmlab check names the file; import or record the day again",
        ) from None
