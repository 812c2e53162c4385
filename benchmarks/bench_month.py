"""A month of calibration: days are read one by one, so that thirty need the memory of one or two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from benchmarks.market import SPEC
from benchmarks.table import markdown, write
from mmlab.flows.synth import synth

FIRST, DAYS, COUNTS = date(2025, 2, 1), 30, (1, 2, 10, 30)
WIDEST = ",".join(map(str, range(1, 201)))


def lake_with_month() -> Path:
    """A lake of thirty generated days, made once per machine start, in the temporary folder (some 8 GB)."""
    root = Path(tempfile.gettempdir()) / "mmlab-benchmarks-month"
    for i in range(DAYS):
        day = FIRST + timedelta(days=i)
        if not (root / "venue=synth" / "symbol=BENCH" / f"day={day:%Y%m%d}" / "manifest.json").exists():
            synth(replace(SPEC, day=day, seed=100 + i), root, replace=True)
    return root


def schedule(root: Path, days: int, out: Path) -> tuple[float, float, dict[str, object]]:
    """Seconds, peak MiB and the JSON result of `mmlab calibrate schedule` over so many days, in its own process."""
    last = FIRST + timedelta(days=days - 1)
    words = (
        "calibrate", "schedule", "--symbol", "BENCH", "--day", f"{FIRST:%Y%m%d}..{last:%Y%m%d}",
        "--data-root", str(root), "--out-root", str(out), "--deltas", WIDEST, "--max-delta-ticks", "200",
        "--fit-method", "nested_mle", "--run-id", f"days{days}", "--json",
    )  # fmt: skip
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", "from mmlab.cli.app import main; main()", *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    text = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, text
    return time.perf_counter() - began, usage.ru_maxrss / 1024, json.loads(text.splitlines()[-1])


def main() -> None:
    """One row for each number of days."""
    root = lake_with_month()
    rows = []
    with tempfile.TemporaryDirectory() as out:
        schedule(root, 1, Path(out) / "warm-up")
        for days in COUNTS:
            seconds, peak, result = schedule(root, days, Path(out))
            assert result["steps"] == 96 * days - 8, result  # the first two hours have no past
            rows.append((days, f"{2.99 * days:.1f} M", result["steps"], f"{seconds:.1f}", f"**{peak:.0f}**"))
    write("month", markdown(("days", "prints", "steps", "whole command, s", "peak memory, MiB"), rows))


if __name__ == "__main__":
    main()
