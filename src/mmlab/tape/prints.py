"""A numbered tape of prints (trades or aggregates): its ids are followed, its holes declared or filled.

Ids run without a hole on every feed we know, so a jump proves what is missing. An import declares it at
once. A recorder may still get it: late from an older connection, or by REST (`source` rest, received when
it was received). What was filled leaves a hole without ids, since nobody saw it live; what was not, one
hole for each stretch of ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mmlab.core.errors import FeedError
from mmlab.core.table import Table
from mmlab.tape.outbox import Outbox
from mmlab.tape.rows import Rows
from mmlab.venues.binance import AggTrade, Printed, Trade, to_ns

JUMP = 1_000_000  # ids: more than this in one hole is not asked for, it is declared


@dataclass
class Missing:
    """A hole in the ids that may still be filled: what came after all, and what is known never to come."""

    first: int
    last: int
    from_ns: int
    to_ns: int
    reason: str
    got: list[int]
    lost: list[tuple[int, int]]

    def left(self) -> list[tuple[int, int]]:
        """The stretches of ids that may still come."""
        known = [(i, i) for i in self.got] + list(self.lost)
        edges = [(0, self.first - 1), *sorted(known), (self.last + 1, 0)]
        return [(a[1] + 1, b[0] - 1) for a, b in pairwise(edges) if b[0] - a[1] > 1]


class Prints:
    """One tape. `recording`: repeats are dropped (connections may overlap), holes wait to be filled."""

    def __init__(self, stream: str, table: Table, out: Outbox, recording: bool) -> None:
        self.stream, self.table = stream, table
        self.rows = Rows(table)
        self.last: tuple[int, int] | None = None  # id and receive time of the newest print
        self.missing: list[Missing] = []
        self.repeats = 0
        self.fresh = False  # the next print is the first of a connection that followed none
        self._out, self._recording = out, recording

    def take(self, recv_ns: int, recv_seq: int, printed: Trade | AggTrade, not_a_print: str) -> tuple[int, int] | None:
        """One print received live; returns the ids that it shows to be missing.

        Raises FeedError for a repeated id, if not recording. A message with a reason why it is
        `not_a_print` counts as an id, and becomes no row.
        """
        last_id, last_ns = self.last or (printed.trade_id - 1, recv_ns)
        jump = None
        if self.fresh and printed.trade_id <= last_id:  # what is sent now is new: the venue has set its ids back
            last_id, last_ns = printed.trade_id - 1, recv_ns
        self.fresh = False
        if printed.trade_id <= last_id:
            if not self._recording:
                raise FeedError(f"repeated {self._what} id: {printed.trade_id} after {last_id}")
            if not self._late(printed.trade_id):
                self.repeats += 1
                return None
        else:
            self.last = (printed.trade_id, recv_ns)
            if printed.trade_id > last_id + 1:
                jump = (last_id + 1, printed.trade_id - 1)
                self._jumped(jump, last_ns, recv_ns)
        if not not_a_print:
            self._append(recv_ns, recv_seq, to_ns(printed.event_time), printed, "ws")
        return jump

    @property
    def _what(self) -> str:
        return "trade" if self.stream == "trade" else "aggregate"

    def _append(self, recv_ns: int, recv_seq: int, exch_ns: int, printed: Printed, source: str) -> None:
        taker = -1 if printed.buyer_is_maker else 1
        trade_ns = to_ns(printed.trade_time)
        row = (recv_ns, exch_ns, trade_ns, recv_seq, printed.trade_id, printed.price, printed.qty, taker, source)
        self.rows.append(row)

    def _jumped(self, ids: tuple[int, int], from_ns: int, until_ns: int) -> None:
        reason = f"{self._what} ids jump"
        if self._recording and ids[1] - ids[0] < JUMP:
            self.missing.append(Missing(*ids, from_ns, until_ns, reason, [], []))
        else:
            self._declare(ids, from_ns, until_ns, reason)

    def _declare(self, ids: tuple[int, int] | None, from_ns: int, until_ns: int, reason: str) -> None:
        name = "trades" if self.stream == "trade" else "aggregates"
        self._out.gap(self.stream, from_ns, until_ns, ids, reason, f"gaps in {name}")

    def _late(self, print_id: int) -> bool:
        """Take an id out of the hole that waits for it; False if none does."""
        for hole in self.missing:
            if any(first <= print_id <= last for first, last in hole.left()):
                hole.got.append(print_id)
                self._close_if_done(hole)
                return True
        return False

    def _close_if_done(self, hole: Missing) -> None:
        """Declare a hole about which everything is known: the stretches that stayed, or that it was filled."""
        if hole.left():
            return
        self.missing.remove(hole)
        for ids in hole.lost:
            self._declare(ids, hole.from_ns, hole.to_ns, hole.reason)
        if not hole.lost:
            self._declare(None, hole.from_ns, hole.to_ns, f"{hole.reason}; filled late")

    def missed(self, last_id: int, now_ns: int) -> None:
        """All ids up to `last_id` were printed, as REST says, and did not come."""
        if self.last is not None:
            self._jumped((self.last[0] + 1, last_id), self.last[1], now_ns)
        self.last = (last_id, now_ns)

    def resume(self, last_id: int, last_ns: int) -> None:
        """Go on after an earlier run's last print, so that what lies between is missing."""
        self.last, self.fresh = (last_id, last_ns), True

    def fill(self, recv_ns: int, first_seq: int, prints: Iterable[Printed]) -> int:
        """Prints got by REST: those that were missing become rows; returns how many did."""
        n = 0
        for printed in prints:
            if self._late(printed.trade_id) and printed.price > 0 and printed.qty > 0:
                self._append(recv_ns, first_seq + n, to_ns(printed.trade_time), printed, "rest")
                n += 1
        return n

    def give_up(self, first: int, last: int) -> None:
        """Nobody has the ids [first, last]: what of them is missing stays so."""
        for hole in list(self.missing):
            for a, b in hole.left():
                if a <= last and b >= first:
                    hole.lost.append((max(a, first), min(b, last)))
            hole.lost.sort()
            self._close_if_done(hole)

    def give_up_all(self) -> None:
        """The run is over: what is missing stays so."""
        for hole in list(self.missing):
            self.give_up(hole.first, hole.last)

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {
            "last": self.last,
            "repeats": self.repeats,
            "fresh": self.fresh,
            "missing": [vars(hole) for hole in self.missing],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.last = None if state["last"] is None else (state["last"][0], state["last"][1])
        self.repeats, self.fresh = state["repeats"], state.get("fresh", False)  # older journals have none
        self.missing = [Missing(**{**hole, "lost": [(a, b) for a, b in hole["lost"]]}) for hole in state["missing"]]
