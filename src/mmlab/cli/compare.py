"""`mmlab compare`: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli import options as o
from mmlab.cli.console import OUT, done, table, warn

if TYPE_CHECKING:
    from mmlab.flows.compare import Comparison

Run = Annotated[str, typer.Argument(help="A backtest or walk-forward: its id, or the path of its folder.")]


def compare(
    first: Run,
    second: Run,
    out_root: o.OutRoot = Path("out"),
    as_json: o.Json = False,
) -> None:
    """Show in which settings two runs differ, and what came of it: both values, and second minus first.

    Warns where the runs did not read the same data, or were made by other versions.
    """
    from mmlab.flows.compare import compare as run

    found = run(out_root, first, second)
    warn(found.warnings)
    _show(found)
    done(
        {
            "paths": [str(path) for path in found.paths],
            "spec": {name: [a, b] for name, a, b in found.spec},
            "metrics": {row.pop("metric"): row for row in found.metrics.to_dicts()},
            "same_settings": not found.spec,
            "same_figures": found.same_figures,
            "warnings": found.warnings,
        },
        as_json,
    )


def _show(found: Comparison) -> None:
    """The settings that differ, then every metric."""
    heads = tuple(path.name.partition("=")[2] or str(path) for path in found.paths)
    if found.spec:
        table("settings that differ", ("setting", *heads), found.spec)
    else:
        OUT.print("the settings are the same")
    table(
        "metrics",
        ("metric", *heads, "difference", "unit"),
        found.metrics.select("metric", "first", "second", "difference", "unit").rows(),
    )
    if found.same_figures:
        OUT.print("the figures are the same")
