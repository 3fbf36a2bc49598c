"""Which faults come when: a pure function of a seed, so that a run's schedule can be had again."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

WEIGHTS = {
    "kill": 10,
    "kill_leader": 6,
    "pause": 8,
    "pause_leader": 5,
    "power_cut": 7,
    "isolate": 8,
    "isolate_leader": 5,
    "one_way": 6,
    "bridge": 5,
    "loss": 6,
    "delay": 5,
    "disk_full": 5,
    "disk_stall": 5,
    "clock": 4,
    "kill_all": 2,
    "power_cut_all": 3,
    "rolling": 2,
    "join": 2,
    "replace": 2,
    "drain": 4,
}
KINDS = tuple(WEIGHTS)
ORDERED = frozenset({"join", "replace", "drain"})
"""Orders to the cluster that go on while other faults come: a node joins, rebalances and is removed; a node is lost for
good and replaced; a node drains, is taken back and rebalances, which needs more nodes than copies."""
ALONE = frozenset({"kill_all", "power_cut_all", "rolling"})
"""Faults of all nodes: no other one comes meanwhile."""
LENGTH_S = {
    "kill": (0.2, 3.0),
    "power_cut": (0.2, 2.0),
    "rolling": (0.0, 0.0),
    "join": (0.0, 0.0),
    "replace": (0.0, 0.0),
    "drain": (0.0, 0.0),
    "disk_stall": (0.5, 3.0),
}
_LENGTH_S = (0.5, 4.0)
_PAUSE_S = (0.3, 1.5)
_TWO_AT_ONCE = 0.2


@dataclass(frozen=True)
class Fault:
    """``victims`` are picks without a node: each is taken modulo the nodes there are when the fault begins.

    ``pause_s`` passes before it, ``amount`` is a number whose meaning depends on the kind (0 to 1).
    """

    kind: str
    victims: tuple[int, int]
    length_s: float
    pause_s: float
    amount: float
    with_next: bool = False


def schedule(seed: int, kinds: Collection[str] = KINDS) -> Iterator[Fault]:
    """Faults without end; every kind comes once, in random order, before chance decides."""
    chance = random.Random(seed)
    first = sorted(kinds)
    chance.shuffle(first)
    names = sorted(kinds)
    weights = [WEIGHTS[name] for name in names]
    while True:
        kind = first.pop() if first else chance.choices(names, weights)[0]
        low, high = LENGTH_S.get(kind, _LENGTH_S)
        yield Fault(
            kind=kind,
            victims=(chance.randrange(1 << 16), chance.randrange(1 << 16)),
            length_s=round(chance.uniform(low, high), 2),
            pause_s=round(chance.uniform(*_PAUSE_S), 2),
            amount=chance.random(),
            with_next=kind not in ALONE | ORDERED and chance.random() < _TWO_AT_ONCE,
        )
