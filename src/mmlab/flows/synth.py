"""`mmlab synth`: a seeded market, written into the lake."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mmlab.core import schemas
from mmlab.flows.run import Progress, no_progress
from mmlab.store.lake import Lake
from mmlab.tape.synth import chunks, events
from mmlab.tape.synth_spec import SynthSpec, truth


@dataclass(frozen=True)
class Synthesised:
    """What was made, and where the first day lies."""

    path: Path
    frames: int
    prints: int


def synth(spec: SynthSpec, data_root: Path, replace: bool, progress: Progress = no_progress) -> Synthesised:
    """Make the market piece by piece, so that memory stays bounded; raises UsageError if a day exists."""
    created_by = {"command": "synth", "spec": {**asdict(spec), "day": f"{spec.day:%Y%m%d}"}}
    depth_table = schemas.depth(spec.levels)
    frames = prints = 0
    writer = Lake(data_root).writer(
        spec.instrument, levels=spec.levels, replace=replace, created_by=created_by, truth=truth(spec)
    )
    with writer:
        for depth, trades in chunks(spec):
            writer.append(depth_table, depth)
            writer.append(schemas.TRADES, trades)
            frames, prints = frames + depth.height, prints + trades.height
            progress("synth", frames, spec.n_frames)
        writer.append(schemas.EVENTS, events(spec))
        refs = writer.commit()
    return Synthesised(refs[0].path, frames, prints)
