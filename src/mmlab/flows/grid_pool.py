"""Trials and null paths over processes: the results of one; a worker that dies is told, none outlives its owner."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

from mmlab.core.errors import DataError
from mmlab.flows.owner import leave_with_owner
from mmlab.grid.null import null_growth
from mmlab.grid.params import GridParams
from mmlab.grid.search import Failure
from mmlab.grid.space import set_to
from mmlab.grid.trial import Bench, Outcome

_bench: list[Bench] = []  # of a worker: what it was begun with
DIED = DataError("a worker process died", remedy="run it again with --jobs 1; finished trials are kept")


class Workers:
    """Runs trials and null paths of one bench, in this process or in `jobs` others."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        self.bench = bench
        self._pool = (
            ProcessPoolExecutor(jobs, mp_context=mp.get_context("spawn"), initializer=_begin, initargs=(bench,))
            if jobs > 1
            else None
        )

    def trials(self, batch: Sequence[dict[str, Any]]) -> Iterator[tuple[int, Outcome | Failure]]:
        """What comes of each set of parameters, with its place, as soon as it is known."""
        if self._pool is None:
            for k, values in enumerate(batch):
                yield k, attempt(self.bench, values)
        else:
            yield from _as_done({self._pool.submit(_trial, values): k for k, values in enumerate(batch)})

    def null(self, params: GridParams, seed: int, paths: int) -> Iterator[tuple[int, float]]:
        """Log growth on each path without an edge, with its number."""
        if self._pool is None:
            for number in range(paths):
                yield number, null_growth(self.bench, params, seed, number)
        else:
            yield from _as_done({self._pool.submit(_null, params, seed, number): number for number in range(paths)})

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)


def _as_done(waiting: dict[Future[Any], int]) -> Iterator[tuple[int, Any]]:
    """Results as they come; raises DataError if a worker died."""
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool:
        raise DIED from None


def attempt(bench: Bench, values: dict[str, Any]) -> Outcome | Failure:
    """One trial; whatever goes wrong in it fails it, with the place where it did."""
    try:
        return bench.run(set_to(bench.base, values, "trial"))
    except Exception as error:  # noqa: BLE001 - the search goes on; the trial is told as failed, and counted
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(f"{type(error).__name__}: {error} ({os.path.basename(frame.filename)}:{frame.lineno})")


def _begin(bench: Bench) -> None:
    """In a worker: keep the bench, leave Ctrl-C to the owner, and go when the owner is gone."""
    _bench[:] = [bench]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_owner()


def _trial(values: dict[str, Any]) -> Outcome | Failure:
    return attempt(_bench[0], values)


def _null(params: GridParams, seed: int, number: int) -> float:
    return null_growth(_bench[0], params, seed, number)
