"""The README's commands: found, run in order in a fresh folder, and, as a program, written back with real output.

`python tests/reference/readme.py` rewrites the outputs in README.md.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

README = Path(__file__).resolve().parent.parent.parent / "README.md"
MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
UNSET = ("SYMBOL", "DAY", "RUN_ID", "DATA_ROOT", "OUT_ROOT", "VENUE", "WINDOW", "STREAMS")
FILE = re.compile(r"```python\n# (?P<name>\w+\.py)\n(?P<text>.*?)```", re.DOTALL)
BLOCK = re.compile(r"```console\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """(command, output) of every console block."""
    return [(m["command"], m["output"].rstrip()) for m in BLOCK.finditer(README.read_text())]


def run_all(folder: Path) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Run every command in the README's order, in `folder`, where its Python files lie."""
    for found in FILE.finditer(README.read_text()):
        (folder / found["name"]).write_text(found["text"])
    environment = {k: v for k, v in os.environ.items() if k not in UNSET}
    environment |= {"COLUMNS": "120", "NO_COLOR": "1"}
    for command, _ in blocks():
        words = shlex.split(command)
        assert words[0] in ("mmlab", "python"), command
        program = MMLAB if words[0] == "mmlab" else [sys.executable]
        yield (
            command,
            subprocess.run(
                [*program, *words[1:]],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            ),
        )


def printed(ran: subprocess.CompletedProcess[str]) -> str:
    """Standard output without trailing blanks."""
    return "\n".join(line.rstrip() for line in ran.stdout.splitlines()).rstrip()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from reference.candle_files import write_all
    from reference.recording import write_recording

    with tempfile.TemporaryDirectory() as name:
        write_recording(Path(name) / "recording.gz")
        write_all(Path(name))
        outputs = {}
        for made, result in run_all(Path(name)):
            assert result.returncode == 0, f"{made}\n{result.stderr}"
            outputs[made] = printed(result)
    text = BLOCK.sub(lambda m: f"```console\n$ {m['command']}\n{outputs[m['command']]}\n```", README.read_text())
    README.write_text(text)
