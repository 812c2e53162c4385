"""Fetching history from the loopback venue over real sockets: all of it, nothing twice, through every fault."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import DataError, UsageError
from mmlab.core.schemas import BARS, FUNDING
from mmlab.flows.fetch import (
    HOUR_NS,
    Fetched,
    FetchSpec,
    absent,
    fetch_funding,
    fetch_klines,
    parse_instant,
    unsettled,
)
from mmlab.flows.rest import REAL_TIME, Patience, Time
from mmlab.serve.faults import Fault
from mmlab.store.candles import AbsentError, Candles
from reference.history import MARKET, NOW, SYMBOL, Asked, bars, fast, history, ns, settlements

QUICK = Patience(tries=4, base_s=0.01, answer_s=5.0)
DAYS = ("2024-02-01", "2024-02-26")  # 2,400 candles of 15 minutes: three pages
FIRST, SECOND, LAST = "2024-02-01T00:00", "2024-02-11T10:00", "2024-02-21T20:00"  # where the pages begin


def spec(at: Asked, root: Path, start: str = DAYS[0], end: str | None = DAYS[1], **changes: Any) -> FetchSpec:
    made = FetchSpec("binance-usdm", SYMBOL, ns(start), None if end is None else ns(end), root, at.url)
    return replace(made, **changes)


def fetch(
    what: FetchSpec, interval: str = "15m", said: list[str] | None = None, patience: Patience = QUICK,
    clocks: Time = REAL_TIME,
) -> Fetched:  # fmt: skip
    return fetch_klines(what, interval, lambda *_: None, (said if said is not None else []).append, patience, clocks)


def fetch_settled(what: FetchSpec) -> Fetched:
    return fetch_funding(what, lambda *_: None, lambda _: None, QUICK)


def starts(at: Asked, what: str = "klines") -> list[int]:
    """Where each page began, ns."""
    return [int(query["startTime"]) * 10**6 for query in at.requests(what)]


# -- what arrives -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("usdm", "path"), [(True, "/fapi/v1/klines"), (False, "/api/v3/klines")])
def test_a_range_is_fetched_whole_and_every_digit_is_the_venues(tmp_path, usdm, path):
    """Three pages of a thousand at most, and the progress ends at all of them."""
    shown: list[tuple[str, int, int]] = []
    with history(market=replace(MARKET, usdm=usdm)) as at:
        name = "binance-usdm" if usdm else "binance-spot"
        made = fetch_klines(spec(at, tmp_path, venue=name), "15m", lambda *s: shown.append(s), print, QUICK)
        assert [(q["path"], q["limit"]) for q in at.requests("klines")] == [
            (path, "1000"), (path, "1000"), (path, "400"),
        ]  # fmt: skip
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars(*DAYS))
    assert made == Fetched(2400, 0, 4, ns(DAYS[0]), ns(DAYS[1]) - 900 * 10**9, None, [])
    assert shown[0][1:] == (0, 2400)
    assert shown[-1][1:] == (2400, 2400)
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)


def test_what_the_lake_has_is_not_asked_for_again(tmp_path):
    """Not once; a longer range asks for its ends, and a hole for itself."""
    with history() as at:
        fetch(spec(at, tmp_path))
        asked = len(at.requests())
        again = fetch(spec(at, tmp_path))
        assert (again.new, again.held, again.requests) == (0, 2400, 0)
        assert len(at.requests()) == asked
        longer = fetch(spec(at, tmp_path, "2024-01-31", "2024-02-27"))
        assert (longer.new, longer.held) == (192, 2400)
        assert starts(at)[3:] == [ns("2024-01-31"), ns("2024-02-26")]
        assert [q["limit"] for q in at.requests("klines")][3:] == ["96", "96"]
    some = bars("2024-02-01", "2024-02-02")
    Candles(tmp_path / "b").write(
        BARS, "binance-usdm", SYMBOL, "15m", some[:10].vstack(some[13:]), replace=False, source={}
    )
    with history() as at:
        assert fetch(spec(at, tmp_path / "b", end="2024-02-02")).new == 3
        (asked_for,) = at.requests("klines")
        assert asked_for["limit"] == "3"
        assert starts(at) == [some["open_ns"][10]]
    assert Candles(tmp_path / "b").bars(SYMBOL, "15m").equals(some)


def test_a_candle_that_is_not_closed_is_left_for_later(tmp_path):
    """By the venue's clock, not ours; five seconds after its end it is taken, and then it is the final one."""
    with history() as at:
        fetch(spec(at, tmp_path, "2024-03-05", None))
        assert Candles(tmp_path).bars(SYMBOL, "15m")["open_ns"][-1] == ns("2024-03-05T11:45")
    for clock, last in (("2024-03-05T12:15:04", "11:45"), ("2024-03-05T12:15:05", "12:00")):
        with history(clock_ns=lambda clock=clock: ns(clock)) as at:
            fetch(spec(at, tmp_path, "2024-03-05", "2024-03-06"))
            assert Candles(tmp_path).bars(SYMBOL, "15m")["open_ns"][-1] == ns(f"2024-03-05T{last}")
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars("2024-03-05", "2024-03-05T12:15"))


def test_before_the_listing_and_in_outages_the_venue_has_nothing_and_is_asked_once(tmp_path):
    """The first page begins with the first candle; holes are named, and end no fetch and repeat no request."""
    down = ((ns("2024-02-05T01:00"), ns("2024-02-05T03:00")), (ns("2024-02-20"), ns("2024-03-02")))
    market = replace(MARKET, listed_ns=ns("2024-01-20T06:00"), outages=down)
    with history(market=market) as at:
        made = fetch(spec(at, tmp_path, "2023-01-01", "2024-03-04"))
        assert made.before == (ns("2023-01-01"), ns("2024-01-20T06:00"))
        assert made.gaps == [*down]
        assert len(at.requests("klines")) == -(-made.new // 1000)
        again = fetch(spec(at, tmp_path, "2023-01-01", "2024-03-04"))
        assert replace(again, new=made.new, held=0, requests=made.requests) == made
        assert (again.new, again.requests) == (0, 4)  # its clock, and each hole
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars("2024-01-20", "2024-03-04", market=market))


def test_a_range_before_the_listing_says_when_the_first_candle_was(tmp_path):
    with history() as at, pytest.raises(DataError, match="has no 1d candles of TESTUSDT from 2019-01-01") as told:
        fetch(spec(at, tmp_path, "2019-01-01", "2019-06-01"), "1d")
    assert told.value.remedy == "its first is of 2019-09-08 00:00: give a later --end"
    down = replace(MARKET, outages=((ns("2024-02-01"), ns("2024-03-01")),))
    with history(market=down) as at, pytest.raises(DataError) as told:
        fetch(spec(at, tmp_path), "1d")
    assert told.value.remedy == "its first is of 2019-09-08 00:00: give another stretch"
    with pytest.raises(AbsentError):
        Candles(tmp_path).bars(SYMBOL, "1d")


def test_settlements_are_fetched_by_the_hour_that_they_are_due(tmp_path):
    """Whole, then nothing twice; the end, where one may have come since, is asked for each time."""
    with history() as at:
        made = fetch_settled(spec(at, tmp_path, "2023-01-01", None))
        want = settlements("2023-01-01", "2024-03-05T12:00")
        assert made == Fetched(1289, 0, 4, ns("2023-01-01"), ns("2024-03-05T08:00"), None, [])
        assert list(Candles(tmp_path).funding(SYMBOL).iter_rows()) == want
        asked = len(at.requests("fundingRate"))
        assert fetch_settled(spec(at, tmp_path, "2023-01-01", None)).new == 0
        assert starts(at, "fundingRate")[asked:] == [ns("2024-03-05T08:59")]
    lake = Candles(tmp_path / "b")
    rows = Candles(tmp_path).funding(SYMBOL)
    lake.write(FUNDING, "binance-usdm", SYMBOL, "funding", rows[:500].vstack(rows[503:]), replace=False, source={})
    with history() as at:
        assert fetch_settled(spec(at, tmp_path / "b", "2023-01-01", "2024-03-05T08:01")).new == 3
        assert starts(at, "fundingRate") == [rows["ts_ns"][499] + 59 * 60 * 10**9, rows["ts_ns"][502] + 59 * 60 * 10**9]
    assert lake.funding(SYMBOL).equals(rows)


# -- what goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("rest", request=2, path="klines", status=500, count=3),
        Fault("rest", request=2, path="klines", status=503, body="<html>busy</html>", count=2),
        Fault("rest", request=2, path="klines", status=0, count=2),
        Fault("rest", request=2, path="klines", body='[[1709596800000,"98', count=2),
        Fault("rest", request=2, path="klines", body="<html>login</html>"),
        Fault("rest", request=2, path="klines", body='{"code":-1000,"msg":"UNKNOWN"}'),
        Fault("rest", request=2, path="klines", cut=5000, count=3),
        Fault("rest", request=2, path="klines", cut=0),
        Fault("rest", request=2, path="klines", wait_s=3.0),
        Fault("rest", request=1, path="time", body="{}"),
        Fault("rest", request=1, path="time", status=502),
    ],
    ids=["500", "503", "cut", "torn", "html", "error", "short", "nothing", "slow", "no_time", "502_time"],
)
def test_what_passes_is_asked_for_again_and_nothing_is_lost_or_doubled(tmp_path, fault):
    with history(fault) as at:
        made = fetch(spec(at, tmp_path), patience=replace(QUICK, answer_s=0.7 if fault.wait_s else 5.0))
        assert made.new == 2400
        assert made.requests >= 4 + fault.count
        assert made.requests == 4 + fault.count or fault.wait_s  # a busy machine may be slow more than once
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars(*DAYS))


def test_an_answer_to_another_question_is_not_taken(tmp_path):
    """A page of other times, as a cache between us and the venue may send: asked again."""
    with history() as at:
        path = f"{at.url}/fapi/v1/klines?symbol={SYMBOL}&interval=15m&limit=3"
        with urllib.request.urlopen(path) as answer:
            other = answer.read().decode()
    with history(Fault("rest", request=1, path="klines", body=other, count=3)) as at:
        assert fetch(spec(at, tmp_path)).requests == 7
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars(*DAYS))


def test_what_does_not_pass_ends_with_a_message_and_what_came_before_is_kept(tmp_path):
    """The same command goes on from there."""
    said: list[str] = []
    with history(Fault("rest", request=3, path="klines", status=503, count=99)) as at:
        with pytest.raises(DataError, match=r"no whole answer in 4 tries: HTTP 503") as told:
            fetch(spec(at, tmp_path), said=said)
        assert "goes on from there" in told.value.remedy
        assert starts(at) == [ns(FIRST), ns(SECOND), *[ns(LAST)] * 4]
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars(FIRST, LAST))
    with history() as at:
        assert fetch(spec(at, tmp_path)).new == 400
        assert starts(at) == [ns(LAST)]
    with pytest.raises(DataError, match=r"no whole answer in 4 tries: .*refused"):
        fetch(spec(at, tmp_path, end="2024-02-27"))  # nobody listens there any more


def test_too_many_requests_waits_as_long_as_the_venue_says(tmp_path):
    """Retry-After 20: not asked again before; the wait is told."""
    said: list[str] = []
    clocks = fast()
    fault = Fault("rest", request=2, path="klines", status=429, headers={"Retry-After": "20"}, count=2)
    with history(fault, clock_ns=clocks.wall_ns) as at:
        assert fetch(spec(at, tmp_path), said=said, clocks=clocks).new == 2400
        times = [query["at_ns"] for query in at.requests("klines")]
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert min(waits[1:3]) >= 20 * 10**9
    assert said == ["the venue wants fewer requests: waiting 20 s"] * 2


def test_a_ban_ends_the_fetch_and_is_heeded_by_the_next_one(tmp_path):
    """418: one request, a message with the time; while it lasts nothing at all is asked."""
    fault = Fault("rest", request=2, path="klines", status=418, headers={"Retry-After": "600"}, count=99)
    with history(fault) as at:
        with pytest.raises(DataError, match=r"binance-usdm takes no requests of this address until 20..-.*UTC"):
            fetch(spec(at, tmp_path))
        assert len(at.requests("klines")) == 2
        asked = len(at.requests())
        with pytest.raises(DataError, match="takes no requests"):
            fetch(spec(at, tmp_path))
        assert len(at.requests()) == asked
    assert Candles(tmp_path).bars(SYMBOL, "15m").equals(bars(FIRST, SECOND))


@pytest.mark.parametrize(("others", "limited"), [(4, False), (10, True)])
def test_the_minutes_weight_is_kept_to_and_counts_what_others_use(tmp_path, others, limited):
    """Once another program used two fifths of it, the next minute is waited for; over the limit, 429 says so."""
    clocks, said = fast(), []
    with history(clock_ns=clocks.wall_ns, weight_per_min=2400) as at:
        for _ in range(others):
            try:
                urllib.request.urlopen(f"{at.url}/fapi/v1/depth?symbol={SYMBOL}&limit=1000").close()
            except urllib.error.HTTPError as error:
                error.close()
        assert fetch(spec(at, tmp_path), said=said, clocks=clocks).new == 2400
        minutes = {what: {q["at_ns"] // (60 * 10**9) for q in at.requests(what)} for what in ("depth", "klines")}
    assert min(minutes["klines"]) > max(minutes["depth"])
    assert ("fewer requests" if limited else "share of the venue's limit") in said[0]


@pytest.mark.parametrize(
    ("changes", "interval", "error", "message"),
    [
        ({"symbol": "NOUSDT"}, "15m", UsageError, "binance-usdm does not know NOUSDT"),
        ({"venue": "kraken"}, "15m", UsageError, "unknown venue 'kraken'"),
        ({"rest_url": "127.0.0.1:80"}, "15m", UsageError, "--rest-url is '127.0.0.1:80'"),
        ({}, "7m", UsageError, "interval '7m'"),
        ({}, "10m", UsageError, "binance-usdm has no candles of 10m"),
        ({"end_ns": None, "start_ns": NOW}, "15m", UsageError, "nothing from 2024-03-05 12:07:30 on is over yet"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path, changes, interval, error, message):
    with history() as at, pytest.raises(error, match=message):
        fetch(spec(at, tmp_path, **changes), interval)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_refusal_that_asking_again_does_not_mend_is_told_in_the_venues_words(tmp_path):
    body = json.dumps({"code": -1130, "msg": "Data sent for parameter 'limit' is not valid."})
    for fault, message in (
        (Fault("rest", request=1, path="klines", status=400, body=body), "HTTP 400: -1130 Data sent"),
        (Fault("rest", request=1, path="klines", status=451, body="<html>\nhere"), "HTTP 451: <html>"),
        (Fault("rest", request=1, path="klines", status=403), "HTTP 403: no reason"),
    ):
        with history(fault) as at, pytest.raises(DataError, match=message):
            fetch(spec(at, tmp_path))
    with history() as at, pytest.raises(UsageError, match="binance-spot has no funding"):
        fetch_settled(spec(at, tmp_path, venue="binance-spot"))


def test_a_start_after_the_end_is_refused():
    with pytest.raises(UsageError, match="--start 2024-01-02 00:00 is not before --end 2024-01-01 00:00"):
        FetchSpec("binance-usdm", SYMBOL, ns("2024-01-02"), ns("2024-01-01"))
    with pytest.raises(UsageError, match="tries is 0"):
        Patience(tries=0)


# -- what is missing ----------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 40)), st.integers(0, 40), st.integers(0, 40), st.integers(0, 9), st.integers(0, 9))
def test_missing_bars_are_those_of_a_walk_over_the_grid(have, first, last, before, after):
    """Every start on the grid in [start, end) lies in exactly one stretch, or is there."""
    start, end = 10 * first - before, 10 * last + after
    found = absent(sorted(10 * n for n in have), start, end, 10)
    in_stretch = [at for from_ns, to_ns in found for at in range(from_ns, to_ns, 10)]
    assert in_stretch == [10 * n for n in range(41) if n not in have and start <= 10 * n < end]
    assert all(from_ns % 10 == to_ns % 10 == 0 for from_ns, to_ns in found)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


@given(st.sampled_from([1, 2, 4, 8]), st.integers(8, 60), st.data())
def test_a_settlement_that_is_missing_is_found_and_a_whole_schedule_has_none(every, n, data):
    """On any schedule, one or several in a row."""
    due = [hour * every * HOUR_NS for hour in range(10, 10 + n)]
    end = due[-1] + HOUR_NS
    assert unsettled(due, due[0], end) == []
    first = data.draw(st.integers(2, n - 4))
    lost = data.draw(st.integers(1, 2))
    kept = due[:first] + due[first + lost :]
    assert unsettled(kept, due[0], end) == [(due[first - 1] + HOUR_NS, due[first + lost])]


def test_a_schedule_that_changes_lacks_nothing_and_its_ends_are_asked_for():
    due = [h * HOUR_NS for h in (0, 8, 16, 24, 28, 32, 36, 40, 41, 42, 43, 51, 59)]
    assert unsettled(due, 0, 60 * HOUR_NS) == []
    assert unsettled(due[1:], 0, 60 * HOUR_NS) == [(0, 8 * HOUR_NS)]
    assert unsettled(due, 0, 61 * HOUR_NS) == [(60 * HOUR_NS, 61 * HOUR_NS)]
    assert unsettled([], 5, 7) == [(5, 7)]
    assert unsettled([0, 16 * HOUR_NS], 0, 17 * HOUR_NS) == [(HOUR_NS, 16 * HOUR_NS)]


def test_instants_are_utc_days_or_times_and_an_end_day_is_meant_whole():
    assert parse_instant("--start", "2024-01-31") == ns("2024-01-31")
    assert parse_instant("--end", "20240131", end=True) == ns("2024-02-01")
    assert parse_instant("--end", "2024-01-31T00:00", end=True) == ns("2024-01-31")
    assert parse_instant("--end", "2024-01-31T02:00+02:00", end=True) == ns("2024-01-31")
    for bad in ("January", "2024-13-01", "", "1066-10-14"):
        with pytest.raises(UsageError, match="--start is"):
            parse_instant("--start", bad)
