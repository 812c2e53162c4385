"""`mmlab sql` without a query: a prompt on a terminal, a script on standard input elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]


def read_until(terminal: int, text: str) -> str:
    """What the terminal shows, up to and with `text`."""
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode()
    return shown


def test_the_prompt_answers_queries_over_lines_and_goes_on_after_a_fault(tmp_path: Path):
    """A real terminal: two lines make one query, a wrong one is told, .quit leaves."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*MMLAB, "sql"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, close_fds=True
    )
    os.close(theirs)
    try:
        read_until(ours, "mmlab> ")
        os.write(ours, b"SELECT count(*) AS n\n")
        read_until(ours, "... ")
        os.write(ours, b"FROM trades;\n")
        assert "1 rows" in read_until(ours, "mmlab> ")
        os.write(ours, b"SELECT nope FROM trades;\n")
        shown = read_until(ours, "mmlab> ")
        assert "error:" in shown
        assert "Traceback" not in shown
        os.write(ours, b".quit\n")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        os.close(ours)


def test_a_query_on_standard_input_is_answered_in_the_format_asked_for(tmp_path: Path):
    """For scripts: a pipe in, CSV out."""
    ran = subprocess.run(
        [*MMLAB, "sql", "--format", "csv"],
        input="SELECT count(*) AS n FROM fills",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout == "n\n0\n"
