"""The README's commands run, in its order, and print what it says they print."""

from __future__ import annotations

import re
import shlex

import pytest

from reference.candle_files import write_all
from reference.readme import README, blocks, printed, run_all
from reference.recording import write_recording


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Every command of the README, run in a fresh folder."""
    folder = tmp_path_factory.mktemp("readme")
    write_recording(folder / "recording.gz")
    write_all(folder)
    return list(run_all(folder))


def test_every_command_prints_what_the_readme_shows(ran):
    """Word for word: run ids are given, and nothing that is printed depends on the clock."""
    assert len(ran) >= 8
    for (command, shown), (_, result) in zip(blocks(), ran, strict=True):
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        assert printed(result) == shown, f"{command}: run `python tests/reference/readme.py`"


def test_every_command_of_the_program_is_in_the_readme():
    """A command that the README does not show is one that nobody finds."""
    from mmlab.cli.app import app

    names = [f"mmlab {c.name}" for c in app.registered_commands]
    for group in app.registered_groups:
        names += [f"mmlab {group.name} {c.name}" for c in group.typer_instance.registered_commands]
    shown = {command for command, _ in blocks()} | set(re.findall(r"^mmlab .*$", README.read_text(), re.MULTILINE))
    for name in names:
        assert any(command.startswith(name) for command in shown), f"{name} is not in the README"


def test_the_two_commands_come_first_and_every_link_leads_somewhere():
    """`make demo` and `make test` stand before any other command; pictures and pages exist."""
    text = README.read_text()
    assert text.index("make demo") < text.index("make test") < text.index("$ mmlab")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (README.parent / link).exists(), link


def test_every_other_line_that_calls_mmlab_has_flags_that_exist():
    """In the README and the docs: what cannot be run here (the real venue) can be parsed."""
    import typer

    from mmlab.cli.app import app

    root = typer.main.get_command(app)
    pages = [README, *(README.parent / "docs").glob("*.md")]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]
    lines = {line.partition("  #")[0] for block in blocks for line in re.findall(r"^mmlab .*$", block, re.MULTILINE)}
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)[1:]
        command = root
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
