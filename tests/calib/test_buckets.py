"""Sums in buckets of time equal the loop that adds one after the other."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmlab.calib.buckets import add_cells, add_ranges, add_times, totals

BUCKETS, COLUMNS, BUCKET_NS, ORIGIN = 6, 4, 10, 1_000
END = ORIGIN + BUCKETS * BUCKET_NS
times = st.integers(ORIGIN, END)
columns = st.integers(0, COLUMNS - 1)


def ints(values):
    return np.array(list(values), np.int64)


@given(st.lists(st.tuples(times, times, columns, columns)))
def test_each_stretch_adds_its_time_to_the_buckets_that_it_falls_into(stretches):
    """To one column, or as a difference at either end of a range of columns; one that ends early has no time."""
    from_ns, to_ns, first, last = (ints(s[i] for s in stretches) for i in range(4))
    one, ranges = (np.zeros((BUCKETS, COLUMNS), np.int64) for _ in range(2))
    add_times(one, first, from_ns, to_ns, ORIGIN, BUCKET_NS)
    add_times(ranges, first, from_ns, to_ns, ORIGIN, BUCKET_NS, last)
    want_one, want_ranges = np.zeros_like(one), np.zeros_like(ranges)
    for a, z, c, d in stretches:
        for t in range(a, z):
            bucket = (t - ORIGIN) // BUCKET_NS
            want_one[bucket, c] += 1
            want_ranges[bucket, c] += 1
            want_ranges[bucket, d] -= 1
    np.testing.assert_array_equal(one, want_one)
    np.testing.assert_array_equal(ranges, want_ranges)


@given(st.lists(st.integers(-9, 9)), st.data())
def test_totals_are_the_sums_between_edges(values, data):
    """Buckets may be empty, and rows may lie outside of all."""
    edges = ints(sorted(data.draw(st.lists(st.integers(0, len(values)), min_size=1, max_size=7))))
    want = [sum(values[a:z]) for a, z in itertools.pairwise(edges)]
    assert totals(ints(values), edges).tolist() == want


@given(st.lists(st.tuples(st.integers(0, BUCKETS - 1), columns, columns, st.integers(-9, 9))))
def test_cells_that_are_named_twice_get_both_amounts(rows):
    bucket, first, last, amount = (ints(row[i] for row in rows) for i in range(4))
    cells, ranges = (np.zeros((BUCKETS, COLUMNS), np.int64) for _ in range(2))
    add_cells(cells, bucket, first, amount)
    add_ranges(ranges, bucket, first, last, amount)
    want, want_ranges = np.zeros_like(cells), np.zeros_like(ranges)
    for b, c, d, n in rows:
        want[b, c] += n
        want_ranges[b, c] += n
        want_ranges[b, d] -= n
    np.testing.assert_array_equal(cells, want)
    np.testing.assert_array_equal(ranges, want_ranges)
