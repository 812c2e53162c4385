"""`mmlab backtest` and `mmlab walkforward`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.calib.spec import ProbeSpec, ScheduleSpec, parse_deltas
from mmlab.cli import options as o
from mmlab.cli.calibrate import make_job, make_spec, show_windows
from mmlab.cli.console import OUT, done, progress, table, warn

if TYPE_CHECKING:
    import polars as pl

    from mmlab.sim.spec import BacktestSpec

SHOWN = ("pnl_total", "realised_pnl", "unrealised_pnl", "fees", "max_drawdown", "orders_placed", "fills", "fill_ratio",
         "final_inventory", "max_abs_inventory", "time_to_first_fill_mean")  # fmt: skip


def backtest(
    symbol: o.Symbol,
    day: o.Day,
    venue: o.Venue = None,
    data_root: o.DataRoot = Path("data"),
    out_root: o.OutRoot = Path("out"),
    tick_size: o.TickSize = None,
    quote_model: o.QuoteModel = "avellaneda_stoikov",
    half_spread_ticks: o.HalfSpread = 2.0,
    gamma: o.Gamma = 0.1,
    sigma: o.Sigma = None,
    sigma_window_s: o.SigmaWindow = 600,
    horizon_s: o.Horizon = 1.0,
    quote_k: o.QuoteK = None,
    fill_model: o.FillModel = "trade_cross",
    fill_reach: o.FillReach = "touch",
    fill_params_file: o.FillParams = None,
    A: Annotated[float | None, typer.Option("--A", help="Intensity at the mid, per second and side.")] = None,
    k: Annotated[float | None, typer.Option("--k", help="Its decay per tick.")] = None,
    seed: o.Seed = 42,
    max_book_age_ms: o.MaxBookAge = 5_000,
    qty: o.Qty = 0.001,
    initial_cash: o.Cash = 1000.0,
    initial_inventory: o.Inventory = 0.0,
    max_inventory: o.MaxInventory = None,
    account: o.Account = "spot",
    entry_latency_ms: o.EntryLatency = 50,
    cancel_latency_ms: o.CancelLatency = 25,
    requote_interval_ms: o.Requote = 250,
    ttl_ms: o.Ttl = 0,
    maker_fee: o.MakerFee = 0.001,
    taker_fee: o.TakerFee = 0.001,
    post_only: o.PostOnly = True,
    draw: o.Report = False,
    log_root: o.LogRoot = None,
    log_level: o.LogLevel = "INFO",
    run_id: o.RunId = None,
    as_json: o.Json = False,
) -> None:
    """Simulate a strategy order by order over recorded days.

    Fills come from the tape (trade_cross: a print that reaches the order fills it) or from a calibrated
    intensity (poisson). k is per tick everywhere; the quotes convert it to price themselves.
    """
    from mmlab.flows.backtest import IntensitySource
    from mmlab.flows.backtest import backtest as run

    spec = _spec(
        quote_model, half_spread_ticks, gamma, sigma, sigma_window_s, horizon_s, quote_k, fill_model, fill_reach, seed,
        max_book_age_ms, qty, initial_cash, initial_inventory, max_inventory, account, entry_latency_ms,
        cancel_latency_ms, requote_interval_ms, ttl_ms, maker_fee, taker_fee, post_only,
    )  # fmt: skip
    job = make_job(symbol, day, venue, data_root, out_root, log_root, log_level, run_id, tick_size)
    with progress() as show:
        result = run(job, spec, IntensitySource(A, k, fill_params_file), show)
    warn(result.warnings)
    _finish(result.path, result.metrics, draw, as_json)


def walkforward(
    symbol: o.Symbol,
    day: o.Day,
    venue: o.Venue = None,
    data_root: o.DataRoot = Path("data"),
    out_root: o.OutRoot = Path("out"),
    tick_size: o.TickSize = None,
    train_window_min: o.TrainWindow = 120,
    step_min: o.Step = 15,
    deltas: o.Deltas = "1,2,3,5,8,13",
    dwell_ms: o.DwellMs = 60_000,
    mid_move_threshold_ticks: o.Threshold = 2.0,
    count: o.Count = "first_hit",
    reach: o.Reach = "touch",
    taker_side: o.TakerSide = False,
    max_delta_ticks: o.MaxDelta = 50,
    fit_method: o.FitMethod = "poisson_mle",
    min_exposure_s: o.MinExposure = 5.0,
    dt_ms: o.DtMs = 100,
    quote_model: o.QuoteModel = "avellaneda_stoikov",
    half_spread_ticks: o.HalfSpread = 2.0,
    gamma: o.Gamma = 0.1,
    sigma: o.Sigma = None,
    sigma_window_s: o.SigmaWindow = 600,
    horizon_s: o.Horizon = 1.0,
    quote_k: o.QuoteK = None,
    fill_model: o.FillModel = "poisson",
    fill_reach: o.FillReach = "touch",
    seed: o.Seed = 42,
    max_book_age_ms: o.MaxBookAge = 5_000,
    qty: o.Qty = 0.001,
    initial_cash: o.Cash = 1000.0,
    initial_inventory: o.Inventory = 0.0,
    max_inventory: o.MaxInventory = None,
    account: o.Account = "spot",
    entry_latency_ms: o.EntryLatency = 50,
    cancel_latency_ms: o.CancelLatency = 25,
    requote_interval_ms: o.Requote = 250,
    ttl_ms: o.Ttl = 0,
    maker_fee: o.MakerFee = 0.001,
    taker_fee: o.TakerFee = 0.001,
    post_only: o.PostOnly = True,
    draw: o.Report = False,
    log_root: o.LogRoot = None,
    log_level: o.LogLevel = "INFO",
    run_id: o.RunId = None,
    as_json: o.Json = False,
) -> None:
    """Calibrate every step on its past, then run one backtest whose (A, k) change over the day.

    Before the first good fit there is no intensity: avellaneda_stoikov does not quote and nothing is filled.
    """
    from mmlab.flows.walkforward import walkforward as run

    probes = ProbeSpec(
        parse_deltas(deltas), dwell_ms, mid_move_threshold_ticks, count, reach, taker_side, max_delta_ticks
    )
    spec = _spec(
        quote_model, half_spread_ticks, gamma, sigma, sigma_window_s, horizon_s, quote_k, fill_model, fill_reach, seed,
        max_book_age_ms, qty, initial_cash, initial_inventory, max_inventory, account, entry_latency_ms,
        cancel_latency_ms, requote_interval_ms, ttl_ms, maker_fee, taker_fee, post_only,
    )  # fmt: skip
    job = make_job(symbol, day, venue, data_root, out_root, log_root, log_level, run_id, tick_size)
    calibration = make_spec(probes, fit_method, min_exposure_s, dt_ms)
    with progress() as show:
        result = run(job, calibration, ScheduleSpec(train_window_min, step_min), spec, show)
    warn(result.warnings)
    show_windows(result.windows)
    if result.truth:
        _show_truth(result)
    _finish(result.path, result.metrics, draw, as_json)


def _spec(
    quote_model: str, half_spread_ticks: float, gamma: float, sigma: float | None, sigma_window_s: int,
    horizon_s: float, quote_k: float | None, fill_model: str, fill_reach: str, seed: int, max_book_age_ms: int,
    qty: float, initial_cash: float, initial_inventory: float, max_inventory: float | None, account: str,
    entry_latency_ms: int, cancel_latency_ms: int, requote_interval_ms: int, ttl_ms: int, maker_fee: float,
    taker_fee: float, post_only: bool,
) -> BacktestSpec:  # fmt: skip
    """The flags as one specification."""
    from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec

    return BacktestSpec(
        QuoteSpec(quote_model, half_spread_ticks, gamma, sigma, sigma_window_s, horizon_s, quote_k),
        FillSpec(fill_model, fill_reach, seed, max_book_age_ms),
        qty, initial_cash, initial_inventory, max_inventory, account, entry_latency_ms, cancel_latency_ms,
        requote_interval_ms, ttl_ms, maker_fee, taker_fee, post_only,
    )  # fmt: skip


def _show_truth(result: Any) -> None:
    """True against fitted (A, k), where the market is synthetic."""
    import polars as pl

    last = result.fits.filter((pl.col("side") == "both") & pl.col("ok")).row(-1, named=True)
    truth = next(p for p in reversed(result.truth) if p["start_ms"] * 1_000_000 < last["train_end_ns"])
    rows = [
        (name, truth[name], last[name], f"{last[f'{name}_low']:.6g} to {last[f'{name}_high']:.6g}")
        for name in ("A", "k")
    ]
    table("true against fitted, last training window", ("", "true", "fitted", "95% interval"), rows)


def _finish(path: Path, metrics: pl.DataFrame, draw: bool, as_json: bool) -> None:
    """Show the figures, draw the report if asked, and say where everything lies."""
    values = {metric: (value, unit) for metric, value, unit in metrics.iter_rows()}
    table("metrics", ("metric", "value", "unit"), [(name, *values[name]) for name in SHOWN])
    if draw:
        from mmlab.flows.report import make_report

        OUT.print(f"open {make_report(path)}")
    done({"path": str(path), **{name: value for name, (value, _) in values.items()}}, as_json)
