"""`mmlab import klines`, `import funding`, `bars` as a user types them: tables, gaps, messages, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from reference.readme import MMLAB, UNSET

START_MS = 1_704_067_200_000  # 2024-01-01
HEADER = "timestamp,open,high,low,close,volume\n"


def mmlab(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`."""
    clean = {k: v for k, v in os.environ.items() if k not in UNSET} | {"COLUMNS": "160", "NO_COLOR": "1"}
    clean |= environment
    return subprocess.run(
        [*MMLAB, *words], cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=120
    )


def candles(*numbers: int, close: float = 10.0) -> str:
    """A document's CSV of 15-minute candles, with a column that nobody asked for."""
    rows = [f"{START_MS + n * 900_000},10,11,9,{close},1.5,x\n" for n in numbers]
    return HEADER.replace("\n", ",mood\n") + "".join(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files of every kind, and half an hour of made-up trades in a lake of its own."""
    path = tmp_path_factory.mktemp("cli")
    (path / "a.csv").write_text(candles(0, 1, 2, 3, 7, 8, 9, 10))
    (path / "other.csv").write_text(candles(2, 3, close=10.5))
    (path / "bad.csv").write_text(candles(20, 21, 22) + f"{START_MS + 23 * 900_000},10,8,9,10,1,x\nsoon,1,1,1,1,1,x\n")
    (path / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    (path / "datetime.csv").write_text("datetime,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n")
    settled = [START_MS + h * 3_600_000 for h in (0, 8, 24)]
    (path / "f.csv").write_text("timestamp,fundingRate\n" + "".join(f"{at},0.0001\n" for at in settled))
    assert mmlab(path, "synth", "--symbol", "SYN", "--hours", "0.5", "--data-root", "synth").returncode == 0
    return path


def test_an_import_tells_months_rows_and_gaps_and_a_second_one_that_all_is_there(folder, tmp_path):
    words = ("import", "klines", "a.csv", "--symbol", "BTCUSDT", "--data-root", str(tmp_path))
    ran = mmlab(folder, *words)
    assert ran.returncode == 0, ran.stderr
    assert "15m candles of BTCUSDT at binance-usdm" in ran.stdout
    assert "202401 │ 8 " in ran.stdout
    assert "gap: 2024-01-01 01:00 to 2024-01-01 01:45 UTC, 3 missing" in ran.stdout
    assert "columns that were not read: 'mood'" in ran.stderr
    again = mmlab(folder, *words, "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout.splitlines()[-1])
    assert (told["new"], told["same"], told["set_aside"]) == (0, 8, 0)
    assert told["gaps"] == [
        {"from_ns": (START_MS + 3_600_000) * 10**6, "to_ns": (START_MS + 6_300_000) * 10**6, "missing": 3}
    ]
    query = "SELECT venue, symbol, interval, month, count(*), min(open_time) FROM bars GROUP BY ALL"
    asked = mmlab(folder, "sql", query, "--data-root", str(tmp_path), "--format", "csv")
    assert asked.stdout.splitlines()[1].startswith("binance-usdm,BTCUSDT,15m,202401,8,2024-01-01T00:00:00")


def test_a_contradiction_stops_and_replace_takes_the_new(folder, tmp_path):
    base = ("--symbol", "BTCUSDT", "--data-root", str(tmp_path))
    assert mmlab(folder, "import", "klines", "a.csv", *base).returncode == 0
    ran = mmlab(folder, "import", "klines", "other.csv", *base)
    assert ran.returncode == 1
    assert "at 2024-01-01 00:30, close is 10.0 in the lake, 10.5 in the new row" in ran.stderr
    assert "--replace" in ran.stderr
    assert mmlab(folder, "import", "klines", "other.csv", *base, "--replace").returncode == 0


def test_rows_set_aside_are_named_and_the_exit_code_says_so(folder, tmp_path):
    ran = mmlab(folder, "import", "klines", "bad.csv", "--symbol", "BTCUSDT", "--data-root", str(tmp_path))
    assert ran.returncode == 1
    assert "bad.csv: 2 rows set aside: row 5 high 8.0 is below another price; row 6 timestamp is soon" in ran.stderr
    assert "202401 │ 3 " in ran.stdout
    assert "Traceback" not in ran.stderr


def test_settlements_go_in_and_a_missing_one_is_a_gap(folder, tmp_path):
    ran = mmlab(folder, "import", "funding", "f.csv", "--data-root", str(tmp_path), SYMBOL="BTCUSDT")
    assert ran.returncode == 0, ran.stderr
    assert "settlements of BTCUSDT" in ran.stdout
    assert "gap: 2024-01-01 16:00 to 2024-01-02 00:00 UTC, 1 missing" in ran.stdout


def test_candles_are_made_from_recorded_trades(folder):
    """The first is whole, since the market begins with trade 1; the last has no trade after it."""
    ran = mmlab(folder, "bars", "--symbol", "SYN", "--interval", "5m", "--data-root", "synth", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (told["new"], told["left_out"], told["gaps"]) == (5, 1, [])
    assert "1 candles left out, since not all of their trades are known: 2025-01-01 00:25" in ran.stderr
    check = mmlab(folder, "check", "--symbol", "SYN", "--data-root", "synth")
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("import", "klines", "f.csv", "--symbol", "X"), 2, "f.csv holds settlements, not candles"),
        (("import", "funding", "a.csv", "--symbol", "X"), 2, "a.csv holds candles, not settlements"),
        (("import", "klines", "torn.zip", "--symbol", "X"), 1, "torn.zip is torn or no ZIP file"),
        (("import", "klines", "absent.csv", "--symbol", "X"), 2, "absent.csv is not there"),
        (("import", "klines", "datetime.csv", "--symbol", "X"), 1, "a datetime without its zone is not enough"),
        (("import", "klines", "a.csv", "--symbol", "X", "--interval", "1h"), 2,
         "a.csv has 15m candles, --interval says 1h"),
        (("import", "klines", "a.csv", "--symbol", "X", "--interval", "1w"), 2, "interval '1w' is not one of candles"),
        (("import", "klines", "a.csv", "--symbol", "X", "--venue", "moon"), 2, "unknown venue 'moon'"),
        (("bars", "--symbol", "X", "--day", "20250101"), 1, "no data for X on 20250101"),
        (("bars", "--symbol", "SYN", "--interval", "7m", "--data-root", "synth"), 2, "interval '7m'"),
        (("bars", "--symbol", "SYN", "--interval", "4h", "--data-root", "synth"), 1,
         "no 4h candle of SYN was recorded whole"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_fault_is_told_with_a_remedy_and_nothing_is_written(folder, words, code, message):
    ran = mmlab(folder, *words)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) >= 2, "no remedy"
    assert not (folder / "data").exists()
