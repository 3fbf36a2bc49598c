"""When a node that does not answer is given up for good."""

from __future__ import annotations

import pytest

from dsdbd.cluster.moving import is_dead


@pytest.mark.parametrize(
    ("down_since_s", "dead"),
    [(None, False), (0.0, False), (1.5, False), (9.9, False), (10.0, True), (3_600.0, True)],
)
def test_one_missing_answer_does_not_make_a_node_dead(down_since_s: float | None, dead: bool) -> None:
    assert is_dead(down_since_s) is dead
