"""`python -m benchmarks [name ...]`: measure, and rewrite benchmarks/README.md."""

from __future__ import annotations

import importlib
import sys

from benchmarks.table import machine, write

NAMES = ("synth", "calib", "sim", "ingest", "recovery")

if __name__ == "__main__":
    write("machine", machine())
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.bench_{name}").main()
