"""Binance's bytes become typed messages, exactly, or are refused with a reason."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import DataError, FeedError
from mmlab.venues import binance_spot, binance_usdm
from mmlab.venues.binance import BookTicker, DepthUpdate, Snapshot, Trade, to_ns
from reference.raw_feed import START_MS, depth, event, snapshot, ticker, trade

SPOT, USDM = binance_spot.FEED, binance_usdm.FEED


def raw(message: object) -> bytes:
    return json.dumps(message).encode()


@given(st.decimals(min_value=Decimal("0.00000001"), max_value=Decimal("99999999"), places=8))
def test_a_decimal_text_becomes_the_double_that_python_reads(price):
    """Whatever the trailing zeros."""
    message = SPOT.decode(raw(depth(1, 2, [(str(price), "1.50000000")], [])))
    assert isinstance(message, DepthUpdate)
    assert message.bids == [(float(str(price)), 1.5)]


def test_every_stream_name_leads_to_its_message():
    """With or without a speed, and the snapshot without a stream."""
    assert isinstance(SPOT.decode(raw(depth(1, 2))), DepthUpdate)
    assert isinstance(SPOT.decode(raw(event("depth", depth(1, 2)["data"]))), DepthUpdate)
    assert isinstance(SPOT.decode(raw(trade(1))), Trade)
    assert isinstance(SPOT.decode(raw(ticker(1))), BookTicker)
    assert isinstance(SPOT.decode(raw(snapshot(7))), Snapshot)


def test_names_that_differ_by_case_only_are_told_apart():
    """U and u, b and B, a and A, E and e."""
    update = SPOT.decode(raw(depth(3, 9)))
    assert isinstance(update, DepthUpdate)
    assert (update.first_id, update.last_id, update.event_time) == (3, 9, START_MS)
    touch = USDM.decode(raw(ticker(4, "1.5", "2.5", B="7", A="8", E=START_MS)))
    assert isinstance(touch, BookTicker)
    assert (touch.bid_px, touch.bid_qty, touch.ask_px, touch.ask_qty) == (1.5, 7.0, 2.5, 8.0)
    assert touch.event_time == START_MS


def test_the_time_unit_is_told_by_magnitude():
    """13 digits are ms, 16 are us, anything else is no time."""
    assert to_ns(1_723_161_255_208) == 1_723_161_255_208_000_000
    assert to_ns(1_723_161_255_208_123) == 1_723_161_255_208_123_000
    for time in (0, 1_723_161_255, 1_723_161_255_208_123_456):
        with pytest.raises(FeedError, match="neither in ms nor in us"):
            to_ns(time)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "bad JSON"),
        (b"{", "bad JSON"),
        (raw(trade(1)) + b"}", "bad JSON"),
        (b"[]", "bad field"),
        (b'{"stream":"btcusdt@trade","data":{"s":"BTC\xff"}}', "not UTF-8"),
        (b'{"result":null,"id":1}', "unknown message"),
        (raw({"stream": "btcusdt@trade"}), "bad field"),
        (raw(event("kline_1m", trade(1)["data"])), "unknown stream kline_1m"),
        (raw(event("depth20@100ms", depth(1, 2)["data"])), "unknown stream depth20"),
        (raw({"stream": "!serverShutdown", "data": {}}), "unknown stream !serverShutdown"),
        (raw(trade(1, p="nan")), "bad field"),
        (raw(trade(1, p="-1")), "bad field"),
        (raw(trade(1, t=2**63)), "bad field"),
        (raw(depth(1, 2, [("0", "1")])), "bad field"),
        (raw(depth(1, 2, [("1", "inf")])), "bad field"),
        (raw(depth(3, 2)), "bad field"),
        (b'{"x":' + b"[" * 100_000, "bad JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_kind_of_fault_first(payload, reason):
    """The kind is the text up to the first colon."""
    with pytest.raises(FeedError) as caught:
        SPOT.decode(payload)
    assert caught.value.message.partition(":")[0] == reason


@pytest.mark.parametrize("name", ["s", "E", "U", "u", "b", "a"])
def test_a_missing_field_is_named(name):
    """Each field of an update that is needed."""
    message = depth(1, 2)
    del message["data"][name]
    with pytest.raises(FeedError, match=f"missing required field `{name}`"):
        SPOT.decode(raw(message))


def test_the_other_venues_updates_are_recognised_and_the_flag_is_named():
    """Spot never sends pu, USD-M always does."""
    with pytest.raises(DataError) as caught:
        SPOT.decode(raw(depth(1, 2, pu=0)))
    assert not isinstance(caught.value, FeedError)
    assert "--venue binance-usdm" in caught.value.remedy
    with pytest.raises(DataError) as caught:
        USDM.decode(raw(depth(1, 2)))
    assert not isinstance(caught.value, FeedError)
    assert "--venue binance-spot" in caught.value.remedy


def test_a_futures_update_without_pu_is_a_bad_line_not_another_venue():
    """It has the futures' T."""
    with pytest.raises(FeedError, match="pu"):
        USDM.decode(raw(depth(1, 2, T=START_MS)))
    with pytest.raises(FeedError, match="bad field"):
        USDM.decode(raw(depth(3, 2, pu=1)))


def test_futures_rows_that_met_no_order_are_no_prints():
    """X other than MARKET, or no price, or no quantity."""
    for more, reason in (({"X": "INSURANCE_FUND"}, "INSURANCE_FUND"), ({"X": "NA", "p": "0"}, "NA"), ({"q": "0"}, "0")):
        message = USDM.decode(raw(trade(1, **more)))
        assert isinstance(message, Trade)
        assert reason in USDM.not_a_print(message)
    for more in ({"X": "MARKET"}, {}):
        message = USDM.decode(raw(trade(1, **more)))
        assert isinstance(message, Trade)
        assert USDM.not_a_print(message) == ""
    zero = SPOT.decode(raw(trade(1, price="0")))
    assert isinstance(zero, Trade)
    assert SPOT.not_a_print(zero)
