"""Counters of the HTTP service, named as InfluxDB 1.x names them, and counts of who asks for what for a while.

For the event loop. Numbers are counted in plain dictionaries: a one-point write must not pay for a metrics library.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dsdbd.errors import Overloaded
from dsdbd.limits import MAX_REQUEST_PROFILES, MAX_REQUEST_SENDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {"/query": "query", "/write": "write", "/api/v2/write": "write", "/ping": "ping", "/status": "status"}
_NAMES = (
    "authFail",
    "clientError",
    "pingReq",
    "queryReq",
    "queryReqDurationNs",
    "queryRespBytes",
    "req",
    "reqActive",
    "reqDurationNs",
    "serverError",
    "statusReq",
    "writeReq",
    "writeReqActive",
    "writeReqBytes",
    "writeReqDurationNs",
)
Profile = dict[str, dict[str, int]]
"""Who asked (``user:address`` or ``address``), and for how many ``writes`` and ``queries``."""


class HttpCounters:
    """What clients asked for since the start. ``values`` is shown by SHOW STATS, /metrics and /debug/vars."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(_NAMES, 0)
        self._profiles: list[Profile] = []

    @contextlib.contextmanager
    def active(self, path: str) -> Iterator[None]:
        """Within the block one more request is being answered."""
        writes = _KINDS.get(path) == "write"
        self.values["reqActive"] += 1
        self.values["writeReqActive"] += writes
        try:
            yield
        finally:
            self.values["reqActive"] -= 1
            self.values["writeReqActive"] -= writes

    def count(self, path: str, status: int, took_s: float, *, received: int, sent: int) -> None:
        """One request was answered. ``received`` and ``sent``: bytes of the bodies."""
        values, took_ns = self.values, int(took_s * 1e9)
        values["req"] += 1
        values["reqDurationNs"] += took_ns
        kind = _KINDS.get(path)
        if kind is not None:
            values[f"{kind}Req"] += 1
        if kind == "write":
            values["writeReqDurationNs"] += took_ns
            values["writeReqBytes"] += received
        elif kind == "query":
            values["queryReqDurationNs"] += took_ns
            values["queryRespBytes"] += sent
        if status >= 400:
            values["serverError" if status >= 500 else "clientError"] += 1
            values["authFail"] += status == 401

    @property
    def profiling(self) -> bool:
        """Whether anybody counts requests by sender now."""
        return bool(self._profiles)

    def note(self, path: str, user: str, address: str) -> None:
        """Somebody asks: count it in the profiles that are being made."""
        kind = {"write": "writes", "query": "queries"}.get(_KINDS.get(path, ""))
        if not self._profiles or kind is None:
            return
        sender = f"{user}:{address}" if user != "-" else address
        for profile in self._profiles:
            counts = profile.get(sender)
            if counts is None:
                if len(profile) >= MAX_REQUEST_SENDERS:
                    continue
                counts = profile[sender] = {"writes": 0, "queries": 0}
            counts[kind] += 1

    @contextlib.contextmanager
    def profile(self) -> Iterator[Profile]:
        """Requests by sender, counted within the block. Raises Overloaded when too many are being made."""
        if len(self._profiles) >= MAX_REQUEST_PROFILES:
            raise Overloaded("enough other profiles of requests are being made; repeat the request later")
        profile: Profile = {}
        self._profiles.append(profile)
        try:
            yield profile
        finally:
            self._profiles[:] = [one for one in self._profiles if one is not profile]
