"""A run that is written in parts: joined at the end, gone on with after a kill, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from mmlab.core.errors import TableError, UsageError
from mmlab.core.schemas import FITS, METRICS, POINTS, WINDOWS
from mmlab.core.table import Table
from mmlab.store.runs import RunFolder, find_run, read_json, read_table

RUN = ("calibration", "schedule", "BTCUSDT", "20250101..20250104")
PLACE = "calibration/method=schedule/symbol=BTCUSDT/day=20250101..20250104"
ARRAYS = {
    "held.0": np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    "good": np.array([0.25, np.nan]),
    "waiting.taker": np.array([1, -1, 1], np.int8),
    "empty": np.empty((0, 2, 7), np.int64),
    "flag": np.array(True),
}


def folder(root: Path, run_id: str = "r1", resumable: bool = True) -> RunFolder:
    return RunFolder.create(root, *RUN, run_id, resumable=resumable)


def partial(root: Path, run_id: str = "r1") -> Path:
    return root / PLACE / f".partial-run={run_id}"


def days(table: Table, n: int, rows: int = 50) -> list[pl.DataFrame]:
    """`n` consecutive pieces of one table, in the order of its key; the last one has no rows."""
    whole = table.sample(rows * (n - 1), 1).sort(table.key)
    return [*(whole[i * rows : (i + 1) * rows] for i in range(n - 1)), whole.clear()]


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


# ---- parts


@pytest.mark.parametrize("table", [WINDOWS, FITS, POINTS], ids=lambda table: table.name)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_parts_become_one_table_in_their_order(tmp_path, table, n):
    """The rows of all parts, one after the other, as the table's contract wants them; the parts are gone."""
    pieces = days(table, n)
    made = folder(tmp_path)
    for piece in pieces:
        made.append(table, piece)
    assert [part.height for part in made.parts(table)] == [piece.height for piece in pieces]
    assert pl.concat(made.parts(table)).equals(pl.concat(pieces))
    made.join(table)
    path = made.commit({"spec": {}})
    got = read_table(path, table)
    assert got is not None
    assert got.equals(pl.concat(pieces))
    assert got.schema == table.schema
    assert read_json(path / "manifest.json")["rows"] == {table.name: got.height}
    assert files(tmp_path) == sorted(f"{PLACE}/run=r1/{name}" for name in ("manifest.json", f"{table.name}.parquet"))


def test_the_same_parts_are_the_same_bytes(tmp_path):
    """However long it takes, and wherever they lie."""
    made = []
    for place in (tmp_path / "a", tmp_path / "b"):
        run = folder(place)
        for piece in days(POINTS, 4):
            run.append(POINTS, piece)
        run.join(POINTS)
        made.append((run.commit({"spec": {}}) / "points.parquet").read_bytes())
    assert made[0] == made[1]


def test_a_joined_table_is_compressed_in_row_groups_of_its_parts(tmp_path):
    """No more than a part is held in memory, so none is merged with another."""
    run = folder(tmp_path)
    for piece in days(POINTS, 4, 1000):
        run.append(POINTS, piece)
    run.join(POINTS)
    metadata = pq.read_metadata(run.commit({"spec": {}}) / "points.parquet")
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert [n for n in groups if n] == [1000, 1000, 1000]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_part_that_breaks_its_contract_is_not_written(tmp_path):
    """The writer checks each part; those before it are as they were."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    with pytest.raises(TableError, match="missing column 'coverage'"):
        run.append(WINDOWS, WINDOWS.sample(3, 2).drop("coverage"))
    assert [part.height for part in run.parts(WINDOWS)] == [3]
    run.abort()


def test_parts_that_overlap_are_no_table(tmp_path):
    """The key is unique over all parts, as in a table that is written at once."""
    run = folder(tmp_path)
    for _ in range(2):
        run.append(WINDOWS, WINDOWS.sample(3, 1))
    with pytest.raises(TableError, match="key"):
        run.join(WINDOWS)


def test_a_table_may_be_written_beside_parts(tmp_path):
    """Some tables come at once, some day by day."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    run.write_table(METRICS, METRICS.sample(2, 1))
    run.write_json("x.json", [1])
    run.join(WINDOWS)
    path = run.commit({"spec": {}})
    assert read_json(path / "manifest.json")["rows"] == {"metrics": 2, "windows": 3}


# ---- the state to go on from


def saved(root: Path, run_id: str = "r1", parts: int = 2) -> list[pl.DataFrame]:
    """A run of which `parts` parts were saved, and which then stopped."""
    run = folder(root, run_id)
    pieces = days(WINDOWS, parts + 1)[:parts]
    for piece, points in zip(pieces, days(POINTS, parts + 1), strict=False):
        run.append(WINDOWS, piece)
        run.append(POINTS, points)
        run.save({"spec": {"deltas": [1, 2]}, "days": 1}, ARRAYS)
    run.save({"spec": {"deltas": [1, 2]}, "days": parts}, ARRAYS)
    run.abort()
    return pieces


def test_what_was_saved_is_found_again(tmp_path):
    """The note and every array, to its type and last bit; the parts are taken over."""
    pieces = saved(tmp_path)
    again = folder(tmp_path)
    found = again.saved()
    assert found is not None
    done, arrays = found
    assert (done["spec"], done["days"]) == ({"deltas": [1, 2]}, 2)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
    assert [part.height for part in again.parts(WINDOWS)] == [50, 50]
    again.append(WINDOWS, WINDOWS.empty())
    for table in (WINDOWS, POINTS):
        again.join(table)
    got = read_table(again.commit({"spec": {}}), WINDOWS)
    assert got is not None
    assert got.equals(pl.concat(pieces))


def test_without_a_state_there_is_nothing_to_go_on_from(tmp_path):
    """A new run, or one that was stopped before its first day."""
    run = folder(tmp_path)
    assert run.saved() is None
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    assert run.saved() is None
    run.abort()
    assert folder(tmp_path).saved() is None


def test_parts_that_came_after_the_last_save_are_written_again(tmp_path):
    """Nobody knows whether they are whole: the next attempt begins where the state was."""
    first, second, _ = days(WINDOWS, 3)
    run = folder(tmp_path)
    run.append(WINDOWS, first)
    run.save({"days": 1}, {})
    run.append(WINDOWS, second)
    run.abort()
    (partial(tmp_path) / "windows-00001.part").write_bytes(b"half a file")
    again = folder(tmp_path)
    assert again.saved() is not None
    again.append(WINDOWS, second.head(7))
    assert [part.height for part in again.parts(WINDOWS)] == [50, 7]
    again.join(WINDOWS)
    path = again.commit({"spec": {}})
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "windows.parquet"]


def test_each_save_replaces_the_one_before(tmp_path):
    """There is one state."""
    run = folder(tmp_path)
    for day in (1, 2, 3):
        run.append(WINDOWS, WINDOWS.sample(day, day))
        run.save({"days": day}, {"n": np.array(day)})
        assert len(list(partial(tmp_path).glob("state*"))) == 1
    run.abort()
    found = folder(tmp_path).saved()
    assert found is not None
    assert (found[0]["days"], int(found[1]["n"]), found[0]["parts"]) == (3, 3, {"windows": 3})


def test_a_kill_between_the_two_files_of_a_save_does_not_mix_two_states(tmp_path):
    """The note of the first day with the state of the second would add the second day twice."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(1, 1))
    run.save({"days": 1}, {"n": np.array(1)})
    run.append(WINDOWS, WINDOWS.sample(2, 2))
    bar = partial(tmp_path) / ".progress.json.tmp"
    bar.mkdir()  # the state can be written, the note for people cannot
    with pytest.raises(IsADirectoryError):
        run.save({"days": 2}, {"n": np.array(2)})
    bar.rmdir()
    run.abort()
    found = folder(tmp_path).saved()
    assert found is not None
    assert (found[0]["days"], int(found[1]["n"]), found[0]["parts"]) == (2, 2, {"windows": 2})


def test_a_kill_while_the_parts_are_joined_can_be_gone_on_with(tmp_path):
    """The days were saved: all their rows must still be there."""
    run = folder(tmp_path)
    for _ in range(2):
        run.append(WINDOWS, WINDOWS.empty())
        run.append(POINTS, POINTS.sample(2, 1))
    run.save({"days": 2}, {})
    run.join(WINDOWS)
    run.abort()  # what an error in the join of the next table does
    again = folder(tmp_path)
    assert again.saved() is not None
    assert len(again.parts(WINDOWS)) == 2


def test_a_commit_that_fails_can_be_gone_on_with(tmp_path):
    """The place was taken by another run meanwhile: days of work are not thrown away."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    run.save({"days": 1}, {})
    run.join(WINDOWS)
    (tmp_path / PLACE / "run=r1").mkdir()
    (tmp_path / PLACE / "run=r1/manifest.json").write_text("{}")
    with pytest.raises(OSError, match="not empty"):
        run.commit({"spec": {}})
    run.abort()
    assert list(tmp_path.rglob("windows*")), "all rows are gone"


def test_what_a_killed_attempt_left_behind_does_not_come_into_the_next_ones_folder(tmp_path):
    """It was killed before its first save; the next attempt begins anew and has fewer parts."""
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(list(partial(tmp_path).glob("windows-*.part"))) == 2
    run = folder(tmp_path)
    assert run.saved() is None
    run.append(WINDOWS, WINDOWS.sample(3, 3))
    run.join(WINDOWS)
    path = run.commit({"spec": {}})
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "windows.parquet"]


KILLED = f"""
import os, pathlib, signal, sys
from mmlab.core.schemas import WINDOWS
from mmlab.store.runs import RunFolder
run = RunFolder.create(pathlib.Path(sys.argv[1]), *{RUN!r}, "r1", resumable=True)
for seed in (1, 2, 3):
    run.append(WINDOWS, WINDOWS.sample(3, seed))
os.kill(os.getpid(), signal.SIGKILL)
"""

# ---- which runs can be resumed


def test_runs_that_began_and_saved_can_be_resumed_the_latest_first(tmp_path):
    """The one that saved last, whatever its name; one that saved nothing, or has ended, is not among them."""
    names = ["20250102T090000Z", "z", "a"]
    for n, name in enumerate(names):
        saved(tmp_path, name)
        os.utime(partial(tmp_path, name) / "progress.json", (1_700_000_000 + n,) * 2)
    stopped = folder(tmp_path, "stopped")
    ended = folder(tmp_path, "ended")
    ended.commit({"spec": {}})
    assert RunFolder.begun(tmp_path, *RUN) == ["a", "z", "20250102T090000Z"]
    stopped.abort()


def test_runs_of_other_days_symbols_and_methods_are_not_meant(tmp_path):
    """Only what lies in the same folder."""
    saved(tmp_path)
    kind, method, symbol, day = RUN
    assert RunFolder.begun(tmp_path, kind, "ladder", symbol, day) == []
    assert RunFolder.begun(tmp_path, kind, method, "ETHUSDT", day) == []
    assert RunFolder.begun(tmp_path, kind, method, symbol, "20250101") == []
    assert RunFolder.begun(tmp_path / "nowhere", *RUN) == []
    assert RunFolder.begun(tmp_path, *RUN) == ["r1"]


def test_a_run_that_has_not_ended_is_not_found_as_a_run(tmp_path):
    """Reports and SQL see whole runs only."""
    saved(tmp_path)
    with pytest.raises(Exception, match="no run 'r1'"):
        find_run(tmp_path, "r1")
    assert not list(tmp_path.rglob("run=*"))


# ---- one writer


def test_a_run_has_one_writer_until_it_lets_go(tmp_path):
    """The second is told whose it is; after `abort` or `commit` it is free, or taken."""
    first = folder(tmp_path)
    first.append(WINDOWS, WINDOWS.sample(3, 1))
    first.save({"days": 1}, {})
    before = files(tmp_path)
    with pytest.raises(UsageError, match=f"run r1 is being written already, by process {os.getpid()}") as caught:
        folder(tmp_path)
    assert str(partial(tmp_path) / "lock") in caught.value.remedy
    assert files(tmp_path) == before
    first.abort()
    second = folder(tmp_path)
    second.commit({"spec": {}})
    with pytest.raises(UsageError, match="run r1 exists already"):
        folder(tmp_path)


HOLDER = f"""
import pathlib, sys, time
from mmlab.core.schemas import WINDOWS
from mmlab.store.runs import RunFolder
run = RunFolder.create(pathlib.Path(sys.argv[1]), *{RUN!r}, "r1", resumable=True)
run.append(WINDOWS, WINDOWS.sample(3, 1))
run.save({{"days": 1}}, {{}})
time.sleep(60)
"""


def test_a_dead_processes_lock_does_not_count(tmp_path):
    """While it lives, nobody else may write; killed, what it saved is taken over."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)])
    ends = time.monotonic() + 60
    while not (partial(tmp_path) / "progress.json").exists():
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.01)
    with pytest.raises(UsageError, match=f"run r1 is being written already, by process {process.pid}"):
        folder(tmp_path)
    process.kill()
    process.wait()
    again = folder(tmp_path)
    found = again.saved()
    assert found is not None
    assert found[0]["days"] == 1
    assert (partial(tmp_path) / "lock").read_text() == f"{os.getpid()}\n"
    again.abort()


# ---- nothing left


def test_an_abort_without_a_state_leaves_nothing(tmp_path):
    """Neither parts nor a lock; the folder of the day may stay, empty."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    run.abort()
    assert files(tmp_path) == []
    folder(tmp_path).abort()
    assert not partial(tmp_path).exists()


def test_an_abort_with_a_state_keeps_it(tmp_path):
    """The parts, one state and the note."""
    saved(tmp_path)
    names = {p.name for p in partial(tmp_path).iterdir()}
    (state,) = (name for name in names if name.startswith("state"))
    assert names == {
        "windows-00000.part", "windows-00001.part", "points-00000.part", "points-00001.part", "progress.json", "lock",
        state,
    }  # fmt: skip


def test_a_commit_leaves_no_state_and_no_lock(tmp_path):
    """Also after a state was saved, and after `abort`, which every flow calls at its end."""
    run = folder(tmp_path)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    run.save({"days": 1}, ARRAYS)
    run.join(WINDOWS)
    path = run.commit({"spec": {}})
    run.abort()
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "windows.parquet"]
    assert [p.name for p in path.parent.iterdir()] == ["run=r1"]


def test_a_run_that_cannot_be_resumed_leaves_nothing_even_if_it_saved(tmp_path):
    """Its staging folder is named by its process: nobody would ever find it."""
    run = folder(tmp_path, resumable=False)
    run.append(WINDOWS, WINDOWS.sample(3, 1))
    run.save({"days": 1}, {})
    run.abort()
    assert files(tmp_path) == []


def test_the_note_is_json_as_it_was_given(tmp_path):
    """What JSON turns into something else comes back as that: a caller compares with the same in mind."""
    run = folder(tmp_path)
    run.save({"spec": {"deltas": (1, 2, 3)}, "days": 1}, {})
    found = run.saved()
    assert found is not None
    assert found[0]["spec"] == {"deltas": [1, 2, 3]}
    assert json.loads((partial(tmp_path) / "progress.json").read_text())["parts"] == {}
    run.abort()
