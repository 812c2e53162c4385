"""Own orders of a backtest -> how long each was at risk at which distance, and whether it was filled.

An order is at risk from its activation to the first of: its first fill, its cancel taking effect, the
end of its time to live (an IOC order: its arrival), the end of the run (the last row of `state`). Whatever
comes later, like the other parts of a fill, adds nothing: hits / exposure is then the rate of first fills,
the intensity of one order on one side. Lots are those of the instant of the first fill. Orders that were
refused, or that took liquidity when they arrived, never rested and are not measured.

The distance is that of the price from the mid in force at activation, signed (positive behind the mid)
and exact in half ticks. `state` has a mid at each decision and fill only, and the mid moves on while an
order rests: the rate is a mean over the distances that follow, and above a convex curve where these vary much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.calib.buckets import add_cells, add_times
from mmlab.calib.hits import SIDES
from mmlab.calib.probes import Ints, column
from mmlab.core.errors import DataError
from mmlab.core.instrument import Grid, Instrument

ORDER_COLUMNS = (
    "recv_ns", "order_id", "action", "side", "price", "active_recv_ns", "expire_recv_ns", "cancel_effective_ns",
)  # fmt: skip
FILL_COLUMNS = ("recv_ns", "order_id", "qty", "liquidity")
STATE_COLUMNS = ("recv_ns", "mid")
END_REASONS = ("fill", "cancel", "expire", "end_of_run")
EXPOSED = pl.Schema(
    {
        "order_id": pl.Int64(),
        "side": pl.Int8(),
        "price": pl.Float64(),
        "active_ns": pl.Int64(),
        "end_ns": pl.Int64(),
        "hit": pl.Boolean(),
        "hit_ns": pl.Int64(),
        "lots": pl.Int64(),
        "distance2": pl.Int64(),
        "exposure_ns": pl.Int64(),
        "end_reason": pl.String(),
        "holes_ns": pl.List(pl.Int64()),
    }
)
NO_HOLES: tuple[Ints, Ints] = (np.empty(0, np.int64), np.empty(0, np.int64))
ONE_RUN = "give the orders, fills and state of one whole run"


@dataclass(frozen=True)
class Tally:
    """Sums per time bucket, side (bid, ask) and distance, each int64 of shape (n_buckets, 2, n_deltas).

    deltas: the distances at which there were orders, ascending, in ticks, multiples of 0.5.
    exposure_ns, hits, lots: time at risk, first fills and their lots, in the bucket in which they fell.
    orders: orders, in the bucket in which they became active.
    Bucket i covers [origin_ns + i * bucket_ns, origin_ns + (i + 1) * bucket_ns).
    """

    deltas: tuple[float, ...]
    origin_ns: int
    bucket_ns: int
    exposure_ns: Ints
    hits: Ints
    lots: Ints
    orders: Ints


def exposures(
    orders: pl.DataFrame,
    fills: pl.DataFrame,
    state: pl.DataFrame,
    instrument: Instrument,
    holes: tuple[Ints, Ints] = NO_HOLES,
) -> pl.DataFrame:
    """One row (EXPOSED) for each order that was at risk or hit, by order_id.

    `orders`, `fills` and `state` have at least ORDER_COLUMNS, FILL_COLUMNS and STATE_COLUMNS. `holes` are two
    arrays of shape (n_holes,), from_ns and to_ns, disjoint and ascending: their time is no exposure, and a fill
    strictly inside one is no hit (its hit_ns is null and its lots 0, though it ended the order). distance2 is in
    half ticks, holes_ns are the ends of the holes within the order's life (from, to, from, to, ...; null: none).
    An order that was active before the first row of `state` has no distance and is left out; `without_mid`
    counts these.

    Raises DataError for tables that are not those of one run in time order, TableError for a price, mid or
    quantity off its grid, ValueError for holes that overlap.
    """
    lives = _lives(orders, fills, state)
    at = np.searchsorted(column(state, "recv_ns"), column(lives, "active_ns"), side="right") - 1
    lives, at = lives.filter(at >= 0), at[at >= 0]  # the last row at or before, also of several at one time
    ticks = instrument.ticks
    mid2 = Grid("half of the tick size", ticks.num, 2 * ticks.den).to_steps(column(state, "mid")[at])
    behind = mid2 - 2 * ticks.to_steps(column(lives, "price"))
    lost, hidden = _unknown(lives, holes)
    hit = pl.col("fill_ns").is_not_null() & ~pl.col("hidden")
    return (
        lives.with_columns(
            distance2=column(lives, "side").astype(np.int64) * behind,
            exposure_ns=column(lives, "end_ns") - column(lives, "active_ns") - lost["lost_ns"].to_numpy(),
            holes_ns=lost["holes_ns"],
            hidden=hidden,
        )
        .join(_lots(fills, lives, instrument), on="order_id", how="left")
        .with_columns(hit=hit, hit_ns=pl.when(hit).then("fill_ns"), lots=pl.when(hit).then("lots").otherwise(0))
        .filter(pl.col("hit") | (pl.col("exposure_ns") > 0))
        .sort("order_id")
        .select(pl.col(name).cast(dtype) for name, dtype in EXPOSED.items())
    )


def without_mid(orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame) -> int:
    """How many orders `exposures` leaves out because no row of `state` is at or before their activation."""
    lives = _lives(orders, fills, state)
    return int((column(lives, "active_ns") < column(state, "recv_ns")[:1]).sum())


def tally(
    exposed: pl.DataFrame,
    *,
    min_delta_ticks: float,
    max_delta_ticks: float | None,
    origin_ns: int,
    bucket_ns: int,
    n_buckets: int,
) -> Tally:
    """Add up the rows of `exposures` whose distance is min_delta_ticks to max_delta_ticks (None: no bound), inclusive.

    Raises ValueError if one of them was active, at risk or hit outside of the buckets.
    """
    most = np.inf if max_delta_ticks is None else 2 * max_delta_ticks
    taken = exposed.filter(pl.col("distance2") >= 2 * min_delta_ticks, pl.col("distance2") <= most)
    active, end, hit = (column(taken, name) for name in ("active_ns", "end_ns", "hit"))
    hit_ns = taken["hit_ns"].fill_null(taken["active_ns"]).to_numpy()
    until = origin_ns + n_buckets * bucket_ns
    if taken.height and (min(active.min(), hit_ns.min()) < origin_ns or end.max() > until or hit_ns.max() >= until):
        raise ValueError(f"orders were at risk or hit outside of the buckets from {origin_ns} to {until} ns")
    distances, rank = np.unique(column(taken, "distance2"), return_inverse=True)
    column_of = (column(taken, "side") != 1) * distances.size + rank
    exposure_ns, hits, lots, counted = (np.zeros((n_buckets, len(SIDES) * distances.size), np.int64) for _ in range(4))
    add_cells(counted, (active - origin_ns) // bucket_ns, column_of, 1)
    own, from_ns, to_ns = _known(active, end, taken["holes_ns"])
    add_times(exposure_ns, column_of[own], from_ns, to_ns, origin_ns, bucket_ns)
    hit_bucket = (hit_ns[hit] - origin_ns) // bucket_ns
    add_cells(hits, hit_bucket, column_of[hit], 1)
    add_cells(lots, hit_bucket, column_of[hit], column(taken, "lots")[hit])
    made = (a.reshape(n_buckets, len(SIDES), distances.size) for a in (exposure_ns, hits, lots, counted))
    return Tally(tuple((distances / 2).tolist()), origin_ns, bucket_ns, *made)


def _lives(orders: pl.DataFrame, fills: pl.DataFrame, state: pl.DataFrame) -> pl.DataFrame:
    """order_id, side, price, active_ns, end_ns, end_reason, fill_ns of the orders that came to rest."""
    for name, frame in (("fills", fills), ("state", state)):
        if not frame["recv_ns"].is_sorted():
            raise DataError(f"{name} rows are not in time order", remedy="sort by recv_ns")
    placed = orders.filter(pl.col("action") == "PLACE").select(
        "order_id", "side", "price", active_ns="active_recv_ns", expire_ns="expire_recv_ns"
    )
    if placed["order_id"].is_duplicated().any():
        raise DataError("orders has several orders of one number", remedy=ONE_RUN)
    if placed.height and state.is_empty():
        raise DataError("there are no rows of state", remedy=ONE_RUN)
    refused = orders.filter(pl.col("action") == "REJECT").select("order_id")
    asked = orders.filter(pl.col("action") == "CANCEL_REQ")
    expired = orders.filter(pl.col("action") == "EXPIRE").group_by("order_id").agg(expired_ns=pl.col("recv_ns").min())
    first = fills.group_by("order_id").agg(
        fill_ns=pl.col("recv_ns").first(), took=pl.col("liquidity").first() == "taker"
    )
    _none(first.join(placed, on="order_id", how="anti"), "was filled but never placed")
    lives = (
        placed.join(refused, on="order_id", how="anti")
        .join(asked.group_by("order_id").agg(cancel_ns=pl.col("cancel_effective_ns").min()), on="order_id", how="left")
        .join(expired, on="order_id", how="left")
        .with_columns(expire_ns=pl.min_horizontal("expire_ns", "expired_ns"))
        .join(first, on="order_id", how="left")
        .with_columns(over_ns=pl.min_horizontal("cancel_ns", "expire_ns", pl.lit(state["recv_ns"].max(), pl.Int64)))
    )
    strange = (pl.col("fill_ns") < pl.col("active_ns")) | (pl.col("fill_ns") > pl.col("over_ns"))
    _none(lives.filter(strange), "was filled before or after its life")
    over = pl.col("over_ns")
    reason = (
        pl.when(pl.col("fill_ns").is_not_null()).then(pl.lit("fill"))
        .when(pl.col("cancel_ns") == over).then(pl.lit("cancel"))
        .when(pl.col("expire_ns") == over).then(pl.lit("expire"))
        .otherwise(pl.lit("end_of_run"))
    )  # fmt: skip
    return lives.with_columns(end_ns=pl.coalesce("fill_ns", "over_ns"), end_reason=reason).filter(
        (pl.col("active_ns") < pl.col("end_ns")) | pl.col("fill_ns").is_not_null(), ~pl.col("took").fill_null(False)
    )


def _none(found: pl.DataFrame, what: str) -> None:
    """Raise DataError naming the first of the orders found."""
    if found.height:
        raise DataError(f"order {column(found, 'order_id').min()} {what}", remedy=ONE_RUN)


def _lots(fills: pl.DataFrame, lives: pl.DataFrame, instrument: Instrument) -> pl.DataFrame:
    """order_id and the lots of all its fills at the instant of the first one."""
    parts = fills.select("order_id", fill_ns="recv_ns", lots=instrument.lots.to_steps(column(fills, "qty")))
    first = parts.join(lives, on=("order_id", "fill_ns"), how="semi")
    return first.group_by("order_id").agg(pl.col("lots").sum())


def _unknown(lives: pl.DataFrame, holes: tuple[Ints, Ints]) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
    """For each life: lost_ns, the time of holes within it; holes_ns, their ends; whether its end is inside one."""
    from_ns, to_ns = holes
    if (from_ns > to_ns).any() or (from_ns[1:] < to_ns[:-1]).any():
        raise ValueError("holes must be disjoint and ascending")
    active, end = column(lives, "active_ns"), column(lives, "end_ns")
    first = np.searchsorted(to_ns, active, side="right")  # the first that ends after the activation
    beyond = np.searchsorted(from_ns, end, side="left")  # the first that starts at the end or later
    n = np.maximum(beyond - first, 0)
    row = np.repeat(np.arange(lives.height), n)
    which = np.arange(row.size) + np.repeat(first - np.cumsum(n) + n, n)
    starts, ends = np.maximum(from_ns[which], active[row]), np.minimum(to_ns[which], end[row])
    lost = np.zeros(lives.height, np.int64)
    np.add.at(lost, row, ends - starts)
    edges = pl.DataFrame({"row": np.repeat(row, 2), "holes_ns": np.stack([starts, ends], axis=1).ravel()})
    frame = pl.DataFrame({"row": np.arange(lives.height), "lost_ns": lost}).join(
        edges.group_by("row", maintain_order=True).agg("holes_ns"), on="row", how="left", maintain_order="left"
    )
    inside = np.zeros(lives.height, np.bool_)
    inside[beyond > 0] = end[beyond > 0] < to_ns[beyond[beyond > 0] - 1]
    return frame, inside


def _known(active: Ints, end: Ints, holes_ns: pl.Series) -> tuple[Ints, Ints, Ints]:
    """The stretches of each order's life outside of holes: its row, from_ns, to_ns."""
    edges = holes_ns.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    n = holes_ns.list.len().fill_null(0).to_numpy().astype(np.int64) // 2 + 1  # stretches of each order
    last = np.cumsum(n) - 1
    from_ns, to_ns = np.empty(n.sum(), np.int64), np.empty(n.sum(), np.int64)
    inner = np.ones(n.sum(), np.bool_)
    inner[last] = False  # all but the last end with a hole
    to_ns[last], to_ns[inner] = end, edges[::2]
    inner = np.ones(n.sum(), np.bool_)
    inner[last - n + 1] = False
    from_ns[last - n + 1], from_ns[inner] = active, edges[1::2]
    return np.repeat(np.arange(n.size), n), from_ns, to_ns
