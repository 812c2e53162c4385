"""The recording window: hours of the day in some time zone, or always; as instants in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_DAY, NS_PER_S

HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True)
class Window:
    """`always`, or from `opens` to `closes` by the clocks of `zone` (over midnight if it closes first)."""

    opens: time | None
    closes: time | None
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, tz: str) -> Window:
        """`always` or `08:00-22:00`; raises UsageError."""
        try:
            zone = ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageError(f"--tz {tz!r} is no time zone", remedy="give one like Europe/Berlin or UTC") from None
        if text == "always":
            return cls(None, None, zone)
        found = HOURS.fullmatch(text)
        if found is None:
            raise UsageError(f"--window is {text!r}", remedy="give hours like 08:00-22:00, or always")
        a, b, c, d = map(int, found.groups())
        if (a, b) == (c, d):
            raise UsageError(f"--window {text} has no length", remedy="give --window always for the whole day")
        return cls(time(a, b), time(c, d), zone)

    @property
    def always(self) -> bool:
        """True if it never closes."""
        return self.opens is None

    def span(self, now_ns: int) -> tuple[int, int]:
        """(opens, closes) in ns UTC of the window that `now_ns` lies in, or of the next one.

        Local times are those of the zone on that date, so on the nights of a DST switch the window opens
        and closes by the clocks on the wall. `always` is the UTC day.
        """
        if self.opens is None or self.closes is None:
            start = now_ns - now_ns % NS_PER_DAY
            return start, start + NS_PER_DAY
        today = datetime.fromtimestamp(now_ns // NS_PER_S, self.zone).date()
        spans = [self._on(today + timedelta(days=n), self.opens, self.closes) for n in (-1, 0, 1, 2)]
        return next(span for span in spans if span[1] > max(now_ns, span[0]))

    def _on(self, day: date, opens: time, closes: time) -> tuple[int, int]:
        """The window that opens on a local date."""
        end = day if closes > opens else day + timedelta(days=1)
        return self._instant(day, opens), self._instant(end, closes)

    def _instant(self, day: date, at: time) -> int:
        """A local time in ns UTC; one that the switch to summer time leaves out is the switch itself."""
        local = datetime.combine(day, at, self.zone)
        first, last = (local.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
        if first < last and last.astimezone(self.zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            before = first.astimezone(self.zone).utcoffset()
            while first.astimezone(self.zone).utcoffset() == before:
                first += timedelta(minutes=1)
            last = first
        return int(last.timestamp()) * NS_PER_S
