"""A write whose version is far below what an owner has seen gets a newer one before anybody is told that it is stored.

The coordinator is no owner and knows of no other version: it has just come. Its clock is right, others' were not.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dsdbd.cluster.acks import AckCount, Consistency, Verdict, required_acks
from dsdbd.cluster.handoff import Handoff
from dsdbd.cluster.hybrid_clock import BEHIND_NS, Floor
from dsdbd.cluster.node import Node
from dsdbd.cluster.owners import Owners, WriteStats
from dsdbd.cluster.peers import PeerUnreachable, error_from_body
from dsdbd.cluster.version_clock import CeilingFile, VersionClock
from dsdbd.cluster.writes import WritePath
from dsdbd.errors import DiskFull, DSDBError, OutcomeUnknown, Unavailable, VersionBehind
from dsdbd.http.responses import error_body
from dsdbd.meta.state import DataNode, Shard
from dsdbd.model.columns import Batch, decode_batch, encode_batch
from dsdbd.storage import ShardKey
from tests.storage.storage_model import make_batch, open_store
from tests.unit.lone_node import lone_node, state_of

KEY = ShardKey("d", "p", 7)
OTHERS = tuple(DataNode(number, str(number) * 32, f"{number}:1", f"{number}:2") for number in (2, 3, 4))
LEVELS = (Consistency.ONE, Consistency.QUORUM, Consistency.ALL)


@dataclass
class Owner:
    """Another node: what it has seen, and how its answers to one write come.

    ``lately``: it has seen it just now, not long ago. ``before``, ``after``: turns of the event loop until it stores,
    and from then until it answers. ``fails``: how each of its answers ends, the last one for ever.
    """

    ahead_s: float
    lately: bool
    before: int
    after: int
    fails: list[str]
    seen: int = 0
    held: list[int] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refusals: int = 0

    def confirmed_ns(self) -> int:
        """The version below which it confirms no later write."""
        return self.seen - (BEHIND_NS if self.lately else 0)

    async def take(self, version: int, *, compares: bool) -> None:
        known = Floor(0)
        known.note(0.0, self.seen)
        floor = known.look(0.1 if self.lately else BEHIND_NS / 1e9)
        for _ in range(self.before):
            await asyncio.sleep(0)
        how = self.fails.pop(0) if len(self.fails) > 1 else self.fails[0]
        self.answers.append(how)
        if how == "away":
            raise PeerUnreachable("it is down", sent=False)
        if how == "lost":
            raise PeerUnreachable("it went down", sent=True)
        if how == "full":
            raise DiskFull("its disk is full")
        if compares and version < floor:
            self.refusals += 1
            raise VersionBehind("it has seen newer ones", self.seen)
        self.held.append(version)
        for _ in range(self.after):
            await asyncio.sleep(0)
        if how == "silent":
            raise PeerUnreachable("it went down", sent=True)


owners = st.builds(
    Owner,
    ahead_s=st.sampled_from((0.0, 2.9, 60.0, 300.0)),
    lately=st.booleans(),
    before=st.integers(0, 6),
    after=st.integers(0, 6),
    fails=st.lists(st.sampled_from(("", "", "", "away", "lost", "full", "silent")), min_size=1, max_size=3),
)


async def write(node: Node, others: list[Owner], level: Consistency) -> tuple[int, list[int], DSDBError | None]:
    """Write once; returns the first version, the newest of each owner when the client was told, and its error."""
    clock = VersionClock(node)
    stats = WriteStats()
    path = Owners(node, stats, clock)
    assert node.handoff is not None
    first = await clock.next_reserved()
    for one in others:
        one.seen = first + int(one.ahead_s * 1e9)
    by_address = {node.tcp_addr: one for node, one in zip(OTHERS, others, strict=True)}

    async def call(address: str, method: str, path_qs: str, body: bytes, **_: Any) -> bytes:
        assert method == "POST"
        await by_address[address].take(decode_batch(body).version, compares="new=1" in path_qs)
        return b""

    node.peers.call = call  # type: ignore[method-assign, assignment]
    batch = Batch(first, make_batch(1, [("h", 1, {"f": 1.0})]).points)
    error: DSDBError | None = None
    try:
        await path.store(KEY, Shard(7, (2, 3, 4)), batch, encode_batch(batch), level, is_new=True)
    except DSDBError as failure:
        error = failure
    told = [max(one.held, default=0) for one in others]
    await path.finish()
    await clock.close()
    assert stats.point_req_remote == 3, "what is sent again is counted once"
    return first, told, error


@settings(max_examples=50, deadline=None)
@given(st.lists(owners, min_size=3, max_size=3), st.sampled_from(LEVELS))
def test_what_is_confirmed_is_newer_than_what_was_confirmed_before(others: list[Owner], level: Consistency) -> None:
    async def all_of_it(directory: Path) -> None:
        node = lone_node(directory, state_of(Shard(7, (2, 3, 4)), data_nodes=OTHERS))
        node.config.meta.dir.mkdir(parents=True)
        node.handoff = Handoff(node)
        await node.handoff.open()
        try:
            async with asyncio.timeout(60):
                first, told, error = await write(node, others, level)
            judge(node, others, level, first, told, error)
        finally:
            await node.handoff.close()
            await node.peers.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(all_of_it(Path(directory)))


def judge(
    node: Node, others: list[Owner], level: Consistency, first: int, told: list[int], error: DSDBError | None
) -> None:
    newest = max(max(one.held, default=0) for one in others)
    kept = [node.handoff is not None and node.handoff.kept_bytes(number) > 0 for number in (2, 3, 4)]
    assert all(one.refusals <= 1 for one in others), "who has refused takes the next version"
    if error is None:
        need = required_acks(level, 3)
        assert sum(version == newest for version in told) >= need, "nothing newer of it comes after the answer"
        for before in combinations(range(3), 4 - need):
            confirmed = min(first + int(others[at].ahead_s * 1e9) for at in before)
            assert newest >= confirmed - BEHIND_NS, "those that confirmed a version meet those that confirm this one"
        for one, is_kept in zip(others, kept, strict=True):
            assert is_kept or newest in one.held
    elif isinstance(error, OutcomeUnknown):
        assert any(told) or any(how in ("lost", "silent") for one in others for how in one.answers)
    else:
        assert isinstance(error, Unavailable)
        assert not newest, "nothing is stored"
        assert not any(kept)
    if all(one.confirmed_ns() <= first for one in others):
        assert newest in (0, first), "clocks that are kept cost nothing"
        assert not any(one.refusals for one in others)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4 * 10**9)), min_size=1, max_size=40))
def test_only_what_is_far_below_or_below_what_was_seen_long_ago_is_refused(steps: list[tuple[float, int]]) -> None:
    floor, seen, now_s, last = Floor(7), [(-10.0, 7)], 0.0, 7
    for pause_s, growth in steps:
        now_s += pause_s
        before = [version for at_s, version in seen if at_s <= now_s - BEHIND_NS / 1e9]
        nearly = [version for at_s, version in seen if at_s <= now_s - BEHIND_NS / 1e9 + 0.25]
        least = max(max(before), last - BEHIND_NS if last > max(before) else 0)
        assert least <= floor.look(now_s) <= max(max(nearly), last - BEHIND_NS)
        last += growth
        floor.note(now_s, last)
        seen.append((now_s, last))


def test_an_answer_for_an_earlier_version_is_neither_a_confirmation_nor_nothing() -> None:
    count = AckCount(owners=2, required=2)
    count.confirm()
    count.renew()
    assert count.verdict() is Verdict.PENDING
    count.refuse(DiskFull("full"))
    count.refuse(DiskFull("full"))
    assert count.verdict() is Verdict.UNKNOWN


def test_the_version_an_owner_has_seen_travels_with_its_refusal() -> None:
    error = error_from_body(503, error_body(VersionBehind("behind", 1 << 62)), "a:1")
    assert isinstance(error, VersionBehind)
    assert (error.message, error.seen) == ("behind", 1 << 62)
    assert b"seen" not in error_body(DiskFull("full")), "clients see no more than before"


def test_an_owner_refuses_a_new_write_only_and_remembers_what_it_took(tmp_path: Path) -> None:
    """A kept write, a restored or repaired row has an old version by right."""

    async def all_of_it() -> None:
        node = lone_node(tmp_path, state_of(Shard(7, (1, 2)), data_nodes=OTHERS))
        node.config.meta.dir.mkdir(parents=True)
        node.store = open_store(tmp_path)
        writes = WritePath(node)
        ahead = node.clock.now_ns() + 300 * 10**9
        batch = make_batch(ahead, [("h", 1, {"f": 1.0})])
        old = encode_batch(make_batch(ahead - BEHIND_NS - 1, [("h", 1, {"f": 2.0})]))
        try:
            await writes.receive(7, encode_batch(batch), 1, writes.clock.floor())
            assert CeilingFile(node.config.meta.dir / "versions").load() >= ahead, "before it is confirmed"
            try:
                await writes.receive(7, old, 1, writes.clock.floor())
            except VersionBehind as error:
                assert error.seen == ahead
            else:
                raise AssertionError("it was taken")
            assert VersionClock(node).floor() >= ahead, "as after a kill"
            await writes.receive(7, old, 1)
            assert writes.clock.last == ahead
        finally:
            await writes.clock.close()
            await node.peers.close()
            await asyncio.to_thread(node.store.close)

    asyncio.run(all_of_it())
