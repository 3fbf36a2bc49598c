"""The command lines of `dsdb backup` and `dsdb restore`."""

from __future__ import annotations

import re

import pytest

from dsdb_cli.dispatch import Program, choose_program
from dsdb_cli.errors import ShellError, UsageError
from dsdb_cli.options import SHELL_FLAGS
from dsdbd.backup.flags import (
    BACKUP_FLAGS,
    BACKUP_USAGE,
    RESTORE_FLAGS,
    RESTORE_USAGE,
    parse_backup,
    parse_restore,
    parse_since,
)
from dsdbd.cluster.archive import Scope
from tests.docs.readme import REPOSITORY


def backup(line: str) -> object:
    return parse_backup(line.split(), {})


def restore(line: str) -> object:
    return parse_restore(line.split(), {})


def test_the_documented_backup_line() -> None:
    line = "-host 10.0.0.1:8088 -database telegraf -retention default -since 2016-02-01T00:00:00Z /tmp/backup"
    options = parse_backup(line.split(), {"DSDB_USERNAME": "root", "DSDB_PASSWORD": "x"})
    assert options is not None
    assert (options.server.host, options.server.port) == ("10.0.0.1", 8088)
    assert options.server.credentials.username == "root"
    assert options.scope == Scope("telegraf", "default", 0)
    assert options.since_ns == 1454284800 * 10**9
    assert str(options.path) == "/tmp/backup"
    assert not options.full


def test_a_plain_line_means_everything_of_this_machine() -> None:
    options = parse_backup(["/tmp/backup"], {})
    assert options is not None
    assert (options.server.host, options.server.port, options.scope) == ("localhost", None, Scope())


@pytest.mark.parametrize(
    ("text", "since_ns"),
    [
        ("2015-12-24T08:12:23", 1450944743 * 10**9),
        ("2015-12-24T08:12:23Z", 1450944743 * 10**9),
        ("2015-12-24T08:12:23.5Z", 1450944743 * 10**9 + 500_000_000),
        ("2015-12-24T10:12:23.000000001+02:00", 1450944743 * 10**9 + 1),
    ],
)
def test_times(text: str, since_ns: int) -> None:
    assert parse_since(text) == since_ns


@pytest.mark.parametrize("text", ["", "yesterday", "2015-13-01T00:00:00Z", "2015-12-24", "0001-01-01T00:00:00Z"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="flag -since"):
        parse_since(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "backup destination path required"),
        ("-database db", "backup destination path required"),
        ("/a /b", "only one backup path allowed"),
        ("/a -database db", "only one backup path allowed; put -database before it"),
        ("-shard 0 /a", "ids of shards begin with 1"),
        ("-shard x /a", "whole number"),
        ("-newdb x /a", "flag provided but not defined: -newdb"),
        ("-rate fast /a", 'invalid value "fast" for flag -rate: not a size'),
        ("-rate 1k /a", "the least is 64k"),
        ("-keep 0 /a", "the new backup itself is the first that is kept"),
        ("-keep 2 -since 2016-02-01T00:00:00Z /a", "-since leaves files out"),
        ("-host h:x /a", "the port is a number"),
    ],
)
def test_backup_lines_that_are_refused(line: str, message: str) -> None:
    with pytest.raises(ShellError, match=message):
        backup(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "path with backup files required"),
        ("-shard 3 /a", "-database is required to restore shard"),
        ("-database db -shard 3 /a", "-retention is required to restore shard"),
        ("-retention rp /a", "-database is required to restore retention policy"),
        ("-newdb other /a", "-database is required to restore under a new name"),
        ("-metadir /var/lib/dsdb/meta /a", "into a running cluster"),
        ("-datadir /var/lib/dsdb/data -database db /a", "into a running cluster"),
        ("-number last /a", "the number of meta.NN"),
        ("-consistency most /a", "any, one, quorum, all"),
        ("/a /b", "only one backup path allowed"),
    ],
)
def test_restore_lines_that_are_refused(line: str, message: str) -> None:
    with pytest.raises(ShellError, match=message):
        restore(line)


def test_a_restore_line() -> None:
    options = parse_restore(
        [
            "-database",
            "a",
            "-retention",
            "b",
            "-shard",
            "7",
            "-newdb",
            "c",
            "-number",
            "03",
            "-consistency",
            "all",
            "/x",
        ],
        {},
    )
    assert options is not None
    assert options.scope == Scope("a", "b", 7)
    assert (options.new_database, options.number, options.consistency) == ("c", 3, "all")


def test_rates_are_sizes() -> None:
    for line, rate_bytes in (
        ("/a", 20 << 20),
        ("-rate 100m /a", 100 << 20),
        ("-rate 0 /a", 0),
        ("-rate 64k /a", 65536),
    ):
        options = parse_backup(line.split(), {})
        assert options is not None
        assert options.rate_bytes == rate_bytes


def test_help_is_no_run() -> None:
    assert backup("-h") is None
    assert restore("-help") is None


@pytest.mark.parametrize(
    ("flags", "usage"), [(BACKUP_FLAGS, BACKUP_USAGE), (RESTORE_FLAGS, RESTORE_USAGE)], ids=["backup", "restore"]
)
def test_every_flag_is_in_the_help(flags: dict[str, object], usage: str) -> None:
    silent = {"port", "h", "help", "metadir", "datadir"}
    assert [name for name in flags if f"-{name}" not in usage and name not in silent] == []


@pytest.mark.parametrize(("word", "flags"), [("backup", BACKUP_FLAGS), ("restore", RESTORE_FLAGS)])
def test_every_flag_is_in_the_documentation(word: str, flags: dict[str, object]) -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    table = text.split(f"| flag of `dsdb {word}` | meaning |")[1].split("\n\n")[0]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`-(\w+)`", cells)) == set(flags) - {"h", "help"}


@pytest.mark.parametrize("word", ["backup", "restore"])
def test_the_shell_passes_them_to_the_daemons_program(word: str) -> None:
    assert choose_program([word, "/x"], SHELL_FLAGS) is Program.DAEMON
