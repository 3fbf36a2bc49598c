"""The two servers of the differential suite, started once for all its modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference.pair import Pair, running_pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("pair")) as running:
        yield running
