"""Rank 2: fill intensity by virtual probes. Frames in, frames out; a notebook needs only `from mmlab import calib`.

    tape = calib.Tape.of(depth, trades, gaps, instrument)     # frames or lazy frames of the lake's tables
    calib.ladder(tape, calib.ProbeSpec((1, 2, 3, 5, 8, 13)), calib.FitSpec("nested_mle"))  # .points .fits .curves
    calib.rolling(tape, probes, fit, calib.ScheduleSpec(120, 15))      # .windows .fits .metrics .points
    calib.validate(points, fits, windows)                     # .steps .scores .stability .verdict
    calib.from_orders(orders, fills, state, instrument, fit)  # the same from orders that a backtest sent
    calib.rate(delta_ticks, A, k)                             # lambda(delta)

Names are loaded when they are first used, so that `mmlab --help` does not pay for compiled kernels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlab.calib.own import from_orders
    from mmlab.calib.run import Ladder, Tape, chosen, ladder, rolling
    from mmlab.calib.schedule import Schedule
    from mmlab.calib.shapes import rate
    from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec, ScheduleSpec
    from mmlab.calib.validation import Validation, validate
    from mmlab.core.instrument import Instrument

__all__ = [
    "AutoDeltas", "FitSpec", "Instrument", "Ladder", "ProbeSpec", "Schedule", "ScheduleSpec", "Tape", "Validation",
    "chosen", "from_orders", "ladder", "rate", "rolling", "validate",
]  # fmt: skip
HOMES = {
    "own": ("from_orders",),
    "run": ("Ladder", "Tape", "chosen", "ladder", "rolling"),
    "schedule": ("Schedule",),
    "shapes": ("rate",),
    "spec": ("AutoDeltas", "FitSpec", "ProbeSpec", "ScheduleSpec"),
    "validation": ("Validation", "validate"),
}


def __getattr__(name: str) -> Any:
    """A public name, from the file it lives in."""
    if name == "Instrument":
        return import_module("mmlab.core.instrument").Instrument
    home = next((home for home, names in HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'mmlab.calib' has no attribute {name!r}")
    return getattr(import_module(f"mmlab.calib.{home}"), name)
