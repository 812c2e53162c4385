"""`mmlab grid optimize`: search on training windows, choose the robust middle, judge it on what nothing has seen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from optuna.trial import FrozenTrial

from mmlab.core.errors import DataError, UsageError
from mmlab.core.grid_schemas import GRID_METRICS, GRID_TABLES
from mmlab.core.grid_search_schemas import GRID_TRIALS
from mmlab.core.intervals import utc_text
from mmlab.flows.grid import figures_of
from mmlab.flows.grid_pool import Workers
from mmlab.flows.grid_run import Coin, GridRun, Where, begin_grid, read_coins, tick_of
from mmlab.flows.grid_search_report import write_page
from mmlab.flows.grid_study import opened
from mmlab.flows.run import Progress, no_progress
from mmlab.grid import search as searching
from mmlab.grid.config import LOOK_AHEAD, Config
from mmlab.grid.market import Market
from mmlab.grid.null import Verdict, growth
from mmlab.grid.params import GridParams, VenueParams
from mmlab.grid.robust import Cluster, cluster
from mmlab.grid.score import Part, Score, chained
from mmlab.grid.space import set_to, space
from mmlab.grid.tables import tables
from mmlab.grid.trial import Bench, Outcome, stretch
from mmlab.grid.windows import Windows

ROBUST, BEST = "optimizer_results_robust.json", "best_params.json"
OnTrial = Callable[[int, int, float | None], None]  # done, of how many, best value so far


def silent(_done: int, _total: int, _best: float | None) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Plan:
    """How much is searched, and how it is judged."""

    trials: int = 100
    windows: int = 4
    holdout: float = 0.2
    study: str = "grid_wfo"
    storage: Path | None = None  # default: OUT_ROOT/grid/studies.db
    paths: int = 50  # of the significance test; 0: none
    jobs: int = 0  # processes; 0: one for each core
    seed: int = 42

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--trials", self.trials, 1), ("--mc-perms", self.paths, 0), ("--jobs", self.jobs, 0),
            ("--seed", self.seed, 0),
        ):  # fmt: skip
            if value < least:
                raise UsageError(f"{flag} is {value}", remedy=f"give {least} or more")

    @property
    def processes(self) -> int:
        """As many as have work."""
        return min(self.jobs or os.cpu_count() or 1, searching.BATCH)


@dataclass(frozen=True)
class Optimized:
    """Where it all lies, and what was found."""

    path: Path
    result: dict[str, Any]  # optimizer_results_robust.json
    cluster: Cluster
    defaults: GridParams
    warnings: list[str]


def optimize(
    where: Where, config: Config, plan: Plan, progress: Progress = no_progress, on_trial: OnTrial = silent,
    *, plot: bool = True,
) -> Optimized:  # fmt: skip
    """Search, choose, judge, write; a study of the same name is gone on with.

    The hold-out is cut off before anything is searched and run once, with the robust set, at the end. Raises what
    reading raises, UsageError for what cannot be meant, DataError if every trial failed. An interrupted search keeps
    its finished trials.
    """
    coins = read_coins(where.data_root, config.backtest)
    base = dataclasses.replace(config.params, initial_capital=config.params.initial_capital / len(coins))
    asked = space(config.optimizer, base)
    bench = bench_of(coins, config, base, plan)
    storage = plan.storage or where.out_root / "grid" / "studies.db"
    with (
        begin_grid(where, "optimize", config, coins, progress) as run,
        opened(storage, plan.study, bench, asked) as study,
        Workers(bench, plan.processes) as workers,
    ):
        warn_of_spans(run, coins, bench.windows)
        with run.step("defaults"):
            plain = bench.run(base)  # what there was to beat; compiles before the workers need it
        with run.step("search"):
            told = watched(workers, plan.trials, [t.value for t in study.trials if t.value is not None], on_trial)
            trials = searching.search(study.trials, asked, plan.trials, plan.seed, told, study.keep)
        scored = check(run, trials)
        with run.step("robust set"):
            chosen = cluster(
                asked, [t.params for t in scored], [value(t) for t in scored],
                [t.user_attrs["drawn"] == searching.UNIFORM for t in scored], plan.seed,
            )  # fmt: skip
            params = set_to(base, chosen.params, "robust parameters")
            robust = bench.run(params)
        with run.step("significance"):
            verdict = judged(workers, bench, params, plan, progress)
        with run.step("hold-out"):
            held = held_out(run, coins, config, params, bench)
        best = max(scored, key=value)
        label = {"label": LOOK_AHEAD} if config.backtest.look_ahead else {}
        result = {
            **summary(plan, bench, chosen, scored, len(trials)), **judgement(robust, plain, verdict, plan.paths, held),
            "best_single_trial_score": value(best), "importance": searching.importance(trials),
            "storage": str(storage), **label,
        }  # fmt: skip
        run.folder.write_table(GRID_TRIALS, trial_rows(trials, bench.coins))
        run.folder.write_json(ROBUST, result)
        run.folder.write_json(BEST, {**best_of(best, plan, bench, len(trials)), **label})
        windows = {"train": [str(s) for s in bench.windows.train], "test": [str(s) for s in bench.windows.test],
                   "holdout": str(bench.windows.holdout)}  # fmt: skip
        told_of = {"plan": {**asdict(plan), "storage": str(storage)}, "windows": windows,
                   "interval_ns": coins[0].interval_ns,
                   "fingerprint": bench.fingerprint(asked)}  # fmt: skip
        path = run.commit(told_of, plan.seed)
    write_page(path, plot=plot)
    return Optimized(path, result, chosen, base, run.warnings)


def bench_of(coins: Sequence[Coin], config: Config, base: GridParams, plan: Plan) -> Bench:
    """All that trials may see: markets made of what lies before the hold-out, so that nothing after it is there."""
    first = max(int(coin.bars["open_ns"][0]) for coin in coins)
    last = min(int(coin.bars["open_ns"][-1]) for coin in coins) + coins[0].interval_ns
    windows = Windows.of(first, last, coins[0].interval_ns, plan.windows, plan.holdout)
    end = windows.searched.high_ns
    made: list[tuple[Market, VenueParams]] = []
    for coin in coins:
        bars = coin.bars.filter(pl.col("open_ns") < end)
        funding = None if coin.funding is None else coin.funding.filter(pl.col("ts_ns") < end)
        finer = None if coin.finer is None else coin.finer.filter(pl.col("open_ns") < end)
        venue = config.backtest.at_venue(tick_of(bars))
        made.append((Market.of(bars, coin.interval_ns, funding, finer), venue))
    markets, venues = zip(*made, strict=True)
    return Bench(tuple(coin.symbol for coin in coins), markets, venues, windows, base)


def warn_of_spans(run: GridRun, coins: Sequence[Coin], windows: Windows) -> None:
    """Say where coins have bars that are not searched because another coin has none there."""
    for coin in coins:
        first = int(coin.bars["open_ns"][0])
        if first < windows.train[0].low_ns:
            run.warn(f"{coin.symbol}: bars before {utc_text(windows.train[0].low_ns)} feed signals only")
    if windows.holdout is None:
        run.warn("no hold-out: nothing is left that the choice has not seen but the test windows")


def watched(workers: Workers, trials: int, values: list[float], on_trial: OnTrial) -> searching.Evaluate:
    """Trials by the workers, each told to the user with the best value so far."""
    done = 0

    def evaluate(batch: Sequence[dict[str, Any]]) -> searching.Evaluated:
        nonlocal done
        for k, found in workers.trials(batch):
            done += 1
            if isinstance(found, Outcome):
                values.append(found.value)
            on_trial(done, trials, max(values, default=None))
            yield k, found

    on_trial(0, trials, max(values, default=None))
    return evaluate


def check(run: GridRun, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that were scored; failed ones are told, DataError if there are no others."""
    scored = searching.finished(trials)
    failed = [trial for trial in trials if "error" in trial.user_attrs]
    if not scored:
        raise DataError(
            f"all {len(failed)} trials failed, the first with {failed[0].user_attrs['error']}",
            remedy="try the configuration with mmlab grid backtest",
        )
    if failed:
        run.warn(f"{len(failed)} of {len(trials)} trials failed, the first with {failed[0].user_attrs['error']}")
    return scored


def value(trial: FrozenTrial) -> float:
    """A scored trial's objective."""
    if trial.value is None:
        raise DataError(f"trial {trial.number} has no value", remedy="give another --study-name")
    return trial.value


def judged(workers: Workers, bench: Bench, params: GridParams, plan: Plan, progress: Progress) -> Verdict | None:
    """The significance test on the test windows; None if it is not wanted."""
    if not plan.paths:
        return None
    null = [0.0] * plan.paths
    for done, (number, found) in enumerate(workers.null(params, plan.seed, plan.paths), 1):
        null[number] = found
        progress("significance", done, plan.paths)
    return Verdict.of(growth(bench, params), null)


def held_out(run: GridRun, coins: Sequence[Coin], config: Config, params: GridParams, bench: Bench) -> dict[str, Any]:
    """The one run over the hold-out: its tables, and its score by coin. Nothing if there is none."""
    span = bench.windows.holdout
    if span is None:
        return {}
    made, scores = {}, {}
    for coin, venue in zip(coins, bench.venues, strict=True):
        raw = stretch(coin.market, coin.market.rows(params), venue, params, span, record=True)
        made[coin.symbol] = tables(coin.symbol, coin.market, raw, params)
        scores[coin.symbol] = asdict(chained([Part.of(raw, params.initial_capital)], bench.bars_a_year))
    figures = figures_of(made, config.params.initial_capital, coins[0].interval_ns)
    for table in GRID_TABLES:
        rows = figures if table is GRID_METRICS else pl.concat([made[symbol][table.name] for symbol in sorted(made)])
        run.folder.write_table(table, rows)
    return scores


def summary(plan: Plan, bench: Bench, chosen: Cluster, scored: Sequence[FrozenTrial], trials: int) -> dict[str, Any]:
    """What was searched and chosen."""
    stability = {name: {**asdict(each), "label": each.label} for name, each in chosen.stability.items()}
    return {
        "robust_params": chosen.params, "param_stability": stability, "robustness_score": chosen.score,
        "robustness_p_value": chosen.p_value, "robustness_label": chosen.label, "robustness_meaning": chosen.meaning,
        "num_trials": trials, "failed_trials": trials - len(scored), "top_trials_used": len(chosen.top),
        "n_windows": plan.windows, "coins": list(bench.coins), "study": plan.study, "seed": plan.seed,
    }  # fmt: skip


def judgement(
    robust: Outcome, plain: Outcome, verdict: Verdict | None, paths: int, held: dict[str, Any]
) -> dict[str, Any]:
    """How the robust set did where it was searched, where it was not, and against chance."""
    test = [each.value for coin in robust.test for each in coin]
    passed = float(np.mean(test)) > 0 and sum(each > 0 for each in test) * 2 >= len(test)
    return {
        "train_scores": values(robust.train), "test_scores": values(robust.test), "objective": robust.value,
        "default_train_scores": values(plain.train), "default_test_scores": values(plain.test),
        "default_objective": plain.value,
        "oos_mean_score": float(np.mean(test)), "oos_positive": sum(each > 0 for each in test),
        "oos_windows": len(test), "oos_pass": bool(passed),
        "mc_perms": paths, "mc_p_value": verdict and verdict.p_value, "mc_significant": verdict and verdict.significant,
        "mc_growth": verdict and verdict.growth, "mc_null": list(verdict.null) if verdict else [],
        "holdout": held,
    }  # fmt: skip


def values(scores: Sequence[Sequence[Score]]) -> list[list[float]]:
    """Scores' values, by coin and window."""
    return [[each.value for each in coin] for coin in scores]


def best_of(best: FrozenTrial, plan: Plan, bench: Bench, trials: int) -> dict[str, Any]:
    """best_params.json: the one best trial, for reference; it is the luckiest one too."""
    scores = {
        f"{part}_scores": [[each["value"] for each in coin] for coin in best.user_attrs[part]]
        for part in ("train", "test")
    }
    return {
        "best_params": best.params, "train_min_score": best.value, **scores, "trial": best.number,
        "n_trials": trials, "n_windows": plan.windows, "coins": list(bench.coins),
    }  # fmt: skip


def trial_rows(trials: Sequence[FrozenTrial], coins: Sequence[str]) -> pl.DataFrame:
    """Every trial as rows of grid_trials."""
    rows: list[tuple[Any, ...]] = []
    for trial in trials:
        head = (trial.number, trial.user_attrs["drawn"])
        if "error" in trial.user_attrs:
            rows.append((*head, "error", None, None, "error", None, trial.user_attrs["error"]))
        else:
            rows.append((*head, "objective", None, None, "value", trial.value, None))
        for name, given in trial.params.items():
            number = isinstance(given, int | float) and not isinstance(given, bool)
            rows.append((*head, "parameter", None, None, name, float(given) if number else None,
                         None if number else str(given).lower()))  # fmt: skip
        for role in ("train", "test"):
            for coin, windows in zip(coins, trial.user_attrs.get(role, [[]] * len(coins)), strict=True):
                for k, figures in enumerate(windows, 1):
                    rows += [(*head, role, coin, k, name, float(found), None) for name, found in figures.items()]
    return GRID_TRIALS.conform(pl.DataFrame(rows, schema=GRID_TRIALS.schema, orient="row"))
