"""Calls to other nodes: signed HTTP requests with time-outs, and errors that keep their class on the way back."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from dsdbd import errors, limits
from dsdbd.cluster import signing
from dsdbd.errors import DSDBError, ShardUnavailable, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Body of every error answer between nodes and of the public API: a sentence and a stable code."""

    error: str
    code: str = ""
    node_id: int | None = None


def _classes(root: type[DSDBError]) -> list[type[DSDBError]]:
    return [root] + [found for child in root.__subclasses__() for found in _classes(child)]


_BY_CODE: dict[str, type[DSDBError]] = {
    found.code: found for found in _classes(DSDBError) if not issubclass(found, errors.StartError)
}


def error_from_body(status: int, body: bytes, peer: str) -> DSDBError:
    """The error a peer answered with, as the class of its code; an answer that is no error of ours is Unavailable."""
    try:
        decoded = msgspec.json.decode(body, type=ErrorBody)
    except msgspec.MsgspecError:
        return Unavailable(f"{peer} answered status {status} without a reason; is it a DSDB node?")
    found = _BY_CODE.get(decoded.code, Unavailable)
    return found(decoded.error)


KEPT_ALIVE = "application/x-dsdb-kept-alive"
"""Content type of an answer that took long: zero bytes while it was made, then a tag byte and the body."""
TAG_ALIVE, TAG_ANSWER, TAG_ERROR = b"\0", b"\1", b"\2"
_AWAY_S = 2.0
"""How long a peer counts as away after a connection to it failed."""
_MAX_AWAY = 1000


class PeerUnreachable(ShardUnavailable):
    """A peer did not accept the connection or broke it; ``sent`` tells whether it may have acted on the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class PeerClient:
    """The one HTTP client of the node; use it on one event loop."""

    def __init__(self, secret: bytes, sender: Callable[[], tuple[str, str]]) -> None:
        """``sender`` gives the cluster id (empty before the node belongs to one) and the node's uuid."""
        self._secret = secret
        self._sender = sender
        self._session: aiohttp.ClientSession | None = None
        self._away_since_s: dict[str, float] = {}

    def lately_away(self, address: str) -> bool:
        """Whether the last connection to ``address`` failed a moment ago, so that another owner is better asked."""
        since_s = self._away_since_s.get(address)
        return since_s is not None and time.monotonic() - since_s < _AWAY_S

    async def start(self) -> None:
        """Open the connection pool on the running loop."""
        connector = aiohttp.TCPConnector(limit=256, limit_per_host=32, ttl_dns_cache=10)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def call(
        self,
        address: str,
        method: str,
        path_qs: str,
        body: bytes = b"",
        *,
        timeout_s: float,
        cluster_id: str | None = None,
    ) -> bytes:
        """The body of a 2xx answer of ``http://address path_qs``.

        ``timeout_s`` bounds the connection's silence, not the whole call. Raises PeerUnreachable, or the error the
        peer answered with.
        """
        assert self._session is not None
        own_cluster, uuid = self._sender()
        cluster = own_cluster if cluster_id is None else cluster_id
        headers = self._signed(method, path_qs, cluster, uuid, body)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.PEER_CONNECT_TIMEOUT_S, sock_read=timeout_s)
        try:
            async with self._session.request(
                method, f"http://{address}{path_qs}", data=body or None, headers=headers, timeout=timeout
            ) as response:
                answer = await self._read(response, address)
                self._away_since_s.pop(address, None)
                if response.status >= 300:
                    raise error_from_body(response.status, answer, address)
                if response.content_type == KEPT_ALIVE:
                    return _late_answer(answer, address)
                return answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if len(self._away_since_s) >= _MAX_AWAY:
                self._away_since_s.clear()
            self._away_since_s[address] = time.monotonic()
            raise PeerUnreachable(f"cannot reach {address}: {_reason(error)}", sent=False) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise PeerUnreachable(f"no answer from {address}: {_reason(error)}", sent=True) from error

    @contextlib.asynccontextmanager
    async def stream(
        self, address: str, method: str, path_qs: str, body: bytes = b"", *, timeout_s: float, piece_bytes: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a 2xx answer in pieces of at most ``piece_bytes``, read from the peer as they are taken.

        It has a connection of its own, so that it holds up no other request. ``timeout_s`` bounds the silence. Raises
        as ``call`` does, also while pieces are taken; an answer that ends early counts as no answer.
        """
        cluster, uuid = self._sender()
        headers = self._signed(method, path_qs, cluster, uuid, body)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.PEER_CONNECT_TIMEOUT_S, sock_read=timeout_s)
        connector = aiohttp.TCPConnector(limit=1, force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, auto_decompress=False, read_bufsize=piece_bytes) as session,
                session.request(
                    method, f"http://{address}{path_qs}", data=body or None, headers=headers, timeout=timeout
                ) as response,
            ):
                if response.status >= 300:
                    raise error_from_body(response.status, await self._read(response, address), address)
                yield response.content.iter_chunked(piece_bytes)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise PeerUnreachable(f"cannot reach {address}: {_reason(error)}", sent=False) from error
        except (TimeoutError, aiohttp.ClientError) as error:
            raise PeerUnreachable(f"no answer from {address}: {_reason(error)}", sent=True) from error

    def _signed(self, method: str, path_qs: str, cluster: str, uuid: str, body: bytes) -> dict[str, str]:
        return {
            signing.CLUSTER_HEADER: cluster,
            signing.SENDER_HEADER: uuid,
            signing.SIGNATURE_HEADER: signing.sign(
                self._secret, method=method, path_qs=path_qs, cluster_id=cluster, sender=uuid, body=body
            ),
        }

    @staticmethod
    async def _read(response: aiohttp.ClientResponse, address: str) -> bytes:
        parts: list[bytes] = []
        size_bytes = 0
        async for chunk in response.content.iter_chunked(1 << 20):
            parts.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > limits.MAX_INTERNAL_BODY_BYTES:
                raise Unavailable(
                    f"the answer of {address} is larger than {limits.MAX_INTERNAL_BODY_BYTES} bytes; "
                    "ask for a shorter time range or fewer series"
                )
        return b"".join(parts)


def _late_answer(answer: bytes, address: str) -> bytes:
    tagged = answer.lstrip(TAG_ALIVE)
    if tagged[:1] == TAG_ANSWER:
        return tagged[1:]
    raise error_from_body(500, tagged[1:], address)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno).lower() if error.errno else str(error.os_error)
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
