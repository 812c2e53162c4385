"""Days, day ranges and UTC time: text <-> nanoseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from mmlab.core.errors import UsageError

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MIN = 60 * NS_PER_S
NS_PER_DAY = 86_400 * NS_PER_S


def parse_day(text: str) -> date:
    """`YYYYMMDD` (or `YYYY-MM-DD`) as a date; raises UsageError."""
    try:
        return datetime.strptime(text.replace("-", ""), "%Y%m%d").date()
    except ValueError:
        raise UsageError(f"day {text!r} is not a date", remedy="give --day YYYYMMDD or YYYYMMDD..YYYYMMDD") from None


def day_start_ns(day: date) -> int:
    """Nanoseconds of the day's first instant, UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS_PER_S


def day_of_ns(ns: int) -> date:
    """The UTC date that holds `ns`."""
    return date(1970, 1, 1) + timedelta(days=ns // NS_PER_DAY)


@dataclass(frozen=True)
class Days:
    """A closed range of UTC dates; `str()` gives the text that folders are named by."""

    first: date
    last: date

    @classmethod
    def parse(cls, text: str) -> Days:
        """`20250101` or `20250101..20250103`; raises UsageError."""
        head, _, tail = text.partition("..")
        days = cls(parse_day(head), parse_day(tail or head))
        if days.last < days.first:
            raise UsageError(f"day range {text!r} ends before it starts", remedy="write the earlier day first")
        return days

    def __iter__(self) -> Iterator[date]:
        for i in range((self.last - self.first).days + 1):
            yield self.first + timedelta(days=i)

    def __str__(self) -> str:
        first, last = (f"{d:%Y%m%d}" for d in (self.first, self.last))
        return first if first == last else f"{first}..{last}"
