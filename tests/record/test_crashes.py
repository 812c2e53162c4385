"""Killed, cut off, out of disk: real processes, real signals, and the same oracle."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import polars as pl
import pytest
from msgspec import structs

from mmlab.core.errors import UsageError
from mmlab.core.record import Kind, Record, mark
from mmlab.core.spans import NS_PER_S
from mmlab.flows.compact import compact, journal_root, recover
from mmlab.flows.record_start import Before, lock_symbols, recorded_before, resume_details
from mmlab.serve.faults import Fault
from mmlab.serve.market import SynthSpec
from mmlab.store import journal_file
from mmlab.store.journal_file import SegmentReader, repack, seal_open
from mmlab.store.lake import Lake
from mmlab.store.manifest import read_manifest, write_manifest
from reference.child import stand, start, start_compact, wait_for
from reference.loopback import SPEC, SYMBOL, check, check_lake, market, play, read, record, spec_for

KILLS = 100
LOADED = SynthSpec(updates_per_s=150, prints_per_s=150, levels=30)


def parts(root: Path) -> dict[str, str]:
    """Every finished part under a lake, with its checksum."""
    found = root.glob("venue=*/symbol=*/day=*/*/part-*.parquet")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_01_a_hundred_kills_at_random_moments_lose_nothing_that_is_not_declared(tmp_path):
    """Under load, at any moment: start, sync, recovery, compaction. Sealed files are never touched again."""
    rng = random.Random(11)
    standing = stand(lambda: market(LOADED, events=10**9))
    spec = spec_for(standing.venue, tmp_path, flush_ms=50, segment_min=0.02)
    kills: list[int] = []
    sealed: dict[str, str] = {}
    for n in range(KILLS):
        child = start(spec)
        time.sleep(rng.uniform(0.05, 1.0) + (2.5 if n % 20 == 19 else 0))
        kills.append(time.time_ns())
        child.kill()
        child.join()
        if n % 10 == 9:
            now = parts(tmp_path)
            assert sealed.items() <= now.items(), "a sealed file was touched"
            sealed = now
    last = start(spec)
    time.sleep(2.5)
    last.terminate()
    last.join(20)
    assert last.exitcode == 0
    standing.stop()
    assert sealed.items() <= parts(tmp_path).items()
    lake = Lake(tmp_path)
    truth = until_the_end(standing.venue.truth.lines, lake)
    check_lake(truth, lake)
    assert not list(journal_root(tmp_path, "binance-spot").glob("*/*")), "a journal was left behind"
    late = lost_too_early(truth, lake, kills, 50)
    assert late == [], f"{len(late)} trades received long before a kill were lost with it"


def until_the_end(truth: list[dict[str, object]], lake: Lake) -> list[dict[str, object]]:
    """The truth without what happened after the last recorder had closed its connection."""
    last = read(lake, "events").filter(pl.col("kind") == "window_close")["recv_ns"].max()
    return [line for line in truth if int(str(line.get("at_ns", 0))) < last]


def lost_too_early(truth: list[dict[str, object]], lake: Lake, kills: list[int], flush_ms: int) -> list[int]:
    """Trades sent to a recorder that lived on for longer than it promises to lose, and that are not there live."""
    live = set(read(lake, "trades").filter(pl.col("source") == "ws")["trade_id"].to_list())
    connects = [line["at_ns"] for line in truth if line["kind"] == "connect"]
    late = []
    for line in truth:
        if line["kind"] != "trade" or not line["sent"] or line["last"] in live:
            continue
        killed = max((k for k in kills if k <= line["at_ns"]), default=0)
        next_kill = min((k for k in kills if k > line["at_ns"]), default=1 << 62)
        alive = any(killed < at <= line["at_ns"] for at in connects)  # else it was sent to a dead socket
        if alive and next_kill - line["at_ns"] > (flush_ms + 1500) * 1_000_000:
            late.append(line["last"])
    return late


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A sealed segment of a loaded run, and the day that it makes."""
    root = tmp_path_factory.mktemp("kept")
    played = asyncio.run(play(market(faults=[Fault("drop", event=150, stream="depth")]), root, keep_raw=True))
    check(played)
    (path,) = journal_root(root, "binance-spot").glob("*/*.mmj")
    return path, root


def test_a_run_that_was_killed_before_its_first_message_is_not_where_recording_ended(kept, tmp_path):
    """It may have kept no more than its start: the next run goes on from the one before, and declares all between."""
    root = Path(shutil.copytree(kept[1], tmp_path / "lake"))
    [ref] = Lake(root).days(symbol=SYMBOL)
    manifest = read_manifest(ref.path)
    ended = max(manifest.segments.values(), key=lambda entry: entry.last_ns)
    assert ended.frames
    assert ended.last_ids.keys() >= {"depth", "trade"}
    spec, at, now = replace(SPEC, data_root=root), ended.last_ns + 5 * NS_PER_S, ended.last_ns + 10 * NS_PER_S
    killed = structs.replace(
        ended, records=2, frames=0, first_ns=at, last_ns=at, why="crash", rows={"events": 2}, last_ids={}
    )
    write_manifest(ref.path, structs.replace(manifest, segments={**manifest.segments, "9999999999999/00001": killed}))
    assert recorded_before(spec, SYMBOL, now) == Before(ended.last_ns, ended.last_ids)
    [details] = resume_details(spec, now, 0)
    assert (details["from_ns"], details["trade"]) == (ended.last_ns, ended.last_ids["trade"])


def placed(kept: tuple[Path, Path], root: Path) -> Path:
    """The kept segment as if nobody had compacted it."""
    path, _ = kept
    folder = journal_root(root, "binance-spot") / path.parent.name
    folder.mkdir(parents=True)
    return Path(shutil.copy(path, folder))


def content(root: Path) -> dict[str, str]:
    """Every file of the lake's days, with its checksum."""
    files = [p for p in root.glob("venue=*/symbol=*/day=*/**/*") if p.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


STEPS = ("compact-part", "compact-parts", "compact-manifest", "compact-done", "compact-journal")


@pytest.mark.parametrize("step", STEPS)
def test_02_a_kill_at_any_step_of_compaction_is_mended_by_doing_it_again(kept, tmp_path, step):
    """Never counted twice, never gone: the day is the same, byte for byte."""
    path = placed(kept, tmp_path / "a")
    whole = placed(kept, tmp_path / "b")
    child = start_compact(path, tmp_path / "a", step)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert path.exists() or step == "compact-journal"
    list(recover(tmp_path / "a", "binance-spot", keep_raw=False))
    compact(whole, tmp_path / "b", keep_raw=False)
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(kept[1])
    assert not path.exists()
    assert not list((tmp_path / "a").glob("venue=*/symbol=*/.staging*"))


def test_02_a_compacting_process_that_is_killed_is_made_anew(tmp_path):
    """The recorder goes on; what was left half done is done again at its end."""

    async def kill(_venue, recorder):
        for _ in range(2):
            while recorder._compactor._pool is None or not recorder._compactor._pool._processes:
                await asyncio.sleep(0.02)
            for process in list(recorder._compactor._pool._processes.values()):
                process.kill()
            await asyncio.sleep(1)

    played = asyncio.run(play(market(events=900), tmp_path, kill, segment_min=0.01))
    check(played)
    assert len(played.lake.manifest(played.lake.days()[0]).segments) >= 4
    assert played.table("trades").height == len(played.truth.of("trade"))
    assert not list(journal_root(tmp_path, "binance-spot").glob("*/*"))


def test_02_a_segment_that_cannot_be_compacted_keeps_no_recorder_from_starting(kept, tmp_path):
    """A file that is none, and a record that no fold understands: both stay, both are told, the rest goes on."""
    path = placed(kept, tmp_path)
    bad = path.with_name("00002.mmj")
    bad.write_bytes(b"not a segment")
    header = msgspec.structs.replace(SegmentReader(path).header(), index=3)
    poison = Record(Kind.MARK, 0, 1, 1, 1, mark("silence", symbol="NOBODY"))
    odd = path.with_name("00003.open")
    odd.write_bytes(journal_file.opening(header, 1) + journal_file.block(*journal_file.encode([poison])))
    done = list(recover(tmp_path, "binance-spot", keep_raw=False))
    assert [len(each.refs) for each in done] == [1, 0, 0]
    assert all("kept for the next start" in each.faults[0] for each in done[1:])
    assert not path.exists()
    assert bad.read_bytes() == b"not a segment"
    assert odd.with_suffix(".mmj").exists()
    assert content(tmp_path) == content(kept[1])
    played = asyncio.run(play(market(events=200), tmp_path))
    assert played.kinds().count("sync") == 3


@pytest.mark.parametrize("step", ["seal-before", "seal-synced", "seal-named"])
def test_02_a_kill_while_a_segment_is_sealed_loses_nothing(tmp_path, step):
    """The segment is sealed by the next start, or was already."""
    standing = stand(lambda: market(events=10**9))
    spec = spec_for(standing.venue, tmp_path, segment_min=0.02)
    child = start(spec, crash_at=step)
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    again = start(spec)
    time.sleep(2)
    again.terminate()
    again.join(20)
    standing.stop()
    lake = Lake(tmp_path)
    check_lake(until_the_end(standing.venue.truth.lines, lake), lake)


def test_03_a_power_cut_leaves_what_was_synced(tmp_path):
    """The open segment cut to the bytes that the recorder knows to be on the disk: whole records, not too old."""
    cuts: list[tuple[Path, int]] = []

    async def cut(venue, recorder):
        while venue.happened < 150:
            await asyncio.sleep(0.02)
        for n in range(5):
            await asyncio.sleep(0.2)
            path, synced = recorder.journal.durable
            copy = tmp_path / f"cut-{n}.open"
            copy.write_bytes(path.read_bytes()[:synced])
            cuts.append((copy, time.time_ns()))

    played = asyncio.run(play(market(events=700), tmp_path / "lake", cut, flush_ms=50, fsync_ms=200))
    check(played)
    for copy, at_ns in cuts:
        sealed, cut_bytes = seal_open(copy)
        assert cut_bytes == 0
        reader = SegmentReader(sealed)
        records = list(reader)
        assert reader.whole
        assert at_ns - records[-1].recv_ns < 2 * NS_PER_S


def test_04_a_full_disk_is_waited_out_and_nothing_is_lost(tmp_path):
    """Writes fail for a second and a half (a limit on the size of files); then they go on where they were."""
    standing = stand(lambda: market(LOADED, events=10**9))
    child = start(spec_for(standing.venue, tmp_path, keep_raw=True), file_bytes=60_000, free_after_s=3.0)
    time.sleep(6)
    child.terminate()
    child.join(20)
    assert child.exitcode == 0
    standing.stop()
    lake = Lake(tmp_path)
    check_lake(until_the_end(standing.venue.truth.lines, lake), lake)
    assert "overload" not in read(lake, "events")["kind"].to_list()
    (path,) = journal_root(tmp_path, "binance-spot").glob("*/*.mmj")
    assert path.stat().st_size > 60_000


def test_23_what_a_slow_disk_does_not_take_is_counted_and_declared(tmp_path):
    """A full queue: frames are dropped, the mark says how many, ids find the holes, REST fills the trades."""
    standing = stand(lambda: market(LOADED, events=10**9))
    spec = spec_for(standing.venue, tmp_path, queue_mb=0.05)
    child = start(spec, file_bytes=60_000, free_after_s=4.0)
    time.sleep(7)
    child.terminate()
    child.join(20)
    assert child.exitcode == 0
    standing.stop()
    lake = Lake(tmp_path)
    check_lake(until_the_end(standing.venue.truth.lines, lake), lake)
    events = read(lake, "events")
    assert "overload" in events["kind"].to_list()
    assert "messages dropped under overload" in "; ".join(lake.manifest(lake.days()[0]).reasons)


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_27_a_signal_drains_and_seals_and_a_second_one_seals_at_once(tmp_path, signals):
    """Exit code 0; after a second signal the Parquet is left to the next start."""
    standing = stand(lambda: market(LOADED, events=10**9))
    child = start(spec_for(standing.venue, tmp_path))
    wait_for(lambda: standing.venue.happened > 300)
    for number in signals:
        os.kill(child.pid, number)
        time.sleep(0.01)
    began = time.monotonic()
    child.join(20)
    assert child.exitcode == 0
    assert time.monotonic() - began < (15 if len(signals) == 1 else 5)
    left = list(journal_root(tmp_path, "binance-spot").glob("*/*"))
    if len(signals) == 1:
        assert left == []
    else:
        assert [p.suffix for p in left if p.name not in ("lock",)] == [".mmj"]
        list(recover(tmp_path, "binance-spot", keep_raw=False))
    standing.stop()
    lake = Lake(tmp_path)
    check_lake(until_the_end(standing.venue.truth.lines, lake), lake)


def test_28_a_second_recorder_of_a_symbol_is_refused_and_a_dead_ones_lock_is_taken(tmp_path):
    """The lock is the kernel's: it goes with its owner, however that dies."""
    standing = stand(lambda: market(events=10**9))
    spec = spec_for(standing.venue, tmp_path)
    child = start(spec)
    wait_for(lambda: standing.venue.happened > 50)
    with pytest.raises(UsageError, match=f"TESTUSDT under .* is being written already, by process {child.pid}"):
        lock_symbols(spec)
    child.kill()
    child.join()
    for lock in lock_symbols(spec):
        lock.release()
    standing.stop()


def test_33_a_flipped_bit_is_found_and_the_day_derived_again(kept, tmp_path):
    """`check` finds it by its checksum, `rebuild` makes it whole from the journal."""
    from mmlab.flows.check import check as check_days
    from mmlab.flows.check import rebuild

    root = tmp_path / "lake"
    shutil.copytree(kept[1], root)
    lake = Lake(root)
    ref = lake.days()[0]
    same = rebuild(root, "binance-spot", SYMBOL, ref.day, replace=False)
    assert same.differing == []
    part = next(ref.path.glob("trades/*.parquet"))
    before = part.read_bytes()
    part.write_bytes(before[:500] + bytes([before[500] ^ 1]) + before[501:])
    (found,) = check_days(lake, [ref], lambda *_: None)
    assert found.condition == "damaged"
    assert "checksum differs" in found.faults[0]
    again = rebuild(root, "binance-spot", SYMBOL, ref.day, replace=True)
    assert again.differing == [f"trades/{part.name}"]
    assert part.read_bytes() == before
    (found,) = check_days(lake, [ref], lambda *_: None)
    assert found.faults == []


def test_33_a_flipped_bit_in_a_journal_costs_its_block_and_is_declared(kept, tmp_path):
    """What lies behind the block is read all the same; the day says that the journal was damaged."""
    path = placed(kept, tmp_path)
    repack(path, block_bytes=5_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = compact(path, tmp_path, keep_raw=False)
    assert "could not be read" in done.faults[0]
    assert path.with_suffix(".damaged").exists()
    lake = Lake(tmp_path)
    assert "journal damaged: 1" in lake.manifest(lake.days()[0]).reasons


assert record
