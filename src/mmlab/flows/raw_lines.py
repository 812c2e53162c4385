"""Lines of a raw recording, plain or gzip, with what is torn told apart from what is whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
GZIP = 16 + zlib.MAX_WBITS


class Line(NamedTuple):
    """One line without its end. A `fault` says why it is not a whole line; its bytes are what there is of it."""

    number: int
    raw: bytes
    fault: str = ""


class TornError(Exception):
    """The compressed file stops being readable here; `tail_is_whole` if all its bytes came out before that."""

    def __init__(self, why: str, tail_is_whole: bool) -> None:
        super().__init__(why)
        self.tail_is_whole = tail_is_whole


def read_lines(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Line]:
    """Every line of `path`, gzip by its first bytes, numbered from 1; `progress` hears the bytes read so far.

    A gzip file that is cut off, damaged, or fails its checksum ends with one faulty line more: what is
    left of the line that it broke in (nothing, if it broke between lines or in its checksum only).
    """
    tail, number = b"", 0
    try:
        for text in _texts(path, progress):
            *lines, tail = (tail + text).split(b"\n")
            for raw in lines:
                number += 1
                yield Line(number, raw)
    except TornError as error:
        if error.tail_is_whole and tail:
            number += 1
            yield Line(number, tail)
            tail = b""
        yield Line(number + 1, tail, str(error))
    else:
        if tail:
            yield Line(number + 1, tail)


def _texts(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The file's text, chunk by chunk."""
    with path.open("rb") as file:
        chunks = _chunks(file.read, progress)
        first = next(chunks, b"")
        if first.startswith(GZIP_MAGIC):
            yield from _inflate(first, chunks)
        else:
            yield first
            yield from chunks


def _chunks(read: Callable[[int], bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while chunk := read(CHUNK):
        done += len(chunk)
        progress(done)
        yield chunk


def _inflate(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """The text of all gzip members; raises TornError where they stop being readable, after all text before that."""
    member, data = zlib.decompressobj(GZIP), first
    while data:
        before = member.copy()
        try:
            yield member.decompress(data)
        except zlib.error as error:
            yield _up_to_fault(before, data)
            raise TornError(f"torn gzip: {error}", str(error).endswith(" check")) from None
        if member.eof:
            data = member.unused_data.lstrip(b"\0") or next(rest, b"").lstrip(b"\0")
            member = zlib.decompressobj(GZIP) if data else member
        else:
            data = next(rest, b"")
    if not member.eof:
        raise TornError("torn gzip: it is cut off before its end", False)


def _up_to_fault(member: zlib._Decompress, data: bytes) -> bytes:
    """The text that comes out of `data` before its fault: zlib keeps it to itself unless asked byte by byte."""
    text = bytearray()
    try:
        for i in range(len(data)):
            text += member.decompress(data[i : i + 1])
    except zlib.error:
        pass
    return bytes(text)
