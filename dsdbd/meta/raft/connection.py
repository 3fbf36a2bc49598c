"""One TCP stream to a peer: asyncio at the edge of handshake, frames and peers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, cast

from dsdbd import limits
from dsdbd.meta.raft import codec
from dsdbd.meta.raft.api import PREAMBLE
from dsdbd.meta.raft.frames import FrameReader, Seal, frame
from dsdbd.meta.raft.handshake import (
    MAX_HANDSHAKE_FRAME_BYTES,
    NONCE_BYTES,
    Acceptor,
    Dialer,
    HandshakeRefused,
    Identity,
    PeerRole,
    Session,
)
from dsdbd.meta.raft.library import monotonic_s
from dsdbd.meta.raft.messages import Message
from dsdbd.meta.raft.peers import PeerTransport

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S: Final = 10.0
_KEEP_ALIVE: Final = codec.encode(None)

Refused = Callable[[str, str], None]


class Connections:
    """Every stream of a node: counts the ones without proof, and tells who was refused."""

    def __init__(self, identity: Identity, transport: PeerTransport, on_refused: Refused) -> None:
        self.identity = identity
        self.transport = transport
        self.on_refused = on_refused
        self.unproved: set[Connection] = set()
        self.open: set[Connection] = set()

    def accept(self) -> asyncio.Protocol:
        """Protocol for an accepted stream whose preamble has been consumed."""
        return Connection(self, None)

    def dial(self, target: str) -> Connection:
        """Protocol for a stream this node opened to ``target``."""
        return Connection(self, target)

    def keep_alive(self, now_s: float, idle_s: float, dead_after_s: float) -> None:
        """Close silent streams and let quiet ones be heard."""
        for connection in list(self.open):
            if now_s - connection.last_received_s > dead_after_s:
                connection.close()
            elif now_s - connection.last_sent_s > idle_s:
                connection.send_message(None)

    def close_all(self) -> None:
        """Abort every stream."""
        for connection in [*self.unproved, *self.open]:
            connection.close()


class Connection(asyncio.Protocol):
    """A stream in its handshake, then a link (see peers.Link)."""

    def __init__(self, owner: Connections, target: str | None) -> None:
        nonce = os.urandom(NONCE_BYTES)
        identity = owner.identity
        self._owner = owner
        self.dialed = target is not None
        self._dialer = Dialer(identity, target, owner.transport.role(), nonce) if target is not None else None
        self._acceptor = Acceptor(identity, nonce)
        self._reader = FrameReader(MAX_HANDSHAKE_FRAME_BYTES)
        self._stream: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._seal_out: Seal | None = None
        self._seal_in: Seal | None = None
        self.peer = target or ""
        self.peer_role: PeerRole = "voter"
        self.last_received_s = self.last_sent_s = monotonic_s()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake; an excess of strangers is closed at once."""
        self._stream = cast("asyncio.Transport", transport)
        if len(self._owner.unproved) >= limits.MAX_RAFT_HANDSHAKES:
            self._stream.abort()
            return
        self._owner.unproved.add(self)
        peer_socket = transport.get_extra_info("socket")
        if peer_socket is not None and peer_socket.family in (socket.AF_INET, socket.AF_INET6):
            peer_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self.close)
        if self._dialer is not None:
            self._stream.write(PREAMBLE + frame(self._dialer.hello))

    def data_received(self, data: bytes) -> None:
        """Feed the handshake or the transport; anything malformed closes the stream."""
        self.last_received_s = monotonic_s()
        try:
            for body in self._reader.feed(data):
                if self._seal_in is None:
                    self._shake(body)
                else:
                    value = codec.decode(self._seal_in.unwrap(body))
                    if value is not None:
                        self._owner.transport.received(self, value)
                if self._stream is None or self._stream.is_closing():
                    return
        except HandshakeRefused as refusal:
            self._refuse(refusal)
        except Exception as error:
            level = logging.DEBUG if self._seal_in is None else logging.WARNING
            log.log(level, "closing the Raft connection to %s: %s", self.peer or "a stranger", error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the transport."""
        del exc
        self._stream = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._owner.unproved.discard(self)
        if self in self._owner.open:
            self._owner.open.discard(self)
            self._owner.transport.lost(self)

    # --- handshake

    def _shake(self, body: bytes) -> None:
        if self._dialer is not None:
            reply, session = self._dialer.receive(body)
            self._write(frame(reply))
            self._open(session)
            return
        answer, accepted = self._acceptor.receive(body)
        if answer is not None:
            self._write(frame(answer))
        if accepted is not None:
            self._open(accepted)

    def _open(self, session: Session) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._owner.unproved.discard(self)
        self._owner.open.add(self)
        self._reader.limit_bytes = limits.MAX_RAFT_FRAME_BYTES
        self._seal_out, self._seal_in = Seal(session.send_key), Seal(session.receive_key)
        self.peer, self.peer_role = session.peer, session.peer_role
        self._owner.transport.opened(self)

    def _refuse(self, refusal: HandshakeRefused) -> None:
        self._owner.on_refused(refusal.peer, refusal.sentence)
        if self._stream is not None and refusal.reply is not None:
            self._write(frame(refusal.reply))
            # Close, not abort: the reply is what tells the other operator.
            self._stream.close()
        else:
            self.close()

    # --- the link

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)
            self.last_sent_s = monotonic_s()

    def send_message(self, message: Message | None) -> bool:
        """Send a sealed message; a peer that does not read is dropped instead of buffered without bound."""
        if self._stream is None or self._stream.is_closing() or self._seal_out is None:
            return False
        if self._stream.get_write_buffer_size() > limits.MAX_RAFT_BUFFER_BYTES:
            self.close()
            return False
        payload = _KEEP_ALIVE if message is None else codec.encode(message)
        self._write(frame(self._seal_out.wrap(payload)))
        return True

    def close(self) -> None:
        """Abort the stream, after what is written to it in this tick has been handed to the kernel."""
        if self._stream is None:
            return
        if self._stream.get_write_buffer_size() == 0:
            self._stream.close()
        else:
            self._stream.abort()
