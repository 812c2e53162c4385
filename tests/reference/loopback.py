"""A recorder and a loopback venue in one event loop, over real sockets, and the oracle that compares them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.spans import NS_PER_DAY
from mmlab.flows.record_start import ask_listings, known_listings, lock_symbols, read_ban
from mmlab.flows.recorder import REAL, Clocks, Recorder
from mmlab.record.commands import Settings
from mmlab.record.health import Health
from mmlab.record.spec import RecordSpec
from mmlab.serve.faults import Fault
from mmlab.serve.market import Event, Synthetic, SynthSpec
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec, Venue
from mmlab.store.lake import Lake

SYMBOL = "TESTUSDT"
QUICK = Settings(life_s=3600, silent_s=2.0, info_s=600, snapshot_s=0, retry_s=0.05, cap_s=0.4)
SPEC = RecordSpec(
    "binance-spot", (SYMBOL,), ("depth@100ms", "trade"), Path("data"), window="always", levels=10, min_free_mb=1,
    settings=QUICK, ping_s=2.0,
)  # fmt: skip
LOG = logging.getLogger("mmlab.test.record")


@dataclass
class Played:
    """What a run left: the venue with its truth, the recorder, and the lake."""

    venue: Venue
    recorder: Recorder
    lake: Lake

    @property
    def truth(self) -> Truth:
        return self.venue.truth

    def table(self, name: str, symbol: str = SYMBOL) -> pl.DataFrame:
        """A table of all days recorded."""
        return read(self.lake, name, symbol)

    def kinds(self) -> list[str]:
        return self.table("events")["kind"].to_list()


def read(lake: Lake, name: str, symbol: str = SYMBOL) -> pl.DataFrame:
    """A table of all days, in stored order."""
    refs = lake.days(symbol=symbol)
    table = schemas.depth(lake.manifest(refs[0]).levels) if name == "depth" else schemas.TABLES[name]
    return lake.read(refs, table, table.schema.names())


def market(
    spec: SynthSpec | None = None, events: int = 400, faults: Iterable[Fault] = (), serve: ServeSpec | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> Venue:  # fmt: skip
    """A venue of a seeded market that ends after so many events."""
    made = Synthetic(spec or SynthSpec(updates_per_s=40, prints_per_s=40, levels=30), clock_ns())
    return Venue(
        made.states(), islice(made.events(), events), serve or ServeSpec(), clock_ns, list(faults), Truth(every=5)
    )


def spec_for(against: Venue, root: Path, **changes: Any) -> RecordSpec:
    """The recorder's spec against a venue."""
    address = {"ws_url": f"ws://127.0.0.1:{against.port}", "rest_url": f"http://127.0.0.1:{against.port}"}
    return replace(SPEC, data_root=root, **{**address, **changes})


async def play(
    against: Venue, root: Path, during: Callable[[Venue, Recorder], Any] | None = None, settle_s: float = 0.4,
    span: tuple[int, int] | None = None, clocks: Clocks = REAL, **changes: Any,
) -> Played:  # fmt: skip
    """Record the venue from its first event to its last."""
    async with against:
        return await record(against, root, during, settle_s, span, clocks, **changes)


async def record(
    against: Venue, root: Path, during: Callable[[Venue, Recorder], Any] | None = None, settle_s: float = 0.4,
    span: tuple[int, int] | None = None, clocks: Clocks = REAL, **changes: Any,
) -> Played:  # fmt: skip
    """One recorder against a venue that stands."""
    venue = against
    spec = spec_for(venue, root, **changes)
    now = clocks.wall_ns()
    locks = lock_symbols(spec)
    banned = clocks.wall_ns() < read_ban(spec)
    listings = known_listings(spec) if banned else (await asyncio.to_thread(ask_listings, spec))[0]
    recorder = Recorder(spec, span or (now, now - now % NS_PER_DAY + NS_PER_DAY), 0, LOG, Health(spec.symbols), clocks)
    task = asyncio.create_task(recorder.run(listings, lambda _line: None))
    if during is not None:
        await during(venue, recorder)
    finished = asyncio.create_task(venue.finished.wait())
    await asyncio.wait([task, finished], return_when=asyncio.FIRST_COMPLETED, timeout=60)
    await asyncio.sleep(settle_s)
    recorder.stop_asked = max(recorder.stop_asked, 1)
    await asyncio.wait_for(task, 60)
    recorder.tidy()
    for lock in locks:
        lock.release()
    return Played(venue, recorder, Lake(Path(spec.data_root)))


def check(played: Played, symbol: str = SYMBOL) -> None:
    """The oracle: what was recorded and what was declared missing is what happened; books are the venue's."""
    check_lake(played.truth.lines, played.lake, symbol)


def check_lake(truth: list[dict[str, Any]], lake: Lake, symbol: str = SYMBOL) -> None:
    """The oracle, from a truth log and a lake."""
    for ref in lake.days(symbol=symbol):
        assert lake.verify(ref) == []
    gaps = read(lake, "gaps", symbol)
    trades = [line for line in truth if line["kind"] == "trade" and line["symbol"] == symbol]
    recorded = read(lake, "trades", symbol)
    ids = recorded["trade_id"].to_list()
    assert len(set(ids)) == len(ids), "a trade was recorded twice"
    missing = declared(gaps, "trade")
    known, blind = set(ids), timed(gaps, "trade")
    for line in trades:
        there = line["last"] in known
        assert not (there and covers(missing, line["last"])), f"trade {line} is declared missing, and is there"
        assert there or covers(missing, line["last"]) or covers(blind, line["at_ns"]), f"trade {line} lost"
    updates = [line for line in truth if line["kind"] == "depth" and line["symbol"] == symbol]
    diffs = read(lake, "diffs", symbol).select("first_id", "last_id").unique()
    known_updates = set(diffs.iter_rows())
    lost, blind = declared(gaps, "depth"), timed(gaps, "depth")
    for line in updates:
        pair = (line["first"], line["last"])
        assert pair in known_updates or covers(lost, line["first"]) or covers(blind, line["at_ns"]), (
            f"update {line} lost"
        )
    check_books(truth, lake, symbol)


def check_books(truth: list[dict[str, Any]], lake: Lake, symbol: str) -> None:
    """Every frame at a checkpoint has the venue's levels; every checkpoint has a frame, or lies in a hole."""
    depth = read(lake, "depth", symbol)
    levels = lake.manifest(lake.days(symbol=symbol)[0]).levels
    frames = {row["update_id"]: row for row in depth.iter_rows(named=True)}
    seen = 0
    for line in truth:
        if line["kind"] != "book" or line["symbol"] != symbol or line["last"] not in frames:
            continue
        seen += 1
        row = frames[line["last"]]
        for name, side in (("bid", line["bids"]), ("ask", line["asks"])):
            got = [(row[f"{name}_px_{i}"], row[f"{name}_qty_{i}"]) for i in range(1, levels + 1)]
            want = [(float(p), float(q)) for p, q in side[:levels]]
            assert [pair for pair in got if pair[0] is not None] == want, f"book at {line['last']}"
    assert seen, "no checkpoint was recorded"


def declared(gaps: pl.DataFrame, stream: str) -> list[tuple[int, int]]:
    """Ranges of ids that are declared missing."""
    rows = gaps.filter((pl.col("stream") == stream) & pl.col("first_missing").is_not_null())
    return [(a, b) for a, b in rows.select("first_missing", "last_missing").iter_rows()]


def timed(gaps: pl.DataFrame, stream: str) -> list[tuple[int, int]]:
    """Holes of which only the time is known."""
    rows = gaps.filter((pl.col("stream") == stream) & pl.col("first_missing").is_null())
    starts = rows.filter(~pl.col("reason").str.contains("filled late"))
    if stream == "trade":  # a run's first hole is written for the book, and holds for all streams
        first = gaps.filter((pl.col("stream") == "depth") & (pl.col("reason") == "the recorder was not running"))
        starts = pl.concat([starts, first])
    return [(a, b) for a, b in starts.select("from_ns", "to_ns").iter_rows()]


def covers(ranges: list[tuple[int, int]], number: int) -> bool:
    return any(a <= number <= b for a, b in ranges)


__all__ = ["Event", "Fault", "Played", "ServeSpec", "SynthSpec", "Venue", "check", "market", "play", "record"]
