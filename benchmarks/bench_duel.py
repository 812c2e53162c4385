"""The backtest beside its peer: one Avellaneda-Stoikov loop over the generated day, by mmlab and by hftbacktest.

Every 100 ms both quote one post-only order a side by eqs. 29 and 30 of the paper, from the same sigma, k, gamma and
horizon, outward to the tick and never across the touch, and replace an order only if its price changed. Orders and
cancels reach the venue after 10 ms, reports come back after 10 ms, market data is 5 ms old. Orders are smaller than
most prints. The peer's loop is written as its tutorials write theirs (`benchmarks/peer/strategy.py`); its events are
made from the same lake before anything is timed, of the touch alone, which is all that mmlab reads, and of the whole
book.

What each models. mmlab: a print fills an order at a worse price than its own, or at its own once prints have consumed
the queue that was shown when its price was the touch; a print's quantity is shared once, so that orders are filled in
part. hftbacktest: the same two ways to be filled, with the queue that was shown at any level that its data has (none
at a level that it has not: there the first print at the price fills); an order is filled whole, however small the
print. Its exchange with partial fills cannot be used here: it ends early (its issues 301 and 312), and what is filled
in part is not in its account (issue 299). So it has more fills, and the same profit for each.

mmlab's seconds end with the checked tables of all orders, fills and states (the command's: also metrics, attribution
and files); the peer's with a record of the account at every step.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl

from benchmarks.bench_peer import PEER_VERSION, SCRIPTS, Peer, Ran, environment, peer_python, timing, whole
from benchmarks.market import DAY, SPEC, lake_with_day
from benchmarks.table import Timing, markdown, ratio, time_pairs, write
from mmlab.store.lake import Lake

ROUNDS, CALLS = 5, 6
GAMMA, SIGMA, TAU_S, K, QTY, FEE = 1.0, 0.0141, 10.0, 0.25, 0.001, 0.00002  # K per tick
STEP_MS, LATENCY_MS, FEED_MS = 100, 10, 5  # the day's events come to the recorder after FEED_MS
SPEC_TICK = float(SPEC.tick_size)
BOOKS = {"light": "the touch alone", "written": "the whole book"}


@dataclass(frozen=True)
class Found:
    """What came of a backtest."""

    fills: int
    turnover: float
    pnl: float

    @classmethod
    def of(cls, told: dict[str, float]) -> Found:
        """From figures by name."""
        return cls(int(told["fills"]), told["turnover"], told["pnl_total"])

    @property
    def bps(self) -> float:
        """Profit in 1/10,000 of what was traded."""
        return 10_000 * self.pnl / self.turnover


def arguments(lake: Path, out: str) -> list[str]:
    """`mmlab backtest` with the spec of the duel."""
    flags = {
        "symbol": "BENCH", "day": DAY, "data-root": lake, "out-root": out, "quote-model": "avellaneda_stoikov",
        "gamma": GAMMA, "sigma": SIGMA, "horizon-s": TAU_S, "quote-k": K, "qty": QTY, "account": "margin",
        "maker-fee": FEE, "fill-model": "trade_cross", "fill-reach": "queue", "requote-interval-ms": STEP_MS,
        "entry-latency-ms": LATENCY_MS, "cancel-latency-ms": LATENCY_MS, "response-latency-ms": LATENCY_MS,
        "feed-latency": FEED_MS,
    }  # fmt: skip
    return ["backtest", *(str(part) for name, value in flags.items() for part in (f"--{name}", value))]


def mmlab(lake: Path, cache: Path) -> Ran:
    """One whole process of ours."""
    with tempfile.TemporaryDirectory() as out:

        def found(_: str) -> Found:
            [file] = Path(out).glob("backtest/**/metrics.parquet")
            return Found.of(dict(pl.read_parquet(file, hive_partitioning=False).select("metric", "value").iter_rows()))

        return whole((Path(sys.executable).parent / "mmlab", *arguments(lake, out)), cache, found)


def in_process(lake: Path) -> tuple[Timing, Found]:
    """Calls from arrays in memory to checked tables."""
    from benchmarks.bench_sim import check
    from mmlab.core import schemas
    from mmlab.report.metrics import metrics
    from mmlab.sim import events
    from mmlab.sim.intensity import Intensity
    from mmlab.sim.run import Result, run
    from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec

    store = Lake(lake)
    refs = store.find("BENCH", DAY)
    depth = store.read(refs, schemas.DEPTH, events.DEPTH_COLUMNS)
    tape = events.tape(depth, store.read(refs, schemas.TRADES, events.TRADE_COLUMNS), store.instrument(refs))
    spec = BacktestSpec(
        QuoteSpec(gamma=GAMMA, sigma=SIGMA, k=K, horizon_s=TAU_S), FillSpec("trade_cross", "queue"), qty=QTY,
        account="margin", entry_latency_ms=LATENCY_MS, cancel_latency_ms=LATENCY_MS, response_latency_ms=LATENCY_MS,
        feed_latency=str(FEED_MS), requote_interval_ms=STEP_MS, maker_fee=FEE,
    )  # fmt: skip
    [taken] = time_pairs(lambda: run(tape, spec, Intensity.none()), repeats=CALLS - 1)
    made = taken.result
    assert isinstance(made, Result)
    check(made, spec)
    figures = metrics(made.orders, made.fills, made.state, tape.instrument)
    return taken, Found.of(dict(figures.select("metric", "value").iter_rows()))


@dataclass(frozen=True)
class Rival:
    """The peer's commands."""

    peer: Peer
    spec: Path

    @classmethod
    def of(cls, peer: Peer) -> Rival:
        """With the duel's spec in a file beside the events."""
        file = peer.folder / "spec.json"
        ms = 1_000_000
        spec = {
            "gamma": GAMMA, "sigma": SIGMA, "tau": TAU_S, "k": K / SPEC_TICK, "qty": QTY, "maker_fee": FEE,
            "step_ns": STEP_MS * ms, "entry_ns": LATENCY_MS * ms, "response_ns": LATENCY_MS * ms,
            "tick_size": SPEC_TICK, "lot_size": float(SPEC.lot_size),
        }  # fmt: skip
        file.write_text(json.dumps(spec))
        return cls(peer, file)

    def command(self, book: str, calls: int = 1) -> list[str]:
        """So many backtests in one process."""
        script = SCRIPTS / "strategy.py"
        return [str(part) for part in (self.peer.python, script, self.peer.file(book), calls, self.spec)]

    def run(self, book: str, cache: Path) -> Ran:
        """One whole process."""
        return whole(self.command(book), cache, lambda text: Found.of(json.loads(text)["found"]))

    def in_process(self, book: str, cache: Path) -> Timing:
        """Calls that compile nothing, from events in memory to records."""
        told = json.loads(subprocess.check_output(self.command(book, CALLS), env=environment(cache)))
        return Timing(tuple(told["seconds"][1:]), Found.of(told["found"]))


def check(ours: Found, others: Sequence[Found]) -> None:
    """Same order of magnitude: fills within a factor of 1.5, profit for what was traded within a tenth."""
    for other in others:
        assert ours.fills / 1.5 < other.fills < ours.fills * 1.5, (ours, other)
        assert abs(other.bps / ours.bps - 1) < 0.1, (ours, other)


def row(
    engine: str, what: str, runs: Sequence[Ran], inside: Timing | None, ours: tuple[Sequence[Ran], Timing]
) -> tuple[str, ...]:
    """A line of the table."""
    found: Found = runs[-1].found  # type: ignore[assignment]
    return (
        engine,
        what,
        "" if inside is None else f"{inside.median:.2f}",
        "" if inside is None else f"**{inside.median / ours[1].median:.1f}**",
        f"{timing(runs).median:.2f}",
        f"**{ratio(timing(runs), timing(ours[0])):.1f}**",
        f"{statistics.median(r.cpu_s for r in runs):.2f}",
        f"{max(r.peak_mib for r in runs):.0f}",
        f"{found.fills:,}",
        f"{found.pnl:.3f}",
        f"{found.bps:.3f}",
    )


def main() -> None:
    """The very first processes, then all in turn, then the calls inside a process."""
    python = peer_python()
    subprocess.run([sys.executable, "-c", "from benchmarks.market import lake_with_day; lake_with_day()"], check=True)
    lake = lake_with_day()  # made above, so that its memory is not this process's
    [ref] = Lake(lake).find("BENCH", DAY)
    with tempfile.TemporaryDirectory() as folder:
        peer, cache = Peer(python, Path(folder)), Path(folder) / "numba"
        n_events = peer.convert(ref.path)
        rival = Rival.of(peer)
        first = [mmlab(lake, cache)]
        rounds = [(mmlab(lake, cache), *(rival.run(book, cache) for book in BOOKS)) for _ in range(ROUNDS)]
        ours, *theirs = (list(runs) for runs in zip(*rounds, strict=True))
        warm = [rival.in_process(book, cache) for book in BOOKS]
        inside, found = in_process(lake)
    assert found == ours[-1].found == first[-1].found, "the command and the call differ"
    check(found, [runs[-1].found for runs in theirs])
    us, them = f"mmlab {version('mmlab')}", f"hftbacktest {PEER_VERSION}"
    base = ours, inside
    rows = [row(us, "`mmlab backtest`", ours, inside, base)]
    rows += [row(them, what, runs, t, base) for what, runs, t in zip(BOOKS.values(), theirs, warm, strict=True)]
    rows += [row(us, "its very first process, kernels compiled", first, None, (first, inside))]
    head = ("engine", "measured", "warm call, s", "ratio", "whole process, s", "ratio", "of CPU, s", "peak memory, MiB",
            "fills", "profit", "bps of turnover")  # fmt: skip
    sizes = " or ".join(f"{n_events[book]:,} events of {what}" for book, what in BOOKS.items())
    note = (
        f"864,000 frames and 2,986,393 prints for mmlab, {sizes} for the peer. A later process of mmlab compiles "
        "nothing; the peer's loop cannot be cached, so that each of its processes is its first. "
        "`benchmarks/bench_duel.py` says what each engine models, and why their fills differ."
    )
    write("duel", f"{markdown(head, rows)}\n\n{note}")


if __name__ == "__main__":
    main()
