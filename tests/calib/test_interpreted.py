"""Calibration gives, to the last bit, what its kernels' own source gives when Python runs it line by line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import numpy as np
from mmlab.calib.run import Tape, ladder, rolling
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from reference import calib as slow

drawn = slow.synthetic(11)
tape = Tape(drawn.depth, drawn.trades, drawn.gaps, drawn.instrument)
np.seterr(all="ignore")  # compiled code says nothing of what is not identified
for count, cycle, method in (
    ("first_hit", False, "nested_mle"), ("sweeps", False, "poisson_mle"), ("all_hits", True, "log_linear"),
):
    spec, fit = ProbeSpec((1, 2, 4, 7), 400, 1.0, count, cycle=cycle), FitSpec(method, 0.001)
    whole, steps = ladder(tape, spec, fit), rolling(tape, spec, fit, ScheduleSpec(0.05, 0.02))
    tables = (whole.points, whole.fits, whole.curves, steps.windows, steps.fits, steps.metrics, steps.points)
    for number, table in enumerate(tables):
        assert table.height
        table.write_ipc(f"{sys.argv[1]}/{count}.{number}.arrow")
"""


def tables(folder: Path, **env: str) -> dict[str, bytes]:
    """The bytes of every table."""
    folder.mkdir()
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], env={**os.environ, "PYTHONPATH": path, **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_compiled_kernels_do_what_their_source_says(tmp_path):
    """Counts, fits, errors and metrics of every rule and estimator; NUMBA_DISABLE_JIT is how numba's users look in."""
    compiled = tables(tmp_path / "compiled")
    interpreted = tables(tmp_path / "interpreted", NUMBA_DISABLE_JIT="1")
    assert len(compiled) == 21
    assert [name for name in compiled if compiled[name] != interpreted[name]] == []
