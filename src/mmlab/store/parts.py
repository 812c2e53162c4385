"""Atomic files: a reader sees a whole file or none, also after a crash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import polars as pl

ROW_GROUP_ROWS = 122_880
COMPRESSION_LEVEL = 3  # zstd: higher levels save 1 to 2% at half the speed


class Part(msgspec.Struct, frozen=True):
    """One Parquet file of a table, as its manifest knows it."""

    file: str
    rows: int
    bytes: int
    sha256: str


def write_part(path: Path, frame: pl.DataFrame, *, counters: Sequence[str] = (), sync_folder: bool = True) -> Part:
    """Write `frame` to `path` in one atomic step; without `sync_folder` the caller makes the name durable.

    counters: columns of whole numbers that go up by little from row to row, kept as differences. A day of prints is
    two fifths smaller for it, and read in half the time.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    if counters:
        _write_differences(temporary, frame, counters)
    else:
        frame.write_parquet(temporary, compression_level=COMPRESSION_LEVEL, row_group_size=ROW_GROUP_ROWS)
    _put(temporary, path, sync_folder)
    return Part(path.name, frame.height, path.stat().st_size, sha256(path))


def _write_differences(path: Path, frame: pl.DataFrame, counters: Sequence[str]) -> None:
    """By pyarrow, since Polars has no choice of encodings."""
    from pyarrow import parquet  # noqa: PLC0415 - only who writes counters needs it

    parquet.write_table(
        frame.to_arrow(),
        path,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[name for name in frame.columns if name not in counters],
        column_encoding=dict.fromkeys(counters, "DELTA_BINARY_PACKED"),
    )


def write_bytes_atomic(path: Path, content: bytes, *, sync_folder: bool = True) -> None:
    """Write `content` to `path` in one atomic step; without `sync_folder` the caller makes the name durable."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    _put(temporary, path, sync_folder)


def _put(temporary: Path, path: Path, sync_folder: bool) -> None:
    """Make the bytes durable, then give them their name, then make the name durable."""
    sync(temporary)
    os.replace(temporary, path)
    if sync_folder:
        sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
