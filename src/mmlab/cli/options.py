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

QUOTES, FILLS, ACCOUNT, ORDERS = "Quotes", "Fills", "Account", "Orders"
QuoteModel = Annotated[
    str, _option("--quote-model", env="QUOTE_MODEL", help="avellaneda_stoikov or fixed_spread.", panel=QUOTES)
]
HalfSpread = Annotated[
    float, _option("--half-spread-ticks", help="fixed_spread: distance from the mid, ticks.", panel=QUOTES)
]
Gamma = Annotated[float, _option("--gamma", help="Risk aversion, 1 / quote currency, per order size.", panel=QUOTES)]
Sigma = Annotated[
    float | None,
    _option("--sigma", help="Volatility, quote currency per root second; default: measured on the past.", panel=QUOTES),
]
SigmaWindow = Annotated[int, _option("--sigma-window-s", help="How far back it is measured.", panel=QUOTES)]
Horizon = Annotated[float, _option("--horizon-s", help="tau: how long a position is held.", panel=QUOTES)]
QuoteK = Annotated[
    float | None, _option("--quote-k", help="k of the quotes, per tick; default: the intensity's own.", panel=QUOTES)
]
FillModel = Annotated[
    str,
    _option("--fill-model", env="FILL_MODEL", help="trade_cross (the tape) or poisson (an intensity).", panel=FILLS),
]
FillReach = Annotated[
    str,
    _option("--fill-reach", help="trade_cross: touch, a print at the price fills; through, a tick more.", panel=FILLS),
]
FillParams = Annotated[
    Path | None,
    _option(
        "--fill-params-file",
        env="FILL_PARAMS_FILE",
        help="poisson_fit.json or poisson_schedule.json of mmlab calibrate.",
        panel=FILLS,
    ),
]
Seed = Annotated[int, _option("--seed", env="POISSON_SEED", help="Of the poisson fills.", panel=FILLS)]
MaxBookAge = Annotated[
    int, _option("--max-book-age-ms", help="poisson: no fills this long after the last book frame.", panel=FILLS)
]
Qty = Annotated[float, _option("--qty", env="QUOTE_QTY", help="Order size, base currency.", panel=ORDERS)]
Cash = Annotated[float, _option("--initial-cash", env="INITIAL_CASH", help="Quote currency.", panel=ACCOUNT)]
Inventory = Annotated[
    float, _option("--initial-inventory", env="INITIAL_INVENTORY", help="Base currency.", panel=ACCOUNT)
]
MaxInventory = Annotated[
    float | None, _option("--max-inventory", help="Largest position either way, open orders counted.", panel=ACCOUNT)
]
Account = Annotated[
    str, _option("--account", help="spot: orders reserve cash and inventory. margin: they do not.", panel=ACCOUNT)
]
EntryLatency = Annotated[
    int,
    _option("--entry-latency-ms", env="ORDER_LATENCY_MS", help="From decision to the venue's book.", panel=ORDERS),
]
CancelLatency = Annotated[
    int, _option("--cancel-latency-ms", env="CANCEL_LATENCY_MS", help="From decision to cancelled.", panel=ORDERS)
]
Requote = Annotated[
    int, _option("--requote-interval-ms", env="REQUOTE_INTERVAL_MS", help="Least time between decisions.", panel=ORDERS)
]
Ttl = Annotated[int, _option("--ttl-ms", env="ORDER_TTL_MS", help="Time to live; 0: until cancelled.", panel=ORDERS)]
MakerFee = Annotated[
    float,
    _option("--maker-fee", env="MAKER_FEE_RATE", help="Fraction of the notional; negative: rebate.", panel=ORDERS),
]
TakerFee = Annotated[
    float, _option("--taker-fee", env="TAKER_FEE_RATE", help="Fraction of the notional.", panel=ORDERS)
]
PostOnly = Annotated[
    bool,
    _option("--post-only/--allow-taking", help="Refuse an order that would cross, or let it take.", panel=ORDERS),
]
Report = Annotated[bool, _option("--report", help="Draw the run's page at once.", panel=RUN)]
