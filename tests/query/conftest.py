"""Reference servers with the sample data, for tests that put our answers beside theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.query.influx_reference import filled_influxd
from tests.query.sample_data import ROWS, random_rows
from tests.reference.influxd import Influxd


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with filled_influxd(tmp_path_factory.mktemp("influxd"), ROWS) as server:
        yield server


@pytest.fixture(scope="module")
def random_reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with filled_influxd(tmp_path_factory.mktemp("influxd"), random_rows(1)) as server:
        yield server
