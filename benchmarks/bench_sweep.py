"""Milliseconds for each further run of a sweep: 40 values of gamma over the generated day, equal to plain runs."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl

from benchmarks.market import DAY, lake_with_day
from benchmarks.table import markdown, peak_mib, write
from mmlab.core import schemas
from mmlab.flows.sweep import one
from mmlab.report.metrics import metrics
from mmlab.sim import events
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake

RUNS, ROUNDS, CHECKED = 40, 3, 4
BASE = BacktestSpec(
    QuoteSpec(sigma=0.0141, k=0.25, horizon_s=10.0), FillSpec("trade_cross", "queue"), qty=0.001, account="margin",
    entry_latency_ms=10, cancel_latency_ms=10, response_latency_ms=10, feed_latency="5", requote_interval_ms=100,
    maker_fee=0.00002,
)  # fmt: skip
SWEEPS = {
    "the loop of the duel": BASE,
    "sigma measured on the way": replace(BASE, quote=replace(BASE.quote, sigma=None)),
    "reach touch, decisions each 250 ms": replace(BASE, fill=FillSpec("trade_cross"), requote_interval_ms=250),
}
INTENSITY = Intensity.constant(1.5, 0.25)


def grid(base: BacktestSpec) -> list[BacktestSpec]:
    """`base` with each gamma."""
    gammas = [0.05 + 0.95 * i / (RUNS - 1) for i in range(RUNS)]
    return [replace(base, quote=replace(base.quote, gamma=gamma)) for gamma in gammas]


def plain(tape: events.Tape, spec: BacktestSpec) -> pl.DataFrame:
    """All tables of the run, then its metrics."""
    found = run(tape, spec, INTENSITY)
    return metrics(found.orders, found.fills, found.state, tape.instrument)


def sweep_ms(tape: events.Tape, specs: list[BacktestSpec], threads: int) -> tuple[float, list[pl.DataFrame]]:
    """Wall time for each run, and the figures of all."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        found = list(pool.map(lambda spec: one(tape, spec, INTENSITY), specs))
        return (time.perf_counter() - began) / len(specs) * 1e3, found


def plain_ms(tape: events.Tape, specs: list[BacktestSpec], found: list[pl.DataFrame]) -> float:
    """Median wall time of plain runs of some of the grid, whose figures have to be the same."""
    taken = []
    for i in range(0, len(specs), len(specs) // CHECKED):
        began = time.perf_counter()
        twin = plain(tape, specs[i])
        taken.append((time.perf_counter() - began) * 1e3)
        assert found[i].equals(twin), specs[i]
    return statistics.median(taken)


def main() -> None:
    """Each sweep on one thread and on two, and a few of its runs the plain way."""
    lake = Lake(lake_with_day())
    refs = lake.find("BENCH", DAY)
    depth = lake.read(refs, schemas.DEPTH, events.DEPTH_COLUMNS)
    tape = events.tape(depth, lake.read(refs, schemas.TRADES, events.TRADE_COLUMNS), lake.instrument(refs))
    del depth
    rows = []
    for name, base in SWEEPS.items():
        specs = grid(base)
        plain(tape, specs[0])
        one(tape, specs[0], INTENSITY)
        ms = {n: statistics.median(sweep_ms(tape, specs, n)[0] for _ in range(ROUNDS)) for n in (1, 2)}
        found = sweep_ms(tape, specs, 2)[1]
        assert len({tuple(figures["value"]) for figures in found}) > RUNS // 2, "nothing was swept"
        slow = plain_ms(tape, specs, found)
        fills = statistics.median(figures.filter(metric="fills")["value"][0] for figures in found)
        rows.append(
            (name, f"{fills:,.0f}", f"{slow:.0f}", f"{ms[1]:.0f}", f"**{ms[2]:.0f}**", f"{slow / ms[2]:.0f}",
             f"{peak_mib():.0f}")
        )  # fmt: skip
    head = ("sweep of 40 runs", "fills a run", "a plain run and its metrics, ms", "a run, one thread, ms",
            "a run, two threads, ms", "ratio", "peak memory, MiB")  # fmt: skip
    write("sweep", markdown(head, rows))


if __name__ == "__main__":
    main()
