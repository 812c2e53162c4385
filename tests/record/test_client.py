"""Asking REST: whatever comes of it is told, and nothing is raised."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mmlab.record.client import Wire, get


@contextmanager
def answering(sent: bytes, hang: bool = False) -> Iterator[str]:
    """A server that sends these bytes to one client, and then hangs up, or does not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(sent)
                if hang:
                    over.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("sent", "hang", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n{}", False, 200, b"{}"),
        (b"HTTP/1.1 429 No\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno", False, 429, b"no"),
        (b"HTTP/1.1 500 No\r\nX-A: 1\r\nContent-Length: 9\r\n\r\nno", True, 500, b""),  # its words never come
        (b"HTTP/1.1 500 No\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz", False, 500, b""),
    ],
)
def test_status_headers_and_body_are_told(sent, hang, status, body):
    """A refusal whose words are torn or do not come is a refusal none the less."""
    with answering(sent, hang) as url:
        assert get(Wire("", url, {}, answer_s=0.3), "/x") == (
            status, {"x-a": "1", **dict([_length(sent)])}, body,
        )  # fmt: skip


def _length(sent: bytes) -> tuple[str, str]:
    name, value = sent.decode().split("\r\n")[2].split(": ")
    return name.lower(), value


def test_no_answer_is_status_0_with_the_reason():
    with answering(b"") as url:
        status, headers, reason = get(Wire("", url, {}, answer_s=0.3), "/x")
    assert (status, headers) == (0, {})
    assert reason
    assert get(Wire("", url, {}), "/x")[0] == 0  # nobody is there any more
    assert get(Wire("", "no address", {}), "/x")[0] == 0
