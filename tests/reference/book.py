"""The slow obvious twin of sync and book: the venue's text read aloud, dicts of prices, a sort for every frame."""

from __future__ import annotations

from typing import Any, NamedTuple


class Frame(NamedTuple):
    """A frame: number of the message it was written at, id of its last update, levels best first."""

    seq: int
    update_id: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


def frames(messages: list[dict[str, Any]], usdm: bool, levels: int) -> list[Frame]:
    """The frames of a stream of snapshots and depth updates, as `reference.raw_feed` makes them."""
    found: list[Frame] = []
    waiting: list[dict[str, Any]] = []
    book: dict[str, dict[float, float]] | None = None
    book_id, synced = 0, False
    for seq, message in enumerate(messages, 1):
        if "lastUpdateId" in message:
            if book is not None and (synced or message["lastUpdateId"] <= book_id):
                continue
            book, book_id = {side: side_of(message[side]) for side in ("bids", "asks")}, message["lastUpdateId"]
        else:
            waiting.append(message["data"])
        applied = False
        while book is not None and waiting:
            update = waiting[0]
            verdict = place(update, book_id, synced, usdm)
            if verdict == "gap":
                book, synced, applied = None, False, False
                break
            waiting.pop(0)
            if verdict == "old":
                continue
            for side, name in (("bids", "b"), ("asks", "a")):
                book[side] = {p: q for p, q in (book[side] | side_of(update[name], keep_zero=True)).items() if q > 0}
            book_id, synced, applied = update["u"], True, True
        if applied and book is not None and book["bids"] and book["asks"]:
            bids, asks = sorted(book["bids"].items(), reverse=True), sorted(book["asks"].items())
            found.append(Frame(seq, book_id, bids[:levels], asks[:levels]))
    return found


def place(update: dict[str, Any], book_id: int, synced: bool, usdm: bool) -> str:
    """What the venue's rules say of one update: old, apply, or gap."""
    U, u, pu = update["U"], update["u"], update.get("pu")
    if not usdm:
        return "old" if u <= book_id else "apply" if book_id + 1 >= U else "gap"
    if synced:
        return "apply" if pu == book_id else "old" if u <= book_id else "gap"
    return "old" if u < book_id else "apply" if U <= book_id <= u or pu == book_id else "gap"


def side_of(levels: list[tuple[str, str]], keep_zero: bool = False) -> dict[float, float]:
    """Price -> quantity."""
    return {float(p): float(q) for p, q in levels if keep_zero or float(q) > 0}
