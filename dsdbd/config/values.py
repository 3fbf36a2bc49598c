"""Durations, sizes and addresses as a user writes them. Pure: text in, value or ValueError out.

Every ValueError here reads "reason; what to write instead", so that a caller can put file, section and key before it.
"""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction

NANOSECONDS = 1_000_000_000
MAX_DURATION_NS = 292 * 365 * 86_400 * NANOSECONDS
"""Longest duration, 292 years of 365 days: what a Go duration holds, so that what we print can be read there."""
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_JOIN_ADDRESSES = 100
"""Entries of a join list; one reachable member is enough, so more than this is a mistake."""
DEFAULT_JOIN_PORT = 8091

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3_600 * NANOSECONDS,
    "d": 86_400 * NANOSECONDS,
    "w": 604_800 * NANOSECONDS,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,20})([kmgt]?)", re.ASCII | re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?", re.ASCII
)
_BAD_DURATION = 'not a duration; write a number with a unit, for example "500ms", "10s", "1m30s", "168h" or "7d"'
_BAD_SIZE = 'not a size; write bytes as a whole number, or a string with k, m or g, for example "25m"'


def parse_duration(text: str) -> float:
    """Seconds of a Go duration string; ``d`` and ``w`` are accepted too. Raises ValueError."""
    total = Fraction(0)
    position = 0
    if text in ("0", "+0", "-0"):
        return 0.0
    if text.startswith("-"):
        raise ValueError('a duration cannot be negative; write "0s" or more')
    body = text.removeprefix("+")
    while position < len(body):
        part = _DURATION_PART.match(body, position)
        if part is None or len(part[1]) > 40:
            raise ValueError(_BAD_DURATION)
        total += Fraction(part[1].rstrip(".") if part[1] != "." else "0") * _UNITS_NS[part[2]]
        position = part.end()
    if not body:
        raise ValueError(_BAD_DURATION)
    if total > MAX_DURATION_NS:
        raise ValueError("too long a duration; the longest is 292 years")
    # Whole nanoseconds first, as in Go: formatting then gives back the same float.
    return int(total) / NANOSECONDS


def format_duration(seconds: float) -> str:
    """The Go form of a duration: ``1m0s``, ``500ms``, ``168h0m0s``."""
    total = round(Fraction(seconds) * NANOSECONDS)
    if total == 0:
        return "0s"
    if total < NANOSECONDS:
        for unit in ("ms", "µs", "ns"):
            if total >= _UNITS_NS[unit]:
                return f"{_decimal(total, _UNITS_NS[unit])}{unit}"
    minutes, rest = divmod(total, _UNITS_NS["m"])
    hours, minutes = divmod(minutes, 60)
    last = f"{_decimal(rest, NANOSECONDS)}s"
    if hours:
        return f"{hours}h{minutes}m{last}"
    return f"{minutes}m{last}" if minutes else last


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if rest == 0:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"


def parse_size(value: int | str) -> int:
    """Bytes of an integer or of a string with k, m, g or t (powers of 1024). Raises ValueError."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError(_BAD_SIZE)
        value = int(match[1]) << _SIZE_SHIFT[match[2].lower()]
    if value < 0:
        raise ValueError("a size cannot be negative; write 0 or more bytes")
    if value > MAX_SIZE_BYTES:
        raise ValueError(f"too large a size; the largest is {MAX_SIZE_BYTES} bytes")
    return value


def check_host(host: str) -> str:
    """``host`` without brackets if it is a name or an IP address. Raises ValueError."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError("square brackets are for IPv6 addresses only; leave them out")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            if host.count(":") == 1:
                raise ValueError("not a host alone; leave the port out here") from None
            raise ValueError('not an IPv6 address; it looks like "2001:db8::1"') from None
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("not an IPv4 address; it has four numbers from 0 to 255") from None
    if _HOST.fullmatch(host) is None:
        raise ValueError("not a host name or IP address; use letters, digits, dots and hyphens")
    return host


def split_address(address: str) -> tuple[str, int]:
    """Host (``""`` for every interface, IPv6 without brackets) and port of ``host:port``. Raises ValueError."""
    if "://" in address:
        raise ValueError('an address has no scheme; write "host:port"')
    host, colon, port_text = address.rpartition(":")
    if not colon or address.endswith("]"):
        raise ValueError('no port; write "host:port" or ":port"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError('an IPv6 address needs square brackets; write "[::1]:8088"')
    if not (port_text.isascii() and port_text.isdigit()) or not 1 <= int(port_text[:6]) <= 65535:
        raise ValueError("not a port; it is a number from 1 to 65535")
    return (check_host(host) if host else ""), int(port_text)


def join_address(host: str, port: int) -> str:
    """``host:port`` with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> str:
    """A bind address ``host:port``, ``:port`` or ``[::1]:port`` in one spelling. Raises ValueError."""
    return join_address(*split_address(text.strip()))


def parse_join(text: str) -> tuple[str, ...]:
    """Addresses of a comma separated join list, in order, each once; a missing port is 8091. Raises ValueError."""
    entries = [entry.strip() for entry in text.split(",")]
    addresses = dict.fromkeys(_parse_join_entry(entry) for entry in entries if entry)
    if len(addresses) > MAX_JOIN_ADDRESSES:
        raise ValueError(f"more than {MAX_JOIN_ADDRESSES} addresses; name a few members, one that answers is enough")
    return tuple(addresses)


def _parse_join_entry(entry: str) -> str:
    bracketed = re.fullmatch(r"\[([^\[\]]*:[^\[\]]*:[^\[\]]*)\](:.*)?", entry)
    if ("[" in entry or "]" in entry) and bracketed is None:
        raise ValueError(
            "square brackets only mark optional words in the guide; leave them out and write dsdb1:8091,dsdb2:8091"
        )
    has_port = bool(bracketed[2]) if bracketed else ":" in entry
    host, port = split_address(entry if has_port else f"{entry}:{DEFAULT_JOIN_PORT}")
    if not host:
        raise ValueError("no host; write the name of a member, for example dsdb1:8091")
    return join_address(host, port)
