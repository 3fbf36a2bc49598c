"""Admission and removal of nodes: what a member answers, and what the leader does.

Admitting: the leader calls the newcomer back at the address it advertises, waits until it has caught up as a learner,
gives it a vote, and registers it. Each step may be repeated, so a newcomer simply asks again after any failure.
Removing: the registration goes first (it leaves a tombstone), the vote second; a leader that finds a vote whose
registration is gone takes it away, so a crash between the two heals by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec
import structlog

from dsdbd.cluster.formation import hello
from dsdbd.cluster.messages import (
    PROTOCOL,
    HelloAnswer,
    JoinAnswer,
    JoinRequest,
    LeaveAnswer,
    LeaveRequest,
    Member,
    PrepareAnswer,
    encode,
)
from dsdbd.decoding import decode_json
from dsdbd.errors import (
    DSDBError,
    ForeignCluster,
    MembershipRefused,
    MetaRefused,
    NodeRemoved,
    NoLeader,
    Unavailable,
)
from dsdbd.meta.commands import CreateDataNode, CreateMetaNode, DropDataNode, DropMetaNode, NodeIs
from dsdbd.meta.raft import NotCommitted
from dsdbd.meta.refusals import NOT_REPLICATED
from dsdbd.meta.state import DataNode, MetaNode, Role
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dsdbd.cluster.node import Node
    from dsdbd.meta.raft import RaftNode
    from dsdbd.meta.state import MetaState

T = TypeVar("T")
log = structlog.get_logger("membership")
_LEARNER_LAG = 16
"""Entries a newcomer may lack when it gets its vote; they follow within one exchange of messages."""
_CATCH_UP_S = 25.0
_CHANGE_TIMEOUT_S = 10.0
_FORWARD_TIMEOUT_S = 30.0
_SWEEP_S = 2.0
_ABANDONED_S = 120.0
"""How long a vote may lack its registration: ten times what a join takes at worst, and a restart fits in."""
_SETTLE_S = 2.0
"""A leader that removed itself learns of it from its successor, unless it is cut off first."""


def refusal(state: MetaState, request: JoinRequest) -> DSDBError | None:
    """Why a node must not join, judged by the metadata alone; None when it may."""
    for tombstone in state.tombstones:
        if tombstone.uuid == request.uuid and not _registered(state, request.uuid):
            return NodeRemoved(
                f"this node was removed from the cluster as {tombstone.role.value} node {tombstone.id}. To bring the "
                "machine back, stop the daemon, empty its metadata, data and wal directories and start it with -join."
            )
    wanted: list[tuple[Role, str]] = []
    if request.meta_http_addr:
        wanted.append((Role.META, request.meta_http_addr))
    if request.data_http_addr:
        wanted.append((Role.DATA, request.data_http_addr))
    addresses = {request.tcp_addr, *(http_addr for _, http_addr in wanted)}
    taken: list[tuple[Role, MetaNode | DataNode]] = [
        (role, node)
        for role, nodes in ((Role.META, state.meta_nodes), (Role.DATA, state.data_nodes))
        for node in nodes
        if node.uuid != request.uuid and addresses & {node.tcp_addr, node.http_addr}
    ]
    if not taken:
        return None
    names = " and ".join(f"{role.value} node {node.id} ({node.tcp_addr}, uuid {node.uuid})" for role, node in taken)
    drops = " and ".join(f"DROP {role.name} SERVER {node.id}" for role, node in taken)
    return MembershipRefused(
        f"node already exists: {names} {'is' if len(taken) == 1 else 'are'} registered at this node's address with "
        "another identity. If that machine "
        f"lost its disk, run {drops} on a member and start this node again; if two machines share the address, "
        "change one."
    )


def vote_loss(status_voters: tuple[str, ...], connected: frozenset[str], leaving: str) -> str | None:
    """Why removing the vote of ``leaving`` would stop the metadata; None when the rest keeps a majority.

    ``connected`` are the voters that answer now, the leader included.
    """
    rest = [voter for voter in status_voters if voter != leaving]
    alive = [voter for voter in rest if voter in connected]
    if len(alive) > len(rest) // 2:
        return None
    silent = ", ".join(voter for voter in rest if voter not in connected)
    return f"only {len(alive)} of the {len(rest)} meta nodes that would be left answer (silent: {silent})"


def votes_without_registration(state: MetaState, voters: Iterable[str]) -> dict[str, bool]:
    """Voters that no meta node is registered for, and whether one was before: it was removed then."""
    registered = {meta.tcp_addr for meta in state.meta_nodes}
    removed = {stone.tcp_addr for stone in state.tombstones if stone.role is Role.META}
    return {voter: voter in removed for voter in voters if voter not in registered}


def _registered(state: MetaState, uuid: str) -> bool:
    uuids = [node.uuid for node in state.meta_nodes] + [node.uuid for node in state.data_nodes]
    return uuid in uuids


def removed_reason(state: MetaState, uuid: str) -> str:
    """The sentence for a node that the cluster removed altogether; empty for any other."""
    found = refusal(state, JoinRequest(PROTOCOL, uuid, "", "", "", ""))
    return found.message if isinstance(found, NodeRemoved) else ""


class Membership:
    """Answers the membership requests of other nodes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._changing = asyncio.Lock()
        self._joining: set[str] = set()

    def hello(self, asking_uuid: str) -> HelloAnswer:
        """Who this node is and how far it is."""
        node, state = self._node, self._node.metadata.state
        members = tuple(Member(meta.id, meta.uuid, meta.http_addr, meta.tcp_addr) for meta in state.meta_nodes)
        return HelloAnswer(
            protocol=PROTOCOL,
            uuid=node.uuid,
            version=VERSION,
            meta_addr=node.addresses.meta_http or node.addresses.tcp,
            tcp_addr=node.addresses.tcp,
            cluster_id=node.cluster_id,
            join=node.join,
            heard=tuple(sorted(node.progress.heard)),
            can_found=bool(node.addresses.meta_http),
            ready=node.is_member,
            waiting="" if node.is_member else node.progress.waiting,
            applied_index=state.index,
            leader=node.metadata.leader(),
            meta_nodes=members,
            removed=removed_reason(state, asking_uuid),
        )

    async def prepare(self, body: bytes, *, forwarded: bool) -> bytes:
        """Tell a newcomer which cluster it may join and who votes there, after calling it back."""
        request = _decode(body, JoinRequest)
        raft = self._leading()
        if raft is None:
            return await self._forward("/cluster/prepare", body, forwarded=forwarded)
        await self._check(request)
        if request.tcp_addr in raft.status().voters:
            # Only a node without an identity asks this, so the vote is that of a removed node whose disk was emptied.
            # A newcomer must not inherit it: it does not remember the votes and entries its predecessor confirmed.
            await self._take_vote(raft, request.tcp_addr)
        return encode(PrepareAnswer(self._node.cluster_id, raft.status().voters))

    async def join(self, body: bytes, *, forwarded: bool) -> bytes:
        """Admit a newcomer and answer with its ids; repeating it gives the same ids."""
        request = _decode(body, JoinRequest)
        raft = self._leading()
        if raft is None:
            return await self._forward("/join", body, forwarded=forwarded)
        await self._check(request)
        # A newcomer at the address of a removed node has a vote before its registration; the sweep must leave it alone.
        self._joining.add(request.tcp_addr)
        try:
            return await self._admit(raft, request)
        finally:
            self._joining.discard(request.tcp_addr)

    async def _admit(self, raft: RaftNode, request: JoinRequest) -> bytes:
        meta_id = data_id = None
        metadata = self._node.metadata
        if request.meta_http_addr:
            await self._give_vote(raft, request.tcp_addr)
            result = await metadata.propose(CreateMetaNode(request.uuid, request.meta_http_addr, request.tcp_addr))
            assert isinstance(result.value, NodeIs)
            meta_id = result.value.id
        if request.data_http_addr:
            result = await metadata.propose(CreateDataNode(request.uuid, request.data_http_addr, request.tcp_addr))
            assert isinstance(result.value, NodeIs)
            data_id = result.value.id
        log.info("node joined", address=request.tcp_addr, meta_id=meta_id, data_id=data_id)
        self._warn_about_size()
        return encode(JoinAnswer(self._node.cluster_id, meta_id, data_id))

    async def leave(self, body: bytes, *, forwarded: bool) -> bytes:
        """Remove one registration; raises MembershipRefused where that would lose a copy or the majority."""
        request = _decode(body, LeaveRequest)
        raft = self._leading()
        if raft is None:
            return await self._forward_leave(body, forwarded=forwarded)
        state = self._node.metadata.state
        meta = next((node for node in state.meta_nodes if node.id == request.id), None)
        data = next((node for node in state.data_nodes if node.id == request.id), None)
        if meta is not None and request.role in ("", "meta"):
            if meta.tcp_addr == self._node.addresses.tcp and len(state.meta_nodes) > 1:
                return await self._hand_over(raft, meta, force=request.force)
            await self._drop_meta(raft, meta, force=request.force)
        elif data is not None and request.role in ("", "data"):
            await self._drop_data(data, force=request.force)
        else:
            kind = f"{request.role} node" if request.role else "node"
            raise MembershipRefused(
                f"node not found: no {kind} has the number {request.id}; SHOW SERVERS lists the numbers"
            )
        return encode(LeaveAnswer(self._node.metadata.state.index))

    async def sweep(self) -> None:
        """While leading, take away votes whose registration was dropped or never came; runs until cancelled."""
        loop = asyncio.get_running_loop()
        unregistered: dict[str, float] = {}
        while True:
            await asyncio.sleep(_SWEEP_S)
            raft = self._leading()
            if raft is None or self._changing.locked():
                unregistered.clear()
                continue
            voters = [voter for voter in raft.status().voters if voter != self._node.addresses.tcp]
            found = votes_without_registration(self._node.metadata.state, voters)
            now_s = loop.time()
            unregistered = {voter: unregistered.get(voter, now_s) for voter in found if voter not in self._joining}
            for voter, since_s in unregistered.items():
                # A removed node's vote goes at once; one whose registration never came belongs to a node that died
                # while it joined, and may still come back for it.
                if found[voter] or now_s - since_s > _ABANDONED_S:
                    await self._sweep_vote(raft, voter)

    async def _sweep_vote(self, raft: RaftNode, voter: str) -> None:
        try:
            # A leader just elected may not have applied the registration yet.
            await self._node.metadata.barrier(_CHANGE_TIMEOUT_S)
            if voter in votes_without_registration(self._node.metadata.state, [voter]) and voter not in self._joining:
                await self._take_vote(raft, voter)
                log.info("vote without a registration taken away", address=voter)
        except DSDBError as error:
            log.warning("cannot take away the vote of a removed node", address=voter, reason=error.message)

    # --- steps of the leader

    def _leading(self) -> RaftNode | None:
        raft = self._node.raft
        return raft if raft is not None and raft.status().role == "leader" else None

    async def _forward(self, path: str, body: bytes, *, forwarded: bool) -> bytes:
        """Hand a request to the leader, once: two nodes with different beliefs must not send it round in circles."""
        leader = self._node.metadata.leader()
        if not self._node.is_member or not leader or forwarded or leader == self._node.addresses.tcp:
            waiting = self._node.progress.waiting
            raise NoLeader("no leader is elected yet" if self._node.is_member else f"this node is not ready: {waiting}")
        return await self._node.peers.call(leader, "POST", path + "?forwarded=1", body, timeout_s=_FORWARD_TIMEOUT_S)

    async def _forward_leave(self, body: bytes, *, forwarded: bool) -> bytes:
        """Let the leader remove the node, and wait until this node's metadata shows it."""
        raw = await self._forward("/leave", body, forwarded=forwarded)
        await self._node.metadata.wait_index(_decode(raw, LeaveAnswer).index, _CHANGE_TIMEOUT_S)
        return raw

    async def _check(self, request: JoinRequest) -> None:
        if request.protocol != PROTOCOL:
            raise MembershipRefused(
                f"the node speaks node protocol {request.protocol}, this cluster {PROTOCOL}; run equal versions"
            )
        reason = refusal(self._node.metadata.state, request)
        if reason is not None:
            raise reason
        try:
            answer = await hello(self._node.peers, request.tcp_addr)
        except ForeignCluster:
            raise
        except DSDBError as error:
            raise Unavailable(
                f"cannot call {request.tcp_addr} back: {error.message}. The address a node advertises must reach it "
                "from every member: set hostname (or -hostname) and [meta] bind-address on it accordingly."
            ) from error
        if answer.uuid != request.uuid:
            raise MembershipRefused(
                f"the address {request.tcp_addr} leads to another node (uuid {answer.uuid}). Set hostname (or "
                "-hostname) on the joining node to a name that members resolve to it; localhost never does."
            )

    async def _give_vote(self, raft: RaftNode, address: str) -> None:
        """Make a connected learner a voter once it has caught up; one change at a time."""
        deadline_s = asyncio.get_running_loop().time() + _CATCH_UP_S
        while address not in raft.status().voters:
            if self._leading() is None:
                raise NoLeader("the lead moved to another node meanwhile; the newcomer asks again")
            lag = raft.learner_lag(address)
            if lag is not None and lag <= _LEARNER_LAG:
                # Only the change itself excludes others: a newcomer that died while it caught up holds up nobody.
                async with self._changing:
                    await self._change(raft, address, add=True)
                return
            if asyncio.get_running_loop().time() > deadline_s:
                state = "is not connected" if lag is None else f"still lacks {lag} entries"
                raise Unavailable(
                    f"{address} {state} after {_CATCH_UP_S:g}s; it will be admitted when it has caught up"
                )
            await asyncio.sleep(0.02)

    async def _drop_data(self, data: DataNode, *, force: bool) -> None:
        try:
            result = await self._node.metadata.propose(DropDataNode(data.id, force))
        except MetaRefused as error:
            if not error.message.startswith(NOT_REPLICATED):
                raise
            raise MetaRefused(
                f'{error.message}: data node {data.id} has their only copy. "dsdb node remove {data.id}" moves it to '
                "another node first, while this one is there; FORCE gives their points up."
            ) from error
        log.info("data node dropped", id=data.id, address=data.tcp_addr, force=force, value=str(result.value))

    async def _drop_meta(self, raft: RaftNode, meta: MetaNode, *, force: bool) -> None:
        if len(self._node.metadata.state.meta_nodes) <= 1:
            raise MembershipRefused("unable to drop the final node in a cluster")
        self._refuse_vote_loss(raft, meta, force=force)
        await self._node.metadata.propose(DropMetaNode(meta.id, "DROP META SERVER"))
        await self._take_vote(raft, meta.tcp_addr)
        log.info("meta node dropped", id=meta.id, address=meta.tcp_addr, force=force)

    def _refuse_vote_loss(self, raft: RaftNode, meta: MetaNode, *, force: bool) -> None:
        status = raft.status()
        connected = frozenset(peer.address for peer in status.peers if peer.connected) | {self._node.addresses.tcp}
        loss = vote_loss(status.voters, connected, meta.tcp_addr)
        if loss is not None and not force:
            raise MembershipRefused(
                f"dropping meta node {meta.id} ({meta.tcp_addr}) would stop the metadata: {loss}. "
                "Bring one of them back or drop a silent node first; FORCE drops it all the same."
            )

    async def _hand_over(self, raft: RaftNode, meta: MetaNode, *, force: bool) -> bytes:
        """A leader is removed by its successor: give up the lead, then ask the new leader."""
        self._refuse_vote_loss(raft, meta, force=force)
        try:
            await raft.transfer_leadership(_CHANGE_TIMEOUT_S)
        except NotCommitted as error:
            raise Unavailable(f"cannot hand over the lead before leaving: {error.reason.lower()}; try again") from error
        own = self._node.addresses.tcp
        deadline_s = asyncio.get_running_loop().time() + _CHANGE_TIMEOUT_S
        while (leader := raft.status().leader or "") in ("", own):
            if asyncio.get_running_loop().time() > deadline_s:
                raise NoLeader("no successor was elected; the node stays a member, try again")
            await asyncio.sleep(0.02)
        body = encode(LeaveRequest(meta.id, "meta", force))
        raw = await self._node.peers.call(leader, "POST", "/leave?forwarded=1", body, timeout_s=_FORWARD_TIMEOUT_S)
        await self._node.metadata.wait_index(_decode(raw, LeaveAnswer).index, _SETTLE_S)
        return raw

    async def _take_vote(self, raft: RaftNode, address: str) -> None:
        async with self._changing:
            if address in raft.status().voters:
                await self._change(raft, address, add=False)

    @staticmethod
    async def _change(raft: RaftNode, address: str, *, add: bool) -> None:
        try:
            if add:
                await raft.add_voter(address, _CHANGE_TIMEOUT_S)
            else:
                await raft.remove_voter(address, _CHANGE_TIMEOUT_S)
        except NotCommitted as error:
            raise Unavailable(f"the change of voters was not committed ({error.reason.lower()}); try again") from error

    def _warn_about_size(self) -> None:
        voters = len(self._node.metadata.state.meta_nodes)
        if voters == 2:
            log.warning("two meta nodes tolerate no failure; add a third", meta_nodes=voters)
        elif voters > 7:
            log.warning("more than seven meta nodes slow every change; set [meta] enabled = false", meta_nodes=voters)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return decode_json(body, kind)
    except msgspec.MsgspecError as error:
        raise MembershipRefused(f"the request cannot be read: {error}. Run equal versions on all nodes.") from error
