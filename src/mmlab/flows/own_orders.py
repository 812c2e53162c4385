"""`mmlab calibrate orders` and `fixed --engine paper`: intensity from orders that a backtest really sent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from mmlab.calib.orders import FILL_COLUMNS, NO_HOLES, ORDER_COLUMNS, STATE_COLUMNS, exposures
from mmlab.calib.own import Holes, check_fit, from_orders, from_runs
from mmlab.calib.probes import holes
from mmlab.calib.spec import FitSpec, ProbeSpec
from mmlab.core import schemas
from mmlab.core.errors import LakeError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.spans import Days
from mmlab.core.table import Table
from mmlab.flows.calibrate import CalibrateSpec, LadderResult, finish
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.flows.tape import read_days
from mmlab.sim import events
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run as simulate
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.runs import find_run, read_json, read_table


@dataclass(frozen=True)
class PaperSpec:
    """How the orders of `fixed --engine paper` are sent; money and inventory never run out."""

    requote_interval_ms: int = 250
    qty: float = 0.001
    entry_latency_ms: int = 50
    cancel_latency_ms: int = 25


def calibrate_paper(job: Job, spec: CalibrateSpec, paper: PaperSpec, progress: Progress = no_progress) -> LadderResult:
    """One order-by-order backtest a distance, quotes at mid -/+ delta; raises UsageError for rules it cannot count."""
    if spec.probes.count != "first_hit" or spec.probes.taker_side or spec.auto:
        raise UsageError(
            "--engine paper sends real orders: they are filled once, by any print, at listed distances",
            remedy="leave --count at first_hit, --taker-side out, and list the --deltas",
        )
    check_fit(spec.fit)
    with begin(job, "calibration", "fixed", progress) as run:
        with run.step("read"):
            depth = run.lake.read(run.refs, schemas.DEPTH, events.DEPTH_COLUMNS, require_rows=True)
            tape = events.tape(depth, run.lake.live_prints(run.refs, events.TRADE_COLUMNS), run.instrument)
            unknown = holes(read_days(run).gaps())
        measured = []
        with run.step("backtests"):
            for i, delta in enumerate(spec.probes.deltas):
                found = simulate(tape, _backtest(delta, spec.probes, paper), Intensity.none())
                exposed = exposures(found.orders, found.fills, found.state, run.instrument, unknown)
                measured.append((float(delta), exposed))
                progress("distances", i + 1, len(spec.probes.deltas))
        return finish(
            run, spec, "fixed", from_runs(measured, run.instrument, spec.fit), engine="paper", paper=asdict(paper)
        )


def _backtest(delta: int, probes: ProbeSpec, paper: PaperSpec) -> BacktestSpec:
    """A margin account without fees or caps: no order is ever refused for want of money."""
    return BacktestSpec(
        QuoteSpec("fixed_spread", half_spread_ticks=float(delta)),
        FillSpec("trade_cross", probes.reach),
        qty=paper.qty,
        initial_cash=0.0,
        account="margin",
        entry_latency_ms=paper.entry_latency_ms,
        cancel_latency_ms=paper.cancel_latency_ms,
        requote_interval_ms=paper.requote_interval_ms,
        maker_fee=0.0,
        taker_fee=0.0,
    )


@dataclass(frozen=True)
class Source:
    """A backtest's run, and where the results about it go."""

    run: str
    data_root: Path = Path("data")
    out_root: Path = Path("out")
    log_root: Path | None = None
    run_id: str | None = None


def calibrate_orders(
    source: Source, fit: FitSpec, min_delta_ticks: float, max_delta_ticks: float | None,
    progress: Progress = no_progress,
) -> LadderResult:  # fmt: skip
    """Estimate (A, k) from any backtest's own orders; raises LakeError for a run without them."""
    check_fit(fit)
    place = find_run(source.out_root, source.run)
    manifest = read_json(place / "manifest.json")
    named = ((schemas.ORDERS, ORDER_COLUMNS), (schemas.FILLS, FILL_COLUMNS), (schemas.STATE, STATE_COLUMNS))
    orders, fills, state = (_own(place, table).select(columns) for table, columns in named)
    inputs = manifest.get("inputs") or [{}]
    job = Job(
        manifest["spec"]["symbol"], Days.parse(manifest["spec"]["day"]), inputs[0].get("venue"),
        source.data_root, source.out_root, source.log_root, run_id=source.run_id,
    )  # fmt: skip
    with begin(job, "calibration", "orders", progress, instrument=Instrument(**manifest["instrument"])) as run:
        bounds = {"min_delta_ticks": min_delta_ticks, "max_delta_ticks": max_delta_ticks}
        unknown = _holes(run)
        with run.step("exposures, points, fits"):
            found = from_orders(
                orders, fills, state, run.instrument, fit,
                min_delta_ticks=min_delta_ticks, max_delta_ticks=max_delta_ticks, holes=unknown,
            )  # fmt: skip
        run.log.info("%d orders of %s were at risk", found.n_intervals, place)
        spec = CalibrateSpec(ProbeSpec(max_delta_ticks=None), fit)
        return finish(run, spec, "orders", found, flat={**asdict(fit), "of": str(place), **bounds})


def _own(place: Path, table: Table) -> pl.DataFrame:
    """A table that a backtest has."""
    frame = read_table(place, table)
    if frame is None:
        raise LakeError(f"{place} has no {table.name}", remedy="give a run of mmlab backtest or mmlab walkforward")
    return frame


def _holes(run: Run) -> Holes:
    """Declared holes of the days, if the lake is here."""
    if not run.refs:
        run.warn("the days are not in the lake: time at risk in declared holes is not taken off")
        return NO_HOLES
    return holes(read_days(run).gaps())
