"""Rank 2: the 15-minute grid for perpetual futures. Frames in, frames out; `from mmlab import grid` is all it takes.

    result = grid.GridStrategy(gamma=0.3).run(frame)      # timestamp (ms), open, high, low, close, volume
    result.metrics["total_return_pct"], result.trades, result.equity_curve, result.regime_log, result.tables
    grid.GridStrategy({**grid.STRATEGY_PARAMS, "leverage": 3}, fills="touch-through").run(frame, funding, minutes)
    grid.sweep(frame, gamma=[0.1, 0.5, 1.0], grid_levels=[5, 10])       # one row each

Coins of the lake instead of frames: `from mmlab.flows.simulator import BacktestSimulator`. The signals are in
`mmlab.grid.signals` and `mmlab.grid.regime`, each usable alone on arrays. docs/grid.md says what is decided and when.

Names are loaded when they are first used, so that `mmlab --help` does not pay for compiled kernels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlab.grid.params import GridParams, VenueParams
    from mmlab.grid.regime import REGIME_NAMES
    from mmlab.grid.strategy import STRATEGY_PARAMS, GridStrategy, Result, market_of, sweep

__all__ = [
    "REGIME_NAMES", "STRATEGY_PARAMS", "GridParams", "GridStrategy", "Result", "VenueParams", "market_of",
    "sweep",
]  # fmt: skip
HOMES = {
    "params": ("GridParams", "VenueParams"),
    "regime": ("REGIME_NAMES",),
    "strategy": ("STRATEGY_PARAMS", "GridStrategy", "Result", "market_of", "sweep"),
}


def __getattr__(name: str) -> Any:
    """A public name, from the file it lives in."""
    home = next((home for home, names in HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'mmlab.grid' has no attribute {name!r}")
    return getattr(import_module(f"mmlab.grid.{home}"), name)
