"""The connection of `dsdb backup` and `dsdb restore` to one node: JSON requests, files, and tries again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from dsdb_cli.errors import BadAnswer, ConnectionFailed, ShellError
from dsdb_cli.importing import retry_wait_s
from dsdb_cli.opening import open_client
from dsdbd.cluster.segment_messages import DIGEST_BYTES, new_digest
from dsdbd.decoding import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPResponse

    from dsdb_cli.client import Client
    from dsdb_cli.options import ServerOptions

_TIMEOUT_S = 900.0
"""Silence of a node: it may be waiting for an owner that writes out and reads a whole shard."""
_PIECE_BYTES = 1 << 20
_T = TypeVar("_T")


class Refused(ShellError):
    """The node answered with an error; ``status`` and ``error_code`` are those of the answer."""

    code = "refused"

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class Link:
    """One node's API for backups. Methods raise ConnectionFailed, BadAnswer and Refused."""

    def __init__(self, server: ServerOptions, say: Callable[[str], None]) -> None:
        self._client: Client = open_client(server)[0]
        self._say = say

    @property
    def url(self) -> str:
        """Address of the node."""
        return self._client.endpoint.url

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ask(
        self, method: str, path: str, kind: type[_T], parameters: Mapping[str, object] | None = None, body: bytes = b""
    ) -> _T:
        """The answer to a request that may be repeated; tries again while the node is busy or away."""
        raw = self._repeated(lambda: self._exchange(method, _target(path, parameters), body))
        try:
            return decode_json(raw, kind)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"{self.url} answered {path} with something unexpected: {error}") from error

    def tell(self, method: str, path: str, parameters: Mapping[str, object]) -> None:
        """A request whose answer says nothing, tried once."""
        self._exchange(method, _target(path, parameters), b"")

    def fetch(
        self, path: str, parameters: Mapping[str, object], size_bytes: int, take: Callable[[bytes], object]
    ) -> None:
        """Give the bytes of an owner's file to ``take``, and check them against the digest behind them.

        Raises BadAnswer where the owner's file ended early or arrived changed.
        """
        answer = self._client.open("GET", _target(path, parameters), timeout_s=_TIMEOUT_S)
        if answer.status != 200:
            raise _refusal(answer, b"".join(self._client.pieces(answer)))
        digest, left_bytes, tail = new_digest(), size_bytes, b""
        for piece in self._client.pieces(answer, _PIECE_BYTES):
            content, behind = piece[:left_bytes], piece[left_bytes:]
            left_bytes -= len(content)
            tail += behind
            if content:
                digest.update(content)
                take(content)
        if left_bytes or len(tail) != DIGEST_BYTES:
            raise BadAnswer(f"{self.url} sent {size_bytes - left_bytes} of the {size_bytes} bytes of a file")
        if tail != digest.digest():
            raise BadAnswer(f"{self.url} sent a file that is not as its owner read it")

    def _exchange(self, method: str, target: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/octet-stream"} if body else {}
        answer = self._client.open(method, target, body or None, headers, _TIMEOUT_S)
        raw = b"".join(self._client.pieces(answer))
        if answer.status // 100 != 2:
            raise _refusal(answer, raw)
        return raw

    def _repeated(self, work: Callable[[], _T]) -> _T:
        """The result of what may be done twice without harm; tries again for some minutes where that may help."""
        tries = 0
        while True:
            tries += 1
            try:
                return work()
            except (ConnectionFailed, Refused) as error:
                again = not isinstance(error, Refused) or error.status in (503, 504)
                wait_s = retry_wait_s(tries, None) if again else None
                if wait_s is None:
                    raise
                self._say(f"trying again: {error.message.splitlines()[0]}")
                time.sleep(wait_s)


def _target(path: str, parameters: Mapping[str, object] | None) -> str:
    given = {name: value for name, value in (parameters or {}).items() if value not in ("", 0, None)}
    return path + ("?" + urlencode(given) if given else "")


def _refusal(answer: HTTPResponse, raw: bytes) -> Refused:
    """The sentence of an error answer."""
    try:
        document: Any = msgspec.json.decode(raw)
        message, code = str(document["error"]), str(document.get("code", ""))
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        message, code = f"the node answered {answer.status} {answer.reason}", ""
    if answer.status == 404 and not code:
        message = "the server has no backups: is it a DSDB node of this version?"
    if answer.status in (401, 403):
        message += "; backup and restore need an administrator: give -username and -password"
    return Refused(answer.status, code, message)
