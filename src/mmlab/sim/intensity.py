"""The intensity in force at a time: constant, or stepwise as a schedule says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import DataError
from mmlab.core.spans import NS_PER_MS

FOREVER = 2**62
LAST_MS = FOREVER // NS_PER_MS


@dataclass(frozen=True)
class Intensity:
    """Segments [start_ns, end_ns) in time order with A (1/s, one side) and k (1/tick), arrays of shape (n,)."""

    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    A: npt.NDArray[np.float64]
    k: npt.NDArray[np.float64]

    @classmethod
    def none(cls) -> Intensity:
        """No intensity at any time."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))

    @classmethod
    def constant(cls, A: float, k: float) -> Intensity:
        """The same at all times; raises DataError for what is no intensity."""
        _check(A, k, "the intensity")
        return cls(np.array([0]), np.array([FOREVER]), np.array([A]), np.array([k]))

    @classmethod
    def scheduled(cls, entries: Sequence[Mapping[str, Any]]) -> Intensity:
        """From the list in poisson_schedule.json; raises DataError naming the entry that cannot be meant."""
        before = -math.inf
        for i, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise DataError(f"schedule entry {i} is {entry!r}", remedy=REMEDY)
            absent = [name for name in ("start_ms", "end_ms", "A", "k") if entry.get(name) is None]
            if absent:
                raise DataError(f"schedule entry {i} lacks {', '.join(absent)}", remedy=REMEDY)
            _check(entry["A"], entry["k"], f"schedule entry {i}")
            if not all(isinstance(entry[name], int) and 0 <= entry[name] <= LAST_MS for name in ("start_ms", "end_ms")):
                raise DataError(f"schedule entry {i} starts or ends at what is no time in ms", remedy=REMEDY)
            if entry["end_ms"] <= entry["start_ms"] or entry["start_ms"] < before:
                raise DataError(f"schedule entry {i} overlaps the one before or ends before it starts", remedy=REMEDY)
            before = entry["end_ms"]
        if not entries:
            raise DataError("the schedule is empty", remedy=REMEDY)
        start, end = (np.array([e[name] for e in entries], np.int64) * NS_PER_MS for name in ("start_ms", "end_ms"))
        A, k = (np.array([e[name] for e in entries], np.float64) for name in ("A", "k"))
        return cls(start, end, A, k)

    def coverage(self, from_ns: int, to_ns: int) -> float:
        """Share of [from_ns, to_ns] that has an intensity; raises DataError if none of it has."""
        inside = np.minimum(self.end_ns, to_ns) - np.maximum(self.start_ns, from_ns)
        covered = int(np.maximum(inside, 0).sum())
        if covered == 0:
            spans = [f"{a // NS_PER_MS} to {b // NS_PER_MS} ms" for a, b in ((from_ns, to_ns), self._span())]
            raise DataError(
                f"the schedule covers {spans[1]}, none of the data's {spans[0]}",
                remedy="calibrate a schedule for these days",
            )
        return covered / max(to_ns - from_ns, 1)

    def _span(self) -> tuple[int, int]:
        return (int(self.start_ns[0]), int(self.end_ns[-1])) if self.start_ns.size else (0, 0)


REMEDY = "give a poisson_schedule.json or poisson_fit.json as mmlab calibrate writes it"


def _check(A: float, k: float, what: str) -> None:
    numbers = isinstance(A, int | float) and isinstance(k, int | float)
    if not (numbers and math.isfinite(A) and math.isfinite(k) and A > 0 and k > 0):
        raise DataError(f"{what} has A {A} and k {k}, both must be above 0", remedy=REMEDY)
