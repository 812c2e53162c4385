"""A config says all that a run is told; what it cannot mean is an error that names the file and the key."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.grid.config import (
    BacktestParams,
    Config,
    assignments,
    coin_of,
    default_toml,
    parse,
    symbol_of,
    toml,
)
from mmlab.grid.params import GridParams, VenueParams


def test_the_printed_defaults_are_the_defaults():
    """Every parameter is in it, with a comment; read again it changes nothing."""
    text = default_toml()
    assert parse(text, "it") == Config()
    content = tomllib.loads(text)
    for group, spec in (("strategy", GridParams), ("backtest", BacktestParams)):
        assert set(content[group]) == {field.name for field in dataclasses.fields(spec)}
        for field in dataclasses.fields(spec):
            assert any(line.startswith(field.name) and field.metadata["doc"] in line for line in text.splitlines())


def test_what_is_left_out_keeps_its_default():
    """Three groups, each of which may be missing."""
    made = parse('[strategy]\ngamma = 1\n[backtest]\ncoins = ["ETH/USDT"]\nno_short = true\n', "it")
    assert made.strategy == GridParams(gamma=1.0)
    assert made.backtest.symbols == ("ETHUSDT",)
    assert made.strategy.allow_short
    assert not made.params.allow_short
    assert parse("", "it") == Config()


def test_the_search_space_is_kept_as_it_stands():
    """The optimizer reads it."""
    made = parse("[optimizer]\ngamma = { low = 0.1, high = 2.0 }\ngrid_levels = { choices = [2, 4] }\n", "it")
    assert made.optimizer == {"gamma": {"low": 0.1, "high": 2.0}, "grid_levels": {"choices": [2, 4]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[strategy]\ngama = 1\n", "my.toml [strategy]: unknown gama"),
        ("[strategie]\n", "my.toml: unknown strategie"),
        ("gamma = 1\n", "my.toml: unknown gamma"),
        ("strategy = 1\n", "my.toml: strategy is no group"),
        ("[strategy]\ngamma = -1\n", "my.toml [strategy]: gamma is -1"),
        ('[strategy]\ngamma = "high"\n', "my.toml [strategy]: gamma is 'high'"),
        ("[strategy]\ngrid_levels = 2.5\n", "my.toml [strategy]: grid_levels is 2.5"),
        ("[strategy]\nallow_short = 1\n", "my.toml [strategy]: allow_short is 1"),
        ("[strategy\n", "my.toml is not TOML"),
        ("[backtest]\ncoins = []\n", "my.toml [backtest]: coins is ()"),
        ('[backtest]\ncoins = "BTC"\n', "my.toml [backtest]: coins is 'BTC'"),
        ('[backtest]\ncoins = ["BTC", "BTCUSDT"]\n', "name one twice"),
        ('[backtest]\ncoins = ["a b"]\n', "coin 'a b' is no name"),
        ('[backtest]\nstart = "2024-02-30"\n', "my.toml [backtest]: --start is '2024-02-30'"),
        ('[backtest]\nstart = "2024-02-02"\nend = "2024-02-01"\n', "--start 2024-02-02 lies after --end 2024-02-01"),
        ('[backtest]\ntimeframe = "7m"\n', "interval '7m'"),
        ('[backtest]\nintrabar = "5m"\n', "--intrabar is '5m'"),
        ('[backtest]\nfills = "magic"\n', "--fills is 'magic'"),
        ('[backtest]\ntick_size = "small"\n', "tick_size is 'small'"),
        ('[backtest]\nlot_size = "-1"\n', "lot_size is -1"),
        ('[backtest]\nlot_size = "auto"\n', "lot_size is 'auto'"),
        ("[optimizer]\ngama = { low = 1, high = 2 }\n", "my.toml [optimizer]: unknown gama"),
        ("[optimizer]\ngamma = 1\n", "my.toml [optimizer]: gamma is 1"),
        ("[optimizer]\ngamma = { low = 1 }\n", "my.toml [optimizer]: gamma is {'low': 1}"),
    ],
)
def test_what_cannot_be_meant_is_named(text, message):
    """The file, the group, the key, the value; and what to do."""
    with pytest.raises(UsageError) as caught:
        parse(text, "my.toml")
    assert message in caught.value.message
    assert caught.value.remedy


def test_values_by_name_find_their_group():
    """`--set` need not say which."""
    made = Config().with_values(assignments(["gamma=0.3", "grid_mode=arithmetic", "liquidation_fee = 0.02"]), "--set")
    assert (made.strategy.gamma, made.strategy.grid_mode) == (0.3, "arithmetic")
    assert made.backtest.liquidation_fee == 0.02
    assert Config().with_values({}, "--set") == Config()


@pytest.mark.parametrize(
    ("given_", "message"),
    [("gamma", "--set is 'gamma'"), ("=1", "--set is '=1'"), ("gama=1", "--set: unknown gama"),
     ("gamma=0", "--set: gamma is 0"), ("grid_mode=round", "--set: grid_mode is 'round'")],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_named(given_, message):
    """Form, name, range."""
    with pytest.raises(UsageError) as caught:
        Config().with_values(assignments([given_]), "--set")
    assert message in caught.value.message


@pytest.mark.parametrize("coin", ["BTC", "btc", "BTCUSDT", "BTC/USDT", "BTC/USDT:USDT", " btc/usdt "])
def test_all_ways_to_write_a_coin_are_one(coin):
    """As the venue, the document and ccxt write it."""
    assert symbol_of(coin) == "BTCUSDT"
    assert coin_of(symbol_of(coin)) == "BTC"


@pytest.mark.parametrize(
    ("coin", "symbol", "name"),
    [("ETH/BTC", "ETHBTC", "ETHBTC"), ("BTCUSDC", "BTCUSDC", "BTCUSDC"), ("USDC", "USDCUSDT", "USDC"),
     ("1000PEPE", "1000PEPEUSDT", "1000PEPE")],
)  # fmt: skip
def test_other_currencies_keep_their_names(coin, symbol, name):
    """So that two symbols never share a file."""
    assert symbol_of(coin) == symbol
    assert coin_of(symbol) == name


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126))
VALUES = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), TEXT)


@given(VALUES, st.lists(TEXT))
def test_values_are_written_as_they_are_read(value, texts):
    """Through TOML and back."""
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value
    assert tomllib.loads(f"x = {toml(tuple(texts))}")["x"] == texts


def test_the_engine_is_told_the_tick_that_was_found_unless_one_is_given():
    """auto, none, or the user's."""
    assert BacktestParams().at_venue("0.1") == VenueParams(tick_size="0.1")
    assert BacktestParams(tick_size="0").at_venue("0.1").tick_size == "0"
    assert BacktestParams(tick_size="0.5", fills="peer").at_venue("0.1") == VenueParams(tick_size="0.5", fills="peer")
    assert BacktestParams(fills="peer").look_ahead
    assert not BacktestParams().look_ahead
