"""Fixtures for tests with real daemons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import META_ONLY, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.daemons import Daemon


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An empty cluster whose daemons are killed at the end of the test."""
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def owner_and_other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """A node that will own all points, and one of its cluster that owns nothing."""
    made = Cluster(tmp_path_factory.mktemp("owner_and_other"))
    try:
        owner = made.add().start()
        yield owner, made.add(join=[owner.meta_address], settings=META_ONLY).start()
    finally:
        made.close()
