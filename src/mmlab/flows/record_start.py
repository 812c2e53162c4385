"""What a recorder settles before it connects: locks, what a predecessor left, filters, and where recording ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from mmlab.core.errors import FeedError, LakeError, UsageError
from mmlab.core.spans import NS_PER_S, day_of_ns
from mmlab.record.client import Client, Wire
from mmlab.record.spec import RecordSpec
from mmlab.store.lake import Lake
from mmlab.store.locks import Lock
from mmlab.store.manifest import MANIFEST, DayManifest, day_folder, read_manifest
from mmlab.store.parts import write_bytes_atomic
from mmlab.venues.endpoints import Listing, read_info

FAR_NS = 600 * NS_PER_S  # a clock this far behind what is recorded is not to be trusted


@dataclass(frozen=True)
class Before:
    """Where a symbol's recording ended before: when, and at which ids."""

    last_ns: int
    ids: dict[str, int]


def lock_symbols(spec: RecordSpec) -> list[Lock]:
    """One recorder for each symbol of a lake; raises UsageError naming the process that holds it."""
    root = Path(spec.data_root)
    locks: list[Lock] = []
    try:
        for symbol in spec.symbols:
            folder = day_folder(root, spec.venue, symbol, day_of_ns(0)).parent
            locks.append(Lock(folder / ".recorder.lock", f"{spec.venue} {symbol} under {root}"))
    except UsageError:
        for lock in locks:
            lock.release()
        raise
    return locks


def recorded_before(spec: RecordSpec, symbol: str, now_ns: int) -> Before | None:
    """The newest entry of today's and yesterday's manifests; raises LakeError if it lies in the future.

    A run that was killed before its first message has recorded nothing: where it ended is not where recording did,
    and it may not even have written down which ids it was to go on from.
    """
    found: Before | None = None
    for manifest in _manifests(spec, symbol, now_ns):
        for entry in manifest.segments.values():
            if entry.why != "later" and entry.frames and (found is None or entry.last_ns > found.last_ns):
                found = Before(entry.last_ns, entry.last_ids)
    if found is not None and found.last_ns - now_ns > FAR_NS:
        raise LakeError(
            f"the clock is {(found.last_ns - now_ns) / NS_PER_S:.0f} s behind what {symbol} was recorded at",
            remedy="set the clock, or record into another --data-root",
        )
    return found


def _manifests(spec: RecordSpec, symbol: str, now_ns: int) -> list[DayManifest]:
    today = day_of_ns(now_ns)
    days = [today - timedelta(days=1), today, today + timedelta(days=1)]
    folders = [day_folder(Path(spec.data_root), spec.venue, symbol, day) for day in days]
    return [read_manifest(folder) for folder in folders if (folder / MANIFEST).exists()]


def check_levels(spec: RecordSpec, now_ns: int) -> None:
    """A day keeps one depth of book; raises UsageError if today has another."""
    for symbol in spec.symbols:
        folder = day_folder(Path(spec.data_root), spec.venue, symbol, day_of_ns(now_ns))
        if (folder / MANIFEST).exists() and (levels := read_manifest(folder).levels) != spec.levels:
            raise UsageError(
                f"today's {symbol} has {levels} levels", remedy=f"give --levels {levels} until the day ends"
            )


def known_listings(spec: RecordSpec) -> dict[str, Listing]:
    """Filters as the lake's newest day has them, for symbols that were recorded before."""
    lake = Lake(Path(spec.data_root))
    found = {}
    for symbol in spec.symbols:
        refs = lake.days(spec.venue, symbol)
        if refs:
            found[symbol] = Listing(lake.manifest(refs[-1]).instrument, "UNKNOWN")
    return found


def wire(spec: RecordSpec) -> Wire:
    """Where the venue is."""
    at = spec.at
    return Wire(spec.ws_url or at.ws_url, spec.rest_url or at.rest_url, at.headers, spec.ping_s)


def ask_listings(spec: RecordSpec) -> tuple[dict[str, Listing], int, dict[str, str], str]:
    """Filters from REST: (by symbol, HTTP status, headers, fault); raises UsageError for an unknown symbol."""
    client = Client(wire(spec), *[_never] * 5)
    status, headers, body = client.get(spec.at.info(spec.symbols).path)
    if status == 400:
        raise UsageError(
            f"{spec.venue} does not know {' or '.join(spec.symbols)}: {body.decode(errors='replace')[:200]}",
            remedy="check --symbol and --venue",
        )
    if status != 200:
        return {}, status, dict(headers), body.decode(errors="replace")[:200] or f"HTTP {status}"
    try:
        listed = read_info(spec.venue, body, spec.symbols)
    except FeedError as error:
        return {}, status, dict(headers), error.message
    unknown = [symbol for symbol in spec.symbols if symbol not in listed]
    if unknown:
        raise UsageError(f"{spec.venue} does not list {', '.join(unknown)}", remedy="check --symbol and --venue")
    return {symbol: listed[symbol] for symbol in spec.symbols}, status, dict(headers), ""


def _never(*_args: object) -> None:
    """Nothing calls back: the client is used for one question."""


def ban_file(spec: RecordSpec) -> Path:
    """Where the venue's ban outlives the process."""
    return Path(spec.data_root) / f"venue={spec.venue}" / ".journal" / "rest-wait.json"


def read_ban(spec: RecordSpec) -> int:
    """Until when REST must not be asked, ns UTC of the wall clock; 0 is at once."""
    try:
        return int(msgspec.json.decode(ban_file(spec).read_bytes())["until_ns"])
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return 0


def write_ban(spec: RecordSpec, until_ns: int, status: int) -> None:
    """Remember a ban."""
    path = ban_file(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, msgspec.json.encode({"until_ns": until_ns, "status": status}))


def start_details(
    spec: RecordSpec, run_id: int, listings: dict[str, Listing], opens_ns: int, closes_ns: int
) -> dict[str, Any]:
    """The `run_start` mark."""
    rows = [{**msgspec.to_builtins(each.instrument), "status": each.status} for each in listings.values()]
    return {
        "run_id": run_id, "venue": spec.venue, "instruments": rows, "streams": list(spec.streams),
        "levels": spec.levels, "window": spec.window, "tz": spec.tz, "opens_ns": opens_ns, "closes_ns": closes_ns,
        "flush_ms": spec.flush_ms, "fsync_ms": spec.fsync_ms,
    }  # fmt: skip


def resume_details(spec: RecordSpec, now_ns: int, opens_ns: int) -> list[dict[str, Any]]:
    """The `resume` marks: since when each symbol was not recorded, and the ids that it ended at.

    What was recorded before the window opened belongs to another window, unless the window never closes.
    """
    found = []
    for symbol in spec.symbols:
        before = recorded_before(spec, symbol, now_ns)
        details: dict[str, Any] = {"symbol": symbol, "reason": "the recorder was not running", "from_ns": opens_ns}
        if before is not None and (before.last_ns >= opens_ns or spec.hours.always):
            details["from_ns"] = before.last_ns
            details |= {stream: before.ids[stream] for stream in ("depth", "trade", "aggTrade") if stream in before.ids}
        found.append({**details, "from_ns": min(details["from_ns"], now_ns)})
    return found
