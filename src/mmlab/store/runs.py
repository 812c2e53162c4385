"""Output folders, run ids and run logs: `out/<kind>/[method=M/]symbol=S/day=D/run=R/`."""

from __future__ import annotations

import io
import itertools
import logging
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.errors import LakeError, TableError, UsageError
from mmlab.core.table import Table
from mmlab.store.locks import Lock
from mmlab.store.parts import ROW_GROUP_ROWS, sync, write_bytes_atomic, write_part

PACKAGES = ("mmlab", "polars", "duckdb", "numpy", "numba", "pyarrow")
NOTE = "__note__"
ONCE = "append each stretch of time once"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def default_run_id(now: datetime) -> str:
    """A run's name from the UTC time it began, like 20250101T120000Z."""
    return f"{now:%Y%m%dT%H%M%SZ}"


def free_run_id(out_root: Path, kind: str, method: str | None, symbol: str, day: str, now: datetime) -> str:
    """`default_run_id`, with a number behind it where another run of its kind, symbol and day has that name."""
    folder, name = _folder(out_root, kind, method, symbol, day), default_run_id(now)
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(
        name for name in names if not any((folder / f"{mark}run={name}").exists() for mark in ("", ".partial-"))
    )


class RunFolder:
    """A run's folder while it is written: staged beside its place, put there by `commit`.

    One that can be resumed is staged where the next attempt finds it, and `abort` leaves it there. The names of
    its files become durable together: with a `save`, and before the folder is put in its place.
    """

    def __init__(self, place: Path, resumable: bool = False) -> None:
        self.place = place
        self._staging = place.with_name(
            f".partial-{place.name}" if resumable else f".staging-{place.name}-{os.getpid()}"
        )
        self._rows: dict[str, int] = {}
        self._parts: dict[str, list[Path]] = {}
        self._held: dict[str, pl.DataFrame] = {}  # the newest rows of each table in parts: not written yet
        self._files: list[str] = []
        self.resumable = resumable
        self._done: list[Path] = []  # parts that are in their table, and go when the run is committed
        self._lock = Lock(self._staging / "lock", f"run {place.name.partition('=')[2]}") if resumable else None

    @classmethod
    def create(
        cls, out_root: Path, kind: str, method: str | None, symbol: str, day: str, run_id: str, resumable: bool = False
    ) -> RunFolder:
        """A new folder; raises UsageError if a run of that name exists, since nothing is overwritten."""
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise UsageError(f"--run-id is {run_id!r}", remedy="give a name that can be a folder's")
        place = _folder(out_root, kind, method, symbol, day) / f"run={run_id}"
        if place.exists():
            raise UsageError(f"run {run_id} exists already, in {place}", remedy="give another --run-id")
        return cls(place, resumable)

    def _path(self, name: str) -> Path:
        """Where a file goes while the run is made; the folder comes with its first file."""
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging / name

    def write_table(self, table: Table, frame: pl.DataFrame) -> None:
        """Write `<table>.parquet`, if it meets its contract."""
        self._rows[table.name] = self._write(f"{table.name}.parquet", table.check(frame)).height

    def append(self, table: Table, frame: pl.DataFrame) -> None:
        """Take the next rows of a table; `join` makes one file of all of them.

        The newest rows are held in memory: they become a part, a file of their own, when more follow or with `save`.
        """
        table.check(frame)
        self._part(table.name)
        self._held[table.name] = frame
        self._rows[table.name] = self._rows.get(table.name, 0) + frame.height

    def _part(self, name: str) -> None:
        """Write the rows that are held of a table."""
        made = self._parts.setdefault(name, [])
        if name in self._held:
            part = f"{name}-{len(made):05}.part"
            self._write(part, self._held.pop(name))
            made.append(self._path(part))

    def _write(self, name: str, frame: pl.DataFrame) -> pl.DataFrame:
        write_part(self._path(name), frame, sync_folder=False)
        return frame

    def parts(self, table: Table) -> list[pl.DataFrame]:
        """What was appended so far, piece by piece."""
        held = [self._held[table.name]] if table.name in self._held else []
        return [*map(_read, self._parts[table.name]), *held]

    def join(self, table: Table) -> None:
        """Put all rows of a table into one file, part by part, so that no more than one is held in memory."""
        place = self._path(f"{table.name}.parquet")
        if not self._parts[table.name]:
            self._write(place.name, self._held.pop(table.name))
            return
        self._part(table.name)
        parts = self._parts.pop(table.name)
        self._done += parts
        if len(parts) == 1:
            place.unlink(missing_ok=True)
            os.link(parts[0], place)
            return
        keys = pl.concat([_read(part).select(table.key) for part in parts])
        if table.key and keys.is_duplicated().any():
            raise TableError(f"table {table.name!r}: its parts share rows of one key", remedy=ONCE)
        from pyarrow import parquet as pq  # noqa: PLC0415 - only several days need it

        temporary = self._path(f".{table.name}.parquet.tmp")
        with pq.ParquetWriter(temporary, table.empty().to_arrow().schema, compression="zstd") as writer:
            for part in parts:
                frame = _read(part)
                writer.write_table(frame.to_arrow().cast(writer.schema), row_group_size=ROW_GROUP_ROWS)
        sync(temporary)
        os.replace(temporary, place)

    def save(self, done: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Note what the parts so far hold, and the state to go on from; the next `save` replaces it."""
        for name in list(self._held):
            self._part(name)
        sync(self._path(""))  # the parts' names, before a state that counts on them
        held = {name: len(parts) for name, parts in self._parts.items()}
        note = to_json({**done, "parts": held, "rows": self._rows})
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{NOTE: np.frombuffer(note, np.uint8)}, **arrays)
        write_bytes_atomic(self._path("state.npz"), file.getvalue())  # one file, so that the two belong together
        write_bytes_atomic(self._path("progress.json"), note)  # to be read by people

    def saved(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
        """What the last `save` of an earlier attempt noted, with its parts taken over; None if there is none."""
        if not (self._staging / "state.npz").exists():
            self._keep(set())
            return None
        try:
            with np.load(io.BytesIO((self._staging / "state.npz").read_bytes())) as file:
                arrays = dict(file)
            done = msgspec.json.decode(arrays.pop(NOTE).tobytes())
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, msgspec.DecodeError):
            raise LakeError(
                f"{self._staging / 'state.npz'} is torn", remedy="begin anew with another --run-id"
            ) from None
        self._rows = dict(done["rows"])
        for name, n in done["parts"].items():
            self._parts[name] = [self._staging / f"{name}-{i:05}.part" for i in range(n)]
        self._keep({part.name for parts in self._parts.values() for part in parts})
        return done, arrays

    def _keep(self, names: set[str]) -> None:
        """Remove parts but these: what an attempt that was killed left after its last save."""
        for pattern in ("*.part", ".*.tmp"):
            for path in list(self._staging.glob(pattern)):
                if path.name not in names:
                    path.unlink()

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file; a number that JSON cannot hold becomes null nowhere: it raises ValueError."""
        write_bytes_atomic(self._path(name), to_json(content), sync_folder=False)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of any kind; the manifest lists it under `files`."""
        write_bytes_atomic(self._path(name), content, sync_folder=False)
        self._files.append(name)

    def commit(self, manifest: Mapping[str, Any]) -> Path:
        """Write manifest.json, with row counts and versions, and put the folder in place."""
        versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
        files = {"files": sorted(self._files)} if self._files else {}
        self.write_json("manifest.json", {**manifest, "rows": self._rows, **files, "versions": versions})
        sync(self._staging)
        os.replace(self._staging, self.place)
        for left in (*(part.name for part in self._done), "progress.json", "state.npz", "lock"):
            (self.place / left).unlink(missing_ok=True)
        sync(self.place.parent)
        return self.place

    @staticmethod
    def begun(out_root: Path, kind: str, method: str | None, symbol: str, day: str) -> list[str]:
        """Ids of the runs of this kind that began and did not end, the latest first."""
        folder = _folder(out_root, kind, method, symbol, day)
        found = sorted(folder.glob(".partial-run=*/state.npz"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        return [p.parent.name.partition("=")[2] for p in found]

    def forget(self) -> None:
        """Keep nothing to go on from: `abort` then leaves nothing."""
        (self._staging / "state.npz").unlink(missing_ok=True)

    def abort(self) -> None:
        """Leave nothing behind that cannot be resumed."""
        if not self.resumable or not (self._staging / "state.npz").exists():
            shutil.rmtree(self._staging, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _version(package: str) -> str:
    """A package's version: what it says itself if it is loaded, else what its installation says."""
    return getattr(sys.modules.get(package), "__version__", None) or version(package)


def _folder(out_root: Path, kind: str, method: str | None, symbol: str, day: str) -> Path:
    """Where the runs of one kind, symbol and day lie."""
    parts = [kind, *([f"method={method}"] if method else []), f"symbol={quote(symbol, safe='')}", f"day={day}"]
    return out_root.joinpath(*parts)


def _read(part: Path) -> pl.DataFrame:
    """A part's rows; raises LakeError if it is torn."""
    try:
        return pl.read_parquet(part, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LakeError(
            f"{part} is torn: {str(error).splitlines()[0]}", remedy="begin anew with another --run-id"
        ) from None


def to_json(content: object) -> bytes:
    """Indented JSON with a stable order of keys; raises ValueError for nan or infinity."""
    _finite(content, "")
    return msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=1) + b"\n"


def _finite(content: object, where: str) -> None:
    """JSON has no nan, and a null in its place would hide a fault."""
    if isinstance(content, float) and not abs(content) < float("inf"):
        raise ValueError(f"{where or 'value'} is {content}")
    if isinstance(content, Mapping):
        for key, value in content.items():
            _finite(value, f"{where}.{key}")
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            _finite(value, f"{where}[{i}]")


def find_run(out_root: Path, text: str) -> Path:
    """A run's folder by its path or its id; raises LakeError if there is none, UsageError if there are several."""
    direct = Path(text)
    if (direct / "manifest.json").exists():
        return direct
    found = sorted(p for p in out_root.rglob(f"run={text}") if (p / "manifest.json").exists()) if text else []
    if len(found) > 1:
        raise UsageError(f"{len(found)} runs are named {text}", remedy="give a path: " + ", ".join(map(str, found)))
    if not found:
        known = sorted((p.name.partition("=")[2] for p in out_root.rglob("run=*")), reverse=True)
        recent = f"the latest runs are {', '.join(known[:5])}" if known else "there are no runs yet"
        raise LakeError(f"no run {text!r} under {out_root}", remedy=recent)
    return found[0]


def read_table(run: Path, table: Table) -> pl.DataFrame | None:
    """A run's table, None if the run has none; raises LakeError if it is torn."""
    path = run / f"{table.name}.parquet"
    if not path.exists():
        return None
    try:
        frame = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise LakeError(f"{path} is torn: {str(error).splitlines()[0]}", remedy="make the run again") from None
    return table.check(frame, str(path))


def read_json(path: Path) -> Any:
    """A JSON file's content; raises LakeError naming a file that is missing or torn."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise LakeError(f"{path} is missing", remedy="give the path of an existing file") from None
    except msgspec.DecodeError as error:
        raise LakeError(f"{path} is not JSON: {error}", remedy="make the file again") from None


class UtcFormatter(logging.Formatter):
    """Log times in UTC, to the millisecond."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002
        """The record's time as ISO text."""
        return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"


def open_log(log_root: Path, kind: str, symbol: str, day: str, run_id: str, level: str) -> logging.Logger:
    """The run's own log, `<log_root>/<kind>/<symbol>/<day>/<run>/run.log`, in UTC."""
    if level.upper() not in LEVELS:
        raise UsageError(f"LOG_LEVEL is {level!r}", remedy=f"choose one of {', '.join(LEVELS)}")
    folder = log_root / kind / quote(symbol, safe="") / day / run_id
    folder.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(f"mmlab.run.{folder}")
    log.setLevel(level.upper())
    log.propagate = False
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(UtcFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return log
