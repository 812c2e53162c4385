"""What reaches a recorder, in the order of receipt: frames of the venue, answers of its REST, marks of its own.

The journal keeps records, the tape is derived from them, and nothing else is: whoever has the records
can make every table again.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import msgspec


class Kind(IntEnum):
    """What a record is."""

    FRAME = 1  # one WebSocket message, byte for byte
    ANSWER = 2  # one REST answer: a line of JSON that says to what, then the body, byte for byte
    MARK = 3  # JSON of the recorder's own: run_start, connect, checkpoint, ...


class Record(NamedTuple):
    """One record. `recv_ns` never runs backwards; `wall_ns` is what the wall clock said, whatever it was."""

    kind: Kind
    conn: int  # number of the connection within the run, 0 where there is none
    recv_ns: int
    wall_ns: int
    mono_ns: int
    payload: bytes


def mark(name: str, **details: Any) -> bytes:
    """The payload of a MARK."""
    return msgspec.json.encode({"mark": name, **details})


def answer(about: dict[str, Any], body: bytes) -> bytes:
    """The payload of an ANSWER."""
    return msgspec.json.encode(about) + b"\n" + body


def split_answer(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """What `answer` joined."""
    head, _, body = payload.partition(b"\n")
    about: dict[str, Any] = msgspec.json.decode(head)
    return about, body
