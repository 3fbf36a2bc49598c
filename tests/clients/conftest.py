"""One daemon for the clients of other people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT, PASSWORD = "root", "secret root"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks nobody for a password."""
    daemon = Daemon(tmp_path_factory.mktemp("clients"), settings={"http": ["log-enabled = false"]}).start()
    try:
        yield daemon
        assert "Traceback" not in daemon.log
    finally:
        daemon.kill()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one administrator, ROOT."""
    settings = {"http": ["auth-enabled = true", "log-enabled = false"]}
    daemon = Daemon(tmp_path_factory.mktemp("guarded"), settings=settings).start()
    try:
        daemon.query(f"CREATE USER {ROOT} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES")
        yield daemon
        assert "Traceback" not in daemon.log
        assert PASSWORD not in daemon.log
    finally:
        daemon.kill()
