"""Numbers of examples that follow the chosen profile (tests/conftest.py); a plain number would beat it."""

from __future__ import annotations

from hypothesis import settings


def examples(full: int) -> int:
    """``full`` in the profile of that name, its share in a smaller one, at least one."""
    return max(1, full * settings.default.max_examples // 100)
