"""The public face: starting and failing to start, proposing, waiting, members, and the life of one node."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from pathlib import Path

import pytest

from dsdbd import limits
from dsdbd.errors import BodyTooLarge, IdentityError, MetaRefused, StorageCorrupt, StorageFull
from dsdbd.meta.raft import NotCommitted, RaftNode, RaftTimings
from dsdbd.meta.raft.faults import storage_error
from dsdbd.meta.raft.loopthread import RefusalLimiter
from tests.raft.harness import Member, eventually, free_address, leader_of
from tests.raft.machines import POISON, MapMachine, set_command


def run(body, *arguments) -> None:
    threads = threading.active_count()
    asyncio.run(body(*arguments))
    # A name that is being looked up ends in its own time; what must not be is a thread that stays.
    deadline_s = time.monotonic() + 30
    while threading.active_count() > threads + 1:
        assert time.monotonic() < deadline_s, f"a thread was left behind: {threading.enumerate()}"
        time.sleep(0.05)


async def trio(tmp_path: Path) -> list[Member]:
    members = [
        await Member((first := free_address("127.0.0.1")), tmp_path / "1", [first]).start(),
    ]
    for number in (2, 3):
        joiner = await Member(free_address(f"127.0.0.{number}"), tmp_path / str(number), [first]).start()
        members.append(joiner)
        await members[0].node.add_voter(joiner.address, 5)
        await eventually(lambda joiner=joiner: joiner.node.status().is_voter)
    return members


def test_a_single_node_leads_at_once_and_keeps_what_it_acknowledged(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()
        assert member.node.status().role == "leader"
        for number in range(20):
            await member.node.propose(set_command(f"r{number}", f"k{number}", number), 2)
        index = await member.node.barrier(2)
        assert index == member.node.status().applied_index
        term = member.node.status().term
        await member.stop()
        await member.stop()
        with pytest.raises(NotCommitted) as refused:
            await member.node.propose(b"x", 1)
        assert not refused.value.outcome_unknown
        # The list at the second start is another one: the disk wins.
        again = await Member(address, tmp_path, ["127.0.0.9:1"]).start()
        status = again.node.status()
        assert (status.role, status.voters, status.term) == ("leader", (address,), term + 1)
        assert len(again.machine.values) == 20
        assert again.fatal == []
        await again.stop()

    run(body)


def test_commands_have_limits_and_failures_have_names(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()
        node = member.node
        with pytest.raises(BodyTooLarge):
            await node.propose(b"x" * (limits.MAX_COMMAND_BYTES + 1), 1)
        with pytest.raises(ValueError, match="barrier"):
            await node.propose(b"", 1)
        with pytest.raises(MetaRefused, match="poisoned"):
            await node.propose(POISON, 2)
        largest = set_command("r", "k", "x" * (limits.MAX_COMMAND_BYTES - 20))
        await node.propose(largest[: limits.MAX_COMMAND_BYTES], 2)
        with pytest.raises(NotCommitted, match="TIMEOUT"):
            await node.wait_applied(node.status().last_index + 1, 0.05)
        await node.wait_applied(node.status().applied_index, 0.05)
        waiting = asyncio.create_task(node.wait_applied(node.status().last_index + 2, 5))
        await asyncio.sleep(0)
        await node.propose(set_command("a", "a", 1), 2)
        await node.propose(set_command("b", "b", 1), 2)
        await waiting
        doomed = asyncio.create_task(node.wait_applied(10**6, 5))
        await asyncio.sleep(0.01)
        await member.stop()
        with pytest.raises(NotCommitted, match="STOPPED"):
            await doomed

    run(body)


def test_three_nodes_elect_forward_transfer_and_lose_their_quorum(tmp_path):
    async def body() -> None:
        members = await trio(tmp_path)
        leader = await leader_of(members)
        followers = [member for member in members if member is not leader]
        answer = await followers[0].node.propose(set_command("r1", "k", 1), 2)
        assert await leader.node.propose(set_command("r1", "k", 1), 2) == answer, "the same request, the same answer"
        assert all([await member.node.barrier(2) for member in members])
        assert all(member.machine.values == {"k": [1, 1]} for member in members)
        status = leader.node.status()
        assert {peer.address for peer in status.peers} == {member.address for member in followers}
        assert all(peer.connected and peer.match_index for peer in status.peers)
        assert leader.node.learner_lag(followers[0].address) is None
        with pytest.raises(NotCommitted, match="NOT_LEADER"):
            await followers[0].node.remove_voter(leader.address, 1)
        with pytest.raises(NotCommitted, match="LEARNER_BEHIND"):
            await leader.node.add_voter(free_address(), 0.1)
        await leader.node.transfer_leadership(3)
        assert await leader_of(members) is not leader
        for follower in followers:
            await follower.stop()
        await eventually(lambda: not leader.node.status().has_quorum)
        await eventually(lambda: leader.node.status().leader is None)
        with pytest.raises(NotCommitted) as refused:
            await leader.node.propose(set_command("r2", "k", 2), 1)
        assert (refused.value.reason, refused.value.outcome_unknown) == ("MISSING_LEADER", False)
        assert len(leader.changes) > 3
        await leader.stop()

    run(body)


def test_a_removed_node_knows_it(tmp_path):
    async def body() -> None:
        members = await trio(tmp_path)
        first, second, third = members
        await first.node.remove_voter(third.address, 2)
        await first.node.remove_voter(third.address, 2)
        await eventually(lambda: third.node.status().removed)
        assert third.node.status().role == "learner"
        assert not third.node.status().is_voter
        await third.stop()
        await second.stop()
        await first.stop()

    run(body)


def test_a_node_removed_while_it_was_away_is_told_by_the_leader(tmp_path):
    async def body() -> None:
        members = await trio(tmp_path)
        leader = await leader_of(members)
        away = max((member for member in members if member is not leader), key=lambda member: member.address)
        await away.stop()
        await leader.node.remove_voter(away.address, 3)
        again = await Member(away.address, tmp_path / str(members.index(away) + 1), [away.address]).start()
        await eventually(lambda: again.node.status().removed)
        await eventually(lambda: again.refused)
        assert "is not a member" in again.refused[0][1]
        await again.stop()
        for member in members:
            await member.stop()

    run(body)


def test_names_resolve_at_each_dial_and_ipv6_works(tmp_path):
    async def body() -> None:
        probe = socket.socket(socket.AF_INET6)
        try:
            probe.bind(("::1", 0))
            mine = f"[::1]:{probe.getsockname()[1]}"
        except OSError:
            pytest.skip("no IPv6 loopback")
        finally:
            probe.close()
        port = free_address().rsplit(":", 1)[1]
        founder_address = f"localhost:{port}"
        founder = await Member(founder_address, tmp_path / "1", [founder_address], listen=f"127.0.0.1:{port}").start()
        joiner = await Member(mine, tmp_path / "2", [founder_address, "no.such.host.invalid:8088"]).start()
        await eventually(lambda: founder.node.learner_lag(mine) == 0)
        assert joiner.node.status().role == "learner"
        await joiner.stop()
        await founder.stop()

    run(body)


def test_a_damaged_journal_or_a_missing_one_is_no_start(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()
        for number in range(5):
            await member.node.propose(set_command(f"r{number}", "k", number), 2)
        await member.stop()
        journal = tmp_path / "raft.journal"
        sound = journal.read_bytes()
        journal.write_bytes(sound[:40] + bytes([sound[40] ^ 1]) + sound[41:])
        with pytest.raises(StorageCorrupt, match="damaged"):
            await Member(address, tmp_path, [address]).start()
        journal.unlink()
        (tmp_path / "raft.snap").write_bytes(b"x")
        with pytest.raises(StorageCorrupt, match="journal beside it is gone"):
            await Member(address, tmp_path, [address]).start()
        journal.write_bytes(sound)
        with pytest.raises(StorageCorrupt, match="snapshot"):
            await Member(address, tmp_path, [address]).start()
        (tmp_path / "raft.snap").unlink()
        again = await Member(address, tmp_path, [address]).start()
        assert again.machine.values == {"k": [4, 5]}
        with pytest.raises(IdentityError, match="another process"):
            await Member(address, tmp_path, [address]).start()
        await again.stop()

    run(body)


def test_a_snapshot_replaces_the_log_and_survives_a_restart(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()
        for number in range(60):
            await member.node.propose(set_command(f"r{number}", f"k{number}", number), 2)
        long = member.node.status().journal_bytes
        member.node.loop.call_soon_threadsafe(member.node._core.forceLogCompaction)
        await eventually(lambda: member.node.status().snapshot_index > 50 and member.node.status().journal_bytes < long)
        await member.node.propose(set_command("late", "late", 1), 2)
        await member.stop()
        again = await Member(address, tmp_path, [address]).start()
        assert len(again.machine.values) == 61
        await again.stop()

    run(body)


def test_a_failed_sync_ends_the_node_once(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()

        def broken(_descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        member.node._core.journal._sync_file = broken
        with pytest.raises(NotCommitted) as refused:
            await member.node.propose(set_command("r", "k", 1), 3)
        assert refused.value.outcome_unknown
        await eventually(lambda: member.fatal)
        assert len(member.fatal) == 1
        assert isinstance(member.fatal[0], StorageCorrupt)
        assert "Input/output" in str(member.fatal[0])
        assert not member.node.status().has_quorum
        await member.stop()

    run(body)


def test_a_full_disk_refuses_commands_and_recovers(tmp_path):
    async def body() -> None:
        address = free_address()
        member = await Member(address, tmp_path, [address]).start()
        room = False
        member.node._core._has_room = lambda: room
        member.node._core._room_checked_s = -1e9
        with pytest.raises(NotCommitted) as refused:
            await member.node.propose(set_command("r", "k", 1), 2)
        assert (refused.value.reason, refused.value.outcome_unknown) == ("DISK_FULL", False)
        assert member.node.status().role == "leader"
        room = True

        async def accepted() -> bool:
            try:
                await member.node.propose(set_command("r", "k", 1), 2)
            except NotCommitted:
                return False
            return True

        await eventually(accepted)
        assert member.fatal == []
        await member.stop()

    run(body)


def test_storage_errors_say_what_to_do():
    full = storage_error("x", OSError(errno.ENOSPC, "No space"))
    assert isinstance(full, StorageFull)
    assert "free space" in str(full)
    assert "join it again" in str(storage_error("x", OSError(errno.EIO, "broken")))


def test_refusals_are_repeated_once_a_minute_and_bounded():
    limiter = RefusalLimiter()
    assert [limiter.allow("a", now) for now in (0.0, 1.0, 59.0, 61.0)] == [True, False, False, True]
    assert sum(limiter.allow(number, 62.0) for number in range(1000)) < 300


@pytest.mark.parametrize("address", ["nowhere", "a:b", ":8088", "host:0", "host:70000", "x\ny:1"])
def test_addresses_are_checked_before_anything_starts(address, tmp_path):
    options = {"machine": MapMachine(), "secret": b"s", "cluster_id": "c", "on_fatal": print, "data_dir": tmp_path}
    with pytest.raises(ValueError, match="address"):
        RaftNode(self_address=address, bootstrap=["a:1"], **options)
    with pytest.raises(ValueError, match="no voter"):
        RaftNode(self_address="a:1", bootstrap=[], **options)
    with pytest.raises(ValueError, match="lease"):
        RaftNode(self_address="a:1", bootstrap=["a:1"], timings=RaftTimings(leader_lease_s=2), **options)
    assert list(tmp_path.iterdir()) == []
