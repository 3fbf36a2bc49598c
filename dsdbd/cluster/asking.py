"""Asking one owner of every shard for its part of an answer: whom, and what follows when one does not answer.

An owner that fails is replaced by the next one at once, for its shards alone. When a shard has no owner left the query
fails and names it, or leaves it out and says so where that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from dsdbd import query
from dsdbd.cluster.demand import best_owner
from dsdbd.decoding import msgpack_decoder
from dsdbd.errors import NotFound, NotOwner, ShardUnavailable, Unavailable
from dsdbd.meta import views
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from dsdbd.cluster.cancellation import Cancellation
    from dsdbd.cluster.node import Node
    from dsdbd.meta.views import ShardPlace
    from dsdbd.query import Partial, SelectPlan


class ReadRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a coordinator asks an owner; ``kind`` is ``schema``, ``select``, ``groups``, ``show`` or ``statement``.

    ``argument``: for a select and its groups the encoded plan, for a show the statement's text, for a schema nothing.
    A statement is a whole SELECT (``whole_reads``): its text is the argument, and names all that is read.
    ``most_rows``: a select with more rows than this is answered with nothing; 0 allows any number.
    ``names`` and ``patterns`` limit a schema to measurements; both empty means all. ``metadata_index`` is the state
    of the metadata in which the coordinator found the shards.
    """

    kind: str
    database: str
    policy: str
    shards: list[int]
    argument: bytes = b""
    names: list[str] = []
    patterns: list[str] = []
    now_ns: int = 0
    metadata_index: int = 0
    most_rows: int = 0


_REFRESH_TIMEOUT_S = 2.0
"""How long newer metadata are waited for after an owner said that it is none any more."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgpack_decoder(ReadRequest)


def decode_request(body: bytes) -> ReadRequest:
    """The request of another coordinator. Raises msgspec.MsgspecError."""
    return _decoder.decode(body)


@dataclass(frozen=True, slots=True)
class Part:
    """One request for some shards of one (database, policy); ``plan`` is encoded only for other nodes.

    ``min_ns``, ``max_ns``: the times that are read, both included.
    """

    request: ReadRequest
    places: tuple[ShardPlace, ...]
    plan: SelectPlan | None = None
    min_ns: int = MIN_TIME_NS
    max_ns: int = MAX_TIME_NS

    def measurements(self) -> frozenset[str] | None:
        """Names of the measurements that are read; None where they are not known by name."""
        if self.plan is not None:
            key = (self.request.database, self.request.policy)
            found = [one for one in self.plan.sources if (one.database, one.policy) == key]
            return frozenset(one.name for source in found for one in source.measurements)
        names = self.request.names
        return frozenset(names) if names and not self.request.patterns else None


Answers = list["bytes | Partial"]


@dataclass(slots=True)
class _Failures:
    """What owners did not answer for one part of a query.

    ``tried``: who failed for a shard. ``reasons``: why the last one did, by shard. ``corrected``: (owner, shard id) of
    requests that were refused because some shard of theirs has other owners; what did not move is asked for once more.
    """

    tried: dict[int, set[int]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    corrected: set[tuple[int, int]] = field(default_factory=set)

    def note(self, owner: int, places: Iterable[ShardPlace], error: Unavailable) -> None:
        """An owner did not answer for these shards."""
        for place in places:
            shard_id = place.shard.id
            self.reasons[shard_id] = error.message
            if isinstance(error, NotOwner) and (owner, shard_id) not in self.corrected:
                self.corrected.add((owner, shard_id))
            else:
                self.tried.setdefault(shard_id, set()).add(owner)


class Asking:
    """Asks owners for one coordinator. ``here`` answers for the shards of this node."""

    def __init__(
        self, node: Node, here: Callable[[Part, Sequence[ShardPlace], Cancellation], Awaitable[bytes | Partial]]
    ) -> None:
        self._node = node
        self._here = here

    async def all_of(self, part: Part, cancelled: Cancellation) -> Answers:
        """The answers for all shards of a part: this node's own work and one request to each other owner.

        Raises ShardUnavailable where a shard has no owner that answers, and what an owner refuses.
        """
        try:
            return await cancelled.guard(
                asyncio.ensure_future(self._answers(part, part.places, _Failures(), cancelled))
            )
        except (Unavailable, NotFound):
            raise
        except BaseException:
            cancelled.cancel()
            raise

    async def _answers(
        self,
        part: Part,
        places: Iterable[ShardPlace],
        failures: _Failures,
        cancelled: Cancellation,
    ) -> Answers:
        chosen = self._choose(places, failures, cancelled)
        asked = (self._owners_answers(owner, part, found, failures, cancelled) for owner, found in chosen.items())
        results = await asyncio.gather(*asked, return_exceptions=True)
        answers: Answers = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            answers += result
        return answers

    async def _owners_answers(
        self,
        owner: int,
        part: Part,
        places: Sequence[ShardPlace],
        failures: _Failures,
        cancelled: Cancellation,
    ) -> Answers:
        """The answer of one owner, or those of the next ones when it fails."""
        try:
            asked = self._ask(owner, part, places, cancelled)
            return [await cancelled.watched(owner, part.request.kind, places, asked)]
        except Unavailable as error:
            failures.note(owner, places, error)
            if isinstance(error, NotOwner):
                places = await self._newest(owner, places)
        return await self._answers(part, places, failures, cancelled)

    async def _newest(self, owner: int, places: Sequence[ShardPlace]) -> list[ShardPlace]:
        """Where the shards are now that an owner said that it is none any more."""
        metadata = self._node.metadata
        if owner != self._node.data_id:
            # Who cannot learn of newer metadata asks whom it knows.
            with contextlib.suppress(Unavailable):
                await metadata.barrier(_REFRESH_TIMEOUT_S)
        return list(views.newest(metadata.state, places))

    # --- whom to ask

    def chosen(self, places: Iterable[ShardPlace]) -> dict[int, list[ShardPlace]]:
        """Whom a query would ask for which shards. Raises ShardUnavailable for a shard without owners."""
        return self._choose(places, _Failures(), None)

    def only_owner(self, places: Iterable[ShardPlace]) -> int | None:
        """The one owner to ask for all of these shards; None where there are several, or none for some."""
        try:
            owners = self.chosen(places)
        except ShardUnavailable:
            return None
        return next(iter(owners)) if len(owners) == 1 else None

    def is_read_here(self, place: ShardPlace) -> bool:
        """Whether this node is the owner to ask first. Any thread may call it."""
        own, owners = self._node.data_id, place.shard.owners
        if own is None or own not in owners or self._has_just_come(place) or self._may_lack(place):
            return False
        return self._is_clean_here(place) or self._best(place, owners) == own

    def _choose(
        self,
        places: Iterable[ShardPlace],
        failures: _Failures,
        cancelled: Cancellation | None,
    ) -> dict[int, list[ShardPlace]]:
        """The owner to ask for each shard, among those that have not failed."""
        chosen: dict[int, list[ShardPlace]] = {}
        for place in places:
            failed = failures.tried.get(place.shard.id, ())
            owners = [owner for owner in place.shard.owners if owner not in failed]
            if owners:
                chosen.setdefault(self._best(place, owners), []).append(place)
                continue
            reason = failures.reasons.get(place.shard.id, "it has no owner")
            if cancelled is not None:
                reason = cancelled.demand.needed(len(place.shard.owners)) + reason
            if cancelled is None or not cancelled.demand.may_lack(place.shard.id):
                raise ShardUnavailable(f"shard {place.shard.id} of {place.database.name} cannot be read: {reason}")
            cancelled.demand.missing[place.shard.id] = reason
        return chosen

    def _best(self, place: ShardPlace, owners: Sequence[int]) -> int:
        return best_owner(
            owners,
            place.shard.id,
            here=self._node.data_id if self._node.store is not None else None,
            is_clean=lambda owner: self._is_clean(owner, place),
            is_away=lambda owner: self._is_away(owner, place),
        )

    def _is_clean(self, owner: int, place: ShardPlace) -> bool:
        """Whether nothing is known that an owner lacks of a shard."""
        node = self._node
        if owner == node.data_id:
            return self._is_clean_here(place)
        if node.handoff is not None and node.handoff.owes(owner, place.shard.id):
            return False
        return node.detector is None or node.detector.is_clean(owner)

    def _is_clean_here(self, place: ShardPlace) -> bool:
        node = self._node
        if node.store is None or self._has_just_come(place):
            return False
        return len(place.shard.owners) == 1 or node.repair is None or node.repair.is_clean(place.shard.id)

    def _has_just_come(self, place: ShardPlace) -> bool:
        transfer = self._node.transfer
        return transfer is not None and transfer.switching.is_under_way(place.shard.id)

    def _may_lack(self, place: ShardPlace) -> bool:
        """Whether a read here waits for what a coordinator that is gone may have left at other owners."""
        repair = self._node.repair
        return len(place.shard.owners) > 1 and repair is not None and repair.gone.may_lack(place.shard.id)

    def _is_away(self, owner: int, place: ShardPlace) -> bool:
        node = self._node
        if owner == node.data_id:
            shard = None if node.store is None else node.store.shard(place.shard.id)
            # After files were damaged even an owner of which nothing is known holds more.
            return node.store is None or (shard is not None and shard.damages > 0 and not self._is_clean_here(place))
        peer = views.data_node(node.metadata.state, owner)
        return peer is None or node.peers.lately_away(peer.tcp_addr)

    # --- asking

    async def _ask(
        self, owner: int, part: Part, places: Sequence[ShardPlace], cancelled: Cancellation
    ) -> bytes | Partial:
        node = self._node
        await self._complete(owner, part, places, cancelled)
        if owner == node.data_id:
            return await self._here(part, places, cancelled)
        argument = part.request.argument if part.plan is None else query.encode_plan(part.plan)
        shards = [place.shard.id for place in places]
        return await self.call(owner, msgspec.structs.replace(part.request, shards=shards, argument=argument))

    async def call(self, owner: int, request: ReadRequest) -> bytes:
        """What another node answers to a request. Raises Unavailable, and what it refuses."""
        node = self._node
        peer = views.data_node(node.metadata.state, owner)
        if peer is None:
            raise ShardUnavailable(f"data node {owner} is not registered")
        body = _encoder.encode(msgspec.structs.replace(request, metadata_index=node.metadata.state.index))
        timeout_s = node.config.cluster.shard_mapper_timeout_s
        return await node.peers.call(peer.tcp_addr, "POST", "/internal/read", body, timeout_s=timeout_s)

    async def _complete(self, owner: int, part: Part, places: Sequence[ShardPlace], cancelled: Cancellation) -> None:
        """For a quorum read let the owner take in what a quorum of the owners has, once for each statement."""
        demand, names = cancelled.demand, part.measurements()
        short = [
            place
            for place in places
            if len(place.shard.owners) > 1 and demand.lacks_completion(owner, place.shard.id, names)
        ]
        if not short:
            return
        if self._node.repair is None:
            raise ShardUnavailable("this node cannot compare owners yet; consistency=quorum needs it")
        await self._node.repair.completion.at(
            owner, short, None if names is None else sorted(names), part.min_ns, part.max_ns
        )
        demand.completed(owner, [place.shard.id for place in short], names)
