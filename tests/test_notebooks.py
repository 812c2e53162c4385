"""The notebooks run from a fresh folder, on a market made by the program, and say what is true of it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import nbformat
import polars as pl
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from mmlab import calib
from reference.readme import MMLAB, UNSET

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOK = FOLDER / "calibration_qa.ipynb"
PARAMETERS = ("SYMBOL", "DAY", "RUN", "MMLAB_DATA_ROOT", "MMLAB_OUT_ROOT")
COMMANDS = [
    "mmlab synth --symbol TESTUSDT --day 20250101 --hours 2 --seed 7",
    "mmlab calibrate schedule --symbol TESTUSDT --day 20250101 --train-window-min 30 --step-min 10 "
    "--fit-method nested_mle",
]
RUNS = "out/calibration/method=schedule/symbol=TESTUSDT/day=20250101"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder; the kernel `python3` is the interpreter that runs the tests, whatever the user has set up."""
    write_kernel_spec(tmp_path / "jupyter/kernels/python3")
    for name, value in (("PATH", ""), ("DATA_DIR", "data"), ("CONFIG_DIR", "config"), ("RUNTIME_DIR", "runtime")):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / "jupyter" / value))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name in PARAMETERS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def execute(folder: Path, cells: int | None = None) -> nbformat.NotebookNode:
    """The notebook, run in `folder`, all of it or its first cells."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = notebook.cells[:cells]
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources=where).execute()
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that the cells printed."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return "".join(out.text for out in outputs if out.output_type == "stream" and out.name == "stdout")


def test_the_notebook_runs_and_says_what_is_true_of_the_run(folder):
    """On a market of two hours: its steps and its verdict; its own checks against the tape have passed."""
    environment = {k: v for k, v in os.environ.items() if k not in UNSET}
    for command in COMMANDS:
        words = [*MMLAB, *shlex.split(command)[1:]]
        subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=True, timeout=120)
    (run,) = (folder / RUNS).glob("run=*")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = execute(folder)
    lines = printed(done).splitlines()

    tables = [
        pl.read_parquet(run / f"{name}.parquet", hive_partitioning=False) for name in ("points", "fits", "windows")
    ]
    prints = pl.scan_parquet(folder / "data/**/trades/*.parquet").select(pl.len()).collect().item()
    frames = pl.scan_parquet(folder / "data/**/depth/*.parquet").select(pl.len()).collect().item()
    assert f"run {run.name.removeprefix('run=')} of TESTUSDT on 20250101" in lines
    assert tables[2].height == 9
    assert "9 steps: 9 fitted, 0 carried forward, 0 before the first fit" in lines
    assert calib.validate(*tables).verdict in lines
    assert "trade_rate agrees with the run's in 9 of 9 steps" in lines
    assert f"{frames:,} book frames, {prints:,} prints, 0 holes" in lines
    assert "the schedule in memory equals the run's in 9 of 9 steps" in lines

    shown = [out.get("data", {}) for cell in done.cells for out in cell.get("outputs", ())]
    assert sum("image/png" in data for data in shown) == 7
    assert "TESTUSDT" in next(data["text/html"] for data in shown if "text/html" in data)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, "it only reads"


def test_without_a_run_it_names_the_two_commands_that_make_one(folder):
    """The same two that the test above runs and notebooks/README.md shows."""
    with pytest.raises(CellExecutionError) as stopped:
        execute(folder)
    assert stopped.value.ename == "SystemExit"
    assert "There is no schedule of TESTUSDT on 20250101 under out yet" in stopped.value.evalue
    assert re.findall(r"^mmlab .*$", stopped.value.evalue, re.MULTILINE) == COMMANDS
    assert re.findall(r"^mmlab .*$", (FOLDER / "README.md").read_text(), re.MULTILINE) == COMMANDS


def test_the_latest_run_is_taken_unless_another_is_named(folder, monkeypatch):
    """By the time at which it was made; the folder above is looked in too; a name that no run has is told."""
    for age, name in enumerate(("b", "c", "a")):
        manifest = folder / "lake" / RUNS.removeprefix("out/") / f"run={name}/manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        os.utime(manifest, (10**9 + age, 10**9 + age))
    monkeypatch.setenv("MMLAB_OUT_ROOT", "lake")
    (folder / "notebooks").mkdir()
    assert printed(execute(folder / "notebooks", cells=2)) == "run a of TESTUSDT on 20250101\n"
    monkeypatch.setenv("RUN", "d")
    with pytest.raises(CellExecutionError, match="There is no run d of TESTUSDT on 20250101; there are b, c, a"):
        execute(folder, cells=2)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    """And as nbformat writes it, each cell with a name of its own, so that a change shows as what it is."""
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert nbformat.writes(notebook) + "\n" == text
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z0-9-]+", cell.id)
        assert not cell.metadata
        assert not cell.get("outputs"), f"{path.name}: clear the outputs of {cell.id}"
        assert cell.get("execution_count") is None
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
