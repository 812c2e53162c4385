"""Calibration against reading: what the probe join, points and fits cost beside the scan of their columns."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.market import DAY, lake_with_day
from benchmarks.table import markdown, peak_mib, ratio, time_pairs, write
from mmlab.calib.hits import TRADE_COLUMNS
from mmlab.calib.probes import DEPTH_COLUMNS
from mmlab.calib.run import GAP_COLUMNS, Tape, ladder, rolling
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.schemas import COUNT_RULES
from mmlab.flows.tape import TapeReader
from mmlab.store.lake import Lake

NARROW, WIDE, WIDEST = (1, 2, 3, 5, 8, 13), tuple(range(1, 51)), tuple(range(1, 201))
DELTAS = WIDE
NESTED, SCHEDULE = FitSpec("nested_mle"), ScheduleSpec(120, 15)
MANY, FEW = ScheduleSpec(40, 1), ScheduleSpec(40, 23)  # 1,400 and 60 windows over 24 hours


def reader(root: Path) -> Callable[[], Tape]:
    """A call that reads the columns calibration needs, checked, from the lake."""
    lake = Lake(root)
    refs = lake.find("BENCH", DAY)
    instrument = lake.instrument(refs)

    return TapeReader(lake, refs, instrument).whole


def bare_reader(root: Path) -> Callable[[], list[pl.DataFrame]]:
    """The baseline: the same columns by `polars.read_parquet` alone, without manifest, footer or contract checks."""
    lake = Lake(root)
    [ref] = lake.find("BENCH", DAY)
    tables = lake.manifest(ref).tables
    jobs = [
        ([ref.path / name / part.file for part in tables[name]], list(columns))
        for name, columns in (("depth", DEPTH_COLUMNS), ("trades", TRADE_COLUMNS), ("gaps", GAP_COLUMNS))
        if name in tables
    ]
    return lambda: [pl.read_parquet(paths, columns=columns, hive_partitioning=False) for paths, columns in jobs]


def probes(deltas: tuple[int, ...], count: str = "first_hit") -> ProbeSpec:
    """Probes at these distances."""
    return ProbeSpec(deltas, count=count, max_delta_ticks=None)


def check(fits: pl.DataFrame, count: str) -> None:
    """What was timed is right: the last good pooled curve is the market's, but for all_hits, which counts sweeps."""
    found = fits.filter((pl.col("side") == "both") & (pl.col("family") == "exponential")).row(-1, named=True)
    assert found["ok"], found["reason"]
    if count != "all_hits":
        assert abs(found["k"] - 0.25) < 0.02, found
        assert abs(np.log(found["A"] / 1.5)) < 0.1, found


def joins(root: Path) -> None:
    """Ratio of calibration to reading: a whole day's curve, and a schedule, for few and for many distances."""
    read = bare_reader(root)
    tape = reader(root)()
    rows = []
    for deltas in (NARROW, WIDE, WIDEST):
        for count in COUNT_RULES if deltas is WIDEST else ("first_hit",):
            spec = probes(deltas, count)
            scan, whole, steps = time_pairs(
                read,
                lambda spec=spec: ladder(tape, spec, NESTED),
                lambda spec=spec: rolling(tape, spec, NESTED, SCHEDULE),
            )
            check(whole.result.fits, count)
            check(steps.result.fits, count)
            n = tape.depth.height + tape.trades.height
            rows.append(
                (
                    count,
                    len(deltas),
                    f"{scan.median * 1e3:.0f}",
                    f"{whole.median * 1e3:.0f}",
                    f"**{ratio(whole, scan):.2f}**",
                    f"{steps.median * 1e3:.0f}",
                    f"**{ratio(steps, scan):.2f}**",
                    f"{n / steps.median / 1e6:.0f} M",
                    f"{peak_mib():.0f}",
                )
            )
    head = ("count", "distances", "read, ms", "ladder, ms", "ratio to read", "schedule of 88 steps, ms",
            "ratio to read", "rows/s", "peak memory, MiB")  # fmt: skip
    write("join", markdown(head, rows))


def windows(root: Path) -> None:
    """What 1,400 windows cost beside 61, read included and read left out."""
    read = reader(root)
    tape = read()
    rows = []
    for deltas in (WIDE, WIDEST):
        spec = probes(deltas)
        for what, tape_of in (("from frames in memory", lambda: tape), ("from Parquet to the schedule", read)):
            few, many = time_pairs(
                lambda spec=spec, tape_of=tape_of: rolling(tape_of(), spec, NESTED, FEW),
                lambda spec=spec, tape_of=tape_of: rolling(tape_of(), spec, NESTED, MANY),
                repeats=31,
            )
            check(many.result.fits, "first_hit")
            counts = [t.result.windows.height for t in (few, many)]
            times = (f"{t.median * 1e3:.0f}" for t in (few, many))
            rows.append((what, len(deltas), *counts, *times, f"**{ratio(many, few):.2f}**"))
    write("windows", markdown(("measured", "distances", "few", "many", "few, ms", "many, ms", "ratio"), rows))


START = """
import time
from pathlib import Path
from benchmarks.bench_calib import DELTAS, reader
from mmlab.calib.run import ladder
from mmlab.calib.spec import FitSpec, ProbeSpec
tape = reader(Path({root!r}))()
began = time.perf_counter()
ladder(tape, ProbeSpec(DELTAS), FitSpec("nested_mle"))
first = time.perf_counter() - began
began = time.perf_counter()
ladder(tape, ProbeSpec(DELTAS), FitSpec("nested_mle"))
print(first, time.perf_counter() - began)
"""


def first_call(root: Path) -> None:
    """What a process pays once: its first calibration against its second."""

    def once() -> list[float]:
        code = START.format(root=str(root))
        text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
        return [float(x) for x in text.split()]

    runs = [once() for _ in range(5)]
    rows = [
        (f"{what} call of a process", f"{statistics.median(run[i] for run in runs) * 1e3:.0f}")
        for i, what in enumerate(("first", "second"))
    ]
    write("cache", markdown(("ladder, 50 distances", "ms"), rows))


def main() -> None:
    """Run all of this file's benchmarks."""
    root = lake_with_day()
    joins(root)
    windows(root)
    first_call(root)


if __name__ == "__main__":
    main()
