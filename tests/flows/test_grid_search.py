"""`mmlab grid optimize` whole, on a small lake: what it writes, that processes change nothing, studies that go on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from mmlab.cli.grid_search_report import lines
from mmlab.core.errors import DataError, LakeError, UsageError
from mmlab.core.grid_search_schemas import GRID_TRIALS
from mmlab.core.schemas import BARS, FUNDING
from mmlab.flows.grid_pool import Workers, attempt
from mmlab.flows.grid_run import Where, read_coins
from mmlab.flows.grid_search import Optimized, Plan, bench_of, optimize
from mmlab.flows.grid_search_report import write_page
from mmlab.grid.config import BacktestParams, Config
from mmlab.grid.null import walk
from mmlab.grid.params import GridParams
from mmlab.grid.search import Failure
from mmlab.grid.trial import Outcome
from mmlab.store.candles import Candles

STEP = 900_000_000_000
DAY = 96
CONFIG = Config(
    GridParams(kelly_window=0, grid_spacing_k=0.6, spacing_floor=0.001, adaptive_floor_scale=0.4, fee_maker=0.0),
    BacktestParams(coins=("AAA", "BBB")),
    {"grid_spacing_k": {"low": 0.4, "high": 1.5}, "grid_levels": {"low": 2, "high": 6},
     "allow_short": {"choices": [True, False]}},
)  # fmt: skip
PLAN = Plan(trials=12, windows=2, paths=3, jobs=1, seed=5)


def lake(root: Path, seed: int = 1) -> Path:
    """Sixteen days of two coins, with settlements; AAA begins two days earlier."""
    candles = Candles(root)
    for k, symbol in enumerate(("AAAUSDT", "BBBUSDT")):
        bars = walk(18 * DAY, STEP, [seed, k], steps=200)[2 * DAY * k :]
        at = [ns for ns in bars["open_ns"] if ns // STEP % 32 == 0]
        rates = pl.DataFrame({"ts_ns": at, "rate": [1e-4] * len(at)})
        write = {"replace": False, "source": {"command": "test"}}
        candles.write(BARS, "binance-usdm", symbol, "15m", bars, **write)
        rows = FUNDING.conform(rates)
        candles.write(FUNDING, "binance-usdm", symbol, "funding", rows, **write)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("search")
    lake(path / "data")
    return path


@pytest.fixture(scope="module")
def made(home) -> Optimized:
    """One search in this process, with its page."""
    return optimize(Where(home / "data", home / "out", run_id="one"), CONFIG, PLAN)


def test_everything_is_written_and_meets_its_contract(made):
    """Trials with all their scores, both JSON files, the hold-out's tables, a page that opens without a network."""
    trials = GRID_TRIALS.check(pl.read_parquet(made.path / "grid_trials.parquet"))
    assert trials.filter(role="objective").height == 12
    assert trials.filter(role="parameter").height == 36
    worst = trials.filter(role="train", name="value").group_by("number").agg(pl.col("value").min())
    both = worst.join(trials.filter(role="objective"), on="number")
    assert (both["value"] == both["value_right"]).all()
    assert trials.filter(role="test")["coin"].unique().sort().to_list() == ["AAAUSDT", "BBBUSDT"]
    result = json.loads((made.path / "optimizer_results_robust.json").read_text())
    assert result == json.loads(json.dumps(made.result))
    documented = ("robust_params", "param_stability", "robustness_score", "num_trials", "top_trials_used", "n_windows",
                  "coins", "best_single_trial_score", "mc_significant", "mc_p_value", "oos_pass")  # fmt: skip
    assert set(documented) <= result.keys()
    assert set(result["robust_params"]) == set(CONFIG.optimizer)
    assert isinstance(result["oos_pass"], bool)
    assert result["mc_p_value"] in {0.25, 0.5, 0.75, 1.0}
    best = json.loads((made.path / "best_params.json").read_text())
    assert best["train_min_score"] == result["best_single_trial_score"] == both["value"].max()
    page = (made.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7  # history, scatter, stability, importance, null, two hold-outs
    assert "http://" not in page
    assert "https://" not in page


def test_the_holdout_is_the_last_fifth_of_what_all_coins_have(made):
    rows = pl.read_parquet(made.path / "grid_equity.parquet")
    assert rows["coin"].unique().sort().to_list() == ["AAAUSDT", "BBBUSDT"]
    spans = rows.group_by("coin").agg(pl.col("open_ns").min().alias("low"), pl.col("open_ns").max().alias("high"))
    assert spans["low"].n_unique() == spans["high"].n_unique() == 1
    assert rows.height == 2 * round(16 * DAY * 0.2)
    assert any("AAAUSDT: bars before 2024-01-03" in text for text in made.warnings)


def test_two_processes_make_the_same_search(home, made):
    """Every table and figure but the times."""
    again = optimize(
        Where(home / "data", home / "two", run_id="one"), CONFIG, dataclasses.replace(PLAN, jobs=2), plot=False
    )
    apart = ("storage",)
    assert {k: v for k, v in again.result.items() if k not in apart} == {
        k: v for k, v in made.result.items() if k not in apart
    }
    for name in ("grid_trials", "grid_equity", "grid_fills", "grid_metrics"):
        assert (again.path / f"{name}.parquet").read_bytes() == (made.path / f"{name}.parquet").read_bytes()


def test_whatever_the_holdout_holds_the_trials_and_the_choice_are_the_same(home, made, tmp_path):
    """The last fifth of both coins taken from another market."""
    cut = pl.read_parquet(made.path / "grid_equity.parquet")["open_ns"].min()
    for k, symbol in enumerate(("AAAUSDT", "BBBUSDT")):
        old = Candles(home / "data").bars(symbol, "15m")
        new = walk(18 * DAY, STEP, [77, k], steps=200)
        bars = pl.concat([old.filter(pl.col("open_ns") < cut), new.filter(pl.col("open_ns") >= cut)])
        candles = Candles(tmp_path / "data")
        candles.write(BARS, "binance-usdm", symbol, "15m", bars, replace=False, source={})
        funding = Candles(home / "data").funding(symbol)
        candles.write(FUNDING, "binance-usdm", symbol, "funding", funding, replace=False, source={})
    again = optimize(Where(tmp_path / "data", tmp_path / "out", run_id="one"), CONFIG, PLAN, plot=False)
    assert (again.path / "grid_trials.parquet").read_bytes() == (made.path / "grid_trials.parquet").read_bytes()
    apart = ("holdout", "storage")
    assert {k: v for k, v in again.result.items() if k not in apart} == {
        k: v for k, v in made.result.items() if k not in apart
    }
    assert again.result["holdout"] != made.result["holdout"]


def test_the_same_study_name_goes_on_and_another_market_is_refused(home, tmp_path):
    where, short = Where(home / "data", tmp_path), dataclasses.replace(PLAN, trials=8, paths=0)
    optimize(dataclasses.replace(where, run_id="a"), CONFIG, short, plot=False)
    more = optimize(dataclasses.replace(where, run_id="b"), CONFIG, short, plot=False)
    assert (more.result["num_trials"], more.result["mc_p_value"]) == (16, None)
    whole = dataclasses.replace(short, trials=16, study="whole")
    once = optimize(dataclasses.replace(where, run_id="c"), CONFIG, whole, plot=False)
    assert once.result["robust_params"] == more.result["robust_params"]
    assert once.result["train_scores"] == more.result["train_scores"]
    lake(tmp_path / "data", seed=2)
    refused = [
        (Where(tmp_path / "data", tmp_path), CONFIG, short, "other data"),
        (where, CONFIG, dataclasses.replace(short, windows=1), "other windows"),
        (where, CONFIG, dataclasses.replace(short, holdout=0.3), "other data, other windows"),
        (where, dataclasses.replace(CONFIG, optimizer={"gamma": {"low": 0.5, "high": 1}}), short, "other space"),
        (where, CONFIG.with_values({"fills": "touch-through"}, ""), short, "other venue"),
        (where, CONFIG.with_values({"gamma": 0.7}, ""), short, "other fixed parameters"),
        (where, CONFIG.with_values({"coins": ["AAA"]}, ""), short, "other coins, other data"),
    ]
    for other, config, plan, said in refused:
        with pytest.raises(UsageError, match=f"study grid_wfo was made with {said}"):
            optimize(other, config, plan, plot=False)
    names = sorted(path.name for path in (tmp_path / "grid").rglob("run=*"))
    assert names == ["run=a", "run=b", "run=c"]  # a refused search leaves no folder


def test_a_file_that_is_no_database_is_named_and_left_alone(home, tmp_path):
    other = tmp_path / "studies.db"
    other.write_text("not a database, but a letter of some length, kept by somebody for a reason")
    with pytest.raises(LakeError, match=r"studies\.db is no database"):
        optimize(Where(home / "data", tmp_path), CONFIG, dataclasses.replace(PLAN, storage=other), plot=False)
    assert other.read_text().startswith("not a database")


def test_a_trial_that_raises_is_counted_and_told_and_if_all_do_the_search_stops(home, tmp_path):
    """resume_z below halt_z is refused by the parameters themselves: such a trial fails, loudly."""
    spans = {"halt_z_threshold": {"low": -3.0, "high": -0.5}, "resume_z_threshold": {"low": -2.0, "high": -0.5}}
    where = Where(home / "data", tmp_path)
    base = CONFIG.with_values({"halt_z_threshold": -4.0, "resume_z_threshold": -0.5}, "")  # either end goes beside it
    short = dataclasses.replace(PLAN, trials=16, paths=0)
    made = optimize(where, dataclasses.replace(base, optimizer=spans), short, plot=False)
    failed = made.result["failed_trials"]
    assert 0 < failed < 16
    assert any(f"{failed} of 16 trials failed, the first with UsageError: trial: resume_z" in t for t in made.warnings)
    rows = pl.read_parquet(made.path / "grid_trials.parquet")
    assert rows.filter(role="error").height == failed
    bench = bench_of(read_coins(home / "data", CONFIG.backtest), CONFIG, CONFIG.params, PLAN)
    found = attempt(bench, {"gamma": -1.0})
    assert isinstance(found, Failure)
    assert found.text.startswith("UsageError: trial: gamma is -1.0")
    assert isinstance(attempt(bench, {}), Outcome)
    wrong = {"halt_z_threshold": {"low": -1.0, "high": -0.9}, "resume_z_threshold": {"low": -2.0, "high": -1.9}}
    eight = dataclasses.replace(short, trials=8, study="w")
    with pytest.raises(DataError, match="all 8 trials failed, the first with UsageError"):
        optimize(dataclasses.replace(where, run_id="w"), dataclasses.replace(base, optimizer=wrong), eight, plot=False)


def test_a_search_that_looks_ahead_says_so_everywhere(home, tmp_path):
    plan = dataclasses.replace(PLAN, trials=8, paths=0)
    made = optimize(Where(home / "data", tmp_path), CONFIG.with_values({"fills": "peer"}, ""), plan, plot=False)
    said = "look-ahead: for comparison only"
    for name in ("optimizer_results_robust.json", "best_params.json", "manifest.json"):
        assert json.loads((made.path / name).read_text())["label"] == said
    assert said in (made.path / "report.html").read_text().split("</h1>")[0]
    assert any(said in text for text in made.warnings)
    assert said.upper() in list(lines(made))


def test_null_paths_are_the_same_in_another_process(home):
    bench = bench_of(read_coins(home / "data", CONFIG.backtest), CONFIG, CONFIG.params, PLAN)
    with Workers(bench, 1) as one, Workers(bench, 2) as two:
        assert dict(one.null(CONFIG.params, 3, 4)) == dict(two.null(CONFIG.params, 3, 4))


def test_numbers_that_cannot_be_meant_are_refused_before_anything_is_read():
    for given, said in (({"trials": 0}, "--trials is 0"), ({"paths": -1}, "--mc-perms is -1"), ({"jobs": -1}, "--jobs"),
                        ({"seed": -1}, "--seed")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            Plan(**given)


def test_the_page_can_be_drawn_again(made):
    before = (made.path / "report.html").read_bytes()
    assert write_page(made.path, plot=True).read_bytes() == before


def test_a_study_killed_while_it_works_keeps_finished_trials_and_goes_on(home, tmp_path):
    """SIGKILL in the middle: in the database are finished trials only, and gone on with it is the study in one go."""
    script = (
        "from mmlab.cli.app import main; import sys; sys.argv = ['mmlab', 'grid', 'optimize', '--coins', 'AAA', "
        f"'--trials', '4000', '--windows', '2', '--skip-mc', '--no-plot', '--jobs', '2', '--data-root', '{home}/data', "
        f"'--out-root', '{tmp_path}/out', '--seed', '9']; main()"
    )
    path = tmp_path / "out" / "grid" / "studies.db"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 120
            while stored(path) < 8 and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGKILL)
    n = stored(path)
    assert n >= 8
    deadline = time.monotonic() + 60
    while group(process.pid) and time.monotonic() < deadline:  # workers go when their owner is gone
        time.sleep(0.1)
    assert not group(process.pid)
    config = Config(backtest=BacktestParams(coins=("AAA",)))
    plan = Plan(trials=8, windows=2, paths=0, jobs=1, seed=9)
    more = optimize(Where(home / "data", tmp_path / "out"), config, plan, plot=False)
    assert more.result["num_trials"] == n + 8
    whole = optimize(
        Where(home / "data", tmp_path / "whole"), config, dataclasses.replace(plan, trials=n + 8), plot=False
    )
    both = [pl.read_parquet(made.path / "grid_trials.parquet") for made in (more, whole)]
    assert both[0].equals(both[1])


def stored(path: Path) -> int:
    """Trials in the database, all of them finished; 0 while there are no tables."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        try:
            states = [state for (state,) in database.execute("SELECT state FROM trials")]
        except sqlite3.OperationalError:
            return 0
    assert set(states) <= {"COMPLETE", "FAIL"}
    return len(states)


def group(pid: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
