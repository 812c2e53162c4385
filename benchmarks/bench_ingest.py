"""Lines per second of `mmlab import raw`, from a gzip file to a checked lake."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import markdown, peak_mib, write
from mmlab.flows.import_raw import ImportSpec, import_raw
from mmlab.store.lake import Lake

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from reference.recording import write_recording

SECONDS = 5_000
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def timed(files: list[Path], spec: ImportSpec) -> tuple[int, float]:
    """Lines and seconds of one import; the day must pass its own verification."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        began = time.perf_counter()
        report = import_raw(spec, files, lake)
        seconds = time.perf_counter() - began
        for ref in lake.days():
            assert lake.verify(ref) == []
            assert lake.manifest(ref).condition == "complete"
        assert report.lines > 0
        return report.lines, seconds


def main() -> None:
    """A generated recording, and the real ones where they lie beside the project."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "recording.gz"
        write_recording(made, SECONDS)
        jobs = {"generated, 40 levels": ([made], ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001"))}
        real = sorted(SHARED.glob("spot_btcusdt_*.gz"))
        if real:
            jobs["BTCUSDT spot, real"] = (real, ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001"))
        for name, (files, spec) in jobs.items():
            lines, seconds = timed(files, spec)
            rows.append((name, f"{lines:,}", f"{seconds:.1f}", f"**{lines / seconds:,.0f}**", f"{peak_mib():.0f}"))
    write("ingest", markdown(("recording", "lines", "seconds", "lines/s", "peak memory, MiB"), rows))


if __name__ == "__main__":
    main()
