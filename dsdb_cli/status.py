"""`dsdb status`: the state of the cluster on one screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dsdb_cli import jsontext
from dsdb_cli.errors import BadAnswer, ConnectionFailed
from dsdb_cli.node import size_text
from dsdb_cli.opening import open_client
from dsdb_cli.options import parse_status

USAGE = """\
Usage of dsdb status:
  dsdb status [-host H] [-port P] [-username U] [-password PW] [-ssl] [-unsafeSsl] [-format text|json]

Asks one node for the state of the cluster. Exit status: 0 all is well, 1 something needs attention,
2 no answer.
"""
PATH = "/cluster/status"
TIMEOUT_S = 10.0
EXIT_PASS, EXIT_DEGRADED, EXIT_NO_ANSWER = 0, 1, 2

_COLOURS = {"pass": "32", "up": "32", "warn": "33", "unknown": "33", "fail": "31", "down": "31"}
_HEADER = ("NODE", "ROLES", "ID", "HTTP", "META HTTP", "TCP", "STATE", "LEADER", "APPLIED", "LAG", "CONTACT", "VERSION")
_STATE_COLUMN = _HEADER.index("STATE")


def run_status(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the state; the exit status is 0 for pass, 1 for warn and fail, 2 without an answer."""
    options = parse_status(words, environ)
    if options.show_help:
        print(USAGE, end="")
        return EXIT_PASS
    try:
        client, _ = open_client(options.server)
        try:
            code, document = client.get_document(PATH, TIMEOUT_S)
            url = client.endpoint.url
        finally:
            client.close()
    except (ConnectionFailed, BadAnswer) as error:
        print(error.message, file=sys.stderr)
        return EXIT_NO_ANSWER
    if not isinstance(document, Mapping) or "status" not in document:
        print(_refusal(url, code, document), file=sys.stderr)
        return EXIT_NO_ANSWER
    if options.output_format == "json":
        print(jsontext.encode(document, "    "))
    else:
        colours = sys.stdout.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        print("\n".join(status_lines(document, colours=colours)))
    return EXIT_PASS if document["status"] == "pass" else EXIT_DEGRADED


def _refusal(url: str, code: int, document: Any) -> str:
    if code == 401:
        return f"{url} asks for a user: give -username and -password, or DSDB_USERNAME and DSDB_PASSWORD."
    if code == 404:
        return f"{url} has no {PATH}: it is a server, and none of a DSDB cluster."
    reason = document.get("error") if isinstance(document, Mapping) else None
    return f"{url} answers {PATH} with {code}: {reason or 'not the state of a cluster'}."


def status_lines(document: Mapping[str, Any], *, colours: bool) -> list[str]:
    """The screen for a document of /cluster/status; what the document leaves out is shown as ``-``."""
    lines = [
        f"cluster  {_text(document.get('cluster_id'))}, version {_text(document.get('version'))}",
        f"status   {_coloured(_text(document.get('status')), colours)}",
        f"leader   {_leader(document)}",
        f"shards   {_shards(document.get('shards') or {})}",
        *_activity(document),
        "",
    ]
    nodes = [node for node in document.get("nodes") or () if isinstance(node, Mapping)]
    lines += _table([_HEADER, *(_node_row(node) for node in nodes)], colours)
    problems = [str(problem) for problem in document.get("problems") or ()]
    # A node's message is shown on its own only where the list does not hold it already.
    problems += [
        f"{_text(node.get('tcp_addr'))}: {node['message']}"
        for node in nodes
        if node.get("message") and not all(any(part in told for told in problems) for part in _parts(node["message"]))
    ]
    if problems:
        lines += ["", "problems", *(f"  {problem}" for problem in problems)]
    return lines


def _parts(message: object) -> list[str]:
    return str(message).split("; ")


def _shards(shards: Mapping[str, Any]) -> str:
    total, groups, unavailable = (_text(shards.get(key)) for key in ("total", "groups", "unavailable"))
    return f"{total} in {groups} groups, {unavailable} unavailable"


def _activity(document: Mapping[str, Any]) -> list[str]:
    """What goes on beside serving requests; nothing where nothing does, or the server is an older one."""
    moves, kept = document.get("moves") or {}, document.get("handoff_bytes")
    lines = []
    draining = [str(number) for number in moves.get("draining") or ()]
    if draining or int(moves.get("copies") or 0):
        line = f"moves    {_text(moves.get('copies'))} copies to take, {size_text(int(moves['copied_bytes']))} so far"
        lines.append(line + (f"; draining: data node {', '.join(draining)}" if draining else ""))
    if kept is not None and int(kept):
        lines.append(f"handoff  {size_text(int(kept))} of writes wait for nodes that were away")
    return lines


def _leader(document: Mapping[str, Any]) -> str:
    leader = document.get("leader")
    where = "none: metadata cannot change"
    if isinstance(leader, Mapping):
        where = f"meta node {_text(leader.get('meta_id'))} at {_text(leader.get('tcp_addr'))}"
    return f"{where}, term {_text(document.get('term'))}, commit index {_text(document.get('commit_index'))}"


def _node_row(node: Mapping[str, Any]) -> tuple[str, ...]:
    ids = [f"{role} {node[key]}" for role, key in (("meta", "meta_id"), ("data", "data_id")) if node.get(key)]
    contact = node.get("last_contact_s")
    return (
        _text(node.get("host")),
        ",".join(str(role) for role in node.get("roles") or ()) or "-",
        ", ".join(ids) or "-",
        _text(node.get("http_addr")),
        _text(node.get("meta_http_addr")),
        _text(node.get("tcp_addr")),
        _text(node.get("state")),
        "leader" if node.get("is_leader") is True else "",
        _text(node.get("applied_index")),
        _text(node.get("lag")),
        f"{contact} s" if contact not in (None, "") else "-",
        _text(node.get("version")),
    )


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _table(rows: Sequence[Sequence[str]], colours: bool) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        state = cells[_STATE_COLUMN]
        cells[_STATE_COLUMN] = _coloured(state.rstrip(), colours) + " " * (len(state) - len(state.rstrip()))
        lines.append("  ".join(cells).rstrip())
    return lines


def _coloured(word: str, colours: bool) -> str:
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if colours and code else word
