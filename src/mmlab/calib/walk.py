"""The one sequential part of calibration: from probe to probe, by dwell and by the mid's moves.

Between two frames at which the mid moved, only its dwell can end a probe, and the frame at which that is over is
found by its time. So the walk looks at the frames where the mid moved, and steps over the others.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Does = npt.NDArray[np.int8]
STAND, LAY, END = range(3)  # what a frame does to the probes, whatever dwell and mid say
NEVER = 1 << 62
FEW = 16  # frames: where a dwell is shorter, the walk looks at all of them


def walk(ns: Ints, mid2: Ints, does: Does, dwell_ns: int, threshold2: int, stands: tuple[int, int] | None) -> Ints:
    """Rows of the frames at which probes are laid, ascending; the first is -1 if some stand from before.

    ns, mid2, does: receive time, mid in half ticks, and STAND, LAY or END of each frame; shape (n_frames,), one at
    least. stands: start and anchor of the probes that stand from before; without them the first frame is no STAND.
    threshold2: the least move of the mid, in half ticks, that lays probes anew; 0 is never.
    """
    near, clock = threshold2 or NEVER, ns.data
    laid: list[int] = []
    low, high, over, before, held = -NEVER, NEVER, NEVER, 0, 0  # the band that the mid may not leave, the dwell's end
    if stands is not None:
        start_ns, held = stands
        laid.append(-1)
        low, high, over = held - near, held + near, start_ns + dwell_ns
    at = _looked_at(ns, mid2, does, dwell_ns, threshold2)
    frames = zip([*at.tolist(), ns.size], *(np.append(a[at], a[-1]).tolist() for a in (ns, mid2)), strict=True)
    does_there = [*does[at].tolist(), STAND]
    for (i, now, mid), do in zip(frames, does_there, strict=True):
        while over <= now and (row := bisect_left(clock, over, before, i)) < i:
            laid.append(row)
            low, high, over, before = held - near, held + near, clock[row] + dwell_ns, row + 1
        if do == END:
            low, high, over = -NEVER, NEVER, NEVER
        elif do == LAY or now >= over or not low < mid < high:
            laid.append(i)
            low, high, over = mid - near, mid + near, now + dwell_ns
        before, held = i + 1, mid
    return np.array(laid, np.int64)


def _looked_at(ns: Ints, mid2: Ints, does: Does, dwell_ns: int, threshold2: int) -> Ints:
    """Rows of the frames at which more than a dwell may end: the first, those that end or lay, and the mid's moves."""
    if dwell_ns * ns.size < FEW * int(ns[-1] - ns[0]):
        return np.arange(ns.size)
    looked = does != STAND
    looked[0] = True
    if threshold2:
        looked[1:] |= mid2[1:] != mid2[:-1]
    return np.flatnonzero(looked)
