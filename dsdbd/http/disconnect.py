"""Stop the work of a request whose client has gone away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from dsdbd.cluster.reads import Cancellation

_LOOK_S = 0.25


@contextlib.contextmanager
def cancel_when_gone(request: web.Request, cancelled: Cancellation) -> Iterator[None]:
    """Within the block, look now and then whether the connection still stands; cancel when it does not.

    Also cancels when the block ends by an error, so that worker threads do not go on for nobody.
    """
    loop = asyncio.get_running_loop()

    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        if request.transport is None or request.transport.is_closing():
            cancelled.cancel()
        else:
            timer = loop.call_later(_LOOK_S, look)

    timer = loop.call_later(_LOOK_S, look)
    try:
        yield
    except BaseException:
        cancelled.cancel()
        raise
    finally:
        timer.cancel()
