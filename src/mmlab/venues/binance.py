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

    def described(self) -> dict[str, Any]:
        """What consumers must know of it: its id, and how far down it reaches."""
        return {
            "last_update_id": self.last_update_id,
            "bids": len(self.bids),
            "asks": len(self.asks),
            "lowest_bid": min((price for price, _ in self.bids), default=None),
            "highest_ask": max((price for price, _ in self.asks), default=None),
        }


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


class AggTrade(msgspec.Struct, gc=False):
    """`aggTrade`: the fills of one taker order at one price, trades `first_trade` to `last_trade`."""

    symbol: str = msgspec.field(name="s")
    event_time: int = msgspec.field(name="E")
    trade_time: int = msgspec.field(name="T")
    trade_id: Id = msgspec.field(name="a")
    price: Qty = msgspec.field(name="p")
    qty: Qty = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    kind: str = "MARKET"


class BookTicker(msgspec.Struct, gc=False):
    """`bookTicker`: the touch after one book update; a time on USD-M only."""

    symbol: str = msgspec.field(name="s")
    update_id: Id = msgspec.field(name="u")
    bid_px: Qty = msgspec.field(name="b")
    bid_qty: Qty = msgspec.field(name="B")
    ask_px: Qty = msgspec.field(name="a")
    ask_qty: Qty = msgspec.field(name="A")
    event_time: int | None = msgspec.field(name="E", default=None)


class RestTrade(msgspec.Struct, gc=False):
    """One row of REST `historicalTrades`."""

    trade_id: Id = msgspec.field(name="id")
    price: Qty
    qty: Qty
    trade_time: int = msgspec.field(name="time")
    buyer_is_maker: bool = msgspec.field(name="isBuyerMaker")


class RestAggTrade(msgspec.Struct, gc=False):
    """One row of REST `aggTrades`."""

    trade_id: Id = msgspec.field(name="a")
    price: Qty = msgspec.field(name="p")
    qty: Qty = msgspec.field(name="q")
    trade_time: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


Printed = Trade | AggTrade | RestTrade | RestAggTrade
Message = DepthUpdate | Snapshot | Trade | AggTrade | BookTicker

ENVELOPE = msgspec.json.Decoder(Envelope)
SNAPSHOT = msgspec.json.Decoder(Snapshot, strict=False)


class KnownDepth(DepthUpdate, forbid_unknown_fields=True, gc=False):
    """A depth update with no field that is not known: what the venue sends today."""

    e: str = ""
    ps: str = ""
    st: int = 0


class KnownTrade(Trade, forbid_unknown_fields=True, gc=False):
    """A trade with no field that is not known."""

    e: str = ""
    best: bool | None = msgspec.field(name="M", default=None)
    ps: str = ""
    st: int = 0


class KnownAggTrade(AggTrade, forbid_unknown_fields=True, gc=False):
    """An aggregate with no field that is not known."""

    e: str = ""
    first_trade: int = msgspec.field(name="f", default=-1)
    last_trade: int = msgspec.field(name="l", default=-1)
    normal_qty: str = msgspec.field(name="nq", default="")
    best: bool | None = msgspec.field(name="M", default=None)
    st: int = 0


class KnownTicker(BookTicker, forbid_unknown_fields=True, gc=False):
    """A ticker with no field that is not known."""

    e: str = ""
    transaction_time: int = msgspec.field(name="T", default=0)
    ps: str = ""
    st: int = 0


def _pair(known: type, tolerant: type) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    return msgspec.json.Decoder(known, strict=False), msgspec.json.Decoder(tolerant, strict=False)


STREAMS: Mapping[str, tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]] = {
    "depth": _pair(KnownDepth, DepthUpdate),
    "trade": _pair(KnownTrade, Trade),
    "aggTrade": _pair(KnownAggTrade, AggTrade),
    "bookTicker": _pair(KnownTicker, BookTicker),
}
TOLERANT: Mapping[type, str] = {DepthUpdate: "depth", Trade: "trade", AggTrade: "aggTrade", BookTicker: "bookTicker"}
STREAM_OF: Mapping[type, str] = {
    **TOLERANT,
    KnownDepth: "depth",
    KnownTrade: "trade",
    KnownAggTrade: "aggTrade",
    KnownTicker: "bookTicker",
}


def stream_of(message: Message) -> str:
    """The kind of stream that a message came by."""
    return STREAM_OF[type(message)]


def drifted(message: Message) -> str:
    """The stream whose fields are no longer those that are known, "" if they are."""
    return TOLERANT.get(type(message), "")


@dataclass(frozen=True)
class Feed:
    """One venue's feed: its name, its book rules, and what it demands beyond the common fields.

    `check` raises FeedError for a message that the venue never sends, DataError for another venue's;
    `not_a_print` says why a trade message is no execution against the book, "" if it is one.
    """

    name: str
    rules: Rules
    check: Callable[[DepthUpdate], None]
    not_a_print: Callable[[Trade | AggTrade], str]

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
        known, tolerant = _decoders(envelope.stream)
        try:
            message: Message = known.decode(envelope.data)
        except msgspec.ValidationError:
            message = tolerant.decode(envelope.data)
        return message
    if envelope.last_update_id is None:
        raise FeedError("unknown message: neither a stream's nor a snapshot")
    return SNAPSHOT.decode(payload)


def _decoders(stream: str) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    """The decoders of `<symbol>@<kind>[@<speed>]`, for the fields known and for any others.

    Raises FeedError for a kind that is not imported.
    """
    kind = stream.partition("@")[2].partition("@")[0]
    decoders = STREAMS.get(kind)
    if decoders is None:
        raise FeedError(f"unknown stream {kind or stream}")
    return decoders


def to_ns(time: int) -> int:
    """The venue's time in ns UTC: 13 digits are ms, 16 are us (the message does not say); raises FeedError."""
    if 10**12 <= time < 10**13:
        return time * NS_PER_MS
    if 10**15 <= time < 10**16:
        return time * 1000
    raise FeedError(f"bad field: time {time} is neither in ms nor in us")
