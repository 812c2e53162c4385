"""The groups of flags that commands share, with environment variables and help, and the specs they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mmlab.cli.flags import option
from mmlab.core.errors import UsageError
from mmlab.core.spans import Days

if TYPE_CHECKING:
    from mmlab.flows.run import Job
    from mmlab.sim.spec import BacktestSpec

DATA, RUN = "Data", "Run"
QUOTES, FILLS, ORDERS, LATENCY, ACCOUNT = "Quotes", "Fills", "Orders", "Latency", "Account"

DEFAULT_QUOTES = "avellaneda_stoikov"  # unless --ladder or --strategy says otherwise
DataRoot = Annotated[Path, option("--data-root", env="DATA_ROOT", help="The lake.", panel=DATA)]
OutRoot = Annotated[
    Path, option("--out-root", env=["OUT_ROOT", "OUT_DIR"], help="Where results are written.", panel=DATA)
]
Symbol = Annotated[str, option("--symbol", env="SYMBOL", help="Instrument, as the venue writes it.", panel=DATA)]
LogRoot = Annotated[
    Path | None, option("--log-root", env="LOG_ROOT", help="Run logs; default: OUT_ROOT/logs.", panel=RUN)
]
RunId = Annotated[
    str | None, option("--run-id", env="RUN_ID", help="Name of the run; default: the UTC time.", panel=RUN)
]
Json = Annotated[bool, option("--json", help="Print the result as JSON on the last line.", panel=RUN)]
Report = Annotated[bool, option("--report", help="Draw the run's page at once.", panel=RUN)]


@dataclass(frozen=True, kw_only=True)
class JobFlags:
    """Which days of which symbol, where they lie, and how the run is named and logged."""

    symbol: Symbol
    day: Annotated[str, option("--day", env="DAY", help="UTC day YYYYMMDD, or a range A..B.", panel=DATA)]
    venue: Annotated[
        str | None, option("--venue", env="VENUE", help="Needed only if two venues have the symbol.", panel=DATA)
    ] = None
    data_root: DataRoot = Path("data")
    out_root: OutRoot = Path("out")
    tick_size: Annotated[
        str | None,
        option(
            "--tick-size", env="TICK_SIZE", help="Price step; default: the day's own, from its manifest.", panel=DATA
        ),
    ] = None
    log_root: LogRoot = None
    log_level: Annotated[
        str, option("--log-level", env="LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.", panel=RUN)
    ] = "INFO"
    run_id: RunId = None

    def job(self) -> Job:
        """The job; raises UsageError for days that are none."""
        from mmlab.flows.run import Job

        return Job(
            self.symbol,
            Days.parse(self.day),
            self.venue,
            self.data_root,
            self.out_root,
            self.log_root,
            self.log_level,
            self.run_id,
            self.tick_size,
        )


@dataclass(frozen=True, kw_only=True)
class StrategyFlags:
    """Quotes, fills, orders and account of a backtest; what fills differs by command and is not here."""

    quote_model: Annotated[
        str,
        option(
            "--quote-model",
            env="QUOTE_MODEL",
            help="avellaneda_stoikov, glft, fixed_spread, inventory_skew, microprice or ladder.",
            panel=QUOTES,
        ),
    ] = DEFAULT_QUOTES
    strategy: Annotated[
        str | None,
        option(
            "--strategy",
            help="FILE.py:NAME, a function of your own: it takes a view and returns bid, ask[, bid_qty, ask_qty].",
            panel=QUOTES,
        ),
    ] = None
    half_spread_ticks: Annotated[
        float,
        option(
            "--half-spread-ticks",
            help="fixed_spread, inventory_skew, microprice: from the centre, ticks.",
            panel=QUOTES,
        ),
    ] = 2.0
    skew_ticks: Annotated[
        float,
        option(
            "--skew-ticks",
            help="inventory_skew, microprice: ticks that an order size of position shifts.",
            panel=QUOTES,
        ),
    ] = 0.0
    ladder: Annotated[
        str | None, option("--ladder", help="Quote at these distances from the mid, ticks: 1,2,3,5,8.", panel=QUOTES)
    ] = None
    levels: Annotated[int, option("--levels", help="Orders a side.", panel=QUOTES)] = 1
    level_step_ticks: Annotated[
        float, option("--level-step-ticks", help="From one level to the next.", panel=QUOTES)
    ] = 1.0
    gamma: Annotated[
        float, option("--gamma", help="Risk aversion, 1 / quote currency, per order size.", panel=QUOTES)
    ] = 0.1
    sigma: Annotated[
        float | None,
        option(
            "--sigma", help="Volatility, quote currency per root second; default: measured on the past.", panel=QUOTES
        ),
    ] = None
    sigma_method: Annotated[
        str, option("--sigma-method", help="rolling (a window) or ewma (a half-life).", panel=QUOTES)
    ] = "rolling"
    sigma_window_s: Annotated[int, option("--sigma-window-s", help="rolling: how far back.", panel=QUOTES)] = 600
    sigma_halflife_s: Annotated[
        float, option("--sigma-halflife-s", help="ewma: when a move counts half.", panel=QUOTES)
    ] = 300.0
    horizon: Annotated[
        str,
        option("--horizon", help="tau: rolling (always horizon-s), session (what is left of it).", panel=QUOTES),
    ] = "rolling"
    horizon_s: Annotated[float, option("--horizon-s", help="tau, or how long a session is, seconds.", panel=QUOTES)] = (
        1.0
    )
    quote_k: Annotated[
        float | None, option("--quote-k", help="k of the quotes, per tick; default: the intensity's own.", panel=QUOTES)
    ] = None
    quote_A: Annotated[
        float | None, option("--quote-A", help="A of the quotes (glft); default: the intensity's own.", panel=QUOTES)
    ] = None
    fill_reach: Annotated[
        str,
        option(
            "--fill-reach",
            help="A print or book at the price fills (touch), a tick beyond (through), or after the queue (queue).",
            panel=FILLS,
        ),
    ] = "touch"
    queue_cancels: Annotated[
        str,
        option("--queue-cancels", help="queue: cancels leave from behind you, or proportional.", panel=FILLS),
    ] = "behind"
    book_levels: Annotated[
        int, option("--book-levels", help="Levels that price_cross and takers fill from.", panel=FILLS)
    ] = 1
    seed: Annotated[
        int, option("--seed", env="POISSON_SEED", help="Of the poisson fills and drawn latencies.", panel=FILLS)
    ] = 42
    max_book_age_ms: Annotated[
        int, option("--max-book-age-ms", help="poisson: no fills this long after the last book frame.", panel=FILLS)
    ] = 5_000
    qty: Annotated[float, option("--qty", env="QUOTE_QTY", help="Order size, base currency.", panel=ORDERS)] = 0.001
    entry_latency_ms: Annotated[
        int,
        option("--entry-latency-ms", env="ORDER_LATENCY_MS", help="From decision to the venue's book.", panel=LATENCY),
    ] = 50
    cancel_latency_ms: Annotated[
        int, option("--cancel-latency-ms", env="CANCEL_LATENCY_MS", help="From decision to cancelled.", panel=LATENCY)
    ] = 25
    response_latency_ms: Annotated[
        int, option("--response-latency-ms", help="From a fill to the strategy's knowing of it.", panel=LATENCY)
    ] = 0
    latency_jitter: Annotated[
        str,
        option(
            "--latency-jitter",
            help="Drawn per message: none, exponential:MEAN_MS (added) or lognormal:SIGMA (about the latency).",
            panel=LATENCY,
        ),
    ] = "none"
    latency_file: Annotated[
        str | None,
        option(
            "--latency-file",
            help="Measured: CSV or Parquet with recv_ns or recv_ms and entry_ms, cancel_ms, response_ms.",
            panel=LATENCY,
        ),
    ] = None
    feed_latency: Annotated[
        str,
        option(
            "--feed-latency",
            help="How old market data are when received, ms; recorded: by the two clocks, offset corrected.",
            panel=LATENCY,
        ),
    ] = "0"
    feed_floor_ms: Annotated[
        int, option("--feed-floor-ms", help="recorded: what the fastest message took.", panel=LATENCY)
    ] = 1
    requote_interval_ms: Annotated[
        int,
        option("--requote-interval-ms", env="REQUOTE_INTERVAL_MS", help="Least time between decisions.", panel=ORDERS),
    ] = 250
    min_move_ticks: Annotated[
        int, option("--min-move-ticks", help="An order stays while its price is less off than this.", panel=ORDERS)
    ] = 1
    orders_per_10s: Annotated[
        int, option("--orders-per-10s", help="The venue's limit on new orders; 0: none.", panel=ORDERS)
    ] = 0
    ttl_ms: Annotated[
        int, option("--ttl-ms", env="ORDER_TTL_MS", help="Time to live; 0: until cancelled.", panel=ORDERS)
    ] = 0
    time_in_force: Annotated[str, option("--time-in-force", help="GTC, or IOC with --allow-taking.", panel=ORDERS)] = (
        "GTC"
    )
    post_only: Annotated[
        bool,
        option("--post-only/--allow-taking", help="Refuse an order that would cross, or let it take.", panel=ORDERS),
    ] = True
    size_to_balance: Annotated[
        bool,
        option("--size-to-balance", help="spot: send what the balance allows instead of nothing.", panel=ORDERS),
    ] = False
    initial_cash: Annotated[
        float, option("--initial-cash", env="INITIAL_CASH", help="Quote currency.", panel=ACCOUNT)
    ] = 1000.0
    initial_inventory: Annotated[
        float, option("--initial-inventory", env="INITIAL_INVENTORY", help="Base currency.", panel=ACCOUNT)
    ] = 0.0
    max_inventory: Annotated[
        float | None,
        option("--max-inventory", help="Largest position either way, open orders counted.", panel=ACCOUNT),
    ] = None
    account: Annotated[
        str, option("--account", help="spot: orders reserve cash and inventory. margin: they do not.", panel=ACCOUNT)
    ] = "spot"
    leverage: Annotated[
        float, option("--leverage", help="margin: largest notional in multiples of the equity; 0: none.", panel=ACCOUNT)
    ] = 0.0
    maker_fee: Annotated[
        float,
        option("--maker-fee", env="MAKER_FEE_RATE", help="Fraction of the notional; negative: rebate.", panel=ACCOUNT),
    ] = 0.001
    taker_fee: Annotated[
        float, option("--taker-fee", env="TAKER_FEE_RATE", help="Fraction of the notional.", panel=ACCOUNT)
    ] = 0.001

    def spec(self, fill_model: str) -> BacktestSpec:
        """The specification; raises UsageError naming the flag that cannot be meant."""
        from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec

        deltas = () if self.ladder is None else numbers("--ladder", self.ladder)
        implied = "strategy" if self.strategy is not None else "ladder" if deltas else None
        model = implied if implied and self.quote_model == DEFAULT_QUOTES else self.quote_model
        quote = QuoteSpec(
            model,
            A=self.quote_A,
            k=self.quote_k,
            deltas=deltas,
            **self._named("half_spread_ticks", "skew_ticks", "levels", "level_step_ticks", "gamma", "sigma",
                          "sigma_method", "sigma_window_s", "sigma_halflife_s", "horizon", "horizon_s", "strategy"),
        )  # fmt: skip
        fill = FillSpec(
            fill_model, self.fill_reach, **self._named("queue_cancels", "book_levels", "seed", "max_book_age_ms")
        )
        return BacktestSpec(
            quote, fill,
            **self._named("qty", "initial_cash", "initial_inventory", "max_inventory", "account", "leverage",
                          "entry_latency_ms", "cancel_latency_ms", "response_latency_ms", "latency_jitter",
                          "latency_file", "feed_latency", "feed_floor_ms", "requote_interval_ms", "min_move_ticks",
                          "orders_per_10s", "ttl_ms", "time_in_force", "post_only", "size_to_balance", "maker_fee",
                          "taker_fee"),
        )  # fmt: skip

    def _named(self, *names: str) -> dict[str, Any]:
        """These flags, whose fields have the same names."""
        return {name: getattr(self, name) for name in names}


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Numbers between commas; raises UsageError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} is {text!r}", remedy="give numbers between commas, like 1,2,3") from None
