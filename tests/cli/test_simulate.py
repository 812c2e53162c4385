"""What `mmlab backtest` and `mmlab walkforward` print of the profit, and what `--csv` leaves in the run's folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

from reference.readme import MMLAB, UNSET

BASE = ("--symbol", "X", "--day", "20250101")
TABLES = ("attribution", "fills", "markouts", "metrics", "orders", "state")
FIXED = ("backtest", *BASE, "--quote-model", "fixed_spread", "--initial-inventory", "0.2")
FORWARD = ("walkforward", *BASE, "--train-window-min", "10", "--step-min", "5", "--initial-inventory", "0.2")


def mmlab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`."""
    environment = {k: v for k, v in os.environ.items() if k not in UNSET} | {"COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [*MMLAB, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulate")
    made = mmlab(path, "synth", "--symbol", "X", "--hours", "0.5", "--seed", "3")
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="module")
def ran(folder):
    """Standard output of each command, run with --csv."""
    out = {}
    for words in (FIXED, FORWARD):
        done = mmlab(folder, *words, "--csv", "--run-id", "r")
        assert done.returncode == 0, done.stderr
        out[words[0]] = done.stdout
    return out


def run_folder(folder: Path, kind: str, run_id: str = "r") -> Path:
    return folder / f"out/{kind}/symbol=X/day=20250101/run={run_id}"


@pytest.mark.parametrize("kind", ["backtest", "walkforward"])
def test_csv_has_the_rows_of_the_parquet_tables(folder, ran, kind):
    """Under the documents' names, listed in the manifest, nothing lost."""
    place = run_folder(folder, kind)
    names = [f"{table}_X.csv" for table in TABLES]
    assert sorted(path.name for path in place.glob("*.csv")) == names
    assert json.loads((place / "manifest.json").read_text())["files"] == names
    for table in TABLES:
        frame = pl.read_parquet(place / f"{table}.parquet", hive_partitioning=False)
        again = pl.read_csv(place / f"{table}_X.csv", schema_overrides=frame.schema, empty_string_is_null=False)
        assert frame.height > 0
        assert again.select(frame.columns).equals(frame)
        if "recv_ns" in frame:
            assert again["recv_ms"].equals(frame["recv_ns"] // 10**6, check_names=False)


def test_without_the_flag_there_is_no_csv_and_with_it_the_bytes_are_the_same(folder, ran):
    """A flag of the output: the tables do not depend on it."""
    for run_id, words in (("plain", FIXED), ("again", (*FIXED, "--csv"))):
        assert mmlab(folder, *words, "--run-id", run_id).returncode == 0
    first, plain, again = (run_folder(folder, "backtest", name) for name in ("r", "plain", "again"))
    assert not list(plain.glob("*.csv"))
    assert "files" not in json.loads((plain / "manifest.json").read_text())
    for table in TABLES:
        assert (plain / f"{table}.parquet").read_bytes() == (first / f"{table}.parquet").read_bytes()
        assert (again / f"{table}_X.csv").read_bytes() == (first / f"{table}_X.csv").read_bytes()


@pytest.mark.parametrize("kind", ["backtest", "walkforward"])
def test_the_profit_is_told_in_parts_that_add_up(folder, ran, kind):
    """What is printed is the table, and its sum is the profit to the cent."""
    shown = ran[kind].partition("where it came from, fills followed for 5 s")[2]
    printed = {name: float(value) for name, value in re.findall(r"│ (\w+) +│ (\S+) +│ quote", shown)}
    place = run_folder(folder, kind)
    table = pl.read_parquet(place / "attribution.parquet", hive_partitioning=False)
    earned = pl.read_parquet(place / "metrics.parquet", hive_partitioning=False).filter(metric="pnl_total")["value"][0]
    rows = table.filter(horizon_s=5, side="both").select("component", "value").rows()
    assert printed == pytest.approx({**dict(rows), "pnl_total": earned}, rel=1e-4)
    assert dict(rows).keys() == {"spread_earned", "adverse_selection", "inventory", "fees"}
    for (_,), part in table.filter(side="both").group_by("horizon_s"):
        assert part["value"].sum() == pytest.approx(earned, abs=1e-9)
        assert part["fills"].max() > 50


def test_the_tables_are_views_of_sql(folder, ran):
    """attribution and markouts stand beside metrics, with times as in fills."""
    query = (
        "SELECT kind, count(*) FROM markouts WHERE run = 'r' AND recv_ms = recv_ns // 1000000 "
        "AND recv_time = make_timestamp_ns(recv_ns) GROUP BY ALL ORDER BY ALL"
    )
    asked = mmlab(folder, "sql", query, "--format", "csv")
    assert asked.returncode == 0, asked.stderr
    n = {
        kind: pl.read_parquet(run_folder(folder, kind) / "fills.parquet", hive_partitioning=False).height
        for kind in ("backtest", "walkforward")
    }
    counted = dict(line.split(",") for line in asked.stdout.strip().splitlines()[1:])
    assert {kind: int(count) for kind, count in counted.items()} == n
    asked = mmlab(folder, "sql", "SELECT count(DISTINCT horizon_s) AS n FROM attribution", "--format", "csv")
    assert asked.stdout.split() == ["n", "4"]


def test_csv_of_a_sweep_is_refused(folder):
    """A sweep has one CSV of its own, and says so."""
    ran = mmlab(folder, *FIXED, "--csv", "--sweep", "half_spread_ticks=1,2")
    assert ran.returncode == 2
    assert "--csv is for one run" in ran.stderr
    assert "sweep.csv" in ran.stderr
