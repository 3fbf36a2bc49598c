"""Entry point of `dsdb backup` and `dsdb restore`: runs one, reports in lines, and turns errors into sentences."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from dsdb_cli.errors import UsageError
from dsdbd.backup.bring import Restore
from dsdbd.backup.flags import BACKUP_USAGE, RESTORE_USAGE, parse_backup, parse_restore
from dsdbd.backup.link import Link
from dsdbd.backup.look import list_backups, verify_backup
from dsdbd.backup.take import Backup
from dsdbd.errors import DSDBError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAMS = ("backup", "restore")
EXIT_INTERRUPTED = 130
_NICENESS = 10


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``backup`` or ``restore`` with the words after it; the exit code is 0, 1 after an error, 2 for wrong flags.

    The report goes to standard error, as in InfluxDB 1.x.
    """
    program, words = words[0], words[1:]
    try:
        if program == "backup":
            _run_backup(words, environ)
        else:
            _run_restore(words, environ)
    except UsageError as error:
        return _fail(program, f"{error.message}\nRun 'dsdb {program} -h' for usage.", error.exit_code)
    except DSDBError as error:
        return _fail(program, error.message, 1)
    except OSError as error:
        return _fail(program, f"{error.filename or 'a file of the backup'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail(program, "interrupted", EXIT_INTERRUPTED)
    return 0


def _run_backup(words: Sequence[str], environ: Mapping[str, str]) -> None:
    options = parse_backup(words, environ)
    if options is None:
        sys.stdout.write(BACKUP_USAGE)
        return
    link = Link(options.server, _say)
    try:
        Backup(options, link, _say).run()
    finally:
        link.close()


def _run_restore(words: Sequence[str], environ: Mapping[str, str]) -> None:
    options = parse_restore(words, environ)
    if options is None:
        sys.stdout.write(RESTORE_USAGE)
        return
    if options.lists:
        list_backups(options, _show)
        return
    if options.verifies:
        verify_backup(options, _say)
        return
    link = Link(options.server, _say)
    try:
        Restore(options, link, _say).run()
    finally:
        link.close()


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


def _fail(program: str, message: str, code: int) -> int:
    sys.stderr.write(f"{program}: {message}\n")
    return code


def main(words: Sequence[str]) -> int:
    """Run the words of the command line with this process's environment.

    Checking what was copied takes a core, so on a machine with a node that one goes first.
    """
    os.nice(_NICENESS)
    return run(words, os.environ)
