"""The recorder under load: messages a second with nothing lost, lag, memory, CPU at the real rate, bytes a message."""

from __future__ import annotations

import asyncio
import gzip
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.table import markdown, write
from mmlab.core import schemas
from mmlab.flows.check import check
from mmlab.flows.compact import journal_root
from mmlab.serve.market import Synthetic, SynthSpec
from mmlab.serve.truth import Truth
from mmlab.serve.venue import ServeSpec, Venue
from mmlab.store.journal_file import SegmentReader
from mmlab.store.lake import Lake

SYMBOL = "TESTUSDT"
BURST = SynthSpec(updates_per_s=2000, prints_per_s=3000, levels=200)  # an update changes some 8 levels
REAL = SynthSpec(updates_per_s=60, prints_per_s=22, levels=1000)  # 153 messages a second: spot BTCUSDT in 2024-08
BUSY = SynthSpec(updates_per_s=1000, prints_per_s=2500, levels=200)
STREAMS = "depth@100ms,trade,bookTicker"


@dataclass(frozen=True)
class Load:
    """One load: what is played, how fast, for how many events (0: until the time is over)."""

    name: str
    spec: SynthSpec
    speed: float
    events: int
    seconds: float
    streams: str = STREAMS


def venue(load: Load, port: Any, over: Any) -> None:
    """A venue in a process of its own; what it plays is made before it is played."""
    made = Synthetic(load.spec, time.time_ns())
    states = made.states()
    events: Any = made.events() if not load.events else list(islice(made.events(), load.events))

    async def play() -> None:
        spec = ServeSpec(speed=load.speed, rebase=load.speed > 0)
        async with Venue(states, events, spec, time.time_ns, [], Truth(keep=False)) as played:
            port.put(played.port)
            await asyncio.to_thread(over.wait)

    asyncio.run(play())


def measure(load: Load, folder: Path) -> dict[str, Any]:
    """Record a load with `mmlab record` in a process of its own, check the day, and say what it took."""
    context = multiprocessing.get_context("spawn")
    ports, over = context.Queue(), context.Event()
    server = context.Process(target=venue, args=(load, ports, over))
    server.start()
    port = ports.get(timeout=120)
    command = [
        sys.executable, "-c", "from mmlab.cli.app import main; main()", "record", "--symbol", SYMBOL, "--window",
        "always", "--streams", load.streams, "--data-root", str(folder / "data"), "--out-root", str(folder / "out"),
        "--ws-url", f"ws://127.0.0.1:{port}", "--rest-url", f"http://127.0.0.1:{port}", "--keep-raw",
        "--snapshot-min", "0.2", "--min-free-mb", "1",
    ]  # fmt: skip
    recorder = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(4)
    before, began = cpu_s(recorder.pid), time.time()
    time.sleep(load.seconds)
    used = (cpu_s(recorder.pid) - before) / (time.time() - began)
    peak = peak_mib(recorder.pid)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(120) == 0
    over.set()
    server.join(10)
    return {**result(folder / "data"), "cpu": used, "peak_mib": peak}


def result(root: Path) -> dict[str, Any]:
    """What lies in the lake: nothing is missing, and so many messages came in so many seconds."""
    lake = Lake(root)
    refs = lake.days(symbol=SYMBOL)
    faults = [fault for day in check(lake, refs, lambda *_: None) for fault in day.faults]
    assert not faults, faults
    kinds = read(lake, refs, schemas.EVENTS)["kind"].to_list()
    assert "overload" not in kinds, "messages were dropped"
    assert kinds.count("sync") == 1, "the book was lost"
    gaps = read(lake, refs, schemas.GAPS)
    assert gaps["first_missing"].drop_nulls().is_empty(), "something is missing"
    live = [read(lake, refs, t) for t in (schemas.TRADES, schemas.DIFFS, schemas.BOOK_TICKER)]
    times = pl.concat([f["recv_ns"] for f in live if f.height])
    frames = sum(e.frames for ref in refs for e in lake.manifest(ref).segments.values())
    lag = read(lake, refs, schemas.LATENCY).filter(pl.col("kind") == "journal").row(-1, named=True)
    journals = list(journal_root(root, "binance-spot").glob("*/*.mmj"))
    raw = b"".join(b"%d %s\n" % (r.recv_ns, r.payload) for path in journals for r in SegmentReader(path))
    parquet = sum(p.bytes for ref in refs for made in lake.manifest(ref).tables.values() for p in made)
    return {
        "frames": frames,
        "per_s": frames / ((times.max() - times.min()) / 1e9),
        "lag": lag,
        "journal": sum(p.stat().st_size for p in journals) / frames,
        "parquet": parquet / frames,
        "gzip": len(gzip.compress(raw, 6)) / frames,
        "raw": len(raw) / frames,
    }


def read(lake: Lake, refs: Any, table: Any) -> pl.DataFrame:
    """A table of all days."""
    return lake.read(refs, table, table.schema.names())


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int, name: str = "VmHWM") -> float:
    """Largest resident memory so far (or VmRSS: now)."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Three loads: as fast as it goes, a sustained 5,000 a second, and a real market's rate."""
    loads = [
        Load("as fast as it is read", BURST, 0.0, 400_000, 25, "depth@100ms,trade"),
        Load("5,000 a second", BUSY, 1.0, 0, 20, "depth@100ms,trade"),
        Load("a real market's rate", REAL, 1.0, 0, 30),
    ]  # fmt: skip
    rows = []
    for load in loads:
        with tempfile.TemporaryDirectory() as folder:
            m = measure(load, Path(folder))
        lag = m["lag"]
        rows.append(
            (
                load.name, f"{m['frames']:,}", f"{m['per_s']:,.0f}", f"{m['cpu']:.0%}", f"{m['peak_mib']:.0f}",
                f"{lag['p50'] / 1e6:.0f} / {lag['p99'] / 1e6:.0f} / {lag['p999'] / 1e6:.0f}",
                f"{m['raw']:.0f}", f"{m['gzip']:.0f}", f"{m['journal']:.0f}", f"{m['parquet']:.0f}",
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    head = (
        "load", "messages", "a second", "CPU of one core", "peak MiB", "receipt to journal p50 / p99 / p99.9, ms",
        "raw, bytes a message", "gzip -6", "journal kept", "Parquet",
    )  # fmt: skip
    write("record", markdown(head, rows))


if __name__ == "__main__":
    main()
