"""Points in time as text: nanoseconds since 1970-01-01T00:00:00Z on one side, InfluxQL and RFC3339 on the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Final

MIN_TIME_NS: Final = -(2**63) + 2
"""Earliest time of a point, as in InfluxDB 1.x: the two values below stand for "no time"."""
MAX_TIME_NS: Final = 2**63 - 2
"""Latest time of a point, as in InfluxDB 1.x."""

PRECISION_NS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "n": 1,
        "ns": 1,
        "u": 1_000,
        "us": 1_000,
        "µ": 1_000,
        "ms": 1_000_000,
        "s": 1_000_000_000,
        "m": 60_000_000_000,
        "h": 3_600_000_000_000,
    }
)
"""Nanoseconds of the units that ``precision`` and ``epoch`` name in requests."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:(?P<separator>[ T])(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]{1,9}))?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


def looks_like_time(text: str) -> bool:
    """True when a string starts like a date, and is therefore read as a time where a time is wanted."""
    return re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def parse_time(text: str, zone: tzinfo | None = None) -> int:
    """Nanoseconds of ``YYYY-MM-DD``, ``YYYY-MM-DD HH:MM:SS[.fraction]`` or RFC3339.

    The first two are in ``zone`` (UTC when ``None``); RFC3339 carries its own. A fraction has at most nine digits.
    The result may lie outside int64: the caller knows whether that matters.

    Raises:
        ValueError: it is none of these, or a day or hour that does not exist.

    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("invalid timestamp string")
    if (match["separator"] == "T") != (match["zone"] is not None):
        raise ValueError("invalid timestamp string")
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['clock'] or '00:00:00'}")
    except ValueError:
        raise ValueError("invalid timestamp string") from None
    moment = moment.replace(tzinfo=_zone_of(match["zone"], zone))
    if match["zone"] is None and zone is not None:
        moment = _first_guess(moment.replace(tzinfo=UTC), zone)
    return _whole_seconds(moment) * 1_000_000_000 + int((match["fraction"] or "").ljust(9, "0"))


def format_rfc3339nano(time_ns: int) -> str:
    """RFC3339 in UTC with as many digits of fraction as are not trailing zeros, as Go prints it."""
    seconds, fraction_ns = divmod(time_ns, 1_000_000_000)
    moment = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{moment}.{fraction_ns:09d}".rstrip("0").rstrip(".") + "Z" if fraction_ns else f"{moment}Z"


def _zone_of(text: str | None, zone: tzinfo | None) -> tzinfo:
    if text is None:
        return zone if zone is not None else UTC
    if text == "Z":
        return UTC
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 24 or minutes > 59:
        raise ValueError("invalid timestamp string")
    offset = timedelta(hours=hours, minutes=minutes)
    try:
        return timezone(-offset if text[0] == "-" else offset)
    except ValueError:
        raise ValueError("invalid timestamp string") from None


def _first_guess(local: datetime, zone: tzinfo) -> datetime:
    """The time with the offset that Go gives a local one which a change of clocks makes ambiguous, or skips.

    The offset in force when the clocks of UTC show it is right if it is also in force at the time it leads to; else
    the offset there is. ``local`` has its numbers as if they were UTC.
    """
    try:
        offset = local.astimezone(zone).utcoffset() or timedelta()
        there = (local - offset).astimezone(zone).utcoffset() or timedelta()
        return local - (offset if offset == there else there)
    except OverflowError:  # the first or last day that there is
        return local


def _whole_seconds(moment: datetime) -> int:
    """Seconds since the epoch, in integers: a float would lose the last digits, a subtraction near year 1 overflow."""
    naive = moment.replace(tzinfo=None)
    offset = moment.utcoffset()
    seconds = (naive - datetime(1970, 1, 1)) // timedelta(seconds=1)
    return seconds - (0 if offset is None else int(offset.total_seconds()))
