"""Candles come back as they were merged; a contradiction, a torn file and a killed writer lose nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.core.errors import DataError, LakeError, TableError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import BARS, FUNDING, TRADES
from mmlab.core.spans import NS_PER_MIN, day_start_ns
from mmlab.store.candles import AbsentError, Candles, merge
from mmlab.store.lake import Lake
from mmlab.store.sql import connect, run

QUARTER = 15 * NS_PER_MIN
START = day_start_ns(date(2024, 1, 30))
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = BARS.schema.names()


def bars(n: int, first: int = 0, price: float = 100.0, volume: float = 5.0) -> pl.DataFrame:
    """`n` candles of 15 minutes, from the `first` after START on."""
    rows = [(START + (first + i) * QUARTER, price, price + 1, price - 1, price + 0.5, volume, None, None)
            for i in range(n)]  # fmt: skip
    return pl.DataFrame(rows, schema=BARS.schema, orient="row")


def write(root: Path, frame: pl.DataFrame, *, replace=False, source=None, symbol="BTCUSDT", interval="15m", venue="v"):
    return Candles(root).write(BARS, venue, symbol, interval, frame, replace=replace, source=source or {"of": "test"})


def month_folder(root: Path, month: str = "202401") -> Path:
    return root / "venue=v/symbol=BTCUSDT/interval=15m" / f"month={month}"


def files(root: Path) -> dict[str, bytes]:
    """Every file but the locks, which name processes."""
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".lock"
    }


def test_what_is_written_is_read_back_over_months(tmp_path):
    """Rows go to their UTC months; a range is [start, end)."""
    frame = bars(400)
    made = write(tmp_path, frame)
    assert made.months == ("202401", "202402")
    assert (made.new, made.same, made.replaced, made.completed) == (400, 0, 0, 0)
    candles = Candles(tmp_path)
    assert candles.bars("BTCUSDT", "15m").equals(frame)
    assert candles.bars("BTCUSDT", "15m", START + QUARTER, START + 3 * QUARTER).equals(frame[1:3])
    assert candles.bars("BTCUSDT", "15m", START + 195 * QUARTER, venue="v").equals(frame[195:])
    assert candles.bars("BTCUSDT", "15m", None, START + 1).equals(frame[:1])
    assert candles.bars("BTCUSDT", "900s").equals(frame)
    for month in ("202401", "202402"):
        stored = pl.read_parquet(month_folder(tmp_path, month) / "bars/part-00000.parquet", hive_partitioning=False)
        at = stored["open_ns"][-1] // 10**9
        assert f"{datetime.fromtimestamp(at, UTC):%Y%m}" == month
        manifest = json.loads((month_folder(tmp_path, month) / "manifest.json").read_text())
        assert manifest["part"]["rows"] == stored.height
        assert (manifest["first_ns"], manifest["last_ns"]) == (stored["open_ns"][0], stored["open_ns"][-1])
        assert manifest["sources"] == [{"of": "test"}]


row = st.tuples(st.integers(0, 300), st.sampled_from([100.0, 200.0]), st.sampled_from([None, 1.0, 2.0]))


@settings(max_examples=25)
@given(writes=st.lists(st.tuples(st.lists(row, max_size=12), st.booleans()), max_size=5))
def test_merging_is_what_a_dictionary_would_do(tmp_path_factory, writes):
    """The slow twin: a dictionary by time, in which a null says nothing and a contradiction is refused or replaces."""
    root, known = tmp_path_factory.mktemp("lake"), dict[int, tuple[float, float | None]]()
    for rows, replace in writes:
        given_rows = {n: (price, bought) for n, price, bought in rows}
        clashes = {
            n for n, (price, bought) in given_rows.items()
            if n in known and (known[n][0] != price or (None not in (known[n][1], bought) and known[n][1] != bought))
        }  # fmt: skip
        own = [
            bars(1, n, price).with_columns(buy_volume=pl.lit(bought, pl.Float64))
            for n, (price, bought) in given_rows.items()
        ]
        frame = pl.concat([BARS.empty(), *own])
        if clashes and not replace:
            before = files(root)
            with pytest.raises(DataError, match=f"{len([c for c in clashes if in_first(c, clashes)])} rows contradict"):
                write(root, frame)
            assert files(root) == before
            continue
        made = write(root, frame, replace=replace)
        gains = {n for n in given_rows.keys() & known.keys() - clashes if known[n][1] is None and given_rows[n][1]}
        new = given_rows.keys() - known.keys()
        assert (made.new, made.replaced, made.completed) == (len(new), len(clashes), len(gains))
        assert made.same == len(given_rows) - len(new) - len(clashes) - len(gains)
        known |= {n: given_rows[n] for n in new | clashes | gains}
    if known:
        stored = Candles(root).bars("BTCUSDT", "15m").select("open_ns", "open", "buy_volume").rows()
        assert stored == [(START + n * QUARTER, *known[n]) for n in sorted(known)]


def in_first(n: int, clashes: set[int]) -> bool:
    """True if candle `n` is in the month of the first clash: a refusal counts within one month."""
    return (n < 192) == (min(clashes) < 192)  # 30 and 31 January have 192


def test_a_contradiction_is_refused_with_both_values_and_nothing_is_written(tmp_path):
    """Not even the months before it."""
    write(tmp_path, bars(10, first=250))
    before = files(tmp_path)
    with pytest.raises(DataError) as caught:
        write(tmp_path, pl.concat([bars(250), bars(5, first=250), bars(5, first=255, price=101.0)]))
    assert "5 rows contradict" in caught.value.message
    assert "2024-02-01 15:45, open is 100.0 in the lake, 101.0 in the new row" in caught.value.message
    assert "--replace" in caught.value.remedy
    assert files(tmp_path) == before


def test_replacing_takes_the_new_row_whole(tmp_path):
    """What the old row knew beside is not mixed with the new one's prices."""
    write(tmp_path, bars(3).with_columns(n_trades=7))
    made = write(tmp_path, bars(1, first=1, price=50.0), replace=True)
    assert (made.new, made.same, made.replaced) == (0, 0, 1)
    stored = Candles(tmp_path).bars("BTCUSDT", "15m")
    assert stored["open"].to_list() == [100.0, 50.0, 100.0]
    assert stored["n_trades"].to_list() == [7, None, 7]


def test_writing_again_changes_no_byte_and_order_of_imports_none_either(tmp_path):
    """Also the manifest's: sources are noted once, and in an order of their own."""
    first, second = bars(200), bars(300, first=150)
    for name, order in (("a", (first, second)), ("b", (second, first)), ("c", (first, second, first, second))):
        for frame in order:
            write(tmp_path / name, frame, source={"rows": 1})
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")
    assert len(files(tmp_path / "a")) == 4


def test_rows_that_break_the_contract_are_refused(tmp_path):
    """Off the grid, twice, not finite, a low above the open: whoever parsed them should have said so before."""
    for frame, told in [
        (bars(2).with_columns(pl.col("open_ns") + 1), "do not start at a multiple of 15m"),
        (pl.concat([bars(1), bars(1)]), "not unique"),
        (bars(1).with_columns(high=float("inf")), "finite"),
        (bars(1).with_columns(volume=float("nan")), "finite"),
        (bars(1).with_columns(low=100.2), "lowest"),
        (bars(1).with_columns(low=0.0), "above 0"),
        (bars(1).with_columns(buy_volume=6.0), "part of volume"),
    ]:
        with pytest.raises(TableError, match=told):
            write(tmp_path, frame)
    with pytest.raises(UsageError):
        write(tmp_path, bars(1), interval="funding")
    with pytest.raises(UsageError):
        write(tmp_path, bars(1), venue="../up")
    assert files(tmp_path) == {}


def test_settlements_have_a_series_of_their_own(tmp_path):
    frame = pl.DataFrame({"ts_ns": [START, START + 32 * QUARTER], "rate": [0.0001, -0.0002]})
    candles = Candles(tmp_path)
    candles.write(FUNDING, "v", "BTCUSDT", "funding", frame, replace=False, source={})
    assert candles.funding("BTCUSDT", START, START + 1).equals(frame[:1])
    assert candles.funding("BTCUSDT", venue="v").equals(frame)
    assert (tmp_path / "venue=v/symbol=BTCUSDT/interval=funding/month=202401/funding/part-00000.parquet").exists()
    with pytest.raises(AbsentError, match="no 15m candles of BTCUSDT"):
        candles.bars("BTCUSDT", "15m")


def test_what_is_absent_is_told_with_what_there_is(tmp_path):
    """Another length, another symbol, another stretch; and how to get it."""
    candles = Candles(tmp_path)
    with pytest.raises(LakeError, match="no 15m candles of BTCUSDT") as caught:
        candles.bars("BTCUSDT", "15m")
    assert caught.value.remedy.startswith("mmlab import klines")
    write(tmp_path, bars(400))
    for asked, told in [
        (("BTCUSDT", "1h"), "no 1h candles of BTCUSDT under"),
        (("ETHUSDT", "15m"), "no 15m candles of ETHUSDT under"),
        (("BTCUSDT", "15m", 0, START), "from 1970-01-01 00:00 to 2024-01-30 00:00"),
        (("BTCUSDT", "15m", None, None, "w"), "no 15m candles of BTCUSDT at w"),
    ]:
        with pytest.raises(AbsentError) as caught:
            candles.bars(*asked)
        assert told in caught.value.message
        assert "15m candles of BTCUSDT at v, 202401 to 202402" in caught.value.remedy
    with pytest.raises(AbsentError) as caught:
        candles.funding("BTCUSDT")
    assert "mmlab import funding" in caught.value.remedy
    write(tmp_path, bars(1), venue="w")
    with pytest.raises(UsageError, match="is at v and w"):
        candles.bars("BTCUSDT", "15m")


def test_all_series_are_listed_with_their_checksums(tmp_path):
    write(tmp_path, bars(400))
    write(tmp_path, bars(1), symbol="A/B")
    candles = Candles(tmp_path)
    assert [s.symbol for s in candles.intervals()] == ["A/B", "BTCUSDT"]
    [series] = candles.intervals("BTCUSDT")
    assert (series.venue, series.interval, series.rows) == ("v", "15m", 400)
    assert (series.first_ns, series.last_ns) == (START, START + 399 * QUARTER)
    assert list(series.parts) == ["202401", "202402"]
    assert candles.bars("A/B", "15m").height == 1


@pytest.mark.parametrize("harm", ["cut", "grown", "flipped", "gone", "manifest cut", "manifest gone"])
def test_a_file_that_is_not_the_one_written_is_named(tmp_path, harm):
    """Whoever reads or writes that month is told; other months are fine."""
    write(tmp_path, bars(400))
    folder = month_folder(tmp_path)
    path = folder / ("manifest.json" if "manifest" in harm else "bars/part-00000.parquet")
    content = path.read_bytes()
    if "gone" in harm:
        path.unlink()
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-9], "grown": content + b"x", "flipped": flipped}.get(harm, content[:20]))
    candles = Candles(tmp_path)
    for touch in (lambda: candles.bars("BTCUSDT", "15m"), lambda: write(tmp_path, bars(3)), candles.intervals):
        with pytest.raises(LakeError) as caught:
            touch()
        assert str(folder) in caught.value.message
        assert str(folder) in caught.value.remedy
    assert candles.bars("BTCUSDT", "15m", START + 192 * QUARTER).height == 208


CHILD = """
import sys
from pathlib import Path
import polars as pl
from mmlab.core.schemas import BARS
from mmlab.store.candles import Candles
frame = pl.read_parquet(sys.argv[2], hive_partitioning=False)
print(Candles(Path(sys.argv[1])).write(BARS, "v", "BTCUSDT", "15m", frame, replace=False, source={"of": "child"}).new)
"""


def child(root: Path, frame: pl.DataFrame, crash_at: str = "") -> subprocess.Popen[str]:
    """A process that writes `frame`, and kills itself at a step."""
    path = root.parent / f"{frame['open_ns'][0]}.parquet"
    frame.write_parquet(path)
    words = [sys.executable, "-c", CHILD, str(root), str(path)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "MMLAB_CRASH_AT": crash_at})


STEPS = ("part staged", "manifest staged", "part in place", "month in place")


def test_a_writer_killed_at_any_step_leaves_every_month_whole(tmp_path):
    """The old month or the new one, for readers and for SQL at once; and the next write finishes the work."""
    before, more = bars(100), bars(300, first=50)
    write(tmp_path / "whole", before)
    write(tmp_path / "whole", more, source={"of": "child"})
    lakes = {step: tmp_path / step / "data" for step in STEPS}
    for root in lakes.values():
        write(root, before)
    children = {step: child(root, more, f"candles: {step}") for step, root in lakes.items()}
    for step, process in children.items():
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        root = lakes[step]
        n = 100 if step in STEPS[:2] else 192
        assert (
            Candles(root)
            .bars("BTCUSDT", "15m")
            .equals(pl.concat([before, more.filter(pl.col("open_ns") > before["open_ns"][-1])])[:n])
        )
        assert run(connect(root, tmp_path / "out"), "SELECT count(*) FROM bars").item() == n
        assert Candles(root).intervals()[0].rows == n
        write(root, more, source={"of": "child"})
        assert files(root) == files(tmp_path / "whole")


def test_two_writers_at_once_lose_no_row_of_each_other(tmp_path):
    """They wait for each other; the rows of both are there."""
    root = tmp_path / "data"
    children = [child(root, bars(40, first=40 * n)) for n in range(3)]
    assert [process.communicate()[0].strip() for process in children] == ["40"] * 3
    assert Candles(root).bars("BTCUSDT", "15m").equals(bars(120))


def test_a_reader_beside_a_writer_sees_one_month_or_the_other(tmp_path):
    """Never a mixture, and never a fault."""
    write(tmp_path, bars(50))
    prices = [100.0 + n for n in range(25)]

    def rewrite() -> None:
        for price in prices:
            write(tmp_path, bars(50, price=price), replace=True)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        while not writing.done():
            seen = Candles(tmp_path).bars("BTCUSDT", "15m")
            assert any(seen.equals(bars(50, price=price)) for price in prices)
        writing.result()
    assert Candles(tmp_path).bars("BTCUSDT", "15m").equals(bars(50, price=prices[-1]))


def test_recorded_days_and_candles_do_not_see_each_other(tmp_path):
    """Days, their checks and their views are what they were; and the reverse."""
    write(tmp_path, bars(400), venue="binance-spot", symbol="AAA")
    before = files(tmp_path)
    lake = Lake(tmp_path)
    assert lake.days() == []
    at = day_start_ns(date(2024, 1, 30)) + pl.int_range(4, dtype=pl.Int64)
    with lake.writer(Instrument("binance-spot", "AAA", "0.01", "0.00001"), levels=1, replace=True, created_by={}) as w:
        w.append(TRADES, TRADES.sample(4, 1).with_columns(recv_ns=at))
        [ref] = w.commit()
    assert [r.path for r in lake.days(symbol="AAA")] == [ref.path]
    assert lake.verify(ref) == []
    assert files(tmp_path).items() >= before.items()
    con = connect(tmp_path, tmp_path / "out")
    assert run(con, "SELECT count(*) FROM trades").item() == 4
    keys = run(con, "SELECT venue, symbol, interval, month, count(*) FROM bars GROUP BY ALL ORDER BY ALL").rows()
    assert keys == [("binance-spot", "AAA", "15m", "202401", 192), ("binance-spot", "AAA", "15m", "202402", 208)]
    assert run(con, "SELECT count(*) FROM funding WHERE interval = 'funding'").item() == 0
    shutil.rmtree(ref.path)
    assert [s.rows for s in Candles(tmp_path).intervals()] == [400]


def test_merging_into_nothing_is_the_rows_themselves():
    made = merge(BARS, None, bars(5))
    assert made.rows.equals(bars(5))
    assert (made.new, made.changed, made.contradiction) == (5, True, None)
