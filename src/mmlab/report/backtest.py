"""Tables of a backtest -> what its figures and small tables show. Computes, never draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import t as student

from mmlab.core.schemas import COMPONENTS, HORIZONS_S
from mmlab.core.spans import NS_PER_MS, NS_PER_S

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PERCENTS = (5, 25, 50, 75, 95)
BPS = 10_000
MOST_BLOCKS, LEAST_BLOCKS = 16, 8  # of time, behind an interval
WIDTHS_S = (600, 300, 120, 60, 30, 10)  # a close look is one of these long
MOST_FILLS = 60  # in a close look, if a shorter one has fewer
MARKOUT_COLUMNS = ("fills", "cut", "mean", "low", "high", "p05", "p25", "p50", "p75", "p95", "kept")
QUOTED = ("both", "bid only", "ask only", "none")
TO_VENUE, TO_CANCEL, TO_FILL = "decision to the venue", "cancel sent to cancelled", "at the venue to first fill"


def parts_by_horizon(attribution: pl.DataFrame) -> pl.DataFrame:
    """One row a horizon: the parts of the profit of all fills and the opening position, their sum, and the fills."""
    both = pl.col("side") == "both"
    value = (pl.col("value").filter(both & (pl.col("component") == name)).first().alias(name) for name in COMPONENTS)
    parts = attribution.group_by("horizon_s", maintain_order=True).agg(
        *value, pl.col("fills", "fills_cut").filter(both).first()
    )
    total = [math.fsum(row) for row in parts.select(COMPONENTS).iter_rows()]
    return parts.select("horizon_s", *COMPONENTS, pl.Series("pnl_total", total, pl.Float64), "fills", "fills_cut")


@dataclass(frozen=True)
class Mean:
    """A mean with its 95% interval, nan where the data are too few for one."""

    value: float
    low: float = math.nan
    high: float = math.nan


def mean(parts: Floats, weights: Floats, blocks: Ints) -> Mean:
    """Sum of parts / sum of weights, its interval clustered over blocks of time, as neighbours share their moves.

    With u_b the sum over block b of part - mean * weight, the variance is sum u_b^2 * B / (B - 1) / (sum of weights)^2,
    and Student's t has B - 1 degrees of freedom. None with fewer than LEAST_BLOCKS blocks.
    """
    whole = float(weights.sum())
    value = float(parts.sum()) / whole
    n = np.unique(blocks).size
    if n < LEAST_BLOCKS:
        return Mean(value)
    scores = np.bincount(blocks, weights=parts - value * weights)
    spread = student.ppf(0.975, n - 1) * math.sqrt(float(scores @ scores) * n / (n - 1)) / whole
    return Mean(value, value - spread, value + spread)


def blocks_of(ns: Ints, horizon_s: int) -> Ints:
    """Which of up to 16 equal blocks of time each fill falls into, none shorter than two horizons; ns ascending."""
    span = int(ns[-1] - ns[0]) + 1
    n = max(min(MOST_BLOCKS, span // (2 * horizon_s * NS_PER_S)), 1)
    return np.array((ns - ns[0]) // -(-span // n), np.int64)


def quantile(values: npt.NDArray[np.generic], weights: npt.NDArray[np.generic], percent: int) -> float:
    """The smallest value such that `percent` of the weight lies at it or below."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    at = np.searchsorted(below, below[-1] * (percent / 100) * (1 - 1e-12))
    return float(values[order][at])


def markouts_by_horizon(markouts: pl.DataFrame, side: int | None = None) -> pl.DataFrame:
    """One row a horizon: where the mid went after the fills of a side (None: both), in 1/10,000 of the mid at the fill.

    Each fill counts by its notional at the mid, so that mean * notional is the adverse selection of `attribution`.
    kept: mean of spread earned + markout, what is left of the spread. A fill that the run's end cut counts in `cut`.
    """
    chosen = markouts if side is None else markouts.filter(pl.col("side") == side)
    rows = [(horizon_s, *_row(chosen, horizon_s)) for horizon_s in HORIZONS_S]
    return pl.DataFrame(rows, schema=["horizon_s", *MARKOUT_COLUMNS], orient="row", strict=False).cast(
        dict.fromkeys(MARKOUT_COLUMNS[2:], pl.Float64)
    )


def _row(markouts: pl.DataFrame, horizon_s: int) -> tuple[int | float | None, ...]:
    """MARKOUT_COLUMNS at one horizon; None where nothing is known."""
    name = f"markout_{horizon_s}s"
    known = markouts.filter(pl.col(name).is_not_null())
    cut = markouts.height - known.height
    if known.is_empty():
        return (0, cut, *[None] * (len(MARKOUT_COLUMNS) - 2))
    qty, mid, moved, earned = (known[column].to_numpy() for column in ("qty", "mid", name, "spread_earned"))
    blocks, notional = blocks_of(known["recv_ns"].to_numpy(), horizon_s), qty * mid
    found = mean(BPS * moved * qty, notional, blocks)
    kept = mean(BPS * (moved + earned) * qty, notional, blocks).value
    quantiles = (quantile(BPS * moved / mid, notional, percent) for percent in PERCENTS)
    limits = (None if math.isnan(limit) else limit for limit in (found.low, found.high))
    return (known.height, cut, found.value, *limits, *quantiles, kept)


def waits(orders: pl.DataFrame, fills: pl.DataFrame) -> dict[str, Ints]:
    """Nanoseconds, order by order: until it reached the venue, its cancel took effect, its first fill came.

    Cancels are all that were sent in time, also those that a fill came before; an order never filled has no last one.
    """
    placed = orders.filter(pl.col("action") == "PLACE")
    asked = orders.filter((pl.col("action") == "CANCEL_REQ") & pl.col("cancel_effective_ns").is_not_null())
    first = fills.group_by("order_id", maintain_order=True).agg(pl.col("recv_ns").min().alias("fill_ns"))
    filled = first.join(placed, on="order_id", maintain_order="left")
    return {
        TO_VENUE: (placed["active_recv_ns"] - placed["recv_ns"]).to_numpy(),
        TO_CANCEL: (asked["cancel_effective_ns"] - asked["cancel_req_ns"]).to_numpy(),
        TO_FILL: (filled["fill_ns"] - filled["active_recv_ns"]).to_numpy(),
    }


def latency(orders: pl.DataFrame, fills: pl.DataFrame) -> pl.DataFrame:
    """`waits` in ms: how many, their mean, quantiles and largest; one row for each that there are any of."""
    rows = []
    for name, ns in waits(orders, fills).items():
        if ns.size:
            ones, ms = np.ones(ns.size, np.int64), ns / NS_PER_MS
            quantiles = {f"p{percent:02}_ms": quantile(ms, ones, percent) for percent in (*PERCENTS, 99)}
            mean_ms = int(ns.sum()) / ns.size / NS_PER_MS
            rows.append({"wait": name, "orders": ns.size, "mean_ms": mean_ms, **quantiles, "max_ms": float(ms.max())})
    return pl.DataFrame(rows)


def too_late(orders: pl.DataFrame) -> tuple[int, int]:
    """(fills that came while their order's cancel was on its way, all fills)."""
    filled = orders.filter(pl.col("action") == "FILL")
    return filled.height - filled["cancel_req_ns"].null_count(), filled.height


def quoted_by_time(state: pl.DataFrame, bins: int = 120) -> pl.DataFrame:
    """start_ns and end_ns of up to `bins` equal bins of time, and the parts of each in which own quotes were at work.

    A row of `state` holds until the next one, as in `metrics`.
    """
    ns = state["recv_ns"].to_numpy()
    first, passed = int(ns[0]), int(ns[-1] - ns[0])
    if not passed:
        return pl.DataFrame(schema={"start_ns": pl.Int64, "end_ns": pl.Int64, **dict.fromkeys(QUOTED, pl.Float64)})
    n = min(bins, passed)
    edges = np.array([first + passed * i // n for i in range(n + 1)], np.int64)
    cuts = np.unique(np.concatenate([ns, edges]))
    starts = cuts[:-1]
    row = np.searchsorted(ns, starts, side="right") - 1
    kind = 2 * state["bid_px"].is_null().to_numpy()[row] + state["ask_px"].is_null().to_numpy()[row]
    held = np.zeros((n, 4), np.int64)
    np.add.at(held, (np.searchsorted(edges, starts, side="right") - 1, kind), np.diff(cuts))
    shares = dict(zip(QUOTED, (held / np.diff(edges)[:, None]).T, strict=True))
    return pl.DataFrame({"start_ns": edges[:-1], "end_ns": edges[1:], **shares})


def busy_span(fill_ns: Ints, first_ns: int, last_ns: int) -> tuple[int, int]:
    """A stretch of [first_ns, last_ns] for a close look: where most fills lie, and short enough to tell them apart.

    The longest of WIDTHS_S whose busiest stretch has at most MOST_FILLS fills, or else the shortest; in the middle of
    the run if there are no fills. fill_ns ascending.
    """
    found = (first_ns, last_ns)
    for width_s in WIDTHS_S:
        width = width_s * NS_PER_S
        if width >= last_ns - first_ns:
            n, found = fill_ns.size, (first_ns, last_ns)
        else:
            n, middle = _busiest(fill_ns, width) if fill_ns.size else (0, (first_ns + last_ns) // 2)
            start = min(max(middle - width // 2, first_ns), last_ns - width)
            found = (start, start + width)
        if n <= MOST_FILLS:
            break
    return found


def _busiest(fill_ns: Ints, width: int) -> tuple[int, int]:
    """(most fills within `width`, the middle of the first such stretch)."""
    after = np.searchsorted(fill_ns, fill_ns + width, side="right")
    within = after - np.arange(fill_ns.size)
    i = int(np.argmax(within))
    return int(within[i]), int(fill_ns[i] + fill_ns[after[i] - 1]) // 2
