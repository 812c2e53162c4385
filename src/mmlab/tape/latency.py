"""How long messages took, minute by minute: exact quantiles by stream, and of the journal's own delay."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmlab.core.spans import NS_PER_MIN, NS_PER_MS
from mmlab.tape.market import Market

NAMES = ("p50", "p90", "p99", "p999", "max")
US_DIGITS = 10**15  # a time of the venue above this is in us, below it in ms


class Latency:
    """Collects delays of the running minute; `flush` writes them as rows of their markets."""

    def __init__(self) -> None:
        self._delays: dict[tuple[str, str], array[int]] = {}
        self._minute = 0

    def take(self, symbol: str, stream: str, now_ns: int, event_time: int) -> None:
        """One message received at `now_ns`; `event_time` is the venue's, in its unit."""
        delays = self._delays.get((symbol, stream))
        if delays is None:
            delays = self._delays[symbol, stream] = array("q")
        delays.append(now_ns - event_time * (1000 if event_time >= US_DIGITS else 1_000_000))

    def is_over(self, now_ns: int) -> bool:
        """True once, when another minute has begun."""
        if now_ns // NS_PER_MIN == self._minute:
            return False
        self._minute = now_ns // NS_PER_MIN
        return True

    def flush(self, markets: Mapping[str, Market]) -> None:
        """The minute is over: one row for each stream, at the time of its market's newest message."""
        for (symbol, stream), delays in self._delays.items():
            market = markets[symbol]
            found = quantiles(delays)
            market.out.latency.append((market.now_ns, market.seq, stream, "venue", len(delays), *found))
            if market.out.heard is not None:
                shown = {name: f"{ns / NS_PER_MS:.1f} ms" for name, ns in zip(NAMES, found, strict=True)}
                market.out.heard("latency", {"stream": stream, "n": len(delays), **shown})
        self._delays.clear()


def journal_row(market: Market, lag: Mapping[str, Any]) -> None:
    """The journal's own delay, measured by the recorder over one minute."""
    found = (lag[name] for name in ("n", *NAMES))
    market.out.latency.append((market.now_ns, market.seq, "all", "journal", *found))


def quantiles(delays: array[int]) -> list[int]:
    """p50, p90, p99, p999 and the largest: shape (5,), nearest ranks of what was measured."""
    found = np.sort(np.frombuffer(delays, np.int64))
    ranks = np.minimum((np.array([0.5, 0.9, 0.99, 0.999, 1.0]) * found.size).astype(np.int64), found.size - 1)
    return [int(value) for value in found[ranks]]
