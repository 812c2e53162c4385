"""Everything that goes wrong at a venue, over a real socket: what was recorded and what was declared is what happened.

The numbers are those of the table in docs/recorder.md. `play` records a scripted venue from its first event
to its last; `check` holds the lake against the venue's truth log and its books.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmlab.core.spans import NS_PER_S
from mmlab.flows.check import check as check_days
from mmlab.record.commands import Settings
from mmlab.serve.faults import Fault
from mmlab.serve.market import SynthSpec
from reference.loopback import SYMBOL, Played, check, declared, market, play, record


def run(faults: list[Fault], root: Path, events: int = 400, **changes: Any) -> Played:
    """Record a market of 80 events a second with these faults, and hold it against the truth."""
    played = asyncio.run(play(market(events=events, faults=faults), root, **changes))
    check(played)
    return played


def details(played: Played, kind: str) -> list[dict[str, Any]]:
    rows = played.table("events").filter(pl.col("kind") == kind)
    return [json.loads(text) for text in rows["details"].to_list()]


def reasons(played: Played) -> str:
    return "; ".join(played.lake.manifest(played.lake.days()[0]).reasons)


def test_05_missed_updates_end_the_epoch_at_once_and_a_snapshot_begins_the_next(tmp_path):
    """Trades go on; raw updates are kept while the book is unsynced."""
    played = run([Fault("drop", event=150, stream="depth", count=3)], tmp_path)
    assert played.kinds().count("sync") == 2
    assert declared(played.table("gaps"), "depth")
    assert played.table("depth")["epoch_id"].unique().to_list() == [1, 2]
    assert declared(played.table("gaps"), "trade") == []
    assert "book lost" in reasons(played)


def test_05_each_hole_before_the_book_is_back_is_declared_by_its_ids(tmp_path):
    """The snapshot takes its time, and meanwhile more updates are missed, which it has no need of."""
    faults = [
        Fault("drop", event=150, stream="depth", count=2), Fault("rest", event=150, path="depth", wait_s=0.6),
        Fault("drop", event=210, stream="depth", count=2),
    ]  # fmt: skip
    played = run(faults, tmp_path)
    holes = declared(played.table("gaps"), "depth")
    withheld = [(x["first"], x["last"]) for x in played.truth.of("depth") if not x["sent"]]
    assert [(withheld[0][0], withheld[1][1]), (withheld[2][0], withheld[3][1])] == holes


def test_06_a_stale_snapshot_is_asked_for_again_and_no_update_is_dropped(tmp_path):
    """The buffer stays while it is retried."""
    faults = [Fault("rest", event=1, path="depth", count=1, wait_s=0.3), Fault("stale", event=2, count=3)]
    played = run(faults, tmp_path)
    assert [d["action"] for d in details(played, "snapshot_loaded")][:3] == ["refuse", "refuse", "refuse"]
    assert played.kinds().count("sync") == 1
    assert played.table("diffs")["epoch_id"].to_list()[0] == 0


@pytest.mark.parametrize("before", [0, 1])
def test_07_a_snapshot_joins_at_both_edges(tmp_path, before):
    """L is the last update's u, so the next one has U == L + 1; or L + 1 is the u of one that waits."""
    venue = market()
    state = venue.states[SYMBOL]
    whole = state.snapshot
    state.snapshot = lambda limit: {**whole(limit), "lastUpdateId": state.last_id - before}
    played = asyncio.run(play(venue, tmp_path))
    check(played)
    assert played.kinds().count("snapshot_request") == 1
    assert played.kinds().count("sync") == 1


def test_08_a_planned_renewal_hands_over_without_resync_and_without_loss(tmp_path):
    """The second connection is opened before the limit, and the first one goes when ids match."""
    played = run([], tmp_path, events=1400, settings=Settings(life_s=1.2, snapshot_s=0))
    assert played.kinds().count("handover") >= 2
    assert played.recorder.health.reconnects == 0
    assert played.kinds().count("sync") == 1
    assert played.kinds().count("resync") == 0
    assert declared(played.table("gaps"), "trade") == []
    assert played.table("trades")["source"].unique().to_list() == ["ws"]


@pytest.mark.parametrize("lead_s", [0.2, 2.0])
def test_09_server_shutdown_is_answered_with_a_second_connection(tmp_path, lead_s):
    """The lead time is not known; even if it is short, nothing is undeclared."""
    played = run([Fault("shutdown", event=150, for_s=lead_s)], tmp_path, events=800)
    assert any(d.get("reason") == "serverShutdown" for d in details(played, "disconnect"))
    assert played.kinds().count("connect") == 2
    if lead_s > 1.5:
        assert played.kinds().count("handover") == 1
        assert played.kinds().count("resync") == 0


def test_10_a_dead_link_is_found_by_its_missing_pong(tmp_path):
    """Nothing is closed, nothing comes: the pong deadline finds it, here within 2 x 0.5 s, by default within 16 s."""
    played = run([Fault("freeze", event=150, for_s=60)], tmp_path, events=1000, ping_s=0.5)
    frozen = next(line for line in played.truth.of("fault"))
    lost = played.table("events").filter(pl.col("kind") == "disconnect")["recv_ns"][0]
    assert lost - frozen["at_ns"] < 4 * NS_PER_S
    assert played.kinds().count("connect") == 2


def test_11_a_quiet_symbol_keeps_its_connection(tmp_path):
    """No data for many pings, and many times the limit for silence: the link is healthy."""
    spec = SynthSpec(updates_per_s=0.5, prints_per_s=0.3, levels=20, seed=3)
    quiet = Settings(silent_s=0.5, retry_s=0.05, cap_s=0.4, snapshot_s=0)
    played = asyncio.run(play(market(spec, events=12), tmp_path, ping_s=0.5, settings=quiet))
    check(played)
    assert played.kinds().count("connect") == 1
    assert played.kinds().count("silence") == 0


def test_12_what_is_sent_twice_is_recorded_once(tmp_path):
    """The journal keeps both."""
    faults = [Fault("duplicate", event=n, stream=s, count=5) for n, s in ((100, "depth"), (150, "trade"))]
    played = run(faults, tmp_path, keep_raw=True)
    assert played.kinds().count("resync") == 0
    diffs = played.table("diffs")
    assert diffs.select("last_id", "side", "price").is_duplicated().sum() == 0
    frames = sum(e.frames for e in played.lake.manifest(played.lake.days()[0]).segments.values())
    assert frames == diffs["last_id"].n_unique() + played.table("trades").height + 10


def test_13_swapped_updates_are_a_hole_and_the_late_one_is_ignored(tmp_path):
    """On one connection an update ahead of its turn means that something is missing."""
    played = run([Fault("reorder", event=150, stream="depth")], tmp_path)
    assert played.kinds().count("sync") == 2
    assert played.table("trades").height == len(played.truth.of("trade"))


@pytest.mark.parametrize(
    ("payload", "binary", "kind"),
    [
        ('{"stream":"testusdt@depth@100ms","data":{"e":"dep', False, "bad JSON"),
        ("\xff\xfe\x00", True, "not UTF-8"),
        ('{"code":2,"msg":"Invalid request"}', False, "unknown message"),
        ('{"stream":"testusdt@fooBar","data":{}}', False, "unknown stream"),
        ('{"stream":"otherusdt@trade","data":{"e":"trade"}}', False, "bad field"),
        ("[1,2]", False, "bad field"),
    ],
)
def test_14_garbage_is_set_aside_byte_for_byte_and_the_connection_stays(tmp_path, payload, binary, kind):
    """Whatever it is, it is in `quarantine`, and everything else goes on."""
    played = run([Fault("garbage", event=150, payload=payload, binary=binary)], tmp_path, events=250)
    aside = played.table("quarantine")
    assert aside["raw"].to_list() == [payload.encode("latin-1")]
    assert aside["reason"][0].startswith(kind)
    assert played.kinds().count("connect") == 1
    assert played.kinds().count("sync") == 1


def test_15_unknown_fields_are_told_once_and_do_no_harm(tmp_path):
    """An extra field, a missing `M`, an id as text: nothing that is needed."""
    faults = [
        Fault("field", event=100, stream="trade", count=3, set={"X": "y", "t2": 1}),
        Fault("field", event=150, stream="trade", count=3, remove=("M",)),
        Fault("field", event=200, stream="depth", count=3, set={"st": "1"}),
        Fault("field", event=250, stream="depth", count=2, set={"new": [1]}),
    ]
    played = run(faults, tmp_path)
    assert [d["stream"] for d in details(played, "schema_drift")] == ["trade", "depth"]
    assert played.kinds().count("quarantine") == 0


def test_15_a_message_without_a_needed_field_is_set_aside_and_its_hole_found(tmp_path):
    """The continuity test finds what the message was about."""
    played = run([Fault("field", event=150, stream="depth", count=1, remove=("b",))], tmp_path)
    assert played.table("quarantine").height == 1
    assert played.kinds().count("sync") == 2


def test_16_a_429_is_obeyed_and_the_buffer_kept(tmp_path):
    """No request before the deadline; all updates are in the diffs, and the book follows."""
    ban = Fault("rest", event=1, path="depth", status=429, headers={"Retry-After": "2"})
    played = run([ban], tmp_path, events=800)
    asked = [line["at_ns"] for line in played.truth.of("request") if "/depth" in line["path"]]
    assert asked[1] - asked[0] >= 2 * NS_PER_S
    assert details(played, "rest_wait")[0]["status"] == 429
    assert played.kinds().count("sync") == 1


def test_17_a_ban_outlives_the_process_and_the_streams_go_on(tmp_path):
    """418: no REST at all until its end, also by the next recorder, which takes the filters from the lake."""

    async def twice() -> tuple[Played, Played]:
        ban = Fault("rest", event=150, path="depth", status=418, headers={"Retry-After": "5"})
        venue = market(events=1600, faults=[ban, Fault("drop", event=151, stream="depth", count=2)])
        async with venue:
            first = asyncio.create_task(record(venue, tmp_path, until(lambda v: v.happened > 300)))
            one = await first
            two = await record(venue, tmp_path)
        return one, two

    def until(done: Any) -> Any:
        async def during(venue: Any, recorder: Any) -> None:
            while not done(venue):
                await asyncio.sleep(0.02)
            recorder.stop_asked = 1

        return during

    _one, two = asyncio.run(twice())
    check(two)
    wait = details(two, "rest_wait")[0]
    banned = next(line["at_ns"] for line in two.truth.of("fault") if line["do"] == "rest")
    within = [r for r in two.truth.of("request") if banned + NS_PER_S < r["at_ns"] < wait["until_ns"] - NS_PER_S]
    assert within == []
    assert two.kinds().count("run_start") == 2
    assert two.kinds().count("sync") == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "body": "<html>busy</html>"},
        {"status": 200, "body": "<html>welcome</html>"},
        {"status": 200, "body": '{"lastUpdateId": 10000'},
        {"status": 0},
    ],
    ids=["5xx", "html", "torn", "cut"],
)
def test_18_what_is_no_snapshot_is_never_taken_for_one(tmp_path, fault):
    """It is asked for again, with patience."""
    played = run([Fault("rest", event=1, path="depth", count=2, **fault)], tmp_path)
    assert played.kinds().count("snapshot_failed") == 2
    assert played.kinds().count("sync") == 1
    assert played.table("snapshots")["last_update_id"].n_unique() == 2


def test_25_a_halt_and_new_filters_are_told_and_a_finer_tick_begins_a_new_run(tmp_path):
    """The status goes to the ledger; what was recorded under the old filters ends there."""
    halted = run(
        [Fault("listing", event=100, status="HALT")], tmp_path / "a", settings=Settings(info_s=0.5, snapshot_s=0)
    )
    assert details(halted, "status_change")[0] == {"status": "HALT", "was": "TRADING"}
    assert halted.kinds().count("connect") == 1
    finer = Fault("listing", event=100, tick_size="0.00100000")
    played = asyncio.run(play(market(faults=[finer]), tmp_path / "b", settings=Settings(info_s=0.5, snapshot_s=0)))
    assert played.recorder.run_id
    assert details(played, "status_change")[0]["filters"]["tick_size"] == "0.001"
    assert details(played, "run_stop")[0]["why"] == "filters"


def test_26_an_empty_side_is_a_book_without_frames(tmp_path):
    """A listing without bids is in sync, and has no two-sided frame to write."""
    played = run([Fault("empty", event=150)], tmp_path)
    assert played.kinds().count("resync") == 0


def test_30_times_in_another_unit_are_understood_and_told(tmp_path):
    """13 digits are ms, 16 are us; the recorder asked for us."""
    played = run([Fault("unit", event=150, unit="ms")], tmp_path)
    assert "ms" in details(played, "schema_drift")[0]["what"]
    late = played.table("trades").select((pl.col("recv_ns") - pl.col("exch_ns")).alias("late"))["late"]
    assert late.min() >= 0
    assert late.max() < 10 * NS_PER_S


def test_31_trades_missed_in_a_disconnect_are_filled_by_rest(tmp_path):
    """By id, marked, and nothing stays missing."""
    faults = [Fault("refuse", event=150, for_s=1.0), Fault("close", event=151)]
    played = run(faults, tmp_path, events=800)
    trades = played.table("trades")
    assert trades.filter(pl.col("source") == "rest").height > 5
    assert sorted(trades["trade_id"].to_list()) == [line["last"] for line in played.truth.of("trade")]
    hole = played.table("gaps").filter(pl.col("stream") == "trade")
    assert hole["first_missing"].to_list() == [None]
    assert "filled late" in hole["reason"][0]


def test_31_trades_that_rest_lacks_are_a_declared_hole(tmp_path):
    """By their ids."""
    faults = [
        Fault("refuse", event=150, for_s=0.5), Fault("close", event=151),
        Fault("rest", event=151, path="historicalTrades", body="[]", count=99),
    ]  # fmt: skip
    played = run(faults, tmp_path, events=800)
    assert declared(played.table("gaps"), "trade")


def test_32_a_late_snapshot_of_a_book_that_is_gone_is_discarded(tmp_path):
    """REST takes longer than the connection lasts."""
    faults = [Fault("rest", event=1, path="depth", wait_s=1.2), Fault("close", event=60)]
    played = run(faults, tmp_path, events=800)
    assert played.kinds().count("snapshot_discarded") == 1
    assert played.kinds().count("sync") == 1


def test_34_a_frame_of_two_mebibytes_is_taken(tmp_path):
    """The default of the library would close the connection."""
    played = run([Fault("big", event=150, size=2 << 20)], tmp_path)
    assert played.kinds().count("connect") == 1
    assert played.table("diffs").group_by("last_id").len()["len"].max() > 50_000


def test_35_a_policy_close_is_no_reason_to_storm(tmp_path):
    """1008 again and again: waits grow."""
    faults = [Fault("close", after_s=0.5 + 0.4 * i, code=1008, reason="too many messages") for i in range(5)]
    played = run(faults, tmp_path, settings=Settings(retry_s=0.3, cap_s=1.0, snapshot_s=0))
    assert {d["code"] for d in details(played, "disconnect")} >= {1008}
    assert played.kinds().count("connect") <= 6


def test_36_a_refused_subscription_is_told(tmp_path, caplog):
    """A stream that is not there: the venue's refusal is kept, and the log says it."""
    refusal = '{"error":{"code":2,"msg":"Invalid request: unknown stream"},"id":1}'
    played = run([Fault("garbage", event=20, payload=refusal)], tmp_path, events=150)
    assert played.table("quarantine")["raw"].to_list() == [refusal.encode()]
    assert any("quarantine" in r.message and r.levelname == "WARNING" for r in caplog.records)


def test_37_a_stream_that_died_alone_is_found_by_its_peers(tmp_path):
    """Trades print while the book says nothing: connect anew, which subscribes anew."""
    played = run([Fault("mute", event=150, stream="depth", for_s=2.5)], tmp_path, events=900,
                 settings=Settings(silent_s=1.0, retry_s=0.05, cap_s=0.4, snapshot_s=0))  # fmt: skip
    assert details(played, "silence")[0]["stream"] == "depth"
    assert played.kinds().count("connect") >= 2
    assert played.kinds().count("sync") == 2


def test_37_a_tape_that_died_alone_is_found_by_rest(tmp_path):
    """A book can move without trades; only REST knows. What was missed is filled, and said."""
    played = run([Fault("mute", event=150, stream="trade", for_s=3)], tmp_path, events=700,
                 settings=Settings(silent_s=0.7, retry_s=0.05, cap_s=0.4, snapshot_s=0))  # fmt: skip
    assert details(played, "silence")[0]["stream"] == "trade"
    assert played.table("trades").filter(pl.col("source") == "rest").height > 5


def test_38_an_update_that_crosses_the_book_ends_the_epoch(tmp_path):
    """A book that cannot be is thrown away, and the day says so."""
    played = run([Fault("cross", event=150)], tmp_path)
    assert any("crossed" in d["reason"] for d in details(played, "gap"))
    assert played.kinds().count("sync") == 2
    assert (played.table("depth")["bid_px_1"] < played.table("depth")["ask_px_1"]).all()


def test_29_a_venue_that_comes_late_is_waited_for_and_the_start_is_a_hole(tmp_path):
    """Capped backoff; what happened before the first connection is in the hole from the window's opening."""

    async def late() -> Played:
        venue = market(events=800, faults=[Fault("refuse", after_s=0, for_s=1.5), Fault("close", after_s=0.01)])
        return await play(venue, tmp_path)

    played = asyncio.run(late())
    check(played)
    assert len(played.truth.of("connect")) <= 8
    hole = played.table("gaps").filter(pl.col("reason") == "the recorder was not running")
    assert hole.height == 1


def test_a_venue_that_begins_anew_with_lower_ids_is_recorded_all_the_same(tmp_path):
    """Two runs of one day, the second from a venue whose ids start over: nothing of it is taken for a repeat."""
    for n in (1, 2):
        played = asyncio.run(play(market(events=300), tmp_path))
        assert played.table("trades")["trade_id"].n_unique() * n == played.table("trades").height
        assert played.table("trades").height == n * len(played.truth.of("trade"))
        assert played.kinds().count("sync") == n
    (found,) = check_days(played.lake, played.lake.days(), lambda *_: None)
    assert found.faults == []


def test_several_symbols_and_streams_in_one_process(tmp_path):
    """Each symbol has its own days, book and ids; aggregates and tickers come too."""
    spec = SynthSpec(("AAAUSDT", "BBBUSDT"), updates_per_s=20, prints_per_s=20, levels=30)
    streams = ("depth@100ms", "trade", "aggTrade", "bookTicker")
    faults = [Fault("refuse", event=200, for_s=0.5), Fault("close", event=201)]
    played = asyncio.run(play(market(spec, events=700, faults=faults), tmp_path, symbols=spec.symbols, streams=streams))
    for symbol in spec.symbols:
        check(played, symbol)
        aggregates = played.table("agg_trades", symbol)["trade_id"].to_list()
        assert sorted(aggregates) == [line["last"] for line in played.truth.of("aggTrade", symbol)]
        assert played.table("book_ticker", symbol).height > 50
        assert "bookTicker" in played.table("gaps", symbol)["stream"].to_list()


def test_usdm_has_a_socket_for_each_route_and_its_own_book_rules(tmp_path):
    """Books under /public, aggregates under /market; `pu` chains the updates."""
    spec = SynthSpec(updates_per_s=40, prints_per_s=40, levels=30, usdm=True)
    streams = ("depth@100ms", "aggTrade", "trade")
    faults = [Fault("drop", event=150, stream="depth", count=2)]
    played = asyncio.run(play(market(spec, events=400, faults=faults), tmp_path, venue="binance-usdm", streams=streams))
    check(played)
    assert len(played.truth.of("connect")) == 2
    assert played.kinds().count("sync") == 2
    assert played.table("agg_trades", SYMBOL).height == len(played.truth.of("aggTrade"))
