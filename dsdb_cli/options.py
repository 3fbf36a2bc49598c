"""Flags of the shell, and of every command that talks to a server, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsdb_cli.client import Credentials, split_address
from dsdb_cli.errors import UsageError
from dsdb_cli.flags import Kind, Parsed, Value, parse_flags

SERVER_FLAGS: Mapping[str, Kind] = {
    "host": Kind.TEXT,
    "port": Kind.INTEGER,
    "username": Kind.TEXT,
    "password": Kind.TEXT,
    "ssl": Kind.SWITCH,
    "unsafeSsl": Kind.SWITCH,
    "format": Kind.TEXT,
    "h": Kind.SWITCH,
    "help": Kind.SWITCH,
}
SHELL_FLAGS: Mapping[str, Kind] = {
    **SERVER_FLAGS,
    "database": Kind.TEXT,
    "execute": Kind.TEXT,
    "precision": Kind.TEXT,
    "consistency": Kind.TEXT,
    "pretty": Kind.SWITCH,
    "import": Kind.SWITCH,
    "path": Kind.TEXT,
    "pps": Kind.INTEGER,
    "compressed": Kind.SWITCH,
    "version": Kind.SWITCH,
}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The server to talk to; ``port`` None tries the default ports, ``ask_password`` means an explicit empty one."""

    host: str
    port: int | None
    use_ssl: bool
    unsafe_ssl: bool
    credentials: Credentials
    ask_password: bool


@dataclass(frozen=True, slots=True)
class ShellOptions:
    """Everything on the shell's command line; ``execute`` is None when the flag was not given."""

    server: ServerOptions
    database: str
    execute: str | None
    output_format: str
    precision: str
    consistency: str
    pretty: bool
    import_file: bool
    path: str
    points_per_second: int
    compressed: bool
    show_version: bool
    show_help: bool


def parse_shell(words: Sequence[str], environ: Mapping[str, str]) -> ShellOptions:
    """Read the shell's command line. Raises UsageError."""
    parsed = parse_flags(SHELL_FLAGS, words)
    _refuse_rest(parsed)
    return ShellOptions(
        server=server_options(parsed, environ),
        database=parsed.text("database"),
        execute=parsed.text("execute") if "execute" in parsed.values else None,
        output_format=parsed.text("format", "column"),
        precision=parsed.text("precision", "ns") or "ns",
        consistency=parsed.text("consistency", "any") or "any",
        pretty=parsed.switch("pretty"),
        import_file=parsed.switch("import"),
        path=parsed.text("path"),
        points_per_second=parsed.integer("pps"),
        compressed=parsed.switch("compressed"),
        show_version=parsed.switch("version"),
        show_help=parsed.switch("h") or parsed.switch("help"),
    )


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """The command line of `dsdb status`."""

    server: ServerOptions
    output_format: str
    show_help: bool


def parse_status(words: Sequence[str], environ: Mapping[str, str]) -> StatusOptions:
    """Read the words after ``dsdb status``. Raises UsageError."""
    parsed = parse_flags(SERVER_FLAGS, words)
    _refuse_rest(parsed)
    output_format = parsed.text("format", "text")
    if output_format not in ("text", "json"):
        raise UsageError(f'invalid value "{output_format}" for flag -format: status prints text or json')
    return StatusOptions(server_options(parsed, environ), output_format, parsed.switch("h") or parsed.switch("help"))


NODE_FLAGS: Mapping[str, Kind] = {**SERVER_FLAGS, "dry-run": Kind.SWITCH, "detach": Kind.SWITCH}
NODE_COMMANDS = {"list": 0, "add": 1, "drain": 1, "cancel": 1, "remove": 1, "replace": 2, "rebalance": 0}
"""How many numbers of nodes each command of `dsdb node` takes."""
_TAKES = ("no numbers of nodes", "the number of one node", "two numbers of nodes, the old one and the new one")


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The command line of `dsdb node`; numbers that a command does not take are 0."""

    server: ServerOptions
    command: str
    node: int
    to: int
    dry_run: bool
    detach: bool
    output_format: str
    show_help: bool


def parse_node(words: Sequence[str], environ: Mapping[str, str]) -> NodeOptions:
    """Read the words after ``dsdb node``, flags between and behind them. Raises UsageError."""
    values: dict[str, Value] = {}
    plain: list[str] = []
    left = tuple(words)
    while left:
        parsed = parse_flags(NODE_FLAGS, left)
        values |= parsed.values
        plain += parsed.rest[:1]
        left = parsed.rest[1:]
    parsed = Parsed(values, ())
    show_help = parsed.switch("h") or parsed.switch("help")
    command, *texts = plain or [""]
    if not show_help and command not in NODE_COMMANDS:
        wrong = f'unknown command "{command}" of dsdb node' if command else "dsdb node needs a command"
        raise UsageError(f"{wrong}: it has {', '.join(NODE_COMMANDS)}")
    numbers = [] if show_help else [_node_number(text) for text in texts]
    if not show_help and len(numbers) != NODE_COMMANDS[command]:
        raise UsageError(f"dsdb node {command} takes {_TAKES[NODE_COMMANDS[command]]}, not {len(numbers)}")
    output_format = parsed.text("format", "text")
    if output_format not in ("text", "json"):
        raise UsageError(f'invalid value "{output_format}" for flag -format: node prints text or json')
    node, to = (*numbers, 0, 0)[:2]
    return NodeOptions(
        server_options(parsed, environ),
        command,
        node,
        to,
        parsed.switch("dry-run"),
        parsed.switch("detach"),
        output_format,
        show_help,
    )


def _node_number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 63:
        raise UsageError(f'"{text}" is no number of a node: dsdb node list shows them')
    return int(text)


def _refuse_rest(parsed: Parsed) -> None:
    if parsed.rest:
        raise UsageError(f"unknown arguments: {' '.join(parsed.rest)}. Statements go after -execute.")


def server_options(parsed: Parsed, environ: Mapping[str, str]) -> ServerOptions:
    """Where to connect and as whom: flags first, then DSDB_ variables, then INFLUX_ ones."""
    host_text = parsed.text("host")
    scheme, separator, rest = host_text.partition("://")
    if separator and scheme in ("http", "https"):
        host_text = rest.rstrip("/")
    try:
        host, port = split_address(host_text)
    except ValueError as error:
        raise UsageError(f'invalid value "{host_text}" for flag -host: the port is a number from 1 to 65535') from error
    if "port" in parsed.values:
        given = parsed.integer("port")
        if not 1 <= given <= 65535:
            raise UsageError(f'invalid value "{given}" for flag -port: a port is a number from 1 to 65535')
        if port is not None and port != given:
            raise UsageError(f"-host {host_text} and -port {given} name two ports: leave one out")
        port = given
    username = parsed.text("username") or environ.get("DSDB_USERNAME") or environ.get("INFLUX_USERNAME") or ""
    from_environment = environ.get("DSDB_PASSWORD") or environ.get("INFLUX_PASSWORD") or ""
    return ServerOptions(
        host=host or "localhost",
        port=port,
        use_ssl=parsed.switch("ssl") or (scheme == "https" and bool(separator)),
        unsafe_ssl=parsed.switch("unsafeSsl"),
        credentials=Credentials(username, parsed.text("password", from_environment)),
        ask_password="password" in parsed.values and not parsed.text("password"),
    )
