"""The loopback venue's past: the same whatever is asked, whole minutes in every interval, and the venue's manners."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.serve.candles import Bars, Candles, CandleSpec, decimal
from mmlab.serve.faults import Fault
from reference.history import MARKET, NOW, SYMBOL, Asked, history, ns

MINUTE = 60 * 10**9
FAR = 1 << 61
COLUMNS = tuple(Bars.__dataclass_fields__)


def rows(bars: Bars) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(bars, name).tolist() for name in COLUMNS), strict=True))


def get(at: Asked, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(at.url + path, headers=headers), timeout=5) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@given(st.integers(0, 2000), st.integers(1, 300), st.sampled_from([1, 3, 15, 60, 240]), st.integers(0, 5))
def test_a_candle_is_made_of_its_minutes_wherever_the_range_begins(first, n, minutes, seed):
    """First, highest, lowest, last, and sums, minute by minute; across an outage and the listing."""
    listed = ns("2020-01-01T00:07")
    spec = replace(MARKET, seed=seed, listed_ns=listed, outages=((listed + 99 * MINUTE, listed + 400 * MINUTE),))
    candles, from_ns = Candles(spec), ns("2020-01-01") + first * MINUTE
    made = candles.bars(SYMBOL, minutes * MINUTE, from_ns, from_ns + n * MINUTE, 10**6, FAR)
    blocks: dict[int, list[tuple[int, ...]]] = {}
    step = minutes * MINUTE
    low, high = -(-from_ns // step) * step, -(-(from_ns + n * MINUTE) // step) * step
    for row in rows(candles.bars(SYMBOL, MINUTE, low, high, 10**6, FAR)):
        blocks.setdefault(row[0] // step * step, []).append(row)
    want = []
    for at, of in blocks.items():
        sums = (sum(row[i] for row in of) for i in (5, 6, 7))
        want.append((at, of[0][1], max(row[2] for row in of), min(row[3] for row in of), of[-1][4], *sums))
    assert rows(made) == want


def test_minutes_join_and_prices_and_volumes_can_be_meant():
    """A year of hours and a day of minutes: each opens where the last closed."""
    candles = Candles(MARKET)
    for step in (MINUTE, 60 * MINUTE):
        bars = candles.bars(SYMBOL, step, ns("2023-01-01"), ns("2024-01-01"), 8000, FAR)
        assert (bars.open[1:] == bars.close[:-1]).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert (bars.low > 0).all()
        assert ((bars.bought >= 0) & (bars.bought <= bars.volume) & (bars.trades > 0)).all()
        assert len(np.unique(bars.close)) > 1000


def test_seeds_and_symbols_have_histories_of_their_own():
    two = Candles(replace(MARKET, symbols=("A", "B")))
    found = [
        rows(market.bars(symbol, MINUTE, ns("2024-01-01"), FAR, 50, FAR))
        for market, symbol in ((two, "A"), (two, "B"), (Candles(replace(MARKET, symbols=("A",), seed=6)), "A"))
    ]
    assert len({tuple(each) for each in found}) == 3
    assert found[0] == rows(Candles(replace(MARKET, symbols=("A",))).bars("A", MINUTE, ns("2024-01-01"), FAR, 50, FAR))


def test_the_newest_candle_is_unfinished_until_its_time_is_over():
    """It has the minutes that are over and a part of the running one, and its volume grows to the final one."""
    candles, at = Candles(MARKET), ns("2024-03-05T12:00")
    seen = [candles.bars(SYMBOL, 15 * MINUTE, at, FAR, 10, at + s * 10**9) for s in (0, 1, 59, 61, 450, 899, 900)]
    volumes = [int(bars.volume[0]) for bars in seen]
    assert volumes == sorted(volumes)
    assert len(set(volumes)) == len(volumes)
    assert [len(bars.open_ns) for bars in seen] == [1, 1, 1, 1, 1, 1, 2]
    assert rows(seen[-1])[0] == rows(candles.bars(SYMBOL, 15 * MINUTE, at, FAR, 1, FAR))[0]
    assert all(b.low[0] <= min(b.open[0], b.close[0]) <= max(b.open[0], b.close[0]) <= b.high[0] for b in seen)


def test_klines_are_asked_for_as_the_venue_documents_them():
    """Twelve columns; the oldest of a range, the newest without a start; limits; microseconds on spot; errors."""
    with history() as at:
        base = f"/fapi/v1/klines?symbol={SYMBOL}"
        start, end = ns("2024-03-01") // 10**6, ns("2024-03-02") // 10**6
        _, headers, found = get(at, f"{base}&interval=1h&startTime={start}&endTime={end}")
        assert [row[0] for row in found] == list(range(start, end + 1, 3_600_000))  # endTime is included
        assert {len(row) for row in found} == {12}
        assert found[0][6] == start + 3_599_999
        assert all(len(row[i].partition(".")[2]) == 8 for row in found for i in (1, 2, 3, 4, 5, 7, 9, 10))
        assert headers["X-MBX-USED-WEIGHT-1M"] == "5"
        assert get(at, f"{base}&interval=1h&startTime={start}&limit=3")[2] == found[:3]
        newest = get(at, f"{base}&interval=15m")[2]
        assert len(newest) == 500
        assert newest[-1][0] == ns("2024-03-05T12:00") // 10**6
        assert len(get(at, f"{base}&interval=1m&limit=9999")[2]) == 1500
        assert get(at, f"{base}&interval=1m&startTime={NOW // 10**6 + 10**6}")[2] == []
        for query, code in (("&interval=7m", -1120), ("", -1120), ("&interval=1m&startTime=2&endTime=1", -1023)):
            status, _, body = get(at, base + query)
            assert (status, json.loads(body)["code"]) == (400, code)
        assert json.loads(get(at, "/fapi/v1/klines?symbol=NOUSDT&interval=1m")[2])["code"] == -1121
    with history(market=replace(MARKET, usdm=False)) as at:
        path = f"/api/v3/klines?symbol={SYMBOL}&interval=1h&startTime={start * 1000}&limit=9999"
        _, headers, spot = get(at, path, **{"X-MBX-TIME-UNIT": "MICROSECOND"})
        assert [spot[0][0], spot[0][6]] == [start * 1000, start * 1000 + 3_599_999_999]
        assert spot[0][1:6] == found[0][1:6]
        assert headers["X-MBX-USED-WEIGHT-1M"] == "2"
        assert get(at, f"/api/v3/fundingRate?symbol={SYMBOL}")[0] == 404


def test_funding_settles_every_eight_hours_some_milliseconds_late():
    with history() as at:
        start = ns("2024-03-01") // 10**6
        path = f"/fapi/v1/fundingRate?symbol={SYMBOL}"
        _, headers, found = get(at, f"{path}&startTime={start}")
        assert [row["fundingTime"] // 10_000 for row in found] == [
            (start + n * 28_800_000) // 10_000 for n in range(14)
        ]
        assert {row["fundingTime"] % 10_000 for row in found} <= set(range(8))
        assert all(abs(float(row["fundingRate"])) < 0.001 and row["symbol"] == SYMBOL for row in found)
        assert headers["X-MBX-USED-WEIGHT-1M"] == "0"
        assert get(at, f"{path}&startTime={start}&limit=2")[2] == found[:2]
        assert get(at, f"{path}&limit=2")[2][-1] == found[-1]


@pytest.mark.parametrize(
    ("limit", "weight"), [(99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10), (1500, 10)]
)
def test_weights_follow_the_limit_and_too_much_of_them_is_refused(limit, weight):
    """429 with the seconds that are left of the minute; NOW is in the middle of one."""
    path = f"/fapi/v1/klines?symbol={SYMBOL}&interval=1m&limit={limit}"
    with history(weight_per_min=2 * weight) as at:
        assert [get(at, path)[1]["X-MBX-USED-WEIGHT-1M"] for _ in range(2)] == [str(weight), str(2 * weight)]
        status, headers, body = get(at, path)
        assert (status, headers["Retry-After"], json.loads(body)["code"]) == (429, "30", -1003)


def test_a_fault_begins_at_a_request_of_its_path_or_of_any():
    faults = (
        Fault("rest", request=2, path="klines", status=500),
        Fault("rest", request=4, path="time", cut=3),  # the first request of that path is the fourth of all
        Fault("refuse", request=6, for_s=60),
    )
    with history(*faults[:1], faults[2]) as at:
        paths = ["time", "klines", "time", "klines", "klines", "time", "time"]
        path = f"/fapi/v1/%s?symbol={SYMBOL}&interval=1m"
        assert [get(at, path % what)[0] for what in paths] == [200, 200, 200, 500, 200, 200, 503]
    with history(Fault("rest", request=2, path="time", cut=3)) as at:
        assert get(at, "/fapi/v1/time")[2] == {"serverTime": NOW // 10**6}
        with urllib.request.urlopen(f"{at.url}/fapi/v1/time") as answer:
            assert int(answer.headers["Content-Length"]) > 20
            assert answer.read(1000) == b'{"s'
    with pytest.raises(UsageError, match="needs a time"):
        Fault("rest", request=2, event=1, path="time")


def test_decimals_have_eight_places_and_a_market_has_enough_ticks():
    assert [decimal(n) for n in (0, 1, -1, 10**8, 123 * 10**8 + 45, -25_000)] == [
        "0.00000000", "0.00000001", "-0.00000001", "1.00000000", "123.00000045", "-0.00025000",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"mid is 0\.5"):
        CandleSpec(("A",), mid=0.5)
