"""Every shape of candle file is read to the same rows; what cannot be meant is named by its line."""

from __future__ import annotations

import io
import json
from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import DataError, FeedError, UsageError
from mmlab.core.schemas import BARS, FUNDING
from mmlab.core.spans import NS_PER_MIN
from mmlab.venues.klines import (
    DUMP,
    kind_of,
    parse_funding,
    parse_klines,
    parse_rest_funding,
    parse_rest_klines,
    read_table,
)

START = 1_735_689_600_000  # 2025-01-01, when spot's dumps went over to microseconds
QUARTER_MS = 900_000
HOUR_NS = 60 * NS_PER_MIN


def cells(n: int, unit: int = 1, first: int = 0) -> list[list[str]]:
    """Rows of a dump: 12 texts, times in ms (`unit` 1) or microseconds (1000)."""
    rows = []
    for i in range(first, first + n):
        at = (START + i * QUARTER_MS) * unit
        end = at + QUARTER_MS * unit - 1
        rows.append([str(at), "100.10", "101.5", "99.9", f"{100 + i / 100:.2f}", "12.345", str(end), "1234.5", "42",
                     "6.1", "610.0", "0"])  # fmt: skip
    return rows


def dump(n: int, unit: int = 1, header: bool = True, end: str = "\n") -> bytes:
    rows = ([list(DUMP)] if header else []) + cells(n, unit)
    return end.join(",".join(row) for row in rows).encode() + end.encode()


def expected(n: int, known: bool = True) -> list[tuple]:
    return [
        ((START + i * QUARTER_MS) * 1_000_000, 100.1, 101.5, 99.9, float(f"{100 + i / 100:.2f}"), 12.345,
         *((6.1, 42) if known else (None, None)))
        for i in range(n)
    ]  # fmt: skip


def klines(content: bytes, interval_ns: int | None = None):
    return parse_klines(read_table("file.csv", content), interval_ns)


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_dumps_with_and_without_header_in_ms_and_us_are_the_same_candles(unit, header, end):
    parsed = klines(dump(5, unit, header, end))
    assert BARS.check(parsed.frame).rows() == expected(5)
    assert (parsed.interval_ns, parsed.bad, parsed.warnings) == (15 * NS_PER_MIN, (), ())


def document(n: int) -> pl.DataFrame:
    rows = [(row[0] // 1_000_000, *row[1:6]) for row in expected(n)]
    return pl.DataFrame(rows, schema=["timestamp", "open", "high", "low", "close", "volume"], orient="row")


def parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize("write", [parquet, lambda frame: frame.write_csv().encode()], ids=["parquet", "csv"])
def test_the_documents_files_are_read_and_what_they_have_beside_is_named(write):
    frame = document(4).with_columns(datetime=pl.lit("2025"), mood=pl.lit(1)).select("mood", pl.exclude("mood"))
    parsed = parse_klines(read_table("doc", write(frame)))
    assert BARS.check(parsed.frame).rows() == expected(4, known=False)
    assert parsed.warnings == ("doc: columns that were not read: 'mood', 'datetime'",)


def test_a_column_of_lists_is_passed_over_and_named():
    frame = document(3).with_columns(parts=pl.Series([[1], [2], [3]]))
    assert parse_klines(read_table("doc", parquet(frame))).warnings == ("doc: columns that were not read: 'parts'",)
    with pytest.raises(DataError, match="no column open"):
        parse_klines(read_table("doc", parquet(frame.with_columns(open="parts"))))


def test_a_torn_parquet_page_is_a_fault_of_the_file(capfd):
    """Told in one sentence, with nothing else on the terminal."""
    content = bytearray(parquet(document(200)))
    for at in range(4, len(content) // 2, 7):
        content[at] ^= 0x55
    with pytest.raises(DataError, match="doc is torn or no Parquet file"):
        read_table("doc", bytes(content))
    assert capfd.readouterr() == ("", "")


def test_times_may_be_doubles_or_instants_of_a_known_zone():
    frame = document(3)
    instants = frame.with_columns(pl.from_epoch("timestamp", "ms"))
    for written, warned in [
        (frame.with_columns(pl.col("timestamp").cast(pl.Float64)), 0),
        (instants.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")), 0),
        (instants, 1),
    ]:
        parsed = parse_klines(read_table("doc", parquet(written)))
        assert parsed.frame.rows() == expected(3, known=False)
        assert ["no time zone" in text for text in parsed.warnings] == [True] * warned


def test_columns_that_are_missing_are_named_and_a_datetime_alone_is_not_enough():
    for frame, told in [
        (
            document(2).rename({"timestamp": "datetime"}),
            "no column open_time or timestamp: a datetime without its zone",
        ),
        (document(2).drop("volume"), "no column volume"),
    ]:
        with pytest.raises(DataError, match=told) as caught:
            parse_klines(read_table("doc", parquet(frame)))
        assert "its columns are" in caught.value.remedy


BAD = [
    (3, {0: "soon"}, "open_time is soon, no time"),
    (3, {0: "1735689600"}, "open_time is 1735689600, no time in milliseconds"),
    (4, {1: ""}, "open is empty"),
    (4, {2: "high"}, "high is high, no number"),
    (4, {2: "NaN"}, "high is NaN, no number"),
    (4, {5: "inf"}, "volume is inf, no number"),
    (5, {3: "0"}, "low 0.0 is above|a price is above 0"),
    (5, {2: "99.95"}, "high 99.95 is below another price"),
    (5, {3: "100.3"}, "low 100.3 is above another price"),
    (5, {5: "-1"}, "a volume is below 0"),
    (6, {9: "13"}, "the taker's volume 13.0 is more than all of it"),
    (6, {8: "1.5"}, "count is 1.5"),
    (6, {8: "many"}, "count is many, no number"),
    (6, {0: str(START + 4 * QUARTER_MS + 1)}, "which is no multiple of 15m"),
]


@pytest.mark.parametrize(("line", "change", "told"), BAD, ids=[told for _, _, told in BAD])
def test_a_row_that_cannot_be_meant_is_set_aside_by_its_line_and_the_others_stay(line, change, told):
    rows = [list(DUMP), *cells(9)]
    for column, text in change.items():
        rows[line - 1][column] = text
    parsed = klines("\n".join(",".join(row) for row in rows).encode())
    [(number, reason)] = parsed.bad
    assert number == line
    assert any(part in reason for part in told.split("|"))
    assert parsed.frame.rows() == [row for i, row in enumerate(expected(9), 2) if i != line]


def test_torn_and_glued_lines_are_named_too():
    lines = dump(6).split(b"\n")
    lines[2] = lines[2][:25]
    lines[4] += lines[5]
    del lines[5]
    parsed = klines(b"\n".join(lines))
    assert [(row, reason) for row, reason in parsed.bad] == [(3, "has 3 fields, not 12"), (5, "has 23 fields, not 12")]
    assert [row[0] for row in parsed.frame.rows()] == [expected(6)[i][0] for i in (0, 2, 5)]


@given(order=st.permutations(range(8)), twice=st.lists(st.integers(0, 7), max_size=3))
def test_any_order_gives_the_same_candles_and_says_so(order, twice):
    """Rows that come twice count once; the warnings name where it begins."""
    rows = cells(8)
    lines = [",".join(rows[i]) for i in [*order, *twice]]
    parsed = klines("\n".join(lines).encode())
    assert parsed.frame.rows() == expected(8)
    assert any("come twice" in text for text in parsed.warnings) == bool(twice)
    seen = [*order, *twice]
    back = [i + 1 for i in range(1, len(seen)) if seen[i] < seen[i - 1]]
    told = [text for text in parsed.warnings if "run backwards" in text]
    assert told == ([f"file.csv: {len(back)} times run backwards, the first at line {back[0]}: sorted"] if back else [])


def test_two_rows_that_contradict_each_other_are_an_error_that_names_both():
    rows = cells(4)
    rows.append([*rows[1][:5], "99.9", *rows[1][6:]])
    with pytest.raises(DataError, match=r"lines 2 and 5 contradict each other about 2025-01-01 00:15"):
        klines("\n".join(",".join(row) for row in rows).encode())


def test_the_interval_is_the_files_and_is_checked_where_it_is_given():
    """By the commonest step, so that holes do not change it; of one candle by its end."""
    content = b"\n".join(line for i, line in enumerate(dump(20).split(b"\n")) if i not in {3, 4, 9, 11})
    assert klines(content).interval_ns == 15 * NS_PER_MIN
    assert klines(content, 15 * NS_PER_MIN).frame.height == 16
    with pytest.raises(UsageError, match="has 15m candles, --interval says 1h"):
        klines(content, HOUR_NS)
    sparse = pl.concat([document(6)[i] for i in (0, 2, 5)]).write_csv().encode()
    assert klines(sparse).interval_ns == 15 * NS_PER_MIN  # steps of 30 and 45 minutes
    assert klines(dump(1)).interval_ns == klines(dump(1, unit=1000)).interval_ns == 15 * NS_PER_MIN
    one = document(1).write_csv().encode()
    with pytest.raises(UsageError, match="one candle"):
        klines(one)
    assert klines(one, 15 * NS_PER_MIN).frame.height == 1
    weekly = document(4).with_columns(pl.col("timestamp").min() + pl.int_range(4) * 7 * 86_400_000)
    with pytest.raises(DataError, match="has 604800 s candles"):
        klines(weekly.write_csv().encode())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"open_time,open,high,low,close,volume\n", "no row that can be read .it is empty"),
        (b"1,2,3\n", "has no header, and 3 columns instead of 12"),
        (b"PAR1 and then nothing", "torn or no Parquet file"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "has no column"),
        (b"timestamp,open,open,high,low,close,volume\n", "has column 'open' twice"),
        (b"timestamp,open,high,low,close,volume\nx,1,1,1,1,1\n", "line 2 timestamp is x"),
    ],
)
def test_a_file_without_a_candle_is_told_apart_from_one_with_bad_rows(content, told):
    with pytest.raises(DataError, match=told):
        klines(content)


def test_a_price_index_without_volume_is_remarked_on():
    """Mark price dumps have the candles' own names and columns."""
    rows = [[*row[:5], "0", *row[6:8], "0", "0", "0", "0"] for row in cells(3)]
    assert "every volume is 0" in klines("\n".join(",".join(row) for row in rows).encode()).warnings[0]


FUNDING_DUMP = (
    b"calc_time,funding_interval_hours,last_funding_rate\n1735689600003,8,0.00010000\n1735718400000,8,-0.00002\n"
)


def test_settlements_of_all_shapes_are_the_same_rows():
    """The stamps of two sources differ by milliseconds; the settlement is one."""
    at = [START * 1_000_000, START * 1_000_000 + 8 * HOUR_NS]
    document = pl.DataFrame({"timestamp": [START, START + 28_800_001], "fundingRate": [0.0001, -0.00002]})
    rest = json.dumps([
        {"symbol": "X", "fundingTime": START + 28_800_000, "fundingRate": "-0.00002000", "markPrice": "1"},
        {"symbol": "X", "fundingTime": START, "fundingRate": "0.00010000", "markPrice": ""},
    ])  # fmt: skip
    for frame in (
        parse_funding(read_table("f", FUNDING_DUMP)).frame,
        parse_funding(read_table("f", parquet(document))).frame,
        parse_funding(read_table("f", document.write_csv().encode())).frame,
        parse_rest_funding(rest.encode()),
    ):
        assert FUNDING.check(frame).rows() == list(zip(at, [0.0001, -0.00002], strict=True))


def test_settlements_off_the_hour_stay_where_they_are():
    content = b"timestamp,fundingRate\n1735690000000,0.1\n"
    assert parse_funding(read_table("f", content)).frame["ts_ns"][0] == 1_735_690_000_000_000_000


def test_settlements_that_cannot_be_meant_are_named():
    content = FUNDING_DUMP + b"1735747200000,8,\n1735776000000,8,12.5\n,8,0.1\n1735804800000,8\n"
    parsed = parse_funding(read_table("f", content))
    assert parsed.frame.height == 2
    assert sorted(parsed.bad) == [
        (4, "last_funding_rate is empty"),
        (5, "the rate 12.5 is no fraction of a notional"),
        (6, "calc_time is , no time in milliseconds or microseconds"),
        (7, "has 2 fields, not 3"),
    ]
    with pytest.raises(DataError, match="lines 2 and 4 contradict"):
        parse_funding(read_table("f", FUNDING_DUMP + b"1735689600000,8,0.0002\n"))


def test_candles_and_settlements_are_told_apart():
    assert kind_of(read_table("f", dump(1))) == kind_of(read_table("f", dump(1, header=False))) == "klines"
    assert kind_of(read_table("f", FUNDING_DUMP)) == "funding"
    assert kind_of(read_table("f", b"a,b\n1,2\n")) == ""


def rest(rows: list[list[str]]) -> bytes:
    return json.dumps([[int(v) if i in {0, 6, 8} else v for i, v in enumerate(row)] for row in rows]).encode()


@pytest.mark.parametrize("unit", [1, 1000])
def test_rest_candles_are_those_of_the_dump(unit):
    assert parse_rest_klines(rest(cells(5, unit))).rows() == expected(5)
    assert parse_rest_klines(rest(cells(1))).rows() == expected(1)
    assert parse_rest_klines(b"[]").equals(BARS.empty())
    assert parse_rest_funding(b"[]").equals(FUNDING.empty())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"code":-1121}', b"[[1,2]]", rest(cells(3))[:-9], b"[" * 100_000, b"\xff[]",
     rest([[*cells(1)[0][:2], "1", *cells(1)[0][3:]]]), rest([["1", *cells(1)[0][1:]]]),
     rest([cells(1)[0], [*cells(1)[0][:5], "1", *cells(1)[0][6:9], "0", "0", "0"]]),
     b'[{"fundingTime": 1735689600000, "fundingRate": "much"}]'],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_fault_of_the_feed(body):
    """HTML, an error's object, a torn body, a high below the low, a time in seconds, a contradiction."""
    for parse in (parse_rest_klines, parse_rest_funding):
        with pytest.raises(FeedError, match="bad answer"):
            parse(body)


def test_a_day_of_the_clock_is_read_as_it_says():
    """2025-01-01 00:00 UTC, whatever the zone of the machine."""
    [at] = parse_rest_klines(rest(cells(1))).select(pl.from_epoch("open_ns", "ns")).to_series()
    assert at == datetime(2025, 1, 1)


@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=6),
    header=st.booleans(),
)
def test_whatever_a_file_holds_each_line_is_read_or_named(edits, header):
    """Bytes put in and taken out anywhere: rows of the contract, every other line is in `bad` or came twice."""
    content = dump(12, header=header)
    for at, put, take in edits:
        place = at % len(content)
        content = content[:place] + put + content[place + take :]
    try:
        raw = read_table("file.csv", content)
        parsed = parse_klines(raw)
    except (DataError, UsageError):
        return
    BARS.check(parsed.frame)
    assert (parsed.frame["open_ns"] % parsed.interval_ns == 0).all()
    lines = [line for line in content.decode("utf-8-sig", errors="replace").split("\n") if line.strip()]
    twice = sum(int(text.split()[1]) for text in parsed.warnings if "come twice" in text)
    assert parsed.frame.height + len(parsed.bad) + twice in {len(lines), len(lines) - 1}
    assert len({bad.row for bad in parsed.bad}) == len(parsed.bad)
