"""Who asks, and whether they may: credentials of a request, and the privileges of InfluxDB 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.errors import Forbidden, Unauthenticated
from dsdbd.http.credentials import BearerToken, credentials_of
from dsdbd.http.logins import Logins
from dsdbd.http.responses import USER_NAME
from dsdbd.influxql import ast
from dsdbd.influxql.format import to_text
from dsdbd.influxql.privileges import required_privileges
from dsdbd.meta import views
from dsdbd.meta.state import Privilege

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from dsdbd.cluster.node import Node
    from dsdbd.http.credentials import Credentials

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
        self._logins = Logins()

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
        params = {key: form.get(key) or request.query.get(key, "") for key in ("u", "p")}
        given = credentials_of(params, request.headers.get("Authorization", ""))
        if isinstance(given, BearerToken):
            name = request[USER_NAME] = self._bearer(given)
            return name
        request[USER_NAME] = given.name
        user = self._node.metadata.state.users.get(given.name)
        if not await self._logins.check(given, None if user is None else user.hash):
            raise Unauthenticated("authorization failed")
        return given.name

    def known_user(self, given: Credentials | None) -> str | None:
        """The user whom these credentials prove without any waiting; None where ``user_of`` has to look."""
        if given is None or not views.has_admin(self._node.metadata.state):
            return None
        if isinstance(given, BearerToken):
            try:
                return self._bearer(given)
            except Unauthenticated:
                return None
        user = self._node.metadata.state.users.get(given.name)
        return given.name if user is not None and self._logins.known(given, user.hash) else None

    def _bearer(self, given: BearerToken) -> str:
        """The user of a valid token. Raises Unauthenticated."""
        secret = self._node.config.http.shared_secret
        if not secret:
            # The misspelt word is what clients of InfluxDB 1.x see.
            raise Unauthenticated("bearer auth disabld")
        # Loaded with the first token: few clusters use them.
        from dsdbd.http.bearer import user_of_token

        name = user_of_token(given.text, secret, self._node.clock.now_ns() / 1e9)
        if name not in self._node.metadata.state.users:
            raise Unauthenticated("user not found")
        return name

    def may_write(self, user: str, database: str) -> bool:
        """Whether ``user`` may write to ``database``."""
        return views.may(self._node.metadata.state, user, database, Privilege.WRITE)

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
        if not self.may_write(user, database):
            raise Forbidden(f'"{user}" user is not authorized to write to database "{database}"')

    def authorize_admin(self, user: str | None) -> None:
        """Raise Forbidden unless ``user`` is an administrator."""
        if not self.enabled:
            return
        found = self._node.metadata.state.users.get(user or "")
        if found is None or not found.admin:
            raise Forbidden("this page requires admin privilege")
