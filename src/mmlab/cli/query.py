"""`mmlab sql`, `mmlab report` and `mmlab tables`: looking at what is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlab.cli import options as o
from mmlab.cli.console import OUT, done, fault, table
from mmlab.core.errors import MmlabError, UsageError
from mmlab.core.schemas import TABLES

FORMATS = ("table", "csv", "json", "parquet")


def sql(
    query: Annotated[str | None, typer.Argument(help="One query; without it, a prompt.")] = None,
    data_root: o.DataRoot = Path("data"),
    out_root: o.OutRoot = Path("out"),
    format: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
) -> None:
    """Query the lake and all results with DuckDB: a view for each table, Hive keys as columns.

    Instants have a readable *_time column beside *_ns. `mmlab tables` says what the columns mean.
    """
    from mmlab.store.sql import connect

    if format not in FORMATS:
        raise UsageError(f"--format is {format!r}", remedy=f"choose one of {', '.join(FORMATS)}")
    con = connect(data_root, out_root)
    if query is not None:
        answer(con, query, format)
    elif sys.stdin.isatty():
        prompt(con, format)
    else:
        answer(con, sys.stdin.read(), format)


def answer(con: Any, query: str, format: str) -> None:
    """Run one query and print its result."""
    from mmlab.store.sql import render, run

    shown = render(run(con, query), format)
    if isinstance(shown, bytes):
        sys.stdout.buffer.write(shown)
    else:
        print(shown.rstrip("\n"))


def prompt(con: Any, format: str) -> None:
    """Read queries until `.quit`; a fault is shown and the prompt goes on."""
    import readline  # noqa: F401  (gives input() its history and editing keys)

    print("Views: " + ", ".join(TABLES) + ". End a query with ; and leave with .quit")
    lines: list[str] = []
    while True:
        try:
            line = input("mmlab> " if not lines else "   ... ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.strip() in {".quit", ".exit"}:
            return
        lines.append(line)
        if line.rstrip().endswith(";"):
            try:
                answer(con, "\n".join(lines), format)
            except MmlabError as error:
                fault(error.message, error.remedy)
            lines = []


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, or the path of a run's folder.")],
    out_root: o.OutRoot = Path("out"),
    as_json: o.Json = False,
) -> None:
    """Draw one run: a page that opens offline, and the same figures as PNG files, in the run's folder."""
    from mmlab.flows.report import make_report
    from mmlab.store.runs import find_run

    page = make_report(find_run(out_root, run))
    done({"path": str(page)}, as_json)


def tables(
    name: Annotated[str | None, typer.Argument(help="One table; without it, all of them by name.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/tables.md.")] = False,
) -> None:
    """Show the table contracts: columns, types, units, keys, order and rules."""
    from mmlab.flows.tables import cells, shown_columns
    from mmlab.flows.tables import markdown as page

    if markdown:
        print(page(), end="")
    elif name is None:
        table("tables", ("table", "one row is"), [(t.name, t.row) for t in TABLES.values()])
    elif name in TABLES:
        table(name, ("column", "type", "unit", "meaning"), [cells(c) for c in shown_columns(TABLES[name])])
        OUT.print(f"One row is {TABLES[name].row}.")
    else:
        raise UsageError(f"there is no table {name!r}", remedy=f"choose one of {', '.join(TABLES)}")
