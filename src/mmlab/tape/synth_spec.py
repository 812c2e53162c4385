"""What a synthetic market is: its spec, checked, and the truth that it gives away."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from mmlab.core.errors import TableError, UsageError
from mmlab.core.instrument import Instrument, positive_decimal
from mmlab.core.spans import NS_PER_MS, day_start_ns

Pieces = tuple[tuple[float, float, float], ...]  # (start offset in s, A in 1/s, k in 1/tick)

HOUR_MS = 3_600_000
LEAST_MID_TICKS = 100
MOST_PRINTS = 1_000  # of one order, in the mean


@dataclass(frozen=True)
class SynthSpec:
    """A synthetic market; raises UsageError naming the flag that cannot be meant.

    day, hours: the span, from 00:00 UTC of `day`; a whole number of frames.
    A, k: intensity at the mid (1/s, one side) and its decay (1/tick), unless `ak_schedule` is given.
    ak_schedule: pieces (start offset in s, A, k), the first at 0, each starting at a frame.
    prints_per_s: mean number of prints a second, both sides together.
    frame_ms: time between book frames, ms; divides an hour.
    levels: book levels a side, one tick apart, the touch one tick from the mid.
    mid: the price at the start; mid_moves_per_s: mean number of jumps a second.
    mid_jump_ticks: probes see a constant mid if this is at least their --mid-move-threshold-ticks.
    """

    symbol: str = "SYNTH"
    day: date = date(2025, 1, 1)
    hours: float = 1.0
    seed: int = 0
    tick_size: str = "0.01"
    lot_size: str = "0.00001"
    A: float = 1.5
    k: float = 0.25
    prints_per_s: float = 8.0
    frame_ms: int = 100
    levels: int = 5
    mid: float = 1000.0
    mid_jump_ticks: int = 2
    mid_moves_per_s: float = 0.5
    ak_schedule: Pieces = ()

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_frames(self)
        _check_mid(self)
        _check_pieces(self)
        self.extra_prints()

    @property
    def instrument(self) -> Instrument:
        """Tick and lot size of the market."""
        return Instrument("synth", self.symbol, self.tick_size, self.lot_size)

    @property
    def start_ns(self) -> int:
        """Time of the first frame."""
        return day_start_ns(self.day)

    @property
    def end_ns(self) -> int:
        """End of the span, exclusive: the last frame comes `frame_ms` earlier."""
        return self.start_ns + self.n_frames * self.frame_ns

    @property
    def frame_ns(self) -> int:
        """Time between frames in nanoseconds."""
        return self.frame_ms * NS_PER_MS

    @property
    def n_frames(self) -> int:
        """Number of book frames."""
        return round(self.hours * HOUR_MS / self.frame_ms)

    @property
    def start_mid_ticks(self) -> int:
        """The mid at the start, in ticks."""
        return int(self.instrument.ticks.to_steps(np.array([self.mid]))[0])

    @property
    def floor_ticks(self) -> int:
        """The lowest mid: the least one that keeps the book above zero and lies on the mid's own lattice."""
        least = max(LEAST_MID_TICKS, self.levels + 1)
        return least + (self.start_mid_ticks - least) % self.mid_jump_ticks

    def pieces(self) -> list[tuple[int, int, float, float]]:
        """(first frame, end frame, A, k) of each stretch of constant parameters."""
        given = self.ak_schedule or ((0.0, self.A, self.k),)
        starts = [round(at * 1000 / self.frame_ms) for at, _, _ in given]
        ends = [*starts[1:], self.n_frames]
        return [(a, b, A, k) for a, b, (_, A, k) in zip(starts, ends, given, strict=True)]

    def extra_prints(self) -> list[float]:
        """m of each piece: mean number of prints of an order beyond its deepest one; raises UsageError."""
        rates = [2 * A * math.exp(-k) for _, _, A, k in self.pieces()]
        if self.prints_per_s > MOST_PRINTS * min(rates):
            raise UsageError(
                f"--prints-per-s is {self.prints_per_s:g}, but only {min(rates):.3g} taker orders a second print",
                remedy=f"give a smaller --prints-per-s or k, so that an order has at most {MOST_PRINTS} prints",
            )
        if self.prints_per_s < max(rates):
            raise UsageError(
                f"--prints-per-s is {self.prints_per_s:g}, but every taker order prints at least once",
                remedy=f"give at least {math.ceil(max(rates) * 1000) / 1000:g} for this A and k",
            )
        return [self.prints_per_s / rate - 1 for rate in rates]


def parse_ak_schedule(text: str) -> Pieces:
    """`0=1.5/0.25,60=3/0.4` (minute=A/k, ...) as pieces (start in s, A, k); raises UsageError."""
    try:
        split = [part.replace("=", "/").split("/") for part in text.split(",")]
        return tuple((60 * float(minute), float(A), float(k)) for minute, A, k in split)
    except ValueError:
        raise UsageError(
            f"--ak-schedule is {text!r}", remedy="give minute=A/k with commas between, like 0=1.5/0.25,60=3/0.4"
        ) from None


def truth(spec: SynthSpec) -> dict[str, Any]:
    """What calibration should find, for the manifest: A in 1/s and side, k in 1/tick, times in ms UTC."""
    start_ms = spec.start_ns // NS_PER_MS
    return {
        "pieces": [
            {"start_ms": start_ms + a * spec.frame_ms, "end_ms": start_ms + b * spec.frame_ms, "A": A, "k": k}
            for a, b, A, k in spec.pieces()
        ]
    }


def _check_numbers(spec: SynthSpec) -> None:
    if not spec.symbol:
        raise UsageError("--symbol is empty", remedy="name the market, like SYNTH")
    if spec.seed < 0:
        raise UsageError(f"--seed is {spec.seed}", remedy="give a whole number, 0 or more")
    if spec.levels < 1:
        raise UsageError(f"--levels is {spec.levels}", remedy="give at least 1 level a side")
    positive_decimal(spec.tick_size, "--tick-size")
    positive_decimal(spec.lot_size, "--lot-size")
    _above_zero("--A", spec.A)
    _above_zero("--k", spec.k)
    _above_zero("--prints-per-s", spec.prints_per_s)
    _above_zero("--hours", spec.hours)


def _above_zero(flag: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError(f"{flag} is {value:g}", remedy=f"give {flag} a number above 0")


def _check_frames(spec: SynthSpec) -> None:
    if spec.frame_ms < 1 or HOUR_MS % spec.frame_ms:
        raise UsageError(f"--frame-ms is {spec.frame_ms}", remedy="give whole milliseconds that divide an hour")
    frames = spec.hours * HOUR_MS / spec.frame_ms
    if spec.n_frames < 1 or abs(frames - spec.n_frames) > 1e-6 * frames:
        raise UsageError(
            f"--hours {spec.hours:g} is not a whole number of frames of {spec.frame_ms} ms",
            remedy=f"let the span be a multiple of {spec.frame_ms / 1000:g} s",
        )


def _check_mid(spec: SynthSpec) -> None:
    if spec.mid_jump_ticks < 1:
        raise UsageError(f"--mid-jump-ticks is {spec.mid_jump_ticks}", remedy="give at least 1 tick")
    most = 1000 / spec.frame_ms
    if not 0 <= spec.mid_moves_per_s <= most:
        raise UsageError(
            f"--mid-moves-per-s is {spec.mid_moves_per_s:g}, but the mid moves at most once a frame",
            remedy=f"give 0 to {most:g}, or a smaller --frame-ms",
        )
    try:
        start = spec.start_mid_ticks
    except TableError:
        raise UsageError(
            f"--mid {spec.mid:g} is not a multiple of --tick-size {spec.tick_size}", remedy="round it to the tick"
        ) from None
    if start < spec.floor_ticks:
        raise UsageError(
            f"--mid {spec.mid:g} is {start} ticks of {spec.tick_size}, and the market never falls below "
            f"{spec.floor_ticks}",
            remedy="give a higher --mid or a smaller --tick-size",
        )


def _check_pieces(spec: SynthSpec) -> None:
    """Starts ascend from 0; every piece starts at a frame within the span."""
    starts = [at for at, _, _ in spec.ak_schedule]
    if starts and starts[0] != 0:
        raise UsageError(f"--ak-schedule starts at minute {starts[0] / 60:g}", remedy="let the first piece start at 0")
    if any(b <= a for a, b in itertools.pairwise(starts)):
        raise UsageError("--ak-schedule is not ascending", remedy="list each start once, the earliest first")
    for at, A, k in spec.ak_schedule:
        _above_zero(f"--ak-schedule's A at minute {at / 60:g}", A)
        _above_zero(f"--ak-schedule's k at minute {at / 60:g}", k)
        frames = at * 1000 / spec.frame_ms
        if not frames < spec.n_frames:
            raise UsageError(
                f"--ak-schedule has a piece at minute {at / 60:g}, after the end at --hours {spec.hours:g}",
                remedy="leave it out, or give more --hours",
            )
        if abs(frames - round(frames)) > 1e-6:
            raise UsageError(
                f"--ak-schedule's start at {at:g} s is not a multiple of --frame-ms {spec.frame_ms}",
                remedy="let every piece start at a frame",
            )
