"""A node whose clock is more than a day ahead of all others takes no writes: later ones would have to follow it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsdbd.clock import SystemClock
from dsdbd.cluster.hybrid_clock import UNGIVEN
from dsdbd.cluster.version_clock import VersionClock
from dsdbd.errors import Unavailable
from tests.unit.lone_node import lone_node, state_of

DAY_S = 86_400.0


@dataclass
class Wall(SystemClock):
    """This machine's clocks, of which the wall clock may be set."""

    ahead_s: float = 0.0

    def now_ns(self) -> int:
        return super().now_ns() + int(self.ahead_s * 1e9)


class Others:
    """What the failure detector knows of the clocks of others."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, float]] = []

    def clock_looks(self) -> list[tuple[float, float]]:
        return self.looks


async def begin(tmp_path: Path) -> tuple[VersionClock, Wall, Others]:
    node: Any = lone_node(tmp_path, state_of())
    (tmp_path / "meta").mkdir(exist_ok=True)
    wall, others = Wall(), Others()
    node.config.meta.dir.mkdir(parents=True, exist_ok=True)
    node.clock, node.detector = wall, others
    return VersionClock(node), wall, others


def test_a_clock_that_jumps_while_the_node_runs_gives_nothing_until_the_others_agree(tmp_path: Path) -> None:
    async def act() -> None:
        clock, wall, others = await begin(tmp_path)
        others.looks = [(wall.monotonic_s(), 0.0)]
        before = await clock.next_reserved()
        assert clock.problems() == []
        wall.ahead_s = 100 * DAY_S
        assert clock.next() == UNGIVEN and not clock.is_reserved(clock.next())
        with pytest.raises(Unavailable, match="more than a day ahead of those of all other nodes"):
            await clock.next_reserved()
        assert "more than a day ahead" in clock.problems()[0]
        assert clock.last == before, "nothing has to follow it"
        others.looks = [(wall.monotonic_s(), -100 * DAY_S)]
        assert clock.next() == UNGIVEN, "they have been looked at, and it is this clock"
        wall.ahead_s = 0.0
        assert before < await clock.next_reserved() < wall.now_ns() + 10**9
        wall.ahead_s = 100 * DAY_S  # this machine was asleep, and so were the others
        assert clock.next() == UNGIVEN
        others.looks = [(wall.monotonic_s(), 0.0)]
        assert await clock.next_reserved() > before + 99 * DAY_S * 1e9
        await clock.close()

    asyncio.run(act())


def test_at_a_start_the_others_decide_and_without_any_the_clock_is_right(tmp_path: Path) -> None:
    async def act() -> None:
        clock, wall, others = await begin(tmp_path)
        others.looks = [(wall.monotonic_s(), -2 * DAY_S), (wall.monotonic_s(), -3 * DAY_S)]
        assert clock.next() == UNGIVEN
        others.looks = []
        assert await clock.next_reserved() < UNGIVEN
        await clock.close()

    asyncio.run(act())


def test_versions_far_ahead_that_others_bring_are_followed_and_told(tmp_path: Path) -> None:
    async def act() -> None:
        clock, wall, _ = await begin(tmp_path)
        brought = (wall.now_ns() + int(3_600 * 1e9)) >> 10 << 10 | 3
        clock.observe(brought)
        assert await clock.next_reserved() > brought
        (told,) = clock.problems()
        assert "ahead of this machine's clock: node 3 wrote" in told
        await clock.close()

    asyncio.run(act())
