"""The flags that several commands share, with their environment variables and their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA, MEASURE, FIT, RUN = "Data", "Probes", "Fit", "Run"


def _option(*names: str, env: str | list[str] | None = None, help: str, panel: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(*names, envvar=env, help=help, rich_help_panel=panel)
    return found


Symbol = Annotated[str, _option("--symbol", env="SYMBOL", help="Instrument, as the venue writes it.", panel=DATA)]
Day = Annotated[str, _option("--day", env="DAY", help="UTC day YYYYMMDD, or a range A..B.", panel=DATA)]
Venue = Annotated[
    str | None, _option("--venue", env="VENUE", help="Needed only if two venues have the symbol.", panel=DATA)
]
DataRoot = Annotated[Path, _option("--data-root", env="DATA_ROOT", help="The lake that is read.", panel=DATA)]
OutRoot = Annotated[
    Path, _option("--out-root", env=["OUT_ROOT", "OUT_DIR"], help="Where results are written.", panel=DATA)
]
TickSize = Annotated[
    str | None,
    _option("--tick-size", env="TICK_SIZE", help="Price step; default: the day's own, from its manifest.", panel=DATA),
]
LogRoot = Annotated[
    Path | None, _option("--log-root", env="LOG_ROOT", help="Run logs; default: OUT_ROOT/logs.", panel=RUN)
]
LogLevel = Annotated[str, _option("--log-level", env="LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.", panel=RUN)]
RunId = Annotated[
    str | None, _option("--run-id", env="RUN_ID", help="Name of the run; default: the UTC time.", panel=RUN)
]
Json = Annotated[bool, _option("--json", help="Print the result as JSON on the last line.", panel=RUN)]
Deltas = Annotated[
    str,
    _option("--deltas", env="CALIB_DELTAS", help="Distances from the mid in ticks, ascending.", panel=MEASURE),
]
DwellMs = Annotated[
    int,
    _option("--dwell-ms", env="CALIB_DWELL_MS", help="How long a probe stands before it is laid anew.", panel=MEASURE),
]
Threshold = Annotated[
    float,
    _option(
        "--mid-move-threshold-ticks",
        env="CALIB_MID_MOVE_THRESHOLD_TICKS",
        help="A mid that moved this far lays the probes anew; 0: never.",
        panel=MEASURE,
    ),
]
Count = Annotated[
    str,
    _option(
        "--count",
        env="CALIB_COUNT",
        help="first_hit: a probe is filled once. sweeps: a taker order counts once. all_hits: every print counts.",
        panel=MEASURE,
    ),
]
Reach = Annotated[
    str,
    _option(
        "--reach", env="CALIB_REACH", help="touch: a print at the price hits; through: a tick more.", panel=MEASURE
    ),
]
TakerSide = Annotated[
    bool, _option("--taker-side", help="Count only prints whose taker came from the other side.", panel=MEASURE)
]
MaxDelta = Annotated[
    int,
    _option("--max-delta-ticks", env="MAX_DELTA_TICKS", help="Refuse distances beyond this.", panel=MEASURE),
]
FitMethod = Annotated[
    str, _option("--fit-method", env="FIT_METHOD", help="poisson_mle, nested_mle or log_linear.", panel=FIT)
]
MinExposure = Annotated[
    float,
    _option("--min-exposure-s", env="MIN_EXPOSURE_S", help="Least exposure for a distance to be fitted.", panel=FIT),
]
DtMs = Annotated[
    int,
    _option(
        "--dt-ms",
        env="POISSON_DT_MS",
        help="Copied into poisson_fit.json for other readers; mmlab integrates over real time.",
        panel=FIT,
    ),
]
TrainWindow = Annotated[
    int, _option("--train-window-min", env="WF_TRAIN_WINDOW_MIN", help="Minutes each fit looks back.", panel=FIT)
]
Step = Annotated[
    int,
    _option("--step-min", env="WF_STEP_MIN", help="Minutes each fit is used; starts at UTC multiples.", panel=FIT),
]
