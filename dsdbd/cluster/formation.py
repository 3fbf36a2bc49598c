"""How a node becomes a member: it asks its join list, then founds a cluster or joins one; it never gives up waiting.

The decisions are ``dsdbd.meta.join``'s; this module asks, waits and says what it waits for. Everything here can be
repeated: a crash between any two steps leaves an identity from which the next start continues.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog

from dsdbd.cluster.messages import PROTOCOL, HelloAnswer, JoinAnswer, JoinRequest, PrepareAnswer, encode
from dsdbd.decoding import decode_json
from dsdbd.errors import (
    DSDBError,
    ForeignCluster,
    IdentityError,
    MembershipRefused,
    NodeRemoved,
    RemovedError,
    SecretError,
    SecretRefused,
    Unavailable,
)
from dsdbd.meta.identity import Identity, Phase, save_identity
from dsdbd.meta.join import Answer, Conflict, Found, Hello, Join, Myself, Silence, Wait, decide, heard_by, to_ask
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dsdbd.cluster.peers import PeerClient

log = structlog.get_logger("formation")
_ASK_TIMEOUT_S = 2.0
_JOIN_TIMEOUT_S = 30.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_SAY_AGAIN_S = 30.0
_MAX_REMEMBERED = 64
"""Sentences remembered so as not to log them again at once; a node waits for fewer things than that."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a node tells others to call it by; each is ``host:port``, empty for a service it does not run."""

    tcp: str
    meta_http: str
    data_http: str


@dataclass
class Progress:
    """What a node without membership is doing, for ``/health``, ``/cluster/hello`` and the log."""

    waiting: str = "starting"
    heard: frozenset[str] = frozenset()
    on_change: Callable[[str], None] | None = None
    _said_s: dict[str, float] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Note what the node waits for; the log gets each sentence at once and then every 30 s at most.

        Also when several alternate: a node that asks three others hears three reasons in every round.
        """
        now_s = asyncio.get_running_loop().time()
        if sentence != self.waiting:
            self.waiting = sentence
            if self.on_change is not None:
                self.on_change(sentence)
        if now_s - self._said_s.get(sentence, -_SAY_AGAIN_S) < _SAY_AGAIN_S:
            return
        self._said_s.pop(sentence, None)
        if len(self._said_s) >= _MAX_REMEMBERED:
            del self._said_s[next(iter(self._said_s))]
        self._said_s[sentence] = now_s
        log.info("waiting", reason=sentence)


async def hello(peers: PeerClient, address: str, *, cluster_id: str | None = None) -> HelloAnswer:
    """Ask one node who it is. Raises DSDBError when it does not answer or does not speak this protocol."""
    body = await peers.call(address, "GET", "/cluster/hello", timeout_s=_ASK_TIMEOUT_S, cluster_id=cluster_id)
    try:
        answer = decode_json(body, HelloAnswer)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{address} answers, but not as a DSDB node") from error
    if answer.protocol != PROTOCOL:
        raise Unavailable(f"{address} speaks node protocol {answer.protocol}, this node {PROTOCOL}; run equal versions")
    return answer


class Formation:
    """Brings a node that has no final identity to membership."""

    def __init__(
        self,
        *,
        meta_dir: Path,
        uuid: str,
        addresses: Addresses,
        join: tuple[str, ...],
        peers: PeerClient,
        progress: Progress,
    ) -> None:
        self._meta_dir = meta_dir
        self._me = Myself(uuid, addresses.meta_http or addresses.tcp, join, bool(addresses.meta_http))
        self._addresses = addresses
        self._peers = peers
        self._progress = progress
        self._answers: dict[str, Answer] = {}

    async def choose(self) -> Identity:
        """Found or prepare to join; the identity returned is stored and its phase says which.

        Returns only when it is decided. Raises IdentityError, RemovedError or SecretError when waiting is useless.
        """
        pause_s = _FIRST_PAUSE_S
        ask = self._me.join
        while True:
            await self._ask(ask)
            self._progress.heard = heard_by(self._me, self._answers)
            decision = decide(self._me, self._answers)
            match decision:
                case Found():
                    return await self._found()
                case Join(addresses, _):
                    for address in addresses:
                        identity = await self._prepare(address)
                        if identity is not None:
                            return identity
                case Conflict(reason):
                    raise IdentityError(reason)
                case Wait(reason):
                    self._progress.say(reason)
                    ask = to_ask(self._me, self._answers)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    async def join(self, identity: Identity) -> Identity:
        """Register with the cluster until it has answered with the ids; stores and returns the final identity."""
        body = encode(self._request())
        pause_s = _FIRST_PAUSE_S
        addresses = tuple(dict.fromkeys((*identity.voters, *self._me.join)))
        while True:
            foreign: list[str] = []
            for address in addresses:
                try:
                    raw = await self._peers.call(
                        address, "POST", "/join", body, timeout_s=_JOIN_TIMEOUT_S, cluster_id=identity.cluster_id
                    )
                except ForeignCluster as error:
                    # Often a node of the same list that has no cluster yet: others may still admit this one.
                    if await self._is_elsewhere(address, identity):
                        foreign.append(error.message)
                    self._progress.say(f"waiting to be admitted: {error.message}")
                    continue
                except DSDBError as error:
                    self._give_up_on(error, address)
                    self._progress.say(f"waiting to be admitted: {error.message}")
                    continue
                answer = decode_json(raw, JoinAnswer)
                final = msgspec.structs.replace(
                    identity, phase=Phase.MEMBER, meta_id=answer.meta_id, data_id=answer.data_id
                )
                await self._save(final)
                log.info(
                    "joined", cluster_id=final.cluster_id, meta_id=final.meta_id, data_id=final.data_id, via=address
                )
                return final
            if len(foreign) == len(addresses):
                raise IdentityError(
                    f"this node began to join cluster {identity.cluster_id}, but every address it knows belongs to "
                    f"another one: {'; '.join(foreign)}. Empty its metadata directory and start it again to join that."
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    async def _is_elsewhere(self, address: str, identity: Identity) -> bool:
        try:
            answer = await hello(self._peers, address, cluster_id="")
        except DSDBError:
            return False
        return answer.cluster_id not in ("", identity.cluster_id)

    async def _save(self, identity: Identity) -> None:
        """Store the identity without holding up the event loop; it is stored whole even when this is cancelled."""
        await asyncio.to_thread(save_identity, self._meta_dir, identity)

    async def _ask(self, addresses: tuple[str, ...]) -> None:
        answers = await asyncio.gather(*(self._ask_one(address) for address in addresses))
        self._answers = dict(zip(addresses, answers, strict=True))

    async def _ask_one(self, address: str) -> Answer:
        try:
            answer = await hello(self._peers, address, cluster_id="")
        except SecretRefused as error:
            raise SecretError(error.message) from error
        except DSDBError as error:
            return Silence(error.message)
        return Hello(
            answer.uuid, answer.meta_addr, answer.cluster_id, answer.join, frozenset(answer.heard), answer.can_found
        )

    async def _found(self) -> Identity:
        identity = Identity(
            uuid=self._me.uuid,
            cluster_id=secrets.token_hex(16),
            tcp_addr=self._addresses.tcp,
            phase=Phase.FOUNDING,
            voters=(self._addresses.tcp,),
        )
        # From here on this node answers as the member of a cluster; a crash after it continues founding the same one.
        await self._save(identity)
        log.info("founding a cluster", cluster_id=identity.cluster_id, address=identity.tcp_addr)
        return identity

    async def _prepare(self, address: str) -> Identity | None:
        try:
            raw = await self._peers.call(
                address, "POST", "/cluster/prepare", encode(self._request()), timeout_s=_JOIN_TIMEOUT_S, cluster_id=""
            )
        except DSDBError as error:
            self._give_up_on(error, address)
            self._progress.say(f"waiting for {address}: {error.message}")
            return None
        answer = decode_json(raw, PrepareAnswer)
        identity = Identity(
            uuid=self._me.uuid,
            cluster_id=answer.cluster_id,
            tcp_addr=self._addresses.tcp,
            phase=Phase.JOINING,
            voters=answer.voters,
        )
        # Stored before Raft starts, so that a crash leaves a learner of this cluster and never a founder of another.
        await self._save(identity)
        log.info("joining", cluster_id=answer.cluster_id, via=address)
        return identity

    def _request(self) -> JoinRequest:
        return JoinRequest(
            PROTOCOL, self._me.uuid, VERSION, self._addresses.tcp, self._addresses.meta_http, self._addresses.data_http
        )

    def _give_up_on(self, error: DSDBError, address: str) -> None:
        """End the daemon where asking again cannot help; everything else is waited out."""
        if isinstance(error, NodeRemoved):
            raise RemovedError(error.message) from error
        if isinstance(error, SecretRefused):
            raise SecretError(error.message) from error
        if isinstance(error, MembershipRefused):
            raise IdentityError(f"{address} refuses this node: {error.message}") from error


async def check_lone_member(identity: Identity, join: tuple[str, ...], peers: PeerClient) -> None:
    """Refuse to start a cluster of one whose join list leads to another cluster.

    Raises IdentityError that names both clusters; silence of the list is no reason to refuse.
    """
    for address in join:
        try:
            answer = await hello(peers, address, cluster_id="")
        except DSDBError:
            continue
        if answer.cluster_id and answer.cluster_id != identity.cluster_id:
            raise IdentityError(
                f"this node already formed cluster {identity.cluster_id} by itself, but {address} belongs to "
                f"cluster {answer.cluster_id}. To move this node there, stop it, empty its metadata, data and wal "
                "directories (its own points are lost) and start it again; to keep it apart, remove -join."
            )
