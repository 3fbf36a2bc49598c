"""The handshake of a Raft connection: both sides prove the cluster secret, bound to who they are. Pure.

::

    dialer   → Hello(version, cluster, sender, target, role, nonce)
    acceptor → Challenge(nonce, HMAC(key, "acceptor", transcript))          or Refusal
    dialer   → Proof(HMAC(key, "dialer", transcript))                       or Refusal

The transcript is the whole Hello and the acceptor's nonce; ``key`` is scrypt(secret, cluster id), which makes guessing
a weak secret from a recorded handshake expensive. Session keys, one per direction, come from the same transcript. A
recorded session cannot be replayed, because the acceptor's nonce is new.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from dsdbd.decoding import msgpack_decoder
from dsdbd.meta.raft.membership import MAX_ADDRESS_BYTES, check_address

VERSION: Final = 1
NONCE_BYTES: Final = 32
MAX_HANDSHAKE_FRAME_BYTES: Final = 4096

PeerRole = Literal["voter", "joining"]
RefusalKind = Literal["version", "cluster", "address", "identity", "secret"]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_ADDRESS_BYTES)]
_Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """First frame of the dialer."""

    version: int
    cluster: _Text
    sender: _Text
    target: _Text
    role: PeerRole
    nonce: _Nonce


class Challenge(msgspec.Struct, tag="challenge", frozen=True):
    """The acceptor's nonce and proof."""

    nonce: _Nonce
    proof: _Nonce


class Proof(msgspec.Struct, tag="proof", frozen=True):
    """The dialer's proof."""

    proof: _Nonce


class Refusal(msgspec.Struct, tag="refusal", frozen=True):
    """Why there will be no session, and who says so; not authenticated, so it only explains."""

    kind: RefusalKind
    cluster: _Text
    sender: _Text


_decoder: Final[msgspec.msgpack.Decoder[Hello | Challenge | Proof | Refusal]] = msgpack_decoder(
    Hello | Challenge | Proof | Refusal
)
_encode: Final = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Identity:
    """Who this node is; ``key`` comes from ``derive_key``."""

    address: str
    cluster_id: str
    key: bytes


@dataclass(frozen=True)
class Session:
    """An authenticated peer and the keys of both directions."""

    peer: str
    peer_role: PeerRole
    send_key: bytes
    receive_key: bytes


class HandshakeRefused(Exception):
    """There is no session; ``peer`` is who it claims to be, the message a sentence for the operator.

    ``reply`` is sent before closing, when there is something to say.
    """

    def __init__(self, peer: str, sentence: str, reply: bytes | None = None) -> None:
        super().__init__(sentence)
        self.peer = peer
        self.sentence = sentence
        self.reply = reply


def derive_key(secret: bytes, cluster_id: str) -> bytes:
    """Stretch the cluster secret (about 30 ms, once per start)."""
    return hashlib.scrypt(secret, salt=b"dsdb-raft-1/" + cluster_id.encode(), n=1 << 13, r=8, p=1, dklen=32)


def _mac(key: bytes, label: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, label + b"\0" + transcript, "sha256")


def _decode(body: bytes) -> Hello | Challenge | Proof | Refusal:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a Raft handshake: {error}") from None


def _explain(kind: RefusalKind, ours: Identity, peer: str, their_cluster: str, stands_at: str | None = None) -> str:
    """Say why two nodes do not talk, naming both sides; never anything about the secret itself."""
    match kind:
        case "cluster":
            return (
                f"{peer} belongs to cluster {their_cluster!r} and this node ({ours.address}) to cluster "
                f"{ours.cluster_id!r}; point both at the same cluster or give the newcomer an empty directory"
            )
        case "secret":
            return (
                f"{peer} and this node ({ours.address}) of cluster {ours.cluster_id!r} have different cluster secrets; "
                "give both the same one"
            )
        case "address":
            where = f"the node there calls itself {stands_at}" if stands_at else "it was called by another name"
            return (
                f"{peer} was dialed by {ours.address}, but {where} (clusters {their_cluster!r} and "
                f"{ours.cluster_id!r}); correct the advertised address or the name resolution"
            )
        case "identity":
            return (
                f"{peer} claims the address of this node ({ours.address}, cluster {ours.cluster_id!r}); "
                "two nodes use the same identity, stop the copy"
            )
        case "version":
            return f"{peer} and this node ({ours.address}) speak different Raft protocols; upgrade the older one"


class Dialer:
    """The side that opened the connection."""

    def __init__(self, ours: Identity, target: str, role: PeerRole, nonce: bytes) -> None:
        self._ours, self._target = ours, target
        self.hello = _encode(Hello(VERSION, ours.cluster_id, ours.address, target, role, nonce))

    def receive(self, body: bytes) -> tuple[bytes, Session]:
        """Take the acceptor's frame; return the reply and the session.

        Raises HandshakeRefused, or ValueError for anything that is not a handshake.
        """
        answer = _decode(body)
        ours, target = self._ours, self._target
        if isinstance(answer, Refusal):
            raise HandshakeRefused(target, _explain(answer.kind, ours, target, answer.cluster, answer.sender))
        if not isinstance(answer, Challenge):
            raise ValueError("the acceptor answered out of turn")  # noqa: TRY004  a peer's fault, not a caller's
        transcript = self.hello + answer.nonce
        if not hmac.compare_digest(answer.proof, _mac(ours.key, b"acceptor", transcript)):
            reply = _encode(Refusal("secret", ours.cluster_id, ours.address))
            raise HandshakeRefused(target, _explain("secret", ours, target, ours.cluster_id), reply)
        keys = _mac(ours.key, b"to acceptor", transcript), _mac(ours.key, b"to dialer", transcript)
        return _encode(Proof(_mac(ours.key, b"dialer", transcript))), Session(target, "voter", *keys)


class Acceptor:
    """The side that was dialed."""

    def __init__(self, ours: Identity, nonce: bytes) -> None:
        self._ours, self._nonce = ours, nonce
        self._hello: Hello | None = None
        self._transcript = b""

    def receive(self, body: bytes) -> tuple[bytes | None, Session | None]:
        """Take the dialer's next frame; return a reply, if any, and the session once it is complete.

        Raises HandshakeRefused, or ValueError for anything that is not a handshake.
        """
        message = _decode(body)
        if self._hello is None and isinstance(message, Hello):
            return self._challenge(message, body), None
        if self._hello is not None and isinstance(message, Proof):
            return None, self._finish(self._hello, message)
        if self._hello is not None and isinstance(message, Refusal) and message.kind == "secret":
            raise self._refusal("secret", self._hello, with_reply=False)
        raise ValueError("the dialer spoke out of turn")

    def _refusal(self, kind: RefusalKind, hello: Hello, *, with_reply: bool = True) -> HandshakeRefused:
        ours = self._ours
        if kind == "address":
            sentence = (
                f"{hello.sender} dialed {hello.target}, but reached this node, which is {ours.address} (clusters "
                f"{hello.cluster!r} and {ours.cluster_id!r}); correct the advertised address or the name resolution"
            )
        else:
            sentence = _explain(kind, ours, hello.sender, hello.cluster)
        reply = _encode(Refusal(kind, ours.cluster_id, ours.address)) if with_reply else None
        return HandshakeRefused(hello.sender, sentence, reply)

    def _challenge(self, hello: Hello, body: bytes) -> bytes:
        check_address(hello.sender)
        if not (hello.cluster.isprintable() and hello.target.isprintable()):
            raise ValueError("unprintable names in a handshake")
        if hello.version != VERSION:
            raise self._refusal("version", hello)
        if hello.cluster != self._ours.cluster_id:
            raise self._refusal("cluster", hello)
        if hello.target != self._ours.address:
            raise self._refusal("address", hello)
        if hello.sender == self._ours.address:
            raise self._refusal("identity", hello)
        self._hello, self._transcript = hello, body + self._nonce
        return _encode(Challenge(self._nonce, _mac(self._ours.key, b"acceptor", self._transcript)))

    def _finish(self, hello: Hello, proof: Proof) -> Session:
        key, transcript = self._ours.key, self._transcript
        if not hmac.compare_digest(proof.proof, _mac(key, b"dialer", transcript)):
            raise self._refusal("secret", hello)
        keys = _mac(key, b"to dialer", transcript), _mac(key, b"to acceptor", transcript)
        return Session(hello.sender, hello.role, *keys)
