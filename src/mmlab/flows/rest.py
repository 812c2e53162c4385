"""Asking a venue's REST with patience: within its limits, again after what passes, and a clear end to what does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from mmlab.core.errors import DataError, FeedError, UsageError
from mmlab.core.intervals import utc_text
from mmlab.core.spans import NS_PER_MIN, NS_PER_S
from mmlab.flows.record_start import read_ban, wire, write_ban
from mmlab.record.client import get
from mmlab.record.policy import Budget, Pace
from mmlab.record.spec import RecordSpec
from mmlab.venues import history
from mmlab.venues.endpoints import Request

SHARE = 0.8  # of what a recorder may use: one beside us on this address must not starve
TOO_MANY, BANNED, TIMED_OUT = 429, 418, 408
WAITS = 5  # refusals for too many requests in a row, before we give up
SHORT_S = 60.0  # a ban noted by a recorder is waited for if it is no longer than this
AGAIN = "what came before is in the lake: the same command goes on from there"
Read = TypeVar("Read")


@dataclass(frozen=True)
class Patience:
    """How often one thing is asked for, and how long is waited in between: doubling from `base_s` to `cap_s`."""

    tries: int = 6
    base_s: float = 1.0
    cap_s: float = 30.0
    answer_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise UsageError(f"tries is {self.tries}", remedy="give --tries 1 or more")


@dataclass(frozen=True)
class Time:
    """The clocks that a conversation goes by, ns, and how it waits, s."""

    wall_ns: Callable[[], int] = time.time_ns
    mono_ns: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep


REAL_TIME = Time()


class Rest:
    """A conversation with one venue; `requests` counts what was asked. `say` is told of every longer wait."""

    def __init__(
        self, venue: str, symbol: str, data_root: Path, rest_url: str, patience: Patience, say: Callable[[str], None],
        clocks: Time = REAL_TIME,
    ) -> None:  # fmt: skip
        self._spec = RecordSpec(venue, (symbol,), ("trade",), data_root, rest_url=rest_url.rstrip("/"))
        self.venue = self._spec.at
        self._wire = replace(wire(self._spec), headers={}, answer_s=patience.answer_s)  # times in ms, as asked
        self._patience, self._say, self._clocks = patience, say, clocks
        self._budget = Budget(int(self.venue.weight_per_min * SHARE))
        self._pace = Pace()  # funding: 200 requests in five minutes, of the 500 that the venue allows
        self._rng = np.random.default_rng(patience.seed)
        self._offset_ns = clocks.wall_ns() - clocks.mono_ns()
        self.requests = 0

    @property
    def address(self) -> str:
        """Where the venue is asked."""
        return self._wire.rest_url

    def now_ns(self) -> int:
        """The venue's clock, once it was asked for; until then this machine's."""
        return self._offset_ns + self._clocks.mono_ns()

    def set_clock(self) -> int:
        """Ask the venue for its time, and go by it from here on; returns it, ns."""
        told_ns = self.ask(history.clock(self.venue), history.read_clock)
        self._offset_ns = told_ns - self._clocks.mono_ns()  # the answer was on its way: we are late, never early
        return told_ns

    def ask(self, request: Request, read: Callable[[bytes], Read]) -> Read:
        """The answer as `read` makes it; an answer that it cannot read (FeedError) is asked for again.

        Raises UsageError for a symbol that the venue does not know, DataError for a ban, any other refusal, and
        a venue that does not answer however often it is asked.
        """
        self._heed_ban()
        tries = waits = 0
        while True:
            self._stay_within(request)
            status, headers, body = get(self._wire, request.path)
            self.requests += 1
            used = headers.get("x-mbx-used-weight-1m", "")
            if used.isascii() and used.isdigit():
                self._budget.told(int(used), self.now_ns())
            if status == TOO_MANY and waits < WAITS:
                waits += 1
                self._wait(_seconds(headers.get("retry-after", ""), 60), "the venue wants fewer requests")
                continue
            if status == 200:
                try:
                    return read(body)
                except FeedError as error:
                    fault = error.message
            elif status in (0, TIMED_OUT) or status >= 500:
                fault = f"HTTP {status}" if status else body.decode(errors="replace") or "no answer"
            else:
                raise self._refusal(status, _seconds(headers.get("retry-after", ""), 120), body)
            tries += 1
            if tries >= self._patience.tries:
                raise DataError(f"{self.address} gave no whole answer in {tries} tries: {fault}", remedy=AGAIN)
            step_s = min(self._patience.base_s * 2.0 ** (tries - 1), self._patience.cap_s)
            self._wait(step_s * (0.5 + self._rng.random() / 2), fault)

    def _refusal(self, status: int, wait_s: int, body: bytes) -> Exception:
        """The error for an answer that asking again does not mend; a ban is noted, for recorders of this lake too."""
        code, text = history.read_refusal(body)
        if status in (BANNED, TOO_MANY):
            until_ns = self._clocks.wall_ns() + wait_s * NS_PER_S
            write_ban(self._spec, until_ns, status)
            return self._banned(until_ns)
        (symbol,) = self._spec.symbols
        if code == history.UNKNOWN_SYMBOL:
            return UsageError(f"{self.venue.name} does not know {symbol}", remedy="check --symbol and --venue")
        told = f"{code} {text}" if code else text.splitlines()[0][:100] if text else "no reason"
        return DataError(
            f"{self.address} refuses with HTTP {status}: {told}",
            remedy="look up what it says; --rest-url names another address of the venue",
        )

    def _banned(self, until_ns: int) -> DataError:
        return DataError(
            f"{self.venue.name} takes no requests of this address until {utc_text(until_ns)} UTC: it had too many",
            remedy=f"wait, since asking earlier makes it longer; {AGAIN}",
        )

    def _heed_ban(self) -> None:
        """Ask nothing while a ban lasts that we, or a recorder of this lake, were told of."""
        until_ns = read_ban(self._spec)
        left_s = (until_ns - self._clocks.wall_ns()) / NS_PER_S
        if left_s > SHORT_S:
            raise self._banned(until_ns)
        if left_s > 0:
            self._wait(left_s, "the venue wants no requests")

    def _stay_within(self, request: Request) -> None:
        """Wait until the venue's limits have room for a request."""
        while request.weight and not self._budget.take(request.weight, self.now_ns()):
            left_ns = NS_PER_MIN - self.now_ns() % NS_PER_MIN
            self._wait(left_ns / NS_PER_S + 0.5, "this minute's share of the venue's limit is used")
        while not request.weight and not self._pace.allows(self._clocks.mono_ns()):
            self._wait(5.0, "the share of the venue's limit on funding is used")

    def _wait(self, seconds: float, why: str) -> None:
        if seconds >= 1:
            self._say(f"{why}: waiting {seconds:.0f} s")
        self._clocks.sleep(seconds)


def _seconds(text: str, default: int) -> int:
    """A Retry-After in seconds."""
    return int(text) if text.isascii() and text.isdigit() else default
