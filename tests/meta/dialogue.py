"""Readable dialogues with the metadata state machine: commands and questions, with the answers below them.

A script holds lines of three kinds; everything else is an answer and is compared with what the code gives::

    # a remark
    > CreateDatabase(name="db")        a command, arguments by name
    ? policies db                      a question

``python -m tests.meta.dialogue FILE…`` writes the answers anew; read the difference before committing it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from dsdbd.errors import DSDBError
from dsdbd.meta import commands, rows, state, views
from dsdbd.meta.apply import apply
from dsdbd.meta.commands import Command, Envelope, Result, decode_result, encode_envelope
from dsdbd.meta.state import MetaState
from dsdbd.model.types import FieldType

SECOND_NS = 10**9


class Machine:
    """A state and the commands given to it; each takes one index and one second."""

    def __init__(self) -> None:
        self.state = MetaState()

    def give(self, command: Command, request_id: str = "") -> Result:
        index = self.state.index + 1
        envelope = Envelope(request_id or f"r{index}", index * SECOND_NS, command)
        self.state, answer = apply(self.state, index, encode_envelope(envelope))
        return decode_result(answer)


def run(script: str) -> str:
    """The script with the answers the code gives."""
    machine = Machine()
    out: list[str] = []
    for line in script.splitlines():
        if line.startswith("#") or not line.strip():
            out.append(line)
        elif line.startswith("> "):
            out += [line, *_answer(machine.give(_literal(ast.parse(line[2:], mode="eval").body)))]
        elif line.startswith("? "):
            out += [line, *_question(machine.state, line[2:].split())]
    return "\n".join(out) + "\n"


def _answer(result: Result) -> list[str]:
    if result.error is not None:
        return [f"  {result.error.code}: {result.error.message}"]
    return ["  ok" if result.value is None else f"  ok {result.value}"]


def _question(now: MetaState, words: list[str]) -> list[str]:
    questions = {
        "servers": rows.show_servers,
        "databases": rows.show_databases,
        "policies": rows.show_retention_policies,
        "shards": rows.show_shards,
        "groups": rows.show_shard_groups,
        "users": rows.show_users,
        "grants": rows.show_grants,
        "queries": rows.show_continuous_queries,
        "subscriptions": rows.show_subscriptions,
        "copies": _copies,
        "deleted": _deleted,
        "tombstones": lambda now: rows.Table(
            "tombstones", ("id", "role", "uuid"), [(s.id, s.role.value, s.uuid) for s in now.tombstones]
        ),
    }
    try:
        answer = questions[words[0]](now, *words[1:])
    except DSDBError as error:
        return [f"  {error.code}: {error.message}"]
    tables = [answer] if isinstance(answer, rows.Table) else answer
    lines = []
    for table in tables:
        lines.append(f"  {table.name or '-'}: {' '.join(table.columns)}")
        lines += ["    " + " ".join(str(cell) for cell in row) for row in table.rows]
    return lines


def _copies(now: MetaState) -> rows.Table:
    places = [place.shard for place in views.all_shards(now)]
    return rows.Table("copies", ("shard", "owners", "incoming"), [_copy(shard) for shard in places])


def _deleted(now: MetaState) -> rows.Table:
    policies = [policy for database in now.databases.values() for policy in database.policies.values()]
    gone = [shard for policy in policies for group in policy.deleted_groups for shard in group.shards]
    return rows.Table("deleted", ("shard", "owners", "incoming"), [_copy(shard) for shard in gone])


def _copy(shard: state.Shard) -> tuple[rows.Cell, ...]:
    arrivals = (f"{a.node}" + (f" for {a.replaces}" if a.replaces else "") for a in shard.incoming)
    return shard.id, ",".join(map(str, shard.owners)), ", ".join(arrivals) or "-"


def _literal(node: ast.expr) -> object:
    """Constants, containers, calls of command classes and members of the enumerations; nothing else is evaluated."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            return getattr(commands, name)(**{word.arg: _literal(word.value) for word in keywords})
        case ast.Attribute(value=ast.Name(id=name), attr=member):
            enums = {"Privilege": state.Privilege, "Mode": state.SubscriptionMode, "Type": FieldType}
            return enums[name][member]
        case ast.Tuple(elts=parts):
            return tuple(_literal(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True)}
        case _:
            return ast.literal_eval(node)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(run(Path(name).read_text()))
