"""Random statements are answered as InfluxDB answers them."""

from __future__ import annotations

import pytest

from tests.reference.generator import shrink, statements
from tests.reference.influxd import needs_influxd
from tests.reference.pair import Pair

SEED = 4
COUNT = 2000
PARTS = 20

pytestmark = [pytest.mark.slow, pytest.mark.debian, needs_influxd, pytest.mark.xdist_group("reference")]


@pytest.mark.parametrize("part", range(PARTS))
def test_random_statements_have_the_same_answers(pair: Pair, part: int) -> None:
    size = COUNT // PARTS
    report = []
    for statement in statements(SEED, COUNT)[part * size : (part + 1) * size]:
        if pair.difference(statement):
            short = shrink(statement, lambda text: bool(pair.difference(text)))
            report.append(f"{short}\n    {pair.difference(short)}\n    from: {statement}")
    assert not report, f"{len(report)} of {size} differ:\n" + "\n".join(report)
