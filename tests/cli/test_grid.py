"""`mmlab grid` as a user types it: what it prints, what it refuses and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mmlab.cli.app import main
from mmlab.core.grid_schemas import GRID_METRICS
from mmlab.core.schemas import BARS, FUNDING
from mmlab.grid.config import LOOK_AHEAD, Config, parse
from mmlab.store.candles import Candles
from reference import grid_frames as some

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
BUSY = """[strategy]
spacing_floor = 0.001
grid_spacing_k = 0.3
adaptive_floor_scale = 0.3
order_pct = 0.2
kelly_window = 0
[backtest]
coins = ["A", "B"]
start = ""
"""


def mmlab(folder: Path, *words: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`; `code` runs before it in the same process."""
    kept = {k: v for k, v in os.environ.items() if k not in {"DATA_ROOT", "OUT_ROOT", "RUN_ID", "VENUE"}}
    command = [MMLAB[0], "-c", f"{code}\n{MMLAB[2].replace('; ', chr(10))}"]
    return subprocess.run(
        [*command, *words], cwd=folder, env={**kept, "COLUMNS": "200", "NO_COLOR": "1", **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two coins of 400 bars, one of 60; a config, and configs with faults."""
    path = tmp_path_factory.mktemp("grid")
    lake = Candles(path / "data")
    for seed, symbol in enumerate(("AUSDT", "BUSDT"), 1):
        bars = some.bars_of(some.minutes(seed, 400))
        lake.write(BARS, "binance-usdm", symbol, "15m", bars, replace=False, source={"file": "test"})
        settled = some.funding_of(bars, seed)
        lake.write(FUNDING, "binance-usdm", symbol, "funding", settled, replace=False, source={"file": "test"})
    lake.write(BARS, "binance-usdm", "CUSDT", "15m", bars[:60], replace=False, source={"file": "test"})
    (path / "grid.toml").write_text(BUSY)
    (path / "key.toml").write_text("[strategy]\ngama = 1\n")
    (path / "type.toml").write_text('[strategy]\ngamma = "high"\n')
    (path / "torn.toml").write_text("[strategy\n")
    return path


def results(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "out").rglob("*") if p.is_file() and "logs" not in p.parts)


RUN = ("grid", "backtest", "--config", "grid.toml", "--no-plot")


def test_coins_in_every_way_of_writing_are_the_same_run(folder):
    """Words, commas, repeated flags; symbols in full; the summary is that of the document."""
    ways = (["--coins", "A", "B"], ["--coins", "a/usdt", "--coins", "BUSDT"])
    shown = []
    for k, words in enumerate(ways):
        ran = mmlab(folder, *RUN, *words, "--run-id", f"way{k}")
        assert ran.returncode == 0, ran.stderr
        head, _, wrote = ran.stdout.rstrip().rpartition("\n")
        shown.append(head)
        assert wrote.startswith("wrote out/grid/method=backtest/symbol=AUSDT-BUSDT/")
    assert len(set(shown)) == 1
    lines = shown[0].splitlines()
    assert lines[:3] == [
        "Grid | Hedge Mode | KAMA Regime | 15m Candles | Fills: next-bar",
        "Capital: $10,000 | Leverage: 1x | Short: ON",
        "Coins: A, B | Period: 2024-01-01 → 2024-01-05",
    ]
    titles = [line.strip() for line in lines if "Performance Summary" in line]
    assert titles == [f"{name} — Performance Summary" for name in ("A/USDT", "B/USDT", "Portfolio")]
    names = [line[2:20].strip() for line in lines if line.startswith("  ") and "—" not in line]
    wanted = ("Return", "Buy & Hold", "Max Drawdown", "Sharpe", "Sortino", "Calmar", "Trades", "Win rate",
              "Profit factor", "Stops long/short", "Prunes", "Halts", "Funding", "Fees", "Liquidations")  # fmt: skip
    assert all(names.count(name) == 3 for name in wanted), names


def test_the_flags_reach_the_run(folder):
    """Each in the manifest; --set counts most, then flags, then the file."""
    ran = mmlab(
        folder, *RUN, "--coins", "A", "--capital", "500", "--leverage", "2", "--no-short", "--fills", "touch-through",
        "--start", "2024-01-02", "--end", "2024-01-04", "--tick-size", "0.05", "--lot-size", "0.01",
        "--min-notional", "7", "--set", "gamma=0.3", "--set", "leverage=3", "--run-id", "flags", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    spec = json.loads((folder / last["path"] / "manifest.json").read_text())["spec"]
    given = {"initial_capital": 500.0, "leverage": 3.0, "gamma": 0.3, "kelly_window": 0, "order_pct": 0.2}
    assert {name: spec["strategy"][name] for name in given} == given
    venue = {"fills": "touch-through", "tick_size": "0.05", "lot_size": "0.01", "min_notional": 7.0, "no_short": True,
             "start": "2024-01-02", "end": "2024-01-04", "coins": ["A"]}  # fmt: skip
    assert {name: spec["backtest"][name] for name in venue} == venue
    assert spec["day"] == "20240102..20240104"
    assert "Long Only" in ran.stdout
    assert "Short: OFF" in ran.stdout
    assert last["metrics"]["AUSDT"]["shorts_opened"] == 0.0
    table = pl.read_parquet(folder / last["path"] / "grid_metrics.parquet", hive_partitioning=False)
    assert last["metrics"]["AUSDT"] == dict(GRID_METRICS.check(table).select("metric", "value").rows())


def test_a_look_ahead_is_said_on_the_screen(folder):
    """In the head, in each block, as a warning, and in the JSON."""
    ran = mmlab(folder, *RUN, "--fills", "peer", "--run-id", "peer", "--json")
    assert ran.returncode == 0, ran.stderr
    assert f"*** {LOOK_AHEAD} ***" in ran.stdout
    assert ran.stdout.count(f"Performance Summary ({LOOK_AHEAD})") == 3
    assert LOOK_AHEAD in ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["label"] == LOOK_AHEAD


def test_charts_are_drawn_and_report_draws_them_again(folder):
    """PNG files and the page, without --no-plot."""
    ran = mmlab(folder, *RUN[:4], "--coins", "A", "--run-id", "charts")
    assert ran.returncode == 0, ran.stderr
    path = folder / ran.stdout.splitlines()[-1].removeprefix("wrote ")
    assert {"A_equity.png", "A_trades.png", "report.html"} <= {p.name for p in path.iterdir()}
    (path / "A_equity.png").unlink()
    assert mmlab(folder, "report", "charts").returncode == 0
    assert (path / "A_equity.png").exists()


def test_lookahead_is_fine_for_the_engine_and_fails_for_the_peer(folder):
    """Exit code 1, and why."""
    fine = mmlab(folder, "grid", "lookahead", "--config", "grid.toml", "--cuts", "4", "--seed", "1")
    assert fine.returncode == 0, fine.stderr
    assert [line.partition(" (")[0] for line in fine.stdout.splitlines()] == ["AUSDT: OK", "BUSDT: OK"]
    peer = mmlab(folder, "grid", "lookahead", "--config", "grid.toml", "--coins", "A", "--fills", "peer", "--json")
    assert peer.returncode == 1
    assert "AUSDT: LOOK-AHEAD" in peer.stdout
    assert "was decided at the close of 2024-01-0" in peer.stdout
    assert json.loads(peer.stdout.splitlines()[-1])["AUSDT"]["ok"] is False


def test_the_printed_config_is_one_that_can_be_used(folder):
    """mmlab grid config > grid.toml."""
    ran = mmlab(folder, "grid", "config")
    assert parse(ran.stdout, "it") == Config()
    shown = mmlab(folder, "grid", "config", "--table").stdout
    assert "risk aversion of Avellaneda and Stoikov" in shown


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--coins", "NOPE"), 1, "no 15m candles of NOPEUSDT under data"),
        (("--coins", "A", "NOPE"), 1, "no 15m candles of NOPEUSDT under data"),
        (("--coins", "A", "a/usdt"), 2, "name one twice"),
        (("--coins", "A B"), 2, "coin 'A B' is no name"),
        (("--coins", ""), 2, "the command: coins is ()"),
        (("--start", "2024-02-01", "--end", "2024-01-01"), 2, "--start 2024-02-01 lies after --end 2024-01-01"),
        (("--start", "January"), 2, "--start is 'January'"),
        (("--end", "2024-13-01"), 2, "--end is '2024-13-01'"),
        (("--start", "2025-01-01"), 1, "no 15m candles of AUSDT from 2025-01-01"),
        (("--coins", "C"), 2, "CUSDT: 60 bars are too few"),
        (("--start", "2024-01-05"), 2, "bars are too few"),
        (("--config", "absent.toml"), 2, "absent.toml is missing"),
        (("--config", "key.toml"), 2, "key.toml [strategy]: unknown gama"),
        (("--config", "type.toml"), 2, "type.toml [strategy]: gamma is 'high'"),
        (("--config", "torn.toml"), 2, "torn.toml is not TOML"),
        (("--fills", "magic"), 2, "--fills is 'magic'"),
        (("--set", "gamma"), 2, "--set is 'gamma'"),
        (("--set", "gama=1"), 2, "--set: unknown gama"),
        (("--set", "gamma=0"), 2, "--set: gamma is 0"),
        (("--capital", "0"), 2, "initial_capital is 0"),
        (("--leverage", "1000"), 2, "leverage is 1000"),
        (("--tick-size", "tiny"), 2, "tick_size is 'tiny'"),
        (("--lot-size", "0.0"), 2, "lot_size is 0.0"),
        (("--interval", "7m"), 2, "interval '7m'"),
        (("--intrabar", "5m"), 2, "--intrabar is '5m'"),
        (("--venue", "nowhere"), 1, "no 15m candles of AUSDT at nowhere"),
        (("--data-root", "nowhere"), 1, "no 15m candles of AUSDT under nowhere"),
        (("--log-level", "LOUD"), 2, "LOG_LEVEL is 'LOUD'"),
        (("--run-id", "a/b"), 2, "--run-id is 'a/b'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_fault_is_told_with_a_remedy(folder, words, code, message, monkeypatch, capsys):
    """Message on standard error, exit code 1 for data and 2 for usage, nothing half written."""
    before = results(folder)
    for name in ("DATA_ROOT", "OUT_ROOT", "OUT_DIR", "RUN_ID", "VENUE", "LOG_LEVEL", "LOG_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["mmlab", *RUN, *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = capsys.readouterr().err
    assert stopped.value.code == code, told
    assert message in told
    assert len(told.strip().splitlines()) >= 2, "no remedy"
    assert results(folder) == before


def test_a_run_id_that_is_taken_is_refused(folder):
    """Nothing is overwritten."""
    words = (*RUN, "--coins", "B", "--run-id", "taken")
    assert mmlab(folder, *words).returncode == 0
    again = mmlab(folder, *words)
    assert again.returncode == 2
    assert "run taken exists already" in again.stderr


def test_without_matplotlib_charts_are_refused_before_anything_is_run(folder):
    """--no-plot works without it, and is what the message says."""
    code = "import sys; sys.modules['matplotlib'] = None"
    before = results(folder)
    ran = mmlab(folder, *RUN[:4], code=code)
    assert ran.returncode == 2
    assert "matplotlib is not installed" in ran.stderr
    assert "--no-plot" in ran.stderr
    assert results(folder) == before
    assert mmlab(folder, *RUN, "--run-id", "bare", code=code).returncode == 0


def test_too_few_cuts_are_told(folder):
    """There must be one at least."""
    ran = mmlab(folder, "grid", "lookahead", "--config", "grid.toml", "--cuts", "0")
    assert ran.returncode == 2
    assert "0 cuts in 400 bars" in ran.stderr
