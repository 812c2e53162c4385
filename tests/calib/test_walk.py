"""The walk from probe to probe equals looking at every frame in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib import walk as module
from mmlab.calib.walk import END, LAY, STAND, walk

steps = st.sampled_from([0, 1, 1, 1, 2, 5, 40])
moves = st.sampled_from([0, 0, 0, 0, 0, 1, -1, 2, -3])
orders = st.sampled_from([STAND] * 12 + [LAY, END])


def one_by_one(ns, mid2, does, dwell, threshold, stands):
    """Each frame: has the mid left its band, or the dwell passed, or must it be?"""
    laid = [] if stands is None else [-1]
    start, anchor = stands or (None, None)
    for i, (t, mid, do) in enumerate(zip(ns, mid2, does, strict=True)):
        stood = start is not None
        over = stood and (t - start >= dwell or (threshold > 0 and abs(mid - anchor) >= threshold))
        if do == END:
            start = None
        elif do == LAY or over:
            laid.append(i)
            start, anchor = t, mid
    return laid


@st.composite
def frames(draw):
    """Times that may be equal, mids that mostly stay, and now and then a frame that ends or lays probes."""
    n = draw(st.integers(1, 60))
    rows = draw(st.lists(st.tuples(steps, moves, orders), min_size=n, max_size=n))
    ns, mid2 = (np.cumsum([row[i] for row in rows]).astype(np.int64) for i in (0, 1))
    stands = (int(ns[0]) - draw(st.integers(1, 30)), draw(st.integers(-3, 3))) if draw(st.booleans()) else None
    does = np.array([row[2] for row in rows], np.int8)
    if stands is None and does[0] == STAND:
        does[0] = LAY
    after_end = np.flatnonzero(does[:-1] == END) + 1  # nothing stands after an end: the next frame lays, or ends too
    for i in after_end:
        does[i] = does[i] if does[i] != STAND else LAY
    return ns, mid2, does, stands


@pytest.mark.parametrize("few", [0, 16, 10**9])
@settings(max_examples=300, deadline=None)
@given(tape=frames(), dwell=st.integers(1, 60), threshold=st.integers(0, 4))
def test_it_finds_the_frames_that_the_plain_loop_finds(tape, dwell, threshold, few):
    """Whether it looks at all frames, at those where the mid moved, or at the ones it thinks best."""
    ns, mid2, does, stands = tape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW", few)
        found = walk(ns, mid2, does, dwell, threshold, stands)
    assert found.tolist() == one_by_one(ns.tolist(), mid2.tolist(), does.tolist(), dwell, threshold, stands)


def test_in_a_market_that_stands_still_the_dwell_alone_lays_probes():
    """By hand: 10 s of frames every 100 ms and a dwell of 1 s give eleven probes, each at the second's frame."""
    ns = np.arange(101, dtype=np.int64) * 100
    still = np.zeros(101, np.int64)
    does = np.zeros(101, np.int8)
    does[0] = LAY
    assert walk(ns, still, does, 1_000, 4, None).tolist() == list(range(0, 101, 10))
