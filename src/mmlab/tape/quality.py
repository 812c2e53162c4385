"""Is a recorded day what it says? Ids without undeclared holes, books that equal later snapshots, clocks that run on.

Each check takes frames and returns sentences, one for each fault; none is a clean bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from mmlab.core.instrument import Instrument
from mmlab.core.spans import NS_PER_S
from mmlab.tape.books import Book
from mmlab.tape.holes import Ids, without

SHOWN = 5  # faults of one kind that are told in full
SLOW_NS = 10 * NS_PER_S


@dataclass(frozen=True)
class Day:
    """The tables of one recorded day that checks read."""

    instrument: Instrument
    depth: pl.DataFrame
    diffs: pl.DataFrame
    snapshots: pl.DataFrame
    trades: pl.DataFrame
    agg_trades: pl.DataFrame
    events: pl.DataFrame
    gaps: pl.DataFrame


def check_day(day: Day) -> list[str]:
    """Every fault of a day. Runs are looked at one by one, since a venue may set its ids back between them."""
    faults = _shown(list(clock_faults(day)))
    for run in _runs(day):
        for name, stream in (("trades", "trade"), ("agg_trades", "aggTrade")):
            faults += _shown(list(print_faults(getattr(run, name), day.gaps, stream)))
        faults += _shown(list(update_faults(run.diffs, day.gaps)))
        faults += _shown(list(book_faults(run)))
    for name, stream in (("trades", "trade"), ("agg_trades", "aggTrade")):
        faults += _shown(list(seam_faults(getattr(day, name), day.gaps, stream)))
    return faults


def _runs(day: Day) -> Iterator[Day]:
    """The day as each of its runs recorded it."""
    ids = day.events["run_id"].unique().sort().to_list()
    for run_id in ids:
        names = ("diffs", "snapshots", "trades", "agg_trades")
        own = {name: getattr(day, name).filter(pl.col("run_id") == run_id) for name in names}
        yield day if len(ids) == 1 else replace(day, **own)


def seam_faults(prints: pl.DataFrame, gaps: pl.DataFrame, stream: str) -> Iterator[str]:
    """Ids between the last print of one run and the first of the next that no row of `gaps` declares."""
    edges = prints.group_by("run_id").agg(
        low=pl.col("trade_id").min(), high=pl.col("trade_id").max(), at=pl.col("recv_ns").min()
    )
    for before, after in pairwise(edges.sort("at").iter_rows(named=True)):
        for first, last in _uncovered(before["high"] + 1, after["low"] - 1, _ranges(gaps, stream)):
            yield f"{stream}: ids {first} to {last} are missing between two runs, and no hole is declared for them"


def _shown(faults: list[str]) -> list[str]:
    more = len(faults) - SHOWN
    return faults[:SHOWN] + ([f"... and {more} more of this kind"] if more > 0 else [])


def print_faults(prints: pl.DataFrame, gaps: pl.DataFrame, stream: str) -> Iterator[str]:
    """Ids that come twice, and jumps that no row of `gaps` declares."""
    ids = prints["trade_id"].sort()
    twice = ids.filter(ids.is_duplicated()).unique()
    if twice.len():
        yield f"{stream}: {twice.len()} ids come twice, the first is {twice.sort()[0]}"
    declared = _ranges(gaps, stream)
    steps = pl.DataFrame({"id": ids, "before": ids.shift(1)}).filter(pl.col("id") > pl.col("before") + 1)
    for at, before in steps.iter_rows():
        for first, last in _uncovered(before + 1, at - 1, declared):
            yield f"{stream}: ids {first} to {last} are missing, and no hole is declared for them"


def update_faults(diffs: pl.DataFrame, gaps: pl.DataFrame) -> Iterator[str]:
    """Updates that do not follow on the one before, in the order of ids, where no hole is declared."""
    if diffs.is_empty():
        return
    updates = diffs.group_by("first_id", "last_id", "prev_id").agg(pl.col("recv_ns").min()).sort("last_id", "first_id")
    before = updates.shift(1)
    dense = updates["prev_id"].is_null()
    expected = pl.select(pl.when(dense).then(updates["first_id"] - 1).otherwise(updates["prev_id"])).to_series()
    broken = updates.with_columns(before_id=before["last_id"], expected=expected, before_ns=before["recv_ns"])
    declared = _ranges(gaps, "depth")
    spans = [(a, b) for a, b in gaps.filter(pl.col("stream") == "depth").select("from_ns", "to_ns").iter_rows()]
    for row in broken.filter(pl.col("expected") > pl.col("before_id")).iter_rows(named=True):
        inside = any(a <= row["before_ns"] and row["recv_ns"] <= b for a, b in spans)
        left = _uncovered(row["before_id"] + 1, row["expected"], declared)
        if left and not inside:
            yield f"depth: updates {left[0][0]} to {left[0][1]} are missing, and no hole is declared for them"


def _ranges(gaps: pl.DataFrame, stream: str) -> list[Ids]:
    rows = gaps.filter((pl.col("stream") == stream) & pl.col("first_missing").is_not_null())
    return sorted((a, b) for a, b in rows.select("first_missing", "last_missing").iter_rows())


def _uncovered(first: int, last: int, ranges: list[Ids]) -> list[Ids]:
    """The parts of [first, last] that no range covers."""
    left = [(first, last)] if first <= last else []
    for each in ranges:
        left = without(left, each)
    return left


def book_faults(day: Day) -> Iterator[str]:
    """The book rebuilt from diffs, held against every later snapshot, both in the order of update ids.

    Compared are the levels that both know: within the snapshot's reach, within that of the snapshot that
    the book began with, and not touched by an update that the snapshot cuts in two.
    """
    loads = [Load.of(part) for part in day.snapshots.partition_by(["recv_ns", "recv_seq"], maintain_order=True)]
    loads.sort(key=lambda load: load.update_id)
    book: Book | None = None
    book_id, reach = 0, (0.0, 0.0)
    for update in _updates(day.diffs):
        while loads and loads[0].update_id < update.last_id:
            load = loads.pop(0)
            if book is None or load.update_id < book_id:
                book, book_id, reach = Book(day.instrument.ticks), load.update_id, load.reach
                book.load(load.levels[1], load.levels[-1])
            else:
                yield from _differences(book, load, reach, update if update.first_id <= load.update_id else None)
        if book is None or update.last_id <= book_id:
            continue
        joins = update.first_id <= book_id + 1 if update.prev_id is None else update.prev_id <= book_id
        if joins:
            book.apply(update.bids, update.asks)
            book_id = update.last_id
        else:
            book = None
    for load in loads:
        if book is not None and load.update_id == book_id:
            yield from _differences(book, load, reach, None)


class Update(NamedTuple):
    """One update of the book."""

    first_id: int
    last_id: int
    prev_id: int | None
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


def _updates(diffs: pl.DataFrame) -> Iterator[Update]:
    """Raw updates in the order of their ids."""
    ordered = (
        diffs if diffs["last_id"].is_sorted() else diffs.sort("last_id", "recv_ns", "recv_seq", maintain_order=True)
    )
    change = (ordered["recv_seq"] != ordered["recv_seq"].shift(1)) | (ordered["last_id"] != ordered["last_id"].shift(1))
    starts = [*change.fill_null(True).arg_true().to_list(), ordered.height]
    ids = ordered.select("first_id", "last_id", "prev_id").gather(starts[:-1])
    side, price, qty = (ordered[name].to_numpy() for name in ("side", "price", "qty"))
    for (first, end), (first_id, last_id, prev_id) in zip(pairwise(starts), ids.iter_rows(), strict=True):
        bids, asks = (np.flatnonzero(side[first:end] == s) + first for s in (1, -1))
        levels = [list(zip(price[rows].tolist(), qty[rows].tolist(), strict=True)) for rows in (bids, asks)]
        yield Update(first_id, last_id, prev_id, levels[0], levels[1])


class Load(NamedTuple):
    """One recorded snapshot: its levels by side, and the lowest bid and highest ask that it knows."""

    update_id: int
    levels: dict[int, list[tuple[float, float]]]
    reach: tuple[float, float]

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Load:
        """From its rows."""
        levels = {side: rows.filter(pl.col("side") == side).select("price", "qty").rows() for side in (1, -1)}
        low = min((p for p, _ in levels[1]), default=0.0)
        return cls(rows["last_update_id"][0], levels, (low, max((p for p, _ in levels[-1]), default=float("inf"))))


def _differences(book: Book, load: Load, reach: tuple[float, float], cut: Update | None) -> Iterator[str]:
    """Levels that differ, but for those that the update touches which the snapshot cuts in two."""
    low, high = max(load.reach[0], reach[0]), min(load.reach[1], reach[1])
    for name, side, half in (("bid", 1, book.bids), ("ask", -1, book.asks)):
        step = abs(half.per_unit)
        touched = {round(p * step) for p, _ in (cut.bids if side == 1 else cut.asks)} if cut else set()
        theirs = {round(p * step): q for p, q in load.levels[side]}
        ours = {abs(key): q for key, q in half.qty.items()}
        for ticks in sorted((theirs.keys() | ours.keys()) - touched):
            if round(low * step) <= ticks <= min(high, 1e15) * step + 0.5 and theirs.get(ticks) != ours.get(ticks):
                yield (
                    f"book: at update {load.update_id} the {name} at {ticks / step:g} is {ours.get(ticks, 0.0):g}, "
                    f"the venue's snapshot says {theirs.get(ticks, 0.0):g}"
                )


def clock_faults(day: Day) -> Iterator[str]:
    """Receive times that run backwards."""
    for name in ("depth", "trades"):
        frame = getattr(day, name)
        if frame.height and not frame["recv_ns"].is_sorted():
            yield f"clock: receive times of {name} run backwards"


def remarks(day: Day) -> list[str]:
    """What is strange about a day, and no fault of its files: prints that took far longer or shorter than most."""
    live = day.trades.filter(pl.col("source") == "ws")
    delay = (live["recv_ns"] - live["exch_ns"]).median()
    late = live.filter((pl.col("recv_ns") - pl.col("exch_ns") - delay).abs() > SLOW_NS).height if live.height else 0
    return [f"clock: {late} trades came more than 10 s later or earlier than the median of the day"] if late else []
