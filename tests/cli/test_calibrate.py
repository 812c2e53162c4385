"""`mmlab calibrate` as it is typed: what each subcommand writes and prints, its variables, its faults with a remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from mmlab.cli.app import app

BASE = ("--symbol", "X", "--day", "20250101")
STEPS = ("--train-window-min", "10", "--step-min", "5")
# The real program, forked from a process that has imported it: a command costs its own work, and no half second of
# the interpreter's farewell.
SERVER = """
import contextlib, io, json, os, sys, traceback
import numpy
import mmlab.flows.own_orders, mmlab.flows.synth, mmlab.flows.validate, mmlab.flows.walkforward
from mmlab.cli.app import main
from mmlab.core.instrument import Instrument
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    Instrument("synth", "X", "0.01", "0.001").ticks.to_steps(numpy.array([1.0]))
    sys.argv = ["mmlab", "calibrate", "--help"]
    main()
for line in sys.stdin:
    words, environment, out, err = json.loads(line)
    if (child := os.fork()) == 0:
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.environ.update(environment)
        sys.argv = ["mmlab", *words]
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, object]:
        """What --json printed on the last line."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Shell:
    """A folder in which commands are typed."""

    folder: Path
    process: subprocess.Popen[str]

    def __call__(self, *words: str, **environment: str) -> Ran:
        paths = [self.folder / name for name in ("stdout", "stderr")]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([words, environment, *map(str, paths)]), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        return Ran(code, *(path.read_text() for path in paths))

    def files(self) -> list[Path]:
        """Every file of the outputs but the logs."""
        return sorted(p for p in (self.folder / "out").rglob("*") if p.is_file() and "logs" not in p.parts)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder with half an hour of market, a ladder, a schedule, a backtest and a walk-forward run of it."""
    folder = tmp_path_factory.mktemp("calibrate")
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=folder, env={**kept, "COLUMNS": "250", "NO_COLOR": "1"}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        made = Shell(folder, process)
        for words in (
            ("synth", "--symbol", "X", "--hours", "0.5", "--seed", "3", "--frame-ms", "500"),
            ("calibrate", "ladder", *BASE, "--run-id", "rungs"),
            ("calibrate", "schedule", *BASE, *STEPS, "--run-id", "steps"),
            ("backtest", *BASE, "--quote-model", "fixed_spread", "--run-id", "bt"),
            ("walkforward", *BASE, *STEPS, "--sigma", "0.3", "--maker-fee", "0", "--run-id", "wf"),
        ):
            ran = made(*words)
            assert ran.code == 0, ran.err
        yield made
        assert process.stdin is not None
        process.stdin.close()


COMMANDS = typer.main.get_command(app).commands["calibrate"].commands  # type: ignore[attr-defined]
VARIABLES = {
    variable
    for command in COMMANDS.values()
    for option in command.params
    for variable in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or [])
}

# ---- what each writes, and what it prints

SPAN = ["curves.parquet", "fits.parquet", "manifest.json", "points.parquet", "poisson_fit.json"]
SCHEDULE = ["fits.parquet", "manifest.json", "points.parquet", "poisson_schedule.json", "window_metrics.parquet",
            "windows.parquet"]  # fmt: skip
JUDGED = ["manifest.json", "scores.parquet", "stability.parquet", "validation.parquet"]
GOOD = {
    "ladder": (("ladder", *BASE), "ladder", SPAN),
    "nested": (("ladder", *BASE, "--fit-method", "nested_mle", "--count", "sweeps"), "ladder", SPAN),
    "auto": (("ladder", *BASE, "--deltas", "auto:5"), "ladder", SPAN),
    "cycle": (("ladder", *BASE, "--cycle", "--min-exposure-s", "1"), "ladder", SPAN),
    "fixed": (("fixed", *BASE, "--requote-interval-ms", "1000"), "fixed", SPAN),
    "paper": (("fixed", *BASE, "--engine", "paper", "--requote-interval-ms", "1000"), "fixed", SPAN),
    "schedule": (("schedule", *BASE, *STEPS), "schedule", SCHEDULE),
    "orders": (("orders", "wf"), "orders", SPAN),
    "validate": (("validate", "steps"), "validate", JUDGED),
    "orders by path": (("orders", "out/backtest/symbol=X/day=20250101/run=bt"), "orders", SPAN),
    "validate by path": (("validate", "out/walkforward/symbol=X/day=20250101/run=wf"), "validate", JUDGED),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_command_writes_its_files_and_says_where(shell, name):
    """Exit code 0, one run's folder with just its files, and the line `wrote FOLDER`; only progress beside it."""
    words, method, files = GOOD[name]
    run_id = f"good-{name.replace(' ', '-')}"
    ran = shell("calibrate", *words, "--run-id", run_id)
    assert ran.code == 0, ran.err
    place = f"out/calibration/method={method}/symbol=X/day=20250101/run={run_id}"
    assert ran.out.splitlines()[-1] == f"wrote {place}"
    assert sorted(p.name for p in (shell.folder / place).iterdir()) == files
    assert all(line.endswith("%") or line.startswith("warning: no curve") for line in ran.err.splitlines())
    manifest = json.loads((shell.folder / place / "manifest.json").read_text())
    assert (manifest["run_id"], manifest["spec"]["method"]) == (run_id, method)
    assert (shell.folder / f"out/logs/calibration/{method}/X/20250101/{run_id}/run.log").exists()


def row(out: str, title: str, first: str) -> list[str]:
    """The cells of a printed table's row, by the table's title and the row's first cell."""
    below = out.split(title)[1]
    return [
        cell.strip() for cell in next(line for line in below.splitlines() if f"│ {first} " in line).split("│")[1:-1]
    ]


def shown(value: object) -> str:
    """A value as a table's cell shows it."""
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", ["ladder", "cycle", "fixed", "paper", "orders"])
def test_json_has_what_the_table_of_a_curve_shows(shell, name):
    """Both sides' row, to the last digit of poisson_fit.json; --json adds a last line and takes none away."""
    words, _, _ = GOOD[name]
    ran = shell("calibrate", *words, "--run-id", f"json-{name}", "--json")
    assert ran.code == 0, ran.err
    last = ran.last
    columns = ("side", "A", "A_low", "A_high", "k", "k_low", "k_high", "ok", "reason")
    assert row(ran.out, "lambda(delta)", "both") == [shown(last[column]) for column in columns]
    fit = json.loads((shell.folder / str(last["path"]) / "poisson_fit.json").read_text())
    assert (fit["A"], fit["k"], fit["ok"]) == (last["A"], last["k"], True)
    robust = ("A_low_robust", "A_high_robust", "k_low_robust", "k_high_robust")
    assert [*fit["A_interval95_robust"], *fit["k_interval95_robust"]] == [last[column] for column in robust]
    assert row(ran.out, "95% intervals that bursts", "both")[1:] == [shown(last[column]) for column in robust]


def test_json_of_a_schedule_has_its_steps_and_its_place(shell):
    """As many as the table has rows, and poisson_schedule.json entries."""
    ran = shell("calibrate", "schedule", *BASE, *STEPS, "--run-id", "json-schedule", "--json")
    assert ran.code == 0, ran.err
    listed = json.loads((shell.folder / str(ran.last["path"]) / "poisson_schedule.json").read_text())
    assert ran.last["steps"] == len(listed) == ran.out.count("│ 2025-01-01 00:") == 4
    cells = row(ran.out, "schedule", "2025-01-01 00:10")
    assert cells[1:4] == [shown(listed[0]["A"]), shown(listed[0]["k"]), "fit"]


def test_json_of_a_validation_has_the_verdict(shell):
    """The line that is printed without --json, and that the manifest keeps."""
    plain = shell("calibrate", "validate", "steps", "--run-id", "plain")
    ran = shell("calibrate", "validate", "steps", "--run-id", "json-validate", "--json")
    assert ran.code == 0, ran.err
    assert ran.last["verdict"] == plain.out.splitlines()[-2]
    manifest = json.loads((shell.folder / str(ran.last["path"]) / "manifest.json").read_text())
    assert manifest["spec"]["verdict"] == ran.last["verdict"]
    assert "predicted against realised hits" in ran.out
    assert "stability of A and k" in ran.out


# ---- flags and their variables


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_each_flag_and_its_variable(shell, name):
    """Every flag that has one in the environment, in the flag's own line."""
    text = shell("calibrate", name, "--help")
    assert text.code == 0
    lines = text.out.splitlines()
    for option in COMMANDS[name].params:
        if option.param_type_name != "option":
            continue
        line = next(line for line in lines if f" {option.opts[0]} " in line)
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
        if variables:
            assert f"[env var: {', '.join(variables)}]" in line, option.opts[0]


def test_the_documents_variables_are_there():
    """By the names that the documents give them."""
    assert {
        "SYMBOL", "DAY", "VENUE", "DATA_ROOT", "OUT_ROOT", "OUT_DIR", "LOG_ROOT", "RUN_ID", "TICK_SIZE", "LOG_LEVEL",
        "CALIB_DELTAS", "CALIB_COUNT", "CALIB_REACH", "CALIB_DWELL_MS", "CALIB_MID_MOVE_THRESHOLD_TICKS",
        "CALIB_ENGINE",
        "MAX_DELTA_TICKS", "MIN_DELTA_TICKS", "FIT_METHOD", "MIN_EXPOSURE_S", "POISSON_DT_MS", "REQUOTE_INTERVAL_MS",
        "WF_TRAIN_WINDOW_MIN", "WF_STEP_MIN", "WF_WARM_DAYS", "QUOTE_QTY", "ORDER_LATENCY_MS", "CANCEL_LATENCY_MS",
    } <= VARIABLES  # fmt: skip


def test_variables_are_flags(shell):
    """A paper run told by its environment alone: the manifest has every one of them."""
    ran = shell(
        "calibrate", "fixed", "--json", SYMBOL="X", DAY="20250101", CALIB_DELTAS="1,2,4", RUN_ID="env",
        CALIB_ENGINE="paper", REQUOTE_INTERVAL_MS="2000", QUOTE_QTY="0.002", ORDER_LATENCY_MS="20",
        CANCEL_LATENCY_MS="10", FIT_METHOD="log_linear", MIN_EXPOSURE_S="1", CALIB_REACH="through", OUT_DIR="else",
        LOG_ROOT="else/logs",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    place = shell.folder / "else/calibration/method=fixed/symbol=X/day=20250101/run=env"
    spec = json.loads((place / "manifest.json").read_text())["spec"]
    assert spec["paper"] == {
        "requote_interval_ms": 2000, "qty": 0.002, "entry_latency_ms": 20, "cancel_latency_ms": 10,
    }  # fmt: skip
    assert (spec["deltas"], spec["fit_method"], spec["min_exposure_s"], spec["reach"]) == (
        [1, 2, 4], "log_linear", 1.0, "through",
    )  # fmt: skip
    assert (shell.folder / "else/logs/calibration/fixed/X/20250101/env/run.log").exists()


# ---- faults

LADDER, FIXED, TIMED = (("calibrate", name, *BASE) for name in ("ladder", "fixed", "schedule"))
HUGE = "99999999999999999"
FAULTS = [
    (("calibrate", "orders", "nothing"), 1, "no run 'nothing' under out", "the latest runs are"),
    (("calibrate", "validate", "nothing"), 1, "no run 'nothing' under out", "the latest runs are"),
    (("calibrate", "orders", "rungs"), 1, "run=rungs has no orders", "mmlab backtest or mmlab walkforward"),
    (("calibrate", "orders", "steps"), 1, "run=steps has no orders", "mmlab backtest or mmlab walkforward"),
    (("calibrate", "validate", "rungs"), 1, "run=rungs has no schedule", "mmlab calibrate schedule or walkforward"),
    (("calibrate", "validate", "bt"), 1, "run=bt has no schedule", "mmlab calibrate schedule or walkforward"),
    (("calibrate", "orders", "wf", "--fit-method", "nested_mle"), 2, "--fit-method nested_mle is for", "poisson_mle"),
    (("calibrate", "orders", "wf", "--fit-method", "magic"), 2, "--fit-method is 'magic'", "poisson_mle, log_linear"),
    (("calibrate", "orders", "wf", "--min-delta-ticks", "40"), 1, "from 40 to 50 ticks", "--max-delta-ticks"),
    ((*LADDER, "--cycle", "--fit-method", "nested_mle"), 2, "not with --cycle", "poisson_mle"),
    ((*LADDER, "--deltas", "one,two"), 2, "--deltas is 'one,two'", "1,2,3,5,8,13"),
    ((*LADDER, "--deltas", "auto:many"), 2, "--deltas is 'auto:many'", "auto:12"),
    ((*LADDER, "--deltas", ""), 2, "--deltas is ''", "1,2,3,5,8,13"),
    ((*LADDER, "--deltas", "2,1"), 2, "--deltas 2,1 is not ascending", "nearest first"),
    ((*LADDER, "--deltas", "auto:1"), 2, "--deltas auto:1", "2 to 200"),
    ((*LADDER, "--deltas", "auto:201"), 2, "--deltas auto:201", "2 to 200"),
    ((*LADDER, "--deltas", "auto", "--max-delta-ticks", "1"), 2, "--max-delta-ticks is 1", "at least 2"),
    ((*LADDER, "--run-id", "rungs"), 2, "run rungs exists already", "another --run-id"),
    ((*FIXED, "--engine", "foo"), 2, "--engine is 'foo'", "virtual, paper"),
    ((*FIXED, "--engine", "paper", "--count", "sweeps"), 2, "--engine paper sends real orders", "--count"),
    ((*FIXED, "--engine", "paper", "--deltas", "auto"), 2, "--engine paper sends real orders", "--deltas"),
    ((*FIXED, "--engine", "paper", "--entry-latency-ms", "-1"), 2, "--entry-latency-ms is -1", "0 or more"),
    ((*TIMED, "--warm-days", "-1"), 2, "--warm-days is -1", "0 to 366"),
    ((*TIMED, "--warm-days", "367"), 2, "--warm-days is 367", "0 to 366"),
    ((*TIMED, "--step-min", "nan"), 2, "--step-min is nan", "at least 0.01"),
    (TIMED, 1, "the data last 30.0 minutes: too short for 120 minutes of training", "--train-window-min"),
    ((*TIMED, *STEPS, "--resume"), 2, "there is no run to resume", "--resume"),
    ((*TIMED, *STEPS, "--resume", "--run-id", "steps"), 2, "run steps exists already", "--run-id"),
    ((*TIMED, *STEPS, "--min-exposure-s", "1e9"), 1, "none of 4 windows could be fitted", "--min-exposure-s"),
    pytest.param((*FIXED, "--requote-interval-ms", "0"), 2, "--requote-interval-ms is 0", "1 ms"),
    pytest.param((*LADDER, "--dwell-ms", HUGE), 2, "--dwell-ms", ""),
    pytest.param((*LADDER, "--mid-move-threshold-ticks", "1e300"), 2, "--mid-move-threshold-ticks", ""),
    pytest.param((*LADDER, "--deltas", f"1,{HUGE}", "--max-delta-ticks", HUGE), 2, "--deltas", ""),
    pytest.param(("calibrate", "orders", "wf", "--max-delta-ticks", "0"), 1, "from 0 to 0 ticks", "--max-delta-ticks"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "message", "remedy"),
    FAULTS,
    ids=lambda value: " ".join(value)[10:70] if isinstance(value, tuple) else "",
)
def test_a_fault_is_told_with_a_remedy(shell, words, code, message, remedy):
    """Exit code 1 for data and 2 for the command; flag and remedy in the last two lines; nothing half written."""
    before = shell.files()
    ran = shell(*words)
    assert "Traceback" not in ran.err
    assert ran.code == code, ran.err
    told = [line for line in ran.err.splitlines() if not line.endswith("%")]
    assert told[0].startswith("error: ")
    assert message in told[0]
    assert len(told) >= 2, "no remedy"
    assert remedy in told[1]
    assert shell.files() == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_its_words_is_a_usage_fault(shell, name):
    """typer's own messages: exit code 2, and what is missing."""
    ran = shell("calibrate", name)
    assert ran.code == 2
    assert "Missing" in ran.err
    assert "Traceback" not in ran.err


def test_a_day_with_one_step_at_midnight_is_walked_forward(shell):
    """Half an hour after a whole day: the step at 00:00 was fitted on the day before, and that is all there is."""
    more = ("--symbol", "W", "--frame-ms", "5000", "--A", "0.5", "--prints-per-s", "1", "--mid-moves-per-s", "0.1",
            "--levels", "1")  # fmt: skip
    assert shell("synth", "--hours", "24", *more).code == 0
    assert shell("synth", "--day", "20250102", "--hours", "0.5", *more).code == 0
    hour = ("--train-window-min", "60", "--step-min", "60", "--sigma", "0.3")
    ran = shell("walkforward", "--symbol", "W", "--day", "20250102", *hour, "--json")
    assert "Traceback" not in ran.err
    assert ran.code == 0
    assert "true against fitted" in ran.out
