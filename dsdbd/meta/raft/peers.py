"""Which authenticated link serves which peer, and what the library is told about it. No I/O, no clock of its own.

A peer is a *voter* (in this node's configuration), a *learner* (it joins, or was just removed)
or *provisional*: an authenticated node that says it votes but that a stale configuration does not know. A provisional
peer may be the leader that brings the newer configuration, so it is heard; only a leader can say "not a member".

There is one link per pair of voters: normally the larger address dials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from dsdbd import limits
from dsdbd.meta.raft.faults import RaftStopped
from dsdbd.meta.raft.handshake import PeerRole
from dsdbd.meta.raft.library import Node, TCPNode, Transport, monotonic_s
from dsdbd.meta.raft.messages import Message, check_message

log = logging.getLogger(__name__)

_DUPLICATE_WINDOW_S: Final = 2.0
_FROM_LEARNER_NODE: Final = frozenset(("next_node_idx", "apply_command", "apply_command_response"))

_HEARTBEAT: Final = frozenset(("append_entries", "next_node_idx"))


class Link(Protocol):
    """An authenticated, ordered stream of messages to one peer."""

    peer: str
    peer_role: PeerRole
    dialed: bool
    last_received_s: float

    def send_message(self, message: Message | None) -> bool:
        """Queue a message (None: keep-alive); False when the link is closed or its buffer is full."""
        ...

    def close(self) -> None:
        """Close; ``PeerTransport.lost`` follows, now or later."""
        ...


class PeerTransport(Transport):  # type: ignore[misc]  # the library is untyped
    """The library's transport over links that others open and authenticate."""

    def __init__(self, self_address: str) -> None:
        super().__init__(None, None, None)
        self.self_address = self_address
        self.core: Any = None
        self.open_for_messages = False
        """Nothing is let in before the core has loaded and applied what is on disk."""
        self.nodes: set[Node] = set()
        self.links: dict[Node, Link] = {}
        self.learners: dict[str, Node] = {}
        self.last_contact_s: dict[str, float] = {}
        self.on_activity: Callable[[], None] = lambda: None
        self.on_not_a_member: Callable[[str], None] = lambda _peer: None
        self.on_wanted: Callable[[], None] = lambda: None
        self._node_of: dict[Link, Node] = {}

    def attach(self, core: Any, others: list[Node]) -> None:
        """Give the transport its core and the other voters, as recovered from disk."""
        self.core = core
        self.nodes = set(others)

    def role(self) -> PeerRole:
        """What this node says of itself in a handshake.

        A vote that may still be rolled back counts for nothing yet: the others may never have heard of it, and only as
        a learner does this node get the entries that replace it.
        """
        return "voter" if self.core.vote_is_certain() else "joining"

    # --- what the library calls

    @property
    def ready(self) -> bool:
        """Always: links are somebody else's business."""
        return True

    def addNode(self, node: Node) -> None:  # noqa: N802  the library's name
        """Treat ``node`` as a voter from now on, over the link it already has, if any."""
        self.nodes.add(node)
        learner = self.learners.pop(node.id, None)
        if learner is not None:
            link = self.links.pop(learner)
            self._onReadonlyNodeDisconnected(learner)
            self._bind(link, node)
        if node in self.links:
            self._onNodeConnected(node)
        self.on_wanted()

    def dropNode(self, node: Node) -> None:  # noqa: N802  the library's name
        """Take the vote from ``node``; it stays a learner, so that it sees its own removal."""
        self.nodes.discard(node)
        link = self.links.pop(node, None)
        if link is not None:
            self._onNodeDisconnected(node)
            self._bind_learner(link)

    def send(self, node: Node, message: Message) -> bool:
        """Send a message of the library, or of the core, to ``node``."""
        link = self.links.get(node) or self.links.get(self.learners.get(node.id))
        outgoing = self.core.outgoing(message) if link is not None else None
        sent = link is not None and outgoing is not None and link.send_message(outgoing)
        if not sent and message["type"] == "apply_command" and "request_id" in message:
            # The library never looks at the result, and its caller would wait for ever.
            self.core.not_sent(message["request_id"])
        return sent

    def destroy(self) -> None:
        """Close every link."""
        self.open_for_messages = False
        for link in list(self._node_of):
            link.close()

    # --- what the links call

    def opened(self, link: Link) -> None:
        """Take an authenticated link into service, or close it."""
        node = TCPNode(link.peer)
        if node in self.nodes or (link.peer_role == "voter" and not self.core.is_leader):
            self._serve_voter(link, node)
        elif link.peer_role == "joining":
            previous = self.links.get(self.learners.get(link.peer))
            if previous is not None:
                self.lost(previous)
                previous.close()
            if len(self.learners) >= limits.MAX_RAFT_LEARNERS:
                link.close()
                return
            self._bind_learner(link)
        else:
            if not self.core.has_open_change():
                link.send_message({"type": "not_a_member"})
            link.close()
            return
        self.on_activity()

    def lost(self, link: Link) -> None:
        """Note that a link is gone; idempotent."""
        node = self._node_of.pop(link, None)
        if node is None or self.links.get(node) is not link:
            return
        del self.links[node]
        self.core.store.cancelTransmisstion(node)
        if isinstance(node, TCPNode):
            if node in self.nodes:
                self._onNodeDisconnected(node)
            self.core.peer_lost(node)
        else:
            del self.learners[link.peer]
            self._onReadonlyNodeDisconnected(node)
        self.on_activity()

    def received(self, link: Link, value: object) -> None:
        """Take a decoded message; raises ValueError when it is none, and the link is to be closed then."""
        node = self._node_of.get(link)
        message = check_message(value)
        self.last_contact_s[link.peer] = link.last_received_s
        if message["type"] == "not_a_member":
            self.core.told_not_a_member()
            self.on_not_a_member(link.peer)
            return
        if node is None or not self.open_for_messages:
            return
        if not isinstance(node, TCPNode) and message["type"] not in _FROM_LEARNER_NODE:
            # It votes, or leads, by its own newer configuration.
            node = TCPNode(link.peer)
        before = self.core.progress(node)
        try:
            if self.core.incoming(node, message):
                self._onMessageReceived(node, message)
        except OSError as error:
            self.core.storage_failed(error)
            link.close()
        except RaftStopped:
            link.close()
        if message["type"] not in _HEARTBEAT or before != self.core.progress(node):
            # A heartbeat that changed nothing is not worth a tick: an idle node stays idle.
            self.on_activity()

    def dismiss_provisional(self) -> None:
        """Close the links of authenticated nodes without a vote: this node leads now, and tells them when they return.

        As a follower it had to hear them; a leader sends them nothing, and they would wait on a silent link for ever.
        """
        for link, node in list(self._node_of.items()):
            if isinstance(node, TCPNode) and node not in self.nodes:
                link.close()

    # --- what the dialer asks

    def wanted(self) -> list[str]:
        """Addresses this node ought to dial and has no link to."""
        return [node.id for node in self.nodes if node not in self.links and self._should_dial(node)]

    def _should_dial(self, node: Node) -> bool:
        # A leader also dials those that should dial it: they may have been down while it became a member. So does who
        # hears no leader: the others may have a configuration without this node, and would never dial it.
        core = self.core
        return self.self_address > node.id or core.is_leader or core.is_lonely() or not core.vote_is_certain()

    # --- binding

    def _serve_voter(self, link: Link, node: Node) -> None:
        previous = self.links.get(node) or self.links.get(self.learners.get(node.id))
        if previous is not None:
            we_should_dial = self.self_address > node.id
            crossed = previous.dialed != link.dialed and link.dialed != we_should_dial
            if crossed and monotonic_s() - previous.last_received_s < _DUPLICATE_WINDOW_S:
                # Both dialed at once: the link dialed by the larger address stays, on both sides.
                link.close()
                return
            self._node_of.pop(previous, None)
            learner = self.learners.pop(node.id, None)
            if learner is not None:
                self.links.pop(learner, None)
                self._onReadonlyNodeDisconnected(learner)
            self.core.store.cancelTransmisstion(node)
            previous.close()
        self._bind(link, node)
        if node in self.nodes:
            self._onNodeConnected(node)

    def _bind(self, link: Link, node: Node) -> None:
        self.links[node] = link
        self._node_of[link] = node

    def _bind_learner(self, link: Link) -> None:
        learner = Node("learner " + link.peer)
        self.learners[link.peer] = learner
        self._bind(link, learner)
        self._onReadonlyNodeConnected(learner)
