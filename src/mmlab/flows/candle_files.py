"""Files of candles and settlements: read, unzipped, held against their checksum, name and kind."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlab.core.errors import DataError, UsageError
from mmlab.core.intervals import parse_interval
from mmlab.flows.run import Progress, no_progress
from mmlab.venues.columns import Raw
from mmlab.venues.klines import Parsed, kind_of, parse_funding, parse_klines, read_table

CHECKSUM = ".CHECKSUM"
COMMANDS = {"klines": ("candles", "mmlab import klines"), "funding": ("settlements", "mmlab import funding")}
AGAIN = "download it again"
DUMP_NAME = re.compile(r"(?P<symbol>[A-Z0-9_]+)-(?P<what>fundingRate|\d+[smhd])-\d{4}-\d{2}(-\d{2})?\.(zip|csv)")


@dataclass(frozen=True)
class Source:
    """One file's rows, and what a manifest says of where they came from."""

    name: str
    about: dict[str, Any]
    parsed: Parsed


def read_sources(
    files: Sequence[Path], kind: str, symbol: str, interval_ns: int | None, progress: Progress = no_progress
) -> list[Source]:
    """Every file, in the given order; the `.CHECKSUM` files of a dump may be among them and are passed over.

    `kind` is klines or funding. Raises UsageError for files that cannot be meant (not there, given twice, of
    another symbol, interval or kind), DataError naming the file that is torn or has no readable row.
    """
    own = [path for path in files if path.suffix != CHECKSUM]
    if not own:
        raise UsageError("no files are given", remedy=f"name at least one file of {COMMANDS[kind][0]}")
    for path in own:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not there"
            raise UsageError(
                f"{path} is {what}", remedy=f"name files of {COMMANDS[kind][0]}: CSV, Parquet, ZIP of a CSV"
            )
    if len({path.resolve() for path in own}) < len(own):
        raise UsageError("a file is given twice", remedy="name each file once")
    sources = []
    for n, path in enumerate(own, 1):
        sources.append(_read(path, kind, symbol, interval_ns))
        progress("import", n, len(own))
    return sources


def _read(path: Path, kind: str, symbol: str, interval_ns: int | None) -> Source:
    _check_name(path, symbol, interval_ns)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    _check_sum(path, digest)
    about = {"name": path.name, "bytes": len(content), "sha256": digest}
    if content.startswith(b"PK") or path.suffix.lower() == ".zip":
        content = _unzip(path, content)
    raw = read_table(path.name, content)
    _check_kind(raw, kind, path)
    return Source(path.name, about, parse_klines(raw, interval_ns) if kind == "klines" else parse_funding(raw))


def _check_name(path: Path, symbol: str, interval_ns: int | None) -> None:
    """A dump says in its name what it is: another symbol's candles would be the costliest mistake of all."""
    named = DUMP_NAME.fullmatch(path.name)
    if named is None:
        return
    if named["symbol"] != symbol.upper():
        raise UsageError(
            f"{path.name} is of {named['symbol']} by its name, --symbol says {symbol}",
            remedy="rename the file if its name is wrong",
        )
    if named["what"] != "fundingRate" and interval_ns not in {None, parse_interval(named["what"])}:
        raise UsageError(
            f"{path.name} has {named['what']} candles by its name, --interval says another length",
            remedy="leave --interval out",
        )


def _check_sum(path: Path, digest: str) -> None:
    """Hold a file against `<file>.CHECKSUM` beside it, a line of `sha256sum`, if there is one."""
    beside = path.with_name(path.name + CHECKSUM)
    if not beside.is_file():
        return
    words = beside.read_text(errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
        raise DataError(f"{beside} holds no SHA-256 checksum", remedy=AGAIN)
    if words[0].lower() != digest:
        raise DataError(f"{path} is not the file that {beside.name} is of: its checksum differs", remedy=AGAIN)


def _unzip(path: Path, content: bytes) -> bytes:
    """The one CSV file in a ZIP; raises DataError for one that is torn or holds none or several."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(".csv")]
            if len(members) != 1:
                raise DataError(
                    f"{path} holds {len(members)} CSV files instead of one", remedy="unzip it, and name the files"
                )
            return archive.read(members[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{path} is torn or no ZIP file: {error}", remedy=AGAIN) from None


def _check_kind(raw: Raw, kind: str, path: Path) -> None:
    """Raise UsageError for settlements given as candles, and the reverse."""
    found = kind_of(raw)
    if found not in {"", kind}:
        raise UsageError(
            f"{raw.name} holds {COMMANDS[found][0]}, not {COMMANDS[kind][0]}", remedy=f"{COMMANDS[found][1]} {path}"
        )
