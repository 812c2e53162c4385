"""An instrument's filters, and the one way from prices to integer ticks and back."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt

from mmlab.core.errors import TableError, UsageError

OFF_GRID = 1e-4  # fraction of a tick (or lot) by which a decimal may miss its grid: far above float noise
SLICE = 32_768  # rows rounded at once: their temporaries stay in the processor's cache


def positive_decimal(text: str, name: str) -> Decimal:
    """`text` as a finite decimal above zero; raises UsageError naming `name` otherwise."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"{name} is {text!r}, not a decimal number", remedy=f"give {name} like 0.01") from None
    if not value.is_finite() or value <= 0:
        raise UsageError(f"{name} is {text}, but must be above zero", remedy=f"give {name} like 0.01")
    return value


def per_price(k_ticks: float, tick_size: float) -> float:
    """k per price unit from k per tick: k_price = k_ticks / tick_size.

    lambda = A exp(-k_ticks * delta_ticks) = A exp(-k_price * delta_price), and
    delta_price = delta_ticks * tick_size. The only place where the two units meet.
    """
    return k_ticks / tick_size


def _round_to_steps(values: npt.NDArray[np.float64], per_unit: float) -> tuple[npt.NDArray[np.int64], int]:
    """Nearest whole steps, and the first row that lies off the grid (-1 if none), in slices that stay in the cache."""
    steps, rows = np.empty(values.size, np.int64), min(values.size, SLICE)
    exact, whole = np.empty(rows), np.empty(rows)
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number, or no int64, is off the grid: found below
        for at in range(0, values.size, SLICE):
            n = min(SLICE, values.size - at)
            np.multiply(values[at : at + n], np.float64(per_unit), out=exact[:n])
            steps[at : at + n] = np.rint(exact[:n], out=whole[:n])
            off = np.subtract(exact[:n], steps[at : at + n], out=whole[:n])
            if not (off.max() <= OFF_GRID and off.min() >= -OFF_GRID):
                return steps, at + int(np.argmin(np.abs(off) <= OFF_GRID))
    return steps, -1


@dataclass(frozen=True)
class Grid:
    """A decimal grid of step `num / den`: exact both ways for any value below 2**53 steps."""

    name: str
    num: int
    den: int

    @classmethod
    def of(cls, text: str, name: str) -> Grid:
        """The grid whose step is the decimal `text`."""
        num, den = positive_decimal(text, name).as_integer_ratio()
        return cls(name, num, den)

    @property
    def per_unit(self) -> float:
        """Steps in one unit: what kernels multiply a decimal by before they round it."""
        return self.den / self.num

    def to_steps(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Shape (n,) decimals to shape (n,) steps; raises TableError naming the first value off the grid."""
        steps, row = _round_to_steps(values, self.per_unit)
        if row >= 0:
            raise TableError(
                f"row {row}: {float(values[row])!r} is not a multiple of the {self.name} {self.num / self.den!r}",
                remedy=f"check the {self.name} that the day was imported with",
            )
        return steps

    def to_decimal(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Shape (n,) steps to the doubles nearest to their decimal value (one correctly rounded division)."""
        return (steps * self.num).astype(np.float64) / self.den


@dataclass(frozen=True)
class Instrument:
    """A symbol's trading rules; sizes are kept as the venue's decimal text, so that nothing is rounded."""

    venue: str
    symbol: str
    tick_size: str
    lot_size: str
    min_notional: str = "0"

    def __post_init__(self) -> None:
        positive_decimal(self.tick_size, "tick size")
        positive_decimal(self.lot_size, "lot size")

    @property
    def ticks(self) -> Grid:
        """Prices <-> integer ticks."""
        return Grid.of(self.tick_size, "tick size")

    @property
    def lots(self) -> Grid:
        """Quantities <-> integer lots."""
        return Grid.of(self.lot_size, "lot size")
