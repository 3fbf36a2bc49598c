"""Frames of a Raft connection: length-prefixed, and tagged once the session has keys. Pure.

::

    frame = u32 size | body                    (little endian)
    body  = 16-byte tag | MessagePack payload  after the handshake

The tag is HMAC-SHA-256 over (u64 sequence number, payload), cut to 16 bytes, with one key per direction: a frame that
was changed, repeated, dropped, reordered or reflected is noticed.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator
from typing import Final

_SIZE: Final = struct.Struct("<I")
_SEQUENCE: Final = struct.Struct("<Q")
TAG_BYTES: Final = 16


def frame(body: bytes) -> bytes:
    """Return ``body`` with its length in front."""
    return _SIZE.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frame bodies; ``limit_bytes`` may be raised between two frames."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that ``data`` completes; ValueError for a frame over the limit, before it is stored."""
        self._buffer += data
        while len(self._buffer) >= _SIZE.size:
            size_bytes = _SIZE.unpack_from(self._buffer)[0]
            if size_bytes > self.limit_bytes:
                raise ValueError(f"a frame of {size_bytes} bytes is over the limit of {self.limit_bytes}")
            end = _SIZE.size + size_bytes
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view:
                body = bytes(view[_SIZE.size : end])
            del self._buffer[:end]
            yield body


class Seal:
    """Tags, or checks, the frames of one direction of a session."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def _tag(self, payload: bytes) -> bytes:
        tag = hmac.digest(self._key, _SEQUENCE.pack(self._sequence) + payload, "sha256")[:TAG_BYTES]
        self._sequence += 1
        return tag

    def wrap(self, payload: bytes) -> bytes:
        """Return the frame body of the next payload sent."""
        return self._tag(payload) + payload

    def unwrap(self, body: bytes) -> bytes:
        """Return the payload of the next body received; ValueError when it is not the one that was sent."""
        tag, payload = body[:TAG_BYTES], body[TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(payload)):
            raise ValueError("a frame was changed, repeated or lost on its way")
        return payload
