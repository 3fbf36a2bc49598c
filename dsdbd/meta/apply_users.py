"""Users and what they may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.meta.edit import need_database
from dsdbd.meta.refusals import fixed
from dsdbd.meta.state import Privilege, User

if TYPE_CHECKING:
    from dsdbd.meta.commands import CreateUser, DropUser, RevokePrivilege, SetAdminPrivilege, SetPrivilege, UpdateUser
    from dsdbd.meta.edit import Applied, Context
    from dsdbd.meta.state import MetaState


def create_user(state: MetaState, command: CreateUser, _context: Context) -> Applied:
    """Add a user at the end of the list."""
    if not command.name:
        raise fixed("username_required")
    existing = state.users.get(command.name)
    if existing is not None:
        if (existing.hash, existing.admin) != (command.hash, command.admin):
            raise fixed("user_exists")
        return state, None
    return _with_user(state, User(command.name, command.hash, command.admin)), None


def update_user(state: MetaState, command: UpdateUser, _context: Context) -> Applied:
    """Replace the password hash."""
    return _with_user(state, replace(_need_user(state, command.name), hash=command.hash)), None


def drop_user(state: MetaState, command: DropUser, _context: Context) -> Applied:
    """Forget the user."""
    _need_user(state, command.name)
    return replace(state, users={name: user for name, user in state.users.items() if name != command.name}), None


def set_privilege(state: MetaState, command: SetPrivilege, _context: Context) -> Applied:
    """Replace the privilege on one database: GRANT WRITE after GRANT ALL leaves WRITE, as in InfluxDB 1.x."""
    user = _need_user(state, command.user)
    need_database(state, command.database)
    return _with_privilege(state, user, command.database, command.privilege), None


def revoke_privilege(state: MetaState, command: RevokePrivilege, _context: Context) -> Applied:
    """Take bits away; the database stays listed for the user, as NO PRIVILEGES when nothing is left."""
    user = _need_user(state, command.user)
    need_database(state, command.database)
    held = user.privileges.get(command.database, Privilege.NONE)
    return _with_privilege(state, user, command.database, Privilege(held & ~command.privilege)), None


def set_admin_privilege(state: MetaState, command: SetAdminPrivilege, _context: Context) -> Applied:
    """Set or clear the administrator flag."""
    return _with_user(state, replace(_need_user(state, command.user), admin=command.admin)), None


def _need_user(state: MetaState, name: str) -> User:
    user = state.users.get(name)
    if user is None:
        raise fixed("user_not_found")
    return user


def _with_privilege(state: MetaState, user: User, database: str, privilege: Privilege) -> MetaState:
    return _with_user(state, replace(user, privileges={**user.privileges, database: privilege}))


def _with_user(state: MetaState, user: User) -> MetaState:
    return replace(state, users={**state.users, user.name: user})
