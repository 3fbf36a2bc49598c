"""`dsdb restore`: checks a backup's files, sends their rows to a running cluster, and compares what is there then."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dsdb_cli.errors import ShellError
from dsdbd.backup.directory import BackupDirectory
from dsdbd.backup.look import check_files, chosen, held_digests
from dsdbd.backup.opened import opened_shard
from dsdbd.cluster.archive import DatabaseEntry, add_digests, chosen_shards, differing
from dsdbd.cluster.restored import Compared, Preparation, Prepared
from dsdbd.model.columns import Batch, encode_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dsdbd.backup.flags import RestoreOptions
    from dsdbd.backup.link import Link
    from dsdbd.cluster.archive import Digests, Manifest, ShardRecord
    from dsdbd.storage.replica import Replica

_SETTLE_S = 30.0
"""How long owners that missed rows may take to get them before rows are compared one by one."""
_LOOK_S = 1.0


class _Drop(msgspec.Struct):
    reason: str
    count: int


class _Stored(msgspec.Struct):
    dropped: list[_Drop]


class _Digests(msgspec.Struct):
    digests: dict[str, str]


class _Piece(NamedTuple):
    """Some rows of one measurement as a batch in bytes."""

    measurement: str
    rows: int
    body: bytes


class Restore:
    """One run of the program; ``say`` is told each line of its report."""

    def __init__(self, options: RestoreOptions, link: Link, say: Callable[[str], None]) -> None:
        self._options = options
        self._link = link
        self._say = say
        self._directory = BackupDirectory(options.path)
        self._dropped: dict[str, int] = defaultdict(int)
        self._rows = 0

    def run(self) -> None:
        """Restore. Raises ShellError, CorruptData, NotFound, OSError; what was stored till then stays.

        A restore that was broken off is completed by running it again.
        """
        options = self._options
        _, number, manifest = chosen(options, self._say)
        shards = chosen_shards(manifest, options.scope)
        if not any(file.rows for shard in shards for file in shard.files if file.path):
            raise ShellError(f"{self._directory.manifest_path(number)} holds no points there; nothing was restored")
        self._check_files(shards)
        self._prepare(manifest, shards)
        self._say(f"Restoring from backup {self._pattern()}")
        held: dict[tuple[str, str], list[Digests]] = defaultdict(list)
        try:
            for shard in shards:
                place = self._target(shard)
                held[place].append(self._send_shard(shard, place))
        except BaseException:
            self._say(
                f"{self._rows} rows were restored so far; they stay, and running the same restore again adds the rest"
            )
            raise
        for reason, count in self._dropped.items():
            self._say(f"{count} rows were not stored: {reason}")
        found = [self._verify(place, add_digests(digests), shards) for place, digests in held.items()]
        files = sum(1 for shard in shards for file in shard.files if file.path)
        self._say(f"restored {len(shards)} shards: {files} files, {self._rows} rows")
        dropped = sum(self._dropped.values())
        if dropped == self._rows:
            raise ShellError("no row was stored")
        missing = sum(one.missing for one in found) - dropped
        deleted = sum(one.deleted for one in found)
        if missing > 0:
            raise ShellError(f"{missing} of {self._rows} rows are not in the cluster; run the same restore again")
        if deleted:
            raise ShellError(
                f"{deleted} of {self._rows} rows stay deleted, because this cluster deleted them after they were "
                "written. Restore under a new name with -newdb to have them back."
            )
        self._say("restore complete")

    # --- before

    def _check_files(self, shards: list[ShardRecord]) -> None:
        """Read every file. Raises CorruptData with all that are missing or damaged."""
        check_files(self._directory, shards, "nothing was restored")
        missing = sum(1 for shard in shards for file in shard.files if not file.path)
        if missing:
            self._say(
                f"{missing} files of earlier times are not in this backup, which was made with -since: restore an "
                "earlier backup, too"
            )

    def _prepare(self, manifest: Manifest, shards: list[ShardRecord]) -> None:
        """Make what is missing in the cluster's metadata."""
        scope = self._options.scope
        policies = {shard.policy for shard in shards} if scope.shard else {scope.retention} - {""}
        databases = [
            DatabaseEntry(
                one.name,
                [policy for policy in one.policies if not policies or policy.name in policies],
                [] if policies else one.continuous_queries,
            )
            for one in manifest.databases
            if scope.database in ("", one.name)
        ]
        wanted = Preparation(databases, [] if scope.database else manifest.users, self._options.new_database)
        done = self._link.ask("POST", "/cluster/restore", Prepared, body=msgspec.json.encode(wanted))
        for what in done.made:
            self._say(f"created {what}")
        for what in done.kept:
            self._say(what)
        if self._options.new_database and any(one.continuous_queries for one in databases):
            self._say("continuous queries name databases, so they are not restored under a new name")

    def _pattern(self) -> str:
        scope = self._options.scope
        return f"{self._directory.path}/" + ".".join(part for part in (scope.database, scope.retention, "*") if part)

    def _target(self, shard: ShardRecord) -> tuple[str, str]:
        return self._options.new_database or shard.database, shard.policy

    # --- rows

    def _send_shard(self, shard: ShardRecord, place: tuple[str, str]) -> Digests:
        """Send every row of a shard; returns the digests of what its files hold."""
        self._say(f"restoring db={place[0]} rp={place[1]} shard={shard.id}")
        with opened_shard(self._directory.path, shard) as replica:
            digests = held_digests(replica, shard)
            for name in sorted(digests):
                for piece in _pieces(replica, shard, name):
                    self._send(piece, place)
        return digests

    def _send(self, piece: _Piece, place: tuple[str, str]) -> None:
        parameters = {"database": place[0], "retention": place[1], "consistency": self._options.consistency}
        answer = self._link.ask("POST", "/cluster/restore/points", _Stored, parameters, piece.body)
        self._rows += piece.rows
        for one in answer.dropped:
            self._dropped[one.reason] += one.count

    # --- after

    def _verify(self, place: tuple[str, str], expected: Digests, shards: list[ShardRecord]) -> Compared:
        """Compare a policy with what was sent; returns which of the rows cannot be read there.

        Where the policy holds nothing else its digests are the same. Where it does, each row is looked for; owners that
        missed some have a while to get them.
        """
        parameters = {"database": place[0], "retention": place[1]}
        deadline_s = time.monotonic() + _SETTLE_S
        while True:
            found = self._link.ask("GET", "/cluster/restore/digests", _Digests, parameters).digests
            wrong = differing(expected, found)
            if not wrong:
                self._say(f"verified {place[0]}.{place[1]}: its points have the digests of the backup")
                return Compared()
            compared = self._compare(place, set(wrong) & expected.keys(), shards)
            if not compared.missing and not compared.deleted:
                self._say(f"verified {place[0]}.{place[1]}: every row is there, among others")
            if compared.missing <= sum(self._dropped.values()) or time.monotonic() > deadline_s:
                return compared
            time.sleep(_LOOK_S)

    def _compare(self, place: tuple[str, str], measurements: set[str], shards: list[ShardRecord]) -> Compared:
        parameters = {"database": place[0], "retention": place[1]}
        found = []
        for shard in shards:
            if self._target(shard) == place:
                with opened_shard(self._directory.path, shard) as replica:
                    found += [
                        self._link.ask("POST", "/cluster/restore/compare", Compared, parameters, piece.body)
                        for name in sorted(measurements)
                        for piece in _pieces(replica, shard, name)
                    ]
        return Compared(sum(one.missing for one in found), sum(one.deleted for one in found))


def _pieces(replica: Replica, shard: ShardRecord, measurement: str) -> Iterator[_Piece]:
    """The rows of a measurement with their versions, without what is deleted, in pieces for one request each."""
    for points in replica.export(measurement, None, min_ns=shard.start_ns, max_ns=shard.end_ns - 1, below=None):
        if len(points):
            yield _Piece(measurement, len(points), encode_batch(Batch(points.newest_version(0), (points,))))
