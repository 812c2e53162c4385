"""Does calibration find the truth? Bias and coverage over 1,000 seeded markets whose (A, k) is known."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from benchmarks.table import markdown, write
from mmlab.calib.fit import curves
from mmlab.calib.points import windows
from mmlab.calib.run import Tape, bucketed
from mmlab.calib.spec import FitSpec, ProbeSpec
from mmlab.core.schemas import FIT_METHODS, GAPS
from mmlab.tape.synth import chunks
from mmlab.tape.synth_spec import SynthSpec

SEEDS = 1000


def market(seed: int) -> Tape:
    """Half an hour with A = 1.5 and k = 0.25."""
    spec = SynthSpec(day=date(2025, 1, 1), hours=0.5, seed=seed)
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(spec), strict=True))
    return Tape(depth, trades, GAPS.empty(), spec.instrument)


def main() -> None:
    """One row for each counting rule and estimator."""
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    truth = SynthSpec()
    for seed in range(SEEDS):
        tape = market(seed)
        start, end = tape.span_ns
        for count in ("first_hit", "sweeps"):
            probes = ProbeSpec(count=count)
            window = windows(bucketed(tape, probes, start, end - start + 1)[0], np.array([0]), np.array([1]))
            for method in FIT_METHODS:
                found = curves(window, probes.deltas, FitSpec(method))
                errors = (np.log(found.A[0, 2] / truth.A), found.k[0, 2] - truth.k)
                rows.setdefault((count, method), []).append((*errors, found.se_log_A[0, 2], found.se_k[0, 2]))
    lines = []
    for (count, method), got in rows.items():
        e = np.array(got)
        z = e[:, :2].mean(axis=0) / (e[:, :2].std(axis=0, ddof=1) / np.sqrt(SEEDS))
        inside = (np.abs(e[:, :2]) < 1.96 * e[:, 2:]).mean(axis=0)
        bias = e[:, :2].mean(axis=0) / (1.0, truth.k)
        lines.append(
            (
                count,
                method,
                *(f"{b:+.2%} ({s:+.1f} s.e.)" for b, s in zip(bias, z, strict=True)),
                *(f"{c:.1%}" for c in inside),
            )
        )
    head = ("count", "estimator", "bias of A", "bias of k", "95% interval of A covers", "95% interval of k covers")
    write("recovery", markdown(head, lines))


if __name__ == "__main__":
    main()
