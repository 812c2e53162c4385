"""Quotes by script: what is wanted at which book frame, in place of what a quote model would want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlab.sim.layout import Ints


@dataclass(frozen=True)
class Script:
    """One line a book frame of the tape, four arrays of shape (n_frames,).

    decide: whether a decision falls here. Then every order at work is cancelled, even one at the wanted price,
    and what is wanted is sent as new orders. At other frames nothing is decided.
    bid, ask: wanted prices in ticks, 0 for no order on that side.
    until_ns: the orders sent here can be filled before this instant, not at it; layout.NEVER for no end but ttl_ms.
    """

    decide: npt.NDArray[np.bool_]
    bid: Ints
    ask: Ints
    until_ns: Ints

    def __post_init__(self) -> None:
        if any(column.shape != self.decide.shape for column in (self.bid, self.ask, self.until_ns)):
            raise ValueError("a script's columns differ in length")
        if (self.bid < 0).any() or (self.ask < 0).any():
            raise ValueError("a script asks for a price below 0")

    @classmethod
    def none(cls) -> Script:
        """No script at all: the quote model decides."""
        nothing = np.empty(0, np.int64)
        return cls(np.empty(0, np.bool_), nothing, nothing, nothing)

    @property
    def lines(self) -> Ints:
        """The columns as the engine takes them, shape (n_frames, 4)."""
        return np.column_stack([self.decide.astype(np.int64), self.bid, self.ask, self.until_ns])

    def check(self, frame_ns: Ints) -> None:
        """Raise ValueError unless there is a line for each of these frames, and no order ends before it is sent."""
        if self.decide.shape != frame_ns.shape:
            raise ValueError(f"the script has {self.decide.size} lines for {frame_ns.size} book frames")
        if (self.decide & (self.until_ns < frame_ns)).any():
            raise ValueError("a script's order ends before it is sent")

    def most_live(self, frame_ns: Ints, leaving_ns: int) -> int:
        """No more orders than this live at once: a decision's two, until the next one's cancel is known of."""
        ns = frame_ns[self.decide]
        recent = np.arange(ns.size) - np.searchsorted(ns, ns - leaving_ns)
        return 2 * (int(recent.max(initial=0)) + 2)
