"""Calibration against reading: what the probe join, points and fits cost beside the scan of their columns."""

from __future__ import annotations

import subprocess
import sys
import time
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

DELTAS = tuple(range(1, 51))
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


def joins(root: Path) -> None:
    """Ratio of calibration to reading, for each counting rule, for few and for many distances."""
    read = bare_reader(root)
    tape = reader(root)()
    rows = []
    for count in COUNT_RULES:
        for deltas in ((1, 2, 3, 5, 8, 13), DELTAS):
            spec = ProbeSpec(deltas, count=count)
            scan, fit = time_pairs(read, lambda spec=spec: ladder(tape, spec, FitSpec()))
            found = fit.result.fits.row(index=2, named=True)
            assert found["ok"], found["reason"]
            if count != "all_hits":
                assert abs(found["k"] - 0.25) < 0.01, found
                assert abs(np.log(found["A"] / 1.5)) < 0.02, found
            n = tape.depth.height + tape.trades.height
            rows.append(
                (
                    count,
                    len(deltas),
                    f"{scan.median * 1e3:.0f}",
                    f"{fit.median * 1e3:.0f}",
                    f"**{ratio(fit, scan):.2f}**",
                    f"{n / fit.median / 1e6:.0f} M",
                    f"{peak_mib():.0f}",
                )
            )
    head = ("count", "distances", "read, ms", "join, points, fits, ms", "ratio to read", "rows/s", "peak memory, MiB")
    write("join", markdown(head, rows))


def windows(root: Path) -> None:
    """What 1,400 windows cost beside 60, read included and read left out."""
    read = reader(root)
    tape = read()
    spec, fit = ProbeSpec(DELTAS), FitSpec()
    few, many = time_pairs(lambda: rolling(tape, spec, fit, FEW), lambda: rolling(tape, spec, fit, MANY), repeats=15)
    whole_few, whole_many = time_pairs(
        lambda: rolling(read(), spec, fit, FEW), lambda: rolling(read(), spec, fit, MANY), repeats=15
    )
    counts = [t.result[1].windows.height for t in (few, many)]
    rows = [
        (what, counts[0], counts[1], f"{a.median * 1e3:.0f}", f"{b.median * 1e3:.0f}", f"**{ratio(b, a):.2f}**")
        for what, a, b in (
            ("from frames in memory", few, many),
            ("from Parquet to the schedule", whole_few, whole_many),
        )
    ]
    write("windows", markdown(("measured", "few", "many", "few, ms", "many, ms", "ratio"), rows))


START = """
import time
from pathlib import Path
from benchmarks.bench_calib import DELTAS, reader
from mmlab.calib.run import ladder
from mmlab.calib.spec import FitSpec, ProbeSpec
tape = reader(Path({root!r}))()
began = time.perf_counter()
ladder(tape, ProbeSpec(DELTAS), FitSpec())
first = time.perf_counter() - began
began = time.perf_counter()
ladder(tape, ProbeSpec(DELTAS), FitSpec())
print(first, time.perf_counter() - began)
"""


def second_process(root: Path) -> None:
    """A fresh process finds the compiled kernels on disk: its first call against its second."""
    import os
    import tempfile

    def once(cache: str) -> list[float]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        text = subprocess.run(
            [sys.executable, "-c", START.format(root=str(root))], env=environment, check=True, capture_output=True
        ).stdout
        return [float(x) for x in text.split()]

    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        cold = once(cache)
        warm = [once(cache) for _ in range(5)]
        print(f"second process: {time.perf_counter() - began:.0f} s")
    first = sorted(w[0] for w in warm)[2]
    again = sorted(w[1] for w in warm)[2]
    rows = [
        ("the very first process, kernels compiled", f"{cold[0] * 1e3:.0f}"),
        ("first call of a later process", f"{first * 1e3:.0f}"),
        ("second call of a later process", f"{again * 1e3:.0f}"),
    ]
    write("cache", markdown(("ladder, 50 distances", "ms"), rows))


def main() -> None:
    """Run all of this file's benchmarks."""
    root = lake_with_day()
    joins(root)
    windows(root)
    second_process(root)


if __name__ == "__main__":
    main()
