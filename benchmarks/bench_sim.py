"""Events per second of the backtest, from arrays in memory to checked tables."""

from __future__ import annotations

from decimal import Decimal

from benchmarks.market import DAY, lake_with_day
from benchmarks.table import Timing, markdown, peak_mib, time_pairs, write
from mmlab.core import schemas
from mmlab.sim import events
from mmlab.sim.intensity import Intensity
from mmlab.sim.run import Result, run
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.store.lake import Lake

QUOTES = {
    "fixed_spread, 3 ticks": QuoteSpec("fixed_spread", half_spread_ticks=3),
    "avellaneda_stoikov": QuoteSpec(gamma=0.5),
}


def check(found: Result, spec: BacktestSpec) -> None:
    """What was timed is right: the last cash is the first one plus the fold over all fills, to the last digit."""
    cash = Decimal(repr(spec.initial_cash))
    for side, price, qty, fee in found.fills.select("side", "price", "qty", "fee").iter_rows():
        cash -= side * Decimal(repr(price)) * Decimal(repr(qty)) + Decimal(repr(fee))
    assert Decimal(repr(found.state["cash"][-1])) == cash


def main() -> None:
    """Both quote models under both fill models."""
    lake = Lake(lake_with_day())
    refs = lake.find("BENCH", DAY)
    depth = lake.read(refs, schemas.DEPTH, events.DEPTH_COLUMNS)
    trades = lake.read(refs, schemas.TRADES, events.TRADE_COLUMNS)
    tape = events.tape(depth, trades, lake.instrument(refs))
    intensity = Intensity.constant(1.5, 0.25)
    rows = []
    for name, quote in QUOTES.items():
        for fill in ("trade_cross", "poisson"):
            spec = BacktestSpec(quote, FillSpec(fill), qty=0.01, initial_inventory=1.0)
            timing: Timing
            [timing] = time_pairs(lambda spec=spec: run(tape, spec, intensity), repeats=5)
            found = timing.result
            assert isinstance(found, Result)
            check(found, spec)
            n = tape.frame_ns.size + tape.print_ns.size
            made = found.orders.height + found.fills.height + found.state.height
            rows.append(
                (name, fill, f"{n:,}", f"{made:,}", f"{timing.median:.2f}", f"**{n / timing.median / 1e6:.1f} M**",
                 f"{peak_mib():.0f}")
            )  # fmt: skip
    head = ("quotes", "fills", "events", "rows written", "seconds", "events/s", "peak memory, MiB")
    write("sim", markdown(head, rows))


if __name__ == "__main__":
    main()
