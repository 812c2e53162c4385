"""What a search may vary: ranges of the grid's parameters, checked, and how widely they scatter by chance alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmlab.core.errors import UsageError
from mmlab.grid.params import GridParams, from_mapping

# The strategy document's OPTIMIZER_SPACE
DEFAULT: dict[str, Mapping[str, Any]] = {
    "grid_spacing_k": {"low": 0.8, "high": 2.5},
    "spacing_floor": {"low": 0.004, "high": 0.010},
    "grid_levels": {"low": 2, "high": 6},
    "regen_drift_mult": {"low": 1.0, "high": 4.0},
    "adaptive_floor_scale": {"low": 0.5, "high": 3.0},
    "tp_concentration": {"low": 0.4, "high": 0.9},
    "gamma": {"low": 0.3, "high": 2.0},
    "kappa": {"low": 0.5, "high": 3.0},
    "max_inventory_per_side": {"low": 2, "high": 6},
    "as_time_horizon": {"low": 32.0, "high": 288.0},
    "regime_hysteresis_bars": {"low": 1, "high": 6},
    "adx_trend_threshold": {"low": 20.0, "high": 35.0},
    "atr_sl_mult": {"low": 2.0, "high": 5.0},
    "max_position_pct": {"low": 0.3, "high": 0.7},
    "stop_cooldown_bars": {"low": 24, "high": 96},
    "low_volume_threshold": {"low": 0.30, "high": 0.70},
    "deviance_sigma": {"low": 2.5, "high": 6.0},
    "gap_prune_mult": {"low": 2.5, "high": 7.0},
    "offset_prune_ratio": {"low": 0.8, "high": 4.0},
    "prune_cooldown_bars": {"low": 1, "high": 8},
    "kelly_window": {"low": 30, "high": 100},
    "funding_harvest_threshold": {"low": 0.0001, "high": 0.0005},
}


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both possible; whole ones if both ends are int."""

    low: float
    high: float
    whole: bool

    @property
    def spread(self) -> float:
        """Standard deviation of uniform draws."""
        if self.whole:
            return math.sqrt(((self.high - self.low + 1) ** 2 - 1) / 12)
        return (self.high - self.low) / math.sqrt(12)

    def middle(self, found: Sequence[Any]) -> Any:
        """The median; of whole numbers rounded, halves to the even one."""
        median = float(np.median(np.asarray(found, np.float64)))
        return round(median) if self.whole else median


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    choices: tuple[Any, ...]

    @property
    def spread(self) -> float:
        """Chance that two uniform draws differ."""
        return 1 - 1 / len(self.choices)

    def middle(self, found: Sequence[Any]) -> Any:
        """The mode; of equally frequent ones the one that is named first."""
        return max(self.choices, key=list(found).count)


Space = dict[str, Range | Choice]


def space(given: Mapping[str, Mapping[str, Any]], base: GridParams, where: str = "[optimizer]") -> Space:
    """The space that `given` describes, as {low, high} or {choices}, or the document's if it is empty.

    Raises UsageError for an unknown name, an empty range, and an end that the parameter may not have beside `base`.
    """
    fields = {each.name: each for each in dataclasses.fields(GridParams)}
    found: Space = {}
    for name, span in (given or DEFAULT).items():
        if name not in fields:
            raise UsageError(f"{where}: unknown {name}", remedy=f"known: {', '.join(fields)}")
        kind = type(fields[name].default)
        if "choices" in span:
            each = span["choices"]
            if not isinstance(each, (list, tuple)) or len({repr(value) for value in each}) < 2:
                raise UsageError(f"{where}: {name} has fewer than two choices", remedy="name two or more")
            values = [float(v) if kind is float and type(v) is int else v for v in each]
            found[name] = Choice(tuple(values))
        else:
            values = [span.get("low"), span.get("high")]
            if kind not in (int, float) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
                raise UsageError(f"{where}: {name} is no range of numbers", remedy="give low and high, or choices")
            low, high = values
            if not low < high:
                raise UsageError(f"{where}: {name} goes from {low} to {high}", remedy="give a low below its high")
            if kind is int and not (type(low) is int and type(high) is int):
                raise UsageError(f"{where}: {name} counts in whole numbers", remedy="give whole numbers")
            found[name] = Range(float(low), float(high), True) if kind is int else Range(low, high, False)
        for value in values:
            set_to(base, {name: value}, where)
    return found


def set_to(base: GridParams, values: Mapping[str, Any], where: str) -> GridParams:
    """`base` with other values; raises UsageError naming the one that is out of its range."""
    made: GridParams = from_mapping(GridParams, {**vars(base), **values}, where)
    return made
