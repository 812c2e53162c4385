"""`mmlab backtest`: lake and intensity -> orders, fills, state and metrics in `out/backtest/`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import DataError, UsageError
from mmlab.core.table import Table
from mmlab.flows.market import Market, files_manifest, read_market
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.report.attribution import Mids, attribution, markouts
from mmlab.report.metrics import metrics
from mmlab.sim import events
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import Result
from mmlab.sim.spec import BacktestSpec
from mmlab.store.csv_export import csv_name, to_csv
from mmlab.store.parts import sha256
from mmlab.store.runs import read_json


@dataclass(frozen=True)
class BacktestResult:
    """Where the run lies and its figures."""

    path: Path
    metrics: pl.DataFrame
    attribution: pl.DataFrame
    warnings: list[str]


@dataclass(frozen=True)
class Figures:
    """What a run shows at its end, what its manifest keeps of the files that it used, and what it ran on."""

    metrics: pl.DataFrame
    attribution: pl.DataFrame
    files: dict[str, object]
    market: Market


@dataclass(frozen=True)
class IntensitySource:
    """Where (A, k) come from: two numbers, or a poisson_fit.json or poisson_schedule.json."""

    A: float | None = None
    k: float | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is not None and (self.A is not None or self.k is not None):
            raise UsageError("--fill-params-file and --A/--k are both given", remedy="give one of them")
        if (self.A is None) != (self.k is None):
            raise UsageError("--A and --k belong together", remedy="give both, or --fill-params-file")

    def load(self, tick_size: str) -> Intensity:
        """The intensity; raises DataError for a file that does not hold one or was made for another tick size."""
        if self.A is not None and self.k is not None:
            return Intensity.constant(self.A, self.k)
        if self.file is None:
            return Intensity.none()
        content = read_json(self.file)
        if isinstance(content, list):
            return Intensity.scheduled(content)
        if not isinstance(content, dict) or not {"A", "k"} <= content.keys():
            raise DataError(f"{self.file} holds neither a fit nor a schedule", remedy="give a file of mmlab calibrate")
        if content["A"] is None or content["k"] is None:
            raise DataError(
                f"{self.file} has no curve: {content.get('reason')}", remedy="calibrate with other --deltas"
            )
        if float(content.get("tick_size", tick_size)) != float(tick_size):
            raise DataError(
                f"{self.file} was fitted with tick size {content['tick_size']}, the data have {tick_size}",
                remedy="k is per tick: calibrate on this instrument",
            )
        return Intensity.constant(content["A"], content["k"])


def backtest(
    job: Job, spec: BacktestSpec, source: IntensitySource, progress: Progress = no_progress, *, csv: bool = False
) -> BacktestResult:
    """Simulate one strategy over the days; raises DataError for data or an intensity that do not fit."""
    with begin(job, "backtest", None, progress) as run:
        intensity = source.load(run.instrument.tick_size)
        figures = simulate_into(run, spec, intensity, csv=csv)
        made = {"intensity": intensity_manifest(source), **figures.files}
        path = run.commit({**asdict(spec), **made}, spec.fill.seed)
        return BacktestResult(path, figures.metrics, figures.attribution, run.warnings)


def intensity_manifest(source: IntensitySource) -> dict[str, object]:
    """What the manifest keeps of the intensity's source."""
    if source.file is not None:
        return {"file": source.file.name, "sha256": sha256(source.file)}
    return {"A": source.A, "k": source.k}


def simulate_into(run: Run, spec: BacktestSpec, intensity: Intensity, *, csv: bool = False) -> Figures:
    """Read the tape, simulate, write the tables into the run's folder, with `csv` as CSV too; returns the figures."""
    with run.step("read for backtest"):
        market = read_market(run, spec)
    check_intensity(run, spec, intensity, market.tape)
    with run.step("simulate"):
        found = market.simulate(spec, intensity)
    happened = ((schemas.ORDERS, found.orders), (schemas.FILLS, found.fills), (schemas.STATE, found.state))
    with run.step("figures and files"), ThreadPoolExecutor(1) as beside:
        written = beside.submit(write_tables, run, happened, csv)  # while the figures are found
        follows = figures(found, market.tape)
        written.result()
        write_tables(run, follows, csv)
    if found.fills.is_empty():
        skipped = found.orders.filter(pl.col("action") == "SKIP")["reject_reason"].unique().sort().to_list()
        run.warn("no order was filled" + (f"; quotes were not sent because of {', '.join(skipped)}" if skipped else ""))
    by_name = {table.name: frame for table, frame in follows}
    return Figures(by_name["metrics"], by_name["attribution"], files_manifest(spec, market.strategy), market)


def write_tables(run: Run, made: Iterable[tuple[Table, pl.DataFrame]], csv: bool) -> None:
    """Into the run's folder, with `csv` as CSV too."""
    for table, frame in made:
        run.folder.write_table(table, frame)
        if csv:
            run.folder.write_bytes(csv_name(table, run.job.symbol), to_csv(table, frame))


def figures(found: Result, tape: events.Tape) -> list[tuple[Table, pl.DataFrame]]:
    """The tables that follow from what happened."""
    mids = Mids(tape.frame_ns, tape.bid + tape.ask)
    after = (found.fills, found.state, mids, tape.instrument)
    return [
        (schemas.METRICS, metrics(found.orders, found.fills, found.state, tape.instrument)),
        (schemas.ATTRIBUTION, attribution(*after)),
        (schemas.MARKOUTS, markouts(*after)),
    ]


def check_intensity(run: Run, spec: BacktestSpec, intensity: Intensity, tape: events.Tape) -> None:
    """Refuse a run that needs an intensity and has none; warn where a schedule covers a part only."""
    if not (spec.fill.clocks or spec.quote.needs):
        return
    if not intensity.start_ns.size:
        needs = " and ".join(spec.quote.needs)
        what = f"{spec.fill.model} fills need (A, k)" if spec.fill.clocks else f"{spec.quote.model} quotes need {needs}"
        flags = "".join(f", or --quote-{name}" for name in spec.quote.needs if not spec.fill.clocks)
        raise UsageError(what, remedy=f"give --fill-params-file (from mmlab calibrate), or --A and --k{flags}")
    share = intensity.coverage(*tape.span_ns)
    if not math.isclose(share, 1.0):
        run.warn(f"the intensity covers {share:.1%} of the data; there are no quotes or poisson fills outside it")
