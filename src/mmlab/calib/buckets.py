"""Sums in buckets of time: of rows that are in time order, and of stretches that may last for several buckets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def totals(values: Ints, edges: Ints) -> Ints:
    """Sum of values[edges[b] : edges[b + 1]] for each bucket b; edges: ascending rows, shape (n_buckets + 1,)."""
    out = np.zeros(edges.size - 1, np.int64)
    some = np.flatnonzero(np.diff(edges))
    if some.size:
        out[some] = np.add.reduceat(values[: edges[-1]], edges[some])
    return out


def add_cells(into: Ints, bucket: Ints, column: Ints, amount: Ints | int) -> None:
    """Add `amount` to `into`, contiguous and (n_buckets, n_columns), at each (bucket, column), shape (n,)."""
    np.add.at(into.reshape(-1, copy=False), bucket * into.shape[1] + column, amount)


def add_ranges(into: Ints, bucket: Ints, first: Ints, last: Ints, amount: Ints | int) -> None:
    """Add `amount` at the columns [first, last) as a difference at either end; first may not be above last."""
    add_cells(into, bucket, first, amount)
    add_cells(into, bucket, last, -amount)


def add_times(
    into: Ints, first: Ints, from_ns: Ints, to_ns: Ints, origin_ns: int, bucket_ns: int, last: Ints | None = None
) -> None:
    """Add to `into`, (n_buckets, n_columns), the time [from_ns, to_ns) of each stretch in the buckets it falls into.

    It goes to the column `first`; with `last`, to the columns [first, last), as add_ranges does. first, from_ns, to_ns,
    last: shape (n,). Bucket b is [origin_ns + b * bucket_ns, origin_ns + (b + 1) * bucket_ns); all time lies in one of
    `into`. A stretch that ends before it starts has no time.
    """

    def add(sums: Ints, bucket: Ints, which: Ints, amount: Ints | int) -> None:
        add_cells(sums, bucket, first[which], amount)
        if last is not None:
            add_cells(sums, bucket, last[which], -amount)

    some = np.flatnonzero(from_ns < to_ns)
    start, end = from_ns[some] - origin_ns, to_ns[some] - origin_ns
    begun, over = start // bucket_ns, (end - 1) // bucket_ns
    add(into, begun, some, np.minimum(end, (begun + 1) * bucket_ns) - start)
    more = np.flatnonzero(begun < over)
    add(into, over[more], some[more], end[more] - over[more] * bucket_ns)
    long = np.flatnonzero(begun + 1 < over)
    if long.size:  # the buckets between, as differences that are summed up once
        lowest, highest = int(begun[long].min()) + 1, int(over[long].max())
        whole = np.zeros((highest - lowest + 1, into.shape[1]), np.int64)
        add(whole, begun[long] + 1 - lowest, some[long], bucket_ns)
        add(whole, over[long] - lowest, some[long], -bucket_ns)
        into[lowest : highest + 1] += np.cumsum(whole, axis=0)
