"""A journal segment on disk: framed blocks of records, each with its length and checksum; torn ends are found.

    file   = "MMJ1\\n" block*
    block  = "BLK1" flags u8, raw length u32, stored length u32, records u32, crc32 u32, payload
    record = kind u8, connection u32, recv_ns i64, wall_ns i64, mono_ns i64, length u32, bytes

The crc is that of the fields before it and of the payload (zstd, or as it is where that is no smaller).
The first block holds one mark, the segment's header; the last block of a sealed segment is its seal: JSON
that counts the records. `NNNNN.open` is being written, `NNNNN.mmj` is sealed and never changes again.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from mmlab.core.errors import LakeError
from mmlab.core.record import Kind, Record, mark
from mmlab.store.parts import sync

MAGIC, BLOCK = b"MMJ1\n", b"BLK1"
HEAD = struct.Struct("<4sBIIII")
RECORD = struct.Struct("<BIqqqI")
ZSTD, SEAL = 1, 2
LARGEST = 1 << 30  # bytes of a block: a longer length is a torn one
_CODEC = pa.Codec("zstd", compression_level=3)


class Segment(msgspec.Struct, frozen=True):
    """What a segment is about: its run, place in it, UTC day, and what is needed to read its frames."""

    venue: str
    run_id: int
    index: int
    day: str
    levels: int
    symbols: list[str]
    streams: list[str]
    until_ns: int = 0  # end of the recording window that it lies in
    version: int = 1

    @property
    def name(self) -> str:
        """As manifests name it."""
        return f"{self.run_id}/{self.index:05d}"


class Seal(msgspec.Struct, frozen=True):
    """How much a segment holds: all its records, and which of them are frames."""

    records: int
    frames: int
    first_ns: int
    last_ns: int
    why: str = ""  # size, day, window, stop, or crash


def encode(records: Iterable[Record]) -> tuple[bytes, int]:
    """Records as the payload of a block, and their number."""
    parts, count = [], 0
    for record in records:
        parts.append(RECORD.pack(*record[:5], len(record.payload)))
        parts.append(record.payload)
        count += 1
    return b"".join(parts), count


def block(raw: bytes, count: int, flags: int = 0) -> bytes:
    """One block, compressed if that helps."""
    packed = _CODEC.compress(raw, asbytes=True)
    stored, flags = (packed, flags | ZSTD) if len(packed) < len(raw) else (raw, flags)
    fields = HEAD.pack(BLOCK, flags, len(raw), len(stored), count, 0)[:-4]
    return fields + struct.pack("<I", zlib.crc32(stored, zlib.crc32(fields))) + stored


def opening(segment: Segment, now_ns: int) -> bytes:
    """The first bytes of a segment."""
    header = mark("segment", **msgspec.to_builtins(segment))
    return MAGIC + block(*encode([Record(Kind.MARK, 0, now_ns, now_ns, 0, header)]))


class SegmentReader:
    """Reads a segment's records in order. A block that is not as it was written is skipped, and counted.

    `good_bytes` is where the last whole block ends, `skipped` the bytes before that which could not be
    read, `cut_bytes` those behind it; `seal` is what the segment says of itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seal: Seal | None = None
        self.good_bytes = self.skipped = self.records = self.frames = self.first_ns = self.last_ns = 0
        self._data: bytes | mmap.mmap = b""
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size = len(self._data)

    @property
    def cut_bytes(self) -> int:
        """Bytes at the end that could not be read."""
        return self.size - self.good_bytes

    def header(self) -> Segment:
        """The segment's header; raises LakeError if the file has none."""
        found = _block_at(self._data, len(MAGIC))
        if self._data[: len(MAGIC)] == MAGIC and found is not None:
            return msgspec.json.decode(next(_records(found[1])).payload, type=Segment)
        raise LakeError(f"{self.path} is no journal segment, or torn in its header", remedy="move it out of the lake")

    def __iter__(self) -> Iterator[Record]:
        at = len(MAGIC)
        while at < self.size:
            found = _block_at(self._data, at)
            if found is None:
                at = self._data.find(BLOCK, at + 1)
                if at < 0:
                    return
                continue
            flags, raw, end = found
            self.skipped += at - max(self.good_bytes, len(MAGIC))
            first, self.good_bytes, at = not self.good_bytes, end, end
            if flags & SEAL:
                self.seal = msgspec.json.decode(raw, type=Seal)
                return
            for record in () if first else _records(raw):
                self.count(record)
                yield record

    def count(self, record: Record) -> None:
        """Add a record to what was found."""
        self.records += 1
        self.frames += record.kind is Kind.FRAME
        self.first_ns = self.first_ns or record.recv_ns
        self.last_ns = record.recv_ns

    @property
    def whole(self) -> bool:
        """True if all was read, and is what the seal says; after iteration."""
        return not self.skipped and not self.cut_bytes and self.seal == self.found(self.seal.why if self.seal else "")

    def found(self, why: str) -> Seal:
        """What was read, as a seal would say it."""
        return Seal(self.records, self.frames, self.first_ns, self.last_ns, why)


def _block_at(data: bytes | mmap.mmap, at: int) -> tuple[int, bytes, int] | None:
    """(flags, raw bytes, offset of the end) of the block at an offset; None if it is not whole."""
    head = data[at : at + HEAD.size]
    if len(head) < HEAD.size:
        return None
    magic, flags, raw_length, length, _count, crc = HEAD.unpack(head)
    if magic != BLOCK or max(raw_length, length) > LARGEST:
        return None
    stored = data[at + HEAD.size : at + HEAD.size + length]
    if len(stored) < length or zlib.crc32(stored, zlib.crc32(head[:-4])) != crc:
        return None
    raw = _CODEC.decompress(stored, raw_length, asbytes=True) if flags & ZSTD else stored
    return flags, raw, at + HEAD.size + length


def _records(raw: bytes) -> Iterator[Record]:
    at = 0
    while at < len(raw):
        kind, conn, recv_ns, wall_ns, mono_ns, length = RECORD.unpack_from(raw, at)
        at += RECORD.size
        yield Record(Kind(kind), conn, recv_ns, wall_ns, mono_ns, raw[at : at + length])
        at += length


def seal_open(path: Path, why: str = "crash", **note: Any) -> tuple[Path, int]:
    """Seal a segment that its writer left open: cut what is torn, note it, and give the file its final name.

    Returns the new path and the bytes cut. A file without a whole header holds nothing, and goes.
    """
    reader = SegmentReader(path)
    for _ in reader:
        pass
    if not reader.good_bytes:
        path.unlink()
        return path, reader.size
    if reader.seal is None:
        cut = reader.cut_bytes
        with path.open("r+b") as file:
            file.truncate(reader.good_bytes)
            file.seek(0, os.SEEK_END)
            if reader.records:
                details = mark("crash_recovered", bytes_cut=cut, records=reader.records, **note)
                record = Record(Kind.MARK, 0, reader.last_ns, reader.last_ns, 0, details)
                reader.count(record)
                file.write(block(*encode([record])))
            file.write(block(msgspec.json.encode(reader.found(why)), 0, SEAL))
            file.flush()
            os.fsync(file.fileno())
    else:
        cut = 0
    return put_in_place(path), cut


def put_in_place(path: Path) -> Path:
    """Give a sealed file its final name."""
    place = path.with_suffix(".mmj")
    os.replace(path, place)
    sync(path.parent)
    return place


def repack(path: Path, block_bytes: int = 1 << 20) -> None:
    """Write a sealed segment again in large blocks, which compress better; what it holds stays the same."""
    reader = SegmentReader(path)
    why = ""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(opening(reader.header(), 0))
        batch: list[Record] = []
        size = 0
        for record in reader:
            batch.append(record)
            size += len(record.payload) + RECORD.size
            if size >= block_bytes:
                file.write(block(*encode(batch)))
                batch, size = [], 0
        if batch:
            file.write(block(*encode(batch)))
        why = reader.seal.why if reader.seal else ""
        file.write(block(msgspec.json.encode(reader.found(why)), 0, SEAL))
        file.flush()
        os.fsync(file.fileno())
    if not reader.whole:
        temporary.unlink()
        raise LakeError(f"{path} is damaged", remedy="it is kept as it is")
    os.replace(temporary, path)
    sync(path.parent)
