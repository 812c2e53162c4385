"""Patience: waits that double, weight that is never overspent, connections that are never made in a storm."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.record.policy import CONNECTS, CONNECTS_NS, SHARE, Backoff, Budget, Pace

WALL = 1_790_000_000 * NS_PER_S // NS_PER_MIN * NS_PER_MIN  # a full minute

seeds = st.integers(0, 10**6)


@given(seed=seeds, base_s=st.floats(0.001, 10), cap_s=st.floats(0.001, 1000), n=st.integers(1, 60))
def test_each_failure_doubles_the_wait_up_to_the_cap(seed, base_s, cap_s, n):
    """A wait is between half of its step and the whole of it; the step is the base, twice the base, four times..."""
    backoff = Backoff(base_s, cap_s, Random(seed))
    for failures in range(n):
        step_ns = min(base_s * 2**failures, cap_s) * NS_PER_S
        assert step_ns / 2 - 1 <= backoff.fail() <= step_ns


@given(seed=seeds, n=st.integers(1, 40))
def test_waits_never_shrink_below_the_cap(seed, n):
    """The longest of one step is the shortest of the next."""
    backoff = Backoff(0.5, 1e9, Random(seed))
    waits = [backoff.fail() for _ in range(min(n, 30))]
    assert waits == sorted(waits)


@given(seed=seeds, n=st.integers(1, 50))
def test_success_begins_anew(seed, n):
    backoff = Backoff(1.0, 64.0, Random(seed))
    for _ in range(n):
        backoff.fail()
    backoff.succeed()
    assert NS_PER_S / 2 <= backoff.fail() <= NS_PER_S
    assert NS_PER_S <= backoff.fail() <= 2 * NS_PER_S


def test_waits_are_spread_over_the_whole_range():
    """Many clients that fail together do not come back together."""
    waits = [Backoff(1.0, 1.0, Random(seed)).fail() / NS_PER_S for seed in range(400)]
    assert min(waits) < 0.52
    assert max(waits) > 0.98
    assert len(set(waits)) == len(waits)


def test_a_thousand_failures_are_waited_out_at_the_cap():
    backoff = Backoff(0.5, 30.0, Random(1))
    waits = [backoff.fail() for _ in range(1000)]
    assert all(15 * NS_PER_S <= wait <= 30 * NS_PER_S for wait in waits[6:])


@given(
    per_minute=st.integers(100, 10_000),
    asked=st.lists(st.tuples(st.integers(0, 20 * NS_PER_S), st.floats(0.001, 1)), max_size=120),
)
def test_no_minute_spends_more_than_its_share(per_minute, asked):
    """Whatever is asked for in whatever order; and nothing is refused that there is room for."""
    budget, wall_ns, spent, share = Budget(per_minute), WALL, Counter(), int(per_minute * SHARE)
    for elapsed, part in asked:
        wall_ns += elapsed
        weight, minute = max(int(share * part), 1), wall_ns // NS_PER_MIN
        allowed = budget.take(weight, wall_ns)
        assert allowed == (spent[minute] + weight <= share)
        spent[minute] += weight * allowed
    assert all(weight <= share for weight in spent.values())


def test_the_next_minute_is_full_again():
    """The minute is the venue's, by the wall clock: not sixty seconds since the last request."""
    budget = Budget(1000)
    assert budget.take(500, WALL + NS_PER_MIN - 1)
    assert not budget.take(1, WALL + NS_PER_MIN - 1)
    assert budget.take(500, WALL + NS_PER_MIN)
    assert not budget.take(1, WALL + 2 * NS_PER_MIN - 1)


def test_what_was_refused_costs_nothing():
    budget = Budget(1000)
    assert budget.take(400, WALL)
    assert not budget.take(101, WALL)
    assert budget.take(100, WALL)


@given(mine=st.integers(1, 500), told=st.integers(0, 2000), weight=st.integers(1, 500))
def test_the_venues_own_count_is_believed_if_it_is_higher(mine, told, weight):
    """Other processes of this address spend too; a lower count is older than our own."""
    budget = Budget(1000)
    assert budget.take(mine, WALL)
    budget.told(told, WALL)
    assert budget.used == max(mine, told)
    assert budget.take(weight, WALL) == (max(mine, told) + weight <= 500)
    assert budget.take(weight, WALL + NS_PER_MIN)


def test_a_count_of_an_earlier_minute_is_forgotten():
    budget = Budget(1000)
    budget.told(5000, WALL)
    assert not budget.take(1, WALL)
    budget.told(7, WALL + NS_PER_MIN)
    assert budget.used == 7


def test_a_request_larger_than_any_share_goes_alone():
    """It would never be sent otherwise; it is first in its minute, and nothing follows it."""
    budget = Budget(100)
    assert budget.take(1, WALL)
    assert not budget.take(60, WALL)
    assert budget.take(60, WALL + NS_PER_MIN)
    assert not budget.take(1, WALL + NS_PER_MIN)


@given(gaps=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3 * NS_PER_S)), max_size=12))
def test_no_five_minutes_see_more_connections_than_the_pace_allows(gaps):
    """However fast they are asked for: of any CONNECTS + 1 in a row, the last is more than CONNECTS_NS later."""
    pace, now_ns, made = Pace(), 0, []
    for times, gap in gaps:
        for _ in range(times):
            now_ns += gap
            if pace.allows(now_ns):
                made.append(now_ns)
            else:
                assert now_ns - made[-CONNECTS] <= CONNECTS_NS
    assert all(b - a > CONNECTS_NS for a, b in zip(made, made[CONNECTS:], strict=False))


def test_the_pace_is_given_back_as_time_goes_by():
    """What was refused is not counted."""
    pace = Pace()
    assert all(pace.allows(n) for n in range(CONNECTS))
    assert not any(pace.allows(CONNECTS_NS) for _ in range(1000))
    assert pace.allows(CONNECTS_NS + 1)
    assert not pace.allows(CONNECTS_NS + 1)
    assert all(pace.allows(3 * CONNECTS_NS) for _ in range(CONNECTS))
