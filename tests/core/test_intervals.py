"""Lengths of candles: text and nanoseconds are one to one, and what has no place on the clock is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.intervals import interval_text, parse_interval, utc_text
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, NS_PER_S

VENUE = {"1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "4h": 14400,
         "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400}  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), VENUE.items())
def test_the_venues_own_lengths_are_read_and_written_alike(text, seconds):
    assert parse_interval(text) == seconds * NS_PER_S
    assert interval_text(seconds * NS_PER_S) == text


@pytest.mark.parametrize(
    "text", ["", "15", "m", "0m", "-1m", "1.5h", "15M", "1w", "1M", "3d", "7m", "15 m", "25h", "1\u0661m"]
)
def test_what_does_not_divide_a_day_is_refused_with_a_remedy(text):
    with pytest.raises(UsageError, match="interval") as caught:
        parse_interval(text)
    assert "15m" in caught.value.remedy


def test_one_length_has_one_name():
    """Folders are named by it: 60m and 1h are one series."""
    assert interval_text(parse_interval("60m")) == "1h"
    assert interval_text(parse_interval("24h")) == interval_text(parse_interval("1440m")) == "1d"
    assert interval_text(90 * NS_PER_S) == "90s"


@given(st.integers(1, 86_400))
def test_every_length_that_divides_a_day_comes_back(seconds):
    ns = seconds * NS_PER_S
    if NS_PER_DAY % ns:
        with pytest.raises(UsageError):
            interval_text(ns)
    else:
        assert parse_interval(interval_text(ns)) == ns


@pytest.mark.parametrize("ns", [0, -NS_PER_MIN, NS_PER_DAY + 1, 7 * NS_PER_DAY, 500_000_000])
def test_nanoseconds_that_are_no_length_are_refused(ns):
    with pytest.raises(UsageError):
        interval_text(ns)


def test_an_instant_is_told_as_short_as_it_is():
    assert utc_text(1_704_067_200 * NS_PER_S) == "2024-01-01 00:00"
    assert utc_text(1_704_067_201 * NS_PER_S) == "2024-01-01 00:00:01"
    assert utc_text(1_704_067_200 * NS_PER_S + 7_000_000) == "2024-01-01 00:00:00.007"
