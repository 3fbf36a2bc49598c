"""What all tests share: how many examples the property tests try, and which tests stay on one worker.

``--hypothesis-profile=quick``, as in ``make check``, tries a fifth of what ``full`` does; ``half``, as in
``make test``, half of it.

Two workers must find the same tests, so the name of a test must not depend on the time of day, as that of a packed
body does that carries it. While tests are collected every second worker's clock is behind: such a name ends every run
with two workers, not one in a hundred. Hashes and random numbers differ between processes by themselves.
"""

from __future__ import annotations

import os
import sys
import time

import pytest
from hypothesis import settings

# Hundreds of daemons are started: compiling all modules anew takes each of them three times as long as its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A deadline of an example would measure what else the machine does.
settings.register_profile("full", max_examples=100, deadline=None)
settings.register_profile("half", max_examples=50, deadline=None)
settings.register_profile("quick", max_examples=20, deadline=None)
settings.load_profile("full")

_BEHIND_S = 3
_behind_s = _BEHIND_S * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2)
_time, _time_ns = time.time, time.time_ns
if _behind_s:  # what binds these names while it is collected has the right time afterwards
    time.time = lambda: _time() - _behind_s
    time.time_ns = lambda: _time_ns() - _behind_s * 1_000_000_000


def pytest_collection_finish() -> None:
    """Set the clock right before the first test, and what reads it back to what it was."""
    global _behind_s
    _behind_s = 0
    time.time, time.time_ns = _time, _time_ns


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module together where they share what takes long to start."""
    for item in items:
        found = getattr(item, "_fixtureinfo", None)
        shares = found is not None and any(
            definition.scope == "module" for several in found.name2fixturedefs.values() for definition in several
        )
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
