"""A node never acts on metadata older than a change of its own that was committed, however late it hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsdbd.clock import SystemClock
from dsdbd.errors import MetaRefused, OutcomeUnknown
from dsdbd.meta import store
from dsdbd.meta.apply import apply
from dsdbd.meta.commands import CreateDatabase, CreateRetentionPolicy, InitCluster
from dsdbd.meta.state import MetaState
from dsdbd.meta.store import Metadata


class Elsewhere:
    """The meta nodes of a node without a vote: they commit at once, and it hears of it when ``tell`` is called."""

    def __init__(self, metadata: Metadata) -> None:
        self.state = MetaState()
        self._metadata = metadata

    async def propose(self, envelope: bytes, timeout_s: float) -> bytes:
        self.state, result = apply(self.state, self.state.index + 1, envelope)
        return result

    async def barrier(self, timeout_s: float) -> int:
        return self.state.index

    def leader(self) -> str:
        return "a:1"

    async def stop(self) -> None:
        pass

    def tell(self) -> None:
        self._metadata.publish(self.state)


def with_metadata(act: Callable[[Metadata, Elsewhere], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        metadata = Metadata(SystemClock())
        metadata.backend = elsewhere = Elsewhere(metadata)
        first = asyncio.create_task(metadata.propose(InitCluster("c" * 32)))
        while not elsewhere.state.index:
            await asyncio.sleep(0)
        elsewhere.tell()
        async with asyncio.timeout(30):
            await first
            await act(metadata, elsewhere)

    asyncio.run(all_of_it())


def test_a_change_that_this_node_has_not_heard_of_is_not_told_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CATCH_UP_S", 0.1)

    async def act(metadata: Metadata, elsewhere: Elsewhere) -> None:
        with pytest.raises(OutcomeUnknown, match="this node has not heard of it"):
            await metadata.propose(CreateDatabase("d"), timeout_s=0.1)
        assert "d" in elsewhere.state.databases
        assert "d" not in metadata.state.databases

    with_metadata(act)


def test_a_change_is_in_this_nodes_metadata_when_it_is_told_as_done() -> None:
    async def act(metadata: Metadata, elsewhere: Elsewhere) -> None:
        # The time for committing it is over by then.
        asyncio.get_running_loop().call_later(0.2, elsewhere.tell)
        await metadata.propose(CreateDatabase("d"), timeout_s=0.05)
        assert "d" in metadata.state.databases

    with_metadata(act)


def test_a_refusal_is_told_whatever_this_node_has_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CATCH_UP_S", 0.1)

    async def act(metadata: Metadata, _: Elsewhere) -> None:
        with pytest.raises(MetaRefused):
            await metadata.propose(CreateRetentionPolicy("unknown", "p", 0, 1, 0), timeout_s=0.1)

    with_metadata(act)


def test_a_node_that_ends_waits_for_nothing() -> None:
    async def act(metadata: Metadata, _: Elsewhere) -> None:
        asyncio.get_running_loop().call_later(0.1, metadata.stop_waiting)
        with pytest.raises(OutcomeUnknown):
            await metadata.propose(CreateDatabase("d"))

    with_metadata(act)
