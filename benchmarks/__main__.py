"""`python -m benchmarks [name ...]`: measure, each in a process of its own, and rewrite benchmarks/README.md."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.table import machine, write

NAMES = ("synth", "calib", "month", "peer", "sim", "duel", "sweep", "ingest", "record", "coverage", "paper", "grid")

if __name__ == "__main__":
    write("machine", machine())
    for name in sys.argv[1:] or NAMES:
        subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], check=True)
