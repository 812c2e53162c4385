"""The README's commands run, in its order, and print what it says they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reference.recording import write_recording

README = Path(__file__).resolve().parent.parent / "README.md"
MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]


def console_blocks() -> list[tuple[str, str]]:
    """(command, output) of every `$ ` line in the README's console blocks."""
    text = README.read_text().replace("\\\n", "")
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.rstrip()))
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> list[tuple[str, str, str]]:
    """Every command of the README run in a fresh folder: (command, README's output, real output)."""
    folder = tmp_path_factory.mktemp("readme")
    write_recording(folder / "recording.gz")
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    for name in ("SYMBOL", "DAY", "RUN_ID"):
        environment.pop(name, None)
    done = []
    for command, output in console_blocks():
        words = shlex.split(command)
        if words[0] != "mmlab":
            continue
        ran = subprocess.run(
            [*MMLAB, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr
        done.append((command, output, "\n".join(line.rstrip() for line in ran.stdout.splitlines()).rstrip()))
    return done


def test_every_command_prints_what_the_readme_shows(printed):
    """Word for word; an output that ends in `...` shows its beginning."""
    assert len(printed) >= 8
    for command, shown, real in printed:
        if shown.endswith("..."):
            assert real.startswith(shown.removesuffix("...").rstrip()), f"{command}\n{real}"
        else:
            assert real == shown, f"{command}\n{real}"


def test_every_command_of_the_program_is_in_the_readme():
    """A command that the README does not show is one that nobody finds."""
    from mmlab.cli.app import app, calibrations, imports

    names = [f"mmlab {c.name}" for c in app.registered_commands]
    names += [f"mmlab calibrate {c.name}" for c in calibrations.registered_commands]
    names += [f"mmlab import {c.name}" for c in imports.registered_commands]
    shown = {command for command, _ in console_blocks()}
    for name in names:
        assert any(command.startswith(name) for command in shown), f"{name} is not in the README"


def test_the_two_commands_come_first():
    """`make demo` and `make test` stand before any other command."""
    text = README.read_text()
    assert text.index("make demo") < text.index("make test") < text.index("$ mmlab")
