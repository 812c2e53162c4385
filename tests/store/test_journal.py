"""The journal: what was written is read back, torn ends are found at every byte, and a flipped bit costs one block."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import LakeError
from mmlab.core.record import Kind, Record, answer, mark, split_answer
from mmlab.store import journal_file
from mmlab.store.journal import Journal, Promise
from mmlab.store.journal_file import Segment, SegmentReader, repack, seal_open

SEGMENT = Segment("binance-spot", 7, 1, "20250101", 20, ["BTCUSDT"], ["trade"])
NS = 1_735_689_600_000_000_000


def records(n: int, size: int = 50) -> list[Record]:
    return [Record(Kind.FRAME, 1, NS + i, NS + i, i, bytes([i % 251]) * size) for i in range(n)]


def written(folder: Path, batches: list[list[Record]]) -> Path:
    """An open segment with one block for each batch, as a writer that was killed leaves it."""
    path = folder / "00001.open"
    data = journal_file.opening(SEGMENT, NS)
    path.write_bytes(data + b"".join(journal_file.block(*journal_file.encode(batch)) for batch in batches))
    return path


times = [st.integers(-(2**63), 2**63 - 1)] * 3
record = st.builds(Record, st.sampled_from(list(Kind)), st.integers(0, 2**32 - 1), *times, st.binary(max_size=300))


@settings(max_examples=50)
@given(st.lists(st.lists(record, min_size=1, max_size=20), max_size=6))
def test_what_is_written_is_read_back(tmp_path_factory, batches):
    """Any records, in any blocks; a seal counts them, and packing them anew changes nothing."""
    path = written(tmp_path_factory.mktemp("journal"), batches)
    wanted = [each for batch in batches for each in batch]
    assert list(SegmentReader(path)) == wanted
    sealed, cut = seal_open(path)
    assert cut == 0
    found = list(SegmentReader(sealed))
    assert found[: len(wanted)] == wanted
    assert [b"crash_recovered" in each.payload for each in found[len(wanted) :]] == ([True] if wanted else [])
    repack(sealed, block_bytes=500)
    reader = SegmentReader(sealed)
    assert list(reader) == found
    assert reader.whole
    assert reader.header() == SEGMENT


def test_a_segment_cut_at_any_byte_holds_the_blocks_before_it(tmp_path):
    """Never a record that was not written, never one of a torn block, and the bytes cut are counted."""
    batches = [records(3), records(4), records(5)]
    data = written(tmp_path, batches).read_bytes()
    ends = [len(data)]
    for n in (2, 1, 0):
        ends.insert(0, len(written(tmp_path, batches[:n]).read_bytes()))
    for size in range(len(data) + 1):
        path = tmp_path / "cut.open"
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        found = list(SegmentReader(path))
        assert found == [each for batch in batches[: max(whole - 1, 0)] for each in batch], size
        sealed, cut = seal_open(path)
        assert cut == size - ([0, *ends][whole] if whole else 0)
        assert sealed.exists() == (whole > 0)
        sealed.unlink(missing_ok=True)


def test_a_flipped_bit_costs_its_block_and_no_other(tmp_path):
    """Wherever it is: the reader finds the next block that is whole."""
    batches = [records(3), records(4), records(5)]
    sealed, _ = seal_open(written(tmp_path, batches))
    data = sealed.read_bytes()
    starts = [len(journal_file.opening(SEGMENT, NS))]
    starts += [
        starts[0] + sum(len(journal_file.block(*journal_file.encode(b))) for b in batches[: n + 1]) for n in range(3)
    ]
    for at in range(starts[0], starts[3]):
        sealed.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        hit = max(n for n in range(3) if starts[n] <= at)
        reader = SegmentReader(sealed)
        found = [each for each in reader if b"crash_recovered" not in each.payload]
        assert found == [each for n, batch in enumerate(batches) if n != hit for each in batch], at
        assert not reader.whole


def test_what_is_no_segment_is_said_to_be_none(tmp_path):
    """By name."""
    path = tmp_path / "x.mmj"
    for content in (b"", b"PAR1", journal_file.MAGIC, journal_file.MAGIC + b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(LakeError, match=r"x\.mmj is no journal segment"):
            SegmentReader(path).header()


def test_the_writer_keeps_its_promises_and_rolls_in_order(tmp_path):
    """In the page cache within the flush, on the disk within the sync; each record in its segment."""
    journal = Journal(tmp_path / "run", Promise(flush_ms=20, fsync_ms=60), time.monotonic_ns)
    second = Segment("binance-spot", 7, 2, "20250101", 20, ["BTCUSDT"], ["trade"])
    all_of = records(300)
    first_roll = journal.roll(SEGMENT, NS, "")
    for each in all_of[:200]:
        assert journal.append(each._replace(mono_ns=time.monotonic_ns()))
    time.sleep(0.2)
    path, synced = journal.durable
    assert synced == path.stat().st_size
    assert len(list(SegmentReader(path))) == 200
    roll = journal.roll(second, NS, "size")
    for each in all_of[200:]:
        journal.append(each._replace(mono_ns=time.monotonic_ns()))
    last = journal.roll(None, NS, "stop")
    journal.close()
    assert first_roll.sealed is None
    sealed = [roll.sealed, last.sealed]
    assert [p.name for p in sealed] == ["00001.mmj", "00002.mmj"]
    for path, part, why in zip(sealed, (all_of[:200], all_of[200:]), ("size", "stop"), strict=True):
        reader = SegmentReader(path)
        assert [each.payload for each in reader] == [each.payload for each in part]
        assert reader.whole
        assert reader.seal.why == why
    assert len(journal.take_lags()) == 300


def test_a_full_queue_refuses_frames_and_takes_marks(tmp_path):
    """So that what is dropped can be said; what was taken is written when the disk takes it."""
    journal = Journal(tmp_path / "run", Promise(flush_ms=10_000, queue_bytes=500), time.monotonic_ns)
    opened = journal.roll(SEGMENT, NS, "")
    assert opened.done.wait(10)
    taken = [journal.append(each) for each in records(20)]
    assert taken.count(True) == 500 // (50 + journal_file.RECORD.size)
    assert journal.append(Record(Kind.MARK, 0, NS, NS, 0, mark("overload", count=1)))
    last = journal.roll(None, NS, "stop")
    journal.close()
    assert len(list(SegmentReader(last.sealed))) == taken.count(True) + 1


def test_what_comes_in_after_the_last_roll_is_not_taken_and_spoils_nothing(tmp_path):
    """A frame on its way when the run ends: the segment is sealed whole, and the writer ends of itself."""
    journal = Journal(tmp_path / "run", Promise(flush_ms=10_000), time.monotonic_ns)
    journal.roll(SEGMENT, NS, "")
    before, after = records(20), records(5)
    assert all(journal.append(each) for each in before)
    last = journal.roll(None, NS, "stop")
    assert not any(journal.append(each) for each in after)
    assert not journal.append(Record(Kind.MARK, 0, NS, NS, 0, mark("overload", count=1)))
    journal.close(10)
    assert not journal.alive
    assert last.done.is_set()
    reader = SegmentReader(last.sealed)
    assert [each.payload for each in reader] == [each.payload for each in before]
    assert reader.whole


def test_an_answer_is_what_it_was_about_and_its_bytes():
    """Whatever the body holds."""
    about = {"purpose": "snapshot", "status": 200}
    assert split_answer(answer(about, b"a\nb\n")) == (about, b"a\nb\n")
