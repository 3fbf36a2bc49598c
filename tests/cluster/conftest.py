"""Fixtures for tests with real daemons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An empty cluster whose daemons are killed at the end of the test."""
    made = Cluster(tmp_path)
    yield made
    made.close()
