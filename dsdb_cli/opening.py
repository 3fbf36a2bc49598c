"""The connection a command line asks for."""

from __future__ import annotations

import sys

from dsdb_cli import texts
from dsdb_cli.client import Client, Credentials, connect
from dsdb_cli.errors import BadAnswer, ConnectionFailed
from dsdb_cli.options import ServerOptions


def open_client(server: ServerOptions, *, hint: bool = False) -> tuple[Client, str]:
    """Connect, asking for the password first where that is wished. Raises ConnectionFailed or BadAnswer.

    ``hint`` adds how to start a server when nobody sits at a terminal: a plain `dsdb` in a script may have been meant
    to be the daemon.
    """
    credentials = server.credentials
    if server.ask_password:
        from dsdb_cli.interactive import ask

        credentials = Credentials(credentials.username, ask("password: ", True))
    try:
        return connect(
            server.host, server.port, use_ssl=server.use_ssl, unsafe_ssl=server.unsafe_ssl, credentials=credentials
        )
    except (ConnectionFailed, BadAnswer) as error:
        if hint and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise type(error)(f"{error.message}\n{texts.NO_SERVER_HINT}") from error
        raise
