"""What the user sees: progress, tables, warnings, the machine-readable last line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

WIDTH = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120"))  # files are not 80 columns wide
OUT = Console(highlight=False, emoji=False, soft_wrap=True, width=WIDTH)
ERR = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total): bars on a terminal, a plain line each tenth elsewhere."""
    if ERR.is_terminal:
        from rich import progress as p

        columns = (p.TextColumn("{task.description}"), p.BarColumn(), p.MofNCompleteColumn())
        times = (p.TimeElapsedColumn(), p.TimeRemainingColumn())
        with p.Progress(*columns, *times, console=ERR, transient=True) as bars:
            yield _bars(bars)
    else:
        yield _lines()


def _bars(bars: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    return show


def _lines() -> Callable[[str, int, int], None]:
    shown: dict[str, int] = {}

    def show(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > shown.get(what, 0):
            shown[what] = tenth
            print(f"{what}: {10 * tenth}%", file=sys.stderr, flush=True)

    return show


@contextmanager
def live_line() -> Iterator[Callable[[str], None]]:
    """A callback that shows one line: always the newest on a terminal, one a minute elsewhere."""
    if ERR.is_terminal:
        with ERR.status("starting") as status:
            yield lambda text: status.update(_plain(text))
    else:
        yield _each_minute()


def _each_minute() -> Callable[[str], None]:
    calls = -1

    def show(text: str) -> None:
        nonlocal calls
        calls += 1
        if calls % 60 == 0:
            print(text, file=sys.stderr, flush=True)

    return show


def warn(texts: Sequence[str]) -> None:
    """Warnings, one a line, on standard error."""
    for text in texts:
        ERR.print(f"[yellow]warning:[/] {_plain(text)}")


def fault(message: str, remedy: str) -> None:
    """An error and what to do about it, on standard error."""
    ERR.print(f"[bold red]error:[/] {_plain(message)}")
    if remedy:
        ERR.print(f"  {_plain(remedy)}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A small table on standard output."""
    from rich.table import Table

    shown = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        shown.add_row(*(number(cell) for cell in row))
    OUT.print(shown)


def number(value: object) -> str:
    """A cell's text: five significant digits, a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def done(result: Mapping[str, Any], as_json: bool) -> None:
    """Say where the result lies, or all of it as the last line's JSON."""
    if as_json:
        print(json.dumps(result, default=str, sort_keys=True))
    elif "path" in result:
        OUT.print(f"wrote {result['path']}")


def _plain(text: str) -> str:
    """Text in which rich finds no markup."""
    return text.replace("[", r"\[")
