"""One hour at ten times a real market's rate: memory must stay flat, and nothing may be missing."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench_record import SYMBOL, Load, cpu_s, peak_mib, result, venue
from benchmarks.table import markdown, write
from mmlab.serve.market import SynthSpec

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
MARKET = SynthSpec(updates_per_s=100, prints_per_s=220, levels=500)  # ten times spot BTCUSDT of 2024-08
ROWS = 6


def main() -> None:
    """Record, look at the process at equal distances, check the day."""
    context = multiprocessing.get_context("spawn")
    ports, over = context.Queue(), context.Event()
    load = Load("soak", MARKET, 1.0, 0, MINUTES * 60, "depth@100ms,trade")
    server = context.Process(target=venue, args=(load, ports, over))
    server.start()
    port = ports.get(timeout=120)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        recorder = subprocess.Popen(
            [
                sys.executable, "-c", "from mmlab.cli.app import main; main()", "record", "--symbol", SYMBOL,
                "--window", "always", "--streams", load.streams, "--data-root", str(root / "data"), "--out-root",
                str(root / "out"), "--ws-url", f"ws://127.0.0.1:{port}", "--rest-url", f"http://127.0.0.1:{port}",
                "--segment-min", "10", "--snapshot-min", "5", "--min-free-mb", "1", "--renew-h", "0.3",
            ],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(5)
        began, used = time.time(), cpu_s(recorder.pid)
        for n in range(1, ROWS + 1):
            time.sleep(max(began + n * MINUTES * 60 / ROWS - time.time(), 0))
            minutes, cpu = (time.time() - began) / 60, cpu_s(recorder.pid)
            memory = peak_mib(recorder.pid, "VmRSS")
            rows.append((f"{minutes:.0f}", f"{memory:.0f}", f"{(cpu - used) / (time.time() - began):.1%}"))
            print(rows[-1], flush=True)
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(300) == 0
        over.set()
        server.join(10)
        found = result(root / "data")
    text = markdown(("minutes", "resident MiB", "CPU of one core since the start"), rows)
    write(
        "soak",
        f"{text}\n\n{found['frames']:,} messages, {found['per_s']:,.0f} a second, no id missing, no undeclared hole.",
    )


if __name__ == "__main__":
    main()
