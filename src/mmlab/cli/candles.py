"""`mmlab import klines`, `mmlab import funding`, `mmlab bars`: candles and settlements into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli import options as o
from mmlab.cli.console import OUT, done, progress, table, warn

if TYPE_CHECKING:
    from mmlab.flows.candles import Stored

SHOWN = 5  # holes, rows and candles that are told in full
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="CSV, Parquet, or a venue's dump as ZIP; any order.")
]
Venue = Annotated[str, typer.Option("--venue", envvar="VENUE", help="binance-spot or binance-usdm.")]
Replace = Annotated[bool, typer.Option("--replace", help="New rows count where they contradict those in the lake.")]


def import_klines(
    files: Files,
    symbol: o.Symbol,
    venue: Venue = "binance-usdm",
    interval: Annotated[
        str | None, typer.Option("--interval", help="Length, like 15m; default: the spacing of the file.")
    ] = None,
    data_root: o.DataRoot = Path("data"),
    replace: Replace = False,
    as_json: o.Json = False,
) -> None:
    """Import candles: CSV or Parquet with timestamp (ms), open, high, low, close, volume, or the venue's dumps.

    Dumps are those of data.binance.vision, zipped or not; a .CHECKSUM file beside one is held against it. Rows that
    cannot be meant are set aside and named, everything else goes in, and the exit code is 1. A row that
    is there already is left as it is; one that contradicts the lake stops the import, unless --replace.
    """
    from mmlab.flows.candles import import_klines as run

    with progress() as show:
        made = run(files, symbol, data_root, venue=venue, interval=interval, replace=replace, progress=show)
    _tell(made, as_json)


def import_funding(
    files: Files,
    symbol: o.Symbol,
    venue: Venue = "binance-usdm",
    data_root: o.DataRoot = Path("data"),
    replace: Replace = False,
    as_json: o.Json = False,
) -> None:
    """Import funding settlements: CSV or Parquet with timestamp (ms) and fundingRate, or the venue's dumps.

    Rates are fractions of the notional, paid by longs to shorts. Faulty rows and rows that are there
    already are treated as by `import klines`.
    """
    from mmlab.flows.candles import import_funding as run

    with progress() as show:
        made = run(files, symbol, data_root, venue=venue, replace=replace, progress=show)
    _tell(made, as_json)


def bars(
    symbol: o.Symbol,
    interval: Annotated[str, typer.Option("--interval", help="Length, like 1m, 15m or 4h.")] = "15m",
    day: Annotated[
        str | None, typer.Option("--day", envvar="DAY", help="UTC day or range A..B; all, if not given.")
    ] = None,
    venue: Annotated[
        str | None, typer.Option("--venue", envvar="VENUE", help="Needed only if two venues have the symbol.")
    ] = None,
    data_root: o.DataRoot = Path("data"),
    replace: Replace = False,
    as_json: o.Json = False,
) -> None:
    """Make candles from the recorded trades of the lake, by the venue's clock.

    Only whole ones: a candle at the edge of a recording or at a hole in it is left out and named. Volumes
    are exact, so that the candles equal those that the venue publishes.
    """
    from mmlab.flows.candles import make_bars
    from mmlab.store.lake import Lake

    lake = Lake(data_root)
    with progress() as show:
        made = make_bars(lake, symbol, interval, day=day, venue=venue, replace=replace, progress=show)
    _tell(made, as_json)


def _tell(made: Stored, as_json: bool) -> None:
    """The table, the holes, what was set aside or left out; exit code 1 if rows were set aside."""
    from mmlab.core.intervals import utc_text

    written, what = made.written, "settlements" if made.interval == "funding" else f"{made.interval} candles"
    months = written.months[0] if len(written.months) == 1 else f"{written.months[0]}..{written.months[-1]}"
    missing = sum(n for _, _, n in made.holes)
    table(
        f"{what} of {made.symbol} at {made.venue}",
        ("months", "new", "already there", "completed", "replaced", "gaps", "missing in them"),
        [(months, *(f"{n:,}" for n in (written.new, written.same, written.completed, written.replaced)),
          f"{len(made.holes):,}", f"{missing:,}")],
    )  # fmt: skip
    for start, end, n in made.holes[:SHOWN]:
        OUT.print(f"gap: {utc_text(start)} to {utc_text(end)} UTC, {n:,} missing")
    if len(made.holes) > SHOWN:
        OUT.print(f"... and {len(made.holes) - SHOWN:,} more gaps")
    warn(made.warnings)
    if made.left_out:
        listed = ", ".join(utc_text(ns) for ns in made.left_out[:SHOWN])
        more = " ..." if len(made.left_out) > SHOWN else ""
        warn([f"{len(made.left_out):,} candles left out, since not all of their trades are known: {listed}{more}"])
    for name, rows in made.set_aside.items():
        told = "; ".join(f"row {row} {reason}" for row, reason in rows[:SHOWN])
        warn([f"{name}: {len(rows):,} rows set aside: {told}{' ...' if len(rows) > SHOWN else ''}"])
    aside = sum(len(rows) for rows in made.set_aside.values())
    counts = {name: getattr(written, name) for name in ("new", "same", "completed", "replaced")}
    counts |= {"set_aside": aside, "left_out": len(made.left_out)}
    gaps = [{"from_ns": a, "to_ns": b, "missing": n} for a, b, n in made.holes]
    where = {"path": str(made.path), "interval": made.interval, "months": list(written.months)}
    done({**where, **counts, "gaps": gaps}, as_json)
    if aside:
        raise typer.Exit(1)
