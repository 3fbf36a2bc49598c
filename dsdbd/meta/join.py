"""Which cluster a fresh node belongs to: a pure decision over what the addresses in its join list answered.

The rule (every node evaluates it by itself, again and again, until it is a member):

1. Addresses that answer as members of one cluster: join there, through whichever admits it. Members of two clusters
   are a mistake in the list, and the node refuses to choose.
2. Otherwise the node waits, unless *all* nodes that the lists lead to have answered "no cluster yet", each has heard
   the same set of nodes, and this node is the first of them by address (of those with the meta role): then it founds
   the cluster.

An empty join list is the one-node case of rule 2. Founding needs every listed node because a list whose silent member
holds a cluster must never produce a second one; a node that waits says for whom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Hello:
    """A node's answer to "who are you".

    ``cluster_id`` is empty while it belongs to none. ``join`` is its own list. ``heard`` are the uuids of the nodes
    its list leads to, itself included, or empty while one of them has not answered. ``can_found`` is False for a node
    without the meta role.
    """

    uuid: str
    address: str
    cluster_id: str
    join: tuple[str, ...] = ()
    heard: frozenset[str] = frozenset()
    can_found: bool = True


@dataclass(frozen=True, slots=True)
class Silence:
    """An address that gave no usable answer, and why."""

    reason: str


Answer: TypeAlias = Hello | Silence


@dataclass(frozen=True, slots=True)
class Found:
    """Found a new cluster now."""


@dataclass(frozen=True, slots=True)
class Join:
    """Join the cluster that ``addresses`` answered for, through the first of them that can admit this node."""

    addresses: tuple[str, ...]
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Waiting is useless: the addresses lead to different clusters; ``reason`` names them."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again, those whom ``to_ask`` names; ``reason`` is a sentence for the log."""

    reason: str


Decision: TypeAlias = Found | Join | Conflict | Wait


@dataclass(frozen=True, slots=True)
class Myself:
    """The deciding node: its uuid, its advertised meta HTTP address, its join list and whether it has the meta role."""

    uuid: str
    address: str
    join: tuple[str, ...]
    can_found: bool = True


def decide(me: Myself, answers: Mapping[str, Answer]) -> Decision:
    """Decide from the latest answer of every address asked; ``answers`` is keyed by the address as it was asked."""
    members = {
        address: answer.cluster_id
        for address, answer in answers.items()
        if isinstance(answer, Hello) and answer.cluster_id and answer.uuid != me.uuid
    }
    if len(set(members.values())) > 1:
        listed = ", ".join(f"{address} belongs to cluster {cluster_id}" for address, cluster_id in members.items())
        return Conflict(f"the join list leads to different clusters: {listed}. Name members of one cluster in -join.")
    if members:
        return Join(tuple(members), next(iter(members.values())))
    unasked = _unasked(me, answers)
    silent = [f"{address} ({answer.reason})" for address, answer in answers.items() if isinstance(answer, Silence)]
    if silent or unasked:
        waiting = silent + [f"{address} (not asked yet)" for address in unasked]
        return Wait("waiting for " + ", ".join(waiting))
    others = {
        answer.uuid: answer for answer in answers.values() if isinstance(answer, Hello) and answer.uuid != me.uuid
    }
    heard = frozenset(others) | {me.uuid}
    undecided = [other.address for other in others.values() if other.heard != heard]
    if undecided:
        return Wait("waiting until " + ", ".join(sorted(undecided)) + " has heard the same nodes")
    founders = [(other.address, other.uuid) for other in others.values() if other.can_found]
    founders += [(me.address, me.uuid)] if me.can_found else []
    if not founders:
        return Wait("waiting for a node with the meta role: none of the listed nodes can found a cluster")
    first = min(founders)
    if first == (me.address, me.uuid):
        return Found()
    return Wait(f"waiting for {first[0]} to found the cluster")


def heard_by(me: Myself, answers: Mapping[str, Answer]) -> frozenset[str]:
    """The uuids this node's list leads to, itself included; empty while one of them is silent or unasked."""
    if _unasked(me, answers) or any(isinstance(answer, Silence) for answer in answers.values()):
        return frozenset()
    return frozenset(answer.uuid for answer in answers.values() if isinstance(answer, Hello)) | {me.uuid}


def to_ask(me: Myself, answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """The addresses of the next round: this node's list, then those in the lists of the nodes that answered.

    An address that no list names any more is dropped, so a mistake mended on another node is not waited for.
    """
    addresses = dict.fromkeys(me.join)
    for answer in answers.values():
        if isinstance(answer, Hello):
            addresses.update((address, None) for address in answer.join if address != me.address)
    return tuple(addresses)


def _unasked(me: Myself, answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """Addresses in any known list that nobody has asked; an own address counts as asked once it has answered."""
    lists: list[Sequence[str]] = [me.join]
    lists += [answer.join for answer in answers.values() if isinstance(answer, Hello)]
    known = set(answers) | {answer.address for answer in answers.values() if isinstance(answer, Hello)} | {me.address}
    unasked: dict[str, None] = {}
    for addresses in lists:
        unasked.update((address, None) for address in addresses if address not in known)
    return tuple(unasked)
