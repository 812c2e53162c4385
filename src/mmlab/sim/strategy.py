"""A quote model of the user's own: a function in a Python file, compiled if it can be, else run as it is."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, NamedTuple

import numpy as np
from numba import njit, typeof
from numba.core.errors import NumbaWarning

from mmlab.core.errors import UsageError
from mmlab.sim import layout as at
from mmlab.sim.engine import settle, walk
from mmlab.sim.layout import Floats, World
from mmlab.sim.wants import answer

MEMORY = 64
REMEDY = "return bid, ask or bid, ask, bid_qty, ask_qty: prices and quantities, nan for no order on a side"


class View(NamedTuple):
    """What a strategy sees when it is asked; money in quote currency, quantities in base currency.

    t_ns: time of receipt of the book frame. bid .. ask_qty, mid: the touch. inventory, cash: as far as reports have
    arrived. sigma: of the mid, per root second, on the past (nan: not known yet). A, k: the intensity in force, per
    second and side, per tick (nan: none). tick_size; qty: --qty. memory: 64 numbers of its own, zeros at the start.
    """

    t_ns: int
    bid: float
    ask: float
    bid_qty: float
    ask_qty: float
    mid: float
    inventory: float
    cash: float
    sigma: float
    A: float
    k: float
    tick_size: float
    qty: float
    memory: Floats


Step = Callable[[World], int]


@dataclass(frozen=True)
class Strategy:
    """The user's function; `reason` tells why it could not be compiled, if it could not."""

    name: str
    sha256: str
    function: Callable[[View], Any]
    compiled: Callable[..., int] | None
    reason: str = ""

    @classmethod
    def of(cls, name: str, sha256: str, function: Callable[[View], Any]) -> Strategy:
        """Compiled if it can be."""
        if not (isfunction(function) or hasattr(function, "py_func")):
            return cls(name, sha256, function, None, f"it is a {type(function).__name__}, no plain function")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NumbaWarning)
                return cls(name, sha256, function, _driver(function))
        except Exception as error:  # noqa: BLE001 - numba raises anything for what it has not foreseen
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            return cls(name, sha256, function, None, ": ".join(lines[: 2 if lines[0].startswith("Failed in") else 1]))

    def stepper(self, tick_size: float, qty: float) -> Step:
        """Walks on with the strategy speaking whenever it is asked; raises UsageError for what it does wrong."""
        memory, run = np.zeros(MEMORY), self.compiled or self._interpreted

        def step(w: World) -> int:
            try:
                return run(w, memory, tick_size, qty)
            except UsageError:
                raise
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                lines = [frame.lineno for frame in frames if frame.filename == self.file]
                line = f" in line {lines[-1]}" if lines else ""
                raise UsageError(
                    f"--strategy {self.name} failed{line} at {int(w.S[at.NOW])} ns: {type(error).__name__}: {error}",
                    remedy="mend the strategy",
                ) from error

        return step

    @property
    def file(self) -> str:
        """Where the function is from."""
        code = getattr(getattr(self.function, "py_func", self.function), "__code__", None)
        return code.co_filename if code else ""

    def _interpreted(self, w: World, memory: Floats, tick_size: float, qty: float) -> int:
        """The same loop as the compiled driver's."""
        while (status := walk(w)) == at.SPEAK:
            view = _view(int(w.S[at.NOW]), w.F[at.SEEN_AT : at.OUTWARD], tick_size, qty, memory)
            answer(*self._said(self.function(view), qty), w)
            settle(w)
        return status

    def _said(self, said: Any, qty: float) -> tuple[float, float, float, float]:
        """Prices and quantities; quantities are `qty` where none are told."""
        try:
            numbers = tuple(float(x) for x in said)
        except (TypeError, ValueError):
            raise UsageError(f"--strategy {self.name} returned {said!r}", remedy=REMEDY) from None
        if len(numbers) == 2:
            return numbers[0], numbers[1], qty, qty
        if len(numbers) == 4:
            return numbers[0], numbers[1], numbers[2], numbers[3]
        raise UsageError(f"--strategy {self.name} returned {said!r}", remedy=REMEDY)


def _view(t: int, V: Floats, tick_size: float, qty: float, memory: Floats) -> View:
    """`V` in the order of layout.SEEN as plain numbers."""
    bid, ask, bid_qty, ask_qty, mid, inventory, cash, sigma, A, k = V.tolist()
    return View(t, bid, ask, bid_qty, ask_qty, mid, inventory, cash, sigma, A, k, tick_size, qty, memory)


def _driver(function: Callable[[View], Any]) -> Callable[..., int]:
    """The walk and the strategy in one compiled loop; raises if the strategy cannot be compiled to return quotes."""
    fast: Any = function if hasattr(function, "py_func") else njit(nogil=True, boundscheck=True)(function)
    seen = typeof(_view(0, np.zeros(len(at.SEEN)), 1.0, 1.0, np.zeros(MEMORY)))  # type: ignore[no-untyped-call]
    fast.compile((seen,))
    said = fast.nopython_signatures[0].return_type
    width = getattr(said, "count", 0)
    if width not in (2, 4):
        raise TypeError(f"it returns {said}")

    if width == 2:

        def speak(view):  # type: ignore[no-untyped-def]
            bid, ask = fast(view)
            return float(bid), float(ask), view.qty, view.qty
    else:

        def speak(view):  # type: ignore[no-untyped-def]
            bid, ask, bid_qty, ask_qty = fast(view)
            return float(bid), float(ask), float(bid_qty), float(ask_qty)

    heard: Any = njit(nogil=True)(speak)
    heard.compile((seen,))

    def drive(w, memory, tick_size, qty):  # type: ignore[no-untyped-def]
        status = walk(w)
        while status == at.SPEAK:
            V = w.F[at.SEEN_AT : at.OUTWARD]
            view = View(w.S[at.NOW], V[0], V[1], V[2], V[3], V[4], V[5], V[6], V[7], V[8], V[9], tick_size, qty, memory)
            bid, ask, bid_qty, ask_qty = heard(view)
            answer(bid, ask, bid_qty, ask_qty, w)
            settle(w)
            status = walk(w)
        return status

    made: Callable[..., int] = njit(nogil=True)(drive)
    return made
