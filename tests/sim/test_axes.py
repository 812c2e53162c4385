"""The grammar of --sweep, the order of the product, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.sim.axes import MOST_RUNS, find, parameters, parse, text
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec

BASE = BacktestSpec()


def values(given_text: str) -> tuple[object, ...]:
    return parse([given_text]).axes[0].values


def test_a_linear_range_has_both_ends_and_the_decimals_that_a_person_would_type():
    """0.05, 0.1, 0.15, ...: exactly the floats of these texts."""
    found = values("gamma=0.05:1:20")
    assert found == tuple(float(f"{5 * i / 100:.2f}") for i in range(1, 21))
    assert values("maker-fee=-0.0002:0.0002:5") == (-0.0002, -0.0001, 0.0, 0.0001, 0.0002)


def test_a_log_range_multiplies():
    """Decades come out as decades."""
    assert values("gamma=0.001:10:5:log") == (0.001, 0.01, 0.1, 1.0, 10.0)
    found = values("gamma=0.3:7:9:log")
    assert found[0] == 0.3
    assert found[-1] == 7.0
    ratios = [b / a for a, b in pairwise(found)]
    assert ratios == pytest.approx([ratios[0]] * 8)


@given(st.integers(-1_000, 1_000), st.integers(1, 1_000), st.integers(2, 40))
def test_a_range_of_whole_numbers_takes_the_nearest(low, width, n):
    """Slow twin: the whole number nearest to each point, halves upwards; two equal ones are refused."""
    twin = [int((2 * (low * (n - 1) + width * i) + (n - 1)) // (2 * (n - 1))) for i in range(n)]
    asked = f"seed={low}:{low + width}:{n}"
    if len(set(twin)) < n:
        with pytest.raises(UsageError, match="twice"):
            values(asked)
    else:
        assert values(asked) == tuple(twin)


def test_lists_are_typed_as_the_field_is():
    """Words, switches, whole numbers, decimals, and none where the field may be left out."""
    assert values("half-spread-ticks=1,2, 5") == (1.0, 2.0, 5.0)
    assert values("fill-model=trade_cross,poisson") == ("trade_cross", "poisson")
    assert values("post-only=true,False") == (True, False)
    assert values("entry_latency_ms=10") == (10,)
    assert values("sigma=none,0.5") == (None, 0.5)
    assert [type(v) for v in values("qty=1,2")] == [float, float]
    assert [text(v) for v in (True, None, 0.1, 3, "a")] == ["true", "none", "0.1", "3", "a"]


@pytest.mark.parametrize("name", ["half-spread-ticks", "half_spread_ticks", "--half-spread-ticks"])
def test_a_name_is_written_as_a_flag_or_as_a_field(name):
    assert find(name).path == ("quote", "half_spread_ticks")


def test_what_would_be_ambiguous_has_its_room_in_its_name():
    """--k is the intensity's, --quote-k the quotes'; two rooms have a model."""
    named = parameters()
    assert named["quote_model"].path == ("quote", "model")
    assert named["fill_model"].path == ("fill", "model")
    assert named["quote_k"].path == ("quote", "k")
    assert named["fill_reach"].path == ("fill", "reach")
    assert find("fill-seed") == find("seed")
    assert not {"k", "A", "model", "quote", "fill"} & named.keys()


def test_every_plain_field_of_the_specifications_can_be_swept():
    """Also those that are added later: what has no text form is the only thing left out."""
    paths = {p.path for p in parameters().values()}
    for spec, room in ((BacktestSpec, ()), (QuoteSpec, ("quote",)), (FillSpec, ("fill",))):
        for field in dataclasses.fields(spec):
            if str(field.type) in {"bool", "int", "float", "str", "float | None", "int | None", "str | None"}:
                assert (*room, field.name) in paths


def test_every_flag_of_the_strategy_is_a_name():
    """What `mmlab backtest` calls a setting, a sweep calls it too."""
    from mmlab.cli.options import StrategyFlags

    lists = {"ladder"}  # no single value
    flags = {"fill_model", *(field.name for field in dataclasses.fields(StrategyFlags))} - lists
    for name in flags:
        assert find(name.replace("_", "-")).name == name


def test_several_axes_give_the_product_and_the_last_varies_fastest():
    """Nested loops, and every value at its place."""
    grid = parse(["gamma=0.1,0.2", "fill-model=poisson,trade_cross", "qty=1,2,3", "horizon-s=5,6"])
    twin = [
        replace(
            BASE, quote=replace(BASE.quote, gamma=gamma, horizon_s=horizon), fill=replace(BASE.fill, model=model),
            qty=qty,
        )
        for gamma in (0.1, 0.2) for model in ("poisson", "trade_cross") for qty in (1.0, 2.0, 3.0)
        for horizon in (5.0, 6.0)
    ]  # fmt: skip
    assert list(grid.specs(BASE)) == twin
    assert len(grid) == len(twin) == 24


def test_a_combination_is_checked_whole():
    """What one value would break and the other mends is fine: only the combination counts."""
    margin = replace(BASE, account="margin", initial_cash=-5.0)
    with pytest.raises(UsageError, match=r"--sweep account=spot, initial_cash=-5\.0: --initial-cash is -5"):
        list(parse(["account=margin,spot", "initial-cash=-5,5"]).specs(margin))
    assert parse(["account=spot", "initial-cash=5"]).spec(margin, ("spot", 5.0)).initial_cash == 5.0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("gamma", "--sweep is 'gamma'"),
        ("=1", "--sweep is '=1'"),
        ("gamma=", "--sweep is 'gamma='"),
        ("gama=1", "--sweep gama: there is no parameter of that name"),
        ("k=0.1,0.2", "--sweep k: there is no parameter of that name"),
        ("gamma=0.1:1", "--sweep is 'gamma=0.1:1'"),
        ("gamma=0.1:1:5:cube", "--sweep is 'gamma=0.1:1:5:cube'"),
        ("gamma=0.1:1:5:log:2", "--sweep is"),
        ("gamma=0.1:1:1", "N is 1"),
        ("gamma=0.1:1:2.5", "'2.5' is not a whole number"),
        ("gamma=0.1:1:100001", "N is 100001"),
        ("gamma=1:0.1:5", "1 is not below 0.1"),
        ("gamma=1:1:5", "1 is not below 1"),
        ("gamma=0:1:5:log", "0 is not above 0"),
        ("gamma=a:1:5", "'a' is not a number"),
        ("gamma=0.1:inf:5", "'inf' is not a number"),
        ("gamma=nan", "'nan' is not a number"),
        ("gamma=1e999", "'1e999' is not a number"),
        ("gamma=0.1,,0.2", "has an empty value"),
        ("gamma=0.1,0.10", "gives 0.1 twice"),
        ("gamma=none", "'none' is not a number"),
        ("ttl-ms=0,1.5", "'1.5' is not a whole number"),
        ("ttl-ms=0.5:9:3", "'0.5' is not a whole number"),
        ("ttl-ms=0:2:9", "twice"),
        ("seed=9223372036854775808", "beyond 2**63"),
        ("post-only=yes", "'yes' is neither true nor false"),
    ],
)
def test_what_cannot_be_meant_is_named(asked, message):
    """Every fault of the grammar has a message and a remedy."""
    with pytest.raises(UsageError) as error:
        parse([asked])
    assert message in error.value.message
    assert error.value.remedy


def test_an_unknown_name_is_answered_with_the_names_that_there_are():
    with pytest.raises(UsageError) as error:
        parse(["spread=1"])
    assert "half-spread-ticks" in error.value.remedy
    assert "quote-k" in error.value.remedy


def test_a_parameter_given_twice_is_refused():
    """Also under its two names."""
    for other in ("gamma=1", "quote-gamma=1"):
        with pytest.raises(UsageError, match="gives gamma twice"):
            parse(["gamma=0.1,0.2", other])


def test_an_absurd_grid_is_refused_with_its_size():
    with pytest.raises(UsageError, match=r"1000 x 101 = 101,000 runs"):
        parse(["gamma=1:2:1000", "horizon-s=1:2:101"])
    assert len(parse(["gamma=1:2:1000", "horizon-s=1:2:100"])) == MOST_RUNS
