"""`mmlab compare RUN RUN`: what two backtests were told, what they read, and what came of it, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmlab.core import schemas
from mmlab.core.errors import LakeError, UsageError
from mmlab.store.runs import find_run, read_json, read_table

KINDS = ("backtest", "walkforward")
ABSENT = "absent"  # not a value: the run has no such setting
MOST_NAMED = 5  # parts in one warning
DATA = ("symbol", "day")  # of the specification: which data, not what was done with them


@dataclass(frozen=True)
class Comparison:
    """Two runs: settings that differ as (name, first, second), metrics, and what makes the figures incomparable."""

    paths: tuple[Path, Path]
    spec: list[tuple[str, Any, Any]]
    metrics: pl.DataFrame
    warnings: list[str]

    @property
    def same_figures(self) -> bool:
        """True if both have the same metrics with the same values."""
        first, second, where = (self.metrics[name] for name in ("first", "second", "where"))
        return bool((where == "both").all() and first.eq_missing(second).all())


def compare(out_root: Path, first: str, second: str) -> Comparison:
    """Compare two runs, each by its path or id; raises UsageError for a run that is no backtest."""
    one, other = find_run(out_root, first), find_run(out_root, second)
    told, read = (manifest(one), manifest(other)), (figures(one), figures(other))
    return Comparison((one, other), settings(*told), side_by_side(*read), data_warnings(*told))


def manifest(run: Path) -> dict[str, Any]:
    """The manifest of a backtest or walk-forward."""
    content: dict[str, Any] = read_json(run / "manifest.json")
    if content.get("kind") not in KINDS:
        raise UsageError(
            f"{run} is a run of {content.get('kind')}", remedy=f"compare runs of {' and '.join(KINDS)} only"
        )
    return content


def figures(run: Path) -> pl.DataFrame:
    """The metrics of a run."""
    found = read_table(run, schemas.METRICS)
    if found is None:
        raise LakeError(f"{run} has no metrics", remedy="make the run again")
    return found


def settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Every setting that differs, by name, in the order of the manifests."""
    one, other = (flat({"kind": m["kind"], **m["spec"]}) for m in (first, second))
    names = [name for name in dict.fromkeys((*one, *other)) if name not in DATA]
    pairs = [(name, one.get(name, ABSENT), other.get(name, ABSENT)) for name in names]
    return [(name, a, b) for name, a, b in pairs if a != b]


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found


def side_by_side(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """metric, first, second, difference (second minus first), unit, where; those of one run only come last."""
    names = pl.concat([first.select("metric", "unit"), second.select("metric", "unit")]).unique(maintain_order=True)
    sides = [
        frame.select("metric", "unit", pl.col("value").alias(name), pl.lit(True).alias(f"in_{name}"))
        for frame, name in ((first, "first"), (second, "second"))
    ]
    for side in sides:
        names = names.join(side, on=("metric", "unit"), how="left", maintain_order="left")
    both = pl.col("in_first").is_not_null() & pl.col("in_second").is_not_null()
    where = pl.when(both).then(pl.lit("both")).when("in_first").then(pl.lit("first")).otherwise(pl.lit("second"))
    return names.select(
        "metric", "first", "second", (pl.col("second") - pl.col("first")).alias("difference"), "unit", where=where
    )


def data_warnings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What the runs do not have in common beside their settings: data, instrument, code."""
    said = [
        f"the runs are of different {name}s: {first['spec'][name]} and {second['spec'][name]}"
        for name in DATA
        if first["spec"][name] != second["spec"][name]
    ]
    for name, a, b in _differing(first.get("instrument", {}), second.get("instrument", {})):
        if name != "symbol":
            said.append(f"the instrument's {name} differs: {a} and {b}")
    said += _inputs(first.get("inputs", []), second.get("inputs", []))
    for name, a, b in _differing(first.get("versions", {}), second.get("versions", {})):
        said.append(f"the version of {name} differs: {a} and {b}")
    return said


def _inputs(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """Days that one run did not read, conditions that changed, parts whose bytes are not the same."""
    one, other = ({(i.get("venue"), i["day"]): i for i in inputs} for inputs in (first, second))
    said = []
    for venue, day in sorted({*one} ^ {*other}, key=str):
        said.append(f"only the {'first' if (venue, day) in one else 'second'} run read {day} of {venue}")
    for key in (key for key in one if key in other):
        a, b = one[key], other[key]
        if a["condition"] != b["condition"]:
            said.append(f"the condition of {key[1]} differs: {a['condition']} and {b['condition']}")
        changed = [name for name, _, _ in _differing(a["parts"], b["parts"])]
        if changed:
            more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
            said.append(f"the data of {key[1]} are not the same: {', '.join(changed[:MOST_NAMED])}{more}")
    return said


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values."""
    pairs = [(key, first.get(key, ABSENT), second.get(key, ABSENT)) for key in dict.fromkeys((*first, *second))]
    return [pair for pair in pairs if pair[1] != pair[2]]
