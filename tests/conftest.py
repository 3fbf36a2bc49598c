"""How many examples property tests try.

The profile ``quick`` (``--hypothesis-profile=quick``, as in ``make check``) tries a fifth of what ``full`` does.
"""

from __future__ import annotations

from hypothesis import settings

# A deadline of an example would measure what else the machine does.
settings.register_profile("full", max_examples=100, deadline=None)
settings.register_profile("quick", max_examples=20, deadline=None)
settings.load_profile("full")
