"""`mmlab serve`: a loopback venue that plays a recorded day, or a seeded market, with scripted faults."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import depth
from mmlab.serve.candles import Candles, CandleSpec
from mmlab.serve.faults import Fault
from mmlab.serve.market import (
    Event,
    Listing,
    State,
    Synthetic,
    SynthSpec,
    agg_event,
    depth_event,
    text,
    ticker_event,
    trade_event,
)
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec, Venue
from mmlab.store.lake import DayRef, Lake

LATE_S = 1.0  # after the last event, before the venue leaves


@dataclass
class Market:
    """What a venue plays: its states before, its events, and where it has to wait for a snapshot."""

    states: dict[str, State]
    events: Iterator[Event]
    before: Callable[[Venue, Event], bool] | None = None
    candles: Candles | None = None


def synthetic(spec: SynthSpec, events: int | None = None) -> Market:
    """A seeded market that begins now, and stands still after so many events."""
    made = Synthetic(spec, time.time_ns())
    past = CandleSpec(spec.symbols, spec.seed, spec.tick_size, spec.lot_size, spec.mid, spec.usdm)
    return Market(made.states(), islice(made.events(), events), candles=Candles(past))


def recorded(lake: Lake, refs: list[DayRef]) -> Market:
    """Recorded days of one symbol, in the order of receipt; raises DataError for days without raw updates."""
    instrument = lake.instrument(refs)
    diffs = lake.read(refs, schemas.DIFFS, schemas.DIFFS.schema.names())
    if diffs.is_empty():
        raise DataError(
            f"{refs[0].symbol} has no raw book updates on these days", remedy="serve a recorded day, or --synthetic"
        )
    state = State(Listing(instrument.symbol, instrument.tick_size, instrument.lot_size))
    snapshot, at = _first_snapshot(lake, refs)
    if snapshot is None:
        _from_frame(lake, refs, state)
    waiting: list[Event] = []
    done = snapshot is None

    def before(venue: Venue, event: Event) -> bool:
        """At the place of the recorded snapshot: the book is it, and what came before and is newer."""
        nonlocal done
        if done or event.at_ns < at:
            waiting.append(event)
            return False
        assert snapshot is not None
        done = True
        state.bids, state.asks = dict(snapshot["bids"]), dict(snapshot["asks"])
        for early in waiting:
            if early.stream == "depth" and early.last_id > snapshot["lastUpdateId"]:
                state.apply(early)
        waiting.clear()
        venue.answer_once(instrument.symbol, snapshot)
        return True

    return Market({instrument.symbol: state}, _events(lake, refs, diffs, instrument), before)


def _first_snapshot(lake: Lake, refs: list[DayRef]) -> tuple[dict[str, Any] | None, int]:
    """The first snapshot recorded, as REST would answer it, and when it was received."""
    rows = lake.read(refs, schemas.SNAPSHOTS, ("recv_ns", "recv_seq", "last_update_id", "side", "price", "qty"))
    if rows.is_empty():
        return None, 0
    first = rows.filter((pl.col("recv_ns") == rows["recv_ns"][0]) & (pl.col("recv_seq") == rows["recv_seq"][0]))
    sides = {
        s: [(text(p), text(q)) for p, q in first.filter(pl.col("side") == s)["price", "qty"].iter_rows()]
        for s in (1, -1)
    }
    return {"lastUpdateId": first["last_update_id"][0], "bids": sides[1], "asks": sides[-1]}, first["recv_ns"][0]


def _from_frame(lake: Lake, refs: list[DayRef], state: State) -> None:
    """A day that goes on from the one before has no snapshot: begin with its first frame."""
    levels = lake.manifest(refs[0]).levels
    table = depth(levels)
    frame = lake.scan(refs, table, table.schema.names()).head(1).collect()
    for row in frame.iter_rows(named=True):
        state.last_id = row["update_id"] - 1
        for side, name in ((state.bids, "bid"), (state.asks, "ask")):
            for i in range(1, levels + 1):
                if row[f"{name}_px_{i}"] is not None:
                    side[text(row[f"{name}_px_{i}"])] = text(row[f"{name}_qty_{i}"])


def _events(lake: Lake, refs: list[DayRef], diffs: pl.DataFrame, instrument: Instrument) -> Iterator[Event]:
    """All messages as they were received."""
    usdm = instrument.venue == "binance-usdm"
    found: list[tuple[int, int, Event]] = []
    found += _updates(diffs, instrument.symbol, usdm)
    columns = ("recv_ns", "recv_seq", "exch_ns", "trade_ns", "trade_id", "price", "qty", "taker")
    for table in (schemas.TRADES, schemas.AGG_TRADES):
        prints = lake.read(refs, table, columns).iter_rows(named=True)
        found += [(row["recv_ns"], row["recv_seq"], _print(table.name, row, instrument.symbol, usdm)) for row in prints]
    names = ("recv_ns", "recv_seq", "exch_ns", "update_id", "bid_px", "bid_qty", "ask_px", "ask_qty")
    for row in lake.read(refs, schemas.BOOK_TICKER, names).iter_rows(named=True):
        touch = (text(row["bid_px"]), text(row["bid_qty"]), text(row["ask_px"]), text(row["ask_qty"]))
        event = ticker_event(row["recv_ns"], instrument.symbol, row["update_id"], touch, usdm)
        event.times = dict.fromkeys(event.times, row["exch_ns"] or 0)
        found.append((row["recv_ns"], row["recv_seq"], event))
    found.sort(key=lambda item: item[:2])
    return (event for _, _, event in found)


def _updates(diffs: pl.DataFrame, symbol: str, usdm: bool) -> Iterator[tuple[int, int, Event]]:
    """(recv_ns, recv_seq, event) of every raw update."""
    change = (diffs["recv_seq"] != diffs["recv_seq"].shift(1)) | (diffs["recv_ns"] != diffs["recv_ns"].shift(1))
    starts = [*change.fill_null(True).arg_true().to_list(), diffs.height]
    heads = diffs.select("recv_ns", "recv_seq", "exch_ns", "first_id", "last_id", "prev_id").gather(starts[:-1])
    sides, prices, quantities = (diffs[name].to_list() for name in ("side", "price", "qty"))
    for (first, end), head in zip(pairwise(starts), heads.iter_rows(), strict=True):
        recv_ns, recv_seq, exch_ns, first_id, last_id, prev_id = head
        levels = {1: [], -1: [], 0: []}  # type: dict[int, list[tuple[str, str]]]
        for i in range(first, end):
            if sides[i]:
                levels[sides[i]].append((text(prices[i]), text(quantities[i])))
        event = depth_event(recv_ns, symbol, (first_id, last_id, prev_id if usdm else None), levels[1], levels[-1])
        event.times = dict.fromkeys(event.times, exch_ns)
        yield recv_ns, recv_seq, event


def _print(table: str, row: dict[str, Any], symbol: str, usdm: bool) -> Event:
    price, qty, sold = text(row["price"]), text(row["qty"]), row["taker"] == -1
    if table == "trades":
        event = trade_event(row["recv_ns"], symbol, row["trade_id"], price, qty, sold, usdm)
    else:
        event = agg_event(row["recv_ns"], symbol, row["trade_id"], price, qty, sold, (0, 0))
    event.times = {"E": row["exch_ns"], "T": row["trade_ns"]}
    return event


def venue(market: Market, spec: ServeSpec, faults: list[Fault], truth: Truth) -> Venue:
    """A venue that plays `market`."""
    made: list[Venue] = []
    before = market.before
    pause = None if before is None else lambda event: before(made[0], event)
    made.append(Venue(market.states, market.events, spec, time.time_ns, faults, truth, pause, market.candles))
    return made[0]


def serve(
    market: Market, spec: ServeSpec, faults: list[Fault], truth_file: Path | None, duration_s: float | None,
    ready: Callable[[int], None], stay: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Play until the market (unless it is to `stay`) or the time is over, or a signal comes.

    Returns the events by stream. Raises UsageError for a port that is taken.
    """
    if truth_file is not None and truth_file.exists():
        raise UsageError(f"{truth_file} exists already", remedy="give --truth another name")
    file = None if truth_file is None else truth_file.open("wb")
    truth = Truth(file, keep=False)
    try:
        asyncio.run(_play(venue(market, spec, faults, truth), duration_s, ready, stay))
    except OSError as error:
        raise UsageError(
            f"port {spec.port}: {error.strerror or error}", remedy="give --port one that is free"
        ) from None
    finally:
        if file is not None:
            file.close()
    return truth.counts


async def _play(played: Venue, duration_s: float | None, ready: Callable[[int], None], stay: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with played:
        ready(played.port)
        over = [asyncio.ensure_future(stop.wait())]
        if not stay:
            over.append(asyncio.ensure_future(played.finished.wait()))
        await asyncio.wait(over, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        if played.finished.is_set() and not stay:
            await asyncio.sleep(LATE_S)
        for task in over:
            task.cancel()
