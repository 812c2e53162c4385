"""Money is conserved at every fill, counted exactly, and fees round half up."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.ledger import Account, Money, fee_quanta

fills = st.lists(
    st.tuples(st.sampled_from([1, -1]), st.integers(1, 50), st.integers(1, 10**6), st.integers(-50, 500)), max_size=40
)


@given(fills)
def test_cash_equals_start_plus_realised_minus_fees_minus_cost(history):
    """Whatever is bought and sold, through zero and back, nothing appears or vanishes."""
    account = Account(cash=10**9)
    for side, lots, price, fee in history:
        account = account.fill(side, lots, price * lots, fee)
        assert account.cash == 10**9 + account.realised - account.fees - account.cost
        assert (account.lots == 0) <= (account.cost == 0)
    assert account.lots == sum(side * lots for side, lots, _, _ in history)
    assert account.fees == sum(fee for *_, fee in history)


def test_profit_is_realised_at_average_cost():
    """Buy 2 at 100 and 2 at 200, sell 1 at 300: 150 earned, 3 left at 150; sell 5: flat through to short."""
    account = Account().fill(1, 2, 200, 0).fill(1, 2, 400, 0).fill(-1, 1, 300, 0)
    assert (account.lots, account.cost, account.realised) == (3, 450, 150)
    account = account.fill(-1, 5, 500, 0)
    assert (account.lots, account.cost, account.realised) == (-2, -200, 150 - 150)


@given(notional=st.integers(0, 2**60), rate=st.integers(-100_000_000, 100_000_000))
def test_fees_are_exact_and_round_half_up(notional, rate):
    """In 64-bit integers, up to the largest notional that is allowed and 10% either way."""
    exact = Decimal(notional) * rate / 10**9
    with_context = (exact + Decimal("0.5")).to_integral_value(ROUND_FLOOR) if abs(exact) < 10**27 else None
    assert fee_quanta(notional, rate) == int(with_context)


@pytest.mark.parametrize(
    ("tick", "lot", "digits", "quanta"),
    [("0.01", "0.00001", 8, 10), ("0.00000001", "1", 8, 1), ("0.1", "0.001", 8, 10_000), ("0.0000001", "0.01", 9, 1)],
)
def test_a_tick_times_a_lot_is_a_whole_number_of_quanta(tick, lot, digits, quanta):
    """Never coarser than 1e-8, finer where the instrument needs it."""
    money = Money.of(Instrument("v", "S", tick, lot))
    assert (money.digits, money.per_tick_lot) == (digits, quanta)
    assert Decimal(quanta) / 10**digits == Decimal(tick) * Decimal(lot)


@given(st.integers(-(10**15), 10**15))
def test_an_amount_crosses_to_quanta_and_back(quanta):
    """Printed shortest, read again."""
    money = Money.of(Instrument("v", "S", "0.01", "0.00001"))
    assert money.quanta(money.amount(quanta)) == quanta


def test_more_money_than_can_be_counted_is_refused():
    """With the flag's name."""
    with pytest.raises(UsageError, match="--initial-cash 1e\\+20 is too large"):
        Money.of(Instrument("v", "S", "0.01", "0.00001")).quanta(1e20, "--initial-cash")
