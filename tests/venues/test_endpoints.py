"""Where the venues are reached: URLs, weights and streams as they publish them; and their REST answers read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import FeedError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.venues.binance import Snapshot
from mmlab.venues.endpoints import (
    SPOT,
    TRADES_LIMIT,
    USDM,
    VENUES,
    Listing,
    Request,
    parse_streams,
    plain,
    read_info,
    read_prints,
    read_snapshot,
)

PRICE = {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "tickSize": "0.01000000"}
LOT = {"filterType": "LOT_SIZE", "minQty": "0.00001000", "stepSize": "0.00001000"}
SNAPSHOT = {"lastUpdateId": 7, "bids": [["100.10", "1.5"]], "asks": [["100.20", "2"]]}
HTML = b"<html><head><title>403 Forbidden</title></head><body>nginx</body></html>"
NO_ANSWERS = [HTML, b"", b"null", b"[[", b"\xff\xfe", b'{"code":-1003,"msg":"Too much request weight used"}', b"[1]"]
WANTED = ("BTCUSDT", "ETHUSDT")


def info(*filters: Any, symbol: str = "BTCUSDT", status: str = "TRADING") -> bytes:
    """An answer of exchangeInfo that lists one symbol."""
    row = {"symbol": symbol, "status": status, "baseAsset": "BTC", "filters": filters}
    return json.dumps({"timezone": "UTC", "serverTime": 1, "symbols": [row]}).encode()


def trade(trade_id: int) -> dict[str, Any]:
    return {
        "id": trade_id, "price": "100.10", "qty": "0.5", "quoteQty": "50.05", "time": 1_735_689_600_000,
        "isBuyerMaker": True, "isBestMatch": True,
    }  # fmt: skip


def agg_trade(trade_id: int) -> dict[str, Any]:
    return {"a": trade_id, "p": "100.10", "q": "0.5", "f": 1, "l": 2, "T": 1_735_689_600_000, "m": False, "M": True}


# -- where ---------------------------------------------------------------------------------------------


def test_venues_are_known_by_the_names_of_their_folders():
    assert VENUES == {"binance-spot": SPOT, "binance-usdm": USDM}
    assert [venue.name for venue in (SPOT, USDM)] == ["binance-spot", "binance-usdm"]


def test_addresses_are_encrypted_and_as_the_venue_publishes_them():
    assert (SPOT.ws_url, SPOT.rest_url) == ("wss://stream.binance.com:9443", "https://api.binance.com")
    assert (USDM.ws_url, USDM.rest_url) == ("wss://fstream.binance.com", "https://fapi.binance.com")


def test_spot_has_one_line_for_all_symbols_and_asks_for_microseconds():
    """On the socket by the query, in REST by a header."""
    lines = SPOT.lines(("BTCUSDT", "ETHUSDT"), ("depth@100ms", "trade", "aggTrade"))
    names = [
        f"{symbol}@{stream}" for symbol in ("btcusdt", "ethusdt") for stream in ("depth@100ms", "trade", "aggTrade")
    ]
    assert lines == {"": names}
    assert SPOT.socket_path("", names) == f"/stream?streams={'/'.join(names)}&timeUnit=MICROSECOND"
    assert dict(SPOT.headers) == {"X-MBX-TIME-UNIT": "MICROSECOND"}
    assert SPOT.microseconds


def test_usdm_has_a_line_for_aggregates_of_its_own():
    """Books, trades and tickers are under /public, aggregates under /market; times are in milliseconds."""
    lines = USDM.lines(("BTCUSDT",), ("depth@100ms", "trade", "bookTicker", "aggTrade"))
    assert lines == {
        "/public": ["btcusdt@depth@100ms", "btcusdt@trade", "btcusdt@bookTicker"],
        "/market": ["btcusdt@aggTrade"],
    }
    paths = [USDM.socket_path(route, names) for route, names in lines.items()]
    assert paths == [
        "/public/stream?streams=btcusdt@depth@100ms/btcusdt@trade/btcusdt@bookTicker",
        "/market/stream?streams=btcusdt@aggTrade",
    ]
    assert not USDM.microseconds
    assert not USDM.headers


def test_usdm_without_aggregates_has_one_line():
    assert list(USDM.lines(("BTCUSDT", "ETHUSDT"), ("depth@100ms", "trade"))) == ["/public"]


def test_a_symbol_that_is_not_ascii_is_quoted():
    """Such symbols exist; a path may only hold ASCII."""
    path = SPOT.socket_path("", SPOT.lines(("币安USDT",), ("trade",))[""])
    assert path.isascii()
    assert parse_qs(urlsplit(path).query)["streams"] == ["币安usdt@trade"]
    assert parse_qs(urlsplit(SPOT.depth("币安USDT").path).query)["symbol"] == ["币安USDT"]


# -- requests ------------------------------------------------------------------------------------------


def test_a_snapshot_is_the_deepest_the_venue_gives_at_its_weight():
    assert SPOT.depth("BTCUSDT") == Request("/api/v3/depth?symbol=BTCUSDT&limit=5000", 250)
    assert USDM.depth("BTCUSDT") == Request("/fapi/v1/depth?symbol=BTCUSDT&limit=1000", 20)


def test_prints_are_asked_for_by_their_first_id():
    query = "symbol=BTCUSDT&fromId=100&limit=5"
    assert SPOT.prints("trade", "BTCUSDT", 100, 104) == Request(f"/api/v3/historicalTrades?{query}", 25)
    assert SPOT.prints("aggTrade", "BTCUSDT", 100, 104) == Request(f"/api/v3/aggTrades?{query}", 4)
    assert USDM.prints("trade", "BTCUSDT", 100, 104) == Request(f"/fapi/v1/historicalTrades?{query}", 20)
    assert USDM.prints("aggTrade", "BTCUSDT", 100, 104) == Request(f"/fapi/v1/aggTrades?{query}", 20)


@given(first=st.integers(0, 10**12), count=st.integers(1, 10**6), stream=st.sampled_from(["trade", "aggTrade"]))
def test_no_more_prints_are_asked_for_than_one_answer_holds(first, count, stream):
    for venue in (SPOT, USDM):
        query = parse_qs(urlsplit(venue.prints(stream, "BTCUSDT", first, first + count - 1).path).query)
        assert query == {"symbol": ["BTCUSDT"], "fromId": [str(first)], "limit": [str(min(count, TRADES_LIMIT))]}


def test_filters_are_asked_for_by_symbol_where_the_venue_has_a_choice():
    """Spot takes a JSON list; USD-M answers with all that it has."""
    request = SPOT.info(("BTCUSDT", "ETHUSDT"))
    assert request.weight == 20
    assert request.path.startswith("/api/v3/exchangeInfo?")
    assert json.loads(parse_qs(urlsplit(request.path).query)["symbols"][0]) == ["BTCUSDT", "ETHUSDT"]
    assert USDM.info(("BTCUSDT", "ETHUSDT")) == Request("/fapi/v1/exchangeInfo", 1)


def test_a_minute_allows_what_the_venue_publishes():
    assert (SPOT.weight_per_min, USDM.weight_per_min) == (6000, 2400)


# -- streams -------------------------------------------------------------------------------------------


def test_streams_are_read_in_their_order():
    assert parse_streams("depth@100ms,trade") == ("depth@100ms", "trade")
    assert parse_streams(" aggTrade , bookTicker,, depth ,") == ("aggTrade", "bookTicker", "depth")


@pytest.mark.parametrize(
    "text", ["kline_1m", "depth@100ms,kline_1m", "Trade", "depth20@100ms", "@trade", "depth trade"]
)
def test_a_kind_that_is_not_recorded_is_refused(text):
    """The error names the flag and the part of it, and the kinds that there are."""
    with pytest.raises(UsageError, match=r"--streams names") as caught:
        parse_streams(text)
    assert "bookTicker" in caught.value.remedy


@pytest.mark.parametrize("text", ["", " , ,", "trade,trade", "depth@100ms,depth", "depth,trade,depth@1000ms"])
def test_no_stream_and_a_kind_named_twice_are_refused(text):
    """Two speeds of one book would be two books of one symbol."""
    with pytest.raises(UsageError, match=r"--streams is"):
        parse_streams(text)


# -- answers -------------------------------------------------------------------------------------------


def test_filters_are_read_without_trailing_zeros():
    """As the lake writes them, so that a change of notation is no change of filters."""
    notional = {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True}
    found = read_info("binance-spot", info(PRICE, LOT, notional), WANTED)
    assert found == {"BTCUSDT": Listing(Instrument("binance-spot", "BTCUSDT", "0.01", "0.00001", "5"), "TRADING")}


@pytest.mark.parametrize(
    ("smallest", "expected"),
    [
        ([{"filterType": "NOTIONAL", "minNotional": "5.00000000"}], "5"),
        ([{"filterType": "MIN_NOTIONAL", "minNotional": "10.00000000"}], "10"),
        ([{"filterType": "MIN_NOTIONAL", "notional": "100"}], "100"),
        ([{"filterType": "MIN_NOTIONAL", "notional": 12.5}], "12.5"),
        ([], "0"),
    ],
)
def test_the_smallest_order_is_named_in_three_ways(smallest, expected):
    """Spot today, spot before, USD-M; and a symbol may have none."""
    found = read_info("binance-usdm", info(PRICE, LOT, *smallest, status="BREAK"), WANTED)
    assert found["BTCUSDT"].instrument.min_notional == expected
    assert found["BTCUSDT"].status == "BREAK"


@pytest.mark.parametrize(
    "filters", [[], [PRICE], [LOT], [{"filterType": "PRICE_FILTER"}, LOT], [PRICE, {"filterType": "LOT_SIZE"}]]
)
def test_a_symbol_that_lacks_a_filter_is_no_answer(filters):
    """The fault names the symbol."""
    with pytest.raises(FeedError, match=r"exchangeInfo of BTCUSDT lacks"):
        read_info("binance-spot", info(*filters), WANTED)


@pytest.mark.parametrize("tick", ["0.00000000", "", "abc", 0.01, None])
def test_a_filter_that_is_no_positive_decimal_is_no_answer(tick):
    """Binance writes 0 where it switches a filter off; whoever asks catches FeedError, and nothing else."""
    with pytest.raises(FeedError):
        read_info("binance-spot", info({"filterType": "PRICE_FILTER", "tickSize": tick}, LOT), WANTED)


def test_a_filter_whose_type_is_no_text_is_no_answer():
    with pytest.raises(FeedError):
        read_info("binance-spot", info({"filterType": []}, LOT), WANTED)


@pytest.mark.parametrize("body", [*NO_ANSWERS, json.dumps(SNAPSHOT).encode()])
def test_what_is_no_exchange_info_is_refused(body):
    with pytest.raises(FeedError, match=r"bad answer"):
        read_info("binance-spot", body, WANTED)


def test_no_symbols_are_no_listings():
    assert read_info("binance-spot", b'{"symbols":[]}', WANTED) == {}


def test_a_snapshot_is_read():
    snapshot = read_snapshot(json.dumps(SNAPSHOT).encode())
    assert (snapshot.last_update_id, snapshot.bids, snapshot.asks) == (7, [(100.1, 1.5)], [(100.2, 2.0)])


@pytest.mark.parametrize(
    "body",
    [
        *NO_ANSWERS,
        b'{"lastUpdateId":7,"bids":[]}',
        b'{"lastUpdateId":-1,"bids":[],"asks":[]}',
        b'{"lastUpdateId":7,"bids":[["nan","1"]],"asks":[]}',
        b'{"lastUpdateId":7,"bids":[["inf","1"]],"asks":[]}',
        b'{"lastUpdateId":7,"bids":[["0","1"]],"asks":[]}',
        b'{"lastUpdateId":7,"bids":[["1","-1"]],"asks":[]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_snapshot_is_refused(body):
    """An HTML page, an error, half of the fields, prices that are none."""
    with pytest.raises(FeedError, match=r"bad answer"):
        read_snapshot(body)


def test_a_torn_answer_is_refused_wherever_it_was_torn():
    """Every proper beginning of a right answer is no answer."""
    answers = (
        (json.dumps(SNAPSHOT).encode(), read_snapshot),
        (json.dumps([trade(1), trade(2)]).encode(), lambda body: read_prints("trade", body)),
        (json.dumps([agg_trade(1)]).encode(), lambda body: read_prints("aggTrade", body)),
        (info(PRICE, LOT), lambda body: read_info("binance-spot", body, WANTED)),
    )
    for whole, read in answers:
        read(whole)
        for end in range(len(whole)):
            with pytest.raises(FeedError, match=r"bad answer"):
                read(whole[:end])


@given(
    body=st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.from_regex(r'\{"[a-z]*":[\[\{0-9",.\]\}]*', fullmatch=True).map(str.encode),
    )
)
def test_any_bytes_are_a_snapshot_or_a_fault(body):
    """Nothing else comes out: no other error, no half an answer."""
    try:
        snapshot = read_snapshot(body)
    except FeedError:
        return
    assert isinstance(snapshot, Snapshot)


@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
@pytest.mark.parametrize("body", [*NO_ANSWERS, json.dumps(SNAPSHOT).encode(), b'[{"id":1,"a":1}]'])
def test_what_are_no_prints_is_refused(stream, body):
    with pytest.raises(FeedError, match=r"bad answer"):
        read_prints(stream, body)


@given(ids=st.lists(st.integers(0, 2**63 - 1), max_size=30), stream=st.sampled_from(["trade", "aggTrade"]))
def test_prints_come_by_ascending_id(ids, stream):
    """Whatever order the venue chose; none is lost."""
    make = trade if stream == "trade" else agg_trade
    printed = read_prints(stream, json.dumps([make(i) for i in ids]).encode())
    assert [p.trade_id for p in printed] == sorted(ids)


def test_prints_carry_price_quantity_time_and_side():
    for stream, row, maker in (("trade", trade(3), True), ("aggTrade", agg_trade(3), False)):
        (p,) = read_prints(stream, json.dumps([row]).encode())
        assert (p.trade_id, p.price, p.qty, p.trade_time, p.buyer_is_maker) == (3, 100.1, 0.5, 1_735_689_600_000, maker)


@pytest.mark.parametrize(
    ("text", "expected"), [("0.01000000", "0.01"), ("1.00000000", "1"), ("100", "100"), ("0.10", "0.1"), ("0.00", "0")]
)
def test_only_zeros_after_the_point_are_cut(text, expected):
    assert plain(text) == expected
