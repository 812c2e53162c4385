"""The loopback venue as any client sees it: its dialect over a plain socket and plain HTTP, and its truth log."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from itertools import islice
from typing import Any

import pytest
from websockets.asyncio.client import connect

from mmlab.core.errors import UsageError
from mmlab.serve.faults import DOES, Fault, parse_faults
from mmlab.serve.market import Synthetic, SynthSpec, text
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec, Venue

MARKET = SynthSpec(("AAAUSDT", "BBBUSDT"), updates_per_s=100, prints_per_s=100, levels=20, seed=3)


def venue(events: int = 300, faults: tuple[Fault, ...] = (), speed: float = 1.0, spec: SynthSpec = MARKET) -> Venue:
    made = Synthetic(spec, time.time_ns())
    return Venue(made.states(), islice(made.events(), events), ServeSpec(speed=speed), time.time_ns, faults, Truth())


async def messages(at: Venue, path: str, n: int) -> list[dict[str, Any]]:
    """The first messages of a socket."""
    async with connect(f"ws://127.0.0.1:{at.port}{path}", compression=None) as socket:
        return [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(n)]


async def get(at: Venue, path: str) -> tuple[int, dict[str, str], Any]:
    def ask() -> tuple[int, dict[str, str], Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{at.port}{path}", timeout=5) as answer:
                return answer.status, dict(answer.headers), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    return await asyncio.to_thread(ask)


def test_a_combined_stream_wraps_messages_and_has_the_fields_of_the_venue():
    """Every kind of stream, both symbols, times in ms unless us are asked for."""

    async def run() -> list[dict[str, Any]]:
        streams = "aaausdt@depth@100ms/aaausdt@trade/bbbusdt@aggTrade/bbbusdt@bookTicker"
        async with venue() as at:
            return await messages(at, f"/stream?streams={streams}", 100)

    found = asyncio.run(run())
    by_stream = {m["stream"]: m["data"] for m in found}
    assert set(by_stream) == {"aaausdt@depth@100ms", "aaausdt@trade", "bbbusdt@aggTrade", "bbbusdt@bookTicker"}
    assert set(by_stream["aaausdt@depth@100ms"]) == {"e", "E", "s", "U", "u", "b", "a"}
    assert set(by_stream["aaausdt@trade"]) == {"e", "E", "s", "t", "p", "q", "T", "m", "M"}
    assert set(by_stream["bbbusdt@aggTrade"]) == {"e", "E", "s", "a", "p", "q", "f", "l", "T", "m"}
    assert set(by_stream["bbbusdt@bookTicker"]) == {"u", "s", "b", "B", "a", "A"}
    assert len(str(by_stream["aaausdt@trade"]["E"])) == 13


def test_a_raw_stream_sends_bare_messages_and_us_where_they_are_asked_for():
    async def run() -> list[dict[str, Any]]:
        async with venue() as at:
            return await messages(at, "/ws/aaausdt@trade?timeUnit=MICROSECOND", 10)

    found = asyncio.run(run())
    assert [m["t"] for m in found] == list(range(found[0]["t"], found[0]["t"] + 10))
    assert {len(str(m["T"])) for m in found} == {16}


def test_streams_can_be_subscribed_and_unsubscribed_and_what_is_not_understood_is_answered():
    async def run() -> list[Any]:
        async with venue(10**6) as at, connect(f"ws://127.0.0.1:{at.port}/ws", compression=None) as socket:
            answers = []
            trade = {"params": ["aaausdt@trade"]}
            for asked in (
                {"method": "SUBSCRIBE", **trade, "id": 1},
                {"method": "LIST_SUBSCRIPTIONS", "id": 2},
                {"method": "UNSUBSCRIBE", **trade, "id": 3},
                {"method": "DANCE", "id": 4},
            ):
                await socket.send(json.dumps(asked))
                while "id" not in (answer := json.loads(await socket.recv())):
                    assert answer["e"] == "trade"
                answers.append(answer)
            await socket.send("{")
            return [*answers, json.loads(await socket.recv())]

    subscribed, listed, unsubscribed, refused, torn = asyncio.run(run())
    assert subscribed == {"result": None, "id": 1}
    assert listed == {"result": ["aaausdt@trade"], "id": 2}
    assert unsubscribed == {"result": None, "id": 3}
    assert refused["error"]["code"] == 2
    assert torn["code"] == 3


def test_rest_answers_as_the_venue_does():
    """Book, filters, prints by id, time; weights in a header; an unknown symbol is -1121."""

    async def run() -> None:
        async with venue() as at:
            await messages(at, "/stream?streams=aaausdt@trade", 20)
            await at.finished.wait()
            state = at.states["AAAUSDT"]
            status, headers, book = await get(at, "/api/v3/depth?symbol=AAAUSDT&limit=5")
            assert status == 200
            assert book["lastUpdateId"] == state.last_id
            assert [float(p) for p, _ in book["bids"]] == sorted((float(p) for p in state.bids), reverse=True)[:5]
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 250
            _, _, info = await get(at, "/api/v3/exchangeInfo?symbols=%5B%22AAAUSDT%22%5D")
            assert [s["symbol"] for s in info["symbols"]] == ["AAAUSDT"]
            first = state.trades[3].last_id
            _, headers, trades = await get(at, f"/api/v3/historicalTrades?symbol=AAAUSDT&fromId={first}&limit=4")
            assert [t["id"] for t in trades] == [first, first + 1, first + 2, first + 3]
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 295
            _, _, aggregates = await get(at, "/api/v3/aggTrades?symbol=AAAUSDT&limit=2")
            assert [a["a"] for a in aggregates] == [e.last_id for e in state.aggregates[-2:]]
            _, _, now = await get(at, "/api/v3/time")
            assert abs(now["serverTime"] - time.time() * 1000) < 5000
            status, _, body = await get(at, "/api/v3/depth?symbol=NOUSDT")
            assert status == 400
            assert json.loads(body)["code"] == -1121
            status, _, body = await get(at, "/api/v3/dance?symbol=AAAUSDT")
            assert status == 404

    asyncio.run(run())


def test_the_same_seed_sends_the_same_messages_whatever_the_speed():
    """Times apart."""

    async def run(speed: float) -> list[dict[str, Any]]:
        async with venue(speed=speed) as at:
            found = await messages(at, "/stream?streams=aaausdt@depth/bbbusdt@trade", 60)
        return [{k: v for k, v in m["data"].items() if k not in "ET"} for m in found]

    assert asyncio.run(run(0.0)) == asyncio.run(run(5.0))


def test_the_book_follows_its_own_updates():
    """What a client builds of snapshot and updates is what the venue has, text for text."""

    async def run() -> None:
        async with venue(400) as at:
            before = {side: dict(getattr(at.states["AAAUSDT"], side)) for side in ("bids", "asks")}
            last = 0
            async with connect(f"ws://127.0.0.1:{at.port}/ws/aaausdt@depth", compression=None) as socket:
                while not at.finished.is_set() or at.states["AAAUSDT"].last_id > last:
                    try:
                        update = json.loads(await asyncio.wait_for(socket.recv(), 0.5))
                    except TimeoutError:
                        continue
                    last = update["u"]
                    for side, name in (("bids", "b"), ("asks", "a")):
                        for price, qty in update[name]:
                            if float(qty) == 0:
                                before[side].pop(price, None)
                            else:
                                before[side][price] = qty
            assert before == {side: getattr(at.states["AAAUSDT"], side) for side in ("bids", "asks")}

    asyncio.run(run())


def test_the_truth_log_has_every_event_and_to_how_many_it_was_sent():
    """Withheld events are there, sent to nobody; books stand at every fiftieth update."""

    async def run() -> Venue:
        async with venue(300, (Fault("drop", event=50, stream="trade", count=4),)) as at:
            await messages(at, "/stream?streams=aaausdt@trade/bbbusdt@trade", 60)
            await at.finished.wait()
        return at

    truth = asyncio.run(run()).truth
    sent = [line["sent"] for line in truth.of("trade")]
    first = sent.index(0)
    assert sent[: first + 5] == [1] * first + [0, 0, 0, 0, 1]
    ids = [line["last"] for line in truth.of("trade", "AAAUSDT")]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert truth.of("book")


def test_a_script_is_read_and_its_faults_are_told_by_entry():
    """Unknown keys and deeds are named, with what there is."""
    script = '[[fault]]\ndo = "drop"\nevent = 5\nstream = "depth"\n[[fault]]\ndo = "freeze"\nafter_s = 1.5\n'
    assert parse_faults(script) == [Fault("drop", event=5, stream="depth"), Fault("freeze", after_s=1.5)]
    for bad, message in (
        ('[[fault]]\ndo = "drop"\nevnt = 5\n', "fault 1 has unknown evnt"),
        ("[[fault]]\nevent = 5\n", "fault 1 does nothing"),
        ('[[fault]]\ndo = "drop"\n', "needs a time"),
        ('[[fault]]\ndo = "jump"\nevent = 1\n', "a fault does 'jump'"),
        ("[[", "is not TOML"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_faults(bad)
    assert len(set(DOES)) == len(DOES)


def test_decimals_are_written_as_the_venue_writes_them():
    """Eight places, exact."""
    assert [text(v) for v in (61820.99, 1e-05, 0.1 + 0.2, 3.0)] == [
        "61820.99000000", "0.00001000", "0.30000000", "3.00000000",
    ]  # fmt: skip
