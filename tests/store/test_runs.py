"""A run's folder is whole or absent, found by its name, and keeps no number that JSON cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mmlab.core.errors import LakeError, TableError, UsageError
from mmlab.core.schemas import METRICS, POINTS
from mmlab.store.runs import RunFolder, default_run_id, find_run, free_run_id, open_log, read_json, read_table


def made(root, run_id="r1", kind="backtest"):
    folder = RunFolder.create(root, kind, None, "BTCUSDT", "20250101", run_id)
    folder.write_table(METRICS, METRICS.sample(3, 1))
    return folder.commit({"spec": {"b": 1, "a": 2.5}})


def test_a_run_lies_where_the_design_says(tmp_path):
    """Hive keys all the way, and a method where there is one."""
    assert made(tmp_path).relative_to(tmp_path).as_posix() == "backtest/symbol=BTCUSDT/day=20250101/run=r1"
    folder = RunFolder.create(tmp_path, "calibration", "ladder", "BTCUSDT", "20250101", "r1")
    path = folder.commit({})
    assert path.relative_to(tmp_path).as_posix() == "calibration/method=ladder/symbol=BTCUSDT/day=20250101/run=r1"


def test_a_manifest_has_rows_and_versions(tmp_path):
    """What was written, by what."""
    manifest = json.loads((made(tmp_path) / "manifest.json").read_text())
    assert manifest["rows"] == {"metrics": 3}
    assert manifest["spec"] == {"a": 2.5, "b": 1}
    assert {"python", "polars", "duckdb", "mmlab"} <= set(manifest["versions"])


def test_nothing_is_overwritten(tmp_path):
    """A run id is used once."""
    made(tmp_path)
    with pytest.raises(UsageError, match="run r1 exists already"):
        made(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x"])
def test_a_run_id_that_is_no_folder_name_is_refused(tmp_path, name):
    """It becomes a part of a path."""
    with pytest.raises(UsageError, match="--run-id is"):
        made(tmp_path, name)


def test_an_aborted_run_leaves_nothing(tmp_path):
    """Half a run is no run."""
    folder = RunFolder.create(tmp_path, "backtest", None, "BTCUSDT", "20250101", "r1")
    folder.write_table(METRICS, METRICS.sample(3, 1))
    folder.abort()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    made(tmp_path)


def test_a_table_that_breaks_its_contract_is_not_written(tmp_path):
    """The writer checks what it writes."""
    folder = RunFolder.create(tmp_path, "backtest", None, "BTCUSDT", "20250101", "r1")
    with pytest.raises(TableError, match="missing column 'value'"):
        folder.write_table(METRICS, METRICS.sample(3, 1).drop("value"))
    folder.abort()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")], {"x": {"y": float("-inf")}}])
def test_json_has_no_nan(tmp_path, value):
    """A null in place of a fault would hide it."""
    folder = RunFolder.create(tmp_path, "backtest", None, "BTCUSDT", "20250101", "r1")
    with pytest.raises(ValueError, match=r"nan|inf"):
        folder.write_json("x.json", value)
    folder.abort()


def test_a_run_is_found_by_path_or_by_name(tmp_path):
    """And what there is instead is named."""
    path = made(tmp_path)
    assert find_run(tmp_path, "r1") == path
    assert find_run(tmp_path, str(path)) == path
    made(tmp_path, "r1", "walkforward")
    with pytest.raises(UsageError, match="2 runs are named r1"):
        find_run(tmp_path, "r1")
    with pytest.raises(LakeError, match="no run 'r9'") as caught:
        find_run(tmp_path, "r9")
    assert "r1" in caught.value.remedy


def test_tables_are_read_back_checked(tmp_path):
    """A table that the run has not is None; a torn one is named."""
    path = made(tmp_path)
    assert read_table(path, METRICS).equals(METRICS.sample(3, 1))
    assert read_table(path, POINTS) is None
    (path / "metrics.parquet").write_bytes(b"PAR1")
    with pytest.raises(LakeError, match=r"metrics\.parquet is torn"):
        read_table(path, METRICS)


def test_json_that_is_absent_or_torn_is_named(tmp_path):
    """Both have a message with the path."""
    with pytest.raises(LakeError, match="is missing"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(LakeError, match="is not JSON"):
        read_json(tmp_path / "x.json")


def test_a_run_logs_to_its_own_file_at_its_own_level(tmp_path):
    """In UTC, with the level that was asked for."""
    log = open_log(tmp_path, "calibration/ladder", "BTCUSDT", "20250101", "r1", "info")
    log.debug("hidden")
    log.info("shown")
    for handler in log.handlers:
        handler.close()
    text = (tmp_path / "calibration/ladder/BTCUSDT/20250101/r1/run.log").read_text()
    assert text.endswith("Z INFO shown\n")
    assert "hidden" not in text
    with pytest.raises(UsageError, match="LOG_LEVEL is 'LOUD'"):
        open_log(tmp_path, "backtest", "BTCUSDT", "20250101", "r1", "LOUD")


def test_a_run_is_named_by_the_utc_time():
    """Sorts by time, and is a folder name everywhere."""
    assert default_run_id(datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)) == "20250102T030405Z"


@pytest.mark.parametrize("resumable", [False, True])
def test_runs_of_one_second_are_numbered(tmp_path, resumable):
    """Commands are done in less: the second of them has a name of its own, and one that was begun keeps its name."""
    place, now = (tmp_path, "calibration", "schedule", "BTCUSDT", "20250101"), datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = []
    for _ in range(3):
        found.append(free_run_id(*place, now))
        folder = RunFolder.create(*place, found[-1], resumable)
        folder.write_json("a.json", {})
        if not (resumable and len(found) == 2):  # which is killed
            folder.commit({})
    assert found == ["20250102T030405Z", "20250102T030405Z-2", "20250102T030405Z-3"]
    assert free_run_id(*place[:3], "ETHUSDT", "20250101", now) == "20250102T030405Z"


def test_the_versions_are_those_of_the_installation(tmp_path):
    """Of packages that are loaded, and of those that are not."""
    from importlib.metadata import version

    versions = read_json(made(tmp_path) / "manifest.json")["versions"]
    assert {name: versions[name] for name in versions if name != "python"} == {
        name: version(name) for name in ("mmlab", "polars", "duckdb", "numpy", "numba", "pyarrow")
    }
