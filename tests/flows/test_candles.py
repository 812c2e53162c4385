"""Dumps, documents and recorded trades become candles of the lake; what is wrong with a file is told by its name."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import AGG_TRADES, BARS, TRADES
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, day_start_ns
from mmlab.flows.candles import import_funding, import_klines, make_bars
from mmlab.flows.import_raw import ImportSpec, import_raw
from mmlab.store.candles import Candles
from mmlab.store.lake import Lake

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPOT = [DATA / f"spot_btcusdt_2024080{day}.gz" for day in (8, 9)]
real = pytest.mark.skipif(not SPOT[0].exists(), reason=f"the real data are not in {DATA}")
START_MS = 1_704_067_200_000  # 2024-01-01
MINUTE_MS = 60_000


def lines(first: int, n: int, price: float = 100.0, step_ms: int = 15 * MINUTE_MS) -> str:
    """A dump's rows without a header."""
    rows = []
    for i in range(first, first + n):
        at = START_MS + i * step_ms
        rows.append(f"{at},{price},{price + 1},{price - 1},{price + i % 2},7.5,{at + step_ms - 1},9,3,2.5,9,0\n")
    return "".join(rows)


def zipped(path: Path, *texts: str, checksum: bool = True) -> Path:
    """A dump's ZIP, with its checksum beside it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, text in enumerate(texts):
            archive.writestr(path.stem + f"{i or ''}.csv", text)
    if checksum:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(path.name + ".CHECKSUM").write_text(f"{digest}  {path.name}\n")
    return path


def dumps(folder: Path) -> list[Path]:
    """January and March of 2024, as the venue's site has them."""
    january = zipped(folder / "BTCUSDT-15m-2024-01.zip", lines(0, 31 * 96))
    march = zipped(folder / "BTCUSDT-15m-2024-03.zip", lines(60 * 96, 31 * 96))
    return [january, march]


def test_zipped_dumps_go_in_with_their_gap_and_their_checksums(tmp_path):
    """In any order, with their CHECKSUM files among them, as a shell's star names them."""
    dumps(tmp_path)
    files = sorted(tmp_path.glob("BTC*"), reverse=True)
    made = import_klines(files, "BTCUSDT", tmp_path / "data")
    assert (made.written.months, made.written.new, made.interval) == (("202401", "202403"), 62 * 96, "15m")
    [(start, end, missing)] = made.holes
    assert (start, end, missing) == (day_start_ns(date(2024, 2, 1)), day_start_ns(date(2024, 3, 1)), 29 * 96)
    manifest = json.loads((made.path / "month=202403/manifest.json").read_text())
    [source] = manifest["sources"]
    digest = hashlib.sha256((tmp_path / "BTCUSDT-15m-2024-03.zip").read_bytes()).hexdigest()
    assert [file["name"] for file in source["files"]] == ["BTCUSDT-15m-2024-03.zip"]
    assert source["files"][0]["sha256"] == digest
    stored = Candles(tmp_path / "data").bars("BTCUSDT", "15m")
    assert (stored["buy_volume"] == 2.5).all()
    again = import_klines(files, "BTCUSDT", tmp_path / "data")
    assert (again.written.new, again.written.same) == (0, 62 * 96)


@pytest.mark.parametrize("harm", ["cut", "flipped", "not a zip", "two files", "none", "checksum", "no checksum"])
def test_a_torn_zip_is_named_and_nothing_goes_in(tmp_path, harm):
    """Also where the other files are fine."""
    good, bad = dumps(tmp_path)
    content = bytearray(bad.read_bytes())
    bad.with_name(bad.name + ".CHECKSUM").unlink()
    told = "torn or no ZIP file"
    if harm == "cut":
        bad.write_bytes(content[:-40])
    elif harm == "flipped":
        content[len(content) // 2] ^= 8
        bad.write_bytes(content)
    elif harm == "not a zip":
        bad.write_text(lines(0, 5))
    elif harm in {"two files", "none"}:
        zipped(bad, *([lines(0, 5)] * 2 if harm == "two files" else []), checksum=False)
        told = "CSV files instead of one"
    else:
        text = f"{'0' * 64}  x\n" if harm == "checksum" else "<html>"
        bad.with_name(bad.name + ".CHECKSUM").write_text(text)
        told = "its checksum differs" if harm == "checksum" else "holds no SHA-256 checksum"
    with pytest.raises(DataError, match=told) as caught:
        import_klines([good, bad], "BTCUSDT", tmp_path / "data")
    assert bad.name in caught.value.message
    assert caught.value.remedy
    assert not (tmp_path / "data").exists()


def test_a_dump_of_another_symbol_or_length_is_refused_by_its_name(tmp_path):
    [january, _] = dumps(tmp_path)
    with pytest.raises(UsageError, match="is of BTCUSDT by its name, --symbol says ETHUSDT"):
        import_klines([january], "ETHUSDT", tmp_path / "data")
    with pytest.raises(UsageError, match="has 15m candles by its name"):
        import_klines([january], "BTCUSDT", tmp_path / "data", interval="1h")
    assert import_klines([january], "BTCUSDT", tmp_path / "data", interval="15m").written.new == 31 * 96


def test_files_that_overlap_are_joined_and_those_that_contradict_are_named(tmp_path):
    for name, text in (("a", lines(0, 10)), ("b", lines(5, 10)), ("c", lines(8, 10, price=50.0))):
        (tmp_path / f"{name}.csv").write_text(text)
    a, b, c = (tmp_path / f"{name}.csv" for name in "abc")
    assert import_klines([b, a], "X", tmp_path / "data").written.new == 15
    with pytest.raises(DataError, match=r"b\.csv and c\.csv contradict each other about 2024-01-01 02:00"):
        import_klines([b, c], "X", tmp_path / "data")
    with pytest.raises(DataError, match="7 rows contradict 15m candles of X"):
        import_klines([c], "X", tmp_path / "data")
    made = import_klines([c], "X", tmp_path / "data", replace=True)
    assert (made.written.new, made.written.replaced) == (3, 7)


def test_what_cannot_be_meant_is_told_before_anything_is_written(tmp_path):
    (tmp_path / "q.csv").write_text(lines(0, 5))
    (tmp_path / "m.csv").write_text(lines(0, 5, step_ms=MINUTE_MS))
    (tmp_path / "f.csv").write_text("calc_time,funding_interval_hours,last_funding_rate\n1704067200000,8,0.0001\n")
    q, m, f = (tmp_path / f"{name}.csv" for name in "qmf")
    root = tmp_path / "data"
    for told, run in [
        ("no files", lambda: import_klines([], "X", root)),
        ("is not there", lambda: import_klines([tmp_path / "z.csv"], "X", root)),
        ("is a folder", lambda: import_klines([tmp_path], "X", root)),
        ("given twice", lambda: import_klines([q, q], "X", root)),
        ("has 1m candles and q.csv has 15m candles", lambda: import_klines([q, m], "X", root)),
        ("unknown venue", lambda: import_klines([q], "X", root, venue="binance-usdt")),
        ("symbol is empty", lambda: import_klines([q], "", root)),
        ("f.csv holds settlements, not candles", lambda: import_klines([f], "X", root)),
        ("q.csv holds candles, not settlements", lambda: import_funding([q], "X", root)),
    ]:
        with pytest.raises(UsageError, match=told) as caught:
            run()
        assert caught.value.remedy
    assert not root.exists()


def test_bad_rows_are_set_aside_and_the_others_go_in(tmp_path):
    rows = lines(0, 8).splitlines()
    rows[3] = rows[3].replace("99.0", "low")
    (tmp_path / "q.csv").write_text("\n".join(rows))
    made = import_klines([tmp_path / "q.csv"], "X", tmp_path / "data")
    assert made.written.new == 7
    assert made.set_aside == {"q.csv": ((4, "low is low, no number"),)}
    assert [n for _, _, n in made.holes] == [1]


@pytest.mark.skipif(not (DATA / "BTCUSDT_usdm_15m.parquet").exists(), reason=f"the real candles are not in {DATA}")
def test_the_real_files_go_in_whole(tmp_path):
    """116,681 candles and 3,647 settlements, no gap; again, and not a byte changes."""

    def once():
        bars = import_klines([DATA / "BTCUSDT_usdm_15m.parquet"], "BTCUSDT", tmp_path)
        funding = import_funding([DATA / "BTCUSDT_usdm_funding.parquet"], "BTCUSDT", tmp_path)
        return bars, funding, {p: p.read_bytes() for p in tmp_path.rglob("*") if p.suffix in {".parquet", ".json"}}

    bars, funding, first = once()
    assert (bars.written.new, bars.holes, bars.set_aside, bars.warnings) == (116_681, [], {}, ())
    assert (funding.written.new, funding.holes, funding.set_aside) == (3_647, [], {})
    assert len(bars.written.months) == len(funding.written.months) == 40
    bars, funding, second = once()
    assert (bars.written.same, funding.written.same) == (116_681, 3_647)
    assert first == second
    stored = Candles(tmp_path).bars("BTCUSDT", "15m", venue="binance-usdm")
    raw = pl.read_parquet(DATA / "BTCUSDT_usdm_15m.parquet")
    assert stored.select("open", "high", "low", "close", "volume").equals(raw.drop("timestamp"))
    assert (stored["open_ns"] == raw["timestamp"] * 1_000_000).all()


# -- candles from recorded trades -----------------------------------------------------------------------

DAY = date(2025, 1, 1)
DAY_NS = day_start_ns(DAY)


def recorded(at: list[int], ids: list[int] | None = None, late: dict[int, int] | None = None) -> pl.DataFrame:
    """Prints by the venue's clock, received 2 s late, or as `late` says: {number: ns}."""
    n = len(at)
    received = [ns + 2_000_000_000 + (late or {}).get(i, 0) for i, ns in enumerate(at)]
    frame = TRADES.sample(n, 1).with_columns(
        trade_ns=pl.Series(at), exch_ns=pl.Series(at), recv_ns=pl.Series(received),
        trade_id=pl.Series(ids or list(range(50, 50 + n))), price=pl.Series([100.0 + i % 7 for i in range(n)]), qty=0.3,
        source=pl.Series(["rest" if i in (late or {}) else "ws" for i in range(n)]),
    )  # fmt: skip
    return frame.sort("recv_ns").with_columns(recv_seq=pl.int_range(1, n + 1, dtype=pl.Int64))


def lake_of(root: Path, frame: pl.DataFrame, table=TRADES) -> Lake:
    lake = Lake(root)
    instrument = Instrument("binance-spot", "X", "0.01", "0.00001")
    with lake.writer(instrument, levels=1, replace=False, created_by={}) as writer:
        writer.append(table, frame)
        writer.commit()
    return lake


def every(seconds: int, n: int, start: int = DAY_NS) -> list[int]:
    return [start + 7 + i * seconds * 1_000_000_000 for i in range(n)]


def test_candles_at_the_edges_and_at_a_hole_are_left_out_and_named(tmp_path):
    """A jump of the id at 00:07 costs that minute; the first and the last are cut."""
    at = every(10, 121)  # 20 minutes and one print
    ids = [50 + i + (3 if i >= 45 else 0) for i in range(121)]
    made = make_bars(lake_of(tmp_path, recorded(at, ids)), "X", "1m")
    assert [(ns - DAY_NS) // NS_PER_MIN for ns in made.left_out] == [0, 7, 20]
    assert made.written.new == 18
    assert [((a - DAY_NS) // NS_PER_MIN, n) for a, _, n in made.holes] == [(7, 1)]
    stored = Candles(tmp_path).bars("X", "1m")
    assert (stored["volume"] == 1.8).all()
    assert (stored["n_trades"] == 6).all()


def test_a_candle_over_midnight_of_the_receiver_is_whole_by_the_venues_clock(tmp_path):
    """Prints of 23:59:59 are received on the next day; those filled in by REST count where they were traded."""
    at = every(10, 2 * 8640 + 1)
    late = dict.fromkeys(range(8600, 8635), 10 * NS_PER_MIN)  # filled in ten minutes later, after midnight
    lake = lake_of(tmp_path, recorded(at, late=late))
    assert [f"{ref.day:%Y%m%d}" for ref in lake.days()] == ["20250101", "20250102", "20250103"]
    whole = make_bars(lake, "X", "15m")
    assert whole.written.new == 2 * 96 - 1
    assert [(ns - DAY_NS) // NS_PER_DAY for ns in whole.left_out] == [0, 2]
    stored = Candles(tmp_path).bars("X", "15m")
    assert (stored["n_trades"] == 90).all()
    alone = make_bars(lake, "X", "15m", day="20250102")
    assert (alone.written.new, alone.written.same, alone.left_out) == (0, 96, ())


def test_a_quiet_symbol_is_looked_for_further_back(tmp_path):
    """No print for hours before midnight: the day before has the one that shows that nothing is missing."""
    at = [DAY_NS + h * 60 * NS_PER_MIN for h in (1, 20, 25, 47, 49)]
    lake = lake_of(tmp_path, recorded(at))
    made = make_bars(lake, "X", "1h", day="20250102")
    assert (made.written.new, made.left_out) == (24, ())
    assert Candles(tmp_path).bars("X", "1h")["n_trades"].to_list() == [0, 1, *[0] * 21, 1]


def test_aggregated_prints_do_where_there_are_no_single_ones(tmp_path):
    """How many prints there were is not known then."""
    lake = lake_of(tmp_path, recorded(every(10, 60)), AGG_TRADES)
    made = make_bars(lake, "X", "1m")
    assert made.written.new == 8
    stored = Candles(tmp_path).bars("X", "1m")
    assert stored["n_trades"].null_count() == 8
    assert (stored["volume"] == 1.8).all()


def test_no_whole_candle_is_an_error_and_so_is_a_lake_without_the_day(tmp_path):
    lake = lake_of(tmp_path, recorded(every(10, 60)))
    with pytest.raises(DataError, match="no 15m candle of X was recorded whole: 1 have trades"):
        make_bars(lake, "X", "15m")
    with pytest.raises(DataError, match="no data for X on 20250105"):
        make_bars(lake, "X", "1m", day="20250105")
    with pytest.raises(DataError, match="no data for Y"):
        make_bars(lake, "Y", "1m")


def test_a_torn_part_of_a_day_is_named(tmp_path):
    lake = lake_of(tmp_path, recorded(every(10, 60)))
    path = next(tmp_path.rglob("trades/part-00000.parquet"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"trades/part-00000\.parquet is torn"):
        make_bars(lake, "X", "1m")


@real
def test_the_real_recording_makes_ten_minutes_over_midnight(tmp_path):
    """Each candle from its own prints alone, looked up in the tape; the two at the edges are cut."""
    lake = Lake(tmp_path)
    import_raw(ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001"), SPOT, lake)
    made = make_bars(lake, "BTCUSDT", "1m")
    assert (made.written.new, len(made.left_out), made.holes) == (10, 2, [])
    tape = lake.read(lake.days(), TRADES, TRADES.schema.names()).sort("trade_id")
    stored = BARS.check(Candles(tmp_path).bars("BTCUSDT", "1m"))
    for bar in stored.iter_rows(named=True):
        own = tape.filter(pl.col("trade_ns").is_between(bar["open_ns"], bar["open_ns"] + NS_PER_MIN, closed="left"))
        lots = [round(q * 100_000) for q in own["qty"]]
        bought = sum(n for n, taker in zip(lots, own["taker"], strict=True) if taker == 1)
        assert (bar["open"], bar["close"]) == (own["price"][0], own["price"][-1])
        assert (bar["high"], bar["low"], bar["n_trades"]) == (own["price"].max(), own["price"].min(), own.height)
        assert (bar["volume"], bar["buy_volume"]) == (sum(lots) / 100_000, bought / 100_000)
