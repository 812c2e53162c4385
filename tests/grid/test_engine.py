"""The compiled grid equals its slow twin fill by fill, and keeps its promises in any market."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.grid import layout
from mmlab.grid.engine import Raw
from reference.grid import LABELS
from reference.grid_cases import Case, differences, draw, fills_of, flows_of, resting_of, shaken

SEEDS = (*range(149), 50289)  # the last: ruined while a stop rests
seeds = st.integers(0, 2**40)
OPENS, TAKES = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT"), ("SELL_CLOSE_LONG", "BUY_CLOSE_SHORT")


@cache
def known(seed: int) -> tuple[Case, Raw]:
    case = draw(seed)
    return case, case.engine()


@pytest.mark.parametrize("tens", range(len(SEEDS) // 10))
def test_every_fill_flow_verdict_and_resting_order_equals_the_slow_twins(tens):
    for seed in SEEDS[10 * tens : 10 * tens + 10]:
        case, raw = known(seed)
        found = differences(case, case.twin(), raw)
        assert not found, f"seed {seed}: {found}"


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_any_other_case_equals_the_slow_twin(seed):
    case = draw(seed)
    found = differences(case, case.twin(), case.engine())
    assert not found, found


def test_the_seeds_meet_every_label_and_every_guard():
    fills, guards = Counter[str](), Counter[str]()
    for seed in SEEDS:
        _, raw = known(seed)
        fills.update(each["label"] for each in fills_of(raw))
        fills.update(label for label in ("FUNDING", "INSURANCE") for _ in flows_of(raw, label))
        guards.update(layout.GUARDS[int(guard)] for guard in raw.verdicts[:, 1])
    assert {*LABELS, "FUNDING", "INSURANCE"} == set(fills)
    assert set(layout.GUARDS) == set(guards)


def test_without_record_the_money_is_the_same():
    for seed in SEEDS[:20]:
        case, raw = known(seed)
        bare = case.engine(record=False)
        np.testing.assert_array_equal(bare.equity, raw.equity)
        assert not len(bare.fills)
        assert not len(bare.orders)


def test_the_wallet_is_the_sum_of_the_flows_at_every_bar():
    for seed in SEEDS:
        case, raw = known(seed)
        flows = np.zeros(len(case.rows))
        size = np.full(len(case.rows), case.params.initial_capital)
        for row in raw.fills:
            flows[int(row[0])] += row[7] - row[6]
            size[int(row[0])] += abs(row[7]) + abs(row[6])
        wallet = case.params.initial_capital + np.cumsum(flows)
        assert np.all(np.abs(raw.equity[:, 0] - wallet) <= 1e-9 * np.cumsum(size)), f"seed {seed}"
        assert raw.equity[-1, 0] == raw.equity[-1, 1], f"seed {seed}: the last equity is the wallet"


def held_before_trade(case: Case, raw: Raw) -> list[dict[int, float]]:
    """What each side will hold after the market orders of each bar's decision."""
    lines, peer = raw.equity, case.venue.fills == "peer"
    bars = range(len(case.rows))
    held = [{1: 0.0, -1: 0.0} if i < peer else {1: lines[i - peer, 2], -1: lines[i - peer, 4]} for i in bars]
    for each in fills_of(raw):
        market = each["label"].startswith(("STOP", "PRUNE")) and each["order"] == 0
        decided = int(each["bar"]) - (0 if peer else 1)
        if market:
            held[decided][int(each["side"])] -= each["qty"]
    return held


def test_take_profits_sum_to_what_the_side_will_hold():
    """Only arithmetic levels may end above zero before there is one for them."""
    for seed in SEEDS:
        case, raw = known(seed)
        ruined = layout.GUARDS.index("RUINED") in raw.verdicts[:, 1]
        if ruined or case.params.as_time_horizon > 100:  # the skew may leave no level at all
            continue
        live, held = resting_of(case, raw), held_before_trade(case, raw)
        for i in range(case.warm_up(), len(case.rows) - 1):
            for side in (1, -1):
                laid = sum(qty for role, of, _, qty in live[i].values() if role == "TAKE_PROFIT" and of == side)
                if case.params.grid_mode == "arithmetic" and laid == 0:
                    continue
                assert abs(laid - held[i][side]) <= 1e-9 * max(laid, raw.equity[:, 2:5:2].max()), f"{seed}: bar {i}"


def test_lots_never_exceed_their_number():
    for seed in SEEDS:
        case, raw = known(seed)
        lots: dict[int, list[float]] = {1: [], -1: []}
        for each in fills_of(raw):
            mine, left = lots[int(each["side"])], each["qty"]
            if each["label"] in OPENS:
                mine.append(left)
            elif each["label"].startswith("PRUNE"):
                mine.remove(min(mine, key=lambda qty: abs(qty - left)))
            else:
                while left > 1e-9 * each["qty"]:
                    part = min(left, mine[0])
                    left, mine[0] = left - part, mine[0] - part
                    if mine[0] <= 1e-9 * each["qty"]:
                        del mine[0]
            assert len(mine) <= case.params.max_inventory_per_side, f"{seed}: {each}"
        assert not lots[1] + lots[-1], f"{seed}: the final close leaves nothing"


def test_entries_never_breach_cap_or_margin_when_they_are_laid():
    for seed in SEEDS:
        case, raw = known(seed)
        if case.venue.fills == "peer":  # the equity at the decision is in no row
            continue
        p, orders = case.params, raw.orders
        live, held = resting_of(case, raw), held_before_trade(case, raw)
        laid = {int(row[2]) for row in orders[(orders[:, 1] == layout.PLACED) & (orders[:, 4] == layout.ENTRY)]}
        for i in sorted(laid - {len(case.rows) - 1}):
            c, equity, total = case.rows[i].close, raw.equity[i, 1], 0.0
            for side in (1, -1):
                entries = [price * qty for role, of, price, qty in live[i].values() if role == "ENTRY" and of == side]
                notional = sum(entries) + held[i][side] * c
                total += notional
                if entries:
                    assert notional <= equity * p.max_position_pct * (1 + 1e-9), f"{seed}: bar {i}"
            assert total <= equity * p.leverage * (1 + 1e-9), f"{seed}: bar {i}"


def test_nothing_fills_on_the_bar_of_its_own_decision_but_in_peer_and_limits_fill_inside_the_candle():
    for seed in SEEDS:
        case, raw = known(seed)
        peer = case.venue.fills == "peer"
        flat = [(i, candle) for i, bar in enumerate(case.candles) for candle in bar]
        placed = {int(row[0]): int(row[2]) for row in raw.orders if row[1] == layout.PLACED}
        for row in raw.orders[raw.orders[:, 1] == layout.FILLED]:
            bar, _ = flat[int(row[2])]
            assert placed[int(row[0])] < bar + peer, f"{seed}: {row}"
        for each in fills_of(raw):
            if each["label"] in OPENS + TAKES and not peer:
                _, (_, _, high, low, _) = flat[int(each["candle"])]
                assert low <= each["price"] <= high, f"{seed}: {each}"


@settings(max_examples=60, deadline=None)
@given(seed=seeds, part=st.floats(0.1, 0.95))
def test_what_comes_later_changes_nothing_before(seed, part):
    """Decisions and fills up to bar i do not know the bars after it."""
    case = draw(seed)
    i = int(part * (len(case.rows) - 1))
    one, other = case.engine(), shaken(case, i, seed).engine()
    for name, when in (("fills", 0), ("verdicts", 0)):
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a[a[:, when] <= i], b[b[:, when] <= i], err_msg=f"seed {seed}, bar {i}")
    np.testing.assert_array_equal(one.equity[: i + 1], other.equity[: i + 1])
    assert resting_of(case, one)[: i + 1] == resting_of(case, other)[: i + 1]
