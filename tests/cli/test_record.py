"""`mmlab record`, `serve`, `check`, `rebuild` as a user types them: processes, ports, signals, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reference.readme import MMLAB, README, UNSET


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in UNSET} | {"COLUMNS": "120", "NO_COLOR": "1"}


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*MMLAB, *words], cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def running(*words: str, cwd: Path) -> Any:
    """A command beside the test; ended by SIGTERM if it has not ended."""
    process = subprocess.Popen(
        [*MMLAB, *words], cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        if process.stdout is not None:
            process.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def venue(cwd: Path, *words: str) -> Any:
    """`mmlab serve` on a free port."""
    port = free_port()
    with running("serve", "--symbol", "LOOPUSDT", "--port", str(port), *words, cwd=cwd) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"ws://127.0.0.1:{port}/stream"), line
        yield port


def at(port: int) -> list[str]:
    return ["--ws-url", f"ws://127.0.0.1:{port}", "--rest-url", f"http://127.0.0.1:{port}"]


def test_the_readmes_two_terminals_work_as_they_are_printed(tmp_path):
    """Every line of its bash blocks that begins with mmlab, against the venue of the first one."""
    text = README.read_text()
    block = text[text.index("In one terminal:") : text.index("where TODAY is the UTC date")]
    block = block.replace("9417", str(free_port()))
    commands = [line.split() for line in re.findall(r"^mmlab .*$", block, re.MULTILINE)]
    assert [words[1] for words in commands] == ["serve", "record", "check", "walkforward", "rebuild"]
    today = f"{datetime.now(UTC):%Y%m%d}"
    with running(*commands[0][1:], cwd=tmp_path) as server:
        assert server.stdout is not None
        assert "play LOOPUSDT" in server.stdout.readline()
        for words in commands[1:]:
            ran = run(*[today if word == "TODAY" else word for word in words[1:]], cwd=tmp_path)
            assert ran.returncode == 0, f"{words}: {ran.stderr}"
            assert "Traceback" not in ran.stderr
            if words[1] == "check":
                assert "LOOPUSDT" in ran.stdout
                assert "before its window did" in ran.stderr
            if words[1] == "walkforward":
                assert int(re.search(r"orders_placed +│ (\d+)", ran.stdout)[1]) > 0
            if words[1] == "rebuild":
                assert "identical" in ran.stdout
    assert (tmp_path / f"out/walkforward/symbol=LOOPUSDT/day={today}/run=loopback/manifest.json").exists()


def test_a_recorder_shows_its_health_to_prometheus_and_ends_well(tmp_path):
    """Counters, book state and age, on a port of its own; SIGTERM, exit code 0, JSON on the last line."""
    metrics = free_port()
    with venue(tmp_path, "--updates-per-s", "50", "--prints-per-s", "50") as port:
        words = [
            "record",
            "--symbol",
            "LOOPUSDT",
            "--window",
            "always",
            "--metrics-port",
            str(metrics),
            "--json",
            *at(port),
        ]
        with running(*words, "--min-free-mb", "1", cwd=tmp_path) as recorder:
            found = ""
            for _ in range(200):
                time.sleep(0.1)
                try:
                    found = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=2).read().decode()
                except OSError:
                    continue
                if 'mmlab_book_synced{symbol="LOOPUSDT"} 1.0' in found:
                    break
            recorder.send_signal(signal.SIGTERM)
            out, err = recorder.communicate(timeout=30)
            recorder.stdout = recorder.stderr = None
    assert 'mmlab_book_synced{symbol="LOOPUSDT"} 1.0' in found
    assert float(re.search(r"^mmlab_frames_total (\S+)$", found, re.MULTILINE)[1]) > 0
    assert recorder.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["frames"] > 10
    (log,) = (tmp_path / "out/logs/record/LOOPUSDT").glob("*/*/run.log")
    assert "receipt to journal" in log.read_text()
    assert "sync" in log.read_text()
    assert "latency {'stream': 'depth'" in log.read_text()


def test_a_recorder_waits_for_its_window_and_can_be_stopped_meanwhile(tmp_path):
    """It says until when; nothing is connected to, and nothing written but the lock."""
    hour = (datetime.now(UTC).hour + 3) % 24
    window = f"{hour:02d}:00-{(hour + 1) % 24:02d}:00"
    with running("record", "--symbol", "LOOPUSDT", "--window", window, "--tz", "UTC", cwd=tmp_path) as recorder:
        line = recorder.stderr.readline()
        recorder.send_signal(signal.SIGTERM)
        out, err = recorder.communicate(timeout=20)
        recorder.stdout = recorder.stderr = None
    assert line.startswith("waiting for "), line
    assert f"{hour:02d}:00:00 UTC" in line
    assert recorder.returncode == 0, err
    assert "0 messages" in out
    assert not list((tmp_path / "data").glob("venue=*/symbol=*/day=*"))


def test_a_disk_that_is_nearly_full_stops_the_recorder_sealed(tmp_path):
    """Exit code 1, a sentence, and what was received is in the lake."""
    with venue(tmp_path) as port:
        words = ["record", "--symbol", "LOOPUSDT", "--window", "always", "--min-free-mb", "900000000", *at(port)]
        ran = run(*words, cwd=tmp_path)
    assert ran.returncode == 1
    assert "MiB are free under data" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "disk was full" in run("check", "--symbol", "LOOPUSDT", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["record", "--symbol", "X", "--venue", "nasdaq"], "unknown venue 'nasdaq'"),
        (["record", "--symbol", "X", "--window", "8-22"], "--window is '8-22'"),
        (["record", "--symbol", "X", "--tz", "Berlin"], "--tz 'Berlin' is no time zone"),
        (["record", "--symbol", "X", "--streams", "kline_1m"], "--streams names 'kline_1m'"),
        (["record", "--symbol", "X,X"], "--symbol names no symbol, or one twice"),
        (["record", "--symbol", "X", "--flush-ms", "0"], "flush_ms is 0"),
        (["record", "--symbol", "X", "--ws-url", "http://x"], "--ws-url is 'http://x'"),
        (["serve", "--faults", "f.toml"], "a fault does 'explode'"),
        (["serve", "--day", "20250101"], "no data for TESTUSDT"),
        (["serve", "--prints-per-s", "0"], "--prints-per-s is 0"),
        (["serve", "--port", "70000"], "--port is 70000"),
        (["serve", "--speed", "-1"], "--speed is -1"),
        (["serve", "--faults", "none.toml"], "none.toml: No such file"),
        (["record", "--symbol", "X", "--renew-h", "0"], "renew_h is 0"),
        (["rebuild", "--symbol", "X", "--day", "20250101"], "journals are missing"),
        (["check", "--symbol", "X"], "no data for X"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(tmp_path, words, text):
    """It names the flag and what to give; no traceback, and nothing is begun."""
    (tmp_path / "f.toml").write_text('[[fault]]\ndo = "explode"\nevent = 1\n')
    ran = run(*words, cwd=tmp_path)
    assert ran.returncode in (1, 2)
    assert text in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_a_symbol_that_the_venue_does_not_list_is_refused(tmp_path):
    """At the start, by name."""
    with venue(tmp_path) as port:
        ran = run("record", "--symbol", "NOUSDT", "--window", "always", *at(port), cwd=tmp_path)
    assert ran.returncode == 2
    assert "binance-spot does not know NOUSDT" in ran.stderr


def test_a_port_that_is_taken_is_a_sentence(tmp_path):
    """Of the venue, and of the metrics."""
    with venue(tmp_path) as port:
        ran = run("serve", "--port", str(port), cwd=tmp_path)
        assert ran.returncode == 2
        assert f"port {port}" in ran.stderr
        words = ["record", "--symbol", "LOOPUSDT", "--window", "always", "--metrics-port", str(port), *at(port)]
        ran = run(*words, cwd=tmp_path)
        assert ran.returncode == 2
        assert f"--metrics-port {port}" in ran.stderr
