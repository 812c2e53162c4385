"""Calibration's kernels: compiled before the first run on a machine, which says so."""

from __future__ import annotations

from mmlab.core.native import INTERPRETED, code_of, is_kept
from mmlab.flows.run import Run

KERNELS = ("mmlab.calib.pass_kernels", "mmlab.calib.fit_kernels")
SAID = "kernels, compiled once on this machine"


def prepare(run: Run) -> None:
    """Compile what this machine has not kept."""
    missing = [module for module in KERNELS if not (INTERPRETED or is_kept(module))]
    if not missing:
        return
    with run.step("compile"):
        for done, module in enumerate(missing):
            run.progress(SAID, done, len(missing))
            code_of(module)
    run.progress(SAID, len(missing), len(missing))
