"""Binance spot: what its depth and trade messages must look like, and its book rules."""

from __future__ import annotations

from mmlab.core.errors import DataError, FeedError
from mmlab.venues import book_sync
from mmlab.venues.binance import AggTrade, DepthUpdate, Feed, Trade


def check(update: DepthUpdate) -> None:
    """Ids must run forward; raises FeedError, or DataError for an update of the futures venue (it has `pu`)."""
    if update.prev_id is not None:
        raise DataError(
            f"update {update.last_id} carries `pu`, which spot never sends", remedy="give --venue binance-usdm"
        )
    if update.first_id > update.last_id:
        raise FeedError(f"bad field: U {update.first_id} is above u {update.last_id}")


def not_a_print(trade: Trade | AggTrade) -> str:
    """A spot trade always prints; one without price or quantity cannot be meant."""
    return "" if trade.price > 0 and trade.qty > 0 else "bad field: price or quantity is 0"


FEED = Feed("binance-spot", book_sync.SPOT, check, not_a_print)
