"""`mmlab import raw` and `mmlab synth`: getting a market into the lake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmlab.cli import options as o
from mmlab.cli.console import OUT, done, progress, table, warn

Replace = Annotated[bool, typer.Option("--replace", help="Replace days that are in the lake already.")]


def synth(
    symbol: Annotated[str, typer.Option("--symbol", envvar="SYMBOL", help="Name of the made-up instrument.")] = "SYNTH",
    day: Annotated[str, typer.Option("--day", envvar="DAY", help="First UTC day, YYYYMMDD.")] = "20250101",
    hours: Annotated[float, typer.Option("--hours", help="How long, from 00:00 UTC; more than 24 runs on.")] = 24.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    tick_size: Annotated[str, typer.Option("--tick-size", envvar="TICK_SIZE", help="Price step.")] = "0.01",
    lot_size: Annotated[str, typer.Option("--lot-size", envvar="LOT_SIZE", help="Quantity step.")] = "0.00001",
    A: Annotated[float, typer.Option("--A", help="True intensity at the mid, per second and side.")] = 1.5,
    k: Annotated[float, typer.Option("--k", help="True decay per tick.")] = 0.25,
    prints_per_s: Annotated[float, typer.Option("--prints-per-s", help="Prints a second, both sides.")] = 8.0,
    frame_ms: Annotated[int, typer.Option("--frame-ms", help="Time between book frames.")] = 100,
    levels: Annotated[int, typer.Option("--levels", help="Book levels a side.")] = 5,
    mid: Annotated[float, typer.Option("--mid", help="Price at the start.")] = 1000.0,
    mid_jump_ticks: Annotated[int, typer.Option("--mid-jump-ticks", help="How far the mid jumps.")] = 2,
    mid_moves_per_s: Annotated[float, typer.Option("--mid-moves-per-s", help="How often it jumps.")] = 0.5,
    ak_schedule: Annotated[
        str | None,
        typer.Option("--ak-schedule", help="(A, k) over time, minute=A/k pieces: 0=1.5/0.25,60=3/0.4"),
    ] = None,
    data_root: o.DataRoot = Path("data"),
    replace: Replace = False,
    as_json: o.Json = False,
) -> None:
    """Make a seeded market whose true (A, k) is known, and put it into the lake.

    Taker orders arrive as a Poisson process; the depth that they reach beyond the mid is exponential, so
    the orders that reach a distance of delta ticks arrive at A exp(-k delta) per second and side.
    """
    from mmlab.core.spans import parse_day
    from mmlab.flows.synth import synth as make
    from mmlab.tape.synth_spec import SynthSpec, parse_ak_schedule

    spec = SynthSpec(
        symbol, parse_day(day), hours, seed, tick_size, lot_size, A, k, prints_per_s, frame_ms, levels, mid,
        mid_jump_ticks, mid_moves_per_s, parse_ak_schedule(ak_schedule) if ak_schedule else (),
    )  # fmt: skip
    with progress() as show:
        made = make(spec, data_root, replace, show)
    OUT.print(f"{made.frames:,} book frames and {made.prints:,} prints of {symbol}, true (A, k) in the manifest")
    done({"path": str(made.path), "frames": made.frames, "prints": made.prints}, as_json)


def import_raw(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Raw recordings, in time order.")],
    venue: Annotated[str, typer.Option("--venue", envvar="VENUE", help="binance-spot or binance-usdm.")],
    symbol: o.Symbol,
    tick_size: Annotated[str, typer.Option("--tick-size", envvar="TICK_SIZE", help="Price step, like 0.01.")],
    lot_size: Annotated[str, typer.Option("--lot-size", envvar="LOT_SIZE", help="Quantity step, like 0.00001.")],
    levels: Annotated[int, typer.Option("--levels", help="Book levels a side kept in depth.")] = 20,
    data_root: o.DataRoot = Path("data"),
    replace: Replace = False,
    as_json: o.Json = False,
) -> None:
    """Import a raw feed, one message a line as `<local ns> <json>`, plain or gzip.

    Several files are one recording: the book is carried from one into the next. What cannot be read is
    kept aside in the quarantine table and reported by line; everything else is imported, and the exit
    code is 1, so that a script notices.
    """
    from mmlab.flows.import_raw import ImportSpec
    from mmlab.flows.import_raw import import_raw as run
    from mmlab.store.lake import Lake

    spec = ImportSpec(venue, symbol, tick_size, lot_size, levels=levels, replace=replace)
    with progress() as show:
        report = run(spec, files, Lake(data_root), progress=lambda at, of: show("import", at, of))
    table(
        f"{report.lines:,} lines, {report.epochs} epochs of the book",
        ("day", "table", "rows"),
        [(f"{day:%Y%m%d}", name, f"{n:,}") for day, rows in report.rows.items() for name, n in sorted(rows.items())],
    )
    warn([f"{day:%Y%m%d} is degraded: {'; '.join(reasons)}" for day, reasons in report.reasons.items()])
    for kind, found in report.set_aside.items():
        places = ", ".join(f"{file} line {line}" for file, line in found.first)
        warn([f"{found.count} lines set aside, {kind}: {places}{' ...' if found.count > len(found.first) else ''}"])
    paths = [str(ref.path) for ref in report.refs]
    done({"path": ", ".join(paths), "lines": report.lines, "epochs": report.epochs, "gaps": dict(report.gaps)}, as_json)
    if report.set_aside:
        raise typer.Exit(1)
