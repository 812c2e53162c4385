"""Binance USD-M futures: what its depth and trade messages must look like, and its book rules.

Differences from spot: every update names the one before it (`pu`), messages carry the matching time
`T`, and the trade stream mixes in what never met the book (`X`: INSURANCE_FUND, ADL, NA, or price 0).
"""

from __future__ import annotations

from mmlab.core.errors import DataError, FeedError
from mmlab.venues import book_sync
from mmlab.venues.binance import AggTrade, DepthUpdate, Feed, Trade


def check(update: DepthUpdate) -> None:
    """`pu` must be there, ids run forward; raises FeedError, or DataError for a spot update (neither `pu` nor `T`)."""
    if update.prev_id is None:
        if update.transaction_time is None:
            raise DataError(
                f"update {update.last_id} has neither `pu` nor `T`, which USD-M always sends",
                remedy="give --venue binance-spot",
            )
        raise FeedError("bad field: Object missing required field `pu`")
    if update.first_id > update.last_id:
        raise FeedError(f"bad field: U {update.first_id} is above u {update.last_id}")


def not_a_print(trade: Trade | AggTrade) -> str:
    """Insurance fund, auto-deleveraging and zero rows take an id, but met no order in the book."""
    if trade.kind != "MARKET":
        return f"not a print of the book: X is {trade.kind}"
    return "" if trade.price > 0 and trade.qty > 0 else "not a print of the book: price or quantity is 0"


FEED = Feed("binance-usdm", book_sync.USDM, check, not_a_print)
