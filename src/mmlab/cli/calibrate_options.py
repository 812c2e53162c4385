"""The flags of calibration, with environment variables and help, and the specs they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmlab.calib.spec import DEFAULT_DELTAS, MOST_TICKS, AutoDeltas, FitSpec, ProbeSpec, ScheduleSpec, parse_deltas
from mmlab.cli.flags import option
from mmlab.cli.options import ORDERS, DataRoot, LogRoot, OutRoot, RunId
from mmlab.core.errors import UsageError

if TYPE_CHECKING:
    from mmlab.flows.calibrate import CalibrateSpec
    from mmlab.flows.own_orders import PaperSpec, Source

MEASURE, FIT = "Probes", "Fit"
ENGINES = ("virtual", "paper")


@dataclass(frozen=True, kw_only=True)
class MeasureFlags:
    """What is measured, and how the curve is fitted."""

    deltas: Annotated[
        str,
        option(
            "--deltas",
            env="CALIB_DELTAS",
            help="Distances from the mid in ticks, ascending; auto, or auto:12: so many chosen from the tape.",
            panel=MEASURE,
        ),
    ] = "1,2,3,5,8,13"
    count: Annotated[
        str,
        option(
            "--count",
            env="CALIB_COUNT",
            help="first_hit: a probe is filled once. sweeps: a taker order counts once. all_hits: every print counts.",
            panel=MEASURE,
        ),
    ] = "first_hit"
    reach: Annotated[
        str,
        option(
            "--reach",
            env="CALIB_REACH",
            help="touch: a print at the price hits; through: a tick more.",
            panel=MEASURE,
        ),
    ] = "touch"
    taker_side: Annotated[
        bool, option("--taker-side", help="Count only prints whose taker came from the other side.", panel=MEASURE)
    ] = False
    max_delta_ticks: Annotated[
        int | None,
        option(
            "--max-delta-ticks",
            env="MAX_DELTA_TICKS",
            help="Refuse listed distances beyond this (default 50). auto chooses none beyond it (default: no bound).",
            panel=MEASURE,
        ),
    ] = None
    fit_method: Annotated[
        str, option("--fit-method", env="FIT_METHOD", help="poisson_mle, nested_mle or log_linear.", panel=FIT)
    ] = "poisson_mle"
    min_exposure_s: Annotated[
        float,
        option("--min-exposure-s", env="MIN_EXPOSURE_S", help="Least exposure for a distance to be fitted.", panel=FIT),
    ] = 5.0
    dt_ms: Annotated[
        int,
        option(
            "--dt-ms",
            env="POISSON_DT_MS",
            help="Copied into poisson_fit.json for other readers; mmlab integrates over real time.",
            panel=FIT,
        ),
    ] = 100

    def probed(self, dwell_ms: int, threshold_ticks: float, cycle: bool = False) -> CalibrateSpec:
        """The specification with probes of this kind; raises UsageError naming the flag that cannot be meant."""
        from mmlab.flows.calibrate import CalibrateSpec

        deltas = parse_deltas(self.deltas)
        auto = AutoDeltas(deltas, self.max_delta_ticks) if isinstance(deltas, int) else None
        probes = ProbeSpec(
            DEFAULT_DELTAS if isinstance(deltas, int) else deltas,
            dwell_ms,
            threshold_ticks,
            self.count,
            self.reach,
            self.taker_side,
            None if auto else MOST_TICKS if self.max_delta_ticks is None else self.max_delta_ticks,
            cycle,
        )
        return CalibrateSpec(probes, FitSpec(self.fit_method, self.min_exposure_s), self.dt_ms, auto)


@dataclass(frozen=True, kw_only=True)
class ProbeFlags(MeasureFlags):
    """Probes that stand for a dwell time."""

    dwell_ms: Annotated[
        int,
        option(
            "--dwell-ms", env="CALIB_DWELL_MS", help="How long a probe stands before it is laid anew.", panel=MEASURE
        ),
    ] = 60_000
    mid_move_threshold_ticks: Annotated[
        float,
        option(
            "--mid-move-threshold-ticks",
            env="CALIB_MID_MOVE_THRESHOLD_TICKS",
            help="A mid that moved this far lays the probes anew; 0: never.",
            panel=MEASURE,
        ),
    ] = 2.0

    def spec(self, cycle: bool = False) -> CalibrateSpec:
        """The specification; raises UsageError naming the flag that cannot be meant."""
        return self.probed(self.dwell_ms, self.mid_move_threshold_ticks, cycle)


@dataclass(frozen=True, kw_only=True)
class FixedFlags(MeasureFlags):
    """Quotes that follow the mid at a fixed distance."""

    requote_interval_ms: Annotated[
        int,
        option(
            "--requote-interval-ms",
            env="REQUOTE_INTERVAL_MS",
            help="How often quotes follow the mid.",
            panel=MEASURE,
        ),
    ] = 250
    engine: Annotated[
        str,
        option(
            "--engine",
            env="CALIB_ENGINE",
            help="virtual: probes that nobody sent. paper: an order-by-order backtest a distance.",
            panel=MEASURE,
        ),
    ] = "virtual"
    qty: Annotated[float, option("--qty", env="QUOTE_QTY", help="paper: order size, base currency.", panel=ORDERS)] = (
        0.001
    )
    entry_latency_ms: Annotated[
        int,
        option(
            "--entry-latency-ms", env="ORDER_LATENCY_MS", help="paper: from decision to the venue's book.", panel=ORDERS
        ),
    ] = 50
    cancel_latency_ms: Annotated[
        int,
        option("--cancel-latency-ms", env="CANCEL_LATENCY_MS", help="paper: from decision to cancelled.", panel=ORDERS),
    ] = 25

    def spec(self) -> CalibrateSpec:
        """The specification; raises UsageError naming the flag that cannot be meant."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine is {self.engine!r}", remedy=f"choose one of {', '.join(ENGINES)}")
        if self.requote_interval_ms < 1:
            raise UsageError(f"--requote-interval-ms is {self.requote_interval_ms}", remedy="give at least 1 ms")
        return self.probed(self.requote_interval_ms, 0.0)

    def paper(self) -> PaperSpec:
        """How orders are sent by the paper engine."""
        from mmlab.flows.own_orders import PaperSpec

        return PaperSpec(self.requote_interval_ms, self.qty, self.entry_latency_ms, self.cancel_latency_ms)


@dataclass(frozen=True, kw_only=True)
class SourceFlags:
    """Where a finished run lies, and how the results about it are named."""

    data_root: DataRoot = Path("data")
    out_root: OutRoot = Path("out")
    log_root: LogRoot = None
    run_id: RunId = None

    def source(self, run: str) -> Source:
        """The run that is meant, by its id or path."""
        from mmlab.flows.own_orders import Source

        return Source(run, self.data_root, self.out_root, self.log_root, self.run_id)


@dataclass(frozen=True, kw_only=True)
class RollingFlags:
    """The schedule's windows."""

    train_window_min: Annotated[
        float, option("--train-window-min", env="WF_TRAIN_WINDOW_MIN", help="Minutes each fit looks back.", panel=FIT)
    ] = 120
    step_min: Annotated[
        float,
        option("--step-min", env="WF_STEP_MIN", help="Minutes each fit is used; starts at UTC multiples.", panel=FIT),
    ] = 15
    warm_days: Annotated[
        int,
        option(
            "--warm-days",
            env="WF_WARM_DAYS",
            help="Days before the first that may be read where the lake has them: a past for the first steps.",
            panel=FIT,
        ),
    ] = 1

    def spec(self) -> ScheduleSpec:
        """The specification; raises UsageError."""
        return ScheduleSpec(self.train_window_min, self.step_min, self.warm_days)
