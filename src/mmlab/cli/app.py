"""The command `mmlab`: one sub-command for each flow, one place where errors become messages and exit codes."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated, Any

import typer

from mmlab import __version__
from mmlab.cli.later import OnDemand, later
from mmlab.cli.several import Several
from mmlab.core.errors import MmlabError

HELP = """Would that quote have been filled, and would it have paid?

Get a market into the lake (record, import, synth) and see that it is whole (check), measure fill intensity
with virtual probes (calibrate), carry it forward in time and simulate order by order (walkforward,
backtest), then look (report, compare, sql). A venue to try it all against: serve.

Exit codes: 0 fine, 1 a fault in the data, 2 a fault in the command.
"""

IMPORTED = 200_000  # objects: more than the imports of any command make


def group(help: str, **more: Any) -> typer.Typer:
    """A group whose commands are imported when they are asked for."""
    return typer.Typer(cls=OnDemand, help=help, no_args_is_help=True, **more)


app = group(HELP, rich_markup_mode="rich", pretty_exceptions_enable=False)
imports = group("Bring foreign recordings and candles into the lake.")
fetches = group("Fetch history from a venue's public REST into the lake.")
calibrations = group("Measure how likely a resting quote is to be filled.")
grids = group("A 15-minute grid for perpetual futures: run it, and see that it does not look ahead.")
app.command("record")(later("record.record"))
app.command("serve")(later("record.serve"))
app.command("check")(later("record.check"))
app.command("rebuild")(later("record.rebuild"))
app.add_typer(imports, name="import")
app.add_typer(fetches, name="fetch")
app.command("bars")(later("candles.bars"))
app.command("synth")(later("data.synth"))
app.add_typer(calibrations, name="calibrate")
app.command("walkforward")(later("simulate.walkforward"))
app.command("backtest")(later("simulate.backtest"))
app.add_typer(grids, name="grid")
app.command("compare")(later("compare.compare"))
app.command("report")(later("query.report"))
app.command("sql")(later("query.sql"))
app.command("tables")(later("query.tables"))
imports.command("raw")(later("data.import_raw"))
imports.command("klines")(later("candles.import_klines"))
imports.command("funding")(later("candles.import_funding"))
fetches.command("klines")(later("fetch.klines"))
fetches.command("funding")(later("fetch.funding"))
calibrations.command("ladder")(later("calibrate.ladder"))
calibrations.command("fixed")(later("calibrate.fixed"))
calibrations.command("schedule")(later("calibrate.schedule"))
calibrations.command("orders")(later("calibrate.orders"))
calibrations.command("validate")(later("calibrate.validate"))
grids.command("backtest", cls=Several)(later("grid.backtest"))
grids.command("lookahead", cls=Several)(later("grid.lookahead"))
grids.command("config")(later("grid.config"))
grids.command("optimize", cls=Several)(later("grid_search.optimize"))
grids.command("apply")(later("grid_search.apply"))


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
    _collect_later()
    try:
        app()
    except MmlabError as error:
        _fault(error.message, error.remedy)
        sys.exit(error.exit_code)
    except OSError as error:
        _fault(f"{error.filename or 'system'}: {error.strerror or error}", "check that it exists, and may be read")
        sys.exit(1)


def _collect_later() -> None:
    """Keep the garbage collector out of the imports, which make no garbage, and out of the exit: it takes a while."""
    usual = gc.get_threshold()

    def as_usual(_phase: str, _info: dict[str, int]) -> None:
        gc.set_threshold(*usual)
        gc.callbacks.remove(as_usual)

    gc.callbacks.append(as_usual)
    gc.set_threshold(IMPORTED, *usual[1:])
    atexit.register(_leave)


def _leave() -> None:
    """Spare the last collection of a process that ends, unless duckdb is there, which complains of what is left."""
    if "duckdb" not in sys.modules:
        gc.freeze()


def _fault(message: str, remedy: str) -> None:
    from mmlab.cli.console import fault

    fault(message, remedy)
