"""The generated day that benchmarks run on: 864,000 book frames and 3,000,000 prints."""

from __future__ import annotations

import tempfile
from datetime import date
from pathlib import Path

from mmlab.core.spans import Days
from mmlab.flows.synth import synth
from mmlab.tape.synth_spec import SynthSpec

DAY = Days.parse("20250101")
SPEC = SynthSpec("BENCH", date(2025, 1, 1), hours=24.0, seed=1, prints_per_s=34.72)


def lake_with_day() -> Path:
    """A lake that holds the day; made once per machine start, in the temporary folder."""
    root = Path(tempfile.gettempdir()) / "mmlab-benchmarks"
    if not (root / "venue=synth" / "symbol=BENCH" / "day=20250101" / "manifest.json").exists():
        synth(SPEC, root, replace=True)
    return root
