"""The messages of Raft between two authenticated nodes: their shape, checked before the library sees them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsdbd import limits
from dsdbd.meta.raft.membership import parse_change

Message = dict[str, Any]

MAX_ENTRY_BYTES: Final = limits.MAX_COMMAND_BYTES + 1024
"""A command with its type byte, or a membership change."""

_NONE = type(None)
_FIELDS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "append_entries": {"term": (int,), "commit_index": (int,), "rt": (int,)},
    "next_node_idx": {"next_node_idx": (int,), "reset": (bool,), "success": (bool,), "rt": (int,)},
    "request_vote": {"term": (int,), "last_log_index": (int,), "last_log_term": (int,), "rt": (int,)},
    "response_vote": {"term": (int,), "rt": (int,)},
    "timeout_now": {"term": (int,), "rt": (int,)},
    "apply_command": {"command": (bytes,), "request_id": (int,), "rt": (int,)},
    "apply_command_response": {"request_id": (int,), "rt": (int,)},
    "prevote": {"round": (int,), "last_log_index": (int,), "last_log_term": (int,), "rt": (int,)},
    "prevote_ok": {"round": (int,), "rt": (int,)},
    "not_a_member": {},
}
_COMMAND_TYPES: Final = frozenset((0, 2))
_ENTRY_TYPES: Final = frozenset((0, 1, 2))


def check_message(value: object) -> Message:
    """Return ``value`` as a message; raises ValueError when it is none the library could safely take."""
    if not isinstance(value, dict):
        raise ValueError("a Raft message is a map")  # noqa: TRY004  a peer's fault, not a caller's
    kind = value.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError("unknown type of Raft message")
    for name, types in fields.items():
        if type(value.get(name)) not in types:
            raise ValueError(f"{kind}: {name} is missing or of a wrong type")
    if kind == "append_entries":
        _check_append(value)
    elif kind == "apply_command":
        _check_command(value["command"], _COMMAND_TYPES)
    elif kind == "apply_command_response":
        needed = ("error",) if "error" in value else ("log_idx", "log_term")
        if any(type(value.get(name)) is not int for name in needed):
            raise ValueError("apply_command_response: neither an error nor a log position")
    return value


def drop_known_entries(message: Message, term_at: Callable[[int], int | None]) -> bool:
    """Take the entries out of an append that the log already holds; return whether the log goes on behind the rest.

    ``term_at`` gives the term of the log's entry at an index, None where it holds none. Raft deletes entries only where
    they conflict; the library deletes everything behind the previous entry and appends it again, so that a crash in
    between would take entries back that this node has acknowledged.
    """
    previous = message["prevLogIdx"]
    if previous is None or term_at(previous) != message["prevLogTerm"]:
        return False
    entries = message["entries"]
    known = 0
    while known < len(entries) and term_at(entries[known][1]) == entries[known][2]:
        known += 1
    if known:
        message["prevLogIdx"], message["prevLogTerm"] = entries[known - 1][1:]
        message["entries"] = entries[known:]
    return not message["entries"] and term_at(message["prevLogIdx"] + 1) is not None


def _check_append(message: Message) -> None:
    if "transmission" in message:
        raise ValueError("append_entries: entries in pieces are never sent")
    if "prevLogIdx" not in message:
        _check_chunk(message.get("serialized"))
        return
    previous, entries = message["prevLogIdx"], message.get("entries")
    if type(previous) not in (int, _NONE) or type(message.get("prevLogTerm")) not in (int, _NONE):
        raise ValueError("append_entries: bad previous entry")
    if not isinstance(entries, list):
        raise ValueError("append_entries: no list of entries")  # noqa: TRY004  a peer's fault
    for offset, entry in enumerate(entries, 1):
        if not isinstance(entry, list) or len(entry) != 3 or type(entry[0]) is not bytes or type(entry[2]) is not int:
            raise ValueError("append_entries: malformed entry")
        if previous is None or entry[1] != previous + offset:
            raise ValueError("append_entries: entries are not consecutive")
        _check_command(entry[0], _ENTRY_TYPES)


def _check_chunk(chunk: object) -> None:
    if chunk is None:
        return
    if not isinstance(chunk, list) or [type(part) for part in chunk] != [bytes, bool, bool]:
        raise ValueError("append_entries: malformed piece of a snapshot")


def _check_command(command: bytes, types: frozenset[int]) -> None:
    if not 0 < len(command) <= MAX_ENTRY_BYTES:
        raise ValueError(f"a command of {len(command)} bytes is outside the limits")
    if command[0] not in types:
        raise ValueError("unknown type of log entry")
    parse_change(command)
