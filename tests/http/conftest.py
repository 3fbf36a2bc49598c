"""Servers of the HTTP tests, one of each kind for all tests of a process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon
from tests.http.servers import dsdbd_settings, influxd_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _daemon(root: Path, *, auth: bool) -> Iterator[Daemon]:
    daemon = Daemon(root, settings=dsdbd_settings(auth=auth)).start()
    yield daemon
    daemon.kill()


@pytest.fixture(scope="session")
def open_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from _daemon(tmp_path_factory.mktemp("open"), auth=False)


@pytest.fixture(scope="module")
def auth_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from _daemon(tmp_path_factory.mktemp("auth"), auth=True)


@pytest.fixture(scope="session")
def open_influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("influxd") is None:
        pytest.skip("influxd of Debian's influxdb is not installed")
    with influxd_server(tmp_path_factory.mktemp("influxd")) as address:
        yield address


@pytest.fixture(scope="module")
def auth_influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("influxd") is None:
        pytest.skip("influxd of Debian's influxdb is not installed")
    with influxd_server(tmp_path_factory.mktemp("influxd-auth"), auth=True) as address:
        yield address
