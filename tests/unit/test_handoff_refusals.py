"""Kept writes that their owner refuses, or that cannot be read: what waits, what is put aside, what is given up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from dsdbd.cluster.handoff import Handoff
from dsdbd.cluster.lateness import late_ns
from dsdbd.errors import DSDBError, NodeRemoved, SecretRefused
from dsdbd.limits import LATE_BATCH_NS
from dsdbd.meta.state import DataNode, Shard
from dsdbd.storage import ShardKey
from tests.cluster.daemons import free_port
from tests.unit.lone_node import lone_node, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = ShardKey("d", "p", 7)
STATUS = {"secret_refused": 403, "node_removed": 410, "internal": 500, "invalid_request": 400, "corrupt_data": 500}


async def with_owner(directory: Path, answers: list[str], use: Callable[[Handoff], Awaitable[None]]) -> None:
    """Keep two writes for data node 2, which answers with these codes, one after another, and well from then on."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if not answers:
            return web.Response(status=204)
        code = answers.pop(0)
        return web.json_response({"error": code, "code": code}, status=STATUS[code])

    await with_server(directory, answer, use)


async def with_server(
    directory: Path,
    answer: Callable[[web.Request], Awaitable[web.Response]],
    use: Callable[[Handoff], Awaitable[None]],
) -> None:
    """Keep two writes for data node 2, which answers so."""
    port = free_port()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    other = DataNode(2, "2" * 32, "b:1", f"127.0.0.1:{port}")
    node = lone_node(directory, state_of(Shard(7, (1, 2)), data_nodes=(other,)))
    handoff = Handoff(node)
    await handoff.open()
    try:
        await handoff.keep(2, KEY, b"first")
        await handoff.keep(2, KEY, b"second")
        await use(handoff)
    finally:
        await handoff.close()
        await node.peers.close()
        await runner.cleanup()


def test_a_node_that_may_not_speak_keeps_what_it_has(tmp_path: Path) -> None:
    async def use(handoff: Handoff) -> None:
        target = handoff._targets[2]
        for refused in (SecretRefused, NodeRemoved) * 10:
            with pytest.raises(refused):
                await handoff._send_some(target)
        assert await handoff._send_some(target) == len(b"firstsecond") and target.queue.empty
        assert handoff.counters["delivered"] == 2 and handoff.counters["refused"] == 0 and handoff.lost() == {}

    asyncio.run(with_owner(tmp_path, ["secret_refused", "node_removed"] * 10, use))


@pytest.mark.parametrize("code", ["invalid_request", "corrupt_data"])
def test_what_a_record_is_refused_for_puts_it_aside_at_once(tmp_path: Path, code: str) -> None:
    async def use(handoff: Handoff) -> None:
        target = handoff._targets[2]
        await handoff._send_some(target)
        assert target.queue.empty and target.queue.aside == 1
        assert (
            handoff.counters["delivered"] == 1
            and handoff.counters["refused"] == 1
            and handoff.lost()[2].keys() == {KEY}
        )

    asyncio.run(with_owner(tmp_path, [code], use))


def test_a_defect_of_an_owner_is_tried_again_and_not_for_ever(tmp_path: Path) -> None:
    async def use(handoff: Handoff) -> None:
        target = handoff._targets[2]
        turns = 0
        async with asyncio.timeout(60):
            while not target.queue.empty:
                turns += 1
                try:
                    await handoff._send_some(target)
                except DSDBError as error:
                    assert error.code == "internal" and target.queue.aside == 0
        assert turns == 10 and target.queue.aside == 1 and handoff.counters["delivered"] == 1

    asyncio.run(with_owner(tmp_path, ["internal"] * 10, use))


def test_a_file_the_disk_does_not_give_back_holds_up_those_behind_it_for_a_while_only(tmp_path: Path) -> None:
    async def use(handoff: Handoff) -> None:
        target = handoff._targets[2]
        (path,) = target.queue.directory.glob("*.wal")
        target.queue._log.close()
        await handoff.keep(2, KEY, b"third")
        path.unlink()
        path.symlink_to("/proc/self/mem")  # its first bytes are never there: EIO
        for _ in range(10):
            with pytest.raises(OSError, match="Input/output error"):
                await handoff._send_some(target)
        assert await handoff._send_some(target) == len(b"third") and target.queue.empty
        assert [kept.name for kept in (target.queue.directory / "corrupt").iterdir()] == [path.name]

    asyncio.run(with_owner(tmp_path, [], use))


def test_a_queue_that_cannot_be_looked_through_holds_up_no_other(tmp_path: Path) -> None:
    async def use(handoff: Handoff) -> None:
        await handoff.keep(3, KEY, b"third")
        (first,) = handoff._targets[2].queue.directory.glob("*.wal")
        first.unlink()
        first.mkdir()  # can neither be read nor removed
        handoff._config = lone_node(tmp_path, state_of(), max_age_s=-10.0).config.hinted_handoff
        await handoff._purge()
        assert handoff.kept_bytes(3) == 0 and handoff.counters["expired"] == 1
        first.rmdir()

    asyncio.run(with_owner(tmp_path, [], use))


@pytest.mark.parametrize("bad", [0, 5, 17, 39])
def test_kept_writes_travel_side_by_side_and_none_is_lost_when_one_fails(tmp_path: Path, bad: int) -> None:
    names = [f"record {number}".encode() for number in range(40)]
    taken: list[bytes] = []
    there = most = 0
    failures = [names[bad]] * 2

    async def answer(request: web.Request) -> web.Response:
        nonlocal there, most
        there, body = there + 1, await request.read()
        most = max(most, there)
        # All that came with it are here before it is answered.
        for _ in range(20):
            await asyncio.sleep(0)
        there -= 1
        if body in failures:
            failures.remove(body)
            return web.json_response({"error": "busy", "code": "overloaded"}, status=503)
        taken.append(body)
        return web.Response(status=204)

    async def use(handoff: Handoff) -> None:
        target = handoff._targets[2]
        await handoff._send_some(target)
        for name in names:
            await handoff.keep(2, KEY, name)
        failed = 0
        async with asyncio.timeout(60):
            while not target.queue.empty:
                try:
                    await handoff._send_some(target)
                except DSDBError as error:
                    failed += 1
                    assert error.code == "overloaded"
        assert failed == 2 and target.queue.aside == 0 and handoff.lost() == {}

    asyncio.run(with_server(tmp_path, answer, use))
    assert set(taken) == {b"first", b"second", *names}
    assert 2 < most <= 16
    assert len(taken) <= 42 + 2 * 15, "no more is sent twice than was on its way with the one that failed"


def test_no_record_is_delivered_later_than_deletions_are_kept_for(tmp_path: Path) -> None:
    async def ask() -> None:
        other = DataNode(2, "2" * 32, "b:1", "b:2")
        ages = {"max_age_s": 7200.0, "purge_interval_s": 1800.0}
        # The first record of a file may be an hour older than the newest, the file stays until the next look.
        assert late_ns(lone_node(tmp_path, state_of(data_nodes=(other,)), **ages)) > (7200 + 3600 + 1800) * 10**9
        assert late_ns(lone_node(tmp_path, state_of(), **ages)) == LATE_BATCH_NS

    asyncio.run(ask())
