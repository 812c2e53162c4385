"""The command `mmlab`: one sub-command for each flow, one place where errors become messages and exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mmlab import __version__
from mmlab.cli import calibrate, candles, compare, data, fetch, grid, grid_search, query, record, simulate
from mmlab.cli.console import fault
from mmlab.cli.flags import grouped
from mmlab.cli.several import Several
from mmlab.core.errors import MmlabError

HELP = """Would that quote have been filled, and would it have paid?

Get a market into the lake (record, import, synth) and see that it is whole (check), measure fill intensity
with virtual probes (calibrate), carry it forward in time and simulate order by order (walkforward,
backtest), then look (report, compare, sql). A venue to try it all against: serve.

Exit codes: 0 fine, 1 a fault in the data, 2 a fault in the command.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
imports = typer.Typer(help="Bring foreign recordings and candles into the lake.", no_args_is_help=True)
fetches = typer.Typer(help="Fetch history from a venue's public REST into the lake.", no_args_is_help=True)
calibrations = typer.Typer(help="Measure how likely a resting quote is to be filled.", no_args_is_help=True)
grids = typer.Typer(help="A 15-minute grid for perpetual futures: run it, and see that it does not look ahead.",
                    no_args_is_help=True)  # fmt: skip
app.command("record")(record.record)
app.command("serve")(record.serve)
app.command("check")(record.check)
app.command("rebuild")(record.rebuild)
app.add_typer(imports, name="import")
app.add_typer(fetches, name="fetch")
app.command("bars")(candles.bars)
app.command("synth")(data.synth)
app.add_typer(calibrations, name="calibrate")
app.command("walkforward")(grouped(simulate.walkforward))
app.command("backtest")(grouped(simulate.backtest))
app.add_typer(grids, name="grid")
app.command("compare")(compare.compare)
app.command("report")(query.report)
app.command("sql")(query.sql)
app.command("tables")(query.tables)
imports.command("raw")(data.import_raw)
imports.command("klines")(candles.import_klines)
imports.command("funding")(candles.import_funding)
fetches.command("klines")(fetch.klines)
fetches.command("funding")(fetch.funding)
calibrations.command("ladder")(grouped(calibrate.ladder))
calibrations.command("fixed")(grouped(calibrate.fixed))
calibrations.command("schedule")(grouped(calibrate.schedule))
calibrations.command("orders")(grouped(calibrate.orders))
calibrations.command("validate")(grouped(calibrate.validate))
grids.command("backtest", cls=Several)(grouped(grid.backtest))
grids.command("lookahead", cls=Several)(grouped(grid.lookahead))
grids.command("config")(grid.config)
grids.command("optimize", cls=Several)(grouped(grid_search.optimize))
grids.command("apply")(grid_search.apply)


def _version(asked: bool) -> None:
    if asked:
        print(f"mmlab {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of the command itself; the help text is HELP."""


def main() -> None:
    """Run the command line; a fault of the user's or of the data becomes a message, not a traceback."""
    try:
        app()
    except MmlabError as error:
        fault(error.message, error.remedy)
        sys.exit(error.exit_code)
    except OSError as error:
        fault(f"{error.filename or 'system'}: {error.strerror or error}", "check that it exists, and may be read")
        sys.exit(1)
