"""Request bodies: read with a bound, held against a budget, unpacked in a worker thread when they came gzipped."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.errors import BodyTooLarge, RequestError

if TYPE_CHECKING:
    from dsdbd.cluster.budget import Hold

_INLINE_BYTES = 4096
"""Packed bodies up to this size are unpacked on the event loop: at the utmost 4 MB, in a few milliseconds."""
_GZIP = 16 + zlib.MAX_WBITS
_MAGIC = b"\x1f\x8b\x08"
_HEADER_BYTES = 10


async def read_body(request: web.Request, limit_bytes: int, hold: Hold | None = None) -> bytes:
    """The body, unpacked when its Content-Encoding is gzip; the limit counts before and after unpacking.

    Raises BodyTooLarge before more than the limit is held, RequestError for a body that cannot be unpacked, Overloaded
    when ``hold`` cannot grow.
    """
    if request.content_length is not None and request.content_length > limit_bytes:
        raise _too_large()
    parts: list[bytes] = []
    size_bytes = 0
    try:
        async for part in request.content.iter_any():
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise _too_large()
            if hold is not None:
                hold.grow(len(part))
            parts.append(part)
    except web.RequestPayloadError as error:
        raise RequestError(f"the request body cannot be read: {error}") from error
    body = b"".join(parts)
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise RequestError(f'Content-Encoding "{encoding}" is not supported; send the body plain or with gzip')
    if len(body) <= _INLINE_BYTES:
        unpacked = unpack(body, limit_bytes)
    else:
        unpacked = await asyncio.to_thread(unpack, body, limit_bytes)
    if hold is not None:
        hold.grow(len(unpacked))
    return unpacked


def unpack(packed: bytes, limit_bytes: int) -> bytes:
    """The content of one or more gzip members; stops at the limit, so a bomb costs no more than that.

    Raises BodyTooLarge, and RequestError in the words of InfluxDB 1.x.
    """
    parts: list[bytes] = []
    left_bytes = limit_bytes
    if not packed:
        raise RequestError("EOF")
    while packed:
        if len(packed) < _HEADER_BYTES:
            raise RequestError("unexpected EOF")
        if not packed.startswith(_MAGIC):
            raise RequestError("gzip: invalid header")
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(packed, left_bytes + 1)
        except zlib.error as error:
            reason = "gzip: invalid checksum" if " check" in str(error) else "flate: corrupt input"
            raise RequestError(reason) from error
        left_bytes -= len(part)
        if left_bytes < 0:
            raise _too_large()
        if not member.eof:
            raise RequestError("unexpected EOF")
        parts.append(part)
        packed = member.unused_data
    return b"".join(parts)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge("Request Entity Too Large")
