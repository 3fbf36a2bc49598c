"""Who may join, whose vote may go, and how often a waiting node says why: without processes."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import structlog
from hypothesis import given
from hypothesis import strategies as st

from dsdbd.clock import SystemClock
from dsdbd.cluster.formation import Progress
from dsdbd.cluster.membership import refusal, removed_reason, vote_loss, votes_without_registration
from dsdbd.cluster.messages import PROTOCOL, JoinRequest
from dsdbd.errors import MembershipRefused, NodeRemoved
from dsdbd.meta.state import DataNode, MetaNode, MetaState, Role, Tombstone
from dsdbd.meta.store import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable

VOTERS = ("a:1", "b:1", "c:1", "d:1", "e:1")


def request(uuid: str, tcp: str = "n:1", meta: str = "n:2", data: str = "n:1") -> JoinRequest:
    return JoinRequest(PROTOCOL, uuid, "", tcp, meta, data)


def stone(number: int, uuid: str, role: Role, tcp: str) -> Tombstone:
    return Tombstone(number, uuid, role, tcp, tcp, 0, "")


def test_a_taken_address_names_every_registration_to_drop() -> None:
    state = MetaState(meta_nodes=(MetaNode(3, "old", "n:2", "n:1"),), data_nodes=(DataNode(4, "old", "n:1", "n:1"),))
    found = refusal(state, request("new"))
    assert isinstance(found, MembershipRefused)
    assert "DROP META SERVER 3 and DROP DATA SERVER 4" in found.message
    assert refusal(state, request("old")) is None
    assert refusal(state, request("new", "m:1", "m:2", "m:1")) is None


def test_an_address_taken_in_the_other_role_counts() -> None:
    state = MetaState(data_nodes=(DataNode(4, "old", "n:1", "n:1"),))
    assert isinstance(refusal(state, request("new", data="")), MembershipRefused)


def test_a_removed_node_stays_away_while_no_role_is_left() -> None:
    state = MetaState(tombstones=(stone(3, "old", Role.META, "n:1"),))
    assert isinstance(refusal(state, request("old")), NodeRemoved)
    assert "meta node 3" in removed_reason(state, "old")
    hybrid = MetaState(tombstones=state.tombstones, data_nodes=(DataNode(4, "old", "n:1", "n:1"),))
    assert removed_reason(hybrid, "old") == ""
    assert removed_reason(state, "other") == ""


@given(
    voters=st.integers(1, 5).map(lambda n: VOTERS[:n]),
    connected=st.sets(st.sampled_from(VOTERS)),
    leaving=st.sampled_from(VOTERS),
)
def test_a_vote_may_go_when_a_majority_of_the_rest_answers(
    voters: tuple[str, ...], connected: set[str], leaving: str
) -> None:
    rest = set(voters) - {leaving}
    loss = vote_loss(voters, frozenset(connected), leaving)
    assert (loss is None) == (2 * len(rest & connected) > len(rest))
    if loss is not None:
        assert all(silent in loss for silent in rest - connected)


def test_votes_without_registration_tell_removed_nodes_from_newcomers() -> None:
    state = MetaState(
        meta_nodes=(MetaNode(1, "a", "a:2", "a:1"), MetaNode(9, "c2", "c:2", "c:1")),
        tombstones=(
            stone(3, "b", Role.META, "b:1"),
            stone(5, "c", Role.META, "c:1"),
            stone(6, "d", Role.DATA, "d:1"),
        ),
    )
    assert votes_without_registration(state, ["a:1", "b:1", "c:1", "d:1", "e:1"]) == {
        "b:1": True,
        "d:1": False,
        "e:1": False,
    }


def waiting(clock: Callable[[], float], sentences: list[str]) -> list[str]:
    """The log lines of a node that waits for these things one after the other."""

    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return clock()

    loop = Loop()
    told: list[str] = []

    async def talk() -> None:
        progress = Progress(on_change=None)
        with structlog.testing.capture_logs() as logs:
            for sentence in sentences:
                progress.say(sentence)
                assert progress.waiting == sentence
        told.extend(line["reason"] for line in logs)

    try:
        loop.run_until_complete(talk())
    finally:
        loop.close()
    return told


def test_each_reason_is_logged_once_even_when_several_alternate() -> None:
    loop_free = itertools.count()
    told = waiting(lambda: next(loop_free) * 1e-3, ["a", "b", "c"] * 50)
    assert told == ["a", "b", "c"]


def test_a_reason_is_logged_again_after_a_while() -> None:
    ticks = itertools.count(step=7)
    told = waiting(lambda: float(next(ticks)), ["a"] * 30)
    assert 2 <= len(told) <= 8


def test_many_reasons_are_forgotten_in_the_end() -> None:
    async def talk() -> int:
        progress = Progress()
        for number in range(1000):
            progress.say(f"reason {number}")
        return len(progress._said_s)

    assert asyncio.run(talk()) <= 64


def test_waiters_are_let_go_when_the_daemon_ends() -> None:
    async def scene() -> tuple[bool, bool]:
        metadata = Metadata(SystemClock())
        early = asyncio.create_task(metadata.wait_index(5, 60))
        await asyncio.sleep(0)
        metadata.stop_waiting()
        return await asyncio.wait_for(early, 5), await asyncio.wait_for(metadata.wait_index(5, 60), 5)

    assert asyncio.run(scene()) == (False, False)
