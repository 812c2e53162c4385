"""What REST answered, for one market: a snapshot of its book, prints that it missed, or nothing of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmlab.core.errors import FeedError
from mmlab.tape.market import Market
from mmlab.venues.endpoints import Listing, read_info, read_prints, read_snapshot

OK = 200


def take_answer(market: Market, about: dict[str, Any], body: bytes) -> bool:
    """Take an answer; True if it shows that a stream has been dead. What is none is an entry of the ledger."""
    purpose = about["purpose"]
    try:
        if about["status"] != OK:
            raise FeedError(f"HTTP {about['status']}" if about["status"] else f"no answer: {body[:200]!r}")
        if purpose == "snapshot":
            _on_snapshot(market, about, body)
        elif purpose == "prints":
            printed = read_prints(about["stream"], body)
            market.fill(about["stream"], about["first"], about["last"], printed, about["final"])
        else:
            return market.probe(about["stream"], read_prints(about["stream"], body))
    except FeedError as error:
        kind = "snapshot_failed" if purpose == "snapshot" else "backfill"
        market.event(kind, reason=error.message, status=about["status"])
    return False


def _on_snapshot(market: Market, about: dict[str, Any], body: bytes) -> None:
    snapshot = read_snapshot(body)
    if about["generation"] == market.generation or about.get("check"):
        market.on_snapshot(snapshot)
    else:
        why = "the book it was for is gone"
        market.event("snapshot_discarded", last_update_id=snapshot.last_update_id, reason=why)


def listings(venue: str, about: dict[str, Any], body: bytes, wanted: Sequence[str]) -> dict[str, Listing]:
    """The answer of exchangeInfo; empty if it is none."""
    if about["status"] != OK:
        return {}
    try:
        return read_info(venue, body, wanted)
    except FeedError:
        return {}
