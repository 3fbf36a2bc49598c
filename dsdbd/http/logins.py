"""Checking passwords without checking each again: verdicts are remembered, and few are worked out at a time."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dsdbd.cluster.statements.passwords import hash_password, verify_password
from dsdbd.errors import Overloaded
from dsdbd.limits import MAX_LOGINS_WAITING, MAX_VERDICTS_KEPT

if TYPE_CHECKING:
    from dsdbd.http.credentials import UserPassword

_THREADS = max(1, min(2, (os.cpu_count() or 1) // 2))
"""A hash takes 50 ms of a core and 16 MB on purpose: guessing passwords must not take every core."""
_Key = tuple[str, str, bytes]


class Logins:
    """Verdicts on names and passwords; for one event loop. No password is kept, only a keyed digest of it."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        # Apart, so that whoever guesses passwords pushes out none that are right.
        self._verdicts: dict[bool, OrderedDict[_Key, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._waiting: dict[_Key, asyncio.Future[bool]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dsdb-login")

    def known(self, given: UserPassword, stored: str | None) -> bool | None:
        """Whether the password is the one whose hash is ``stored``; None where nobody has looked lately.

        ``stored`` is None for a user who does not exist. A changed password has another hash, so that what was known of
        the old one is never used.
        """
        return self._known(self._key_of(given, stored))

    def _known(self, key: _Key) -> bool | None:
        for verdict, keys in self._verdicts.items():
            if key in keys:
                keys.move_to_end(key)
                return verdict
        return None

    async def check(self, given: UserPassword, stored: str | None) -> bool:
        """Whether the password is the one whose hash is ``stored``; a user who does not exist takes as long.

        Raises Overloaded when too many others wait.
        """
        key = self._key_of(given, stored)
        known = self._known(key)
        if known is not None:
            return known
        work = self._waiting.get(key)
        if work is None:
            if len(self._waiting) >= MAX_LOGINS_WAITING:
                raise Overloaded("too many passwords wait for being checked; repeat the request in a moment")
            loop = asyncio.get_running_loop()
            work = self._waiting[key] = loop.run_in_executor(self._threads, _verify, given.password, stored)
            work.add_done_callback(functools.partial(self._done, key))
        # The work belongs to all who wait for it: one who goes away does not end it.
        return await asyncio.shield(work)

    def _done(self, key: _Key, work: asyncio.Future[bool]) -> None:
        self._waiting.pop(key, None)
        if work.cancelled() or work.exception() is not None:
            return
        keys = self._verdicts[work.result()]
        keys[key] = None
        while len(keys) > MAX_VERDICTS_KEPT:
            keys.popitem(last=False)

    def _key_of(self, given: UserPassword, stored: str | None) -> _Key:
        digest = hmac.digest(self._key, given.password.encode(errors="surrogatepass"), hashlib.sha256)
        return given.name, stored or "", digest


def _verify(password: str, stored: str | None) -> bool:
    if stored is None:
        verify_password(password, _nobodys_hash())
        return False
    return verify_password(password, stored)


@functools.cache
def _nobodys_hash() -> str:
    return hash_password(os.urandom(16).hex())
