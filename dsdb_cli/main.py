"""Entry point of `dsdb`: the shell, its sub-commands, and the way to the daemon's."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence

from dsdb_cli import texts
from dsdb_cli.client import Client
from dsdb_cli.dispatch import Program, become_daemon, choose_program
from dsdb_cli.errors import ShellError, UsageError
from dsdb_cli.opening import open_client
from dsdb_cli.options import SHELL_FLAGS, ShellOptions, parse_shell
from dsdb_cli.session import Session, Settings, check_consistency, check_format, check_precision
from dsdb_cli.statements import group_lines
from dsdbd.version import VERSION

EXIT_INTERRUPTED = 130
_USAGE_HINT = "Run 'dsdb{} -help' for usage."
_SHOW = "backslashreplace"


def main() -> None:
    """Run the command line and leave with its exit status."""
    # Text the terminal's encoding lacks, and input that is no text, end no command.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, _SHOW), (sys.stderr, _SHOW)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run the words after ``dsdb``; returns the exit status: 0, 1 after an error, 2 for a wrong command line."""
    try:
        status = _run_program(words)
        sys.stdout.flush()
        return status
    except ShellError as error:
        sys.stdout.flush()
        print(error.message, file=sys.stderr)
        if isinstance(error, UsageError):
            own = choose_program(words, SHELL_FLAGS) in (Program.NODE, Program.STATUS, Program.DEMO)
            print(_USAGE_HINT.format(f" {words[0]}" if own else ""), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe left. What is still buffered must not fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run_program(words: Sequence[str]) -> int:
    program = choose_program(words, SHELL_FLAGS)
    if program is Program.DAEMON:
        become_daemon(words)
    if program is Program.STATUS:
        from dsdb_cli.status import run_status

        return run_status(words[1:], os.environ)
    if program is Program.NODE:
        from dsdb_cli.node import run_node

        return run_node(words[1:], os.environ)
    if program is Program.DEMO:
        from dsdb_cli.demo import run_demo

        return run_demo(words[1:])
    return run_shell(parse_shell(words, os.environ))


def run_shell(options: ShellOptions) -> int:
    """The shell in whichever way the options and the terminal ask for."""
    if options.show_help:
        print(texts.USAGE, end="")
        return 0
    if options.show_version:
        print(f"DSDB shell version {VERSION}")
        return 0
    settings = Settings(
        database=options.database,
        output_format=check_format(options.output_format),
        precision=check_precision(options.precision),
        consistency=check_consistency(options.consistency),
        pretty=options.pretty,
    )
    client, version = open_client(options.server, hint=options.execute is None and not options.import_file)
    try:
        if options.import_file:
            return _import(client, options, settings)
        if options.execute is not None:
            return _run_lines(Session(client, settings, sys.stdout), options.execute.splitlines())
        if not sys.stdin.isatty():
            return _run_lines(Session(client, settings, sys.stdout), sys.stdin)
        return _interact(client, version, settings)
    finally:
        client.close()


def _run_lines(session: Session, lines: Iterable[str]) -> int:
    """Run statements until one fails. Results and the error go to standard output, as in InfluxDB's shell.

    The error's reason goes to standard error too, unless both are the terminal and it would be read twice.
    """
    for statement in group_lines(lines):
        if not session.run(statement):
            sys.stdout.flush()
            if not (session.error_shown and sys.stdout.isatty() and sys.stderr.isatty()):
                print(session.last_error, file=sys.stderr)
            return 1
        if session.finished:
            break
    return 0


def _interact(client: Client, version: str, settings: Settings) -> int:
    from dsdb_cli.interactive import run_interactive

    print(f"Connected to {client.endpoint.url} version {version}")
    print(f"DSDB shell {VERSION}")
    return run_interactive(client, settings)


def _import(client: Client, options: ShellOptions, settings: Settings) -> int:
    from dsdb_cli.importer import Importer, ImportOptions

    importer = Importer(
        client,
        ImportOptions(
            path=options.path,
            compressed=options.compressed,
            database=options.database,
            precision=settings.precision,
            consistency=settings.consistency,
            points_per_second=options.points_per_second,
        ),
    )
    return importer.run()


if __name__ == "__main__":
    main()
