"""A campaign that is told to end does so with its checks and its report; one that is told twice ends at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fault import sandbox
from tests.fault.__main__ import end_politely


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: int, tmp_path: Path) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    left = tmp_path / sandbox.END_FILE
    left.touch()
    try:
        end_politely(tmp_path)
        assert not left.exists(), "what an earlier campaign in this directory left ends none"
        os.kill(os.getpid(), number)
        assert left.exists()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
