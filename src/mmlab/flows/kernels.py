"""Calibration's kernels: compiled before the first run on a machine, which says so."""

from __future__ import annotations

import subprocess
import sys

from mmlab.core.native import INTERPRETED, code_of, is_kept
from mmlab.flows.run import Run

KERNELS = ("mmlab.calib.fit_kernels", "mmlab.calib.pass_kernels")  # the slowest first
SAID = "kernels, compiled once on this machine"
COMPILE = "import sys; from mmlab.core.native import code_of; code_of(sys.argv[1])"


def prepare(run: Run) -> None:
    """Compile what this machine has not kept, each module in a process of its own but for the first."""
    missing = [module for module in KERNELS if not (INTERPRETED or is_kept(module))]
    if not missing:
        return
    with run.step("compile"):
        others = [subprocess.Popen([sys.executable, "-c", COMPILE, module]) for module in missing[1:]]
        run.progress(SAID, 0, len(missing))
        code_of(missing[0])
        for process in others:  # what one of them could not keep is compiled when it is called
            process.wait()
    run.progress(SAID, len(missing), len(missing))
