"""One month of candles or settlements on disk: a Parquet part and its manifest, swapped together."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mmlab.core.errors import LakeError
from mmlab.core.table import Table
from mmlab.store.crash import step
from mmlab.store.manifest import MANIFEST
from mmlab.store.parts import COMPRESSION_LEVEL, ROW_GROUP_ROWS, Part, sync

PART = "part-00000.parquet"
NEXT = ".manifest.json.next"
STAGED = f".{PART}.tmp"
SCHEMA_VERSION = 1
TRIES = 20  # a reader that met a writer looks again; the writer is done within microseconds


class MonthManifest(msgspec.Struct, frozen=True):
    """What a month folder holds: one part, its first and last row by time, and where its rows came from."""

    venue: str
    symbol: str
    interval: str
    month: str
    table: str
    part: Part
    first_ns: int
    last_ns: int
    sources: list[dict[str, Any]]
    schema_version: int = SCHEMA_VERSION


class Month:
    """A month folder. A reader sees the old part with the old manifest or the new with the new, also after a crash.

    The new manifest lies beside the old one before the part is renamed, and takes the old one's name after it:
    whichever of the two the part agrees with is the one that counts.
    """

    def __init__(self, folder: Path, table: Table) -> None:
        self.folder, self.table = folder, table
        self.part = folder / table.name / PART

    @property
    def name(self) -> str:
        """`202401`."""
        return self.folder.name.partition("=")[2]

    def content(self) -> tuple[MonthManifest, bytes] | None:
        """The manifest and the part's bytes, by their checksum; None if there is no month here.

        Raises LakeError naming the file that is missing, torn, or not the one that was written.
        """
        fault = ""
        for _ in range(TRIES):
            content = _bytes(self.part)
            manifests = [found for name in (MANIFEST, NEXT) if (found := self._manifest(name))]
            if content is None and not (self.folder / MANIFEST).exists():
                return None
            for manifest in manifests:
                fault = _fault(manifest.part, content)
                if not fault and content is not None:
                    return manifest, content
            fault = _fault(manifests[0].part, content) if manifests else f"has no {MANIFEST}"
        raise LakeError(f"{self.part} {fault}", remedy=self._remedy)

    def read(self) -> pl.DataFrame | None:
        """The month's rows; None if there is no month here. Raises LakeError as `content` does."""
        found = self.content()
        if found is None:
            return None
        try:
            frame = pl.read_parquet(io.BytesIO(found[1]), hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LakeError(f"{self.part} is torn: {str(error).splitlines()[0]}", remedy=self._remedy) from None
        self.table.match(frame.schema, str(self.part))
        return frame

    def _manifest(self, name: str) -> MonthManifest | None:
        """A manifest; None where there is none. The one in the making may be torn, the other may not."""
        content = _bytes(self.folder / name)
        if content is None:
            return None
        try:
            manifest = msgspec.json.decode(content, type=MonthManifest)
        except msgspec.MsgspecError as error:
            if name == NEXT:
                return None
            raise LakeError(f"{self.folder / name} is torn or not a manifest: {error}", remedy=self._remedy) from None
        if manifest.schema_version != SCHEMA_VERSION:
            raise LakeError(
                f"{self.folder / name} has schema version {manifest.schema_version}",
                remedy="use the mmlab that wrote it",
            )
        return manifest

    @property
    def _remedy(self) -> str:
        return f"delete the folder {self.folder} and import or fetch the month again"

    def recover(self) -> None:
        """Bring a swap that a crash stopped to its end, or take it back. Only for the holder of the lock."""
        (self.folder / STAGED).unlink(missing_ok=True)
        made = self._manifest(NEXT)
        if made is not None and not _fault(made.part, _bytes(self.part)):
            os.replace(self.folder / NEXT, self.folder / MANIFEST)
            sync(self.folder)
        (self.folder / NEXT).unlink(missing_ok=True)

    def write(self, frame: pl.DataFrame, key: str, about: tuple[str, str, str], sources: list[dict[str, Any]]) -> None:
        """Put `frame`, sorted by `key`, in place of what is here; `about` is its venue, symbol and interval."""
        (self.folder / self.table.name).mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        frame.write_parquet(out, compression_level=COMPRESSION_LEVEL, row_group_size=ROW_GROUP_ROWS)
        content = out.getvalue()
        part = Part(PART, frame.height, len(content), hashlib.sha256(content).hexdigest())
        manifest = MonthManifest(
            *about, self.name, self.table.name, part, frame[key][0], frame[key][-1], sources,
        )  # fmt: skip
        text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
        _put_down(self.folder / STAGED, content)
        step("candles: part staged")
        _put_down(self.folder / NEXT, text + b"\n")
        sync(self.folder)
        step("candles: manifest staged")
        os.replace(self.folder / STAGED, self.part)
        sync(self.part.parent)
        step("candles: part in place")
        os.replace(self.folder / NEXT, self.folder / MANIFEST)
        sync(self.folder)
        step("candles: month in place")


def _put_down(path: Path, content: bytes) -> None:
    """Write a file and make its bytes durable."""
    path.write_bytes(content)
    sync(path)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _fault(part: Part, content: bytes | None) -> str:
    """What is wrong with a part's bytes; empty if they are those that were written."""
    if content is None:
        return "is missing, though its manifest names it"
    if len(content) != part.bytes:
        return f"is torn: it has {len(content):,} bytes, its manifest says {part.bytes:,}"
    if hashlib.sha256(content).hexdigest() != part.sha256:
        return "is not the file that was written: its checksum differs from its manifest's"
    return ""
