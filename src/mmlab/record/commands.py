"""What a session is told and what it says: its settings, what it asks of the records, and its commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mmlab.venues.endpoints import Request


class FoldConn(Protocol):
    """A connection as the records tell of it."""

    line: str
    ending: bool


class Fold(Protocol):
    """What the session asks of the records received so far."""

    retired: list[int]

    @property
    def conns(self) -> Mapping[int, FoldConn]:
        """Connections that are open."""
        ...

    def wants_snapshot(self) -> Iterator[tuple[str, int, bool]]:
        """(symbol, generation, updates wait)."""
        ...

    def wants_prints(self) -> Iterator[tuple[str, str, int, int]]:
        """(symbol, stream, first, last)."""
        ...

    def silent(self, now_ns: int, after_ns: int, peers: int) -> Iterator[tuple[str, str]]:
        """(symbol, stream) that should have spoken."""
        ...

    def quiet(self, now_ns: int, after_ns: int) -> Iterator[tuple[str, str, int]]:
        """(symbol, stream, last id) of prints that may have stopped, or may be rare."""
        ...


@dataclass(frozen=True)
class Settings:
    """The session's times, in seconds."""

    life_s: float = 23.5 * 3600  # a connection is renewed before the venue closes it
    silent_s: float = 60.0  # a stream that says nothing while its peers do
    info_s: float = 600.0  # filters and status are looked at this often
    snapshot_s: float = 3600.0  # a snapshot to check the book by; 0 is never
    retry_s: float = 0.5  # first wait after a failure
    cap_s: float = 30.0  # longest wait between two tries


@dataclass(frozen=True)
class Open:
    """Connect."""

    conn: int
    line: str
    path: str
    standby: bool


@dataclass(frozen=True)
class Close:
    """Close a connection."""

    conn: int
    why: str


@dataclass(frozen=True)
class Fetch:
    """Ask REST. `about` goes into the journal with the answer."""

    request: Request
    about: dict[str, Any]


@dataclass(frozen=True)
class Note:
    """A mark for the journal."""

    name: str
    details: dict[str, Any]


Command = Open | Close | Fetch | Note
