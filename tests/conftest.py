"""What all tests share: how many examples the property tests try, and which tests stay on one worker.

``--hypothesis-profile=quick``, as in ``make check``, tries a fifth of what ``full`` does; ``half``, as in
``make test``, half of it.
"""

from __future__ import annotations

import os
import sys

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module together where they share what takes long to start."""
    for item in items:
        found = getattr(item, "_fixtureinfo", None)
        shares = found is not None and any(
            definition.scope == "module" for several in found.name2fixturedefs.values() for definition in several
        )
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
