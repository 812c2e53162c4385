"""Compile every kernel once, while the linters run, instead of once in each worker: `python tests/warm.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
DAY = ["--symbol", "WARM", "--day", "20250101"]
GRID = """
import numpy as np
from mmlab.grid.engine import simulate
from mmlab.grid.layout import C_WIDTH, X_WIDTH
from mmlab.grid.params import GridParams, VenueParams
simulate(np.ones((99, X_WIDTH)), np.ones((99, C_WIDTH)), GridParams(), VenueParams())
"""
COMMANDS = (
    ["synth", *DAY, "--hours", "0.3"],
    ["walkforward", *DAY, "--train-window-min", "5", "--step-min", "5", "--min-exposure-s", "1"],
    ["backtest", *DAY, "--quote-model", "fixed_spread", "--sweep", "half-spread-ticks=1,2"],
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for command in ([sys.executable, "-c", GRID], *([*MMLAB, *command] for command in COMMANDS)):
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=os.environ)
