"""The command lines of `dsdb backup` and `dsdb restore` as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dsdb_cli.errors import ShellError, UsageError
from dsdb_cli.flags import Kind, Parsed, parse_flags
from dsdb_cli.options import SERVER_FLAGS, ServerOptions, server_options
from dsdbd.cluster.archive import Scope
from dsdbd.config.values import parse_size
from dsdbd.model.times import MAX_TIME_NS, MIN_TIME_NS

_SERVER: Mapping[str, Kind] = {name: kind for name, kind in SERVER_FLAGS.items() if name != "format"}
_SCOPE: Mapping[str, Kind] = {"database": Kind.TEXT, "retention": Kind.TEXT, "shard": Kind.INTEGER}
BACKUP_FLAGS: Mapping[str, Kind] = {
    **_SERVER,
    **_SCOPE,
    "since": Kind.TEXT,
    "full": Kind.SWITCH,
    "rate": Kind.TEXT,
    "keep": Kind.INTEGER,
    "stale": Kind.SWITCH,
}
RESTORE_FLAGS: Mapping[str, Kind] = {
    **_SERVER,
    **_SCOPE,
    "newdb": Kind.TEXT,
    "number": Kind.TEXT,
    "consistency": Kind.TEXT,
    "list": Kind.SWITCH,
    "verify": Kind.SWITCH,
    "metadir": Kind.TEXT,
    "datadir": Kind.TEXT,
}

_COMMON_USAGE = """\
  -host HOST:PORT    any node of the cluster (localhost:8088)
  -username, -password, -ssl, -unsafeSsl
                     as of the shell; DSDB_USERNAME and DSDB_PASSWORD are read, too
"""
BACKUP_USAGE = (
    """\
Usage of dsdb backup:
  dsdb backup [flags] PATH

Copies a running cluster, or a part of it, to the directory PATH. A directory that holds backups gets another one, which
shares the files that have not changed.

"""
    + _COMMON_USAGE
    + """\
  -database NAME     only this database
  -retention NAME    only this retention policy of the database
  -shard ID          only this shard
  -since TIME        leave out files written before TIME (RFC 3339) that PATH does not hold
  -full              copy every file anew, also those PATH holds
  -rate SIZE         bytes that are copied in a second, at most, such as 100m (20m); 0: no limit
  -keep N            then remove older backups of the same scope but the newest N; files that one of those names stay
  -stale             take the metadata as HOST knows them, also where no majority of the meta nodes answers
"""
)
RESTORE_USAGE = (
    """\
Usage of dsdb restore:
  dsdb restore [flags] PATH

Writes the newest backup of the directory PATH, or a part of it, into a running cluster.

"""
    + _COMMON_USAGE
    + """\
  -database NAME     only this database
  -newdb NAME        restore it under this name
  -retention NAME    only this retention policy of the database
  -shard ID          only this shard
  -number NN         the backup meta.NN instead of the newest one
  -consistency any|one|quorum|all
                     how many owners must have stored the points (quorum)
  -list              say which backups PATH holds, and restore nothing
  -verify            read the backup and compare it with its digests, and restore nothing
"""
)
DEFAULT_RATE_BYTES = 20 << 20
"""A node spends about 20 ms of processor time on a megabyte, its digests included; so half of a core at the most."""
_LEAST_RATE_BYTES = 64 << 10
"""An owner keeps files for one minute after the last request for them."""
_CONSISTENCIES = ("any", "one", "quorum", "all")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)?")


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """The command line of `dsdb backup`; ``since_ns`` is None without ``-since``.

    ``rate_bytes``: a second; 0 means no limit. ``keep``: 0 means that all older backups stay.
    ``stale``: take the metadata without asking a majority.
    """

    server: ServerOptions
    scope: Scope
    path: Path
    since_ns: int | None
    full: bool
    rate_bytes: int = DEFAULT_RATE_BYTES
    keep: int = 0
    stale: bool = False


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The command line of `dsdb restore`; ``number`` is None for the newest backup.

    ``lists`` and ``verifies``: look at the directory only.
    """

    server: ServerOptions
    scope: Scope
    path: Path
    new_database: str
    number: int | None
    consistency: str
    lists: bool = False
    verifies: bool = False


def parse_backup(words: Sequence[str], environ: Mapping[str, str]) -> BackupOptions | None:
    """Read the words after ``dsdb backup``; None asks for help. Raises UsageError, ShellError."""
    parsed = parse_flags(BACKUP_FLAGS, words)
    if parsed.switch("h") or parsed.switch("help"):
        return None
    path = _path(parsed, "backup destination path required")
    since = parsed.text("since")
    return BackupOptions(
        server_options(parsed, environ),
        _scope(parsed),
        path,
        parse_since(since) if since else None,
        parsed.switch("full"),
        _rate(parsed),
        _keep(parsed),
        parsed.switch("stale"),
    )


def parse_restore(words: Sequence[str], environ: Mapping[str, str]) -> RestoreOptions | None:
    """Read the words after ``dsdb restore``; None asks for help. Raises UsageError, ShellError."""
    parsed = parse_flags(RESTORE_FLAGS, words)
    if parsed.switch("h") or parsed.switch("help"):
        return None
    path = _path(parsed, "path with backup files required")
    for flag in ("metadir", "datadir"):
        if parsed.text(flag):
            raise UsageError(
                f"-{flag}: a backup is restored into a running cluster, not into the directories of a stopped node. "
                "Start the nodes (a fresh one will do) and leave -metadir and -datadir out; -host names a node."
            )
    scope = _scope(parsed)
    if scope.shard and not scope.database:
        raise ShellError("-database is required to restore shard")
    if scope.shard and not scope.retention:
        raise ShellError("-retention is required to restore shard")
    if scope.retention and not scope.database:
        raise ShellError("-database is required to restore retention policy")
    if parsed.text("newdb") and not scope.database:
        raise ShellError("-database is required to restore under a new name")
    number = parsed.text("number")
    if number and not (number.isascii() and number.isdecimal()):
        raise UsageError(f'invalid value "{number}" for flag -number: it takes the number of meta.NN')
    consistency = parsed.text("consistency", "quorum") or "quorum"
    if consistency not in _CONSISTENCIES:
        raise UsageError(f'invalid value "{consistency}" for flag -consistency: use {", ".join(_CONSISTENCIES)}')
    return RestoreOptions(
        server_options(parsed, environ),
        scope,
        path,
        parsed.text("newdb"),
        int(number) if number else None,
        consistency,
        parsed.switch("list"),
        parsed.switch("verify"),
    )


def parse_since(text: str) -> int:
    """A time of RFC 3339 in nanoseconds; without a zone it is UTC. Raises UsageError."""
    found = _TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        zone = (found[4] or "Z").upper()
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}{'+00:00' if zone == 'Z' else zone}")
    except ValueError as error:
        raise UsageError(f'invalid value "{text}" for flag -since: write a time as 2016-02-01T00:00:00Z') from error
    whole_s = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution * 1_000_000)
    since_ns = whole_s * 10**9 + int((found[3] or "").ljust(9, "0"))
    if not MIN_TIME_NS <= since_ns <= MAX_TIME_NS:
        raise UsageError(f'invalid value "{text}" for flag -since: the year is out of range')
    return since_ns


def _rate(parsed: Parsed) -> int:
    text = parsed.text("rate")
    if not text:
        return DEFAULT_RATE_BYTES
    try:
        rate_bytes = parse_size(text)
    except ValueError as error:
        raise UsageError(f'invalid value "{text}" for flag -rate: {error}') from error
    if 0 < rate_bytes < _LEAST_RATE_BYTES:
        raise UsageError(f'invalid value "{text}" for flag -rate: the least is 64k, because an owner keeps its files')
    return rate_bytes


def _keep(parsed: Parsed) -> int:
    keep = parsed.integer("keep")
    if keep < 0 or (keep == 0 and "keep" in parsed.values):
        raise UsageError(f'invalid value "{keep}" for flag -keep: the new backup itself is the first that is kept')
    if keep and parsed.text("since"):
        raise UsageError("-keep: a backup with -since leaves files out, so it replaces no older one; leave one out")
    return keep


def _path(parsed: Parsed, missing: str) -> Path:
    if not parsed.rest or not parsed.rest[0]:
        raise ShellError(missing)
    if len(parsed.rest) > 1:
        after = next((word for word in parsed.rest[1:] if word.startswith("-")), "")
        raise ShellError("only one backup path allowed" + (f"; put {after} before it" if after else ""))
    return Path(parsed.rest[0])


def _scope(parsed: Parsed) -> Scope:
    shard = parsed.integer("shard")
    if shard < 0 or (shard == 0 and "shard" in parsed.values):
        raise UsageError(f'invalid value "{shard}" for flag -shard: ids of shards begin with 1')
    return Scope(parsed.text("database"), parsed.text("retention"), shard)
