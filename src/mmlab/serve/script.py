"""What the fault script has under way, apart from sockets: which events are withheld, doubled, swapped, changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmlab.core.spans import NS_PER_S
from mmlab.serve.faults import Fault
from mmlab.serve.market import Event
from mmlab.serve.rest import MS, US


@dataclass
class Counted:
    """A fault that holds for so many messages more."""

    fault: Fault
    left: int


@dataclass
class Script:
    """`begin` each fault in its time; the venue asks what is to be done with each event and answer."""

    asked: list[Fault] = field(default_factory=list)  # faults that begin at a request
    requests: dict[str, int] = field(default_factory=dict)  # path -> how many; "" is all of them
    withheld: dict[str, int] = field(default_factory=dict)  # stream -> events
    muted_until_ns: dict[str, int] = field(default_factory=dict)
    doubled: dict[str, int] = field(default_factory=dict)
    swapped: dict[str, list[Event]] = field(default_factory=dict)
    fields: list[Counted] = field(default_factory=list)
    answers: list[Counted] = field(default_factory=list)
    stale: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict)  # symbol -> snapshot, times left
    delayed_until_ns: int = 0
    refused_until_ns: int = 0
    unit_ns: int = 0  # whatever was asked for

    def requested(self, what: str) -> list[Fault]:
        """Count a request of a path; returns the faults that begin with it."""
        for path in ("", what):
            self.requests[path] = self.requests.get(path, 0) + 1
        due = [f for f in self.asked if f.path in ("", what) and f.request == self.requests[f.path]]
        self.asked = [f for f in self.asked if f not in due]
        return due

    def begin(self, fault: Fault, now_ns: int) -> bool:
        """Start a fault; False for one that is about sockets or the market."""
        until_ns = now_ns + int(fault.for_s * NS_PER_S)
        if fault.do == "drop":
            self.withheld[fault.stream] = self.withheld.get(fault.stream, 0) + fault.count
        elif fault.do == "duplicate":
            self.doubled[fault.stream] = fault.count
        elif fault.do == "mute":
            self.muted_until_ns[fault.stream] = until_ns
        elif fault.do == "reorder":
            self.swapped[fault.stream] = []
        elif fault.do == "delay":
            self.delayed_until_ns = until_ns
        elif fault.do == "refuse":
            self.refused_until_ns = until_ns
        elif fault.do == "unit":
            self.unit_ns = US if fault.unit == "us" else MS
        elif fault.do == "field":
            self.fields.append(Counted(fault, fault.count))
        elif fault.do == "rest":
            self.answers.append(Counted(fault, fault.count))
        else:
            return False
        return True

    def sendings(self, event: Event, now_ns: int) -> Iterator[Event]:
        """What is sent when `event` happens: it, nothing, it twice, or, swapped, none and then both."""
        for each in self._ordered(event):
            if _use(self.withheld, each.stream) or now_ns < self.muted_until_ns.get(each.stream, 0):
                continue
            yield each
            if _use(self.doubled, each.stream):
                yield each

    def _ordered(self, event: Event) -> Iterator[Event]:
        waiting = self.swapped.get(event.stream)
        if waiting is None:
            yield event
        elif not waiting:
            waiting.append(event)
        else:
            del self.swapped[event.stream]
            yield from (event, waiting[0])

    def changed(self, stream: str, data: dict[str, Any]) -> dict[str, Any]:
        """A message's data with fields set and removed."""
        for entry in self.fields:
            if entry.left > 0 and entry.fault.stream == stream:
                entry.left -= 1
                data = {k: v for k, v in (data | entry.fault.set).items() if k not in entry.fault.remove}
        return data

    def answer(self, what: str) -> Fault | None:
        """The fault that the next answer of a path has, if any."""
        for entry in self.answers:
            if entry.left > 0 and what == entry.fault.path:
                entry.left -= 1
                return entry.fault
        return None

    def old_snapshot(self, symbol: str) -> dict[str, Any] | None:
        """A snapshot to give instead of the book as it is."""
        snapshot, left = self.stale.get(symbol, ({}, 0))
        if left <= 0:
            return None
        self.stale[symbol] = (snapshot, left - 1)
        return snapshot


def _use(left: dict[str, int], stream: str) -> bool:
    """Use up one of a counted fault."""
    if left.get(stream, 0) <= 0:
        return False
    left[stream] -= 1
    return True
