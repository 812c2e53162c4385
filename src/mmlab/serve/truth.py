"""The venue's own record of what happened and what became of it: the oracle that a recording is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any

import msgspec

from mmlab.serve.market import Event, State


@dataclass
class Truth:
    """Lines of the log: events (`ids`, how often sent), books at checkpoints, faults, requests, connections.

    Kept in memory where `keep`, written as JSON lines where there is a file.
    """

    file: IO[bytes] | None = None
    keep: bool = True
    every: int = 50  # updates between two books
    lines: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def event(self, event: Event, sent: int, state: State) -> None:
        """An event has happened, and was sent to so many connections."""
        self.counts[event.stream] = self.counts.get(event.stream, 0) + 1
        self._write(
            kind=event.stream,
            symbol=event.symbol,
            first=event.first_id,
            last=event.last_id,
            at_ns=event.at_ns,
            sent=sent,
        )
        if event.stream == "depth" and self.counts["depth"] % self.every == 0:
            bids, asks = state.levels(1 << 30)
            self._write(kind="book", symbol=event.symbol, last=event.last_id, bids=bids, asks=asks)

    def note(self, kind: str, **details: Any) -> None:
        """Anything else."""
        self._write(kind=kind, **details)

    def of(self, kind: str, symbol: str | None = None) -> list[dict[str, Any]]:
        """The lines of a kind."""
        return [line for line in self.lines if line["kind"] == kind and symbol in (None, line.get("symbol"))]

    def _write(self, **line: Any) -> None:
        if self.keep:
            self.lines.append(line)
        if self.file is not None:
            self.file.write(msgspec.json.encode(line) + b"\n")
