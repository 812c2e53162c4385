"""Cash, position, fees and profit: a pure fold over fills, in integers, so that every cent ties out.

Money is counted in quanta of the quote currency, fine enough that tick * lot is a whole number of
them and never coarser than 1e-8. The kernels of the backtest use the same `fee_quanta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from mmlab.core.errors import UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.kernels import kernel

RATE_UNIT = 1_000_000_000  # fee rates are integers in 1e-9 of the notional
MONEY_DIGITS = 8


@kernel
def fee_quanta(notional: int, rate_e9: int) -> int:
    """Fee on `notional` quanta at `rate_e9` / 1e9, rounded half up; split so that int64 never overflows."""
    whole, part = notional // RATE_UNIT, notional % RATE_UNIT
    return whole * rate_e9 + (part * rate_e9 + RATE_UNIT // 2) // RATE_UNIT


@dataclass(frozen=True)
class Money:
    """How money is counted for one instrument: `digits` decimals, `per_tick_lot` quanta in tick * lot."""

    digits: int
    per_tick_lot: int

    @classmethod
    def of(cls, instrument: Instrument) -> Money:
        """The coarsest counting that is exact for every product of a price and a quantity on the grid."""
        step = Decimal(instrument.tick_size) * Decimal(instrument.lot_size)
        exponent = step.normalize().as_tuple().exponent
        digits = max(MONEY_DIGITS, -int(exponent))
        return cls(digits, int(step.scaleb(digits)))

    def quanta(self, amount: float, name: str = "amount") -> int:
        """`amount` of quote currency in quanta; raises UsageError when it does not fit 63 bits."""
        quanta = int(Decimal(repr(amount)).scaleb(self.digits).to_integral_value())
        if abs(quanta) >= 2**62:
            raise UsageError(f"{name} {amount:g} is too large to be counted exactly", remedy=f"give a smaller {name}")
        return quanta

    def amount(self, quanta: int) -> float:
        """The double nearest to `quanta` in quote currency."""
        return float(int(quanta) / 10**self.digits)


@dataclass(frozen=True)
class Account:
    """Integer state of one account: lots held, cash and fees in quanta, cost of the open position.

    `cost` is what the open position was bought (or sold) for, in quanta, at average cost;
    `realised` excludes fees. cash == start cash + realised - fees - cost, at every fill.
    """

    lots: int = 0
    cash: int = 0
    fees: int = 0
    cost: int = 0
    realised: int = 0

    def fill(self, side: int, lots: int, notional: int, fee: int) -> Account:
        """The account after buying (`side` +1) or selling (-1) `lots` for `notional` quanta and `fee`."""
        closing = min(lots, abs(self.lots)) if side * self.lots < 0 else 0
        released = self.cost * closing // abs(self.lots) if closing else 0
        closed_for = notional * closing // lots
        opened_for = notional - closed_for
        return Account(
            lots=self.lots + side * lots,
            cash=self.cash - side * notional - fee,
            fees=self.fees + fee,
            cost=self.cost - released + side * opened_for,
            realised=self.realised - side * closed_for - released,
        )
