"""A schedule over days: as at once, warm at midnight, blind to what follows, and not lost when it is killed."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.run import Tape, chosen, rolling
from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.errors import DataError, LakeError, UsageError
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, NS_PER_S, Days, day_start_ns
from mmlab.flows import tape
from mmlab.flows.calibrate import CalibrateSpec
from mmlab.flows.run import Job
from mmlab.flows.schedule import ScheduleResult, calibrate_schedule
from mmlab.flows.synth import synth
from mmlab.flows.tape import TapeReader
from mmlab.flows.walkforward import walkforward
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake
from mmlab.store.runs import read_json, read_table
from mmlab.tape.synth_spec import SynthSpec

TABLES = (schemas.WINDOWS, schemas.FITS, schemas.POINTS, schemas.WINDOW_METRICS)
FILES = sorted((*(f"{table.name}.parquet" for table in TABLES), "poisson_schedule.json", "manifest.json"))
CALIBRATION = CalibrateSpec(ProbeSpec(), FitSpec())
ROLLING = ScheduleSpec(60, 30, warm_days=0)
MIDNIGHT = [day_start_ns(date(2025, 1, n)) for n in range(1, 6)]  # of the first, the second, ...
MARKET = SynthSpec(
    hours=73, frame_ms=5000, A=0.5, k=0.3, prints_per_s=0.8, mid_moves_per_s=0.1, levels=1, seed=1
)  # four days
ALL_DAYS = "20250101..20250104"


def job(root: Path, day: str, run_id: str | None = "r", symbol: str = "SYNTH", out: Path | None = None) -> Job:
    return Job(symbol, Days.parse(day), data_root=root / "data", out_root=out or root / "out", run_id=run_id)


def tables(path: Path) -> dict[str, pl.DataFrame]:
    """All tables of a schedule's run."""
    found = {table.name: read_table(path, table) for table in TABLES}
    return {name: frame for name, frame in found.items() if frame is not None}


def concatenated(root: Path, day: str, symbol: str = "SYNTH") -> Tape:
    """The whole tape of several days, read at once."""
    lake = Lake(root / "data")
    refs = lake.find(symbol, Days.parse(day))
    frames = (lake.read(refs, t, t.schema.names()) for t in (schemas.depth(1), schemas.TRADES, schemas.GAPS))
    return Tape.of(*frames, lake.instrument(refs))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One market without a break over three days and an hour."""
    path = tmp_path_factory.mktemp("schedule")
    synth(MARKET, path / "data", replace=False)
    return path


def copied(root: Path, to: Path) -> Path:
    """Another lake with the same days, to be changed."""
    shutil.copytree(root / "data", to / "data")
    return to


def day_folder(root: Path, day: int, symbol: str = "SYNTH") -> Path:
    return root / f"data/venue=synth/symbol={symbol}/day=2025010{day}"


# ---- day by day


@pytest.mark.parametrize(
    ("probes", "fit", "spec"),
    [
        (ProbeSpec(), FitSpec(), ScheduleSpec(60, 30, 0)),
        (ProbeSpec((1, 2, 4), 45_000, 0.0, "sweeps"), FitSpec("nested_mle"), ScheduleSpec(45, 7, 0)),
        (
            ProbeSpec((1, 3), 7_000_000, 0.0, "all_hits", cycle=True),
            FitSpec("log_linear", 1.0),
            ScheduleSpec(20, 50, 0),
        ),
        (ProbeSpec(dwell_ms=86_400_000, mid_move_threshold_ticks=0.0), FitSpec(), ScheduleSpec(1500, 60, 0)),
    ],
    ids=["hourly", "steps that do not divide a day", "probes over midnight", "training longer than a day"],
)
def test_a_schedule_read_day_by_day_is_the_schedule_of_the_whole_tape(root, tmp_path, probes, fit, spec):
    """Every table equals that of the days concatenated, but for the days' condition, which only the lake knows."""
    made = calibrate_schedule(job(root, ALL_DAYS, out=tmp_path), CalibrateSpec(probes, fit), spec)
    whole = rolling(concatenated(root, ALL_DAYS), probes, fit, spec)
    points = whole.points
    got = tables(made.path)
    assert got["windows"].height > 20
    assert made.windows.equals(got["windows"])
    assert got["windows"].equals(whole.windows)
    assert got["fits"].equals(whole.fits)
    assert got["points"].equals(points)
    assert got["window_metrics"].drop("condition").equals(whole.metrics.drop("condition"))
    assert got["window_metrics"]["condition"].unique().to_list() == ["complete"]


def test_progress_is_told_window_by_window_as_prints_are_counted(root, tmp_path, monkeypatch):
    """In small pieces: it never goes back, ends at the number of windows, and stops more often than days are read."""
    monkeypatch.setattr(tape, "PIECE", 1 << 12)
    told: list[tuple[str, int, int]] = []
    made = calibrate_schedule(job(root, ALL_DAYS, out=tmp_path), CALIBRATION, ROLLING, lambda *done: told.append(done))
    windows = [(done, total) for what, done, total in told if what == "windows"]
    total = made.windows.height
    assert {of for _, of in windows} == {total}
    assert [done for done, _ in windows] == sorted(done for done, _ in windows)
    assert windows[-1] == (total, total)
    assert len({done for done, _ in windows}) > 20


def test_the_artifacts_say_what_the_tables_say(root, tmp_path):
    """Steps with parameters in poisson_schedule.json, rows and inputs in the manifest, and nothing half made."""
    made = calibrate_schedule(job(root, ALL_DAYS, out=tmp_path), CALIBRATION, ROLLING)
    assert sorted(p.name for p in made.path.iterdir()) == FILES
    assert [p.name for p in made.path.parent.iterdir()] == ["run=r"]
    manifest, got = read_json(made.path / "manifest.json"), tables(made.path)
    assert manifest["rows"] == {name: frame.height for name, frame in got.items()}
    assert [each["day"] for each in manifest["inputs"]] == ["20250101", "20250102", "20250103", "20250104"]
    assert manifest["spec"]["warm_days"] == 0
    listed = read_json(made.path / "poisson_schedule.json")
    rows = got["windows"].filter(pl.col("source") != "none")
    assert [(e["start_ms"] * 10**6, e["A"], e["k"]) for e in listed] == rows.select("start_ns", "A", "k").rows()
    log = tmp_path / "logs/calibration/schedule/SYNTH" / ALL_DAYS / "r/run.log"
    assert log.read_text().count(" window to ") == rows.height


# ---- a past for the first steps


@pytest.fixture(scope="module")
def second(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ScheduleResult, ScheduleResult]:
    """The second day with the first as its past, and both days as one run."""
    out = tmp_path_factory.mktemp("second")
    warm = calibrate_schedule(job(root, "20250102", out=out), CALIBRATION, ScheduleSpec(60, 30))
    return warm, calibrate_schedule(job(root, "20250101..20250102", out=out), CALIBRATION, ROLLING)


def test_a_day_whose_day_before_is_in_the_lake_starts_at_midnight(second):
    """The first step is at 00:00, fitted on the hour before it, nearly all of which probes covered."""
    first = second[0].windows.row(0, named=True)
    assert (first["start_ns"], first["source"], first["age_steps"]) == (MIDNIGHT[1], "fit", 0)
    assert first["train_start_ns"] == MIDNIGHT[1] - 60 * NS_PER_MIN
    assert first["coverage"] == pytest.approx(1.0, abs=1e-3)
    assert second[0].windows["start_ns"].max() == MIDNIGHT[2] - 30 * NS_PER_MIN


def test_a_warm_start_is_what_both_days_give_but_for_where_the_walk_of_the_probes_began(second):
    """The same steps; the first to a small difference, and all later ones to the last bit.

    The market's mid jumps by the threshold, so that every jump lays all probes anew: from the first jump
    after the warm span's start on, both walks are the same.
    """
    warm, both = (tables(made.path) for made in second)
    late = pl.col("start_ns") >= MIDNIGHT[1]
    ours, theirs = warm["windows"], both["windows"].filter(late)
    assert ours.height == theirs.height == 48
    same = ("start_ns", "end_ns", "train_start_ns", "train_end_ns", "source", "age_steps", "reason")
    assert ours.select(same).equals(theirs.select(same))
    assert ours[1:].equals(theirs[1:])
    assert abs(ours["fills_total"][0] - theirs["fills_total"][0]) <= 3
    assert ours["A"][0] == pytest.approx(theirs["A"][0], rel=0.01)
    assert ours["k"][0] == pytest.approx(theirs["k"][0], rel=0.01)
    assert warm["window_metrics"][1:].equals(both["window_metrics"].filter(late)[1:])
    trained = pl.col("train_end_ns") > MIDNIGHT[1]
    assert warm["fits"].filter(trained).equals(both["fits"].filter(trained))
    inside = pl.col("bucket_start_ns") >= MIDNIGHT[1] - 30 * NS_PER_MIN
    assert warm["points"].filter(inside).equals(both["points"].filter(inside))
    assert warm["points"]["bucket_start_ns"].min() == MIDNIGHT[1] - 60 * NS_PER_MIN


def test_the_manifest_lists_the_warm_day_with_its_checksums(root, second):
    """Every day that was read is an input, in time order; the run is still named by its own day."""
    manifest = read_json(second[0].path / "manifest.json")
    lake = Lake(root / "data")
    refs = lake.find("SYNTH", Days.parse("20250101..20250102"))
    parts = [{f"{n}/{p.file}": p.sha256 for n, made in lake.manifest(r).tables.items() for p in made} for r in refs]
    assert [(each["day"], each["parts"]) for each in manifest["inputs"]] == [
        ("20250101", parts[0]),
        ("20250102", parts[1]),
    ]
    assert (manifest["spec"]["day"], manifest["spec"]["warm_days"]) == ("20250102", 1)


def test_without_warm_days_the_first_step_comes_after_one_training_span(root, tmp_path):
    """--warm-days 0 reads nothing but the day."""
    made = calibrate_schedule(job(root, "20250102", out=tmp_path), CALIBRATION, ROLLING)
    assert made.windows["start_ns"][0] == MIDNIGHT[1] + 60 * NS_PER_MIN
    assert [each["day"] for each in read_json(made.path / "manifest.json")["inputs"]] == ["20250102"]


@pytest.mark.parametrize(("most", "days", "first"), [(2, 3, MIDNIGHT[2]), (1, 2, MIDNIGHT[2] + 60 * NS_PER_MIN)])
def test_a_training_span_longer_than_a_day_reads_as_many_days_as_it_may(root, tmp_path, most, days, first):
    """25 hours of training need two days before; with one allowed, the first step waits for the missing hour."""
    made = calibrate_schedule(job(root, "20250103", out=tmp_path), CALIBRATION, ScheduleSpec(1500, 60, most))
    assert len(read_json(made.path / "manifest.json")["inputs"]) == days
    assert made.windows["start_ns"][0] == first
    assert made.windows["coverage"][0] == pytest.approx(1.0, abs=1e-3)


@pytest.fixture(scope="module")
def islands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short days: TICK changes its tick size on the second day, GAP lacks its second day, BAD is degraded."""
    path = tmp_path_factory.mktemp("islands")
    made = SynthSpec(hours=1.5, frame_ms=1000, levels=1)
    first, late = date(2025, 1, 1), date(2025, 1, 3)
    for n, spec in enumerate(
        (
            replace(made, symbol="TICK", day=first, tick_size="0.1"),
            replace(made, symbol="TICK", day=date(2025, 1, 2)),
            replace(made, symbol="GAP", day=first),
            replace(made, symbol="GAP", day=late),
        )
    ):
        synth(replace(spec, seed=n), path / "data", replace=False)
    return path


def cold(made: ScheduleResult, day: int, train_min: int = 60) -> None:
    """The schedule knows its own day only."""
    assert made.windows["start_ns"][0] == MIDNIGHT[day - 1] + train_min * NS_PER_MIN
    assert [each["day"] for each in read_json(made.path / "manifest.json")["inputs"]] == [f"2025010{day}"]


def test_a_day_before_that_has_another_tick_size_is_not_used_and_a_warning_says_so(islands, tmp_path):
    """Prices in other steps cannot be added up: a cold start, and a sentence in result and manifest."""
    made = calibrate_schedule(job(islands, "20250102", symbol="TICK", out=tmp_path), CALIBRATION, ScheduleSpec(60, 30))
    cold(made, 2)
    assert "20250101 has another tick or lot size: no warm start from it" in made.warnings
    assert read_json(made.path / "manifest.json")["warnings"] == made.warnings


@pytest.mark.parametrize("most", [1, 366])
def test_a_missing_day_before_is_fine(islands, tmp_path, most):
    """A cold start without a word; a day before the missing one is no past either."""
    made = calibrate_schedule(
        job(islands, "20250103", symbol="GAP", out=tmp_path), CALIBRATION, ScheduleSpec(60, 30, most)
    )
    cold(made, 3)
    assert made.warnings == []


def test_a_day_before_that_ends_long_before_midnight_is_no_past(islands, tmp_path):
    """Its last hour is empty: the first step comes after one training span of the day itself."""
    shutil.copytree(islands / "data", tmp_path / "data")
    shutil.move(day_folder(tmp_path, 3, "GAP"), tmp_path / "third")
    spec = SynthSpec(symbol="GAP", day=date(2025, 1, 2), hours=1.5, frame_ms=1000, levels=1)
    synth(spec, tmp_path / "data", replace=False)
    made = calibrate_schedule(job(tmp_path, "20250102", symbol="GAP"), CALIBRATION, ScheduleSpec(60, 30))
    assert made.windows["start_ns"][0] == MIDNIGHT[1] + 60 * NS_PER_MIN


def test_a_tick_size_that_is_written_otherwise_is_the_same_tick_size(root, tmp_path):
    """--tick-size 0.010 of a day with 0.01 changes nothing: the day before is its past all the same."""
    given = replace(job(root, "20250102", out=tmp_path), tick_size="0.010")
    made = calibrate_schedule(given, CALIBRATION, ScheduleSpec(60, 30))
    assert made.warnings == []
    assert made.windows["start_ns"][0] == MIDNIGHT[1]


def test_a_degraded_warm_day_is_told_and_marks_the_windows_that_touch_it(root, tmp_path):
    """Its condition is in the warnings, and in window_metrics as long as the training span reaches into it."""
    copied(root, tmp_path)
    manifest = day_folder(tmp_path, 1) / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "condition": "degraded", "reasons": ["gaps in depth: 1"]}))
    made = calibrate_schedule(job(tmp_path, "20250102"), CALIBRATION, ScheduleSpec(60, 30))
    assert made.warnings == ["20250101 is degraded: gaps in depth: 1"]
    assert tables(made.path)["window_metrics"]["condition"].to_list() == ["degraded"] * 2 + ["complete"] * 46


# ---- nothing of what follows


@pytest.fixture(scope="module")
def other_end(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same first two days, and the third of another market with the same run and epoch."""
    path = copied(root, tmp_path_factory.mktemp("other"))
    synth(replace(MARKET, hours=49, seed=2), path / "else", replace=False)
    shutil.rmtree(day_folder(path, 3))
    shutil.move(path / "else/venue=synth/symbol=SYNTH/day=20250103", day_folder(path, 3))
    return path


@pytest.mark.parametrize("days", ["20250101..20250103", "20250102..20250103"], ids=["cold", "warm"])
def test_what_comes_on_the_last_day_changes_no_earlier_window(root, other_end, tmp_path, days):
    """Windows, fits, metrics and points up to midnight are the same to the last bit, and those after it differ."""
    spec = ScheduleSpec(60, 30)
    runs = [
        tables(calibrate_schedule(job(place, days, out=tmp_path / str(i)), CALIBRATION, spec).path)
        for i, place in enumerate((root, other_end))
    ]
    times = {
        "windows": "start_ns", "fits": "train_end_ns", "window_metrics": "start_ns", "points": "bucket_end_ns",
    }  # fmt: skip
    for name, time_column in times.items():
        past = [found[name].filter(pl.col(time_column) <= MIDNIGHT[2]) for found in runs]
        assert past[0].height > 40, name
        assert past[0].equals(past[1]), name
        assert not runs[0][name].equals(runs[1][name]), name


@pytest.fixture(scope="module")
def deeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAME and DEEP: one market for an hour; then DEEP's takers reach five times as far."""
    path = tmp_path_factory.mktemp("deeper")
    made = SynthSpec(symbol="X", hours=1.5, frame_ms=500, seed=5, levels=1, ak_schedule=((0.0, 1.5, 0.25),))
    for name, pieces in (("same", made.ak_schedule), ("deep", (*made.ak_schedule, (3600.0, 1.5, 0.05)))):
        synth(replace(made, ak_schedule=pieces), path / name / "data", replace=False)
    return path


def test_automatic_distances_are_chosen_before_the_first_step(deeper, tmp_path):
    """The same deltas whatever comes after the first step, and they are those of the tape before it."""
    spec = CalibrateSpec(ProbeSpec(), FitSpec(), auto=AutoDeltas())
    made = [
        calibrate_schedule(job(deeper / name, "20250101", symbol="X", out=tmp_path / name), spec, ROLLING)
        for name in ("same", "deep")
    ]
    deltas = [read_json(each.path / "manifest.json")["spec"]["deltas"] for each in made]
    opening = made[0].windows["start_ns"][0]
    assert opening == MIDNIGHT[0] + 60 * NS_PER_MIN
    tape = concatenated(deeper / "deep", "20250101", "X")
    before = pl.col("recv_ns") < opening
    past = Tape(tape.depth.filter(before), tape.trades.filter(before), tape.gaps, tape.instrument)
    assert deltas[0] == deltas[1] == list(chosen(spec.probes, AutoDeltas(), past).deltas)
    assert deltas[1] != list(chosen(spec.probes, AutoDeltas(), tape).deltas), "the whole tape would not have shown it"
    assert read_json(made[1].path / "manifest.json")["spec"]["deltas_auto"] == {"count": 8, "max_delta_ticks": None}
    assert tables(made[0].path)["points"]["delta_ticks"].unique().sort().to_list() == deltas[0]


def test_automatic_distances_of_a_warm_start_come_from_the_day_before(root, other_end, tmp_path):
    """The first step is at 00:00, and nothing of the day itself is before it."""
    spec = CalibrateSpec(ProbeSpec(), FitSpec(), auto=AutoDeltas(5))
    found = [
        read_json(
            calibrate_schedule(
                job(place, "20250103", out=tmp_path / str(i)), spec, ScheduleSpec(120, 60)
            ).path / "manifest.json"
        )["spec"]["deltas"]
        for i, place in enumerate((root, other_end))
    ]  # fmt: skip
    assert found[0] == found[1]
    tape = concatenated(root, "20250102")
    late = pl.col("recv_ns") >= MIDNIGHT[2] - 120 * NS_PER_MIN
    past = Tape(tape.depth.filter(late), tape.trades.filter(late), tape.gaps, tape.instrument)
    assert found[0] == list(chosen(spec.probes, AutoDeltas(5), past).deltas)


# ---- killed, and gone on

CHILD = """
import json, pathlib, resource, sys, time
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.spans import Days
from mmlab.flows.calibrate import CalibrateSpec
from mmlab.flows.run import Job
from mmlab.flows.schedule import calibrate_schedule

def main(data, out, symbol, days, rolling, stop_after):
    place = pathlib.Path(out) / f"calibration/method=schedule/symbol={symbol}/day={days[0]}"
    begun = place / ".partial-run=r/progress.json"
    def show(_what, _done, _total):
        while stop_after and begun.exists() and json.loads(begun.read_text())["days"] >= stop_after:
            time.sleep(0.02)
    for day in days:
        job = Job(symbol, Days.parse(day), data_root=pathlib.Path(data), out_root=pathlib.Path(out), run_id="r")
        calibrate_schedule(job, CalibrateSpec(ProbeSpec(), FitSpec()), ScheduleSpec(*rolling), show)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

main(**json.loads(sys.argv[1]))
"""


def child(root: Path, out: Path, *days: str, symbol: str = "SYNTH", stop_after: int = 0) -> subprocess.Popen[str]:
    """A process that makes schedules; it waits, and does nothing more, once `stop_after` days of one are saved."""
    words = {
        "data": str(root / "data"), "out": str(out), "symbol": symbol, "days": days,
        "rolling": [ROLLING.train_window_min, ROLLING.step_min, ROLLING.warm_days], "stop_after": stop_after,
    }  # fmt: skip
    arguments = [sys.executable, "-c", CHILD, json.dumps(words)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(out: Path) -> Path:
    """The folder of a run over all days that has not ended."""
    return out / f"calibration/method=schedule/symbol=SYNTH/day={ALL_DAYS}/.partial-run=r"


def wait_for_days(process: subprocess.Popen[str], out: Path, days: int) -> None:
    """Until so many days are saved."""
    ends = time.monotonic() + 60
    while not (begun(out) / "progress.json").exists() or read_json(begun(out) / "progress.json")["days"] < days:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> ScheduleResult:
    """The run that nobody stops."""
    return calibrate_schedule(job(root, ALL_DAYS, out=tmp_path_factory.mktemp("whole")), CALIBRATION, ROLLING)


@dataclass(frozen=True)
class Killed:
    """Outputs of processes that were killed after so many days, and what others were told while they lived."""

    outs: dict[int, Path]
    refusals: list[tuple[int, str]]  # number of the process that has the run, what was said

    def copy(self, to: Path, days: int = 1) -> Path:
        """A copy of what a killed process left behind."""
        shutil.copytree(self.outs[days], to / "out")
        return to / "out"


@pytest.fixture(scope="module")
def killed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """The same run killed after its first day, and after its second."""
    made = Killed({days: tmp_path_factory.mktemp(f"killed-{days}") for days in (1, 2)}, [])
    processes = {days: child(root, out, ALL_DAYS, stop_after=days) for days, out in made.outs.items()}
    for days, process in processes.items():
        out = made.outs[days]
        wait_for_days(process, out, days)
        before = content(out)
        for run_id, resume in (("r", False), ("r", True), (None, True)):
            with pytest.raises(UsageError) as caught:
                calibrate_schedule(job(root, ALL_DAYS, run_id, out=out), CALIBRATION, ROLLING, resume=resume)
            made.refusals.append((process.pid, caught.value.message))
        assert content(out) == before, "a process that was refused changed something"
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    return made


def content(out: Path) -> dict[str, bytes]:
    """Every file of the outputs but the logs and the locks."""
    files = [p for p in (out / "calibration").rglob("*") if p.is_file() and p.name != "lock"]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def check_same(path: Path, whole: ScheduleResult) -> None:
    """The same run as the one that nobody stopped: bytes of every file, and the manifest but for its times."""
    assert path.name == whole.path.name
    assert sorted(p.name for p in path.iterdir()) == FILES
    for name in FILES:
        if name != "manifest.json":
            assert (path / name).read_bytes() == (whole.path / name).read_bytes(), name
    manifests = [read_json(each / "manifest.json") for each in (path, whole.path)]
    for manifest in manifests:
        manifest.pop("timings_s")
    assert manifests[0] == manifests[1]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "something was left beside it"


def test_a_killed_run_leaves_its_whole_days_and_the_state_to_go_on_from(killed):
    """Parts of each table, progress and state; nothing that could be taken for a run."""
    for days, out in killed.outs.items():
        (place,) = out.glob("calibration/**/.partial-run=r")
        names = {p.name for p in place.iterdir() if not p.name.startswith(".")}
        assert names >= {"progress.json", "lock"}
        assert len([name for name in names if name.startswith("state")]) == 1
        for table in TABLES:
            assert {f"{table.name}-{i:05}.part" for i in range(days)} <= names
        assert read_json(place / "progress.json")["days"] == days
        assert not list(out.rglob("run=r"))


@pytest.mark.parametrize("days", [1, 2])
@pytest.mark.parametrize("run_id", ["r", None], ids=["by its run id", "the latest"])
def test_a_killed_run_is_gone_on_with_and_ends_with_the_same_bytes(root, killed, whole, tmp_path, days, run_id):
    """After the first day or the second, by name or as the latest: nobody could tell."""
    out = killed.copy(tmp_path, days)
    made = calibrate_schedule(job(root, ALL_DAYS, run_id, out=out), CALIBRATION, ROLLING, resume=True)
    check_same(made.path, whole)
    assert made.windows.equals(whole.windows)
    assert f"resumed after {days} day" in (out / "logs/calibration/schedule/SYNTH" / ALL_DAYS / "r/run.log").read_text()


def test_days_that_were_done_are_not_read_again(root, tmp_path):
    """Their parts may be gone: the state holds all that is needed of them."""
    lake = Lake(shutil.copytree(root / "data", tmp_path / "data"))
    shutil.rmtree(day_folder(tmp_path, 1) / "depth")
    refs = lake.find("SYNTH", Days.parse(ALL_DAYS))
    reader = TapeReader(lake, refs, lake.instrument(refs))
    with pytest.raises(LakeError, match="is missing"):
        next(reader.chunks())
    seen = [depth["recv_ns"][0] // NS_PER_DAY for depth, _ in reader.chunks(1)]
    assert seen == [start // NS_PER_DAY for start in MIDNIGHT[1:4]]


def test_a_run_that_is_killed_twice_ends_with_the_same_bytes(root, killed, whole, tmp_path):
    """What the second attempt had begun and not saved is done again."""
    out = killed.copy(tmp_path)
    (place,) = out.glob("calibration/**/.partial-run=r")
    for table in TABLES:  # the next day's rows, of which nobody knows whether they are whole
        (place / f"{table.name}-00001.part").write_bytes(b"PAR1 half a file")
        (place / f".{table.name}-00002.part.tmp").write_bytes(b"half a file")
    check_same(calibrate_schedule(job(root, ALL_DAYS, out=out), CALIBRATION, ROLLING, resume=True).path, whole)


def command(root: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The real program, with the flags of the run that is killed."""
    clean = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "DAY", "DATA_ROOT", "OUT_ROOT", "RUN_ID"}}
    words = [
        "calibrate", "schedule", "--train-window-min", "60", "--step-min", "30", "--warm-days", "0", "--symbol",
        "SYNTH", "--day", ALL_DAYS, "--data-root", str(root / "data"), "--out-root", str(out),
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", "from mmlab.cli.app import main; main()", *words, "--json", *more],
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_goes_on_with_a_killed_run(root, killed, whole, tmp_path):
    """mmlab calibrate schedule --resume, with --run-id and without."""
    outs = [killed.copy(tmp_path / name) for name in ("named", "latest")]
    flags = (("--resume", "--run-id", "r"), ("--resume",))
    processes = [command(root, out, *more) for out, more in zip(outs, flags, strict=True)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for text, _ in said:
        check_same(Path(json.loads(text.splitlines()[-1])["path"]), whole)


def test_a_run_that_was_begun_is_not_begun_anew_without_saying_so(root, killed, tmp_path):
    """The same run id without --resume is refused, names --resume, and leaves what there is."""
    out = killed.copy(tmp_path)
    before = content(out)
    with pytest.raises(UsageError, match="run r was begun and did not end") as caught:
        calibrate_schedule(job(root, ALL_DAYS, out=out), CALIBRATION, ROLLING)
    assert "--resume" in caught.value.remedy
    assert "--run-id" in caught.value.remedy
    assert content(out) == before


@pytest.mark.parametrize(
    ("spec", "rolling"),
    [
        (replace(CALIBRATION, probes=ProbeSpec(count="sweeps")), ROLLING),
        (replace(CALIBRATION, probes=ProbeSpec((1, 2))), ROLLING),
        (replace(CALIBRATION, fit=FitSpec("nested_mle")), ROLLING),
        (CALIBRATION, ScheduleSpec(60, 15, 0)),
    ],
    ids=["count", "deltas", "method", "step"],
)
def test_a_run_that_was_begun_with_other_flags_is_not_gone_on_with(root, killed, tmp_path, spec, rolling):
    """Half of one and half of another would be neither; what was begun is left as it is."""
    out = killed.copy(tmp_path)
    before = content(out)
    with pytest.raises(UsageError, match="run r was begun with other flags or other data") as caught:
        calibrate_schedule(job(root, ALL_DAYS, out=out), spec, rolling, resume=True)
    assert "--run-id" in caught.value.remedy
    assert content(out) == before


def test_a_run_that_was_begun_on_other_data_is_not_gone_on_with(root, other_end, killed, tmp_path):
    """The days are told by the checksums of their parts."""
    out = killed.copy(tmp_path)
    with pytest.raises(UsageError, match="run r was begun with other flags or other data"):
        calibrate_schedule(job(other_end, ALL_DAYS, out=out), CALIBRATION, ROLLING, resume=True)


@pytest.mark.parametrize(
    "name",
    [
        "state.npz",
        "windows-00000.part",
        "points-00000.part",
    ],
)
def test_a_state_that_is_damaged_is_told(root, killed, tmp_path, name):
    """A disk's fault, not a kill's: the file is named, and a remedy."""
    out = killed.copy(tmp_path)
    (place,) = begun(out).glob(name)
    place.write_bytes(place.read_bytes()[:9])
    with pytest.raises(LakeError, match=place.name) as caught:
        calibrate_schedule(job(root, ALL_DAYS, out=out), CALIBRATION, ROLLING, resume=True)
    assert caught.value.remedy
    del caught
    gc.collect()  # a file that was left open is told here, not in another test


def test_there_must_be_something_to_resume(root, killed, tmp_path):
    """Without a run of these days that did not end, --resume is a fault of the command; nothing is written."""
    with pytest.raises(UsageError, match="there is no run to resume") as caught:
        calibrate_schedule(job(root, ALL_DAYS, None, out=tmp_path), CALIBRATION, ROLLING, resume=True)
    assert "--resume" in caught.value.remedy
    assert not list(tmp_path.iterdir())
    out = killed.copy(tmp_path)
    with pytest.raises(UsageError, match="there is no run to resume"):
        calibrate_schedule(job(root, "20250101", None, out=out), CALIBRATION, ROLLING, resume=True)


def test_a_named_run_of_which_nothing_was_saved_begins_anew_and_says_so(root, whole, tmp_path):
    """It may have been killed before its first day was whole."""
    made = calibrate_schedule(job(root, ALL_DAYS, out=tmp_path), CALIBRATION, ROLLING, resume=True)
    assert made.warnings == ["nothing to resume of run r: it begins anew"]
    for name in FILES[:1] + FILES[2:]:
        assert (made.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_run_that_has_ended_is_not_resumed(root, whole):
    """It is there, whole, and is not overwritten."""
    out = whole.path.parents[4]
    with pytest.raises(UsageError, match="run r exists already"):
        calibrate_schedule(job(root, ALL_DAYS, out=out), CALIBRATION, ROLLING, resume=True)
    with pytest.raises(UsageError, match="there is no run to resume"):
        calibrate_schedule(job(root, ALL_DAYS, None, out=out), CALIBRATION, ROLLING, resume=True)


def test_the_latest_run_is_the_one_that_was_begun_last(root, killed, tmp_path):
    """Runs may have names that do not sort by time."""
    out = killed.copy(tmp_path)
    (older,) = out.glob("calibration/**/.partial-run=r")
    newer = older.with_name(".partial-run=b")
    shutil.copytree(older, newer)
    for folder, ago_s in ((older, 7200), (newer, 60)):
        for path in (*folder.iterdir(), folder):
            os.utime(path, (time.time() - ago_s,) * 2)
    with pytest.raises(UsageError, match="run b was begun with other flags"):
        calibrate_schedule(job(root, ALL_DAYS, None, out=out), CALIBRATION, ScheduleSpec(30, 30, 0), resume=True)


def test_two_processes_do_not_make_one_run(killed):
    """While one lives, the second is refused, with --resume and without, and names the first."""
    assert len(killed.refusals) == 6
    for pid, message in killed.refusals:
        assert message == f"run r is being written already, by process {pid}"


def test_a_torn_part_stops_the_run_and_mending_it_lets_it_go_on(root, whole, tmp_path):
    """What was done before the fault is kept; with the file back, the run ends with the same bytes."""
    copied(root, tmp_path)
    given = job(tmp_path, ALL_DAYS)
    part = day_folder(tmp_path, 3) / "trades/part-00000.parquet"
    kept = part.read_bytes()
    part.write_bytes(kept[: len(kept) // 2])
    for resume in (False, True):
        with pytest.raises(LakeError, match=r"day=20250103/trades/part-00000\.parquet is torn"):
            calibrate_schedule(given, CALIBRATION, ROLLING, resume=resume)
        assert read_json(begun(tmp_path / "out") / "progress.json")["days"] == 2
    part.write_bytes(kept)
    check_same(calibrate_schedule(given, CALIBRATION, ROLLING, resume=True).path, whole)


def test_a_warm_start_with_automatic_distances_is_gone_on_with(root, tmp_path):
    """The warm day is one of the days done, and the distances are chosen as they were: the same bytes."""
    copied(root, tmp_path)
    spec, rolling_spec = replace(CALIBRATION, auto=AutoDeltas(5)), ScheduleSpec(60, 30)
    part = day_folder(tmp_path, 3) / "trades/part-00000.parquet"
    kept = part.read_bytes()
    part.write_bytes(kept[:-40])
    given = job(tmp_path, "20250102..20250103")
    with pytest.raises(LakeError, match="torn"):
        calibrate_schedule(given, spec, rolling_spec)
    (progress,) = given.out_root.rglob("progress.json")
    assert read_json(progress)["days"] == 2
    part.write_bytes(kept)
    made = calibrate_schedule(given, spec, rolling_spec, resume=True)
    alone = calibrate_schedule(replace(given, out_root=tmp_path / "alone"), spec, rolling_spec)
    assert made.windows["start_ns"][0] == MIDNIGHT[1]
    check_same(made.path, alone)


def test_a_torn_part_is_told_and_keeps_what_was_done(root, tmp_path):
    """The error names the file, the log has it too, and the days before it are saved."""
    copied(root, tmp_path)
    given = job(tmp_path, ALL_DAYS)
    part = day_folder(tmp_path, 3) / "trades/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(LakeError, match="torn"):
        calibrate_schedule(given, CALIBRATION, ROLLING)
    assert read_json(begun(tmp_path / "out") / "progress.json")["days"] == 2
    assert not list(given.out_root.rglob("run=r"))
    log = given.out_root / "logs/calibration/schedule/SYNTH" / ALL_DAYS / "r/run.log"
    assert "stopped: " in log.read_text()


def test_a_disk_that_is_full_while_the_parts_are_joined_costs_no_day(root, whole, tmp_path):
    """No file may be as long as points.parquet, the longest: the last join fails, and --resume mends it."""
    given = job(root, ALL_DAYS, out=tmp_path / "out")
    (other, _), (most, longest) = sorted((p.stat().st_size, p.name) for p in whole.path.iterdir())[-2:]
    assert longest == "points.parquet"
    most = (most + other) // 2
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            calibrate_schedule(given, CALIBRATION, ROLLING)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_json(begun(tmp_path / "out") / "progress.json")["days"] == 3
    check_same(calibrate_schedule(given, CALIBRATION, ROLLING, resume=True).path, whole)


# ---- nothing half made


def left(out: Path) -> list[str]:
    """What lies in the outputs, but for the logs."""
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and "logs" not in p.parts)


def test_a_day_that_is_too_short_leaves_nothing(islands, tmp_path):
    """No state was saved: there is nothing to go on from."""
    with pytest.raises(DataError, match=r"the data last 90\.0 minutes: too short for 120 minutes"):
        calibrate_schedule(
            job(islands, "20250103", symbol="GAP", out=tmp_path), CALIBRATION, ScheduleSpec(120, 30)
        )  # fmt: skip
    assert left(tmp_path) == []


def test_a_log_level_that_is_none_leaves_nothing_and_keeps_no_lock(islands, tmp_path):
    """The run can be begun under the same name at once."""
    given = job(islands, "20250103", symbol="GAP", out=tmp_path)
    with pytest.raises(UsageError, match="LOG_LEVEL is 'LOUD'"):
        calibrate_schedule(replace(given, log_level="LOUD"), CALIBRATION, ROLLING)
    assert left(tmp_path) == []
    calibrate_schedule(given, CALIBRATION, ROLLING)


def test_days_without_any_fit_leave_nothing_that_bars_the_next_try(root, tmp_path):
    """The fault tells to give other flags: under the same run id they must be taken."""
    given = job(root, "20250101..20250102", out=tmp_path)
    with pytest.raises(DataError, match="none of 94 windows could be fitted"):
        calibrate_schedule(given, replace(CALIBRATION, fit=FitSpec(min_exposure_s=1e9)), ROLLING)
    calibrate_schedule(given, CALIBRATION, ROLLING)


def test_days_that_are_too_short_leave_nothing_that_bars_the_next_try(root, tmp_path):
    """Likewise: no resume can make them longer."""
    given = job(root, "20250101..20250102", out=tmp_path)
    with pytest.raises(DataError, match="too short for 10000 minutes of training"):
        calibrate_schedule(given, CALIBRATION, ScheduleSpec(10_000, 60))
    calibrate_schedule(given, CALIBRATION, ROLLING)


def test_a_walk_forward_run_that_stops_on_its_second_day_leaves_nothing(root, tmp_path):
    """It cannot be resumed, so nothing of it stays."""
    copied(root, tmp_path)
    part = day_folder(tmp_path, 2) / "trades/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    spec = BacktestSpec(QuoteSpec("fixed_spread"), FillSpec("poisson"), account="margin")
    with pytest.raises(LakeError, match="torn"):
        walkforward(job(tmp_path, "20250101..20250102"), CALIBRATION, ROLLING, spec)
    assert left(tmp_path / "out") == []


def test_a_walk_forward_run_over_days_leaves_its_tables_only(root, tmp_path):
    """No part, state, progress or lock."""
    spec = BacktestSpec(QuoteSpec("fixed_spread"), FillSpec("poisson"), account="margin", requote_interval_ms=5_000)
    made = walkforward(job(root, "20250103..20250104", out=tmp_path), CALIBRATION, ROLLING, spec)
    names = {p.name for p in made.path.iterdir()}
    made_of = (schemas.ORDERS, schemas.FILLS, schemas.STATE, schemas.METRICS, schemas.ATTRIBUTION, schemas.MARKOUTS)
    backtest = {f"{t.name}.parquet" for t in made_of}
    assert names == {*FILES, *backtest}
    assert [p.name for p in made.path.parent.iterdir()] == ["run=r"]
    windows = read_table(made.path, schemas.WINDOWS)
    alone = calibrate_schedule(job(root, "20250103..20250104", out=tmp_path), CALIBRATION, ROLLING)
    assert windows is not None
    assert windows.equals(alone.windows)


# ---- the memory of a day


def test_sixteen_days_need_the_memory_of_two(tmp_path):
    """A process that has made a schedule over 2 days grows by less than 60 MiB when it makes one over 16."""
    spec = SynthSpec(symbol="LONG", hours=1, frame_ms=1000, prints_per_s=32, levels=1)
    for n in range(16):
        synth(replace(spec, day=date(2025, 1, 1 + n), seed=n), tmp_path / "data", replace=False)
    process = child(tmp_path, tmp_path / "out", "20250101..20250102", "20250101..20250116", symbol="LONG")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    two, sixteen = (int(line) / 1024 for line in said.split())
    assert sixteen - two < 60, f"{two:.0f} MiB for 2 days, {sixteen:.0f} MiB for 16"


def test_a_step_at_midnight_belongs_to_the_day_that_begins(root, tmp_path):
    """A day's last step starts before midnight; the next day's run has the step at 00:00."""
    made = calibrate_schedule(job(root, "20250101", out=tmp_path), CALIBRATION, ROLLING)
    assert made.windows["start_ns"].max() == MIDNIGHT[1] - 30 * NS_PER_MIN
    assert (made.windows["start_ns"] // NS_PER_DAY).n_unique() == 1
    assert made.windows["start_ns"].min() % NS_PER_S == 0
