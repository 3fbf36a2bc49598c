"""Answers to other nodes that take long: they show signs of life meanwhile, so that silence means a dead node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from dsdbd.cluster.peers import KEPT_ALIVE, TAG_ALIVE, TAG_ANSWER, TAG_ERROR
from dsdbd.errors import DSDBError
from dsdbd.http.responses import error_body

if TYPE_CHECKING:
    from collections.abc import Coroutine

ALIVE_S = 1.0
"""Pause between signs of life of a slow answer; far below any sensible shard-mapper-timeout."""


async def answer_of(request: web.Request, making: Coroutine[object, object, bytes]) -> web.StreamResponse:
    """The bytes that a coroutine makes; it goes on to its end also when the one that asked has gone.

    An error of one that is quick is raised, else it is the end of the answer.
    """
    work = asyncio.ensure_future(making)
    # Nobody may be left to look at the error when the one that asked has gone.
    work.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait({work}, timeout=ALIVE_S)
    if work.done():
        return web.Response(body=work.result())
    return await keep_alive(request, work)


async def keep_alive(request: web.Request, work: asyncio.Future[bytes]) -> web.StreamResponse:
    """The bytes of work that is under way, behind signs of life; an error of it is the end of the answer."""
    response = web.StreamResponse()
    response.content_type = KEPT_ALIVE
    await response.prepare(request)
    while not work.done():
        await response.write(TAG_ALIVE)
        await asyncio.wait({work}, timeout=ALIVE_S)
    try:
        answer = work.result()
    except DSDBError as error:
        await response.write(TAG_ERROR + error_body(error))
    else:
        await response.write(TAG_ANSWER)
        await response.write(answer)
    await response.write_eof()
    return response
