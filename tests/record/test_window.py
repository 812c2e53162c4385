"""The recording window by the clocks on the wall, over the nights in which those are changed."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_DAY, NS_PER_S
from mmlab.record.window import Window

HOUR = 3600 * NS_PER_S
DAYTIME = Window.parse("08:00-22:00", "Europe/Berlin")
NIGHT = Window.parse("22:00-06:00", "Europe/Berlin")
ALWAYS = Window.parse("always", "Europe/Berlin")

SWITCHES = [  # opening and closing in UTC: two hours before the clock in summer, one in winter
    ("2026-10-24T06:00", "2026-10-24T20:00", "2026-10-25T07:00", "2026-10-25T21:00", 11),
    ("2027-03-27T07:00", "2027-03-27T21:00", "2027-03-28T06:00", "2027-03-28T20:00", 9),
    ("2027-10-30T06:00", "2027-10-30T20:00", "2027-10-31T07:00", "2027-10-31T21:00", 11),
    ("2026-07-01T06:00", "2026-07-01T20:00", "2026-07-02T06:00", "2026-07-02T20:00", 10),
    ("2026-12-31T07:00", "2026-12-31T21:00", "2027-01-01T07:00", "2027-01-01T21:00", 10),
]

instants = st.integers(1_767_225_600 * NS_PER_S, 1_861_920_000 * NS_PER_S)  # 2026 to 2028
shown = st.builds(time, st.integers(0, 23), st.integers(0, 59)).filter(lambda t: t.hour != 2)  # no clock skips these


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


@pytest.mark.parametrize(("opens", "closes", "opens_next", "closes_next", "idle_h"), SWITCHES)
def test_it_opens_at_8_and_closes_at_22_by_the_clock_on_the_wall(opens, closes, opens_next, closes_next, idle_h):
    """Each date has 14 hours; the night between is longer in autumn and shorter in spring."""
    first, second = (utc(opens), utc(closes)), (utc(opens_next), utc(closes_next))
    assert DAYTIME.span(first[0]) == first
    assert DAYTIME.span(first[1]) == second
    assert DAYTIME.span(second[1] - 1) == second
    assert first[1] - first[0] == second[1] - second[0] == 14 * HOUR
    assert second[0] - first[1] == idle_h * HOUR


@pytest.mark.parametrize(("opens", "closes", "opens_next", "closes_next", "idle_h"), SWITCHES)
def test_an_instant_belongs_to_its_window_or_to_the_next_one(opens, closes, opens_next, closes_next, idle_h):
    """The opening instant is inside, the closing instant is not: it waits for the next window."""
    first, second = (utc(opens), utc(closes)), (utc(opens_next), utc(closes_next))
    for now in (first[0] - 1, first[0], first[0] + 5 * HOUR, first[1] - 1):
        assert DAYTIME.span(now) == first
    for now in (first[1], first[1] + 1, first[1] + 5 * HOUR, second[0] - 1, second[0]):
        assert DAYTIME.span(now) == second


@pytest.mark.parametrize(
    ("opens", "closes", "hours"),
    [
        ("2026-07-01T20:00", "2026-07-02T04:00", 8),
        ("2026-10-24T20:00", "2026-10-25T05:00", 9),
        ("2027-03-27T21:00", "2027-03-28T04:00", 7),
        ("2027-10-30T20:00", "2027-10-31T05:00", 9),
        ("2026-12-31T21:00", "2027-01-01T05:00", 8),
    ],
)
def test_a_window_over_midnight_closes_on_the_next_date(opens, closes, hours):
    """22:00-06:00 is 8 hours, but 9 in the autumn night and 7 in the spring night; before and after midnight."""
    span = (utc(opens), utc(closes))
    assert span[1] - span[0] == hours * HOUR
    for now in (span[0] - 1, span[0], span[0] + 3 * HOUR, span[1] - 1):
        assert NIGHT.span(now) == span
    assert NIGHT.span(span[1])[0] == span[1] + 16 * HOUR
    assert not NIGHT.always


@pytest.mark.parametrize("day", ["2026-10-25", "2027-03-28", "2026-07-01"])
def test_always_is_the_utc_day_whatever_the_zone(day):
    """24 hours from midnight UTC, also on the days of a switch."""
    start = utc(day)
    for zone in ("UTC", "Europe/Berlin", "Asia/Tokyo"):
        window = Window.parse("always", zone)
        assert window.always
        for now in (start, start + 1, start + 13 * HOUR, start + NS_PER_DAY - 1):
            assert window.span(now) == (start, start + NS_PER_DAY)
        assert window.span(start + NS_PER_DAY)[0] == start + NS_PER_DAY


def test_text_and_zone_are_read():
    window = Window.parse("08:05-23:59", "America/New_York")
    assert window == Window(time(8, 5), time(23, 59), ZoneInfo("America/New_York"))


@pytest.mark.parametrize(
    "text", ["", "8:00-22:00", "08:00", "08:00-24:00", "08:60-22:00", "08:00 - 22:00", "08:00-22:00\n", "Always"]
)
def test_text_that_is_no_window_is_refused(text):
    """The error names the flag and what was given."""
    with pytest.raises(UsageError, match=r"--window") as caught:
        Window.parse(text, "UTC")
    assert repr(text) in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "tz", ["", "Berlin", "Europe/Atlantis", "Europe", "../Berlin", "/etc/passwd", "a\0b", "\udcff"]
)
def test_a_zone_that_is_none_is_refused(tz):
    with pytest.raises(UsageError, match=r"--tz") as caught:
        Window.parse("always", tz)
    assert caught.value.remedy


def test_a_window_without_length_is_refused():
    """Whoever means the whole day says always."""
    with pytest.raises(UsageError, match=r"--window 08:00-08:00 has no length") as caught:
        Window.parse("08:00-08:00", "UTC")
    assert "always" in caught.value.remedy


@given(now_ns=instants, window=st.sampled_from([DAYTIME, NIGHT, ALWAYS]))
def test_a_span_has_length_ends_later_and_is_the_same_for_all_in_it(now_ns, window):
    """Each instant has one window, and every instant of that window has the same."""
    opens, closes = window.span(now_ns)
    assert opens < closes
    assert now_ns < closes
    assert window.span(opens) == window.span(closes - 1) == (opens, closes)
    assert window.span(closes)[0] >= closes


@given(
    now_ns=instants,
    opens=shown,
    closes=shown,
    tz=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
)
def test_any_window_of_hours_that_no_clock_skips_is_whole_and_local(now_ns, opens, closes, tz):
    """It opens and closes when the zone's clocks show its hours; windows never overlap."""
    if opens == closes:
        return
    window = Window.parse(f"{opens:%H:%M}-{closes:%H:%M}", tz)
    span = window.span(now_ns)
    assert span[0] < span[1]
    assert now_ns < span[1]
    assert window.span(span[0]) == window.span(span[1] - 1) == span
    assert window.span(span[1])[0] >= span[1]
    assert [datetime.fromtimestamp(ns // NS_PER_S, window.zone).time() for ns in span] == [opens, closes]


SKIPPED = "a window that opens inside the skipped hour is placed an hour late, after its own end"


@pytest.mark.parametrize("text", ["02:15-03:00", "02:00-03:00", "02:59-03:30"])
def test_a_window_that_opens_in_the_skipped_hour_still_has_length(text):
    """No clock shows 02:00 to 03:00 in the spring night: such a window is short, or skipped, but not negative."""
    window = Window.parse(text, "Europe/Berlin")
    opens, closes = window.span(utc("2027-03-28T00:30"))
    assert opens < closes
    assert window.span(opens) == window.span(closes - 1) == (opens, closes)


def test_a_window_that_closes_in_the_skipped_hour_does_not_reach_into_the_next_one():
    """03:00-02:30 is idle for half an hour each night; in the spring night for none, but the two never overlap."""
    window = Window.parse("03:00-02:30", "Europe/Berlin")
    _opens, closes = window.span(utc("2027-03-27T12:00"))
    assert window.span(closes)[0] >= closes
