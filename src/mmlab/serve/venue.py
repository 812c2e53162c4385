"""The loopback venue's rim: one port for WebSocket and REST, paced events, scripted faults, a truth log.

Speaks Binance's combined streams (`/stream?streams=a/b&timeUnit=MICROSECOND`), raw streams (`/ws/a`), live
SUBSCRIBE and UNSUBSCRIBE, and the REST paths of rest.py. USD-M differs by path prefixes only, so any prefix
before `stream`, `ws` and the REST name is accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from http.client import responses
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_S
from mmlab.serve import rest
from mmlab.serve.candles import Candles
from mmlab.serve.faults import Fault
from mmlab.serve.market import Event, Level, State, depth_event, encode
from mmlab.serve.script import Script
from mmlab.serve.truth import Truth

YIELD_EVENTS = 100  # events at full speed between two looks at the other tasks


@dataclass(frozen=True)
class ServeSpec:
    """How to play. `speed` 0 is as fast as the clients read; `wait` for a first subscriber."""

    port: int = 0
    speed: float = 1.0
    wait: bool = True
    rebase: bool = True  # times are those at which events are sent, not those that they came with
    settle_s: float = 0.3  # at full speed: after an awaited snapshot was given, until events go on
    send_s: float = 10.0  # a client that takes longer to take a message is cut off
    weight_per_min: int = 0  # REST answers 429 beyond it; 0 never does

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port is {self.port}", remedy="give a port from 1 to 65535, or 0 for a free one")
        if not self.speed >= 0:
            raise UsageError(f"--speed is {self.speed}", remedy="give 1, more, less, or 0 for as fast as is read")


@dataclass
class Client:
    """One connection: what it subscribed to, how it wants its times, and whether messages are wrapped."""

    socket: ServerConnection
    streams: set[str]
    unit_ns: int
    combined: bool
    number: int
    frozen: bool = False
    held: list[bytes] = field(default_factory=list)


class Venue:
    """Plays events to whoever subscribes; `async with` it, and connect to `port`.

    `pause_at(event)` may return True to hold the market until a snapshot has been asked for, which is how
    a recording is played so that it can be recorded again just as it was. `candles` is what REST knows of the past.
    """

    def __init__(
        self,
        states: dict[str, State],
        events: Iterable[Event],
        spec: ServeSpec,
        clock_ns: Callable[[], int],
        faults: Iterable[Fault] = (),
        truth: Truth | None = None,
        pause_at: Callable[[Event], bool] | None = None,
        candles: Candles | None = None,
    ) -> None:
        self.states, self.spec, self.truth = states, spec, truth or Truth()
        self.clients: dict[int, Client] = {}
        self.port = 0
        self.happened = 0
        self.finished = asyncio.Event()
        self._events = iter(events)
        self._clock_ns = clock_ns
        given = list(faults)
        self._faults = deque(sorted((f for f in given if f.event is not None), key=lambda f: f.event or 0))
        self._timed = deque(sorted((f for f in given if f.after_s is not None), key=lambda f: f.after_s or 0))
        self._pause_at = pause_at
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribed = asyncio.Event()
        self._snapshot_given = asyncio.Event()
        self._numbers = 0
        self._started_ns = 0
        self._script = Script([f for f in given if f.request is not None])
        self._desk = rest.Desk(states, candles, spec.weight_per_min)

    # -- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Venue:
        quiet = logging.getLogger("mmlab.serve.socket")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        self._server = await serve(
            self._serve_socket, "127.0.0.1", self.spec.port, process_request=self._request, compression=None,
            ping_interval=20, ping_timeout=60, logger=quiet, max_queue=64, close_timeout=1,
        )  # fmt: skip
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._tasks = [asyncio.create_task(self._play()), asyncio.create_task(self._watch_time())]
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._server is not None
        for client in list(self.clients.values()):
            client.socket.transport.abort()
        self._server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 3)

    # -- sockets -------------------------------------------------------------------------------------

    async def _serve_socket(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        parts = urlsplit(socket.request.path)
        query = parse_qs(parts.query)
        combined = parts.path.endswith("/stream")
        named = query.get("streams", [""])[0] if combined else parts.path.partition("/ws")[2].strip("/")
        unit = rest.US if query.get("timeUnit", [""])[0].upper() == "MICROSECOND" else rest.MS
        self._numbers += 1
        client = Client(socket, {unquote(s) for s in named.split("/") if s}, unit, combined, self._numbers)
        self.clients[client.number] = client
        self.truth.note("connect", connection=client.number, streams=sorted(client.streams), at_ns=self._clock_ns())
        self._subscribed.set()
        try:
            while True:
                await socket.send(encode(rest.control(client.streams, await socket.recv())), text=True)
        except ConnectionClosed:
            pass
        finally:
            self.clients.pop(client.number, None)
            self.truth.note("disconnect", connection=client.number, at_ns=self._clock_ns())

    async def _request(self, _socket: ServerConnection, request: Request) -> Response | None:
        """Answer REST; None lets a WebSocket begin."""
        path = urlsplit(request.path).path
        refused = self._clock_ns() < self._script.refused_until_ns
        if path.endswith("/stream") or "/ws" in path:
            return _http(rest.Answer(503, b"")) if refused else None
        what = path.rpartition("/")[2]
        self.truth.note("request", path=request.path, at_ns=self._clock_ns())
        if refused:
            return _http(rest.Answer(503, b"refused"))
        for begun in self._script.requested(what):
            await self._begin(begun)
        fault = self._script.answer(what)
        if fault is not None:
            await asyncio.sleep(fault.wait_s)
            if fault.status == 0:
                _socket.transport.abort()
                return _http(rest.Answer(503, b""))
            if fault.status != 200 or fault.body:
                return _http(rest.Answer(int(fault.status), fault.body.encode(), fault.headers), fault.cut)
        return _http(self._answer(what, request), fault.cut if fault else None)

    def _answer(self, what: str, request: Request) -> rest.Answer:
        symbol = parse_qs(urlsplit(request.path).query).get("symbol", [""])[0]
        old = self._script.old_snapshot(symbol) if what == "depth" else None
        if what == "depth":
            asyncio.get_running_loop().call_later(self.spec.settle_s, self._snapshot_given.set)
        return self._desk.answer(request.path, request.headers.get("X-MBX-TIME-UNIT", ""), self._clock_ns(), old)

    # -- events --------------------------------------------------------------------------------------

    async def _play(self) -> None:
        if self.spec.wait:
            await self._subscribed.wait()
        self._started_ns = self._clock_ns()
        first_ns = None
        for n, event in enumerate(self._events):
            first_ns = event.at_ns if first_ns is None else first_ns
            await self._pace(n, event.at_ns - first_ns)
            if self.spec.rebase:
                event.move(self._clock_ns())
            if self._pause_at is not None and self._pause_at(event):
                self._snapshot_given.clear()
                await self._snapshot_given.wait()
            while self._faults and (self._faults[0].event or 0) <= self.happened + 1:
                await self._begin(self._faults.popleft())
            await self._happen(event)
        self.truth.note("end", at_ns=self._clock_ns(), happened=self.happened)
        self.finished.set()

    async def _pace(self, n: int, since_ns: int) -> None:
        """Wait until an event is due; at full speed only let the others breathe."""
        if self.spec.speed > 0:
            due_ns = self._started_ns + int(since_ns / self.spec.speed)
            wait_ns = due_ns - self._clock_ns()
            if wait_ns > 1_000_000:
                await asyncio.sleep(wait_ns / NS_PER_S)
                return
        if n % YIELD_EVENTS == 0:
            await asyncio.sleep(0)
        while self._clock_ns() < self._script.delayed_until_ns:
            await asyncio.sleep(0.01)

    async def _watch_time(self) -> None:
        """Faults by the clock."""
        await self._subscribed.wait()
        began = self._clock_ns()
        while self._timed:
            wait_ns = began + int((self._timed[0].after_s or 0) * NS_PER_S) - self._clock_ns()
            if wait_ns > 0:
                await asyncio.sleep(wait_ns / NS_PER_S)
            await self._begin(self._timed.popleft())

    async def _happen(self, event: Event) -> None:
        """The event happens, whoever hears of it."""
        state = self.states[event.symbol]
        if state.shift and event.stream in ("depth", "bookTicker"):
            event = event.shifted(state.shift)
        state.apply(event)
        self.happened += 1
        sent = 0
        for each in self._script.sendings(event, self._clock_ns()):
            sent = await self._send(each)
        self.truth.event(event, sent, state)

    async def _send(self, event: Event) -> int:
        """Send to every subscriber; returns to how many."""
        name, sent = f"{event.symbol.lower()}@{event.stream}", 0
        for client in list(self.clients.values()):
            stream = next((s for s in client.streams if s == name or s.startswith(f"{name}@")), None)
            if stream is None or client.frozen:
                continue
            data = self._script.changed(event.stream, event.message(self._script.unit_ns or client.unit_ns))
            await self._deliver(client, encode({"stream": stream, "data": data} if client.combined else data))
            sent += 1
        return sent

    async def _deliver(self, client: Client, payload: bytes) -> None:
        """Send one message; a client that does not take it in time is cut off, as the venue does."""
        try:
            async with asyncio.timeout(self.spec.send_s):
                await client.socket.send(payload, text=True)
        except (ConnectionClosed, TimeoutError):
            client.socket.transport.abort()
            self.clients.pop(client.number, None)

    # -- faults --------------------------------------------------------------------------------------

    async def _begin(self, fault: Fault) -> None:
        self.truth.note("fault", at_ns=self._clock_ns(), event=self.happened, **{"do": fault.do})
        if self._script.begin(fault, self._clock_ns()):
            return
        if fault.do in ("close", "shutdown", "freeze", "garbage"):
            await self._hurt_sockets(fault)
        else:
            await self._hurt_market(fault)

    async def _hurt_sockets(self, fault: Fault) -> None:
        for client in list(self.clients.values()):
            if fault.do == "freeze":
                client.frozen = True
                client.socket.transport.pause_reading()
            elif fault.do == "garbage":
                with contextlib.suppress(ConnectionClosed):
                    await client.socket.send(fault.payload.encode("latin-1"), text=not fault.binary)
            elif fault.do == "shutdown":
                data = {"e": "serverShutdown", "E": self._clock_ns() // rest.MS}
                await self._deliver(client, encode({"stream": "!serverShutdown", "data": data}))
                asyncio.get_running_loop().call_later(fault.for_s, self._cut, client)
            elif fault.code:
                with contextlib.suppress(ConnectionClosed):
                    await client.socket.close(fault.code, fault.reason)
            else:
                self._cut(client)

    def _cut(self, client: Client) -> None:
        client.socket.transport.abort()
        self.clients.pop(client.number, None)

    async def _hurt_market(self, fault: Fault) -> None:
        symbol = fault.symbol or next(iter(self.states))
        state = self.states[symbol]
        if fault.do == "stale":
            old = {**state.snapshot(5000), "lastUpdateId": state.last_id - 10_000}
            self._script.stale[symbol] = (old, fault.count)
        elif fault.do == "listing":
            status = fault.status if isinstance(fault.status, str) else state.listing.status
            tick, lot = fault.tick_size or state.listing.tick_size, fault.lot_size or state.listing.lot_size
            state.listing = replace(state.listing, status=status, tick_size=tick, lot_size=lot)
        elif fault.do == "cross":
            bids, asks = state.levels(1)
            await self._put_in(state, [(asks[0][0], bids[0][1])], [(bids[0][0], asks[0][1])], true=False)
        elif fault.do == "big":
            await self._put_in(state, [(f"{i / 100:.8f}", "0.00000000") for i in range(1, fault.size // 29)], [])
        elif fault.do == "empty":
            await self._put_in(state, [(price, "0.00000000") for price in state.bids], [])

    async def _put_in(self, state: State, bids: list[Level], asks: list[Level], true: bool = True) -> None:
        """An update more; one that is not `true` is sent, and changes nothing here but the ids."""
        last, symbol = state.last_id + 1, state.listing.symbol
        event = depth_event(self._clock_ns(), symbol, (last, last, None), bids, asks)
        state.apply(event if true else depth_event(event.at_ns, symbol, (last, last, None), [], []))
        state.shift += 1
        self.truth.event(event, await self._send(event), state)

    def answer_once(self, symbol: str, snapshot: dict[str, Any]) -> None:
        """Give this snapshot to whoever asks next."""
        self._script.stale[symbol] = (snapshot, 1)


def _http(answer: rest.Answer, cut: int | None = None) -> Response:
    headers = Headers({**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"})
    return Response(answer.status, responses.get(answer.status, ""), headers, answer.body[:cut])
