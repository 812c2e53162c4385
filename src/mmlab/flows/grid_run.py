"""What every run of the grid has in common: coins read from the lake, the folder, the log, the manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmlab.core.errors import MmlabError, UsageError
from mmlab.core.intervals import FUNDING, interval_text, parse_interval, utc_text
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, Days, day_of_ns, day_start_ns, parse_day
from mmlab.flows.run import Progress, Steps, logged
from mmlab.grid.config import LOOK_AHEAD, BacktestParams, Config, parse
from mmlab.grid.market import Market
from mmlab.store.candles import AbsentError, Candles, month_of
from mmlab.store.runs import RunFolder, free_run_id
from mmlab.tape.bars import Hole, holes, settlement_holes

SHOWN = 3  # gaps that are told in full
MOST_NAMED = 6  # coins in a folder's name
COARSEST, FINEST = 4, 8  # zeros before the point, and decimals, that a price step may have


@dataclass(frozen=True)
class Where:
    """The lake, where the outputs go, and how the run is named and logged."""

    data_root: Path = Path("data")
    out_root: Path = Path("out")
    log_root: Path | None = None
    log_level: str = "INFO"
    run_id: str | None = None


@dataclass(frozen=True)
class Coin:
    """One coin as the lake has it: candles, settlements and 1-minute candles of the span, and what to know of them."""

    symbol: str
    interval_ns: int
    bars: pl.DataFrame
    funding: pl.DataFrame | None
    finer: pl.DataFrame | None
    market: Market
    tick_size: str
    inputs: list[dict[str, Any]]
    warnings: list[str]


def read_config(path: Path | None) -> Config:
    """A config file, or the defaults; raises UsageError naming the file and the key that is wrong."""
    if path is None:
        return Config()
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UsageError(f"{path} is missing", remedy="mmlab grid config > grid.toml writes one") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text", remedy="give a TOML file, as mmlab grid config prints it") from None


def read_coins(data_root: Path, spec: BacktestParams) -> list[Coin]:
    """All coins of a run, in the order given; raises as `read_coin` does."""
    return [read_coin(data_root, symbol, spec) for symbol in spec.symbols]


def read_coin(data_root: Path, symbol: str, spec: BacktestParams) -> Coin:
    """Candles, settlements and, with `intrabar`, 1-minute candles of [start, end] from the lake.

    Raises LakeError where there are no candles or a file is torn, UsageError for too few of them, TableError for bars
    that their minutes contradict. Gaps, missing settlements and missing minutes are warnings.
    """
    lake, interval_ns, venue = Candles(data_root), parse_interval(spec.timeframe), spec.venue or None
    start = day_start_ns(parse_day(spec.start)) if spec.start else None
    end = day_start_ns(parse_day(spec.end)) + NS_PER_DAY if spec.end else None
    bars = lake.bars(symbol, spec.timeframe, start, end, venue)
    first, last = int(bars["open_ns"][0]), int(bars["open_ns"][-1]) + interval_ns
    warnings = [*edges(symbol, spec, first, last), *told(symbol, "candles", holes(bars, interval_ns))]
    funding, funding_warnings = settlements(lake, symbol, first, last, venue)
    finer, finer_warnings = minutes(lake, symbol, first, last, venue) if spec.intrabar else (None, [])
    try:
        market = Market.of(bars, interval_ns, funding, finer)
    except MmlabError as error:
        raise type(error)(f"{symbol}: {error.message}", remedy=error.remedy) from None
    if finer is not None:
        whole = int((np.diff(market.first_candle, append=len(market.candles)) > 1).sum())
        if whole < len(market):
            told_share = f"1-minute candles make up {whole:,} of {len(market):,} bars; the others are taken whole"
            finer_warnings.append(f"{symbol}: {told_share}")
    lengths = {interval_text(interval_ns): bars, FUNDING: funding, interval_text(NS_PER_MIN): finer}
    read = {name for name, frame in lengths.items() if frame is not None}
    parts = inputs(lake, symbol, venue, read, first, last)
    told_all = [*warnings, *funding_warnings, *finer_warnings]
    return Coin(symbol, interval_ns, bars, funding, finer, market, tick_of(bars), parts, told_all)


def settlements(
    lake: Candles, symbol: str, first: int, last: int, venue: str | None
) -> tuple[pl.DataFrame | None, list[str]]:
    """Funding of a span, from a day before so that the rate at its start is known; and what is missing of it."""
    try:
        funding = lake.funding(symbol, first - NS_PER_DAY, last, venue)
    except AbsentError:
        return None, [f"{symbol}: no settlements from {utc_text(first)} to {utc_text(last)}: funding counts as 0"]
    missing = settlement_holes(funding)
    begins, ends = int(funding["ts_ns"][0]), int(funding["ts_ns"][-1])
    if begins - first > NS_PER_DAY / 2:
        missing = [(first, begins, round((begins - first) * 3 / NS_PER_DAY)), *missing]
    if last - ends > NS_PER_DAY / 2:
        missing = [*missing, (ends, last, int((last - ends) * 3 // NS_PER_DAY))]
    return funding, [f"{text}: funding counts as 0 there" for text in told(symbol, "settlements", missing)]


def minutes(
    lake: Candles, symbol: str, first: int, last: int, venue: str | None
) -> tuple[pl.DataFrame | None, list[str]]:
    """1-minute candles of a span; None and a warning where there are none."""
    try:
        return lake.bars(symbol, interval_text(NS_PER_MIN), first, last, venue), []
    except AbsentError:
        return None, [f"{symbol}: no 1-minute candles in this span: --intrabar 1m changes nothing"]


def edges(symbol: str, spec: BacktestParams, first: int, last: int) -> list[str]:
    """Where the candles begin after the first day or end before the last one that was asked for."""
    found = []
    if spec.start and day_of_ns(first) > parse_day(spec.start):
        found.append(f"{symbol}: the candles begin at {utc_text(first)}, not on {spec.start}")
    if spec.end and day_of_ns(last - 1) < parse_day(spec.end):
        found.append(f"{symbol}: the candles end at {utc_text(last)}, not on {spec.end}")
    return found


def told(symbol: str, what: str, missing: Sequence[Hole]) -> list[str]:
    """One warning for all gaps: how many, and the first few with their times."""
    if not missing:
        return []
    shown = "; ".join(f"{utc_text(a)} to {utc_text(b)} ({n:,})" for a, b, n in missing[:SHOWN])
    more = f"; and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    gaps = "1 gap" if len(missing) == 1 else f"{len(missing):,} gaps"
    return [f"{symbol}: {gaps} in the {what}, {sum(n for _, _, n in missing):,} missing: {shown}{more}"]


def tick_of(bars: pl.DataFrame) -> str:
    """The coarsest power of ten that all prices are multiples of, as decimal text; 1e-8 where none is."""
    prices = np.unique(np.concatenate([bars[name].to_numpy() for name in ("open", "high", "low", "close")]))
    for decimals in range(-COARSEST, FINEST):
        scale = 10.0 ** abs(decimals)
        back = np.rint(prices * scale) / scale if decimals > 0 else np.rint(prices / scale) * scale
        if (back == prices).all():
            return f"{Decimal(1).scaleb(-decimals):f}"
    return f"{Decimal(1).scaleb(-FINEST):f}"


def inputs(
    lake: Candles, symbol: str, venue: str | None, read: set[str], first: int, last: int
) -> list[dict[str, Any]]:  # fmt: skip
    """What was read: each series with the checksums of its months."""
    low, high = month_of(first - NS_PER_DAY), month_of(last)
    return [
        {
            "symbol": symbol, "venue": series.venue, "interval": series.interval,
            "parts": {month: sha for month, sha in series.parts.items() if low <= month <= high},
        }
        for series in lake.intervals(symbol)
        if series.interval in read and venue in {None, series.venue}
    ]  # fmt: skip


@dataclass
class GridRun(Steps):
    """One run of the grid while it is being made."""

    config: Config
    coins: list[Coin]
    kind: str
    symbol: str
    days: Days
    run_id: str
    folder: RunFolder
    log: logging.Logger
    progress: Progress
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def commit(self, spec: dict[str, Any], seed: int | None = None) -> Path:
        """Write the manifest and put the run's folder in place; `spec` is what is told beside the config."""
        label = {"label": LOOK_AHEAD} if self.config.backtest.look_ahead else {}
        path = self.folder.commit(
            {
                "run_id": self.run_id,
                "kind": self.kind,
                **label,
                "spec": {"symbol": self.symbol, "day": str(self.days), **asdict(self.config), **spec},
                "seed": seed,
                "inputs": [part for coin in self.coins for part in coin.inputs],
                "timings_s": self.timings_s,
                "warnings": self.warnings,
            }
        )
        self.log.info("wrote %s", path)
        return path


@contextmanager
def begin_grid(where: Where, method: str, config: Config, coins: list[Coin], progress: Progress) -> Iterator[GridRun]:
    """Open the run's folder and log, `out/grid/method=M/symbol=S/day=A..B/run=R/`; nothing is left of a run that fails.

    Raises UsageError for a run id that is taken.
    """
    symbol, days = together([coin.symbol for coin in coins]), days_of(coins)
    place = (where.out_root, "grid", method, symbol, str(days))
    run_id = where.run_id or free_run_id(*place, datetime.now(UTC))
    folder = RunFolder.create(*place, run_id)
    kind, log_root = f"grid/{method}", where.log_root or where.out_root / "logs"
    with logged(folder, log_root, kind, symbol, str(days), run_id, where.log_level) as log:
        log.info("%s of %s %s from %s", kind, symbol, days, where.data_root)
        run = GridRun(config, coins, kind, symbol, days, run_id, folder, log, progress)
        if config.backtest.look_ahead:
            run.warn(f"fills are {config.backtest.fills}: {LOOK_AHEAD}")
        for text in (text for coin in coins for text in coin.warnings):
            run.warn(text)
        yield run


def together(symbols: Sequence[str]) -> str:
    """One name for all coins of a run: theirs, or the first ones' and how many more."""
    more = len(symbols) - MOST_NAMED
    return "-".join(symbols) if more <= 0 else "-".join(symbols[:MOST_NAMED]) + f"-and-{more}-more"


def days_of(coins: Sequence[Coin]) -> Days:
    """The days from the first bar of any coin to the last one's."""
    firsts, lasts = zip(*((coin.bars["open_ns"][0], coin.bars["open_ns"][-1]) for coin in coins), strict=True)
    return Days(day_of_ns(min(firsts)), day_of_ns(max(lasts)))
