"""The connections of a recording: which counts, which stands by, and when it takes over.

Hand-over: a standby connection's frames are held until every stream of it joins what the primary has
delivered (by ids, at least OVERLAP_NS after it opened, and PATIENCE_NS at most); then it becomes the
primary, without a resync.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmlab.core.spans import NS_PER_S
from mmlab.tape.market import Market
from mmlab.venues.binance import AggTrade, DepthUpdate, Message, Trade, stream_of

OVERLAP_NS = NS_PER_S
PATIENCE_NS = 4 * NS_PER_S


@dataclass
class Conn:
    """One connection: what it carries, and, while it stands by, its frames and where its streams begin."""

    line: str  # route and kinds of stream, as the session names it
    standby: bool
    since_ns: int
    ending: bool = False  # the venue said that it will close it
    held: list[bytes] = field(default_factory=list)
    begins: dict[tuple[str, str], int] = field(default_factory=dict)  # (symbol, stream) -> id it must join

    @property
    def streams(self) -> list[str]:
        """Kinds of stream that it carries."""
        return self.line.split()[1:]

    def note(self, message: Message) -> None:
        """Remember where a stream of a standby begins."""
        if isinstance(message, DepthUpdate):
            self.begins.setdefault((message.symbol, "depth"), message.prev_id or message.first_id - 1)
        elif isinstance(message, Trade | AggTrade):
            self.begins.setdefault((message.symbol, stream_of(message)), message.trade_id - 1)

    def may_take_over(self, now_ns: int, markets: Mapping[str, Market]) -> bool:
        """True if nothing is lost by it, or it has waited long enough."""
        waited = now_ns - self.since_ns
        if not self.standby or waited < OVERLAP_NS:
            return False
        return waited >= PATIENCE_NS or all(
            _joins(markets.get(s), stream, at) for (s, stream), at in self.begins.items()
        )

    def state(self) -> dict[str, Any]:
        """What `restored` needs."""
        return {
            "line": self.line, "standby": self.standby, "since_ns": self.since_ns, "ending": self.ending,
            "held": [payload.hex() for payload in self.held],
            "begins": [(symbol, stream, at) for (symbol, stream), at in self.begins.items()],
        }  # fmt: skip

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Conn:
        """A connection as `state` was taken of it."""
        begins = {(symbol, stream): at for symbol, stream, at in state["begins"]}
        held = [bytes.fromhex(payload) for payload in state["held"]]
        return cls(state["line"], state["standby"], state["since_ns"], state["ending"], held, begins)


def _joins(market: Market | None, stream: str, at: int) -> bool:
    """True if the market has come to where the standby begins."""
    if market is None:
        return True
    if stream == "depth":
        return not market.synced or (market.sync.book_id or 0) >= at
    last = market.prints(stream).last
    return last is None or last[0] >= at
