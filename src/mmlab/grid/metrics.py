"""What a run earned and risked: one small function a figure, its formula in the docstring; null where undefined."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.grid_schemas import GRID_FLOW_KINDS, GRID_LABELS, GRID_METRICS
from mmlab.core.spans import NS_PER_DAY
from mmlab.grid.layout import Floats

PORTFOLIO = "PORTFOLIO"
YEAR_NS = 365 * NS_PER_DAY
OPENINGS = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT")
PRUNES = tuple(label for label in GRID_LABELS if label.startswith("PRUNE"))


@dataclass(frozen=True)
class Account:
    """One account, or several added up, at the close of each bar; shape (n,) each, quote currency.

    capital: what it began with; held: what the same money had been worth in the coins; notional: both sides' positions
    at the close; halted: accounts (of one: 0 or 1) whose breaker was open.
    """

    capital: float
    interval_ns: int
    equity: Floats
    held: Floats
    notional: Floats
    halted: npt.NDArray[np.int64]
    fills: pl.DataFrame
    flows: pl.DataFrame
    verdicts: pl.DataFrame
    returns: Floats = field(init=False)
    nets: Floats = field(init=False)  # of closing fills: profit less the exit's fee
    labels: Mapping[str, int] = field(init=False)
    guards: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        before = np.concatenate(([self.capital], self.equity[:-1]))
        returns = np.divide(self.equity, before, out=np.ones_like(before), where=before > 0) - 1
        closed = self.fills.filter(~pl.col("label").is_in(OPENINGS))
        for name, value in (
            ("returns", returns),
            ("nets", (closed["pnl"] - closed["fee"]).to_numpy()),
            ("labels", counts(self.fills["label"])),
            ("guards", counts(self.verdicts["guard"])),
        ):
            object.__setattr__(self, name, value)

    @property
    def years(self) -> float:
        """How long it ran, bar by bar."""
        return len(self.equity) * self.interval_ns / YEAR_NS

    @property
    def bars_a_year(self) -> float:
        """Bars in 365 days."""
        return YEAR_NS / self.interval_ns


def counts(column: pl.Series) -> dict[str, int]:
    """How often each text occurs."""
    return dict(column.value_counts().iter_rows())


def account(made: Mapping[str, pl.DataFrame], capital: float, interval_ns: int) -> Account:
    """The account of one coin's tables (grid_equity, grid_fills, grid_flows, grid_verdicts)."""
    rows = made["grid_equity"]
    close = rows["close"].to_numpy()
    return Account(
        capital, interval_ns, rows["equity"].to_numpy(), capital * (close / close[0]),
        (rows["long_qty"] + rows["short_qty"]).to_numpy() * close, rows["halted"].cast(pl.Int64).to_numpy(),
        made["grid_fills"], made["grid_flows"], made["grid_verdicts"],
    )  # fmt: skip


def joint(made: Sequence[Mapping[str, pl.DataFrame]], capital: float, interval_ns: int) -> Account:
    """The accounts of several coins, one each of which began with capital / number of coins, added up.

    On the union of their bars; where a coin has no bar its last known value counts, before its first bar what it began
    with.
    """
    share = capital / len(made)
    bars = union(made)
    equity, held, notional = (np.zeros(len(bars)) for _ in range(3))
    halted = np.zeros(len(bars), np.int64)
    for each in made:
        one = account(each, share, interval_ns)
        place = np.searchsorted(each["grid_equity"]["open_ns"].to_numpy(), bars, side="right")
        equity += np.concatenate(([share], one.equity))[place]
        held += np.concatenate(([share], one.held))[place]
        notional += np.concatenate(([0.0], one.notional))[place]
        halted += np.concatenate(([0], one.halted))[place]
    fills, flows, verdicts = (
        pl.concat([each[name] for each in made]) for name in ("grid_fills", "grid_flows", "grid_verdicts")
    )
    return Account(capital, interval_ns, equity, held, notional, halted, fills, flows, verdicts)


def union(made: Sequence[Mapping[str, pl.DataFrame]]) -> npt.NDArray[np.int64]:
    """When the bars open that any of the coins has, each once, in order."""
    bars = pl.concat([each["grid_equity"].select("open_ns") for each in made]).unique().sort("open_ns")
    return bars["open_ns"].to_numpy()


def total_return_pct(a: Account) -> float | None:
    """100 (E_end / E_0 - 1)."""
    return 100 * (float(a.equity[-1]) / a.capital - 1)


def buy_hold_return_pct(a: Account) -> float | None:
    """100 (C_end / C_first - 1) on closes; of several coins with equal money in each at its first close."""
    return 100 * (float(a.held[-1]) / a.capital - 1)


def final_capital(a: Account) -> float | None:
    """E_end, all positions closed."""
    return float(a.equity[-1])


def drawdown(a: Account) -> Floats:
    """1 - E / highest E so far, the capital at the start included; shape (n,)."""
    fall: Floats = 1 - a.equity / np.maximum.accumulate(np.maximum(a.equity, a.capital))
    return fall


def max_drawdown_pct(a: Account) -> float | None:
    """100 max(1 - E / highest E so far), on closes of bars."""
    return 100 * float(drawdown(a).max())


def sharpe_ratio(a: Account) -> float | None:
    """mean(r) / std(r) sqrt(bars in 365 days), r the bars' returns, ddof 0, no risk-free rate. Sharpe (1966)."""
    spread = float(a.returns.std())
    return float(a.returns.mean()) / spread * math.sqrt(a.bars_a_year) if spread > 0 else None


def sortino_ratio(a: Account) -> float | None:
    """mean(r) / sqrt(mean(min(r, 0)^2)) sqrt(bars in 365 days): the downside about 0, over all bars. Sortino (1991)."""
    down = math.sqrt(float(np.mean(np.minimum(a.returns, 0) ** 2)))
    return float(a.returns.mean()) / down * math.sqrt(a.bars_a_year) if down > 0 else None


def annual_return_pct(a: Account) -> float | None:
    """100 ((E_end / E_0)^(1 / years) - 1), years of 365 days; of a short run it says little. Null if it overflows."""
    try:
        return 100 * (math.pow(max(float(a.equity[-1]) / a.capital, 0.0), 1 / a.years) - 1)
    except OverflowError:
        return None


def calmar_ratio(a: Account) -> float | None:
    """Annualised return / max drawdown. (The strategy's document divides the whole return, not a year's.)"""
    fall, gain = max_drawdown_pct(a), annual_return_pct(a)
    return gain / fall if fall and gain is not None else None


def win_rate_pct(a: Account) -> float | None:
    """100 times the share of closing fills with a net profit above 0."""
    return 100 * int((a.nets > 0).sum()) / len(a.nets) if len(a.nets) else None


def profit_factor(a: Account) -> float | None:
    """Gross profit / gross loss."""
    lost = gross_loss(a)
    return gross_profit(a) / lost if lost > 0 else None


def total_trades(a: Account) -> float:
    """Closing fills: take-profits, stops, prunes, liquidations and the closing at the end."""
    return float(len(a.nets))


def gross_profit(a: Account) -> float:
    """Sum of the closing fills' net profits (after the exit's fee) above 0."""
    return math.fsum(a.nets[a.nets > 0])


def gross_loss(a: Account) -> float:
    """The same of those below 0, as a positive number."""
    return 0.0 - math.fsum(a.nets[a.nets < 0])


def average_trade(a: Account) -> float | None:
    """(Gross profit - gross loss) / trades."""
    return math.fsum(a.nets) / len(a.nets) if len(a.nets) else None


def prune_count(a: Account) -> float:
    """Fills of all prunes."""
    return float(sum(a.labels.get(label, 0) for label in PRUNES))


def halted_bars(a: Account) -> float:
    """Bars at whose close the circuit breaker was open; of several coins their sum."""
    return float(a.halted.sum())


def funding_pnl(a: Account) -> float:
    """Sum of funding received less paid."""
    return math.fsum(a.flows.filter(flow=GRID_FLOW_KINDS[0])["amount"])


def insurance_paid(a: Account) -> float:
    """What the insurance fund paid after liquidations that left less than nothing."""
    return math.fsum(a.flows.filter(flow=GRID_FLOW_KINDS[1])["amount"])


def fees_paid(a: Account) -> float:
    """Sum of all fills' fees."""
    return math.fsum(a.fills["fee"])


def time_in_market_pct(a: Account) -> float | None:
    """100 times the share of bars at whose close a position was held."""
    return 100 * float((a.notional > 0).mean())


def exposure(a: Account) -> Floats:
    """Notional of both sides / equity at closes with equity above 0; shape (at most n,)."""
    alive = a.equity > 0
    share: Floats = a.notional[alive] / a.equity[alive]
    return share


def average_exposure(a: Account) -> float | None:
    """Mean of notional / equity over bars."""
    share = exposure(a)
    return float(share.mean()) if share.size else None


def largest_exposure(a: Account) -> float | None:
    """Highest notional / equity at a close."""
    share = exposure(a)
    return float(share.max()) if share.size else None


def turnover(a: Account) -> float:
    """Notional of all fills / capital at the start."""
    return math.fsum((a.fills["price"] * a.fills["qty"]).to_numpy()) / a.capital


def label_count(label: str) -> Callable[[Account], float]:
    """Fills with a label."""
    return lambda a: float(a.labels.get(label, 0))


def guard_count(*guards: str) -> Callable[[Account], float]:
    """Verdicts of these guards."""
    return lambda a: float(sum(a.guards.get(guard, 0) for guard in guards))


METRICS: dict[str, tuple[str, Callable[[Account], float | None]]] = {
    "total_return_pct": ("%", total_return_pct),
    "annual_return_pct": ("% a year", annual_return_pct),
    "buy_hold_return_pct": ("%", buy_hold_return_pct),
    "final_capital": ("quote currency", final_capital),
    "max_drawdown_pct": ("%", max_drawdown_pct),
    "sharpe_ratio": ("1", sharpe_ratio),
    "sortino_ratio": ("1", sortino_ratio),
    "calmar_ratio": ("1", calmar_ratio),
    "total_trades": ("fills", total_trades),
    "win_rate_pct": ("%", win_rate_pct),
    "profit_factor": ("1", profit_factor),
    "gross_profit": ("quote currency", gross_profit),
    "gross_loss": ("quote currency", gross_loss),
    "average_trade": ("quote currency", average_trade),
    "longs_opened": ("fills", label_count("BUY_OPEN_LONG")),
    "longs_closed": ("fills", label_count("SELL_CLOSE_LONG")),
    "shorts_opened": ("fills", label_count("SELL_OPEN_SHORT")),
    "shorts_closed": ("fills", label_count("BUY_CLOSE_SHORT")),
    "stops_long": ("fills", label_count("STOP_LONG")),
    "stops_short": ("fills", label_count("STOP_SHORT")),
    "prune_count": ("fills", prune_count),
    **{label.lower(): ("fills", label_count(label)) for label in PRUNES},
    "circuit_breaker_triggers": ("halts", guard_count("HALT")),
    "halted_bars": ("bars", halted_bars),
    "trailing_shifts": ("grids", guard_count("TRAILING")),
    "grids_laid": ("grids", guard_count("NEW_GRID", "TRAILING")),
    "var_blocks": ("bars", guard_count("VAR_BLOCK")),
    "liquidations": ("liquidations", guard_count("LIQUIDATED")),
    "funding_pnl": ("quote currency", funding_pnl),
    "fees_paid": ("quote currency", fees_paid),
    "insurance_paid": ("quote currency", insurance_paid),
    "time_in_market_pct": ("%", time_in_market_pct),
    "average_exposure": ("of equity", average_exposure),
    "largest_exposure": ("of equity", largest_exposure),
    "turnover": ("of capital", turnover),
}


def metrics(coin: str, a: Account) -> pl.DataFrame:
    """Every figure of METRICS as rows of the table grid_metrics, in its order."""
    rows = [(coin, name, found(a), unit) for name, (unit, found) in METRICS.items()]
    return pl.DataFrame(rows, schema=GRID_METRICS.schema, orient="row")


def portfolio(made: Sequence[Mapping[str, pl.DataFrame]], capital: float, interval_ns: int) -> pl.DataFrame:
    """The figures of all coins' accounts added up (see `joint`): from their joint curve, not means of their figures."""
    return metrics(PORTFOLIO, joint(made, capital, interval_ns))
