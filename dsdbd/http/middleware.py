"""What every request passes: errors turned into answers, a duration measured, and one access log line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from dsdbd.cluster import signing
from dsdbd.errors import BodyTooLarge, DSDBError, RequestError
from dsdbd.http.metrics import REQUEST_SECONDS
from dsdbd.http.responses import USER_NAME, error_response, request_id
from dsdbd.logs import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dsdbd.http.counters import HttpCounters

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
    Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]

log = structlog.get_logger("http")
STREAMING = web.RequestKey("streaming", bool)
"""Key of a request whose answer is being sent piece by piece."""
_CLIENT_GONE = 499


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into an answer; a defect of ours becomes a plain 500 and a log line with its traceback."""
    try:
        return await handler(request)
    except DSDBError as error:
        if request.get(STREAMING):
            return _broken_off(request)
        return error_response(error, request)
    except web.HTTPRequestEntityTooLarge:
        return error_response(BodyTooLarge("Request Entity Too Large"), request)
    except web.HTTPException as error:
        if error.status not in (404, 405):
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        text = "404 page not found\n" if error.status == 404 else "Method Not Allowed\n"
        return web.Response(status=error.status, text=text, headers={**allow, "X-Content-Type-Options": "nosniff"})
    except ConnectionError:
        return _nobody()
    except Exception:
        log.exception("a request failed by a defect of dsdbd", method=request.method, path=redact(request.path_qs))
        if request.get(STREAMING):
            return _broken_off(request)
        return error_response(DSDBError("internal error; the daemon's log has the details"), request)


@web.middleware
async def refuse_plain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On an address with TLS, refuse a client's request that came without; what follows would be readable by all."""
    if not request.secure and signing.SIGNATURE_HEADER not in request.headers:
        raise RequestError("Client sent an HTTP request to an HTTPS server.")
    return await handler(request)


def _broken_off(request: web.Request) -> web.Response:
    """A part of the answer is out: only a broken connection tells the client that the rest does not come."""
    if request.transport is not None:
        request.transport.abort()
    return _nobody()


def _nobody() -> web.Response:
    """The answer for a client that went away; nobody reads it but the access log, which writes the status."""
    return web.Response(status=_CLIENT_GONE)


def access_log(counters: HttpCounters, *, enabled: bool, tracing: bool) -> Middleware:
    """Middleware that measures and counts every request and logs it in the combined log format.

    ``enabled`` logs the requests of clients, ``tracing`` those between nodes.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = time.perf_counter()
        signed = signing.SIGNATURE_HEADER in request.headers
        if signed:
            response = await handler(request)
        else:
            with counters.active(request.path):
                response = await handler(request)
        took_s = time.perf_counter() - started_s
        if not signed:
            _count(counters, request, response, took_s)
        resource = request.match_info.route.resource
        REQUEST_SECONDS.observe(resource.canonical if resource is not None else "other", took_s)
        if tracing if signed else enabled:
            log.info(_line(request, response, took_s))
        return response

    return middleware


def _count(counters: HttpCounters, request: web.Request, response: web.StreamResponse, took_s: float) -> None:
    received, sent = request.content_length or 0, _size(response)
    counters.count(request.path, response.status, took_s, received=received, sent=sent)
    counters.note(request.path, request.get(USER_NAME) or "-", request.remote or "-")


def _size(response: web.StreamResponse) -> int:
    return response.body_length if response.prepared else (response.content_length or 0)


def _line(request: web.Request, response: web.StreamResponse, took_s: float) -> str:
    version = f"HTTP/{request.version.major}.{request.version.minor}"
    return access_line(
        remote=request.remote or "-",
        user=request.get(USER_NAME) or "-",
        request=f"{request.method} {redact(request.path_qs)} {version}",
        status=response.status,
        size=_size(response),
        referer=request.headers.get("Referer", "-"),
        agent=request.headers.get("User-Agent", "-"),
        request_id=request_id(request),
        took_s=took_s,
    )


def access_line(
    *,
    remote: str,
    user: str,
    request: str,
    status: int,
    size: int,
    referer: str,
    agent: str,
    request_id: str,
    took_s: float,
) -> str:
    """One request in the combined log format, with its id and its duration in seconds."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    return f"{remote} - {user} [{when}] {request} {status} {size} {referer} {agent} {request_id} {took_s:.6f}"
