"""`mmlab fetch` as a user types it, against `mmlab serve`: what is printed, exit codes, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmlab.serve.faults import Fault
from mmlab.store.candles import Candles
from reference.child import wait_for
from reference.history import SYMBOL, Asked, bars, history

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "VENUE", "DATA_ROOT", "REST_URL"}} | {
    "COLUMNS": "200", "NO_COLOR": "1",
}  # fmt: skip
RANGE = ("--interval", "15m", "--start", "2024-02-01", "--end", "2024-02-25")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*MMLAB, "fetch", *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(folder: Path, at: Asked, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with start(folder, words[0], "--symbol", SYMBOL, "--rest-url", at.url, *words[1:]) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_a_fetch_that_is_killed_is_typed_again_and_ends(tmp_path):
    """SIGKILL during the third page; the second command asks for the rest alone, shows it, and says where it is."""
    with history(Fault("rest", request=3, path="klines", wait_s=60)) as at:
        with start(tmp_path, "klines", "--symbol", SYMBOL.lower(), "--rest-url", at.url, *RANGE) as process:
            wait_for(lambda: len(at.requests("klines")) == 3, 60)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    with history() as at:
        code, out, err = fetch(tmp_path, at, "klines", *RANGE)
        assert code == 0
        assert len(at.requests("klines")) == 1
    assert "400 new 15m candles of TESTUSDT, 2,000 were there: 2024-02-01 00:00 to 2024-02-25 23:45 UTC, 2 req" in out
    assert "wrote data/venue=binance-usdm/symbol=TESTUSDT" in out
    assert "fetch 15m candles: 100%" in err
    assert Candles(tmp_path / "data").bars(SYMBOL, "15m").equals(bars("2024-02-01", "2024-02-26"))


def test_settlements_and_gaps_are_told_and_json_has_them_all(tmp_path):
    with history() as at:
        code, out, err = fetch(tmp_path, at, "funding", "--start", "2019-01-01", "--end", "2019-09-30", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["new"] == 69
    assert "warning: binance-usdm has none before 2019-09-08 00:00" in err


@pytest.mark.parametrize(
    ("words", "fault", "code", "message"),
    [
        (("klines", *RANGE, "--symbol", "NOUSDT"), None, 2, "binance-usdm does not know NOUSDT"),
        (("klines", *RANGE, "--start", "2024-03-01"), None, 2, "is not before --end 2024-02-26 00:00"),
        (("klines", *RANGE, "--tries", "1"), {"status": 503}, 1, "gave no whole answer in 1 tries: HTTP 503"),
    ],
)
def test_faults_are_messages_with_a_remedy_and_no_traceback(tmp_path, words, fault, code, message):
    faults = [] if fault is None else [Fault("rest", request=1, path="klines", count=9, **fault)]
    with history(*faults) as at:
        got, _, err = fetch(tmp_path, at, *words)
    assert got == code
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) >= 2
