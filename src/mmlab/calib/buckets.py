"""Sums in buckets of time: at cells that may be named twice, and of stretches that may last for several buckets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def add_cells(into: Ints, bucket: Ints, column: Ints, amount: Ints | int) -> None:
    """Add `amount` to `into`, contiguous and (n_buckets, n_columns), at each (bucket, column), shape (n,)."""
    np.add.at(into.reshape(-1, copy=False), bucket * into.shape[1] + column, amount)


def add_times(into: Ints, column: Ints, from_ns: Ints, to_ns: Ints, origin_ns: int, bucket_ns: int) -> None:
    """Add to `into`, (n_buckets, n_columns), the time [from_ns, to_ns) of each stretch in the buckets it falls into.

    column, from_ns, to_ns: shape (n,). Bucket b is [origin_ns + b * bucket_ns, origin_ns + (b + 1) * bucket_ns); all
    time lies in one of `into`. A stretch that ends before it starts has no time.
    """
    some = np.flatnonzero(from_ns < to_ns)
    column, start, end = column[some], from_ns[some] - origin_ns, to_ns[some] - origin_ns
    begun, over = start // bucket_ns, (end - 1) // bucket_ns
    add_cells(into, begun, column, np.minimum(end, (begun + 1) * bucket_ns) - start)
    more = np.flatnonzero(begun < over)
    add_cells(into, over[more], column[more], end[more] - over[more] * bucket_ns)
    long = np.flatnonzero(begun + 1 < over)
    if long.size:  # the buckets between, as differences that are summed up once
        lowest, highest = int(begun[long].min()) + 1, int(over[long].max())
        whole = np.zeros((highest - lowest + 1, into.shape[1]), np.int64)
        add_cells(whole, begun[long] + 1 - lowest, column[long], bucket_ns)
        add_cells(whole, over[long] - lowest, column[long], -bucket_ns)
        into[lowest : highest + 1] += np.cumsum(whole, axis=0)
