"""The fault script: what goes wrong, and when. TOML or a list of Fault; every entry has `do` and a time.

    [[fault]]
    do = "drop"         # withhold the next `count` events of `stream`
    event = 500         # at the 500th event of the venue (or `after_s` = 2.5, by the clock; or `request` = 3, at the
                        # third REST request, of `path` if that is named)
    stream = "depth"
    count = 3

| do | parameters | what happens |
|---|---|---|
| drop | stream, count | the next events happen, but are not sent |
| mute | stream, for_s | as drop, for a time |
| duplicate | stream, count | the next events are sent twice |
| reorder | stream | the next two events are swapped |
| delay | for_s | nothing is sent for a time, then all of it |
| freeze | for_s | sockets stay open, but nothing is read or sent: a dead link |
| close | code, reason | connections are closed; code 0 cuts them without a word |
| refuse | for_s | no new connection is taken, no REST answered |
| shutdown | for_s | serverShutdown is sent, the connection closed after for_s |
| garbage | payload | a frame of these bytes (`binary`: as a binary frame) is sent among the others |
| field | stream, count, set, remove | fields of the next messages are set or removed |
| unit | unit | times are sent in `ms` or `us`, whatever was asked for |
| cross | | an update that crosses the book is sent, which never happened |
| big | size | an update that names levels far away until the message has this many bytes |
| rest | path, status, headers, body, count, wait_s, cut | the next answers of a path; `cut`: torn after so many bytes |
| stale | count | the next snapshots are older than the stream |
| listing | status, tick_size, lot_size | exchangeInfo changes |
| empty | | the book is empty from here on (its levels removed by an update) |
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from mmlab.core.errors import UsageError

DOES = (
    "drop", "mute", "duplicate", "reorder", "delay", "freeze", "close", "refuse", "shutdown", "garbage", "field",
    "unit", "cross", "big", "rest", "stale", "listing", "empty",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One entry. `event` and `request` count from 1; `after_s` counts from the first subscriber."""

    do: str
    event: int | None = None
    after_s: float | None = None
    request: int | None = None
    symbol: str = ""
    stream: str = ""
    count: int = 1
    for_s: float = 0.0
    code: int = 0
    reason: str = ""
    payload: str = ""
    binary: bool = False
    set: dict[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    unit: str = ""
    size: int = 0
    path: str = ""
    status: Any = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    wait_s: float = 0.0
    cut: int | None = None
    tick_size: str = ""
    lot_size: str = ""

    def __post_init__(self) -> None:
        if self.do not in DOES:
            raise UsageError(f"a fault does {self.do!r}", remedy=f"known: {', '.join(DOES)}")
        if [self.event, self.after_s, self.request].count(None) != 2:
            raise UsageError(f"fault {self.do!r} needs a time", remedy="give one of event, after_s, request")


def parse_faults(text: str) -> list[Fault]:
    """A script in TOML; raises UsageError naming an entry and a key that are not known."""
    try:
        entries = msgspec.toml.decode(text).get("fault", [])
    except msgspec.MsgspecError as error:
        raise UsageError(f"the fault script is not TOML: {error}", remedy="see mmlab serve --help") from None
    known = {f.name for f in fields(Fault)}
    found = []
    for n, entry in enumerate(entries, 1):
        unknown = sorted(set(entry) - known)
        if unknown or "do" not in entry:
            what = f"has unknown {', '.join(unknown)}" if unknown else "does nothing"
            raise UsageError(f"fault {n} {what}", remedy=f"known keys: {', '.join(sorted(known))}")
        found.append(Fault(**{**entry, "remove": tuple(entry.get("remove", ()))}))
    return found
