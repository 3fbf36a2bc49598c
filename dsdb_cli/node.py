"""`dsdb node`: which nodes there are, and moving shards between them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from dsdb_cli import jsontext
from dsdb_cli.client import Client
from dsdb_cli.errors import BadAnswer, ConnectionFailed, ShellError
from dsdb_cli.opening import open_client
from dsdb_cli.options import NodeOptions, parse_node

USAGE = """\
Usage of dsdb node:
  dsdb node list                    every node with its shards, their bytes, and what is on the way
  dsdb node add <id>                give a node that has joined its share of the shards
  dsdb node drain <id>              move every shard away from a node, which stays a member
  dsdb node cancel <id>             end a drain or an addition: the node keeps the shards that it has now
  dsdb node remove <id>             drain a node and take it out of the cluster
  dsdb node replace <old> <new>     move the shards of one node, dead or alive, to another and remove the first
  dsdb node rebalance               even out what the nodes hold

Flags, before the numbers or after:
  -dry-run                          only say what would move, and about how long that takes
  -detach                           begin, and do not wait for the end
  -format 'text|json'               of list and -dry-run (default text)
  -host, -port, -username, -password, -ssl, -unsafeSsl    as everywhere

An <id> is a number of SHOW SERVERS or dsdb node list, of the points or of the metadata. Writes and queries go on
meanwhile. A command that was broken off goes on when it is given again.
Exit status: 0 done, 1 refused or failed, 2 wrong command line or no answer.
"""
TIMEOUT_S = 60.0
POLL_S = 0.5
PATIENCE_S = 60.0
"""How long a node may give no answer: it may restart, or an election be under way."""
_LEAVE = frozenset({"remove", "replace"})
_AGAIN = "give the command again when nothing is left to move, which takes the node out of the cluster"
_ONCE = frozenset({"add", "rebalance"})
"""What is balanced now may not be so to a hair when the copies are there; that is no reason to begin anew."""
_LIST_HEADER = ("DATA", "META", "TCP", "STATE", "SHARDS", "INCOMING", "LEAVING", "BYTES", "HANDOFF")


class Refused(ShellError):
    """The cluster does not carry out an order."""

    code = "refused"


def run_node(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Carry out the words after ``dsdb node``; returns the exit status. Raises ShellError."""
    options = parse_node(words, environ)
    if options.show_help:
        print(USAGE, end="")
        return 0
    try:
        client, _ = open_client(options.server)
    except (ConnectionFailed, BadAnswer) as error:
        print(error.message, file=sys.stderr)
        return 2
    try:
        if options.command == "list":
            return _list(client, options)
        return Command(client, options, _printer()).run()
    finally:
        client.close()


def _printer() -> Callable[[str], None]:
    """Prints one line of progress over the other on a terminal, and each that differs below the other elsewhere."""
    last = ""

    def show(line: str) -> None:
        nonlocal last
        if line == last:
            return
        if sys.stdout.isatty():
            print("\r" + line.ljust(len(last)), end="", flush=True)
        elif line:
            print(line, flush=True)
        last = line

    return show


def _list(client: Client, options: NodeOptions) -> int:
    document = _answered(client, *client.get_document("/cluster/nodes", TIMEOUT_S))
    if options.output_format == "json":
        print(jsontext.encode(document, "    "))
        return 0
    print("\n".join(node_lines(document["nodes"])))
    return 0


def node_lines(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of `dsdb node list`."""
    rows = [_LIST_HEADER]
    for node in nodes:
        bytes_text, kept = node.get("bytes"), node.get("kept_bytes")
        rows.append(
            (
                _text(node.get("data_id")),
                _text(node.get("meta_id")),
                _text(node.get("tcp_addr")),
                _text(node.get("state")),
                _text(node.get("shards")),
                _text(node.get("incoming")),
                _text(node.get("leaving")),
                "-" if bytes_text is None else size_text(int(bytes_text)),
                "-" if kept is None else size_text(int(kept)),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_LIST_HEADER))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


class Command:
    """One order: shown, given, and followed to its end."""

    def __init__(self, client: Client, options: NodeOptions, show: Callable[[str], None]) -> None:
        self._client = client
        self._options = options
        self._show = show
        self._order = {"op": options.command, "node": options.node, "to": options.to}

    def run(self) -> int:
        """The exit status. Raises ShellError."""
        plan = self._patiently(lambda: self._post("/cluster/plan"))
        if self._options.dry_run and self._options.output_format == "json":
            print(jsontext.encode(plan, "    "))
        elif self._options.command != "cancel" or self._options.dry_run:
            print("\n".join(plan_lines(plan)))
        if plan["refusals"]:
            return 1
        if self._options.dry_run:
            return 0
        begun = self._patiently(lambda: self._post("/cluster/apply"))
        if self._options.detach and begun["done"] is not True:
            again = f"; {_AGAIN}" if self._options.command in _LEAVE else ""
            print(f"begun: dsdb node list shows how far it is{again}")
            return 0
        try:
            self._wait(begun)
        except KeyboardInterrupt:
            again = f"; {_AGAIN}" if self._options.command in _LEAVE else ""
            print(
                f"\nnot waited for: what was ordered goes on, dsdb node list shows how far it is{again}",
                file=sys.stderr,
            )
            raise
        self._show("")
        self._say_done()
        return 0

    def _wait(self, begun: Mapping[str, Any]) -> None:
        while begun["done"] is not True:
            self._follow({(move["shard"], move["to"]) for move in begun["moves"]})
            if begun["moves"] and self._options.command in _ONCE:
                break
            begun = self._patiently(lambda: self._post("/cluster/apply"))

    def _say_done(self) -> None:
        print(_DONE[self._options.command].format(node=self._options.node, to=self._options.to))

    def _follow(self, own: Collection[tuple[str, str]]) -> None:
        """Wait until none of the order's moves is left, telling how far they are; of any move where it began none."""
        most = len(own)
        while moves := [move for move in self._patiently(self._moves) if not own or (move["shard"], move["to"]) in own]:
            most = max(most, len(moves))
            self._show(progress_line(moves, most))
            time.sleep(POLL_S)
        # What a former owner still holds is taken over before a node may go.
        time.sleep(POLL_S)

    def _moves(self) -> list[Mapping[str, Any]]:
        document = _answered(self._client, *self._client.get_document("/cluster/moves", TIMEOUT_S))
        return list(document["moves"])

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """The answer, also where the node that is asked restarts or the cluster elects a leader in the middle."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except (ConnectionFailed, Unavailable) as error:
                if time.monotonic() > deadline_s:
                    raise
                self._show(f"waiting: {error.message.splitlines()[0]}")
                time.sleep(POLL_S)

    def _post(self, path: str) -> Any:
        return _answered(self._client, *self._client.post_document(path, self._order, TIMEOUT_S))


class Unavailable(ShellError):
    """The cluster cannot carry out an order now; it may a moment later."""

    code = "unavailable"


_DONE = {
    "add": "node {node} has its share",
    "drain": "node {node} owns no shards any more",
    "cancel": "node {node} keeps the shards that it has; copies that were on the way from it or to it have ended",
    "remove": "node {node} was removed",
    "replace": "node {node} was replaced by node {to} and removed",
    "rebalance": "the shards are balanced",
}


def _answered(client: Client, status: int, document: Any) -> Any:
    """The document of an answer that was none of an error. Raises Refused, Unavailable, BadAnswer."""
    url = client.endpoint.url
    if status == 200 and isinstance(document, Mapping):
        return document
    if status == 401:
        raise Refused(f"{url} asks for a user: give -username and -password, or DSDB_USERNAME and DSDB_PASSWORD.")
    reason = document.get("error") if isinstance(document, Mapping) else None
    if reason is None:
        raise BadAnswer(f"{url} answers with {status}: it is none of a DSDB cluster, or of another version.")
    raise (Unavailable if status in (503, 504) else Refused)(str(reason))


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """What an order would do, for people: how much goes where, and what stands in the way."""
    if plan["refusals"]:
        return ["refused:", *(f"  {sentence}" for sentence in plan["refusals"])]
    moves = plan["moves"]
    surplus = [
        f"shard {one['shard']} has more copies than its policy asks for: data node {one['from']} gives up its own"
        for one in plan.get("removals") or ()
    ]
    surplus += _leaving(plan)
    if not moves:
        return surplus if plan.get("removals") else ["nothing has to move", *surplus]
    lines = [f"{_copies(len(moves))}, {size_text(int(plan['bytes']))}, about {duration_text(float(plan['seconds']))}:"]
    for move in moves:
        away = f", in place of data node {move['replaces']}" if move.get("replaces") else ""
        shard = f"shard {move['shard']} of {move['database']}.{move['retention_policy']}"
        lines.append(f"  {shard} to data node {move['to']}{away}: {size_text(int(move['bytes']))}")
    return [*lines, *surplus]


def _leaving(plan: Mapping[str, Any]) -> list[str]:
    """Who leaves the cluster at the end of an order, and what the votes that are left are good for."""
    leaves = plan.get("leaves") or ()
    if not leaves:
        return []
    names = " and ".join(f"{one['role']} node {one['id']}" for one in leaves)
    lines = [f"then {names} {'leaves' if len(leaves) == 1 else 'leave'} the cluster"]
    votes = plan.get("votes_left")
    if votes is not None and any(one["role"] == "meta" for one in leaves):
        spare = (int(votes) - 1) // 2
        lines.append(
            f"meta nodes left: {votes}; the metadata can change while at most {spare} of them are away"
            if spare
            else f"meta nodes left: {votes}; the metadata cannot change while one of them is away"
        )
    return lines


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count} copies"


def progress_line(moves: Sequence[Mapping[str, Any]], of: int) -> str:
    """How far an order of ``of`` copies is, given those that are left, on one line; what stands in their way is told.

    The bytes are those of the copies that are under way.
    """
    done = sum(int(move["bytes"]) for move in moves)
    total = sum(int(move["total_bytes"]) for move in moves)
    active = sum(1 for move in moves if move["state"] not in ("waiting", "failed"))
    errors = [str(move["error"]) for move in moves if move.get("error")]
    line = f"{of - len(moves)} of {_copies(of)} made, {active} under way"
    line += f": {size_text(min(done, total))} of {size_text(total)}" if active else ""
    return line + (f"; {errors[0]}" if errors else "")


def size_text(size_bytes: int) -> str:
    """Bytes with a unit, such as ``12.3 MB``."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_text(seconds: float) -> str:
    """A time with a unit, such as ``3 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)
