"""Sums in buckets of time equal the loop that adds one after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmlab.calib.buckets import add_cells, add_times

BUCKETS, COLUMNS, BUCKET_NS, ORIGIN = 6, 4, 10, 1_000
END = ORIGIN + BUCKETS * BUCKET_NS
times = st.integers(ORIGIN, END)
columns = st.integers(0, COLUMNS - 1)


def ints(values):
    return np.array(list(values), np.int64)


@given(st.lists(st.tuples(times, times, columns)))
def test_each_stretch_adds_its_time_to_the_buckets_that_it_falls_into(stretches):
    """Nanosecond by nanosecond; one that ends early has no time."""
    from_ns, to_ns, column = (ints(s[i] for s in stretches) for i in range(3))
    into, want = (np.zeros((BUCKETS, COLUMNS), np.int64) for _ in range(2))
    add_times(into, column, from_ns, to_ns, ORIGIN, BUCKET_NS)
    for a, z, c in stretches:
        for t in range(a, z):
            want[(t - ORIGIN) // BUCKET_NS, c] += 1
    np.testing.assert_array_equal(into, want)


@given(st.lists(st.tuples(st.integers(0, BUCKETS - 1), columns, st.integers(-9, 9))))
def test_cells_that_are_named_twice_get_both_amounts(rows):
    bucket, column, amount = (ints(row[i] for row in rows) for i in range(3))
    into, want = (np.zeros((BUCKETS, COLUMNS), np.int64) for _ in range(2))
    add_cells(into, bucket, column, amount)
    for b, c, n in rows:
        want[b, c] += n
    np.testing.assert_array_equal(into, want)
