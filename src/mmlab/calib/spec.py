"""What to measure: the distances, how long a probe stands, and which hits count."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from mmlab.core.errors import UsageError
from mmlab.core.schemas import COUNT_RULES, FIT_METHODS
from mmlab.core.spans import NS_PER_MS

DEFAULT_DELTAS = (1, 2, 3, 5, 8, 13)
FARTHEST_TICKS = 1_000_000
LONGEST_MS = 366 * 86_400_000
MOST_TICKS = 50  # listed distances beyond it are refused unless told otherwise


@dataclass(frozen=True)
class ProbeSpec:
    """Virtual probes: quotes that nobody sent, at every distance of `deltas` on both sides of the mid.

    deltas: distances from the mid in ticks, ascending whole numbers above 0.
    dwell_ms: how long a probe stands before it is laid anew, ms.
    mid_move_threshold_ticks: the mid's move that lays it anew earlier, ticks; 0 or less turns that off.
    count: first_hit, sweeps or all_hits (design section 4).
    reach: touch (a print at the probe's price hits it) or through (it must be a tick beyond).
    taker_side: count only prints whose taker came from the other side.
    max_delta_ticks: the largest distance allowed, None for no bound.
    cycle: one distance at a time, the next one at each new probe, instead of all at once.
    """

    deltas: tuple[int, ...] = DEFAULT_DELTAS
    dwell_ms: int = 60_000
    mid_move_threshold_ticks: float = 2.0
    count: str = "first_hit"
    reach: str = "touch"
    taker_side: bool = False
    max_delta_ticks: int | None = MOST_TICKS
    cycle: bool = False

    def __post_init__(self) -> None:
        _check_deltas(self.deltas, self.max_delta_ticks)
        if not 1 <= self.dwell_ms <= LONGEST_MS:
            raise UsageError(
                f"--dwell-ms is {self.dwell_ms}", remedy="a probe must stand for 1 ms at least, a year at most"
            )
        _one_of("--count", self.count, COUNT_RULES)
        _one_of("--reach", self.reach, ("touch", "through"))
        if not abs(self.mid_move_threshold_ticks) <= FARTHEST_TICKS:
            raise UsageError(
                f"--mid-move-threshold-ticks is {self.mid_move_threshold_ticks:g}",
                remedy=f"give ticks up to {FARTHEST_TICKS:,}, or 0 to turn it off",
            )

    @property
    def dwell_ns(self) -> int:
        """Dwell in nanoseconds."""
        return self.dwell_ms * NS_PER_MS

    @property
    def threshold_half_ticks(self) -> int:
        """Smallest move of the mid, in half ticks, that lays the probes anew; 0 is never."""
        return math.ceil(2 * self.mid_move_threshold_ticks) if self.mid_move_threshold_ticks > 0 else 0


@dataclass(frozen=True)
class AutoDeltas:
    """Distances chosen from the tape itself (calib/auto.py): how many, and the largest one allowed."""

    count: int = 8
    max_delta_ticks: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 200:
            raise UsageError(f"--deltas auto:{self.count}", remedy="ask for 2 to 200 distances")
        if self.max_delta_ticks is not None and self.max_delta_ticks < 2:
            raise UsageError(f"--max-delta-ticks is {self.max_delta_ticks}", remedy="a curve needs at least 2 ticks")


@dataclass(frozen=True)
class FitSpec:
    """How the curve is fitted: the estimator and the least exposure for a distance to be used."""

    fit_method: str = "poisson_mle"
    min_exposure_s: float = 5.0

    def __post_init__(self) -> None:
        _one_of("--fit-method", self.fit_method, FIT_METHODS)
        if not 0 <= self.min_exposure_s < math.inf:
            raise UsageError(f"--min-exposure-s is {self.min_exposure_s}", remedy="give seconds, 0 or more")


@dataclass(frozen=True)
class ScheduleSpec:
    """Rolling windows: every `step_min` minutes, a fit on the `train_window_min` minutes before.

    warm_days: how many days before the first one may be read, where the lake has them, so that the first
    steps have a past too.
    """

    train_window_min: float = 120
    step_min: float = 15
    warm_days: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.warm_days <= 366:
            raise UsageError(f"--warm-days is {self.warm_days}", remedy="give 0 to 366 days")
        for flag, minutes in (("--step-min", self.step_min), ("--train-window-min", self.train_window_min)):
            if not 0.01 <= minutes <= 10**6:
                raise UsageError(f"{flag} is {minutes}", remedy="give minutes, at least 0.01")

    @property
    def step_ns(self) -> int:
        """Step in nanoseconds."""
        return round(self.step_min * 60_000) * NS_PER_MS

    @property
    def train_ns(self) -> int:
        """Training span in nanoseconds."""
        return round(self.train_window_min * 60_000) * NS_PER_MS

    @property
    def bucket_ns(self) -> int:
        """Largest time bucket that divides both window and step."""
        return math.gcd(self.step_ns, self.train_ns)


def parse_deltas(text: str) -> tuple[int, ...] | int:
    """`1,2,3,5,8,13` as whole numbers; `auto` or `auto:12` as how many to choose; raises UsageError naming --deltas."""
    try:
        if text == "auto" or text.startswith("auto:"):
            return int(text[5:] or AutoDeltas.count)
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--deltas is {text!r}",
            remedy="give whole numbers of ticks with commas between, like 1,2,3,5,8,13, or auto, or auto:12",
        ) from None


def _check_deltas(deltas: tuple[int, ...], most: int | None) -> None:
    listed = ",".join(map(str, deltas))
    if not deltas:
        raise UsageError("--deltas is empty", remedy="give at least one distance, like 1,2,3,5,8,13")
    if deltas[0] <= 0:
        raise UsageError(f"--deltas {listed} starts at {deltas[0]}", remedy="distances begin at 1 tick")
    if deltas[-1] > FARTHEST_TICKS:
        raise UsageError(f"--deltas reaches {deltas[-1]} ticks", remedy=f"distances end at {FARTHEST_TICKS:,} ticks")
    if any(b <= a for a, b in itertools.pairwise(deltas)):
        raise UsageError(f"--deltas {listed} is not ascending", remedy="list each distance once, nearest first")
    if most is not None and deltas[-1] > most:
        raise UsageError(
            f"--deltas reaches {deltas[-1]} ticks, beyond --max-delta-ticks {most}",
            remedy=f"leave the far ones out, or give --max-delta-ticks {deltas[-1]}",
        )


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{flag} is {value!r}", remedy=f"choose one of {', '.join(allowed)}")
