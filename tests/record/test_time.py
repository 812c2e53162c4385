"""Clocks that step, days that end, windows that close: a recorder on an injected clock, over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from mmlab.core.spans import NS_PER_DAY, NS_PER_S, day_of_ns
from mmlab.flows.check import check as check_days
from mmlab.flows.check import rebuild
from mmlab.flows.recorder import Clocks
from mmlab.serve.faults import Fault
from mmlab.serve.market import SynthSpec
from reference.loopback import SYMBOL, Played, check, declared, market, play


class Shifted:
    """A wall clock that shows another time, and may be stepped."""

    def __init__(self, start: datetime | None = None) -> None:
        self.offset_ns = 0 if start is None else int(start.timestamp()) * NS_PER_S - time.time_ns()

    def wall_ns(self) -> int:
        return time.time_ns() + self.offset_ns

    @property
    def clocks(self) -> Clocks:
        return Clocks(self.wall_ns, time.monotonic_ns)


def details(played: Played, kind: str) -> list[dict[str, Any]]:
    rows = played.table("events").filter(pl.col("kind") == kind)
    return [json.loads(text) for text in rows["details"].to_list()]


def test_19_a_stepped_clock_is_told_and_neither_order_nor_files_suffer(tmp_path):
    """One step of 5 s forward, one of 2 s back: receive times never run backwards, and nothing is lost."""
    clock = Shifted(datetime(2026, 11, 10, 12, tzinfo=UTC))

    async def step(venue: Any, _recorder: Any) -> None:
        for at, by in ((100, 5 * NS_PER_S), (200, -2 * NS_PER_S)):
            while venue.happened < at:
                await asyncio.sleep(0.01)
            clock.offset_ns += by

    played = asyncio.run(play(market(events=500), tmp_path, step, clocks=clock.clocks))
    steps = [d["delta_ns"] / NS_PER_S for d in details(played, "clock_step")]
    assert [round(s) for s in steps] == [5, -2]
    for table in ("depth", "trades", "events"):
        assert played.table(table)["recv_ns"].is_sorted()
    assert played.table("trades").height == len(played.truth.of("trade"))
    assert played.kinds().count("sync") == 1
    assert "the clock stepped: 2" in played.lake.manifest(played.lake.days()[0]).reasons


def test_21_midnight_under_load_puts_each_record_in_one_day_and_both_are_whole(tmp_path):
    """By the UTC date of receipt; the second day begins with a checkpoint, in the same epoch."""
    clock = Shifted(datetime(2026, 11, 10, 23, 59, 58, tzinfo=UTC))
    venue = market(events=900, clock_ns=clock.wall_ns, faults=[Fault("drop", event=100, stream="depth")])
    played = asyncio.run(play(venue, tmp_path, clocks=clock.clocks, keep_raw=True))
    check(played)
    refs = played.lake.days()
    assert [ref.day for ref in refs] == [date(2026, 11, 10), date(2026, 11, 11)]
    for ref in refs:
        days = played.lake.read([ref], *trades())["recv_ns"] // NS_PER_DAY
        assert {day_of_ns(n * NS_PER_DAY) for n in days} == {ref.day}
        assert [c.faults for c in check_days(played.lake, [ref], lambda *_: None)] == [[]]
        made = rebuild(tmp_path, "binance-spot", SYMBOL, ref.day, replace=False)
        assert made.differing == []
    assert played.table("trades").height == len(played.truth.of("trade"))
    assert played.kinds().count("sync") == 2
    assert declared(played.table("gaps"), "trade") == []
    first, second = (played.lake.manifest(ref) for ref in refs)
    assert [entry.why for entry in first.segments.values()] == ["day"]
    assert second.condition == "degraded"


def trades() -> Any:
    from mmlab.core.schemas import TRADES

    return TRADES, ("recv_ns",)


def test_21_segments_of_one_run_join_without_a_seam(tmp_path):
    """Rolled every 0.6 s: one epoch, no hole, and the day is the one that its journals give again."""
    played = asyncio.run(play(market(events=700), tmp_path, segment_min=0.01, keep_raw=True))
    check(played)
    manifest = played.lake.manifest(played.lake.days()[0])
    assert len(manifest.segments) >= 4
    assert played.kinds().count("sync") == 1
    assert played.table("depth")["epoch_id"].unique().to_list() == [1]
    assert played.table("trades").height == len(played.truth.of("trade"))
    made = rebuild(tmp_path, "binance-spot", SYMBOL, played.lake.days()[0].day, replace=False)
    assert made.differing == []


def test_22_a_window_that_closes_under_load_ends_with_a_snapshot_and_a_complete_day(tmp_path):
    """Nothing comes after the close; the day is complete, and its manifest says that the window ended it."""
    opens = time.time_ns()
    played = asyncio.run(play(market(events=10**6), tmp_path, span=(opens, opens + 3 * NS_PER_S), window="08:00-22:00"))
    manifest = played.lake.manifest(played.lake.days()[0])
    assert manifest.condition == "complete", manifest.reasons
    assert [entry.why for entry in manifest.segments.values()] == ["window"]
    kinds = played.kinds()
    assert kinds[-1] == "run_stop"
    assert kinds.index("window_close") > max(i for i, k in enumerate(kinds) if k == "snapshot_loaded")
    assert played.table("snapshots")["last_update_id"].n_unique() == 2
    (found,) = check_days(played.lake, played.lake.days(), lambda *_: None)
    assert found.faults == []
    closed = played.table("events").filter(pl.col("kind") == "window_close")["recv_ns"][0]
    assert played.table("trades")["recv_ns"].max() - closed < NS_PER_S


def test_24_a_burst_is_taken_whole(tmp_path):
    """Twenty thousand messages as fast as the socket carries them."""
    spec = SynthSpec(updates_per_s=5000, prints_per_s=5000, levels=100)
    from mmlab.serve.venue import ServeSpec

    venue = market(spec, events=40_000, serve=ServeSpec(speed=0))
    played = asyncio.run(play(venue, tmp_path, settle_s=1.5))
    check(played)
    assert played.table("trades").height == len(played.truth.of("trade"))
    assert played.kinds().count("overload") == 0
    assert played.recorder.health.frames >= 20_000
