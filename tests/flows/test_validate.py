"""A finished schedule is judged from its folder: by id or path, with the lake or without, and rightly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.calib.validation import validate
from mmlab.core import schemas
from mmlab.core.errors import LakeError
from mmlab.core.spans import NS_PER_MIN, Days, day_start_ns
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.calibrate import CalibrateSpec, calibrate_ladder
from mmlab.flows.own_orders import Source
from mmlab.flows.run import Job
from mmlab.flows.schedule import calibrate_schedule
from mmlab.flows.synth import synth
from mmlab.flows.validate import calibrate_validate
from mmlab.flows.walkforward import walkforward
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.runs import read_json, read_table
from mmlab.tape.synth_spec import SynthSpec

START = day_start_ns(date(2025, 1, 1))
CONSTANT = SynthSpec(symbol="CALM", hours=2, frame_ms=500, levels=1, seed=12)
CHANGE_MIN = 75
JUMP = replace(CONSTANT, symbol="JUMP", hours=2.5, ak_schedule=((0.0, 1.5, 0.25), (CHANGE_MIN * 60.0, 3.0, 0.3)))
SPEC = CalibrateSpec(ProbeSpec(), FitSpec())
STRATEGY = BacktestSpec(QuoteSpec("fixed_spread"), FillSpec("poisson"), account="margin")
ROLLING = ScheduleSpec(20, 10)


def job(root: Path, symbol: str, run_id: str) -> Job:
    return Job(symbol, Days.parse("20250101"), data_root=root / "data", out_root=root / "out", run_id=run_id)


RUNS: dict[str, Callable[[Path], object]] = {
    "steps": lambda root: calibrate_schedule(job(root, "CALM", "steps"), SPEC, ROLLING),
    "sweeps": lambda root: calibrate_schedule(
        job(root, "CALM", "sweeps"), CalibrateSpec(ProbeSpec(count="sweeps"), FitSpec("nested_mle")), ROLLING
    ),
    "cycle": lambda root: calibrate_schedule(
        job(root, "CALM", "cycle"),
        CalibrateSpec(ProbeSpec(dwell_ms=5_000, count="sweeps", cycle=True), FitSpec()),
        ROLLING,
    ),
    "wf": lambda root: walkforward(job(root, "CALM", "wf"), SPEC, ROLLING, STRATEGY),
    "jump": lambda root: calibrate_schedule(job(root, "JUMP", "jump"), SPEC, ScheduleSpec(60, 5)),
    "ladder": lambda root: calibrate_ladder(job(root, "CALM", "ladder"), SPEC),
    "backtest": lambda root: backtest(job(root, "CALM", "backtest"), STRATEGY, IntensitySource(1.5, 0.25)),
}
PLACES = {
    "steps": "calibration/method=schedule/symbol=CALM/day=20250101/run=steps",
    "sweeps": "calibration/method=schedule/symbol=CALM/day=20250101/run=sweeps",
    "cycle": "calibration/method=schedule/symbol=CALM/day=20250101/run=cycle",
    "wf": "walkforward/symbol=CALM/day=20250101/run=wf",
}
TABLES = {"steps": schemas.VALIDATION, "scores": schemas.SCORES, "stability": schemas.STABILITY}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market with constant (A, k), one in which it jumps, and runs of every kind."""
    path = tmp_path_factory.mktemp("validate")
    for spec in (CONSTANT, JUMP):
        synth(spec, path / "data", replace=False)
    for make in RUNS.values():
        make(path)
    return path


def source(root: Path, run: str, run_id: str) -> Source:
    return Source(run, root / "data", root / "out", run_id=run_id)


def read(path: Path, table: schemas.Table) -> pl.DataFrame:
    frame = read_table(path, table)
    assert frame is not None
    return frame


# ---- which runs


@pytest.mark.parametrize("run", PLACES)
def test_a_schedule_is_judged_by_id_and_by_path(root, run):
    """Both give the judgement of the run's own points, fits and windows, in a folder of its own."""
    place = root / "out" / PLACES[run]
    by_id = calibrate_validate(source(root, run, f"{run}-by-id"))
    by_path = calibrate_validate(source(root, str(place), f"{run}-by-path"))
    assert by_id.path == root / f"out/calibration/method=validate/symbol=CALM/day=20250101/run={run}-by-id"
    wanted = validate(*(read(place, t) for t in (schemas.POINTS, schemas.FITS, schemas.WINDOWS)), nested=run != "cycle")
    for made in (by_id, by_path):
        assert made.verdict == wanted.verdict
        assert made.scores.equals(wanted.scores)
        for name, table in TABLES.items():
            assert read(made.path, table).equals(getattr(wanted, name)), name
    assert by_id.warnings == []
    names = sorted(p.name for p in by_id.path.iterdir())
    assert names == ["manifest.json", "scores.parquet", "stability.parquet", "validation.parquet"]


@pytest.mark.parametrize("run", PLACES)
def test_the_manifest_has_the_verdict_and_the_run(root, run):
    """What was judged, on which inputs, and how it came out; the log has it too."""
    made = calibrate_validate(source(root, run, f"{run}-manifest"))
    manifest = read_json(made.path / "manifest.json")
    assert manifest["kind"] == "calibration/validate"
    assert manifest["spec"]["verdict"] == made.verdict
    assert Path(manifest["spec"]["of"]) == root / "out" / PLACES[run]
    assert (manifest["spec"]["symbol"], manifest["spec"]["day"]) == ("CALM", "20250101")
    before = read_json(root / "out" / PLACES[run] / "manifest.json")
    assert manifest["inputs"] == before["inputs"]
    assert manifest["truth"] == before["truth"]
    assert manifest["rows"]["scores"] == 9
    log = root / f"out/logs/calibration/validate/CALM/20250101/{run}-manifest/run.log"
    assert made.verdict in log.read_text()


def test_a_walk_forward_run_is_judged_as_its_schedule(root):
    """The same steps, the same judgement."""
    made = [calibrate_validate(source(root, run, f"{run}-same")) for run in ("steps", "wf")]
    assert made[0].scores.equals(made[1].scores)
    assert made[0].verdict == made[1].verdict


def test_a_cycle_is_judged_on_its_hits_and_nested_sweeps_on_their_rings(root):
    """Distances that took turns share no prints: all hits are disjoint, and nothing is subtracted."""
    cycle, nested = (
        read(calibrate_validate(source(root, run, f"{run}-rings")).path, schemas.VALIDATION)
        for run in ("cycle", "sweeps")
    )
    assert cycle["expected_ring"].equals(cycle["expected"].alias("expected_ring"))
    assert cycle["observed_ring"].equals(cycle["observed"].alias("observed_ring"))
    near = nested.filter(pl.col("delta_ticks") < 13)
    assert (near["expected_ring"] < near["expected"]).all()
    assert (near["observed_ring"] <= near["observed"]).all()
    sums = nested.filter(pl.col("side") == "bid").group_by("start_ns").agg(pl.sum("observed_ring"), pl.max("observed"))
    assert (sums["observed_ring"] == sums["observed"]).all(), "rings add up to the nearest distance's hits"


def test_without_the_lake_the_judgement_is_the_same(root, tmp_path):
    """Everything that is needed is in the run's folder."""
    place = shutil.copytree(root / "out" / PLACES["steps"], tmp_path / "taken/run=steps")
    made = calibrate_validate(Source(str(place), tmp_path / "nothing", tmp_path / "out"))
    here = calibrate_validate(source(root, "steps", "steps-here"))
    assert made.scores.equals(here.scores)
    assert made.verdict == here.verdict
    manifest = read_json(made.path / "manifest.json")
    assert manifest["inputs"] == []
    assert manifest["spec"]["of"] == str(place)


@pytest.mark.parametrize("run", ["ladder", "backtest"])
def test_a_run_without_a_schedule_is_refused(root, tmp_path, run):
    """Its folder is named, with what to give, and nothing is written."""
    place = next((root / "out").rglob(f"run={run}"))
    with pytest.raises(LakeError, match=f"run={run} has no schedule") as caught:
        calibrate_validate(Source(str(place), root / "data", tmp_path / "out"))
    assert "calibrate schedule" in caught.value.remedy
    assert "walkforward" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_judgement_cannot_be_judged(root):
    """It has no schedule of its own."""
    made = calibrate_validate(source(root, "steps", "judged"))
    with pytest.raises(LakeError, match="run=judged has no schedule"):
        calibrate_validate(source(root, str(made.path), "again"))


def test_a_torn_table_is_named(root, tmp_path):
    """A run whose points are cut short is none."""
    place = shutil.copytree(root / "out" / PLACES["steps"], tmp_path / "torn/run=steps")
    points = place / "points.parquet"
    points.write_bytes(points.read_bytes()[:-100])
    with pytest.raises(LakeError, match=r"points\.parquet is torn"):
        calibrate_validate(Source(str(place), root / "data", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# ---- rightly


def test_a_market_that_does_not_change_holds(root):
    """Constant (A, k): the interval of came / foretold holds 1, and the verdict says that it holds."""
    for run in ("steps", "sweeps"):
        made = calibrate_validate(source(root, run, f"{run}-holds"))
        assert made.verdict.startswith("holds: "), made.verdict
        fit = made.scores.row(by_predicate=(pl.col("side") == "both") & (pl.col("predictor") == "fit"), named=True)
        assert fit["ratio_low"] <= 1 <= fit["ratio_high"]
        assert fit["steps"] == 10
        moves = dict(made.stability.select("parameter", "stability").iter_rows())
        assert all(0 < value < 2.5 for value in moves.values())


def test_after_a_jump_a_long_training_span_is_wrong_until_it_has_forgotten(root):
    """A from 1.5 to 3 at minute 75, an hour of training: right before, a quarter too low after, and then less so."""
    made = calibrate_validate(source(root, "jump", "jump-steps"))
    steps = (
        read(made.path, schemas.VALIDATION)
        .filter(pl.col("side") == "both")
        .group_by("start_ns", maintain_order=True)
        .agg(pl.sum("expected"), pl.sum("observed"))
    )
    off = {(start - START) // NS_PER_MIN: came / foretold - 1 for start, foretold, came in steps.iter_rows()}
    assert max(abs(off[minute]) for minute in range(60, CHANGE_MIN, 5)) < 0.15
    assert min(off[minute] for minute in range(CHANGE_MIN, CHANGE_MIN + 15, 5)) > 0.25
    assert max(abs(off[minute]) for minute in range(CHANGE_MIN + 60, 150, 5)) < 0.15
    halves = [sum(off[minute] for minute in range(CHANGE_MIN + a, CHANGE_MIN + a + 30, 5)) for a in (0, 30)]
    assert halves[0] > 2 * halves[1] > 0


def test_the_verdict_on_a_market_that_jumps_does_not_hold(root):
    """The jump shows in the line, in the ratio, and in how much ln A moves."""
    made = calibrate_validate(source(root, "jump", "jump-verdict"))
    assert not made.verdict.startswith("holds"), made.verdict
    calm = calibrate_validate(source(root, "steps", "calm-verdict"))
    moved, rests = (each.stability.filter(pl.col("parameter") == "log_A")["stability"][0] for each in (made, calm))
    assert moved > 2 * rests
