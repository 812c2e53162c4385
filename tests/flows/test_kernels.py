"""A calibration that has to compile its kernels says so, before it reads; the next one has nothing to say."""

from __future__ import annotations

import importlib
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.spec import FitSpec, ProbeSpec
from mmlab.core import native, schemas
from mmlab.core.spans import Days
from mmlab.flows import kernels
from mmlab.flows.calibrate import CalibrateSpec, calibrate_ladder
from mmlab.flows.run import Job
from mmlab.store.lake import Lake
from mmlab.store.runs import read_json
from mmlab.tape.synth import chunks
from mmlab.tape.synth_spec import SynthSpec

TINY = """
from __future__ import annotations

from mmlab.core.object_code import entry

@entry
def negative(n: int) -> int:
    return -n
"""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A lake with two minutes of a market."""
    spec = SynthSpec(symbol="X", day=date(2025, 1, 1), hours=1 / 30, seed=1)
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(spec), strict=True))
    with Lake(tmp_path / "data").writer(spec.instrument, levels=spec.levels, replace=True, created_by={}) as writer:
        writer.append(schemas.depth(spec.levels), depth)
        writer.append(schemas.TRADES, trades)
        writer.commit()
    return Job("X", Days.parse("20250101"), data_root=tmp_path / "data", out_root=tmp_path / "out")


def test_compiling_is_said_and_timed_and_happens_once(job, tmp_path, monkeypatch):
    """By two small modules of kernels in the place of calibration's own."""
    for module in kernels.KERNELS:  # from where they are kept, for the calibrations below
        native.code_of(module)
    names = ("tiny_kernels", "other_kernels")
    for name in names:
        (tmp_path / f"{name}.py").write_text(TINY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "KERNELS", names)
    said: list[tuple[str, int, int]] = []
    spec = CalibrateSpec(ProbeSpec((1, 2, 3)), FitSpec())
    timings = []
    for _ in range(2):
        importlib.invalidate_caches()
        made = calibrate_ladder(job, spec, lambda *done: said.append(done))
        timings.append(read_json(made.path / "manifest.json")["timings_s"])
    of_compiling = [done for done in said if done[0] == kernels.SAID]
    assert of_compiling == [(kernels.SAID, 0, 2), (kernels.SAID, 2, 2)]
    assert said[:2] == of_compiling
    assert ["compile" in timing for timing in timings] == [True, False]
    kept = sorted(path.name.split(".")[0] for path in (tmp_path / "cache").glob("*.kernels"))
    assert kept == sorted(names)
    assert [native.native(name, "negative")(7) for name in names] == [-7, -7]
