"""What a backtest runs on: the tape as deep as its fills look, measured latencies, and the user's own strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from mmlab.core import schemas
from mmlab.core.errors import TableError, UsageError
from mmlab.flows import strategy_file
from mmlab.flows.run import Run
from mmlab.sim import events, latency
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import Result
from mmlab.sim.run import run as simulate
from mmlab.sim.spec import BacktestSpec
from mmlab.sim.strategy import Strategy
from mmlab.store.parts import sha256


@dataclass(frozen=True)
class Market:
    """A tape, and what a specification names besides: latencies measured, a strategy of the user's own."""

    tape: events.Tape
    series: latency.Series | None = None
    strategy: Strategy | None = None

    def simulate(self, spec: BacktestSpec, intensity: Intensity) -> Result:
        """One backtest; raises UsageError for a specification that the instrument does not allow."""
        return simulate(self.tape, spec, intensity, series=self.series, strategy=self.strategy)


def read_market(run: Run, spec: BacktestSpec) -> Market:
    """All that `spec` needs; raises UsageError for a file of the user's that cannot be used."""
    strategy = read_strategy(run, spec)
    series = None if spec.latency_file is None else read_series(Path(spec.latency_file))
    return Market(read_tapes(run, [spec])[spec.fill.book_levels], series, strategy)


def read_strategy(run: Run, spec: BacktestSpec) -> Strategy | None:
    """The user's own, if the specification names one; warns if it could not be compiled."""
    if spec.quote.strategy is None:
        return None
    strategy = strategy_file.load(spec.quote.strategy)
    if strategy.reason:
        run.warn(f"strategy {strategy.name} runs uncompiled, hence slower: {strategy.reason}")
    return strategy


def read_tapes(run: Run, specs: Sequence[BacktestSpec]) -> dict[int, events.Tape]:
    """The days read once, and the tape for each number of book levels that a specification fills from."""
    levels, event_time = sorted({s.fill.book_levels for s in specs}), any(s.feed_recorded for s in specs)
    contract = schemas.depth(max(levels[-1], schemas.LEVELS))
    try:
        depth = run.lake.read(run.refs, contract, events.depth_columns(levels[-1], event_time), require_rows=True)
    except TableError as error:
        if f"bid_px_{levels[-1]}" in error.message:
            raise UsageError(f"--book-levels is {levels[-1]}, the days have fewer", remedy="give fewer") from None
        raise
    trades = run.lake.live_prints(run.refs, events.TRADE_COLUMNS)
    return {n: events.tape(depth.select(events.depth_columns(n, event_time)), trades, run.instrument) for n in levels}


def read_series(path: Path) -> latency.Series:
    """--latency-file, CSV or Parquet; raises UsageError naming the file, and the row where there is one."""
    try:
        frame = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path, hive_partitioning=False)
    except (OSError, PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--latency-file {path}: {reason}", remedy="give a CSV or Parquet file") from None
    return latency.series(frame, f"--latency-file {path}")


def files_manifest(spec: BacktestSpec, strategy: Strategy | None) -> dict[str, object]:
    """What the manifest keeps of the files that the specification names: their bytes may change."""
    kept: dict[str, object] = {}
    if spec.latency_file is not None:
        kept["latency_file_sha256"] = sha256(Path(spec.latency_file))
    if strategy is not None:
        kept["strategy_sha256"] = strategy.sha256
        kept["strategy_compiled"] = strategy.compiled is not None
    return kept
