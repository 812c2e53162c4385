"""Days are UTC dates, in text, in ranges and in nanoseconds."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_DAY, Days, day_of_ns, day_start_ns, parse_day


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)))
def test_a_day_starts_at_its_own_first_nanosecond(day):
    """The day of its start is the day; one nanosecond earlier it is the day before."""
    assert day_start_ns(day) % NS_PER_DAY == 0
    assert day_of_ns(day_start_ns(day)) == day
    assert day_of_ns(day_start_ns(day) + NS_PER_DAY - 1) == day
    assert parse_day(f"{day:%Y%m%d}") == parse_day(f"{day:%Y-%m-%d}") == day


def test_a_range_of_days_holds_both_ends_over_a_leap_day():
    """20240228..20240301 is three days."""
    days = Days.parse("20240228..20240301")
    assert [d.day for d in days] == [28, 29, 1]
    assert str(days) == "20240228..20240301"
    assert str(Days.parse("20250101")) == "20250101"


@pytest.mark.parametrize("text", ["2025", "20251301", "yesterday", "", "20250102..20250101", "20250101.."])
def test_what_is_no_day_is_refused_with_the_form_to_use(text):
    """Except that an open end means the one day."""
    if text == "20250101..":
        assert str(Days.parse(text)) == "20250101"
        return
    with pytest.raises(UsageError) as caught:
        Days.parse(text)
    assert caught.value.remedy
