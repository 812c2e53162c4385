"""Anchored walk-forward windows and a hold-out: what is learned from, what is tested on, and what nobody sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import UsageError
from mmlab.core.intervals import utc_text
from mmlab.core.spans import NS_PER_DAY

TRAIN_SHARE = 0.7
FEWEST_BARS = 96  # of any stretch
MOST_HOLDOUT = 0.9


@dataclass(frozen=True)
class Span:
    """[low_ns, high_ns): bars that open within."""

    low_ns: int
    high_ns: int

    def bars(self, open_ns: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Which bars of a market: [low, high)."""
        low, high = np.searchsorted(open_ns, [self.low_ns, self.high_ns])
        return int(low), int(high)

    def __str__(self) -> str:
        return f"{utc_text(self.low_ns)} to {utc_text(self.high_ns)}"


@dataclass(frozen=True)
class Windows:
    """Stretches of time, in order: train[0], test[0], train[1], test[1], ..., holdout.

    Window k trains on train[0] to train[k], anchored at the start and growing; test[k] follows it. A window never
    trains on a test of any window: with one set of parameters for all windows a test inside a later window's training
    would be held out in name only. Each stretch is run with a fresh account and sees what lies before only by signals.
    """

    train: tuple[Span, ...]
    test: tuple[Span, ...]
    holdout: Span | None

    @classmethod
    def of(cls, start_ns: int, end_ns: int, interval_ns: int, n: int = 4, holdout: float = 0.2) -> Windows:
        """`n` windows over [start_ns, end_ns) without its last part `holdout`; 70% of each block trains, 30% tests.

        Raises UsageError for numbers that cannot be meant and for stretches shorter than FEWEST_BARS bars.
        """
        if n < 1:
            raise UsageError(f"--windows is {n}", remedy="give 1 or more")
        if not 0 <= holdout < MOST_HOLDOUT:
            raise UsageError(f"--holdout is {holdout}", remedy=f"give a share of the span: 0 to below {MOST_HOLDOUT}")
        bars = (end_ns - start_ns) // interval_ns
        searched = bars - round(bars * holdout)
        edges = [searched * k // n for k in range(n + 1)]
        cuts = [low + round((high - low) * TRAIN_SHARE) for low, high in pairwise(edges)]
        shortest = min(
            [*(cut - low for low, cut in zip(edges, cuts, strict=False)),
             *(high - cut for cut, high in zip(cuts, edges[1:], strict=True))]
            + ([bars - searched] if holdout else []),
            default=0,
        )  # fmt: skip
        if shortest < FEWEST_BARS:
            days = bars * interval_ns / NS_PER_DAY
            raise UsageError(
                f"{n} windows and a hold-out of {holdout:g} cut {days:.1f} days into stretches of {shortest} bars, "
                f"fewer than {FEWEST_BARS}",
                remedy="give fewer --windows or a longer span of days",
            )

        def span(low: int, high: int) -> Span:
            return Span(start_ns + low * interval_ns, start_ns + high * interval_ns)

        return cls(
            tuple(span(low, cut) for low, cut in zip(edges, cuts, strict=False)),
            tuple(span(cut, high) for cut, high in zip(cuts, edges[1:], strict=True)),
            span(searched, bars) if holdout else None,
        )

    def __len__(self) -> int:
        return len(self.train)

    @property
    def searched(self) -> Span:
        """All that the search may see."""
        return Span(self.train[0].low_ns, self.test[-1].high_ns)
