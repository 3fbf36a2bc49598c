"""Orders about where shards are: what would move, doing it, and how far it is; for any node, on behalf of an operator.

An order is worked out anew each time from the metadata and from what the nodes say they hold, so repeating one goes on
where the last time ended, and two at once do no harm.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from msgspec.structs import replace

from dsdbd.cluster import segment_fetch
from dsdbd.cluster.membership import vote_loss
from dsdbd.cluster.messages import LeaveRequest, encode
from dsdbd.cluster.transfer_plan import WAITING
from dsdbd.decoding import decode_json
from dsdbd.errors import DSDBError, MembershipRefused, MetaRefused, NotFound, RequestError
from dsdbd.meta import balance, views
from dsdbd.meta.apply_moves import begin_moves, cancel_moves
from dsdbd.meta.commands import CancelMoves, RemoveShardOwner, SetDraining
from dsdbd.meta.edit import Context
from dsdbd.meta.state import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dsdbd.cluster.membership import Membership
    from dsdbd.cluster.node import Node
    from dsdbd.cluster.segment_messages import SizesAnswer
    from dsdbd.meta.state import DataNode, MetaNode, MetaState, Tombstone

log = structlog.get_logger("transfer")
_ASK_TIMEOUT_S = 3.0
_BARRIER_TIMEOUT_S = 5.0
_ATTEMPTS = 4
_DEAD_S = 10.0
"""Silence after which a node that is to be removed is not waited for: one answer may be late, or lost."""
_ASSUMED_BYTES_PER_S = 50 << 20
"""For the time a plan names, where a node's rate has no limit."""
OPERATIONS = ("add", "drain", "cancel", "remove", "replace", "rebalance")


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /cluster/plan`` and ``/cluster/apply``.

    ``op`` is one of ``OPERATIONS``; ``node`` is the number of a data or meta registration, ``to`` the data node that
    takes the place of ``node`` (``replace``).
    """

    op: str
    node: int = 0
    to: int = 0


class Holding(msgspec.Struct, frozen=True):
    """What the data nodes say they hold: bytes by shard of each that answered, and who did not."""

    by_node: dict[int, SizesAnswer]
    down: frozenset[int]

    def shard_bytes(self) -> dict[int, int]:
        """Bytes of each shard, as the fullest copy has them."""
        found: dict[int, int] = {}
        for answer in self.by_node.values():
            for shard_id, size in answer.sizes.items():
                found[shard_id] = max(size, found.get(shard_id, 0))
        return found


class Machine(msgspec.Struct, frozen=True):
    """One identity with its registrations; None for a role it does not have. ``left``: it stored points once."""

    meta: MetaNode | None
    data: DataNode | None
    left: bool


class _Part(msgspec.Struct):
    """A data node's part in the shards: ids of those it owns and takes, and how many leave it."""

    owned: set[int] = msgspec.field(default_factory=set)
    incoming: set[int] = msgspec.field(default_factory=set)
    leaving: int = 0


class Moving:
    """Carries out orders of operators on one node."""

    def __init__(self, node: Node, membership: Membership) -> None:
        self._node = node
        self._membership = membership

    # --- looking

    async def nodes(self) -> list[dict[str, Any]]:
        """Every node with what it holds, as plain values."""
        state, holding = self._node.metadata.state, await self._holding()
        parts = _parts(state)
        silent = {} if self._node.detector is None else self._node.detector.silent()
        rows: dict[str, dict[str, Any]] = {}
        for meta in state.meta_nodes:
            rows[meta.uuid] = {"meta_id": meta.id, "tcp_addr": meta.tcp_addr, "http_addr": "", "data_id": None}
        for data in state.data_nodes:
            row = rows.setdefault(data.uuid, {"meta_id": None, "tcp_addr": data.tcp_addr})
            row.update(data_id=data.id, http_addr=data.http_addr)
            row.update(self._shards_of(parts, data, holding))
        for row in rows.values():
            down = row["tcp_addr"] in silent or row["data_id"] in holding.down
            row["state"] = "down" if down else "draining" if row.get("draining") else "up"
        return list(rows.values())

    @staticmethod
    def _shards_of(parts: Mapping[int, _Part], data: DataNode, holding: Holding) -> dict[str, Any]:
        answer, part = holding.by_node.get(data.id), parts.get(data.id) or _Part()
        sizes = {} if answer is None else answer.sizes
        return {
            "draining": data.draining,
            "shards": len(part.owned),
            "incoming": len(part.incoming),
            "leaving": part.leaving,
            "former": None if answer is None else len(sizes.keys() - part.owned - part.incoming),
            "bytes": None if answer is None else sum(sizes.values()),
            "kept_bytes": None if answer is None else answer.kept_bytes,
        }

    async def moves(self) -> list[dict[str, Any]]:
        """Every copy that is ordered, with how far its receiver is (``MoveProgress.as_row``)."""
        state = self._node.metadata.state
        ordered = [(place, one) for place in views.all_shards(state) for one in place.shard.incoming]
        receivers = sorted({one.node for _, one in ordered})
        answers = await asyncio.gather(*(self._progress_of(state, receiver) for receiver in receivers))
        told = {(row["to"], row["shard"]): row for rows in answers for row in rows if not row["ended_ns"]}
        silent = {one: self._silence(one) for one in receivers}
        return [
            told.get((one.node, place.shard.id))
            or {
                "shard": place.shard.id,
                "database": place.database.name,
                "retention_policy": place.policy.name,
                "from": None,
                "to": one.node,
                "replaces": one.replaces or None,
                "state": WAITING,
                "bytes": 0,
                "total_bytes": 0,
                "started_ns": one.begun_ns,
                "ended_ns": None,
                "error": silent[one.node],
            }
            for place, one in ordered
        ]

    def _silence(self, data_id: int) -> str:
        """Why a receiver does nothing; empty where it is there."""
        detector = self._node.detector
        return f"data node {data_id} does not answer" if detector is not None and detector.is_down(data_id) else ""

    async def _progress_of(self, state: MetaState, data_id: int) -> list[dict[str, Any]]:
        peer = views.data_node(state, data_id)
        if peer is None:
            return []
        try:
            raw = await self._node.peers.call(peer.tcp_addr, "GET", "/internal/transfers", timeout_s=_ASK_TIMEOUT_S)
            return decode_json(raw, list[dict[str, Any]])
        except (DSDBError, msgspec.MsgspecError):
            # The move goes on, or waits until that node is back; it is shown without details.
            return []

    async def _holding(self) -> Holding:
        """Ask every data node at once for what it holds."""
        nodes = self._node.metadata.state.data_nodes
        detector = self._node.detector
        answers = await asyncio.gather(
            *(self._sizes_at(node) for node in nodes if detector is None or not detector.is_down(node.id))
        )
        by_node = {data_id: answer for data_id, answer in answers if answer is not None}
        return Holding(by_node, frozenset(node.id for node in nodes) - by_node.keys())

    async def _sizes_at(self, node: DataNode) -> tuple[int, SizesAnswer | None]:
        try:
            return node.id, await segment_fetch.sizes_at(self._node.peers, node.tcp_addr)
        except DSDBError:
            return node.id, None

    # --- planning

    async def plan(self, order: Order) -> dict[str, Any]:
        """What an order would do now, as plain values. Raises NotFound, RequestError, NoLeader; changes nothing."""
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        holding = await self._holding()
        return self._document(order, self._plan(order, holding), holding)

    def _plan(self, order: Order, holding: Holding) -> balance.Plan:
        if order.op not in OPERATIONS:
            raise RequestError(f'"{order.op}" is no operation; write one of {", ".join(OPERATIONS)}')
        state, sizes, down = self._node.metadata.state, holding.shard_bytes(), holding.down
        if order.op == "rebalance":
            return balance.plan_rebalance(state, sizes, down)
        machine = self._machine(order.node)
        refusals = tuple(self._vote_refusal(machine, down)) if order.op in ("remove", "replace") else ()
        if machine.data is None:
            if order.op != "remove" and not (order.op == "replace" and machine.left):
                raise _stores_nothing(order.node)
            # Its points are where they should be, or it never had any: all that may be left to drop is its vote.
            return balance.Plan(refusals=refusals)
        data_id = machine.data.id
        match order.op:
            case "add":
                return _plan_add(_serving(state, data_id), sizes, down, data_id)
            case "replace":
                plan = balance.plan_replace(state, sizes, down, data_id, self._data_id(order.to))
            case "drain" | "remove":
                plan = balance.plan_drain(state, sizes, down, data_id)
                if len(state.data_nodes) == 1:
                    refusals = (f"data node {data_id} is the only one: its points would have nowhere to go", *refusals)
            case _:
                return balance.Plan()
        return plan._replace(refusals=(*plan.refusals, *refusals))

    def _document(self, order: Order, plan: balance.Plan, holding: Holding) -> dict[str, Any]:
        places = {place.shard.id: place for place in views.all_shards(self._node.metadata.state)}
        per_node: dict[int, int] = {}
        moves = []
        for move, size in zip(plan.moves, plan.sizes, strict=True):
            place = places[move.shard_id]
            per_node[move.node_id] = per_node.get(move.node_id, 0) + size
            moves.append(
                {
                    "shard": move.shard_id,
                    "database": place.database.name,
                    "retention_policy": place.policy.name,
                    "replaces": move.replaces or None,
                    "to": move.node_id,
                    "bytes": size,
                }
            )
        return {
            "op": order.op,
            "moves": moves,
            "removals": [{"shard": shard_id, "from": owner} for shard_id, owner in plan.removals],
            "bytes": plan.size_bytes,
            "seconds": round(max((self._seconds(holding, *one) for one in per_node.items()), default=0.0), 1),
            "refusals": list(plan.refusals),
            "leaves": [{"role": role, "id": one.id} for one, role in self._leaving(order)],
            "votes_left": self._votes_left(order),
        }

    def _leaving(self, order: Order) -> list[tuple[MetaNode | DataNode, str]]:
        """Registrations that an order drops at its end."""
        if order.op not in ("remove", "replace"):
            return []
        machine = self._machine(order.node)
        return [(one, role) for one, role in ((machine.data, "data"), (machine.meta, "meta")) if one is not None]

    def _votes_left(self, order: Order) -> int:
        """How many meta nodes there are at an order's end."""
        leaving = sum(1 for _, role in self._leaving(order) if role == "meta")
        return len(self._node.metadata.state.meta_nodes) - leaving

    @staticmethod
    def _seconds(holding: Holding, node_id: int, size_bytes: int) -> float:
        answer = holding.by_node.get(node_id)
        return size_bytes / ((answer.rate_bytes_per_s if answer is not None else 0) or _ASSUMED_BYTES_PER_S)

    def _machine(self, number: int) -> Machine:
        """The node that has this number or had it, whichever of its two it is. Raises NotFound."""
        state = self._node.metadata.state
        everyone: tuple[MetaNode | DataNode | Tombstone, ...]
        everyone = (*state.meta_nodes, *state.data_nodes, *state.tombstones)
        uuid = next((one.uuid for one in everyone if one.id == number), None)
        if uuid is None:
            raise NotFound(f"node {number} not found: SHOW SERVERS lists the numbers")
        return Machine(
            next((one for one in state.meta_nodes if one.uuid == uuid), None),
            next((one for one in state.data_nodes if one.uuid == uuid), None),
            left=any(one.uuid == uuid and one.role is Role.DATA for one in state.tombstones),
        )

    def _data_id(self, number: int) -> int:
        data = self._machine(number).data
        if data is None:
            raise _stores_nothing(number)
        return data.id

    def _vote_refusal(self, machine: Machine, down: frozenset[int]) -> list[str]:
        """Why the machine's vote cannot be spared. ``down``: data nodes that did not answer just now."""
        meta, voters = machine.meta, tuple(one.tcp_addr for one in self._node.metadata.state.meta_nodes)
        if meta is None:
            return []
        if len(voters) == 1:
            return [f"node {meta.id} is the only one with the metadata: the cluster would end"]
        silent = {one.tcp_addr for one in self._node.metadata.state.data_nodes if one.id in down}
        if self._node.detector is not None:
            silent |= self._node.detector.silent().keys()
        loss = vote_loss(voters, frozenset(voters) - silent, meta.tcp_addr)
        return [] if loss is None else [f"without meta node {meta.id} the metadata could not change: {loss}"]

    # --- doing

    async def apply(self, order: Order) -> dict[str, Any]:
        """Begin what ``plan`` says, and for ``remove`` drop the node once it holds nothing any more.

        The answer is that of ``plan`` with ``done``: whether nothing is left to do, not even waiting for moves. Raises
        MembershipRefused where the plan has refusals, and what proposing raises.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._apply(order)
            except MetaRefused as error:
                # Another order, or what the leader does by itself, came first: it is worked out anew.
                log.info("an order is worked out again", op=order.op, node=order.node, reason=error.message)
        return await self._apply(order)

    async def _apply(self, order: Order) -> dict[str, Any]:
        await self._node.metadata.barrier(_BARRIER_TIMEOUT_S)
        holding = await self._holding()
        plan = self._plan(order, holding)
        if plan.refusals:
            raise MembershipRefused("; ".join(plan.refusals))
        await self._mark(order)
        for command in plan.commands():
            await self._node.metadata.propose(command)
        for shard_id, owner in plan.removals:
            await self._node.metadata.propose(RemoveShardOwner(shard_id, owner))
        document = self._document(order, plan, holding)
        done = not plan.moves and not plan.removals and await self._is_done(order, holding)
        return {**document, "done": done}

    async def _mark(self, order: Order) -> None:
        """Say in the metadata whether the node gives its shards away; a crash after it leaves a node without new ones.

        Where it is to serve again, moves of its shards to others end; "cancel" ends those to it, too.
        """
        metadata = self._node.metadata
        if order.op == "rebalance" or (data := self._machine(order.node).data) is None:
            return
        leaves = order.op in ("drain", "remove", "replace")
        if data.draining != leaves:
            await metadata.propose(SetDraining(data.id, draining=leaves))
        if order.op == "cancel" or (order.op == "add" and data.draining):
            await metadata.propose(CancelMoves(replaces=data.id))
        if order.op == "cancel":
            await metadata.propose(CancelMoves(node_id=data.id))

    async def _is_done(self, order: Order, holding: Holding) -> bool:
        """Whether an order that needs no move has none under way either; a node to be removed is removed then."""
        state = self._node.metadata.state
        incoming = [one for place in views.all_shards(state) for one in place.shard.incoming]
        if order.op == "rebalance":
            return not incoming
        machine = self._machine(order.node)
        if order.op == "cancel":
            return True
        if machine.data is not None:
            if any(machine.data.id in (one.node, one.replaces) for one in incoming):
                return False
            if order.op in ("remove", "replace") and not self._holds_nothing(machine.data, holding):
                return False
        if order.op in ("remove", "replace"):
            await self._leave(order)
        return True

    def _holds_nothing(self, data: DataNode, holding: Holding) -> bool:
        """Whether nobody needs a node's disk any more: a dead one's is not asked for."""
        if views.shards_owned(self._node.metadata.state, data.id):
            return False
        answer = holding.by_node.get(data.id)
        if answer is None:
            detector = self._node.detector
            return is_dead(None if detector is None else detector.since_s(data.id))
        # Files of live shards are there until an owner has confirmed that it holds all that is in them.
        live = {place.shard.id for place in views.all_shards(self._node.metadata.state)}
        return not (answer.kept_bytes or answer.sizes.keys() & live)

    async def _leave(self, order: Order) -> None:
        """Drop both registrations, that of the points first: a vote without them is what a meta node has."""
        for node, role in self._leaving(order):
            await self._membership.leave(encode(LeaveRequest(node.id, role)), forwarded=False)


def is_dead(down_since_s: float | None) -> bool:
    """Whether nobody waits for a node's disk any more; ``down_since_s``: as FailureDetector.since_s, None while up."""
    return down_since_s is not None and down_since_s >= _DEAD_S


def _parts(state: MetaState) -> dict[int, _Part]:
    """By data node, in one walk over all shards."""
    parts: defaultdict[int, _Part] = defaultdict(_Part)
    for place in views.all_shards(state):
        for owner in place.shard.owners:
            parts[owner].owned.add(place.shard.id)
        for arrival in place.shard.incoming:
            parts[arrival.node].incoming.add(place.shard.id)
            parts[arrival.replaces].leaving += 1
    return parts


def _serving(state: MetaState, data_id: int) -> MetaState:
    """The metadata as if a node had never been asked to give its shards away."""
    if not any(node.id == data_id and node.draining for node in state.data_nodes):
        return state
    nodes = tuple(replace(node, draining=False) if node.id == data_id else node for node in state.data_nodes)
    return cancel_moves(replace(state, data_nodes=nodes), CancelMoves(replaces=data_id), Context(0, 0))[0]


def _plan_add(state: MetaState, sizes: dict[int, int], down: frozenset[int], data_id: int) -> balance.Plan:
    """The copies that shards lack and the node can take, then its share of the others."""
    lacking = balance.plan_restore(state, sizes, down)
    wanted = [
        (move, size)
        for move, size in zip(lacking.moves, lacking.sizes, strict=True)
        if move.node_id == data_id and not move.replaces
    ]
    moves = tuple(move for move, _ in wanted)
    for command in balance.Plan(moves).commands():
        state = begin_moves(state, command, Context(0, 0))[0]
    share = balance.plan_add(state, sizes, down, data_id)
    if share.refusals:
        return share
    return share._replace(moves=(*moves, *share.moves), sizes=(*(size for _, size in wanted), *share.sizes))


def _stores_nothing(number: int) -> RequestError:
    return RequestError(f"node {number} stores no points: it has nothing to give or to take")
