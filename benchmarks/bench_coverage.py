"""`python -m benchmarks.bench_coverage [seeds]`: do intervals cover the truth? Rewrites the tables of docs/coverage.md.

Every market has its own seed, so that the same number of seeds gives the same tables. Two processes share them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.pool import Pool
from pathlib import Path

import polars as pl

from benchmarks.coverage import studies, tables
from benchmarks.table import write

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
SEEDS, PROCESSES = 1_000, 2
FEWER = {"sweeps": 5, "million": 50, "own": 5}  # one seed in so many: these compare markets, or are long
FIRST_SEED = {"constant": 0, "changing": 1_000_000, "bursts": 2_000_000, "sweeps": 3_000_000, "million": 4_000_000,
              "own": 5_000_000}  # fmt: skip


def number(name: str, seeds: int) -> int:
    """How many seeds a part takes."""
    return max(seeds // FEWER.get(name, 1), 2)


def measured(name: str, seeds: int, pool: Pool) -> pl.DataFrame:
    """The rows of one part over all its seeds, in their order."""
    began, first = time.perf_counter(), FIRST_SEED[name]
    n = number(name, seeds)
    made: pl.DataFrame = pl.concat(
        pool.imap(getattr(studies, name), range(first, first + n), chunksize=max(min(n // 4, 10), 1))
    )
    print(f"{name}: {n:,} seeds, {time.perf_counter() - began:.0f} s", flush=True)
    return made


def main() -> None:
    """Measure all parts, then write."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    os.environ["POLARS_MAX_THREADS"] = "1"  # the processes to come are the threads
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        found = {name: measured(name, seeds, pool) for name in FIRST_SEED}
    for name, text in tables.named(found):
        write(name, text, PAGE)
    fewer = {name: number(name, seeds) for name in FEWER}
    text = (
        f"{seeds:,} seeds; {fewer['sweeps']:,} where orders print more often, {fewer['million']:,} at a million prints"
    )
    write("seeds", f"These tables: {text}.", PAGE)


if __name__ == "__main__":
    main()
