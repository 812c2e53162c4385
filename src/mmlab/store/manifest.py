"""A symbol-day's manifest: filters, condition, and every part with its rows and checksum."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from mmlab.core.errors import LakeError
from mmlab.core.instrument import Instrument
from mmlab.store.parts import Part, write_bytes_atomic

SCHEMA_VERSION = 1
Condition = Literal["complete", "degraded", "pending"]
MANIFEST = "manifest.json"


class DayRef(msgspec.Struct, frozen=True):
    """One symbol-day folder."""

    venue: str
    symbol: str
    day: date
    path: Path


class SegmentEntry(msgspec.Struct, frozen=True):
    """What one journal segment brought to a day: faults and their counts, how it ended, the ids it came to."""

    reasons: dict[str, int]
    records: int
    frames: int
    first_ns: int
    last_ns: int
    until_ns: int  # end of the recording window
    why: str  # why the segment was sealed: size, day, window, stop, crash; later: of a later day
    rows: dict[str, int]
    last_ids: dict[str, int]  # stream -> last id received


class DayManifest(msgspec.Struct, frozen=True):
    """What a symbol-day folder holds. `truth` is what a synthetic market was made from.

    A day that is being recorded is `pending`; `segments` are the journal segments it was derived from.
    """

    instrument: Instrument
    levels: int
    tables: dict[str, list[Part]]
    condition: Condition
    reasons: list[str]
    created_by: dict[str, Any]
    truth: dict[str, Any] = {}
    segments: dict[str, SegmentEntry] = {}
    schema_version: int = SCHEMA_VERSION


def write_manifest(folder: Path, manifest: DayManifest) -> None:
    """Write `manifest` into `folder`, keys in order, so that the same content is the same bytes."""
    text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
    write_bytes_atomic(folder / MANIFEST, text + b"\n")


def read_manifest(folder: Path) -> DayManifest:
    """The manifest of a folder; raises LakeError naming the file when it is absent, torn or foreign."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=DayManifest)
    except FileNotFoundError:
        raise LakeError(f"{path} is missing", remedy="the day was not written to its end: import it again") from None
    except msgspec.MsgspecError as error:
        raise LakeError(f"{path} is torn or not a manifest: {error}", remedy="import the day again") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise LakeError(f"{path} has schema version {manifest.schema_version}", remedy="use the mmlab that wrote it")
    return manifest


def day_folder(root: Path, venue: str, symbol: str, day: date) -> Path:
    """`root/venue=V/symbol=S/day=YYYYMMDD`; unusual characters of a symbol are percent-escaped."""
    return root / f"venue={venue}" / f"symbol={quote(symbol, safe='')}" / f"day={day:%Y%m%d}"


def symbol_of(folder: Path) -> str:
    """The symbol that a `symbol=...` folder is named by."""
    return unquote(folder.name.partition("=")[2])
