"""Distances chosen from the tape: evenly spaced in logarithm over the depths that takers reach.

On an instrument whose tick is a thousandth of a basis point, 1 to 13 ticks are no distance at all. For
every probe interval and side, the deepest print is noted; the nearest distance is the depth that nine
in ten of those that printed at all exceed, the farthest the depth that one in fifty does, and at least
thirty, so that every distance has hits.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mmlab.calib.probes import Intervals, Ints, column
from mmlab.calib.spec import AutoDeltas
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument

NEAR, FAR, LEAST_HITS = 0.1, 0.02, 30


def auto_deltas(laid: Intervals, trades: pl.DataFrame, instrument: Instrument, auto: AutoDeltas) -> tuple[int, ...]:
    """Ascending whole distances in ticks; raises DataError where prints do not reach two of them."""
    deepest = np.sort(depths(laid, trades, instrument))
    deepest = deepest[deepest >= 1]
    if deepest.size:
        far = int(deepest[-max(int(FAR * deepest.size), min(LEAST_HITS, deepest.size))])
        far = far if auto.max_delta_ticks is None else min(far, auto.max_delta_ticks)
        near = min(int(deepest[int(NEAR * deepest.size)]), max(far // 2, 1))
        chosen = np.unique(np.rint(np.geomspace(near, far, auto.count)).astype(np.int64))
        if chosen.size > 1:
            return tuple(chosen.tolist())
    raise DataError(
        "--deltas auto finds no two distances that prints reach",
        remedy="list them, like --deltas 1,2,3, or calibrate on more data",
    )


def depths(laid: Intervals, trades: pl.DataFrame, instrument: Instrument) -> Ints:
    """Deepest print of each (interval, side) that has one, in whole ticks from its anchor, in no order."""
    ns, seq = column(trades, "recv_ns"), column(trades, "recv_seq")
    if laid.start_ns.size == 0:
        return np.empty(0, np.int64)
    at = np.searchsorted(laid.start_ns, ns, side="right") - 1
    while (early := (at >= 0) & (laid.start_ns[at] == ns) & (laid.start_seq[at] > seq)).any():
        at = at - early  # a print before its frame
    inside = (at >= 0) & ((ns < laid.end_ns[at]) | ((ns == laid.end_ns[at]) & (seq < laid.end_seq[at])))
    below = laid.mid2[at] - 2 * instrument.ticks.to_steps(column(trades, "price"))
    frame = pl.DataFrame({"at": at, "below": below, "inside": inside}).filter("inside")
    deepest = frame.group_by("at", side=pl.col("below") > 0).agg(depth=pl.col("below").abs().max() // 2)
    return deepest["depth"].to_numpy()
