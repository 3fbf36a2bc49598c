"""Changed copies of the state that share what did not change, and lookups that refuse when the object is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dsdbd.limits import MAX_NAME_BYTES
from dsdbd.meta.refusals import database_not_found, fixed, policy_not_found
from dsdbd.meta.state import AUTOGEN, AUTOGEN_ALIAS

if TYPE_CHECKING:
    from dsdbd.meta.commands import Value
    from dsdbd.meta.state import Database, MetaState, RetentionPolicy

    Applied = tuple[MetaState, Value | None]


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows besides the state: the entry's Raft index and the proposer's time."""

    index: int
    now_ns: int


def resolve_policy(database: Database, name: str | None) -> RetentionPolicy | None:
    """The policy of that name; None means the default one. ``default`` finds ``autogen`` where nothing else has it."""
    wanted = database.default_rp if name is None else name
    found = database.policies.get(wanted)
    if found is None and wanted == AUTOGEN_ALIAS:
        found = database.policies.get(AUTOGEN)
    return found


def need_database(state: MetaState, name: str) -> Database:
    """The database, or a refusal."""
    found = state.databases.get(name)
    if found is None:
        raise database_not_found(name)
    return found


def need_policy(state: MetaState, database_name: str, name: str) -> tuple[Database, RetentionPolicy]:
    """The database and its policy, or a refusal."""
    database = need_database(state, database_name)
    found = resolve_policy(database, name)
    if found is None:
        raise policy_not_found(name)
    return database, found


def with_database(state: MetaState, database: Database) -> MetaState:
    """The state with that database in place of the one of its name, or added."""
    return replace(state, databases={**state.databases, database.name: database})


def with_policy(database: Database, policy: RetentionPolicy) -> Database:
    """The database with that policy in place of the one of its name, or added."""
    return replace(database, policies={**database.policies, policy.name: policy})


def check_name(name: str) -> None:
    """Refuse a name that InfluxDB 1.x refuses for databases and policies; none that passes can leave its directory."""
    if name in ("", ".", "..") or not name.isprintable() or "/" in name or "\\" in name:
        raise fixed("name_invalid")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise fixed("name_too_long")
