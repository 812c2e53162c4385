"""Candles from trades, longer candles from shorter ones, and the holes in both, all by the UTC clock.

A trade belongs to the candle in which the venue matched it (`trade_ns`, the venue's clock), so that candles
made here are those the venue itself makes; the recorder's clock, which lags by the way from there, plays no part.
Volumes are added as integers of their last decimal: the sum is the double nearest to the decimal one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import TableError, UsageError
from mmlab.core.intervals import interval_text
from mmlab.core.schemas import BARS
from mmlab.core.spans import NS_PER_MIN

Span = tuple[int, int]  # [from_ns, to_ns)
Hole = tuple[int, int, int]  # from_ns, to_ns, how many are missing
EXACT = 2**53  # integers below it are doubles
DECIMALS = 10
LONGEST_NS = 8 * 60 * NS_PER_MIN  # the venue settles at least so often
SLACK_NS = NS_PER_MIN


def spans_by_ids(trades: pl.DataFrame) -> list[Span]:
    """Stretches of the venue's clock in which every trade is known, shown by ids without a jump.

    `trades` has trade_ns and trade_id, in the venue's order. Of a run of ids that follow on each other the
    trades after its first instant and before its last are all there; at those two instants others may
    be missing, unless the run begins with the venue's first id (0 or 1), before which there are none.
    """
    if trades.is_empty():
        return []
    ids, times = trades["trade_id"].to_numpy(), trades["trade_ns"].to_numpy()
    cuts = np.flatnonzero((np.diff(ids) != 1) | (np.diff(times) < 0)) + 1
    firsts, lasts = np.r_[0, cuts], np.r_[cuts, ids.size] - 1
    starts = np.where((ids[firsts] <= 1) & (firsts == 0), 0, times[firsts] + 1)
    return [(int(a), int(b)) for a, b in zip(starts, times[lasts], strict=True) if a < b]


def from_trades(trades: pl.DataFrame, interval_ns: int, spans: Sequence[Span]) -> pl.DataFrame:
    """Rows of BARS from trades (trade_ns, price, qty, taker, in the venue's order), by time.

    A candle is made only where [open, open + interval) lies in one of `spans`, within which every trade is
    known: one at an edge or at a hole is left out (`cut_bars` names it). Where nothing was traded, the
    candle is the price before, with volume 0, as the venue's own are.
    """
    bar = pl.col("trade_ns") // interval_ns
    whole = _whole(trades, interval_ns, spans)
    if not whole.size:
        return BARS.empty()
    bought = pl.when(pl.col("taker") == 1).then(pl.col("qty")).otherwise(0.0)
    made = _sums(trades.with_columns(_bar=bar, _bought=bought), "_bar", {"volume": "qty", "buy_volume": "_bought"}, (
        pl.col("price").first().alias("open"), pl.col("price").max().alias("high"),
        pl.col("price").min().alias("low"), pl.col("price").last().alias("close"),
        pl.len().cast(pl.Int64).alias("n_trades"),
    ))  # fmt: skip
    every = pl.DataFrame({"_bar": whole}).join(made, on="_bar", how="full", coalesce=True).sort("_bar")
    before = pl.col("close").forward_fill()
    every = every.with_columns(
        *(pl.coalesce(name, before).alias(name) for name in ("open", "high", "low", "close")),
        *(pl.col(name).fill_null(0) for name in ("volume", "buy_volume", "n_trades")),
    )
    rows = every.filter(pl.col("_bar").is_in(pl.Series(whole).implode()), pl.col("close").is_not_null())
    return BARS.conform(rows.with_columns(open_ns=pl.col("_bar") * interval_ns))


def cut_bars(trades: pl.DataFrame, interval_ns: int, spans: Sequence[Span]) -> list[int]:
    """Starts of the candles that have trades and that `from_trades` leaves out, since they are not whole."""
    bars = (trades["trade_ns"] // interval_ns).unique().sort().to_numpy()
    return [int(bar) * interval_ns for bar in np.setdiff1d(bars, _whole(trades, interval_ns, spans))]


def _whole(trades: pl.DataFrame, interval_ns: int, spans: Sequence[Span]) -> npt.NDArray[np.int64]:
    """Numbers of the candles that lie within one span, from the first trade's to the last one's."""
    if trades.is_empty():
        return np.empty(0, np.int64)
    times = trades["trade_ns"].to_numpy()
    first, last = int(times.min()) // interval_ns, int(times.max()) // interval_ns
    ranges = [(max(-(-a // interval_ns), first), min(b // interval_ns, last + 1)) for a, b in spans]
    return np.unique(np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in ranges)]))


def resample(bars: pl.DataFrame, interval_ns: int, base_ns: int | None = None) -> pl.DataFrame:
    """Longer candles from shorter ones, by the clock; only where all of them are there.

    `base_ns` is the shorter length; without it the least distance between two rows, which is too long
    where no two neighbours are left. A null volume of buyers, or number of trades, makes a null one. Raises
    UsageError if the longer length is no multiple of the shorter, TableError for rows off the shorter's grid.
    """
    if bars.is_empty():
        return BARS.empty()
    base = base_ns or (interval_ns if bars.height == 1 else int(np.diff(bars["open_ns"].to_numpy()).min()))
    if base <= 0 or interval_ns % base:
        raise UsageError(
            f"candles of {base / 1e9:g} s do not make candles of {interval_ns / 1e9:g} s",
            remedy="choose a multiple of their length",
        )
    if (bars["open_ns"] % base != 0).any():
        raise TableError(f"there are bars that do not start at a multiple of {interval_text(base)}")
    nulls = [pl.col(name).has_nulls().alias(f"_no_{name}") for name in ("buy_volume", "n_trades")]
    made = _sums(
        bars.with_columns(_bar=pl.col("open_ns") // interval_ns), "_bar",
        {"volume": "volume", "buy_volume": "buy_volume"},
        (pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
         pl.col("n_trades").sum(), pl.len().alias("_n"), *nulls),
    )  # fmt: skip
    known = [pl.when(~pl.col(f"_no_{name}")).then(name).alias(name) for name in ("buy_volume", "n_trades")]
    made = made.with_columns(*known, open_ns=pl.col("_bar") * interval_ns)
    return BARS.conform(made.filter(pl.col("_n") == interval_ns // base).sort("open_ns"))


def _sums(frame: pl.DataFrame, by: str, sums: dict[str, str], others: tuple[pl.Expr, ...]) -> pl.DataFrame:
    """Groups of rows with exact sums: {new name: column}; a column of more than ten decimals is added as it stands."""
    scales = {name: _decimals(frame[name]) for name in sorted(set(sums.values()))}
    steps = {name: n for name, n in scales.items() if n is not None}
    whole = [(pl.col(name) * 10**n).round().cast(pl.Int64).alias(f"_steps_{name}") for name, n in steps.items()]
    added = [pl.col(f"_steps_{name}" if name in steps else name).sum().alias(new) for new, name in sums.items()]
    made = frame.with_columns(whole).group_by(by, maintain_order=True).agg(*others, *added)
    # numpy divides; Polars multiplies by the reciprocal, which may end one bit off the nearest double
    nearest = {new: made[new].to_numpy() / 10.0 ** steps[name] for new, name in sums.items() if name in steps}
    return made.with_columns(**{new: pl.Series(values) for new, values in nearest.items()})


def _decimals(values: pl.Series) -> int | None:
    """The fewest decimals that say every value, if their sum in them fits 63 bits; None if no few do."""
    known = values.drop_nulls().to_numpy()
    for n in range(DECIMALS + 1):
        scaled = np.rint(known * 10.0**n)
        if scaled.size and (scaled.max() >= EXACT or scaled.sum() >= 2.0**62):
            return None
        if (scaled / 10.0**n == known).all():
            return n
    return None


def holes(bars: pl.DataFrame, interval_ns: int) -> list[Hole]:
    """Where candles are missing between the first and the last: start of the first missing, of the next, count."""
    at = bars["open_ns"].sort().to_numpy()
    after = np.flatnonzero(np.diff(at) > interval_ns)
    return [
        (int(at[i]) + interval_ns, int(at[i + 1]), int((at[i + 1] - at[i]) // interval_ns) - 1) for i in after
    ]  # fmt: skip


def settlement_holes(funding: pl.DataFrame) -> list[Hole]:
    """Where settlements are missing, as far as their distances tell: from, to, and how many.

    The venue settles every 8, 4 or 1 hours and may change it. Missing is what would fill a distance longer
    than 8 hours, or one half as long again as both its neighbours.
    """
    at = funding["ts_ns"].sort().to_numpy()
    steps = np.diff(at)
    found = []
    for i, step in enumerate(steps):
        beside = [int(s) for s in (*steps[max(i - 1, 0) : i], *steps[i + 1 : i + 2])]
        usual = min(max(beside, default=LONGEST_NS), LONGEST_NS)
        if step > LONGEST_NS + SLACK_NS or step > 1.5 * usual:
            missing = max(round(int(step) / usual) - 1, 1)
            found.append((int(at[i]) + usual, int(at[i + 1]), missing))
    return found
