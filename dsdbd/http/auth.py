"""Who asks, and whether they may: credentials of a request, and the privileges of InfluxDB 1.x."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from dsdbd.cluster.statements.passwords import verify_password
from dsdbd.errors import Forbidden, Unauthenticated
from dsdbd.influxql import ast
from dsdbd.influxql.format import to_text
from dsdbd.influxql.privileges import required_privileges
from dsdbd.meta import views
from dsdbd.meta.state import Privilege

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from dsdbd.cluster.node import Node

_REMEMBERED = 1000
"""Passwords verified lately; verifying one takes about 50 ms of CPU on purpose."""
_WANTED = {
    ast.Privilege.READ: Privilege.READ,
    ast.Privilege.WRITE: Privilege.WRITE,
    ast.Privilege.ALL: Privilege.ALL,
    ast.Privilege.NONE: Privilege.NONE,
}


class Authenticator:
    """Checks credentials and privileges against the metadata; everything passes while authentication is off."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._key = os.urandom(32)
        self._verified: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether ``[http] auth-enabled`` is on."""
        return self._node.config.http.auth_enabled

    async def user_of(self, request: web.Request, form: Mapping[str, str]) -> str | None:
        """The authenticated user; None while authentication is off or no administrator exists yet.

        Raises Unauthenticated in the words of InfluxDB 1.x.
        """
        if not self.enabled or not views.has_admin(self._node.metadata.state):
            return None
        name, password = _credentials(request, form)
        request["user_name"] = name
        if not await self._verify(name, password):
            raise Unauthenticated("authorization failed")
        return name

    async def _verify(self, name: str, password: str) -> bool:
        user = self._node.metadata.state.users.get(name)
        if user is None:
            return False
        # The cache is keyed by the stored hash, so a changed password is never accepted from it.
        digest = hmac.new(self._key, password.encode(), hashlib.sha256).digest()
        known = self._verified.get((name, user.hash))
        if known is not None and hmac.compare_digest(known, digest):
            return True
        if not await asyncio.to_thread(verify_password, password, user.hash):
            return False
        self._verified[(name, user.hash)] = digest
        while len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return True

    def authorize(self, user: str | None, statement: ast.Statement, database: str) -> None:
        """Raise Forbidden unless ``user`` may run the statement with ``database`` as the request's own."""
        if not self.enabled:
            return
        state = self._node.metadata.state
        if user is None:
            if isinstance(statement, ast.CreateUser) and statement.admin:
                return
            raise Forbidden("error authorizing query: create admin user first or disable authentication")
        if state.users[user].admin if user in state.users else False:
            return
        for demand in required_privileges(statement):
            where = demand.database or database
            if demand.admin:
                needs = "requires admin privilege"
            elif views.may(state, user, where, _WANTED[demand.privilege]):
                continue
            else:
                needs = f"requires {demand.privilege.value} on {where}"
            raise Forbidden(
                f"error authorizing query: {user} not authorized to execute statement '{to_text(statement)}', {needs}"
            )

    def authorize_write(self, user: str | None, database: str) -> None:
        """Raise Forbidden unless ``user`` may write to ``database``."""
        if not self.enabled:
            return
        if user is None:
            raise Forbidden(f'user is required to write to database "{database}"')
        if not views.may(self._node.metadata.state, user, database, Privilege.WRITE):
            raise Forbidden(f'"{user}" user is not authorized to write to database "{database}"')

    def authorize_admin(self, user: str | None) -> None:
        """Raise Forbidden unless ``user`` is an administrator."""
        if not self.enabled:
            return
        found = self._node.metadata.state.users.get(user or "")
        if found is None or not found.admin:
            raise Forbidden("this page requires admin privilege")


def _credentials(request: web.Request, form: Mapping[str, str]) -> tuple[str, str]:
    """User and password: ``u`` and ``p`` where both are given, else the Authorization header."""
    name, password = form.get("u") or request.query.get("u", ""), form.get("p") or request.query.get("p", "")
    if name and password:
        return name, password
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() == "basic":
            name, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
        elif scheme.lower() == "token":
            name, colon, password = rest.partition(":")
        else:
            raise Unauthenticated("unable to parse authentication credentials")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthenticated("unable to parse authentication credentials") from error
    if not colon:
        raise Unauthenticated("unable to parse authentication credentials")
    if not name:
        raise Unauthenticated("username required")
    return name, password
