"""What a user may get wrong: each has a message that names it, a remedy, an exit code, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
BASE = ("--symbol", "X", "--day", "20250101")


def mmlab(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`."""
    clean = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "DAY", "DATA_ROOT", "OUT_ROOT", "RUN_ID"}}
    return subprocess.run(
        [*MMLAB, *words],
        cwd=folder,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with half an hour of market in its lake, and one calibration of it."""
    path = tmp_path_factory.mktemp("cli")
    made = mmlab(path, "synth", "--symbol", "X", "--hours", "0.5", "--seed", "3")
    assert made.returncode == 0, made.stderr
    assert mmlab(path, "calibrate", "ladder", *BASE, "--run-id", "fit").returncode == 0
    (path / "empty.json").write_text("[]")
    (path / "torn.json").write_text("[{")
    (path / "elsewhere.json").write_text(json.dumps([{"start_ms": 1, "end_ms": 2, "A": 1.0, "k": 0.1}]))
    (path / "other_tick.json").write_text(json.dumps({"A": 1.0, "k": 0.1, "tick_size": "0.1"}))
    (path / "no_curve.json").write_text(json.dumps({"A": None, "k": None, "reason": "no hits"}))
    return path


def results(folder: Path) -> list[Path]:
    """Every file of the outputs but the logs."""
    return sorted(p for p in (folder / "out").rglob("*") if p.is_file() and "logs" not in p.parts)


POISSON = ("backtest", *BASE, "--fill-model", "poisson")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("calibrate", "ladder", "--symbol", "X", "--day", "20250102"), 1, "no data for X on 20250102 under data"),
        (("calibrate", "ladder", "--symbol", "X", "--day", "20250101..20250103"), 1, "on 20250102, 20250103"),
        (("calibrate", "ladder", "--symbol", "Y", "--day", "20250101"), 1, "no data for Y on 20250101"),
        (("calibrate", "ladder", "--symbol", "X", "--day", "January"), 2, "day 'January' is not a date"),
        (("calibrate", "ladder", *BASE, "--dwell-ms", "-5"), 2, "--dwell-ms is -5"),
        (("calibrate", "ladder", *BASE, "--deltas", "3,2,1"), 2, "--deltas 3,2,1 is not ascending"),
        (("calibrate", "ladder", *BASE, "--deltas", "0,1,2"), 2, "--deltas 0,1,2 starts at 0"),
        (("calibrate", "ladder", *BASE, "--deltas", "1,two"), 2, "--deltas is '1,two'"),
        (("calibrate", "ladder", *BASE, "--deltas", "1,99"), 2, "beyond --max-delta-ticks 50"),
        (("calibrate", "ladder", *BASE, "--count", "all"), 2, "--count is 'all'"),
        (("calibrate", "ladder", *BASE, "--tick-size", "0"), 2, "tick size is 0"),
        (("calibrate", "ladder", *BASE, "--tick-size", "0.03"), 1, "is not a multiple of the tick size"),
        (("calibrate", "ladder", *BASE, "--run-id", "fit"), 2, "run fit exists already"),
        (("calibrate", "ladder", *BASE, "--log-level", "LOUD"), 2, "LOG_LEVEL is 'LOUD'"),
        (("calibrate", "ladder", *BASE, "--venue", "nowhere"), 1, "no data for X on 20250101"),
        (("calibrate", "schedule", *BASE), 1, "too short for 120 minutes of training"),
        (("calibrate", "schedule", *BASE, "--step-min", "0"), 2, "--step-min is 0"),
        (
            ("calibrate", "schedule", *BASE, "--train-window-min", "5", "--step-min", "5", "--min-exposure-s", "1e6"),
            1,
            "none of 5 windows could be fitted: fewer than two distances with enough exposure",
        ),
        (POISSON, 2, "poisson fills need (A, k)"),
        (("backtest", *BASE), 2, "avellaneda_stoikov quotes need k"),
        ((*POISSON, "--A", "1"), 2, "--A and --k belong together"),
        ((*POISSON, "--fill-params-file", "absent.json"), 1, "absent.json is missing"),
        ((*POISSON, "--fill-params-file", "torn.json"), 1, "torn.json is not JSON"),
        ((*POISSON, "--fill-params-file", "empty.json"), 1, "the schedule is empty"),
        ((*POISSON, "--fill-params-file", "elsewhere.json"), 1, "the schedule covers 1 to 2 ms, none of the data's"),
        ((*POISSON, "--fill-params-file", "other_tick.json"), 1, "was fitted with tick size 0.1, the data have 0.01"),
        ((*POISSON, "--fill-params-file", "no_curve.json"), 1, "no_curve.json has no curve: no hits"),
        ((*POISSON, "--A", "1", "--k", "0.2", "--qty", "0"), 2, "--qty is 0"),
        ((*POISSON, "--A", "1", "--k", "0.2", "--quote-model", "magic"), 2, "--quote-model is 'magic'"),
        ((*POISSON, "--quote-model", "glft", "--ladder", "1,2"), 2, "--quote-model is 'glft', --ladder 1.0,2.0"),
        ((*POISSON, "--quote-model", "glft", "--strategy", "a:b"), 2, "--quote-model is 'glft', --strategy 'a:b'"),
        ((*POISSON, "--ladder", "1,two"), 2, "--ladder is '1,two'"),
        ((*POISSON, "--strategy", "nowhere.py:quotes"), 2, "--strategy is 'nowhere.py:quotes'"),
        ((*POISSON, "--latency-file", "nowhere.csv"), 2, "--latency-file nowhere.csv: No such file"),
        ((*POISSON, "--A", "1", "--k", "0.2", "--maker-fee", "5"), 2, "--maker-fee is 5"),
        (("synth", "--symbol", "X", "--hours", "0.5"), 2, "X 20250101 is in the lake already"),
        (("synth", "--symbol", "Z", "--A", "-1"), 2, "--A is -1"),
        (("report", "nothing"), 1, "no run 'nothing' under out"),
        (("sql", "SELECT nope FROM trades"), 2, "nope"),
        (("sql", "SELECT 1", "--format", "xml"), 2, "--format is 'xml'"),
        (("tables", "nope"), 2, "there is no table 'nope'"),
        (("import", "raw", "absent.gz", "--venue", "binance-spot", *BASE[:2], "--tick-size", "0.01", "--lot-size", "1"),
         2, "absent.gz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_fault_is_told_with_a_remedy(folder, words, code, message):
    """Message on standard error, exit code 1 for data and 2 for usage, nothing half written."""
    before = results(folder)
    ran = mmlab(folder, *words)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) >= 2, "no remedy"
    assert results(folder) == before


@pytest.mark.parametrize("words", [("calibrate", "ladder"), ("nonsense",), ("calibrate", "ladder", "--nonsense")])
def test_a_command_that_does_not_exist_is_a_usage_fault(folder, words):
    """typer's own messages have the same exit code."""
    ran = mmlab(folder, *words)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


def test_a_torn_part_is_named_and_nothing_is_written(tmp_path):
    """A Parquet file cut short stops the run with its path."""
    assert mmlab(tmp_path, "synth", "--symbol", "X", "--hours", "0.1").returncode == 0
    part = next(tmp_path.rglob("trades/part-00000.parquet"))
    part.write_bytes(part.read_bytes()[:-50])
    ran = mmlab(tmp_path, "calibrate", "ladder", *BASE)
    assert ran.returncode == 1
    assert "trades/part-00000.parquet is torn" in ran.stderr
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_an_empty_table_is_named(tmp_path):
    """A market without a print in it cannot be calibrated."""
    assert mmlab(tmp_path, "synth", "--symbol", "X", "--hours", "0.1").returncode == 0
    manifest = next(tmp_path.rglob("manifest.json"))
    content = json.loads(manifest.read_text())
    del content["tables"]["trades"]
    manifest.write_text(json.dumps(content))
    ran = mmlab(tmp_path, "calibrate", "ladder", *BASE)
    assert ran.returncode == 1
    assert "table 'trades' of X 20250101 is empty" in ran.stderr


def test_flags_come_from_the_environment_by_the_documents_names(folder):
    """SYMBOL, DAY, CALIB_DELTAS and the others; the log says what was run."""
    ran = mmlab(
        folder, "calibrate", "ladder", "--json", SYMBOL="X", DAY="20250101", CALIB_DELTAS="1,2,4", RUN_ID="env",
        FIT_METHOD="nested_mle", LOG_LEVEL="DEBUG", LOG_ROOT=str(folder / "logs"), CALIB_DWELL_MS="1000",
        MIN_EXPOSURE_S="1",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    fit = json.loads((folder / last["path"] / "poisson_fit.json").read_text())
    assert (fit["deltas"], fit["fit_method"], fit["min_exposure_s"]) == ([1, 2, 4], "nested_mle", 1.0)
    assert fit["A"] == last["A"]
    assert "calibration/ladder of X 20250101" in (folder / "logs/calibration/ladder/X/20250101/env/run.log").read_text()


def test_a_fault_is_in_the_runs_log_too(folder):
    """What went wrong can be read after the terminal is gone."""
    mmlab(folder, "calibrate", "schedule", *BASE, "--run-id", "short")
    assert (
        "stopped: the data last 30.0 minutes"
        in (folder / "out/logs/calibration/schedule/X/20250101/short/run.log").read_text()
    )


def test_a_run_made_twice_is_the_same_bytes(folder):
    """Every table of two walk-forward runs, byte for byte."""
    words = ("walkforward", *BASE, "--train-window-min", "10", "--step-min", "5")
    for name in ("one", "two"):
        ran = mmlab(folder, *words, "--run-id", name)
        assert ran.returncode == 0, ran.stderr
    runs = [folder / f"out/walkforward/symbol=X/day=20250101/run={name}" for name in ("one", "two")]
    tables = sorted(p.name for p in runs[0].glob("*.parquet"))
    assert tables == [
        f"{t}.parquet"
        for t in (
            "attribution",
            "fills",
            "fits",
            "markouts",
            "metrics",
            "orders",
            "points",
            "state",
            "window_metrics",
            "windows",
        )
    ]
    for name in (*tables, "poisson_schedule.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name


def test_a_fit_and_a_schedule_feed_a_backtest(folder):
    """The artifacts of calibrate are what backtest takes."""
    fit = "out/calibration/method=ladder/symbol=X/day=20250101/run=fit/poisson_fit.json"
    ran = mmlab(folder, *POISSON, "--fill-params-file", fit, "--run-id", "fed", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["fills"] > 50
    assert mmlab(folder, "report", "fed").returncode == 0
    assert (folder / "out/backtest/symbol=X/day=20250101/run=fed/report.html").stat().st_size > 50_000
