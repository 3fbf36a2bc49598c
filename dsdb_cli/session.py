"""The shell's state and what each command does with it; the same for a terminal, a pipe and -execute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from dsdb_cli import texts
from dsdb_cli.client import Client, Credentials, connect, split_address
from dsdb_cli.commands import (
    Assign,
    Auth,
    Insert,
    Query,
    Simple,
    Use,
    parse_command,
    quote_identifier,
)
from dsdb_cli.errors import ShellError, WriteRefused
from dsdb_cli.render import FORMATS, render
from dsdb_cli.tabwriter import align

PRECISIONS = ("rfc3339", "h", "m", "s", "ms", "u", "ns")
CONSISTENCIES = ("any", "one", "quorum", "all")


@dataclass(slots=True)
class Settings:
    """What the user can set."""

    database: str = ""
    retention_policy: str = ""
    output_format: str = "column"
    precision: str = "ns"
    consistency: str = "any"
    pretty: bool = False
    chunked: bool = True
    chunk_size: int = 0


def check_format(text: str) -> str:
    """The format in lower case; raises ShellError for an unknown one."""
    if text.lower() in FORMATS:
        return text.lower()
    raise ShellError(f'Unknown format "{text}". Please use json, csv, or column.')


def check_precision(text: str) -> str:
    """The precision in lower case; raises ShellError for an unknown one."""
    if text.lower() in PRECISIONS:
        return text.lower()
    raise ShellError(f'Unknown precision "{text}". Please use rfc3339, h, m, s, ms, u or ns.')


def check_consistency(text: str) -> str:
    """The level in lower case; raises ShellError for an unknown one."""
    if text.lower() in CONSISTENCIES:
        return text.lower()
    raise ShellError(f'Unknown consistency level "{text}". Please use any, one, quorum, or all.')


class Session:
    """One user at one server.

    ``run`` prints to ``out``. ``ask`` asks the user for a text (prompt, hidden) and is None where nobody can answer;
    there the format json prints documents only: an error is in its document, and ``error_shown`` stays False.
    ``history`` gives the lines entered so far, oldest first.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        out: TextIO,
        *,
        ask: Callable[[str, bool], str] | None = None,
        history: Callable[[], list[str]] = list,
    ) -> None:
        self.client = client
        self.settings = settings
        self.finished = False
        self.last_error: str | None = None
        self.error_shown = False
        self._out = out
        self._ask = ask
        self._history = history

    def run(self, line: str) -> bool:
        """Run one command or query; False when it failed, the reason being printed and kept in ``last_error``."""
        self.last_error, self.error_shown = None, False
        command = parse_command(line)
        try:
            if isinstance(command, Query):
                self._query(command.text)
            elif isinstance(command, Insert):
                self._insert(command)
            elif isinstance(command, Use):
                self._use(command)
            elif isinstance(command, Auth):
                self._auth(command)
            elif isinstance(command, Assign):
                self._assign(command)
            else:
                self._simple(command)
        except ShellError as error:
            self._fail(error.message)
        return self.last_error is None

    def _print(self, text: str = "") -> None:
        print(text, file=self._out)

    def _fail(self, message: str, reason: str | None = None) -> None:
        self.last_error = reason or message
        self.error_shown = True
        self._print(message)

    def _query(self, text: str) -> None:
        if not text:
            return
        settings = self.settings
        response = self.client.query(
            text,
            database=settings.database,
            retention_policy=settings.retention_policy,
            epoch=None if settings.precision == "rfc3339" else settings.precision,
            chunked=settings.chunked,
            chunk_size=settings.chunk_size,
        )
        for line in render(response, settings.output_format, pretty=settings.pretty):
            self._print(line)
        error = response.first_error()
        if error is None:
            return
        if settings.output_format == "json" and self._ask is None:
            self.last_error = error
            return
        message = f"ERR: {error}"
        if response.hint:
            message += f"\n{response.hint}"
        if not settings.database:
            message += f"\n{texts.QUERY_WARNING}"
        self._fail(message, error)

    def _insert(self, command: Insert) -> None:
        settings = self.settings
        if command.database is not None:
            settings.database = command.database
            self._print(f"Using database {command.database}")
        if command.retention_policy is not None:
            settings.retention_policy = command.retention_policy
            self._print(f"Using retention policy {command.retention_policy}")
        try:
            self.client.write(
                command.point.encode("utf-8", errors="surrogateescape"),
                database=settings.database,
                retention_policy=settings.retention_policy,
                precision="n",
                consistency=settings.consistency,
            )
        except WriteRefused as refused:
            body = refused.body.strip() or f"HTTP status {refused.status}"
            message = f"ERR: {body}"
            if not settings.database:
                message += f"\n\n{texts.WRITE_NOTE}"
            self._fail(message, body)

    def _use(self, command: Use) -> None:
        if command.database is None:
            self._fail(f'Could not parse database name from "{command.line}".')
            return
        name, policy = command.database, command.retention_policy
        databases = self._names("SHOW DATABASES")
        if databases is not None and name not in databases:
            self._fail(
                f"ERR: Database {name} doesn't exist. Run SHOW DATABASES for a list of existing databases.",
            )
            return
        self.settings.database, self.settings.retention_policy = name, ""
        self._print(f"Using database {name}")
        if policy is None:
            return
        policies = self._names(f"SHOW RETENTION POLICIES ON {quote_identifier(name)}")
        if policies is not None and policy not in policies and policy != "default":
            self._fail(
                f"ERR: RETENTION POLICY {policy} doesn't exist. "
                f"Run SHOW RETENTION POLICIES ON {quote_identifier(name)} for a list of existing retention policies.",
            )
            return
        self.settings.retention_policy = policy
        self._print(f"Using retention policy {policy}")

    def _names(self, statement: str) -> list[str] | None:
        """First column of the answer; None, after a warning, when a named user may not ask this."""
        response = self.client.query(statement)
        error = response.first_error()
        if error is not None:
            if not self.client.credentials.username:
                raise ShellError(f"ERR: {error}" + (f"\n{response.hint}" if response.hint else ""))
            # Listing databases takes more privileges than using one.
            self._print(f"WARN: {error}")
            return None
        return [str(row[0]) for result in response.results for series in result.series for row in series.values if row]

    def _auth(self, command: Auth) -> None:
        username, password = command.username, command.password
        if username is None or password is None:
            if self._ask is None:
                raise ShellError("auth needs a user name and a password here: auth <user> <password>")
            username = self._ask("username: ", False) if username is None else username
            password = self._ask("password: ", True) if password is None else password
        self.client.close()
        self.client = Client(self.client.endpoint, Credentials(username, password))

    def _assign(self, command: Assign) -> None:
        settings, value = self.settings, command.value
        if command.name == "format":
            settings.output_format = check_format(value)
        elif command.name == "precision":
            settings.precision = check_precision(value)
        elif command.name == "consistency":
            settings.consistency = check_consistency(value)
        elif command.name == "clear":
            self._clear(value)
        elif command.name == "chunk size":
            if not value.isdecimal():
                raise ShellError(f'unable to parse chunk size from "{value}"')
            settings.chunk_size = int(value)
            self._print(f"chunk size set to {settings.chunk_size}")
        else:
            self._connect(value)

    def _clear(self, what: str) -> None:
        name = " ".join(what.lower().split())
        if name in ("database", "db"):
            self.settings.database = ""
            self._print("database context cleared")
        elif name in ("retention policy", "rp"):
            self.settings.retention_policy = ""
            self._print("retention policy context cleared")
        else:
            self._print(texts.CLEAR_HELP.rstrip("\n"))

    def _connect(self, address: str) -> None:
        try:
            host, port = split_address(address)
        except ValueError as error:
            raise ShellError(f'Cannot read a host and port from "{address}": use connect <host:port>.') from error
        endpoint = self.client.endpoint
        client, version = connect(
            host or "localhost",
            port,
            use_ssl=endpoint.use_ssl,
            unsafe_ssl=endpoint.unsafe_ssl,
            credentials=self.client.credentials,
        )
        self.client.close()
        self.client = client
        self._print(f"Connected to {client.endpoint.url} version {version}")

    def _simple(self, command: Simple) -> None:
        settings = self.settings
        if command.name == "exit":
            self.finished = True
        elif command.name == "help":
            self._print(texts.HELP)
        elif command.name == "gopher":
            self._print(texts.GOPHER)
        elif command.name == "history":
            for line in self._history():
                self._print(line)
        elif command.name == "pretty":
            settings.pretty = not settings.pretty
            self._print(f"Pretty print {'enabled' if settings.pretty else 'disabled'}")
        elif command.name == "chunked":
            settings.chunked = not settings.chunked
            self._print(f"chunked responses {'enabled' if settings.chunked else 'disabled'}")
        else:
            self._print("\n".join(settings_lines(settings, self.client)))
            self._print()


def settings_lines(settings: Settings, client: Client) -> list[str]:
    """The six lines of ``settings``."""
    return align(
        [
            ["Host", client.endpoint.address],
            ["Username", client.credentials.username],
            ["Database", settings.database],
            ["Pretty", "true" if settings.pretty else "false"],
            ["Format", settings.output_format],
            ["Write Consistency", settings.consistency],
        ]
    )
