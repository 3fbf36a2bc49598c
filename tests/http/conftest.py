"""A daemon for the tests that need no special one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon
from tests.http.servers import dsdbd_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def open_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests of a process, without users."""
    daemon = Daemon(tmp_path_factory.mktemp("open"), settings=dsdbd_settings(auth=False)).start()
    yield daemon
    daemon.kill()
