"""What a run found besides data: lines set aside, and the reasons why a day is degraded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from mmlab.core.spans import NS_PER_DAY, day_of_ns

PLACES = 3  # lines named for each kind of fault
HARMLESS = ("unknown stream", "unknown message", "not a print")  # set aside, but nothing is missing for it


@dataclass
class SetAside:
    """How many lines had one kind of fault, and where the first of them stand: (file, line)."""

    count: int = 0
    first: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Findings:
    """Counts of one run, filled in as it goes."""

    lines: int = 0
    epochs: int = 0
    gaps: Counter[str] = field(default_factory=Counter)  # stream -> declared holes
    repeats: Counter[str] = field(default_factory=Counter)  # stream -> messages received twice, and kept once
    drifts: set[str] = field(default_factory=set)  # streams whose fields are not those that are known
    set_aside: dict[str, SetAside] = field(default_factory=dict)
    rows: dict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # day -> table -> rows
    degraded: dict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, kind: str, source: str, line_no: int) -> None:
        """Count a line that was set aside."""
        found = self.set_aside.setdefault(kind, SetAside())
        found.count += 1
        if len(found.first) < PLACES:
            found.first.append((source, line_no))

    def degrade(self, day: date, why: str) -> None:
        """Count a fault of that day's data."""
        self.degraded[day][why] += 1

    def reasons(self) -> dict[date, list[str]]:
        """Day -> why it is degraded, each with its count; days without a fault are absent."""
        found = {day: [f"{why}: {n}" for why, n in sorted(counts.items())] for day, counts in self.degraded.items()}
        for day, rows in self.rows.items():
            if rows["diffs"] and not rows["depth"]:
                found.setdefault(day, []).append("no book: no update could be joined to a snapshot")
        return dict(sorted(found.items()))


def fault_kind(reason: str) -> str:
    """The part of a reason that is counted: up to its first colon."""
    return reason.partition(":")[0]


def days_between(from_ns: int, to_ns: int) -> Iterator[date]:
    """Every UTC date that [from_ns, to_ns] touches."""
    for day in range(from_ns // NS_PER_DAY, to_ns // NS_PER_DAY + 1):
        yield day_of_ns(day * NS_PER_DAY)
