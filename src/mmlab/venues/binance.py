"""What Binance's spot and USD-M feeds share: the envelope, decimals, time units, and most fields.

Bytes in, typed messages out. Names that differ only by case (`U`/`u`, `E`/`e`, `B`/`b`) get names of
their own here, so that nothing downstream ever sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from mmlab.core.errors import FeedError
from mmlab.core.spans import NS_PER_MS
from mmlab.venues.book_sync import Rules

FINITE = 1e15  # no price or quantity is larger; keeps infinities out
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Price = Annotated[float, msgspec.Meta(gt=0, le=FINITE)]
Qty = Annotated[float, msgspec.Meta(ge=0, le=FINITE)]
Levels = list[tuple[Price, Qty]]


class Envelope(msgspec.Struct, gc=False):
    """A combined stream's wrapper; a REST snapshot stands bare and is known by its `lastUpdateId`."""

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    last_update_id: int | None = msgspec.field(name="lastUpdateId", default=None)


class DepthUpdate(msgspec.Struct, gc=False):
    """`depthUpdate`: levels carry their new absolute quantity, 0 removes. `prev_id` on USD-M only."""

    symbol: str = msgspec.field(name="s")
    event_time: int = msgspec.field(name="E")
    first_id: Id = msgspec.field(name="U")
    last_id: Id = msgspec.field(name="u")
    bids: Levels = msgspec.field(name="b")
    asks: Levels = msgspec.field(name="a")
    prev_id: Id | None = msgspec.field(name="pu", default=None)
    transaction_time: int | None = msgspec.field(name="T", default=None)


class Snapshot(msgspec.Struct, gc=False):
    """The answer of REST `depth`: no symbol; a time on USD-M only."""

    last_update_id: Id = msgspec.field(name="lastUpdateId")
    bids: Levels
    asks: Levels
    event_time: int | None = msgspec.field(name="E", default=None)


class Trade(msgspec.Struct, gc=False):
    """`trade`: one fill; `m` says that the buyer was the maker, so the seller took."""

    symbol: str = msgspec.field(name="s")
    event_time: int = msgspec.field(name="E")
    trade_time: int = msgspec.field(name="T")
    trade_id: Id = msgspec.field(name="t")
    price: Qty = msgspec.field(name="p")  # 0 occurs on USD-M, where it marks what is no print of the book
    qty: Qty = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    kind: str = msgspec.field(name="X", default="MARKET")


class BookTicker(msgspec.Struct, gc=False):
    """`bookTicker`: the touch after one book update; a time on USD-M only."""

    symbol: str = msgspec.field(name="s")
    update_id: Id = msgspec.field(name="u")
    bid_px: Qty = msgspec.field(name="b")
    bid_qty: Qty = msgspec.field(name="B")
    ask_px: Qty = msgspec.field(name="a")
    ask_qty: Qty = msgspec.field(name="A")
    event_time: int | None = msgspec.field(name="E", default=None)


Message = DepthUpdate | Snapshot | Trade | BookTicker

ENVELOPE = msgspec.json.Decoder(Envelope)
SNAPSHOT = msgspec.json.Decoder(Snapshot, strict=False)
STREAMS: Mapping[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind, strict=False)
    for name, kind in (("depth", DepthUpdate), ("trade", Trade), ("bookTicker", BookTicker))
}


@dataclass(frozen=True)
class Feed:
    """One venue's feed: its name, its book rules, and what it demands beyond the common fields.

    `check` raises FeedError for a message that the venue never sends, DataError for another venue's;
    `not_a_print` says why a trade message is no execution against the book, "" if it is one.
    """

    name: str
    rules: Rules
    check: Callable[[DepthUpdate], None]
    not_a_print: Callable[[Trade], str]

    def decode(self, payload: bytes) -> Message:
        """The message in `payload`; raises FeedError, whose message up to the first colon is the kind of fault."""
        try:
            if not payload.isascii():
                payload.decode()
            message = _decode(payload)
        except UnicodeDecodeError as error:
            raise FeedError(f"not UTF-8: {error.reason} at byte {error.start}") from None
        except msgspec.ValidationError as error:
            raise FeedError(f"bad field: {error}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise FeedError(f"bad JSON: {error}") from None
        if isinstance(message, DepthUpdate):
            self.check(message)
        return message


def _decode(payload: bytes) -> Message:
    envelope = ENVELOPE.decode(payload)
    if envelope.stream is not None:
        message: Message = _decoder(envelope.stream).decode(envelope.data)
        return message
    if envelope.last_update_id is None:
        raise FeedError("unknown message: neither a stream's nor a snapshot")
    return SNAPSHOT.decode(payload)


def _decoder(stream: str) -> msgspec.json.Decoder[Any]:
    """The decoder of `<symbol>@<kind>[@<speed>]`; raises FeedError for a kind that is not imported."""
    kind = stream.partition("@")[2].partition("@")[0]
    decoder = STREAMS.get(kind)
    if decoder is None:
        raise FeedError(f"unknown stream {kind or stream}")
    return decoder


def to_ns(time: int) -> int:
    """The venue's time in ns UTC: 13 digits are ms, 16 are us (the message does not say); raises FeedError."""
    if 10**12 <= time < 10**13:
        return time * NS_PER_MS
    if 10**15 <= time < 10**16:
        return time * 1000
    raise FeedError(f"bad field: time {time} is neither in ms nor in us")
