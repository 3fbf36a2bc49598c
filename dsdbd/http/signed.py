"""What the rooms of the node-to-node API share: the shape of a signed handler, and answers that come in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Answers a request whose body was read and whose sender is a node of the cluster."""
Signed = Callable[[Handler], Callable[[web.Request], Awaitable[web.StreamResponse]]]
"""Puts the check of secret and cluster in front of a handler."""


async def in_pieces(
    request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes]
) -> web.StreamResponse:
    """Send ``response`` with a body that is made meanwhile.

    What fails before the first piece is an error answer like any other; later on it breaks the connection off.
    """
    async for piece in pieces:
        if not response.prepared:
            await response.prepare(request)
        await response.write(piece)
    await response.write_eof()
    return response
