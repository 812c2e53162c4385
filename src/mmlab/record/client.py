"""The rim: sockets and REST. It does what the session says and reports what came of it; it decides nothing."""

from __future__ import annotations

import asyncio
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from mmlab.record.commands import Fetch, Open

USER_AGENT = "mmlab"
QUEUE_FRAMES = 4096  # frames read ahead of the recorder, before the kernel's buffers fill
ANSWER_BYTES = 64 << 20


@dataclass(frozen=True)
class Wire:
    """Where the venue is, and how patient its sockets are."""

    ws_url: str
    rest_url: str
    headers: Mapping[str, str]
    ping_s: float = 8.0  # between pings; a link without a pong for as long again is dead
    open_s: float = 10.0
    answer_s: float = 10.0
    frame_bytes: int = 64 << 20  # a larger frame closes the connection


class Client:
    """All connections of one run. The callbacks run in the event loop, in the order of receipt."""

    def __init__(
        self,
        wire: Wire,
        on_frame: Callable[[int, bytes], None],
        on_open: Callable[[int], None],
        on_close: Callable[[int, int, str], None],
        on_answer: Callable[[dict[str, Any], int, Mapping[str, str], bytes], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.wire = wire
        self._on_fault = on_fault
        self._on_frame, self._on_open, self._on_close, self._on_answer = on_frame, on_open, on_close, on_answer
        self._sockets: dict[int, ClientConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logging.getLogger("mmlab.record.socket")
        self._log.addHandler(logging.NullHandler())
        self._log.propagate = False

    def open(self, command: Open) -> None:
        """Connect, and read until the end."""
        self._spawn(self._run(command.conn, self.wire.ws_url + command.path))

    def close(self, conn: int) -> None:
        """Close a connection; its end is reported as any other."""
        socket = self._sockets.get(conn)
        if socket is not None:
            self._spawn(socket.close())

    def fetch(self, command: Fetch) -> None:
        """Ask REST in a thread of its own."""
        self._spawn(self._ask(command))

    async def shut(self, timeout_s: float) -> None:
        """Close everything and wait for it, so long at most."""
        for conn in list(self._sockets):
            self.close(conn)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A task is over; one that failed is nobody's secret."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_fault(error)

    async def _run(self, conn: int, url: str) -> None:
        wire = self.wire
        try:
            socket = await connect(
                url, compression=None, max_size=wire.frame_bytes, max_queue=QUEUE_FRAMES, open_timeout=wire.open_s,
                ping_interval=wire.ping_s, ping_timeout=wire.ping_s, close_timeout=1, logger=self._log,
                user_agent_header=USER_AGENT,
            )  # fmt: skip
        except (OSError, TimeoutError, WebSocketException) as error:
            self._on_close(conn, 0, f"cannot connect: {error}")
            return
        self._sockets[conn] = socket
        self._on_open(conn)
        on_frame = self._on_frame
        try:
            while True:
                on_frame(conn, await socket.recv(decode=False))
        except ConnectionClosed as error:
            closed = error.rcvd or error.sent
            self._on_close(conn, closed.code if closed else 1006, closed.reason if closed else "connection lost")
        finally:
            del self._sockets[conn]

    async def _ask(self, command: Fetch) -> None:
        answer = await asyncio.to_thread(self.get, command.request.path)
        self._on_answer(command.about, *answer)

    def get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """As `get` of this client's venue."""
        return get(self.wire, path)


def get(wire: Wire, path: str) -> tuple[int, Mapping[str, str], bytes]:
    """(status, headers with lower-case names, body); status 0 with the reason if there was no answer."""
    try:
        request = urllib.request.Request(wire.rest_url + path, headers={"User-Agent": USER_AGENT, **wire.headers})
        with urllib.request.urlopen(request, timeout=wire.answer_s) as answer:
            return answer.status, _lower(answer.headers), answer.read(ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        return error.code, _lower(error.headers), _reason(error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return 0, {}, str(error).encode()


def _reason(error: urllib.error.HTTPError) -> bytes:
    """What a refusal says; one whose words are torn, or do not come, is a refusal none the less."""
    try:
        with error:
            return error.read(4096)
    except (OSError, ValueError, http.client.HTTPException):
        return b""


def _lower(headers: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}
