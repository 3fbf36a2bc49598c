"""What a test that breaks real nodes needs of the machine."""

from __future__ import annotations

import pytest

from tests.fault import sandbox

_WHY_NOT = sandbox.missing()
IN_SANDBOX = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.debian,
    pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "runs"),
    pytest.mark.xdist_group("faults"),
]
