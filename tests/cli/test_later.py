"""Commands on demand: only the one that is asked for is imported, and none is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mmlab.cli.app import app

GROUPS = {
    "": ["record", "serve", "check", "rebuild", "bars", "synth", "walkforward", "backtest", "compare", "report", "sql",
         "tables", "import", "fetch", "calibrate", "grid"],
    "import": ["raw", "klines", "funding"],
    "fetch": ["klines", "funding"],
    "calibrate": ["ladder", "fixed", "schedule", "orders", "validate"],
    "grid": ["backtest", "lookahead", "config", "optimize", "apply"],
}  # fmt: skip
RUN = """
import json, sys
from mmlab.cli.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps(sorted(sys.modules)))
"""


def loaded(folder: Path, *words: str) -> set[str]:
    """The modules that a process has imported when its command has ended; no library complains as it ends."""
    clean = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "DAY", "DATA_ROOT", "OUT_ROOT", "RUN_ID"}}
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "leaked" not in ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def top(modules: set[str]) -> set[str]:
    """`rich` of `rich.table`."""
    return {module.partition(".")[0] for module in modules}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder whose lake has a quarter of an hour of market."""
    path = tmp_path_factory.mktemp("later")
    loaded(path, "synth", "--symbol", "X", "--hours", "0.25", "--seed", "3")
    return path


UNUSED = {"numba", "llvmlite", "scipy", "pyarrow", "duckdb", "matplotlib", "asyncio", "pydantic", "websockets"}


def test_a_schedule_imports_nothing_that_it_does_not_use(folder):
    """No compiler once its kernels are kept, no database, no network, and of the command line what belongs to it."""
    words = ("--symbol", "X", "--day", "20250101", "--train-window-min", "5", "--step-min", "5", "--deltas", "1,2,3")
    for _ in range(2):
        modules = loaded(folder, "calibrate", "schedule", *words)
    assert top(modules) & UNUSED == {"llvmlite"}
    assert "rich.progress" not in modules
    ours = {module.removeprefix("mmlab.cli.") for module in modules if module.startswith("mmlab.cli.")}
    own = {"calibrate", "calibrate_options"}
    assert ours == own | {"app", "console", "flags", "later", "options", "several", "values"}
    assert not {module for module in modules if module.startswith(("mmlab.sim", "mmlab.grid", "mmlab.report"))}


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (("check", "--symbol", "X"), UNUSED - {"pyarrow"}),
        (("tables", "gaps"), UNUSED),
        (("sql", "SELECT 1"), UNUSED - {"pyarrow", "duckdb"}),
        (("--version",), UNUSED | {"numpy", "polars"}),
        (("record", "--help"), UNUSED | {"numpy", "polars"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_simulates_nothing_needs_no_compiler(folder, words, unused):
    """What it does not use, it does not import."""
    assert top(loaded(folder, *words)) & unused == set()


def test_the_garbage_collector_waits_and_then_works_as_ever():
    """Until more objects were made than imports make; a long run has its usual thresholds."""
    code = """
import gc
from mmlab.cli.app import _collect_later
usual = gc.get_threshold()
_collect_later()
assert gc.get_threshold()[0] > 100_000 > usual[0], gc.get_threshold()
many = [[] for _ in range(300_000)]
assert gc.get_threshold() == usual, gc.get_threshold()
assert gc.callbacks == []
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("group", GROUPS)
def test_help_lists_every_command_in_its_order_with_its_own_first_line(group):
    """The commands wait, their names and their help do not."""
    shown = CliRunner().invoke(app, [*group.split(), "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    listed = [line.strip("│ ").split("  ")[0] for line in shown.output.partition("Commands")[2].splitlines()]
    assert [name for name in listed if name in GROUPS[group]] == GROUPS[group]
    root = typer.main.get_command(app)
    commands = (root.commands[group] if group else root).commands  # type: ignore[attr-defined]
    assert list(commands) == GROUPS[group]
    for command in commands.values():
        assert command.help
        assert command.get_short_help_str(40).removesuffix("...").strip() in shown.output


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["calibrat"], "'calibrate'"), (["calibrate", "schedul"], "'schedule'"), (["grid", "optimise"], "'optimize'")],
)
def test_a_name_that_is_nearly_right_is_answered_with_the_one_that_is_meant(words, meant):
    """Commands that were not built yet are suggested too."""
    said = CliRunner().invoke(app, words, env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert said.exit_code == 2
    assert f"Did you mean {meant}?" in said.output


def test_a_shell_is_told_the_names_and_the_flags(monkeypatch):
    """Completion sees through the stand-ins."""

    def completed(words: str) -> str:
        told = {"_MMLAB_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
        return CliRunner().invoke(app, [], prog_name="mmlab", env=told).output

    assert '"schedule"' in completed("mmlab calibrate ")
    assert '"--deltas"' in completed("mmlab calibrate schedule --de")


def test_a_command_that_is_taken_out_or_put_in_is_gone_or_there():
    """A group's commands are a mapping like typer's own."""
    commands = typer.main.get_command(app).commands["fetch"].commands  # type: ignore[attr-defined]
    made = commands["klines"]
    assert commands["klines"] is made
    assert commands.get("nothing") is None
    del commands["klines"]
    assert "klines" not in commands
    commands["again"] = made
    assert list(commands) == ["funding", "again"]
    assert commands["again"] is made
    assert len(commands) == 2
