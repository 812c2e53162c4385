"""`mmlab backtest --sweep` and `mmlab compare` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
BASE = ("--symbol", "X", "--day", "20250101", "--quote-model", "fixed_spread", "--initial-inventory", "0.5")


def mmlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`."""
    clean = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "DAY", "DATA_ROOT", "OUT_ROOT", "RUN_ID"}}
    return subprocess.run(
        [*MMLAB, *words],
        cwd=folder,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six minutes of market, and a sweep of six runs with its page."""
    path = tmp_path_factory.mktemp("cli")
    made = mmlab(path, "synth", "--symbol", "X", "--hours", "0.1", "--seed", "3")
    assert made.returncode == 0, made.stderr
    words = ("--sweep", "half-spread-ticks=1:3:3", "--sweep", "entry-latency-ms=0,100", "--run-id", "s", "--report")
    ran = mmlab(path, "backtest", *BASE, *words, "--json")
    assert ran.returncode == 0, ran.stderr
    (path / "stdout.txt").write_text(ran.stdout)
    return path


def test_a_sweep_shows_its_runs_in_order_and_its_ends_as_json(folder):
    """The last line is the result; the table before it has every run."""
    shown = (folder / "stdout.txt").read_text()
    found = json.loads(shown.splitlines()[-1])
    assert "6 runs, highest pnl_total first" in shown
    assert found["runs"] == 6
    assert found["path"] == "out/sweep/symbol=X/day=20250101/run=s"
    high, low = found["highest"][0], found["lowest"][0]
    assert high["pnl_total"] > low["pnl_total"]
    assert {high["half_spread_ticks"], low["half_spread_ticks"]} <= {"1.0", "2.0", "3.0"}
    assert (folder / found["path"] / "report.html").exists()


def test_the_pick_is_called_what_it_is(folder):
    """Long sweeps show both ends; --sort-by chooses the metric."""
    ran = mmlab(folder, "backtest", *BASE, "--sweep", "half-spread-ticks=1:6:21", "--sort-by", "fills")
    assert ran.returncode == 0, ran.stderr
    assert "The best of 21 runs on one tape is an in-sample pick, which flatters" in ran.stdout
    assert "highest fills: 10 of 21 runs" in ran.stdout
    assert "lowest fills" in ran.stdout
    assert "sweep: 100%" in ran.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--sweep", "gama=1,2"), 2, "there is no parameter of that name"),
        (("--sweep", "gamma=1:2"), 2, "--sweep is 'gamma=1:2'"),
        (("--sweep", "maker-fee=0,5"), 2, "--sweep maker_fee=5.0: --maker-fee is 5.0"),
        (("--sweep", "gamma=1:2:1000", "--sweep", "seed=1:1000:1000"), 2, "1000 x 1000 = 1,000,000 runs"),
        (("--sweep", "gamma=1,2", "--sort-by", "profit"), 2, "--sort-by is 'profit'"),
        (("--sort-by", "fills"), 2, "--sort-by is given without --sweep"),
        (("--sweep", "fill-model=trade_cross,poisson"), 2, "--sweep fill_model=poisson: poisson fills need (A, k)"),
        (("--sweep", "gamma=1,2", "--day", "20250103"), 1, "no data for X on 20250103"),
    ],
)  # fmt: skip
def test_a_fault_of_a_sweep_is_told_with_a_remedy(folder, words, code, message):
    """Message, remedy, exit code, nothing written, no traceback."""
    before = sorted((folder / "out" / "sweep").rglob("*"))
    ran = mmlab(folder, "backtest", *BASE, *words)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) >= 2, "no remedy"
    assert sorted((folder / "out" / "sweep").rglob("*")) == before


def test_compare_shows_what_differs(folder):
    """Two settings, all metrics; alike runs are said to be alike."""
    for name, words in (("one", ()), ("two", ("--maker-fee", "0", "--half-spread-ticks", "4")), ("again", ())):
        assert mmlab(folder, "backtest", *BASE, "--run-id", name, *words).returncode == 0
    ran = mmlab(folder, "compare", "one", "two", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["spec"] == {"maker_fee": [0.001, 0.0], "quote.half_spread_ticks": [2.0, 4.0]}
    assert found["metrics"]["fees"]["second"] == 0
    assert (found["same_settings"], found["same_figures"], found["warnings"]) == (False, False, [])
    same = mmlab(folder, "compare", "one", "again")
    assert "the settings are the same" in same.stdout
    assert "the figures are the same" in same.stdout
    refused = mmlab(folder, "compare", "one", "s")
    assert refused.returncode == 2
    assert "run=s is a run of sweep" in refused.stderr
