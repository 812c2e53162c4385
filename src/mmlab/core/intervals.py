"""Lengths of candles: text <-> nanoseconds, and instants as a reader wants them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from mmlab.core.errors import UsageError
from mmlab.core.spans import NS_PER_DAY, NS_PER_MIN, NS_PER_S

UNITS = {"s": NS_PER_S, "m": NS_PER_MIN, "h": 60 * NS_PER_MIN, "d": NS_PER_DAY}
FUNDING = "funding"  # the name that settlements are stored by beside the intervals of candles
REMEDY = "give a length that divides a day, like 1m, 5m, 15m, 1h, 4h or 1d"


def parse_interval(text: str) -> int:
    """`15m` as nanoseconds; raises UsageError for what is no length or does not divide a day.

    Candles are laid by the UTC clock, so that each belongs to one day and longer ones are made of whole
    shorter ones: weeks, months and lengths like 7m have no such places.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhd])", text)
    ns = int(found[1]) * UNITS[found[2]] if found else 0
    if not ns or NS_PER_DAY % ns:
        raise UsageError(f"interval {text!r} is not one of candles", remedy=REMEDY)
    return ns


def interval_text(interval_ns: int) -> str:
    """The shortest text of a length: 900 s is `15m`, 60m is `1h`; raises UsageError as `parse_interval` does."""
    for unit, ns in reversed(UNITS.items()):
        if interval_ns > 0 and interval_ns % ns == 0 and NS_PER_DAY % interval_ns == 0:
            return f"{interval_ns // ns}{unit}"
    raise UsageError(f"an interval of {interval_ns / NS_PER_S:g} s is not one of candles", remedy=REMEDY)


def utc_text(ns: int) -> str:
    """An instant for messages: `2024-01-01 00:15`, with seconds and milliseconds where it has any."""
    at = datetime.fromtimestamp(ns // NS_PER_S, UTC)
    ms = ns % NS_PER_S // 1_000_000
    if ms:
        return f"{at:%Y-%m-%d %H:%M:%S}.{ms:03d}"
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"
