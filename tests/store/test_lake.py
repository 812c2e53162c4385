"""The lake gives back what was written, or says what is wrong with it; a killed writer changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mmlab.core.errors import LakeError, TableError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import BOOK_TICKER, GAPS, QUARANTINE, TRADES
from mmlab.core.spans import NS_PER_DAY, Days, day_start_ns
from mmlab.store import writer
from mmlab.store.lake import Lake
from mmlab.store.manifest import SegmentEntry, read_manifest, write_manifest

DAY = date(2025, 1, 1)
INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.00001")


def write(root: Path, frames: list[pl.DataFrame], *, instrument=INSTRUMENT, replace=False, reasons=None, table=TRADES):
    with Lake(root).writer(instrument, levels=20, replace=replace, created_by={"command": "test"}) as writer:
        for frame in frames:
            writer.append(table, frame)
        return writer.commit(reasons)


def prints(n: int = 100, seed: int = 1, first: date = DAY, days: int = 1) -> pl.DataFrame:
    """Sampled prints spread evenly over whole days."""
    step = days * NS_PER_DAY // max(n, 1)
    at = day_start_ns(first) + pl.int_range(n, dtype=pl.Int64) * step
    return TRADES.sample(n, seed).with_columns(recv_ns=at, recv_seq=pl.int_range(1, n + 1, dtype=pl.Int64))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), days=st.integers(1, 3), seed=st.integers(0, 99), cuts=st.integers(1, 4))
def test_what_is_written_is_read_back_in_order(tmp_path_factory, n, days, seed, cuts):
    """Rows go to their UTC days and come back as one table, bit for bit."""
    root = tmp_path_factory.mktemp("lake")
    frame = prints(n, seed, days=days)
    refs = write(root, [frame[i * n // cuts : (i + 1) * n // cuts] for i in range(cuts)])
    lake = Lake(root)
    assert lake.read(refs, TRADES, TRADES.schema.names()).equals(frame)
    for ref in refs:
        assert lake.verify(ref) == []
        seen = lake.read([ref], TRADES, ["recv_ns"])["recv_ns"] // NS_PER_DAY
        assert set(seen.to_list()) == {day_start_ns(ref.day) // NS_PER_DAY}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 99), rows=st.integers(1, 120), recorded=st.booleans())
def test_prints_in_pieces_are_the_prints_received_live(tmp_path_factory, n, seed, rows, recorded):
    """Pieces are cut within each part; those of a recorded day lack what was filled in later, and may be empty."""
    frame, columns = prints(n, seed), ("recv_ns", "recv_seq", "trade_id", "price")
    root = tmp_path_factory.mktemp("lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PART_ROWS", 100)
        [ref] = write(root, [frame[i : i + 50] for i in range(0, n, 50)])
    if recorded:
        segment = SegmentEntry({}, n, 0, 0, 1, 1, "stop", {"trades": n}, {})
        write_manifest(ref.path, msgspec.structs.replace(read_manifest(ref.path), segments={"1": segment}))
        frame = frame.filter(pl.col("source") == "ws")
    pieces = list(Lake(root).live_prints_in_pieces(ref, columns, rows))
    assert max(piece.height for piece in pieces) <= rows
    assert pl.concat(pieces).equals(frame.select(columns))


def test_the_ends_of_a_table_are_its_first_and_last_times(tmp_path):
    """From an instant on, over all days; none where nothing comes after it."""
    frame, lake = prints(300, days=3), Lake(tmp_path)
    refs = write(tmp_path, [frame])
    first, middle, last = (frame["recv_ns"][i] for i in (0, 150, -1))
    assert lake.ends(refs, TRADES, 0) == (first, last)
    assert lake.ends(refs, TRADES, middle) == lake.ends(refs, TRADES, middle - 1) == (middle, last)
    assert lake.ends(refs, TRADES, last) == (last, last)
    assert lake.ends(refs, TRADES, last + 1) is None
    assert lake.ends(refs, BOOK_TICKER, 0) is None


def test_counters_are_kept_as_differences_and_take_next_to_no_room(tmp_path):
    """Ids that go up by one; another reader of Parquet gets them back."""
    n = 50_000
    frame = prints(n).with_columns(trade_id=10**9 + pl.int_range(n, dtype=pl.Int64))
    [ref] = write(tmp_path, [frame])
    [path] = (ref.path / "trades").glob("*.parquet")
    group = parquet.ParquetFile(path).metadata.row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    for name in ("recv_seq", "trade_id"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
        assert columns[name].total_compressed_size < n / 20
    assert duckdb.sql(f"select sum(trade_id), count(*) from '{path}'").fetchall() == [(frame["trade_id"].sum(), n)]


def test_the_same_rows_are_the_same_bytes(tmp_path):
    """Two lakes made from the same frames hold identical files."""
    for name in "ab":
        write(tmp_path / name, [prints()])
    files = [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "ab"]
    assert len(files[0]) == 2
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_a_day_that_exists_is_only_replaced_when_asked(tmp_path):
    """Nothing is lost by accident; --replace swaps the whole day."""
    [ref] = write(tmp_path, [prints(5)])
    with pytest.raises(UsageError, match="BTCUSDT 20250101 is in the lake already") as caught:
        write(tmp_path, [prints(9)])
    assert "--replace" in caught.value.remedy
    assert Lake(tmp_path).read([ref], TRADES, ["qty"]).height == 5
    write(tmp_path, [prints(9)], replace=True)
    assert Lake(tmp_path).read([ref], TRADES, ["qty"]).height == 9
    assert [p.name for p in ref.path.parent.iterdir()] == ["day=20250101"]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    """A broken rule stops the commit, and the lake is as it was."""
    bad = prints(5).with_columns(price=pl.lit(0.0))
    with pytest.raises(TableError, match="'price and qty are above 0' broken in 5 rows"):
        write(tmp_path, [bad])
    assert Lake(tmp_path).days() == []
    assert not list(tmp_path.rglob("*.parquet"))


def test_order_is_checked_across_parts(tmp_path, monkeypatch):
    """A part that starts before the one before it ended is refused."""
    monkeypatch.setattr("mmlab.store.writer.PART_ROWS", 10)
    frame = prints(30)
    assert (
        len(Lake(tmp_path).manifest(write(tmp_path, [frame[:10], frame[10:20], frame[20:]])[0]).tables["trades"]) == 3
    )
    with pytest.raises(TableError, match="not sorted"):
        write(tmp_path, [frame[10:20], frame[:10]], replace=True)


def test_a_writer_killed_midway_changes_nothing_and_is_cleaned_up(tmp_path):
    """A real process writes parts, says so, and is killed with SIGKILL before it commits."""
    write(tmp_path, [prints(5)])
    child = f"""
import sys, time
from pathlib import Path
import mmlab.store.writer as w
w.PART_ROWS = 10
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import TRADES
from mmlab.store.lake import Lake
frame = TRADES.sample(30, 2)
import polars as pl
frame = frame.with_columns(recv_ns=pl.int_range({day_start_ns(DAY)}, {day_start_ns(DAY)} + 30, dtype=pl.Int64))
lake = Lake(Path({str(tmp_path)!r}))
with lake.writer(Instrument({INSTRUMENT.venue!r}, "BTCUSDT", "0.01", "0.00001"), levels=20, replace=True,
                 created_by={{}}) as writer:
    writer.append(TRADES, frame)
    print("written", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    lake = Lake(tmp_path)
    [ref] = lake.days()
    assert lake.read([ref], TRADES, ["qty"]).height == 5
    assert lake.verify(ref) == []
    assert list(ref.path.parent.glob(".staging-*"))
    write(tmp_path, [prints(7)], replace=True)
    assert not list(ref.path.parent.glob(".staging-*"))


def part(root: Path) -> Path:
    [path] = root.rglob("trades/part-*.parquet")
    return path


def test_a_torn_part_is_named(tmp_path):
    """A file cut short is not read as if it were whole."""
    refs = write(tmp_path, [prints(1000)])
    path = part(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LakeError, match=r"part-00000\.parquet is torn"):
        Lake(tmp_path).read(refs, TRADES, ["price"])
    assert "is torn" in Lake(tmp_path).verify(refs[0])[0]


def test_a_part_whose_pages_are_torn_is_a_fault_not_a_traceback(tmp_path):
    """A footer may be whole while a page is not."""
    refs = write(tmp_path, [prints(5000)])
    path = part(tmp_path)
    content = bytearray(path.read_bytes())
    content[10:4000] = b"\xff" * 3990
    path.write_bytes(bytes(content))
    with pytest.raises(LakeError, match="table 'trades' cannot be read"):
        Lake(tmp_path).read(refs, TRADES, TRADES.schema.names())
    assert any("checksum" in fault for fault in Lake(tmp_path).verify(refs[0]))


def test_a_part_that_is_gone_or_another_is_named(tmp_path):
    """The manifest knows every part and its rows."""
    refs = write(tmp_path, [prints(10)])
    path = part(tmp_path)
    prints(9).write_parquet(path)
    with pytest.raises(LakeError, match="has 9 rows, its manifest says 10"):
        Lake(tmp_path).read(refs, TRADES, ["price"])
    path.unlink()
    with pytest.raises(LakeError, match="is missing, though its manifest names it"):
        Lake(tmp_path).read(refs, TRADES, ["price"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: f.drop("price"), "missing column 'price'"),
        (lambda f: f.with_columns(pl.col("price").cast(pl.Float32)), "column 'price' is Float32, not Float64"),
    ],
)
def test_a_wrong_or_missing_column_is_named(tmp_path, change, fault):
    """A foreign file in the lake is refused before a row of it is used."""
    refs = write(tmp_path, [prints(10)])
    change(prints(10)).write_parquet(part(tmp_path))
    with pytest.raises(TableError, match=fault) as caught:
        Lake(tmp_path).read(refs, TRADES, ["recv_ns", "price"])
    assert "part-00000.parquet" in caught.value.message


def test_missing_days_are_named_with_what_there_is(tmp_path):
    """A range wants all of its days."""
    write(tmp_path, [prints(5)])
    lake = Lake(tmp_path)
    with pytest.raises(LakeError, match="no data for BTCUSDT on 20250102, 20250103 under") as caught:
        lake.find("BTCUSDT", Days.parse("20250101..20250103"))
    assert "20250101" in caught.value.remedy
    with pytest.raises(LakeError, match="no data for ETHUSDT on 20250101") as caught:
        lake.find("ETHUSDT", Days.parse("20250101"))
    assert "BTCUSDT" in caught.value.remedy
    with pytest.raises(LakeError) as caught:
        Lake(tmp_path / "nothing").find("ETHUSDT", Days.parse("20250101"))
    assert "mmlab import or mmlab synth" in caught.value.remedy


def test_a_symbol_at_two_venues_needs_the_venue(tmp_path):
    """Spot and perpetual share names."""
    write(tmp_path, [prints(5)])
    write(tmp_path, [prints(5)], instrument=Instrument("binance-usdm", "BTCUSDT", "0.1", "0.001"))
    lake = Lake(tmp_path)
    with pytest.raises(UsageError, match="BTCUSDT is at binance-spot and binance-usdm"):
        lake.find("BTCUSDT", Days.parse("20250101"))
    [ref] = lake.find("BTCUSDT", Days.parse("20250101"), "binance-usdm")
    assert lake.instrument([ref]).tick_size == "0.1"


def test_a_tick_size_that_changes_between_days_is_refused(tmp_path):
    """Ticks of two sizes are never added up."""
    write(tmp_path, [prints(5)])
    other = Instrument("binance-spot", "BTCUSDT", "0.1", "0.00001")
    write(tmp_path, [prints(5, first=DAY + timedelta(1))], instrument=other)
    lake = Lake(tmp_path)
    refs = lake.find("BTCUSDT", Days.parse("20250101..20250102"))
    with pytest.raises(LakeError, match=r"filters changed on 20250102: tick size 0\.01 to 0\.1"):
        lake.instrument(refs)


def test_an_empty_table_is_a_fault_where_rows_are_needed(tmp_path):
    """A day without prints cannot be calibrated."""
    ticker = BOOK_TICKER.sample(3, 1).with_columns(
        recv_ns=pl.lit(day_start_ns(DAY), pl.Int64), recv_seq=pl.int_range(3)
    )
    refs = write(tmp_path, [ticker], table=BOOK_TICKER)
    lake = Lake(tmp_path)
    assert lake.read(refs, TRADES, ["price", "qty"]).schema == {"price": pl.Float64, "qty": pl.Float64}
    with pytest.raises(LakeError, match="table 'trades' of BTCUSDT 20250101 is empty"):
        lake.read(refs, TRADES, ["price"], require_rows=True)


def test_condition_reasons_and_tables_without_time_are_kept(tmp_path):
    """A degraded day says why; quarantined lines go to the day they are given."""
    with Lake(tmp_path).writer(INSTRUMENT, levels=20, replace=False, created_by={"command": "test"}) as writer:
        writer.append(TRADES, prints(5))
        writer.append(QUARANTINE, QUARANTINE.sample(2, 1), day=DAY)
        writer.append(GAPS, GAPS.empty())
        [ref] = writer.commit({DAY: ["one gap"]})
    manifest = Lake(tmp_path).manifest(ref)
    assert (manifest.condition, manifest.reasons) == ("degraded", ["one gap"])
    assert sorted(manifest.tables) == ["quarantine", "trades"]


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}'])
def test_a_torn_manifest_is_named(tmp_path, content):
    """Not a traceback, and not an empty day."""
    [ref] = write(tmp_path, [prints(5)])
    (ref.path / "manifest.json").write_text(content)
    with pytest.raises(LakeError, match=r"manifest.json is torn or not a manifest"):
        Lake(tmp_path).manifest(ref)


def test_a_symbol_of_unusual_letters_has_a_safe_folder(tmp_path):
    """A slash or a letter beyond ASCII never becomes a path of its own."""
    odd = Instrument("binance-spot", "A/B币", "0.01", "0.00001")
    [ref] = write(tmp_path, [prints(3)], instrument=odd)
    assert ref.path.parent.name == "symbol=A%2FB%E5%B8%81"
    assert Lake(tmp_path).find("A/B币", Days.parse("20250101")) == [ref]
