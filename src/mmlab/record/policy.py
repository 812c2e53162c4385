"""Patience, as small pure pieces: waiting longer after each failure, and spending no more weight than there is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from mmlab.core.spans import NS_PER_MIN, NS_PER_S

SHARE = 0.5  # of the venue's weight; other processes of this address need some too
CONNECTS = 200  # within CONNECTS_NS; Binance refuses more than 300
CONNECTS_NS = 5 * NS_PER_MIN


@dataclass
class Backoff:
    """Doubling waits with full jitter below a cap, in seconds."""

    base_s: float
    cap_s: float
    rng: Random
    failures: int = 0

    def fail(self) -> int:
        """One more failure; returns ns to wait: between half of the step and the whole of it."""
        step = min(self.base_s * 2**self.failures, self.cap_s)
        self.failures = min(self.failures + 1, 30)
        return int(step * (0.5 + self.rng.random() / 2) * NS_PER_S)

    def succeed(self) -> None:
        """All is well again."""
        self.failures = 0


class Budget:
    """Weight used in the running minute of the wall clock, by the venue's own count where it tells."""

    def __init__(self, per_minute: int) -> None:
        self._limit = int(per_minute * SHARE)
        self._minute = self.used = 0

    def take(self, weight: int, wall_ns: int) -> bool:
        """Spend `weight` if the minute has it left; a request larger than any minute's share is let through alone."""
        self._roll(wall_ns)
        if self.used + weight > self._limit and self.used > 0:
            return False
        self.used += weight
        return True

    def told(self, used: int, wall_ns: int) -> None:
        """The venue says how much was used, all processes of this address together."""
        self._roll(wall_ns)
        self.used = max(self.used, used)

    def _roll(self, wall_ns: int) -> None:
        if wall_ns // NS_PER_MIN != self._minute:
            self._minute, self.used = wall_ns // NS_PER_MIN, 0


class Pace:
    """At most CONNECTS connections within CONNECTS_NS."""

    def __init__(self) -> None:
        self._made: deque[int] = deque()

    def allows(self, now_ns: int) -> bool:
        """Count a connection, if it may be made now."""
        while self._made and now_ns - self._made[0] > CONNECTS_NS:
            self._made.popleft()
        if len(self._made) >= CONNECTS:
            return False
        self._made.append(now_ns)
        return True
