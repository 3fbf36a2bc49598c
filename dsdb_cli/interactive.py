"""The shell on a terminal: line editing, history, completion."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Iterable

from dsdb_cli.client import Client, Credentials
from dsdb_cli.completion import MAX_NAMES, Names, complete
from dsdb_cli.errors import ShellError
from dsdb_cli.history import HistoryFile, default_path
from dsdb_cli.results import Response
from dsdb_cli.session import Session, Settings
from dsdb_cli.statements import group_lines

PROMPT = "> "
NAMES_AGE_S = 10.0
"""How old the names behind TAB may be."""
NAMES_TIMEOUT_S = 1.0
"""A server that does not name its databases within a second does not hold up typing."""


def run_interactive(client: Client, settings: Settings) -> int:
    """Read, run, print until the user leaves; exit status 0."""
    history = HistoryFile(default_path())
    session = Session(client, settings, sys.stdout, ask=ask, history=lambda: history.entries)
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        read = _plain_reader(history)
    else:
        read = _editing_reader(session, history)
    try:
        while not session.finished:
            try:
                text = read()
            except KeyboardInterrupt:
                continue
            except EOFError:
                print()
                break
            _run_all(session, text)
    finally:
        session.client.close()
    return 0


def _run_all(session: Session, text: str) -> None:
    """Run what one ENTER gave, which after a paste may be many lines; the first failure ends it."""
    for statement in group_lines(text.splitlines()):
        try:
            if not session.run(statement) or session.finished:
                break
        except KeyboardInterrupt:
            print("Interrupted; the server may still be running the statement.")
            break


def ask(prompt: str, hidden: bool) -> str:
    """Ask on the terminal; raises ShellError when there is no answer."""
    try:
        return getpass.getpass(prompt) if hidden else input(prompt)
    except (EOFError, KeyboardInterrupt) as error:
        raise ShellError("No answer was given; nothing has changed.") from error


def _plain_reader(history: HistoryFile) -> Callable[[], str]:
    def read() -> str:
        line = input(PROMPT)
        history.add(line)
        return line

    return read


class NameCache:
    """Names for completion, asked over a connection of their own when older than NAMES_AGE_S."""

    def __init__(self, session: Session, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._monotonic_s = monotonic_s
        self._names = Names()
        self._source: tuple[object, Credentials, str] | None = None
        self._fetched_s = 0.0

    def names(self) -> Names:
        """The names of the session's server and database; what is known so far when the server does not answer."""
        session = self._session
        database = session.settings.database
        source = (session.client.endpoint, session.client.credentials, database)
        now_s = self._monotonic_s()
        if source == self._source and now_s - self._fetched_s < NAMES_AGE_S:
            return self._names
        client = Client(session.client.endpoint, session.client.credentials)
        try:
            databases = _first_column(client.query("SHOW DATABASES", timeout_s=NAMES_TIMEOUT_S))
            measurements: list[str] = []
            if database:
                statement = f"SHOW MEASUREMENTS LIMIT {MAX_NAMES}"
                measurements = _first_column(client.query(statement, database=database, timeout_s=NAMES_TIMEOUT_S))
            self._names = Names(databases[:MAX_NAMES], measurements[:MAX_NAMES])
        except ShellError:
            # Typing goes on without names; the next command says what is wrong with the server.
            self._names = self._names if source == self._source else Names()
        finally:
            client.close()
        self._source, self._fetched_s = source, now_s
        return self._names


def _first_column(response: Response) -> list[str]:
    return [str(row[0]) for result in response.results for series in result.series for row in series.values if row]


def _editing_reader(session: Session, history: HistoryFile) -> Callable[[], str]:
    # Imported here because it takes longer than everything else a `dsdb -execute` does.
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History

    class _History(History):
        def load_history_strings(self) -> Iterable[str]:
            return list(reversed(history.entries))

        def append_string(self, string: str) -> None:
            # The base class would remember every line; a line with a password is to be in no list at all.
            entry = history.add(string)
            if entry is not None:
                self._loaded_strings.insert(0, entry)

        def store_string(self, string: str) -> None:
            raise AssertionError(f"append_string is to store {string!r}")

    cache = NameCache(session)

    class _Completer(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            del complete_event
            found = complete(document.text_before_cursor, cache.names())
            for candidate in found.candidates:
                yield Completion(candidate, start_position=-found.replaces)

    prompt: PromptSession[str] = PromptSession(
        PROMPT,
        history=_History(),
        completer=ThreadedCompleter(_Completer()),
        complete_while_typing=False,
        enable_history_search=True,
        mouse_support=False,
    )
    return prompt.prompt
