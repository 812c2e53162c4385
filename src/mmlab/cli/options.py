"""The groups of flags that commands share, with environment variables and help, and the specs they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmlab.cli.flags import option
from mmlab.core.spans import Days

if TYPE_CHECKING:
    from mmlab.flows.run import Job
    from mmlab.sim.spec import BacktestSpec

DATA, RUN = "Data", "Run"
QUOTES, FILLS, ORDERS, ACCOUNT = "Quotes", "Fills", "Orders", "Account"

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
        str, option("--quote-model", env="QUOTE_MODEL", help="avellaneda_stoikov or fixed_spread.", panel=QUOTES)
    ] = "avellaneda_stoikov"
    half_spread_ticks: Annotated[
        float, option("--half-spread-ticks", help="fixed_spread: distance from the mid, ticks.", panel=QUOTES)
    ] = 2.0
    gamma: Annotated[
        float, option("--gamma", help="Risk aversion, 1 / quote currency, per order size.", panel=QUOTES)
    ] = 0.1
    sigma: Annotated[
        float | None,
        option(
            "--sigma", help="Volatility, quote currency per root second; default: measured on the past.", panel=QUOTES
        ),
    ] = None
    sigma_window_s: Annotated[int, option("--sigma-window-s", help="How far back it is measured.", panel=QUOTES)] = 600
    horizon_s: Annotated[float, option("--horizon-s", help="tau: how long a position is held.", panel=QUOTES)] = 1.0
    quote_k: Annotated[
        float | None, option("--quote-k", help="k of the quotes, per tick; default: the intensity's own.", panel=QUOTES)
    ] = None
    fill_reach: Annotated[
        str,
        option(
            "--fill-reach", help="trade_cross: touch, a print at the price fills; through, a tick more.", panel=FILLS
        ),
    ] = "touch"
    seed: Annotated[int, option("--seed", env="POISSON_SEED", help="Of the poisson fills.", panel=FILLS)] = 42
    max_book_age_ms: Annotated[
        int, option("--max-book-age-ms", help="poisson: no fills this long after the last book frame.", panel=FILLS)
    ] = 5_000
    qty: Annotated[float, option("--qty", env="QUOTE_QTY", help="Order size, base currency.", panel=ORDERS)] = 0.001
    entry_latency_ms: Annotated[
        int,
        option("--entry-latency-ms", env="ORDER_LATENCY_MS", help="From decision to the venue's book.", panel=ORDERS),
    ] = 50
    cancel_latency_ms: Annotated[
        int, option("--cancel-latency-ms", env="CANCEL_LATENCY_MS", help="From decision to cancelled.", panel=ORDERS)
    ] = 25
    requote_interval_ms: Annotated[
        int,
        option("--requote-interval-ms", env="REQUOTE_INTERVAL_MS", help="Least time between decisions.", panel=ORDERS),
    ] = 250
    ttl_ms: Annotated[
        int, option("--ttl-ms", env="ORDER_TTL_MS", help="Time to live; 0: until cancelled.", panel=ORDERS)
    ] = 0
    post_only: Annotated[
        bool,
        option("--post-only/--allow-taking", help="Refuse an order that would cross, or let it take.", panel=ORDERS),
    ] = True
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

        return BacktestSpec(
            QuoteSpec(
                self.quote_model,
                self.half_spread_ticks,
                self.gamma,
                self.sigma,
                self.sigma_window_s,
                self.horizon_s,
                self.quote_k,
            ),
            FillSpec(fill_model, self.fill_reach, self.seed, self.max_book_age_ms),
            self.qty,
            self.initial_cash,
            self.initial_inventory,
            self.max_inventory,
            self.account,
            self.entry_latency_ms,
            self.cancel_latency_ms,
            self.requote_interval_ms,
            self.ttl_ms,
            self.maker_fee,
            self.taker_fee,
            self.post_only,
        )
