"""Recordings go into the lake whole or not at all; the real ones give the numbers known of them."""

from __future__ import annotations

import gzip
import hashlib
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mmlab.core.errors import DataError, UsageError
from mmlab.core.schemas import TABLES
from mmlab.core.spans import NS_PER_DAY
from mmlab.flows import import_raw as flow
from mmlab.flows.import_raw import ImportReport, ImportSpec, import_raw
from mmlab.store.lake import Lake
from reference import book as slow
from reference.raw_feed import SPOT, USDM, depth, event, line, real, snapshot, ticker, trade

BTC = ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001")
ETH = ImportSpec("binance-usdm", "ETHUSDT", "0.01", "0.001")
DAYS = [date(2024, 8, 8), date(2024, 8, 9)]
BOOK = ([("99.00", "1.0")], [("101.00", "1.0")])
SECOND = 10**9


def read(report: ImportReport, name: str) -> pl.DataFrame:
    """All days of a table, by the files themselves."""
    paths = [path for ref in report.refs for path in sorted((ref.path / name).glob("*.parquet"))]
    return pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths])


def write(path: Path, lines: list[bytes]) -> Path:
    content = b"".join(text + b"\n" for text in lines)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def small(start: int = 0) -> list[bytes]:
    messages = [snapshot(10, *BOOK), depth(11, 12), trade(1), ticker(11), depth(13, 14), trade(2)]
    return [line(start + i * SECOND, message) for i, message in enumerate(messages)]


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def spot(tmp_path_factory) -> ImportReport:
    """The two real spot files, imported as one recording."""
    return import_raw(BTC, real(SPOT), Lake(tmp_path_factory.mktemp("spot")))


@pytest.fixture(scope="module")
def usdm(tmp_path_factory) -> ImportReport:
    """The real futures file."""
    return import_raw(ETH, real(USDM), Lake(tmp_path_factory.mktemp("usdm")))


def test_the_real_spot_recording_has_its_known_counts(spot):
    """6,495 updates, 19,904 prints, one snapshot of 1000 levels a side, no hole, one epoch over midnight."""
    diffs, trades, shot = read(spot, "diffs"), read(spot, "trades"), read(spot, "snapshots")
    assert spot.lines == 99_574
    assert diffs["recv_seq"].n_unique() == 6495
    assert trades.height == 19_904
    assert trades["trade_id"].to_list() == list(range(trades["trade_id"][0], trades["trade_id"][0] + 19_904))
    assert shot["last_update_id"].unique().to_list() == [50_093_239_218]
    assert shot["side"].value_counts().sort("side")["count"].to_list() == [1000, 1000]
    assert (spot.epochs, spot.gaps, spot.set_aside, spot.reasons) == (1, {}, {}, {})
    assert [ref.day for ref in spot.refs] == DAYS
    assert [sorted(rows) for rows in spot.rows.values()] == [
        ["book_ticker", "depth", "diffs", "events", "snapshots", "trades"],
        ["book_ticker", "depth", "diffs", "events", "trades"],
    ]


def test_12769_of_the_real_prints_share_time_and_side_with_the_one_before(spot):
    """Sweeps of one taker order."""
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("trade_ns", "taker"))
    assert read(spot, "trades").select(same.sum()).item() == 12_769


def test_the_lake_verifies_and_its_manifests_name_the_sources(spot):
    """Every contract, every checksum; the day is the UTC date of receipt."""
    lake = Lake(spot.refs[0].path.parents[2])
    for ref in spot.refs:
        manifest = lake.manifest(ref)
        assert lake.verify(ref) == []
        assert manifest.condition == "complete"
        assert [file["name"] for file in manifest.created_by["files"]] == list(SPOT)
        assert manifest.created_by["files"][0]["sha256"] == hashlib.sha256(real(SPOT)[0].read_bytes()).hexdigest()
    depth_days = read(spot, "depth").select(pl.col("recv_ns") // NS_PER_DAY).to_series().value_counts()
    assert depth_days.sort("recv_ns")["count"].to_list() == [3449, 3044]


def test_the_straddling_update_is_in_the_first_real_frame(spot):
    """U=50093239208, u=50093239224 removes the bid at 61820.99, which a reader that drops it keeps for ever."""
    frames = read(spot, "depth")
    first = frames.row(0, named=True)
    assert first["update_id"] == 50_093_239_224
    assert first["recv_ns"] == 1_723_161_254_206_652_067
    assert frames.height == 6493
    bids = frames.select(pl.concat_list(f"bid_px_{i}" for i in range(1, 21)).alias("px"))["px"]
    early = frames["recv_ns"] < 1_723_161_255_206_652_067
    assert not bids.filter(early).list.contains(61820.99).any()
    assert (frames["bid_px_1"] < frames["ask_px_1"]).all()
    assert frames["epoch_id"].unique().to_list() == [1]


@pytest.mark.parametrize("name", ["spot", "usdm"])
def test_the_real_books_touch_is_the_venues_own_wherever_the_ids_meet(name, request):
    """Prices and quantities of both sides, on every common update id."""
    report = request.getfixturevalue(name)
    touch = ["bid_px", "bid_qty", "ask_px", "ask_qty"]
    pairs = read(report, "depth").join(read(report, "book_ticker"), on="update_id")
    assert pairs.height == {"spot": 1072, "usdm": 551}[name]
    for column in touch:
        assert (pairs[f"{column}_1"] == pairs[column]).all()


def test_the_real_frames_equal_the_slow_twins(spot):
    """The first 600 messages, decoded by the standard library, books of dicts sorted for every frame."""
    import json

    frames = read(spot, "depth").head(550)
    with gzip.open(real(SPOT)[0]) as file:
        messages = [json.loads(text.partition(b" ")[2]) for text in file]
    kept = {i: m for i, m in enumerate(messages, 1) if "@depth" in m.get("stream", "@depth")}
    numbers = list(kept)[:550]
    twin = slow.frames([kept[i] for i in numbers], usdm=False, levels=20)
    assert len(twin) == 547
    for want, row in zip(twin, frames.iter_rows(named=True), strict=False):
        assert (numbers[want.seq - 1], want.update_id) == (row["recv_seq"], row["update_id"])
        for side, levels in (("bid", want.bids), ("ask", want.asks)):
            assert [(row[f"{side}_px_{i}"], row[f"{side}_qty_{i}"]) for i in range(1, 21)] == levels


def test_the_real_futures_recording_has_its_known_counts(usdm):
    """6,586 updates chained by pu, one epoch, prints of the book only."""
    diffs = read(usdm, "diffs").unique("recv_seq", maintain_order=True)
    assert diffs.height == 6586
    assert (diffs["prev_id"][1:] == diffs["last_id"][:-1]).all()
    assert (usdm.epochs, usdm.gaps, usdm.set_aside, usdm.reasons) == (1, {}, {}, {})
    assert read(usdm, "trades").height == 14_076
    assert read(usdm, "depth").height == 6580
    assert read(usdm, "book_ticker")["exch_ns"].null_count() == 0


def test_a_line_cut_out_of_the_real_file_is_exactly_one_gap_with_its_ids(spot, tmp_path):
    """The book is gone from there on, the prints are all there, the day is degraded."""
    with gzip.open(real(SPOT)[0]) as file:
        lines = file.read().splitlines()
    at = [i for i, text in enumerate(lines) if b"@depth" in text][2000]
    cut = read(spot, "diffs").filter(pl.col("recv_seq") == at + 1).row(0, named=True)
    before = read(spot, "depth").filter(pl.col("recv_seq") <= at)
    source = write(tmp_path / "cut.raw", lines[:at] + lines[at + 1 :])
    report = import_raw(BTC, [source], Lake(tmp_path / "data"))
    [gap] = read(report, "gaps").rows(named=True)
    assert (gap["first_missing"], gap["last_missing"]) == (cut["first_id"], cut["last_id"])
    assert gap["from_ns"] == before["recv_ns"][-1]
    assert gap["to_ns"] == int(lines[-1][:19])
    assert gap["stream"] == "depth"
    assert read(report, "depth").equals(before)
    assert report.rows[DAYS[0]]["trades"] == 9757
    assert report.gaps == {"depth": 1}
    assert report.reasons == {DAYS[0]: ["book lost: 1", "gaps in depth: 1"]}
    assert Lake(tmp_path / "data").manifest(report.refs[0]).condition == "degraded"


def test_a_real_gzip_file_cut_in_the_middle_gives_all_that_was_whole(spot, tmp_path):
    """Its torn last line is in quarantine as it stood."""
    packed = real(SPOT)[0].read_bytes()
    torn = tmp_path / "torn.gz"
    torn.write_bytes(packed[: len(packed) // 2])
    report = import_raw(BTC, [torn], Lake(tmp_path / "data"))
    [kept] = read(report, "quarantine").rows(named=True)
    text = gzip.decompress(packed)
    whole = text.split(b"\n")[: report.lines - 1]
    assert kept["line_no"] == report.lines
    assert kept["reason"] == "torn gzip: it is cut off before its end"
    assert text.startswith(b"\n".join([*whole, kept["raw"]]))
    prints = read(report, "trades")
    assert prints.drop("run_id").equals(read(spot, "trades").drop("run_id").head(prints.height))
    assert report.set_aside["torn gzip"].first == [("torn.gz", report.lines)]


def test_the_same_files_give_the_same_bytes_however_they_are_drained(tmp_path, monkeypatch):
    """Manifests included; and plain text the same tables as gzip."""
    one = write(tmp_path / "one.gz", small())
    two = write(tmp_path / "two.gz", [line(20 * SECOND + i, trade(i)) for i in range(3, 20)])
    made = []
    for n, drain in enumerate((100_000, 100_000, 2)):
        monkeypatch.setattr(flow, "DRAIN_LINES", drain)
        import_raw(BTC, [one, two], Lake(tmp_path / str(n)))
        made.append(tree(tmp_path / str(n)))
    assert made[0] == made[1] == made[2]


def test_the_book_is_carried_from_one_file_into_the_next(tmp_path):
    """Lines are counted through, so that (recv_ns, recv_seq) is one order."""
    files = [write(tmp_path / "a.raw", small()[:2]), write(tmp_path / "b.raw", small()[2:])]
    report = import_raw(BTC, files, Lake(tmp_path / "data"))
    assert report.epochs == 1
    assert read(report, "depth")["recv_seq"].to_list() == [2, 5]
    assert read(report, "depth")["update_id"].to_list() == [12, 14]


def test_faults_are_reported_by_file_and_line(tmp_path):
    """Two files of one name are told apart by their folders."""
    bad = [b"rubbish", line(0, event("kline_1m", trade(1)["data"]))]
    files = []
    for n, folder in enumerate(("x", "y")):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "a.raw", [*bad, *small(n * 60 * SECOND)[:: 1 if n == 0 else 3]]))
    report = import_raw(BTC, files, Lake(tmp_path / "data"))
    places = report.set_aside["no timestamp"].first
    assert places == [(file.as_posix(), 1) for file in files]
    assert report.set_aside["unknown stream kline_1m"].count == 2
    assert read(report, "quarantine")["raw"].to_list() == bad * 2


def test_files_that_cannot_be_meant_are_refused_before_anything_is_written(tmp_path):
    """Absent, a folder, given twice, none at all."""
    good = write(tmp_path / "a.raw", small())
    for files, text in (
        ([good, tmp_path / "b.raw"], "b.raw is not there"),
        ([tmp_path], "is a folder"),
        ([good, good], "given twice"),
        ([], "no files"),
    ):
        with pytest.raises(UsageError, match=text):
            import_raw(BTC, files, Lake(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"rubbish\nmore\n", "no timestamp"),
        (b"\x1f\x8b\x08", "cut off"),
        (line(0, event("kline_1m", trade(1)["data"])), "unknown stream kline_1m"),
    ],
)
def test_a_file_without_a_readable_line_is_refused_before_anything_is_written(tmp_path, content, text):
    """With the fault of its first line."""
    good, bad = write(tmp_path / "a.raw", small()), tmp_path / "bad.raw"
    bad.write_bytes(content)
    with pytest.raises(DataError, match=f"bad.raw holds no readable line .*{text}"):
        import_raw(BTC, [good, bad], Lake(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("spec", "message", "flag"),
    [
        (ImportSpec("binance-spot", "ETHUSDT", "0.01", "0.00001"), trade(9), "--symbol BTCUSDT"),
        (ImportSpec("binance-spot", "BTCUSDT", "1", "0.00001"), trade(9, price="100.5"), "--tick-size"),
        (ImportSpec("binance-spot", "BTCUSDT", "0.01", "1"), trade(9, qty="0.5"), "--lot-size"),
        (ImportSpec("binance-usdm", "BTCUSDT", "0.01", "0.001"), depth(15, 16), "--venue binance-spot"),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_written(tmp_path, spec, message, flag):
    """Not even a folder of staging is left."""
    source = write(tmp_path / "a.raw", [*small()[2:3], line(30 * SECOND, message)])
    with pytest.raises(DataError) as caught:
        import_raw(spec, [source], Lake(tmp_path / "data"))
    assert "a.raw, line " in caught.value.message
    assert flag in caught.value.remedy
    assert tree(tmp_path) == tree(tmp_path) | {"a.raw": hashlib.sha256(source.read_bytes()).hexdigest()}
    assert not list(tmp_path.glob("data/**/*.parquet"))
    assert not list(tmp_path.glob("data/**/.staging*"))


def test_a_day_in_the_lake_is_only_replaced_when_asked(tmp_path):
    """And then as a whole."""
    source, lake = write(tmp_path / "a.raw", small()), Lake(tmp_path / "data")
    import_raw(BTC, [source], lake)
    with pytest.raises(UsageError, match="in the lake already"):
        import_raw(BTC, [source], lake)
    again = ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001", levels=5, replace=True)
    report = import_raw(again, [source], lake)
    assert lake.manifest(report.refs[0]).levels == 5
    assert "bid_px_6" not in read(report, "depth").columns


@pytest.mark.parametrize(
    "spec", [{"venue": "nyse"}, {"levels": 0}, {"symbol": ""}, {"tick_size": "0"}, {"lot_size": "many"}]
)
def test_a_spec_that_cannot_be_meant_is_a_usage_error(tmp_path, spec):
    """Raised before any file is opened."""
    fields = {"venue": "binance-spot", "symbol": "BTCUSDT", "tick_size": "0.01", "lot_size": "0.1"} | spec
    with pytest.raises(UsageError):
        import_raw(ImportSpec(**fields), [tmp_path / "absent"], Lake(tmp_path / "data"))


def test_every_table_of_an_import_is_one_of_the_lakes(tmp_path):
    """Progress ends at the bytes of all files."""
    heard: list[tuple[int, int]] = []
    files = [write(tmp_path / "a.gz", small()), write(tmp_path / "b.raw", small(60 * SECOND)[2:4])]
    report = import_raw(BTC, files, Lake(tmp_path / "data"), progress=lambda *at: heard.append(at))
    size = sum(path.stat().st_size for path in files)
    assert heard[-1] == (size, size)
    assert {name for rows in report.rows.values() for name in rows} <= set(TABLES)
