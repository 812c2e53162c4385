"""The steady clock: one time from two clocks, which never runs backwards and tells every step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.spans import NS_PER_MS, NS_PER_S
from mmlab.record.clock import STEP_NS, SteadyClock

WALL = 1_790_000_000 * NS_PER_S
MONO = 5_000 * NS_PER_S
TICK = 10 * NS_PER_MS

elapsed_ns = st.integers(0, 10 * NS_PER_S)
step_ns = st.one_of(st.just(0), st.integers(-100 * NS_PER_S, 100 * NS_PER_S))


def after_step_back(back_ns: int) -> tuple[SteadyClock, int, int]:
    """A clock that has read WALL, and one tick later a wall that was set back; with both clocks as they stand."""
    clock = SteadyClock()
    assert clock.read(WALL, MONO) == (WALL, 0)
    wall_ns, mono_ns = WALL + TICK - back_ns, MONO + TICK
    assert clock.read(wall_ns, mono_ns) == (WALL + TICK // 2, -back_ns)
    return clock, wall_ns, mono_ns


@given(floor_ns=st.integers(0, 2 * WALL), readings=st.lists(st.tuples(elapsed_ns, step_ns)))
def test_time_never_runs_backwards_whatever_the_wall_clock_does(floor_ns, readings):
    """It is also never before the floor, nor before the wall clock."""
    clock, wall_ns, mono_ns, before_ns = SteadyClock(floor_ns), WALL, MONO, floor_ns
    for elapsed, stepped in readings:
        wall_ns, mono_ns = wall_ns + elapsed + stepped, mono_ns + elapsed
        now_ns, _ = clock.read(wall_ns, mono_ns)
        assert now_ns >= max(before_ns, wall_ns)
        before_ns = now_ns


@given(readings=st.lists(elapsed_ns))
def test_it_is_the_wall_clock_while_that_runs_on(readings):
    """Without a step, time is the wall's to the nanosecond, and no step is told."""
    clock, wall_ns, mono_ns = SteadyClock(), WALL, MONO
    for elapsed in readings:
        wall_ns, mono_ns = wall_ns + elapsed, mono_ns + elapsed
        assert clock.read(wall_ns, mono_ns) == (wall_ns, 0)


@given(readings=st.lists(st.tuples(elapsed_ns, step_ns)))
def test_each_step_is_told_with_its_size_and_only_once(readings):
    """What the wall moved beyond the monotonic clock is a step if it is STEP_NS or more, and else drift."""
    clock, wall_ns, mono_ns = SteadyClock(), WALL, MONO
    clock.read(wall_ns, mono_ns)
    for elapsed, stepped in readings:
        wall_ns, mono_ns = wall_ns + elapsed + stepped, mono_ns + elapsed
        assert clock.read(wall_ns, mono_ns)[1] == (stepped if abs(stepped) >= STEP_NS else 0)
        assert clock.read(wall_ns, mono_ns)[1] == 0


def test_a_step_forward_is_taken_as_it_is():
    """An hour forward: the next reading shows it, tells its size, and the one after is as if nothing had been."""
    clock, hour = SteadyClock(), 3600 * NS_PER_S
    clock.read(WALL, MONO)
    assert clock.read(WALL + hour + TICK, MONO + TICK) == (WALL + hour + TICK, hour)
    assert clock.read(WALL + hour + 2 * TICK, MONO + 2 * TICK) == (WALL + hour + 2 * TICK, 0)


def test_a_step_back_is_absorbed_at_half_speed_and_caught_up_after_twice_its_length():
    """Two seconds back: for four seconds time goes on at half speed, and from then on it is the wall clock."""
    back_ns = 2 * NS_PER_S
    clock, wall_ns, mono_ns = after_step_back(back_ns)
    while mono_ns < MONO + 10 * NS_PER_S:
        wall_ns, mono_ns = wall_ns + TICK, mono_ns + TICK
        now_ns, stepped = clock.read(wall_ns, mono_ns)
        assert stepped == 0
        if mono_ns - MONO < 2 * back_ns - TICK:
            assert now_ns == WALL + (mono_ns - MONO) // 2 > wall_ns
        elif mono_ns - MONO >= 2 * back_ns:
            assert now_ns == wall_ns


@given(back_ns=st.integers(STEP_NS, 3600 * NS_PER_S), ticks=st.lists(st.integers(1, NS_PER_S), min_size=1))
def test_any_step_back_is_caught_up_after_twice_its_length(back_ns, ticks):
    """However often the clock is read: never faster than half speed until then, and never told again."""
    clock, wall_ns, mono_ns = after_step_back(back_ns)
    for tick in ticks:
        wall_ns, mono_ns = wall_ns + tick, mono_ns + tick
        now_ns, stepped = clock.read(wall_ns, mono_ns)
        assert stepped == 0
        assert wall_ns <= now_ns <= max(WALL + (mono_ns - MONO) // 2, wall_ns)
    rest = max(2 * back_ns - (mono_ns - MONO), 0)
    assert clock.read(wall_ns + rest, mono_ns + rest) == (wall_ns + rest, 0)


def test_a_second_step_back_is_added_to_the_first():
    """One second back, and one more before it is made up for: time is the wall's again after four seconds."""
    clock, wall_ns, mono_ns = after_step_back(NS_PER_S)
    wall_ns, mono_ns = wall_ns + TICK - NS_PER_S, mono_ns + TICK
    assert clock.read(wall_ns, mono_ns) == (WALL + TICK, -NS_PER_S)
    while mono_ns < MONO + 4 * NS_PER_S - 2 * TICK:
        wall_ns, mono_ns = wall_ns + TICK, mono_ns + TICK
        assert clock.read(wall_ns, mono_ns) == (WALL + (mono_ns - MONO) // 2, 0)
    assert clock.read(wall_ns + 2 * TICK, mono_ns + 2 * TICK) == (wall_ns + 2 * TICK, 0)


def test_time_begins_no_earlier_than_its_floor_and_goes_on_from_there():
    """The floor is what an earlier run has written: a wall behind it is caught up with as after a step back."""
    floor_ns = WALL + NS_PER_S
    clock = SteadyClock(floor_ns)
    assert clock.read(WALL, MONO) == (floor_ns, 0)
    for n in range(1, 199):
        assert clock.read(WALL + n * TICK, MONO + n * TICK) == (floor_ns + n * TICK // 2, 0)
    assert clock.read(WALL + 200 * TICK, MONO + 200 * TICK) == (WALL + 200 * TICK, 0)


def test_a_floor_in_the_past_changes_nothing():
    assert SteadyClock(WALL - 1).read(WALL, MONO) == (WALL, 0)


def test_time_goes_on_at_half_speed_however_rarely_it_is_read():
    """One second ahead of the wall, and a second later: half a second has gone by, so no time is given twice."""
    clock = SteadyClock(WALL + NS_PER_S)
    assert clock.read(WALL, MONO)[0] == WALL + NS_PER_S
    assert clock.read(WALL + NS_PER_S, MONO + NS_PER_S)[0] == WALL + NS_PER_S + NS_PER_S // 2


def test_drift_below_the_threshold_is_no_step():
    """One nanosecond less than STEP_NS is drift, either way; STEP_NS is a step."""
    for sign in (1, -1):
        for size, told in ((STEP_NS - 1, 0), (STEP_NS, sign * STEP_NS)):
            clock = SteadyClock()
            clock.read(WALL, MONO)
            assert clock.read(WALL + NS_PER_S + sign * size, MONO + NS_PER_S) == (WALL + NS_PER_S + sign * size, told)
