"""Requests for a venue's past, as Binance documents them, and its refusals."""

from __future__ import annotations

import pytest

from mmlab.core.errors import FeedError, UsageError
from mmlab.venues.endpoints import SPOT, USDM
from mmlab.venues.history import clock, funding, klines, read_clock, read_refusal


def test_paths_name_symbol_interval_range_and_limit():
    assert klines(SPOT, "BTCUSDT", "15m", 5, 9, 7).path == (
        "/api/v3/klines?symbol=BTCUSDT&interval=15m&startTime=5&endTime=9&limit=7"
    )
    assert klines(USDM, "A&B", "1d", 5, 9, 7).path.startswith("/fapi/v1/klines?symbol=A%26B&interval=1d&")
    assert funding(USDM, "BTCUSDT", 5, 9).path == "/fapi/v1/fundingRate?symbol=BTCUSDT&startTime=5&endTime=9&limit=1000"
    assert (clock(SPOT).path, clock(USDM).path) == ("/api/v3/time", "/fapi/v1/time")


@pytest.mark.parametrize(("limit", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10)])
def test_candles_of_usdm_cost_by_their_number_and_of_spot_always_two(limit, weight):
    assert klines(USDM, "X", "1m", 0, 1, limit).weight == weight
    assert klines(SPOT, "X", "1m", 0, 1, limit).weight == 2


def test_what_a_venue_does_not_have_is_refused():
    with pytest.raises(UsageError, match="binance-spot has no candles of 2m"):
        klines(SPOT, "X", "2m", 0, 1, 1)
    with pytest.raises(UsageError, match="binance-spot has no funding"):
        funding(SPOT, "X", 0, 1)


def test_its_clock_and_its_refusals_are_read_whatever_they_say():
    assert read_clock(b'{"serverTime":1700000000123}') == 1_700_000_000_123_000_000
    for body in (b"{}", b"", b"<html>", b'{"serverTime":"x"}', b"\xff"):
        with pytest.raises(FeedError, match="bad answer"):
            read_clock(body)
    assert read_refusal(b'{"code":-1121,"msg":"Invalid symbol."}') == (-1121, "Invalid symbol.")
    for body in (b"", b"<html>no</html>", b'{"code":"x","msg":1}', b"[1]"):
        assert read_refusal(body) == (0, body.decode())
    assert read_refusal(b"\xff" * 300)[0] == 0
