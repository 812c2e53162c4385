"""`mmlab grid optimize` and `mmlab grid apply` as a user types them: what is printed, asked, written and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

from mmlab.core.errors import UsageError
from mmlab.core.schemas import BARS
from mmlab.flows import grid_apply
from mmlab.grid.config import default_toml, parse
from mmlab.grid.null import walk
from mmlab.grid.params import GridParams
from mmlab.store.candles import Candles

MMLAB = [sys.executable, "-c", "from mmlab.cli.app import main; main()"]
STEP = 900_000_000_000
OLD = """\
# my own grid
[strategy]
gamma = 0.5        # risk
grid_levels = 10   # a side
leverage = 3.0

[backtest]
coins = ["BTC"]  # only this one
"""
PARAMS = {"gamma": 0.75, "grid_levels": 4.0, "kappa": 2}


def mmlab(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the real program in `folder`."""
    clean = {k: v for k, v in os.environ.items() if k not in {"SYMBOL", "DAY", "DATA_ROOT", "OUT_ROOT", "RUN_ID"}}
    return subprocess.run(
        [*MMLAB, "grid", *words],
        cwd=folder,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A config, and parameters to apply."""
    (tmp_path / "grid.toml").write_text(OLD)
    (tmp_path / "p.json").write_text(json.dumps({"robust_params": PARAMS, "best_params": {"gamma": 0.9}, "n": 3}))
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_optimize_prints_the_report_and_apply_takes_its_newest_run(tmp_path):
    """Both commands after each other, on ten days of one coin; a second coin after the flag is one that is missing."""
    Candles(tmp_path / "data").write(
        BARS, "binance-usdm", "AAAUSDT", "15m", walk(960, STEP, [3], steps=200), replace=False, source={}
    )
    words = (
        "--trials",
        "10",
        "--windows",
        "2",
        "--mc-perms",
        "3",
        "--no-plot",
        "--jobs",
        "1",
        "--set",
        "kelly_window=0",
    )
    ran = mmlab(tmp_path, "optimize", "--coins", "AAA", *words, "--json")
    assert ran.returncode == 0, ran.stderr
    for line in ("===== ROBUST PARAMETER REPORT =====", "(Top 5 of 10 trials used; study grid_wfo)",
                 "Robust Parameters (median of top cluster):", "Overall Robustness Score: ", "Interpretation: ",
                 "Held-out windows: ", "(p cannot be below 0.250)", "Hold-out of AAA, seen once: return "):  # fmt: skip
        assert line in ran.stdout, line
    assert "trials: 10 of 10, best " in ran.stderr
    assert "AAAUSDT: no settlements" in ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert Path(result["path"], "report.html").exists() or (tmp_path / result["path"] / "report.html").exists()
    applied = mmlab(tmp_path, "apply", "--yes", "--json")
    assert applied.returncode == 0, applied.stderr
    told = json.loads(applied.stdout.splitlines()[-1])
    assert (told["written"], told["backup"]) == (True, None)
    assert "what they earned on the held-out windows is not significant" in told["doubts"]  # three paths prove nothing
    assert "is not significant" in applied.stderr
    strategy = parse((tmp_path / "grid.toml").read_text(), "grid.toml").strategy
    assert {name: getattr(strategy, name) for name in result["robust_params"]} == result["robust_params"]
    again = mmlab(tmp_path, "optimize", "--coins", "AAA", "BBB", *words)
    assert again.returncode == 1
    assert "BBBUSDT" in again.stderr
    assert "Traceback" not in again.stderr


def test_preview_shows_old_and_new_and_writes_nothing(folder):
    before = listing(folder)
    ran = mmlab(folder, "apply", "--params", "p.json", "--preview")
    assert ran.returncode == 0, ran.stderr
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in ran.stdout.splitlines() if "│" in line]
    assert cells == [["gamma", "0.5", "0.75", "changed"], ["grid_levels", "10", "4", "changed"],
                     ["kappa", "1.5", "2", "changed"]]  # fmt: skip
    assert "nothing was written" in ran.stdout
    assert listing(folder) == before


def test_yes_writes_keeps_comments_and_a_backup_each_time(folder):
    ran = mmlab(folder, "apply", "--params", "p.json", "--yes")
    assert ran.returncode == 0, ran.stderr
    new = (folder / "grid.toml").read_text()
    for line in ("# my own grid", "gamma = 0.75        # risk", "grid_levels = 4   # a side", "leverage = 3.0",
                 'coins = ["BTC"]  # only this one', "kappa = 2.0"):  # fmt: skip
        assert line in new.splitlines(), new
    assert (folder / "grid.toml.bak-1").read_text() == OLD
    assert parse(new, "").strategy == GridParams(gamma=0.75, grid_levels=4, kappa=2.0, leverage=3.0)
    assert "warning" not in ran.stderr
    other = mmlab(folder, "apply", "--params", "p.json", "--key", "best_params", "-y")
    assert other.returncode == 0, other.stderr
    assert "luckiest" in other.stderr
    assert (folder / "grid.toml.bak-2").read_text() == new
    assert (folder / "grid.toml.bak-1").read_text() == OLD
    same = mmlab(folder, "apply", "--params", "p.json", "--key", "best_params", "--yes")
    assert "says all of this already" in same.stdout
    assert not (folder / "grid.toml.bak-3").exists()


def test_without_yes_it_asks_and_no_or_no_answer_writes_nothing(folder):
    before = listing(folder)
    for answer in ("n\n", ""):
        ran = mmlab(folder, "apply", "--params", "p.json", stdin=answer)
        assert ran.returncode == 1
        assert "Write grid.toml?" in ran.stderr
        assert listing(folder) == before
    assert mmlab(folder, "apply", "--params", "p.json", stdin="y\n").returncode == 0
    assert listing(folder) != before


def test_an_absent_config_is_made_from_the_defaults(folder):
    ran = mmlab(folder, "apply", "--params", "p.json", "--config", "new/other.toml", "--yes")
    assert ran.returncode == 0, ran.stderr
    text = (folder / "new" / "other.toml").read_text()
    assert parse(text, "").strategy == GridParams(gamma=0.75, grid_levels=4, kappa=2.0)
    assert len(text.splitlines()) == len(default_toml().splitlines())
    assert os.listdir(folder / "new") == ["other.toml"]


@pytest.mark.parametrize(
    ("content", "words", "code", "said"),
    [
        ('{"robust_params": {"gama": 1}}', (), 2, "unknown gama"),
        ('{"robust_params": {"gamma": -1}}', (), 2, "gamma is -1"),
        ('{"robust_params": {"grid_levels": 2.5}}', (), 2, "grid_levels is 2.5"),
        ('{"robust_params": {"allow_short": "yes"}}', (), 2, "allow_short is 'yes'"),
        ('{"robust_params": {}}', (), 1, "is empty"),
        ('{"other": {"gamma": 1}, "n": 3}', (), 1, "its keys are other, n"),
        ('{"other": {"gamma": 1}, "n": 3}', ("--key", "n"), 1, "its keys are other, n"),
        ("[1]", (), 1, "it has no keys"),
        ('{"robust', (), 1, "is not JSON"),
        ('{"robust_params": {"gamma": 1}, "label": "look-ahead: for comparison only"}', (), 2, "what cannot be earned"),
        (None, (), 1, "bad.json is missing"),
    ],
)
def test_wrong_parameters_are_named_and_nothing_is_touched(folder, content, words, code, said):
    if content is not None:
        (folder / "bad.json").write_text(content)
    before = listing(folder)
    ran = mmlab(folder, "apply", "--params", "bad.json", "--yes", *words)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [("[strategy\n", "is not TOML"), ("[strategy]\ngama = 1\n", "unknown gama"), ("strategy = 3\n", "is no group"),
     ("[strategy]\ngamma = 0\n", "gamma is 0")],
)  # fmt: skip
def test_a_config_that_is_wrong_already_is_not_touched(folder, content, said):
    (folder / "grid.toml").write_text(content)
    before = listing(folder)
    ran = mmlab(folder, "apply", "--params", "p.json", "--yes")
    assert ran.returncode == 2
    assert said in ran.stderr
    assert listing(folder) == before


def test_no_run_to_take_parameters_from_is_said(tmp_path):
    ran = mmlab(tmp_path, "apply", "--yes")
    assert (ran.returncode, "no optimize run lies under out" in ran.stderr) == (1, True)


def test_a_file_that_changed_after_the_preview_is_not_overwritten(folder):
    change = grid_apply.plan(PARAMS, "p.json", folder / "grid.toml")
    (folder / "grid.toml").write_text(OLD + "# a word more\n")
    with pytest.raises(UsageError, match="changed meanwhile"):
        grid_apply.write(change)
    assert (folder / "grid.toml").read_text().endswith("# a word more\n")
    assert not list(folder.glob("*.bak*"))


def test_a_link_stays_a_link_and_the_mode_stays(folder):
    (folder / "grid.toml").chmod(0o600)
    (folder / "link.toml").symlink_to("grid.toml")
    grid_apply.write(grid_apply.plan(PARAMS, "p.json", folder / "link.toml"))
    assert (folder / "link.toml").is_symlink()
    assert parse((folder / "grid.toml").read_text(), "").strategy.gamma == 0.75
    assert {path.stat().st_mode & 0o777 for path in folder.glob("grid.toml*")} == {0o600}


KILLED = """
import os, signal, sys
from pathlib import Path
from mmlab.flows import grid_apply
from mmlab.store import parts
change = grid_apply.plan({"gamma": 0.75}, "p", Path("grid.toml"))
at, done = int(sys.argv[1]), 0
def dying(call):
    def wrapped(*given, **named):
        global done
        done += 1
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return wrapped
os.fsync, os.replace, os.open = dying(os.fsync), dying(os.replace), dying(os.open)
grid_apply.write(change)
print(done)
"""


def test_killed_at_any_step_the_old_or_the_new_config_is_there_whole(folder):
    """SIGKILL before each of the calls that touch the disk, one run for each."""
    new = grid_apply.plan({"gamma": 0.75}, "p", folder / "grid.toml").text
    seen = set()
    for at in range(1, 40):
        for path in folder.glob("*.bak*"):
            path.unlink()
        (folder / "grid.toml").write_text(OLD)
        ran = subprocess.run(
            [sys.executable, "-c", KILLED, str(at)], cwd=folder, capture_output=True, text=True, check=False
        )
        text = (folder / "grid.toml").read_text()
        assert text in {OLD, new}
        seen.add(text)
        if ran.returncode == 0:
            assert at == int(ran.stdout) + 1
            break
    else:
        pytest.fail("it never ended by itself")
    assert seen == {OLD, new}
    assert (folder / "grid.toml.bak-1").read_text() == OLD


def test_the_editor_keeps_what_it_does_not_change():
    """All lines but those of the parameters, also in inline and dotted tables."""
    for text in (default_toml(), 'strategy = { gamma = 0.5, kappa = 1.0 }\n[backtest]\ncoins = ["ETH"]\n',
                 "strategy.gamma = 0.5 # dotted\n"):  # fmt: skip
        made = grid_apply.edited(text, {"gamma": 0.75}, "x")
        assert parse(made, "x").strategy.gamma == 0.75
        lines, old = made.splitlines(), text.splitlines()
        assert len(lines) == len(old)
        assert sum(a != b for a, b in zip(lines, old, strict=True)) == 1
    assert tomlkit.parse(grid_apply.edited("# alone\n", {"gamma": 0.75}, "x"))["strategy"]["gamma"] == 0.75
