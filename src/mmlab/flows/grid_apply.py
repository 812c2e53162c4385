"""`mmlab grid apply`: parameters of a search into a TOML config, checked first, with a backup, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError

from mmlab.core.errors import DataError, MmlabError, UsageError
from mmlab.grid.config import LOOK_AHEAD, Config, default_toml, parse
from mmlab.grid.params import GridParams
from mmlab.grid.space import set_to
from mmlab.store.parts import sync, write_bytes_atomic

GROUP = "strategy"


@dataclass(frozen=True)
class Change:
    """What a config file will be: its text, and each parameter's value before and after."""

    path: Path
    text: str
    before: bytes | None  # None: there is no file yet
    rows: list[tuple[str, Any, Any]]

    @property
    def changed(self) -> bool:
        """False if the file says all of it already."""
        return self.before is None or self.text.encode() != self.before


def newest(out_root: Path, name: str = "optimizer_results_robust.json") -> Path:
    """The robust parameters of the optimize run that ended last; raises DataError if there is none."""
    found = sorted(out_root.glob(f"grid/method=optimize/*/*/run=*/{name}"), key=lambda p: (p.stat().st_mtime_ns, p))
    if not found:
        raise DataError(
            f"no optimize run lies under {out_root}", remedy="run mmlab grid optimize, or give --params FILE"
        )
    return found[-1]


def read_params(path: Path, key: str) -> dict[str, Any]:
    """The parameters under a key of a JSON file.

    Raises DataError naming the keys that there are, UsageError for a search whose fills looked ahead.
    """
    try:
        content = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing", remedy="run mmlab grid optimize, or give --params FILE") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}", remedy="give the file of an optimize run") from None
    groups = [name for name, part in content.items() if isinstance(part, dict)] if isinstance(content, dict) else []
    if key not in groups:
        raise DataError(
            f"{path} has no parameters under {key!r}",
            remedy=f"its keys are {', '.join(content)}" if isinstance(content, dict) and content else "it has no keys",
        )
    values: dict[str, Any] = content[key]
    if not values:
        raise DataError(f"{key!r} of {path} is empty", remedy="give another --key")
    if content.get("label") == LOOK_AHEAD:
        raise UsageError(
            f"{path} was searched with fills that look ahead: its parameters fit what cannot be earned",
            remedy="search again without --fills peer",
        )
    return values


def doubts(path: Path, key: str) -> list[str]:
    """What the search itself holds against the parameters under a key of its file."""
    content = msgspec.json.decode(path.read_bytes())
    if key == "best_params":
        return ["the one best trial is the luckiest one too; robust_params are the middle of the best"]
    found = []
    if content.get("robustness_label") == "WARNING":
        found.append(str(content.get("robustness_meaning")))
    if content.get("oos_pass") is False:
        found.append("they failed on the held-out windows")
    if content.get("mc_significant") is False:
        found.append("what they earned on the held-out windows is not significant")
    lost = [name for name, score in content.get("holdout", {}).items() if score["total_return"] <= 0]
    if lost:
        found.append(f"they earned nothing on the hold-out of {', '.join(lost)}")
    return found


def plan(params: Mapping[str, Any], source: str, config: Path) -> Change:
    """What the config would be with these parameters; nothing is written.

    Raises UsageError for an unknown or out-of-range parameter, for a config that is wrong already, and for one that
    would not say what was asked for. A config that is absent is made from the defaults.
    """
    path = config.resolve()
    try:
        before = path.read_bytes()
        text = before.decode()
    except FileNotFoundError:
        before, text = None, default_toml()
    except UnicodeDecodeError:
        raise UsageError(f"{config} is not text", remedy="give a TOML file, as mmlab grid config prints it") from None
    old = parse(text, str(config))
    given = in_kind(params)
    wanted = dataclasses.replace(old, strategy=set_to(old.strategy, given, source))
    made = edited(text, {name: getattr(wanted.strategy, name) for name in given}, str(config))
    compare(made, wanted, str(config))
    rows = [(name, getattr(old.strategy, name), getattr(wanted.strategy, name)) for name in given]
    return Change(path, made, before, rows)


def in_kind(params: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers that were written as 4.0 as whole numbers, where the parameter counts."""
    kinds = {each.name: type(each.default) for each in dataclasses.fields(GridParams)}
    return {
        name: int(value) if kinds.get(name) is int and isinstance(value, float) and value.is_integer() else value
        for name, value in params.items()
    }


def edited(text: str, values: Mapping[str, Any], where: str) -> str:
    """A config's text with these values in [strategy]; all else stays as it is, comments too."""
    try:
        document = tomlkit.parse(text)
        if GROUP not in document:
            document[GROUP] = tomlkit.table()
        group: Any = document[GROUP]
        for name, value in values.items():
            group[name] = value
        return tomlkit.dumps(document)
    except TOMLKitError as error:
        raise UsageError(f"{where} cannot be edited: {error}", remedy="see mmlab grid config for an example") from None


def compare(text: str, wanted: Config, where: str) -> None:
    """Raise UsageError if a text does not say exactly what is wanted."""
    try:
        said = parse(text, where)
    except MmlabError as error:
        raise UsageError(
            f"{where} would be wrong: {error.message}", remedy="nothing was written; edit it by hand"
        ) from None
    if said != wanted:
        raise UsageError(f"{where} would not say what it should", remedy="nothing was written; edit it by hand")


def write(change: Change) -> Path | None:
    """Put the new text in place in one step, the old one beside it as FILE.bak-N; the backup's path.

    Raises UsageError if the file is not any more what the change was made from.
    """
    path = change.path
    now = path.read_bytes() if path.exists() else None
    if now != change.before:
        raise UsageError(f"{path} was changed meanwhile", remedy="nothing was written; run it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = None if now is None else path.stat().st_mode & 0o7777
    backup = None if now is None else keep(path, now)
    write_bytes_atomic(path, change.text.encode())
    if mode is not None:
        path.chmod(mode)
    compare(path.read_text(encoding="utf-8"), parse(change.text, str(path)), str(path))
    return backup


def keep(path: Path, content: bytes) -> Path:
    """Write a backup under the first free number; one that is there is never overwritten."""
    number = 1
    while True:
        backup = path.with_name(f"{path.name}.bak-{number}")
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
        return backup
