"""The table contracts as a page: what docs/tables.md and `mmlab tables` show."""

from __future__ import annotations

from mmlab.core.schemas import LAKE_TABLES, RUN_TABLES
from mmlab.core.table import Column, Table

INTRO = """# Tables

Made by `make docs` from `src/mmlab/core/schemas.py`; a test holds the two together.
Times are nanoseconds UTC. Prices and quantities are doubles that print shortest as the venue's own
decimal text. Side and taker are +1 for a buyer, -1 for a seller. `mmlab sql` adds a readable
`*_time` beside every instant `*_ns`, and the Hive keys of the path as columns.
"""


def markdown() -> str:
    """All contracts as Markdown."""
    lake = "\n".join(table_markdown(table) for table in LAKE_TABLES)
    runs = "\n".join(table_markdown(table) for table in RUN_TABLES)
    return f"{INTRO}\n## In the lake\n\n{lake}\n## In the outputs\n\n{runs}"


def table_markdown(table: Table) -> str:
    """One contract: what a row is, its columns, key, order and rules."""
    lines = [f"### {table.name}", "", f"One row is {table.row}.", "", "| column | type | unit | meaning |"]
    lines += ["|---|---|---|---|", *(f"| {' | '.join(cells(c))} |" for c in shown_columns(table)), ""]
    if table.key:
        lines.append(f"Key: {', '.join(table.key)}.")
    if table.order:
        lines.append(f"Order: {', '.join(table.order)}.")
    lines += [f"Rule: {rule.name}." for rule in table.rules]
    return "\n".join(lines).rstrip() + "\n"


def shown_columns(table: Table) -> list[Column]:
    """The columns, with levels 3 and deeper of a book left out, since they repeat level 2."""
    return [c for c in table.columns if not c.name.rpartition("_")[2].isdigit() or int(c.name.rpartition("_")[2]) <= 2]


def cells(column: Column) -> list[str]:
    """Name, type, unit and meaning of one column."""
    meaning = column.doc + (f": {', '.join(map(str, column.values))}" if column.values else "")
    return [column.name, str(column.dtype()) + ("?" if column.nullable else ""), column.unit, meaning]
