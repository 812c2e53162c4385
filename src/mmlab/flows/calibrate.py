"""`mmlab calibrate ladder` and `fixed`: lake -> points, fits and curves of one span in `out/`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.calib.run import Chunk, Ladder, chosen, ladder_of
from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec
from mmlab.core import schemas
from mmlab.core.spans import NS_PER_DAY, day_start_ns
from mmlab.flows.kernels import prepare
from mmlab.flows.run import Job, Progress, Run, begin, no_progress
from mmlab.flows.tape import TapeReader, read_days

MOST_EXCESS, LEAST_HITS = 0.1, 100  # beyond chance, with so many hits


@dataclass(frozen=True)
class CalibrateSpec:
    """The whole of a calibration: probes, fit, and what the artifact carries along.

    auto: choose the distances from the tape instead of `probes.deltas`.
    """

    probes: ProbeSpec
    fit: FitSpec
    dt_ms: int = 100
    auto: AutoDeltas | None = None

    def flat(self) -> dict[str, Any]:
        """One flat dictionary, as manifests keep it."""
        auto = {"deltas_auto": asdict(self.auto)} if self.auto else {}
        return {**asdict(self.probes), **asdict(self.fit), "dt_ms": self.dt_ms, **auto}


@dataclass(frozen=True)
class LadderResult:
    """Where the run lies and what it found."""

    path: Path
    points: pl.DataFrame
    fits: pl.DataFrame
    warnings: list[str]


def calibrate_ladder(job: Job, spec: CalibrateSpec, progress: Progress = no_progress) -> LadderResult:
    """Calibrate on the whole span at once; raises DataError for a span without book or prints."""
    return _probed(job, spec, "ladder", progress)


def calibrate_fixed(job: Job, spec: CalibrateSpec, progress: Progress = no_progress) -> LadderResult:
    """The same with probes that follow the mid at every re-quote: `dwell_ms` is the re-quote interval."""
    return _probed(job, spec, "fixed", progress)


def _probed(job: Job, spec: CalibrateSpec, method: str, progress: Progress) -> LadderResult:
    with begin(job, "calibration", method, progress) as run:
        prepare(run)
        reader = read_days(run)
        with run.step("read, probes, join, points, fits"):
            spec = resolved(run, spec, reader, day_start_ns(run.refs[0].day) + NS_PER_DAY)
            found = _ladder(run, spec, reader)
        run.log.info("%d probe intervals", found.n_intervals)
        return finish(run, spec, method, found)


def _ladder(run: Run, spec: CalibrateSpec, reader: TapeReader) -> Ladder:
    """Day by day, with progress."""

    def chunks() -> Iterator[Chunk]:
        for i, chunk in enumerate(reader.chunks()):
            yield chunk
            run.progress("days", i + 1, len(reader.refs))

    return ladder_of(chunks(), reader.gaps(), run.instrument, spec.probes, spec.fit, reader.span_ns())


def resolved(run: Run, spec: CalibrateSpec, reader: TapeReader, until_ns: int) -> CalibrateSpec:
    """`spec` with the distances that `auto` chooses from the data before `until_ns`."""
    if spec.auto is None:
        return spec
    probes = chosen(spec.probes, spec.auto, reader.until(until_ns))
    run.log.info("--deltas auto: %s", ",".join(map(str, probes.deltas)))
    return replace(spec, probes=probes)


def finish(
    run: Run, spec: CalibrateSpec, method: str, found: Ladder, flat: dict[str, Any] | None = None, **more: Any
) -> LadderResult:
    """Write points, fits, curves and poisson_fit.json, and commit the run; `flat` is what the manifest keeps."""
    pooled = found.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    if not pooled["ok"]:
        chosen_here = method != "orders" and "engine" not in more  # paper orders take listed distances
        hint = " (try --deltas auto)" if chosen_here else ""
        run.warn(f"no curve: {pooled['reason']}; poisson_fit.json has A and k null{hint}")
    warn_of_excess(run, spec, pooled["ring_excess"], pooled["fills_total"])
    for table, frame in ((schemas.POINTS, found.points), (schemas.FITS, found.fits), (schemas.CURVES, found.curves)):
        run.folder.write_table(table, frame)
    deltas = found.points["delta_ticks"].unique().sort().to_list()
    run.folder.write_json("poisson_fit.json", fit_artifact(run, spec, pooled, method, deltas))
    path = run.commit({"method": method, **(spec.flat() if flat is None else flat), **more})
    return LadderResult(path, found.points, found.fits, run.warnings)


def warn_of_excess(run: Run, spec: CalibrateSpec, excess: float | None, hits: float) -> None:
    """Say when rings overstate the intensity: prints that follow one another outwards."""
    if spec.fit.fit_method == "nested_mle" and excess is not None and excess > MOST_EXCESS and hits >= LEAST_HITS:
        run.warn(
            "prints follow one another outwards, or come in bursts: under first_hit the rings of nested_mle add up to "
            f"{excess:.0%} more than was hit at the nearest distance; use --fit-method poisson_mle and its robust "
            "intervals, or --count sweeps"
        )


def fit_artifact(
    run: Run, spec: CalibrateSpec, fit: dict[str, Any], method: str, deltas: list[float]
) -> dict[str, Any]:
    """The documents' poisson_fit.json; A and k are null when the data do not identify them."""
    ok = fit["ok"]

    def interval(name: str, suffix: str = "") -> list[float] | None:
        ends = [fit[f"{name}_{end}{suffix}"] for end in ("low", "high")]
        return ends if ok and None not in ends else None

    return {
        "distance_unit": "ticks",
        "fit_method": spec.fit.fit_method,
        "A": fit["A"] if ok else None,
        "k": fit["k"] if ok else None,
        "A_interval95": interval("A"),
        "k_interval95": interval("k"),
        "A_interval95_robust": interval("A", "_robust"),
        "k_interval95_robust": interval("k", "_robust"),
        "ok": ok,
        "reason": fit["reason"],
        "side": fit["side"],
        "count": spec.probes.count,
        "dt_ms": spec.dt_ms,
        "symbol": run.job.symbol,
        "day": str(run.job.days),
        "method": method,
        "deltas": [int(d) if d == int(d) else d for d in deltas],
        "tick_size": run.instrument.tick_size,
        "min_exposure_s": spec.fit.min_exposure_s,
        "created_utc": run.run_id,
    }
