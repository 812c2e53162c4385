"""How long a day of market takes to make and write, and which layout of the book scans faster."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks.market import DAY, SPEC, lake_with_day
from benchmarks.table import markdown, peak_mib, ratio, time_pairs, write
from mmlab.flows.synth import synth
from mmlab.store.lake import Lake


def day() -> None:
    """Wall time of `mmlab synth` for the whole day, written into a lake."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        made = synth(SPEC, Path(folder), replace=False)
        seconds = time.perf_counter() - began
    rows = [(f"{made.frames:,}", f"{made.prints:,}", f"**{seconds:.1f}**", f"{peak_mib():.0f}")]
    write("synth", markdown(("book frames", "prints", "seconds", "peak memory, MiB"), rows))


def layout() -> None:
    """Scan the touch out of 20 levels, kept as 80 columns and as four array columns."""
    lake = Lake(lake_with_day())
    refs = lake.find("BENCH", DAY)
    part = pl.read_parquet(sorted((refs[0].path / "depth").glob("part-*.parquet"))[:1])
    names = [f"{side}_{kind}" for side in ("bid", "ask") for kind in ("px", "qty")]
    wide = part.with_columns(pl.col(f"{n}_{i % 5 + 1}").alias(f"{n}_{i + 1}") for n in names for i in range(5, 20))
    arrays = wide.select("recv_ns", *(pl.concat_arr([f"{n}_{i}" for i in range(1, 21)]).alias(n) for n in names))
    with tempfile.TemporaryDirectory() as folder:
        a, b = (str(Path(folder) / f"{name}.parquet") for name in ("columns", "arrays"))
        wide.write_parquet(a, compression_level=3)
        arrays.write_parquet(b, compression_level=3)
        columns, array = time_pairs(
            lambda: pl.read_parquet(a, columns=["recv_ns", "bid_px_1", "ask_px_1"]),
            lambda: (
                pl.scan_parquet(b).select("recv_ns", pl.col("bid_px").arr.get(0), pl.col("ask_px").arr.get(0)).collect()
            ),
        )
        assert (columns.result["bid_px_1"] == array.result["bid_px"]).all()
        sizes = [Path(p).stat().st_size / 2**20 for p in (a, b)]
    rows = [
        ("80 columns (chosen)", f"{columns.median * 1e3:.1f}", "1", f"{sizes[0]:.1f}"),
        ("4 arrays of 20", f"{array.median * 1e3:.1f}", f"**{ratio(array, columns):.1f}**", f"{sizes[1]:.1f}"),
    ]
    head = (f"{wide.height:,} frames, 20 levels", "scan of the touch, ms", "ratio", "MiB")
    write("layout", markdown(head, rows))


def main() -> None:
    """Run all of this file's benchmarks."""
    day()
    layout()


if __name__ == "__main__":
    main()
