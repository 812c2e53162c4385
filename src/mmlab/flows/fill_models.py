"""`mmlab backtest --compare-fills`: the same strategy under each fill model that can run -> the table `fill_models`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import polars as pl

from mmlab.core import schemas
from mmlab.flows.backtest import (
    BacktestResult,
    IntensitySource,
    check_intensity,
    intensity_manifest,
    simulate_into,
)
from mmlab.flows.market import Market
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.flows.strategy_file import fresh
from mmlab.report.attribution import Mids, attribution
from mmlab.report.backtest_fills import HORIZON_S, name
from mmlab.report.metrics import metrics
from mmlab.sim.intensity import Intensity
from mmlab.sim.spec import BacktestSpec, FillSpec
from mmlab.store.csv_export import csv_name, to_csv

COMPARED = (
    ("trade_cross", "touch"),
    ("trade_cross", "queue"),
    ("trade_cross", "through"),
    ("price_cross", "touch"),
    ("poisson", "touch"),
    ("hybrid", "touch"),
)


@dataclass(frozen=True)
class ComparedResult(BacktestResult):
    """A backtest, and its strategy under every fill model."""

    fill_models: pl.DataFrame


def compare_fills(
    job: Job, spec: BacktestSpec, source: IntensitySource, progress: Progress = no_progress, *, csv: bool = False
) -> ComparedResult:
    """`backtest`, and in the same folder the figures of the same strategy under every fill model that can run."""
    with begin(job, "backtest", None, progress) as run:
        intensity = source.load(run.instrument.tick_size)
        figures = simulate_into(run, spec, intensity, csv=csv)
        with run.step("compare fills"):
            table = run_each(run, spec, figures.market, intensity)
        run.folder.write_table(schemas.FILL_MODELS, table)
        if csv:
            run.folder.write_bytes(csv_name(schemas.FILL_MODELS, job.symbol), to_csv(schemas.FILL_MODELS, table))
        run.warnings[:] = dict.fromkeys(run.warnings)
        made = {"intensity": intensity_manifest(source), **figures.files}
        path = run.commit({**asdict(spec), **made}, spec.fill.seed)
        return ComparedResult(path, figures.metrics, figures.attribution, run.warnings, table)


def variants(fill: FillSpec, has_intensity: bool) -> list[FillSpec]:
    """Every fill model that can run, with the seed, levels and ages of `fill`, which is one of them."""
    all_of_them = [replace(fill, model=model, reach=reach) for model, reach in COMPARED]
    can_run = [one for one in all_of_them if has_intensity or not one.clocks]
    known = {name(one.model, one.reach) for one in can_run}
    return can_run if name(fill.model, fill.reach) in known else [*can_run, fill]


def run_each(run: Run, spec: BacktestSpec, market: Market, intensity: Intensity) -> pl.DataFrame:
    """The table of all fill models; warns of those under which nothing was filled."""
    specs = [replace(spec, fill=fill) for fill in variants(spec.fill, bool(intensity.start_ns.size))]
    parts = []
    for number, one in enumerate(specs, 1):
        check_intensity(run, one, intensity, market.tape)
        parts.append(
            long(number, one.fill, figures_of(replace(market, strategy=fresh(market.strategy)), one, intensity))
        )
        run.progress("compare fills", number, len(specs))
    table = schemas.FILL_MODELS.check(pl.concat(parts))
    warn_of_idle(run, table, [one.fill for one in specs])
    return table


def figures_of(market: Market, spec: BacktestSpec, intensity: Intensity) -> pl.DataFrame:
    """The metrics of one run, and the parts of its profit; its orders, fills and state are let go."""
    found, tape = market.simulate(spec, intensity), market.tape
    mids = Mids(tape.frame_ns, tape.bid + tape.ask)
    figures = metrics(found.orders, found.fills, found.state, tape.instrument)
    parts = attribution(found.fills, found.state, mids, tape.instrument).filter(horizon_s=HORIZON_S, side="both")
    return pl.concat(
        [
            figures.select("value", "unit", name="metric", role=pl.lit("metric")),
            parts.select("value", unit=pl.lit("quote"), name="component", role=pl.lit("part")),
        ]
    )


def long(number: int, fill: FillSpec, figures: pl.DataFrame) -> pl.DataFrame:
    """One run's rows: its fill model, then its figures."""
    set_to = pl.DataFrame({"name": ["fill_model", "fill_reach"], "text": [fill.model, fill.reach]})
    parts = (
        set_to.with_columns(role=pl.lit("parameter"), value=pl.lit(None, pl.Float64), unit=pl.lit("")),
        figures.with_columns(text=pl.lit(None, pl.String)),
    )
    numbered = (part.with_columns(number=pl.lit(number, pl.Int64)) for part in parts)
    return pl.concat([schemas.FILL_MODELS.conform(part) for part in numbered])


def warn_of_idle(run: Run, table: pl.DataFrame, fills: list[FillSpec]) -> None:
    """Say under which fill models nothing was filled: their figures are those of holding still."""
    idle = table.filter((pl.col("role") == "metric") & (pl.col("name") == "fills") & (pl.col("value") == 0))
    if idle.height:
        names = (name(fills[n - 1].model, fills[n - 1].reach) for n in idle["number"])
        run.warn(f"no order was filled under {', '.join(names)}")
