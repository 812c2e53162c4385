"""`mmlab backtest --sweep`: one tape, many specifications -> the table `sweep`, a row for each figure of each run."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import MmlabError, UsageError
from mmlab.flows.backtest import IntensitySource, check_intensity, intensity_manifest
from mmlab.flows.market import files_manifest, read_strategy, read_tapes
from mmlab.flows.quick import quick_metrics
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.flows.strategy_file import fresh
from mmlab.report.metrics import metrics
from mmlab.report.sweep_cells import column, wide
from mmlab.sim import events
from mmlab.sim.axes import Grid, Value, text
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run as simulate
from mmlab.sim.spec import BacktestSpec
from mmlab.sim.strategy import Strategy

BLOCK = 1_024  # runs whose rows are put together at once
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class SweepResult:
    """Where the sweep lies, and its table."""

    path: Path
    sweep: pl.DataFrame
    warnings: list[str]


def one(tape: events.Tape, spec: BacktestSpec, intensity: Intensity, strategy: Strategy | None = None) -> pl.DataFrame:
    """The metrics of one run; its orders, fills and state are let go, or not made at all where they need not be."""
    quick = quick_metrics(tape, spec, intensity)
    if quick is not None:
        return quick
    found = simulate(tape, spec, intensity, strategy=strategy)
    return metrics(found.orders, found.fills, found.state, tape.instrument)


def sweep(
    job: Job, base: BacktestSpec, grid: Grid, source: IntensitySource, sort_by: str = "pnl_total",
    progress: Progress = no_progress, threads: int | None = None,
) -> SweepResult:  # fmt: skip
    """Run every combination of the grid over one tape; raises UsageError naming a combination that is refused.

    What a specification refuses is found before anything is read. The bytes do not depend on `threads`.
    """
    for spec in grid.specs(base):
        if spec.latency_file is not None:
            raise UsageError("--latency-file and --sweep are both given", remedy="sweep over latencies in ms")
    with begin(job, "sweep", None, progress) as run:
        strategy = read_strategy(run, base)
        intensity = source.load(run.instrument.tick_size)
        with run.step("read for sweep"):
            tapes = read_tapes(run, list(grid.specs(base)))
        check_intensities(run, grid, base, intensity, tapes[max(tapes)])
        with run.step("simulate"):
            table = run_all(tapes, grid, base, intensity, sort_by, progress, threads or os.cpu_count() or 1, strategy)
        run.folder.write_table(schemas.SWEEP, table)
        run.folder.write_bytes("sweep.csv", wide(table).write_csv().encode())
        warn_of_idle(run, table, len(grid))
        content = {**told(base, grid), "intensity": intensity_manifest(source), "sort_by": sort_by,
                   **files_manifest(base, strategy)}  # fmt: skip
        return SweepResult(run.commit(content, None if "seed" in grid.names else base.fill.seed), table, run.warnings)


def told(base: BacktestSpec, grid: Grid) -> dict[str, Any]:
    """The specification for the manifest: what every run shares, `swept` where the runs differ, and the grid."""
    shared = asdict(base)
    for axis in grid.axes:
        *rooms, name = axis.parameter.path
        place = shared
        for room in rooms:
            place = place[room]
        place[name] = "swept"
    axes = [{"name": axis.parameter.name, "values": [text(value) for value in axis.values]} for axis in grid.axes]
    return {**shared, "sweep": axes, "runs": len(grid)}


def run_all(
    tapes: Mapping[int, events.Tape], grid: Grid, base: BacktestSpec, intensity: Intensity, sort_by: str,
    progress: Progress, threads: int, strategy: Strategy | None = None,
) -> pl.DataFrame:  # fmt: skip
    """The table of all runs, in the grid's order; `sort_by` is looked up as soon as the first one is done."""

    def measured(values: tuple[Value, ...]) -> pl.DataFrame:
        with naming(grid, values):
            spec = grid.spec(base, values)
            return one(tapes[spec.fill.book_levels], spec, intensity, fresh(strategy))

    blocks: list[pl.DataFrame] = []
    rows: list[pl.DataFrame] = []
    with closing(in_order(measured, grid.points(), threads)) as found:
        for number, (values, figures) in enumerate(zip(grid.points(), found, strict=True), 1):
            rows.append(long(number, grid, values, figures))
            if number == 1:
                column(rows[0], sort_by)
            if len(rows) == BLOCK:
                blocks, rows = [*blocks, pl.concat(rows)], []
            progress("sweep", number, len(grid))
    return schemas.SWEEP.check(pl.concat([*blocks, *rows]))


def in_order(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Generator[Made]:
    """`map` over threads, in order; never more than twice as many results as threads wait to be taken."""
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def long(number: int, grid: Grid, values: tuple[Value, ...], figures: pl.DataFrame) -> pl.DataFrame:
    """One run's rows: its parameters, then its metrics."""
    plain = [None if value is None or isinstance(value, str) else float(value) for value in values]
    set_to = pl.DataFrame(
        {"name": grid.names, "value": plain, "text": [text(value) for value in values]},
        schema={"name": pl.String, "value": pl.Float64, "text": pl.String},
    )
    parts = (
        set_to.with_columns(role=pl.lit("parameter"), unit=pl.lit("")),
        figures.select("value", "unit", name="metric", text=pl.lit(None, pl.String), role=pl.lit("metric")),
    )
    return pl.concat([schemas.SWEEP.conform(part.with_columns(number=pl.lit(number, pl.Int64))) for part in parts])


@contextmanager
def naming(grid: Grid, values: tuple[Value, ...]) -> Iterator[None]:
    """Say of an error in which run it came up."""
    try:
        yield
    except MmlabError as error:
        raise type(error)(f"--sweep {grid.said(values)}: {error.message}", remedy=error.remedy) from None


def check_intensities(run: Run, grid: Grid, base: BacktestSpec, intensity: Intensity, tape: events.Tape) -> None:
    """Refuse a sweep of which one run needs an intensity and has none; warn once where it covers a part only."""
    seen: set[tuple[object, ...]] = set()
    for values in grid.points():
        spec = grid.spec(base, values)
        kind = tuple(shape(part) for part in (spec.quote, spec.fill))
        if kind not in seen:
            seen.add(kind)
            with naming(grid, values):
                check_intensity(run, spec, intensity, tape)
    run.warnings[:] = dict.fromkeys(run.warnings)


def shape(part: object) -> tuple[object, ...]:
    """What a part of a specification is, without its numbers: its words and switches, and what it leaves out."""
    given = (getattr(part, field.name) for field in fields(part))  # type: ignore[arg-type]
    return tuple(value if isinstance(value, str | bool) or value is None else ... for value in given)


def warn_of_idle(run: Run, table: pl.DataFrame, runs: int) -> None:
    """Say how many runs had no fill at all: their figures are those of holding still."""
    idle = table.filter((pl.col("role") == "metric") & (pl.col("name") == "fills") & (pl.col("value") == 0)).height
    if idle:
        run.warn(f"no order was filled in {idle:,} of {runs:,} runs")
