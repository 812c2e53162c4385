"""Holes: since when, which ids, why; and ranges of ids with others taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, int]  # a closed range


@dataclass(frozen=True)
class Hole:
    """A gap in the book's frames that is open until the next one: since when, and why."""

    from_ns: int
    reason: str
    start: bool = False  # the run began with it


def without(ranges: Sequence[Ids], ids: Ids) -> list[Ids]:
    """Ranges less the ids of another one."""
    first, last = ids
    parts = [part for a, b in ranges for part in ((a, min(b, first - 1)), (max(a, last + 1), b))]
    return [(a, b) for a, b in parts if a <= b]
