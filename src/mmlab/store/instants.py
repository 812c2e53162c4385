"""Which columns are instants, and which tables name them in milliseconds too, as the documents do."""

from __future__ import annotations

from mmlab.core.table import Table

DURATIONS = ("exposure_ns",)
MS_TABLES = ("orders", "fills", "state", "markouts")  # the documents' notebooks name their times in ms


def instants(table: Table) -> list[str]:
    """Columns that hold a point in time, in ns UTC."""
    return [c.name for c in table.columns if c.name.endswith("_ns") and c.name not in DURATIONS]


def ms_names(table: Table) -> dict[str, str]:
    """The name in ms of each instant, for the tables that have one: {recv_ns: recv_ms}."""
    return {name: f"{name[:-3]}_ms" for name in instants(table)} if table.name in MS_TABLES else {}
