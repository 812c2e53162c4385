"""The test of causality finds what looks ahead, and only that."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmlab.core.errors import UsageError
from mmlab.core.schemas import BARS, FUNDING
from mmlab.grid.lookahead import changed, check
from mmlab.grid.market import Market, agree
from mmlab.grid.params import FILLS
from reference import grid_frames as some

FINER = some.minutes(1, 400)
WHOLE = some.bars_of(FINER)
SETTLED = some.funding_of(WHOLE, 1)


def checked(fills: str = "next-bar", finer=None, build=Market.of, **changes):
    params = dataclasses.replace(some.BUSY, **changes)
    venue = dataclasses.replace(some.VENUE, fills=fills)
    return check(WHOLE, some.INTERVAL_NS, SETTLED, finer, params, venue, cuts=6, seed=4, build=build)


@pytest.mark.parametrize("fills", FILLS[:2])
@pytest.mark.parametrize("finer", [None, FINER], ids=["bars", "minutes"])
def test_the_engine_does_not_look_ahead(fills, finer):
    """Signals, decisions and fills up to a bar are the same whatever comes after it."""
    found = checked(fills, finer)
    assert found.ok, found.fault
    assert len(found.cuts) == 6
    assert found.orders > 100


def test_the_peer_rule_looks_ahead_and_is_told_so():
    """Its orders are filled on candles that open before the close at which they were decided."""
    found = checked("peer")
    assert not found.ok
    assert "look ahead" in found.fault
    assert "filled on the candle that opened at 2024-01-0" in found.fault


def leaking(name: str):
    """A market whose rows take one signal from the bar after."""

    class Leaking(Market):
        def rows(self, params):
            X = super().rows(params)
            X[:-1, name] = X[1:, name]
            return X

    return Leaking.of


@pytest.mark.parametrize(("at", "column"), [(0, "close"), (3, "atr"), (4, "z"), (7, "er")])
def test_a_signal_from_the_next_bar_is_found_and_named(at, column):
    """The first bar and column that changed."""
    found = checked(build=leaking(at))
    assert not found.ok
    assert f"the {column} (signals) of the bar of 2024-01-0" in found.fault


def test_a_signal_of_the_whole_span_is_found():
    """A mean over everything, which is the commonest mistake."""

    class Centred(Market):
        def rows(self, params):
            X = super().rows(params)
            X[:, 4] -= X[:, 4].mean()
            return X

    assert "the z (signals)" in checked(build=Centred.of).fault


def test_the_cuts_follow_the_seed():
    """The same ones again, others for another seed, none that would leave nothing after it."""
    args = (WHOLE, some.INTERVAL_NS, SETTLED, None, some.BUSY, some.VENUE)
    one, again, other = (check(*args, cuts=5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.cuts != other.cuts
    every = check(*args, cuts=10_000, seed=1)
    assert every.cuts[0] == 44
    assert every.cuts[-1] == 398
    assert every.ok


@pytest.mark.parametrize(("cuts", "height"), [(0, 400), (5, 44)])
def test_too_few_bars_or_cuts_are_told(cuts, height):
    """There must be something to cut."""
    with pytest.raises(UsageError, match="cuts in"):
        check(WHOLE[:height], some.INTERVAL_NS, None, None, some.BUSY, some.VENUE, cuts=cuts, seed=0)


def test_the_changed_future_is_a_market_of_its_own():
    """Up to the bar everything is as it was; after it no bar is, and minutes still make up their bars."""
    rng = np.random.default_rng(0)
    bars, interval_ns, funding, finer = changed(WHOLE, some.INTERVAL_NS, SETTLED, FINER, 200, rng)
    BARS.check(bars)
    FUNDING.check(funding)
    BARS.check(finer)
    kept = ["open_ns", "open", "high", "low", "close", "volume"]
    assert bars[:201].select(kept).equals(WHOLE[:201].select(kept))
    assert (bars["close"][201:] != WHOLE["close"][201:]).all()
    closes = int(WHOLE["open_ns"][200]) + interval_ns
    assert funding.filter(funding["ts_ns"] < closes).equals(SETTLED.filter(SETTLED["ts_ns"] < closes))
    assert (funding["rate"] != SETTLED["rate"]).sum() == (SETTLED["ts_ns"] >= closes).sum()
    assert finer.filter(finer["open_ns"] < closes).equals(FINER.filter(FINER["open_ns"] < closes))
    prices = ["open", "high", "low", "close"]
    agree(
        bars["open_ns"].to_numpy(), bars.select(prices).to_numpy(), finer.select(prices).to_numpy().reshape(-1, 15, 4)
    )


def test_minutes_that_are_missing_stay_missing():
    """A bar without all its minutes stays one, wherever it goes."""
    holed = FINER.filter(FINER["open_ns"] % (7 * some.MINUTE_NS * 15) != 0)
    assert checked(finer=holed).ok
