"""The recorder's clock: wall time that never runs backwards, with every step of the wall clock noticed."""

from __future__ import annotations

from mmlab.core.spans import NS_PER_MS

STEP_NS = 50 * NS_PER_MS  # wall against monotonic clock, between two readings: more is a step, not drift


class SteadyClock:
    """Reads a wall and a monotonic clock as one time.

    A step forward is taken as it is. A step back is taken slowly: time goes on at half speed until the
    wall clock has caught up, so that order by time stays order of receipt and no time is given twice over.
    """

    def __init__(self, floor_ns: int = 0) -> None:
        self._now_ns = floor_ns
        self._wall_ns = self._mono_ns = 0

    def read(self, wall_ns: int, mono_ns: int) -> tuple[int, int]:
        """(time in ns, by how much the wall clock was stepped since the last reading: 0 is not at all)."""
        stepped = 0
        if self._mono_ns:
            stepped = (wall_ns - self._wall_ns) - (mono_ns - self._mono_ns)
            if abs(stepped) < STEP_NS:
                stepped = 0
        elapsed = mono_ns - self._mono_ns if self._mono_ns else 0
        self._wall_ns, self._mono_ns = wall_ns, mono_ns
        self._now_ns = max(wall_ns, self._now_ns + elapsed // 2)
        return self._now_ns, stepped
