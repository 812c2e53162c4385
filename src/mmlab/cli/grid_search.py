"""`mmlab grid optimize` and `mmlab grid apply`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli import options as o
from mmlab.cli.console import ERR, OUT, done, number, progress, table, warn
from mmlab.cli.flags import option
from mmlab.cli.grid import GridFlags, RunFlags
from mmlab.core.errors import UsageError

if TYPE_CHECKING:
    from mmlab.flows.grid_search import OnTrial

SEARCH = "Search"


def optimize(
    grid: GridFlags,
    run: RunFlags,
    trials: Annotated[int, option("--trials", help="How many more trials to make.", panel=SEARCH)] = 100,
    windows: Annotated[
        int, option("--windows", help="Anchored walk-forward windows, 70% train, 30% held out.", panel=SEARCH)
    ] = 4,
    holdout: Annotated[
        float, option("--holdout", help="Last part of the span, which no trial and no choice sees.", panel=SEARCH)
    ] = 0.2,
    study_name: Annotated[
        str, option("--study-name", help="The same name goes on with the study, adding trials.", panel=SEARCH)
    ] = "grid_wfo",
    storage: Annotated[
        Path | None,
        option("--storage", help="SQLite file of studies; default: OUT_ROOT/grid/studies.db.", panel=SEARCH),
    ] = None,
    mc_perms: Annotated[
        int, option("--mc-perms", help="Markets without an edge to compare with; p is at least 1/(N+1).", panel=SEARCH)
    ] = 50,
    skip_mc: Annotated[bool, option("--skip-mc", help="No significance test.", panel=SEARCH)] = False,
    jobs: Annotated[int, option("--jobs", help="Processes; 0: all cores. The result is the same.", panel=SEARCH)] = 0,
    seed: Annotated[int, option("--seed", help="The same seed gives the same study.", panel=SEARCH)] = 42,
    no_plot: Annotated[bool, option("--no-plot", help="Draw no charts.", panel=o.RUN)] = False,
    as_json: o.Json = False,
) -> None:
    """Search for parameters, choose the robust middle of the best, and judge it on what the search never saw.

    Each trial is run on all coins; what counts is the worst of its train scores. Held-out windows are told and never
    searched by; the hold-out is run once, at the end. Ranges: the config's optimizer group, or the document's 22.
    """
    need("optuna")
    from mmlab.cli.grid_search_report import lines
    from mmlab.flows.grid import need_plots
    from mmlab.flows.grid_search import Plan
    from mmlab.flows.grid_search import optimize as flow

    plan = Plan(trials, windows, holdout, study_name, storage, 0 if skip_mc else mc_perms, jobs, seed)
    config = grid.spec()
    if not no_plot:
        need_plots()
    try:
        with progress() as show, watching() as on_trial:
            made = flow(run.where(grid.data_root), config, plan, show, on_trial, plot=not no_plot)
    except KeyboardInterrupt:
        ERR.print(f"\nstopped; finished trials are kept: the same command goes on with study {study_name}")
        raise typer.Exit(130) from None
    warn(made.warnings)
    for line in lines(made):
        OUT.print(line, markup=False)
    done({"path": str(made.path), **made.result, "warnings": made.warnings}, as_json)


def apply(
    params: Annotated[
        Path | None, option("--params", help="JSON of a search; default: the newest under OUT_ROOT.", panel=SEARCH)
    ] = None,
    key: Annotated[
        str, option("--key", help="robust_params, or best_params of best_params.json.", panel=SEARCH)
    ] = "robust_params",
    config: Annotated[Path, option("--config", help="TOML to change; made if it is absent.", panel=SEARCH)] = Path(
        "grid.toml"
    ),
    preview: Annotated[bool, option("--preview", help="Show the changes, write nothing.", panel=SEARCH)] = False,
    yes: Annotated[bool, option("--yes", "-y", help="Do not ask.", panel=SEARCH)] = False,
    out_root: o.OutRoot = Path("out"),
    as_json: o.Json = False,
) -> None:
    """Write parameters of a search into a config: shown, confirmed, checked, the old file kept beside it.

    Comments and everything else in the file stay. The new file takes the old one's place in one step, so that a crash
    leaves one or the other.
    """
    need("tomlkit")
    from mmlab.flows import grid_apply as flow

    source = params or flow.newest(out_root, "optimizer_results_robust.json" if key == "robust_params" else BEST)
    change = flow.plan(flow.read_params(source, key), f"{source} {key}", config)
    OUT.print(f"{key} of {source} into {config}{'' if change.before is not None else ' (new)'}", markup=False)
    rows = [(name, show(old), show(new), "" if old == new else "changed") for name, old, new in change.rows]
    table("[strategy]", ("parameter", "old", "new", ""), rows)
    doubts = flow.doubts(source, key)
    warn(doubts)
    told: dict[str, Any] = {
        "doubts": doubts,
        "config": str(config),
        "params": str(source),
        "written": False,
        "backup": None,
    }
    told["values"] = {name: new for name, _, new in change.rows}
    if preview or not change.changed:
        OUT.print("preview: nothing was written" if preview else f"{config} says all of this already")
    elif yes or typer.confirm(f"Write {config}?", err=True):
        backup = flow.write(change)
        told |= {"written": True, "backup": backup and str(backup)}
        OUT.print(f"wrote {config}" + (f"; the old one is {backup}" if backup else ""), markup=False)
    else:
        OUT.print("nothing was written")
        raise typer.Exit(1)
    done(told, as_json)


BEST = "best_params.json"


def show(value: object) -> str:
    """A value in a table: true and false as TOML has them, numbers in six digits."""
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}" if isinstance(value, float) else str(value)


def need(package: str) -> None:
    """Raise UsageError without the extra `optimize`."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{package} is not installed", remedy="pip install 'mmlab[optimize]'")


@contextmanager
def watching() -> Iterator[OnTrial]:
    """Trials done, and the best value so far: a bar on a terminal, a line each tenth elsewhere."""
    if not ERR.is_terminal:
        yield _tenths()
        return
    from rich import progress as p

    columns = (p.TextColumn("trials"), p.BarColumn(), p.MofNCompleteColumn(), p.TextColumn("best {task.fields[best]}"))
    with p.Progress(*columns, p.TimeRemainingColumn(), console=ERR, transient=True) as bars:
        task = bars.add_task("trials", total=None, best="-", start=False, visible=False)

        def on_trial(at: int, total: int, best: float | None) -> None:
            if at == 0:
                bars.start_task(task)
            bars.update(task, completed=at, total=total, best=number(best), visible=at < total)

        yield on_trial


def _tenths() -> OnTrial:
    shown = 0

    def on_trial(at: int, total: int, best: float | None) -> None:
        nonlocal shown
        tenth = 10 * at // total
        if tenth > shown:
            shown = tenth
            print(f"trials: {at} of {total}, best {number(best)}", file=sys.stderr, flush=True)

    return on_trial
