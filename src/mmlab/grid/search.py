"""The search: Optuna's TPE asked in batches, so that a seed gives the same study however many processes work on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mmlab.grid.space import Choice, Space
from mmlab.grid.trial import Outcome, figures

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every trial

BATCH = 8  # trials asked for before any of them is told; no more processes than this have work
STARTUP = 20  # uniform draws before TPE is asked
EVERY = 4  # one of so many is drawn uniformly for good: stability is judged by these
UNIFORM, TPE = "uniform", "tpe"


@dataclass(frozen=True)
class Failure:
    """An exception within a trial: it fails the trial, and is told and counted."""

    text: str


Evaluated = Iterator[tuple[int, Outcome | Failure]]  # (place in the batch, what came of it), in any order
Evaluate = Callable[[Sequence[dict[str, Any]]], Evaluated]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """As Optuna names them."""
    found: dict[str, BaseDistribution] = {}
    for name, each in space.items():
        if isinstance(each, Choice):
            found[name] = CategoricalDistribution(each.choices)
        elif each.whole:
            found[name] = IntDistribution(int(each.low), int(each.high))
        else:
            found[name] = FloatDistribution(each.low, each.high)
    return found


def search(
    there: Sequence[FrozenTrial], space: Space, trials: int, seed: int, evaluate: Evaluate,
    keep: Callable[[list[FrozenTrial]], None], batch: int = BATCH,
) -> list[FrozenTrial]:  # fmt: skip
    """Make `trials` more trials beside those that are `there`; all of them, by their draws.

    A batch of trials is asked for at once, those not told yet counting as bad (the constant liar of Ginsbourger, Le
    Riche and Carraro 2010), so that they keep apart; then all are evaluated, and told in order of their draws. A draw
    depends on the seed, its number and the trials told before its batch, never on time. A batch that was broken off is
    asked for again as it was, and only what is missing of it evaluated: so the same seed gives the same study, in one
    go or in pieces, with one process or many, and no draw comes twice. `keep` is given each batch's new trials; after
    an interruption those that were done.
    """
    have = {trial.user_attrs["draw"]: trial for trial in there}
    missing = [draw for draw in range(len(have) + trials) if draw not in have][:trials]
    first, last = missing[0] // batch * batch, max([*missing, *have])
    study = optuna.create_study(direction="maximize")
    study.add_trials([have[draw] for draw in range(first)])
    for start in range(first, last + 1, batch):
        draws = [draw for draw in range(start, min(start + batch, last + 1)) if draw in have or draw in missing]
        new = [draw for draw in draws if draw not in have]
        asked: dict[int, optuna.Trial] = {}
        numbers: dict[int, int] = {}
        for draw in draws:
            if draw in have:
                numbers[draw] = put_back(study, have[draw])
            else:
                asked[draw] = ask(study, space, draw, seed)
        done: dict[int, Outcome | Failure] = {}
        try:
            done.update(evaluate([asked[draw].params for draw in new]))
        finally:
            told = []
            for draw in draws:
                if draw in have:
                    study.tell(numbers[draw], have[draw].value, state=have[draw].state)
                elif new.index(draw) in done:
                    told.append(tell(study, asked[draw], done[new.index(draw)]))
            keep(told)
    return study.trials


def put_back(study: optuna.Study, stored: FrozenTrial) -> int:
    """A finished trial as it was when it had been asked for and not told; its number in the study."""
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.RUNNING, params=stored.params, distributions=stored.distributions,
            user_attrs=stored.user_attrs,
        )
    )  # fmt: skip
    return len(study.get_trials(deepcopy=False)) - 1


def ask(study: optuna.Study, space: Space, draw: int, seed: int) -> optuna.Trial:
    """The next trial: uniform for the first 20 draws and every fourth, else by TPE."""
    drawn = UNIFORM if draw < STARTUP or draw % EVERY == 0 else TPE
    own = int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
    if drawn == UNIFORM:
        study.sampler = optuna.samplers.RandomSampler(seed=own)
    else:
        study.sampler = optuna.samplers.TPESampler(
            seed=own, n_startup_trials=STARTUP, multivariate=True, constant_liar=True
        )
    trial = study.ask(distributions(space))
    trial.set_user_attr("draw", draw)  # counts on where a batch was broken off
    trial.set_user_attr("drawn", drawn)
    return trial


def tell(study: optuna.Study, trial: optuna.Trial, found: Outcome | Failure) -> FrozenTrial:
    """Finish a trial: its value for the sampler, its scores as attributes that no sampler reads."""
    if isinstance(found, Failure):
        trial.set_user_attr("error", found.text)
        return study.tell(trial, state=TrialState.FAIL)
    trial.set_user_attr("train", figures(found.train))
    trial.set_user_attr("test", figures(found.test))
    return study.tell(trial, found.value)


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were scored."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def importance(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """How much each parameter parts the best tenth of trials from all, adding up to 1, the largest first.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023). Empty where nothing can be told: fewer than 10 trials, or all alike.
    """
    scored = finished(trials)
    if len(scored) < 10 or len({trial.value for trial in scored}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(scored)
    return dict(
        optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    )
