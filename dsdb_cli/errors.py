"""What the shell reports; every class is one clear message for the user and an exit status.

::

    DSDBError
    └── ShellError              exit 1
        ├── UsageError          exit 2   the command line itself is wrong
        ├── ConnectionFailed             no server answered at the address
        ├── BadAnswer                    something answered that is not a DSDB or InfluxDB 1.x server
        └── WriteRefused                 the server did not accept points
"""

from __future__ import annotations

from typing import ClassVar

from dsdbd.errors import DSDBError


class ShellError(DSDBError):
    """Root of what the shell reports by itself."""

    exit_code: ClassVar[int] = 1
    code = "shell"


class UsageError(ShellError):
    """The command line cannot be understood."""

    exit_code = 2
    code = "usage"


class ConnectionFailed(ShellError):
    """No server answered; the message names the address and the reason."""

    code = "connection_failed"


class BadAnswer(ShellError):
    """The answer is not what a server of this kind sends."""

    code = "bad_answer"


class WriteRefused(ShellError):
    """The server did not accept points.

    ``status`` is the HTTP status, ``body`` the answer's text as received, ``retry_after_s`` the wait the server asked
    for with a 503, None when it asked for none.
    """

    code = "write_refused"

    def __init__(self, status: int, body: str, retry_after_s: float | None) -> None:
        super().__init__(body)
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s
