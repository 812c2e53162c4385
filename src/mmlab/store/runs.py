"""Output folders, run ids and run logs: `out/<kind>/[method=M/]symbol=S/day=D/run=R/`."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import polars as pl

from mmlab.core.errors import LakeError, UsageError
from mmlab.core.table import Table
from mmlab.store.parts import sync, write_bytes_atomic, write_part

PACKAGES = ("mmlab", "polars", "duckdb", "numpy", "numba", "pyarrow")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def default_run_id(now: datetime) -> str:
    """A run's name from the UTC time it began, like 20250101T120000Z."""
    return f"{now:%Y%m%dT%H%M%SZ}"


class RunFolder:
    """A run's folder while it is written: staged beside its place, put there by `commit`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._staging = place.with_name(f".staging-{place.name}-{os.getpid()}")
        self._rows: dict[str, int] = {}

    @classmethod
    def create(cls, out_root: Path, kind: str, method: str | None, symbol: str, day: str, run_id: str) -> RunFolder:
        """A new folder; raises UsageError if a run of that name exists, since nothing is overwritten."""
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise UsageError(f"--run-id is {run_id!r}", remedy="give a name that can be a folder's")
        parts = [kind, *([f"method={method}"] if method else []), f"symbol={quote(symbol, safe='')}", f"day={day}"]
        place = out_root.joinpath(*parts, f"run={run_id}")
        if place.exists():
            raise UsageError(f"run {run_id} exists already, in {place}", remedy="give another --run-id")
        return cls(place)

    def _path(self, name: str) -> Path:
        """Where a file goes while the run is made; the folder comes with its first file."""
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging / name

    def write_table(self, table: Table, frame: pl.DataFrame) -> None:
        """Write `<table>.parquet`, if it meets its contract."""
        write_part(self._path(f"{table.name}.parquet"), table.check(frame))
        self._rows[table.name] = frame.height

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file; a number that JSON cannot hold becomes null nowhere: it raises ValueError."""
        write_bytes_atomic(self._path(name), to_json(content))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of any kind."""
        write_bytes_atomic(self._path(name), content)

    def commit(self, manifest: Mapping[str, Any]) -> Path:
        """Write manifest.json, with row counts and versions, and put the folder in place."""
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        self.write_json("manifest.json", {**manifest, "rows": self._rows, "versions": versions})
        os.replace(self._staging, self.place)
        sync(self.place.parent)
        return self.place

    def abort(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._staging, ignore_errors=True)


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
