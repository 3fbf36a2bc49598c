"""`dsdb backup`: copies the shards of a running cluster, reads every copy back, and writes the manifest last."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet as pq

from dsdb_cli.errors import BadAnswer, ConnectionFailed, ShellError
from dsdbd import fsio
from dsdbd.backup.directory import PENDING, BackupDirectory, naming
from dsdbd.backup.link import Link, Refused
from dsdbd.backup.opened import opened_shard
from dsdbd.cluster.archive import (
    FORMAT,
    Contents,
    FileRecord,
    Manifest,
    OpenedShard,
    ShardEntry,
    ShardRecord,
    differing,
    grid_digests,
)
from dsdbd.cluster.transfer_plan import Rate
from dsdbd.errors import CorruptData, NoLeader, NotFound
from dsdbd.storage.names import escape_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dsdbd.backup.flags import BackupOptions
    from dsdbd.cluster.archive import ListedFile

_TRIES = 3
"""How often a file is fetched, and a shard opened anew where its owner went away meanwhile."""


class _Identity(NamedTuple):
    """What tells a segment file from all others of a cluster.

    An owner uses a name for one content only, until it starts again: then names of files that are gone come again.
    """

    uuid: str
    shard: int
    measurement: str
    name: str
    size_bytes: int
    rows: int
    modified_ns: int


class Backup:
    """One run of the program; ``say`` is told each line of its report."""

    def __init__(self, options: BackupOptions, link: Link, say: Callable[[str], None]) -> None:
        self._options = options
        self._link = link
        self._say = say
        self._directory = BackupDirectory(options.path)
        self._number = 0
        self._held: dict[_Identity, FileRecord] = {}
        self._owners: dict[int, int] = {}
        self._rate = Rate(options.rate_bytes)
        self._copied_files = 0
        self._copied_bytes = 0

    def run(self) -> None:
        """Make the backup. Raises ShellError, CorruptData, OSError; then the directory holds what it held before.

        A crash leaves files without a manifest, which the next backup removes.
        """
        scope = self._options.scope
        parameters = {"database": scope.database, "retention": scope.retention, "shard": scope.shard}
        contents = self._contents({**parameters, "stale": "true" if self._options.stale else ""})
        with self._directory.locked():
            self._number = self._directory.begin()
            self._read_earlier(contents.cluster_id)
            try:
                shards = self._take_shards(contents.shards)
                self._finish(contents, shards)
            except BaseException:
                self._directory.discard(self._number)
                self._say("no backup was made: what was copied is removed, earlier backups are as they were")
                raise
            gone = self._directory.keep(self._options.keep) if self._options.keep else []
        self._report(shards, gone)

    def _contents(self, parameters: dict[str, object]) -> Contents:
        """What there is to be copied. Raises what a request does."""
        try:
            contents = self._link.ask("GET", "/cluster/backup", Contents, parameters)
        except Refused as error:
            if error.error_code != NoLeader.code:
                raise
            raise Refused(
                error.status,
                error.error_code,
                f"{error.message}; with -stale a backup takes the metadata as {self._link.url} knows them",
            ) from error
        if self._options.stale:
            self._say(
                f"metadata are taken as {self._link.url} knows them: databases, users and shards that others made a "
                "moment ago may be missing"
            )
        return contents

    def _finish(self, contents: Contents, shards: list[ShardRecord]) -> None:
        """Write the manifest. Raises ShellError where the backup would hold nothing."""
        scope = self._options.scope
        if not any(file.rows for shard in shards for file in shard.files):
            holder = f"database {scope.database}" if scope.database else "the cluster"
            raise ShellError(f"there is nothing to back up: {holder} holds no points")
        manifest = Manifest(
            FORMAT,
            contents.cluster_id,
            contents.version,
            contents.taken_ns,
            scope,
            self._options.since_ns,
            contents.databases,
            contents.users,
            shards,
            self._options.stale,
        )
        self._say(f"backing up metastore to {self._directory.manifest_path(self._number)}")
        self._directory.finish(self._number, manifest)

    def _read_earlier(self, cluster_id: str) -> None:
        """Take note of the files that earlier backups hold, unless all are to be copied anew."""
        for number in self._directory.numbers():
            manifest = self._directory.read(number)
            if manifest.cluster_id != cluster_id:
                raise ShellError(
                    f"{self._options.path} holds backups of cluster {manifest.cluster_id}, this is cluster "
                    f"{cluster_id}: give another directory"
                )
            for shard in manifest.shards:
                self._owners[shard.id] = shard.owner
                for file in shard.files:
                    if file.path and not self._options.full:
                        self._held[_identity(shard, file)] = file

    def _take_shards(self, shards: list[ShardEntry]) -> list[ShardRecord]:
        taken: list[ShardRecord] = []
        policy = ""
        for entry in shards:
            if entry.policy != policy:
                policy = entry.policy
                self._say(f"backing up rp={policy}{self._since()}")
            path = self._directory.path / self._directory.shard_directory(entry, self._number)
            self._say(f"backing up db={entry.database} rp={policy} shard={entry.id} to {path}{self._since()}")
            record = self._take_shard(entry, path)
            if record is not None:
                taken.append(record)
        return taken

    def _since(self) -> str:
        if self._options.since_ns is None:
            return ""
        moment = datetime.fromtimestamp(self._options.since_ns // 10**9, UTC)
        return f" since {moment:%Y-%m-%d %H:%M:%S} +0000 UTC"

    # --- one shard

    def _take_shard(self, entry: ShardEntry, path: Path) -> ShardRecord | None:
        """One shard, copied and checked; its directory is there when it has a new file. Opens it anew when that fails.

        None where it expired or was dropped since the backup began, unless the backup is of this shard.
        A file that an earlier backup took for the same may be another one, when the shard left a node and came back:
        then what the files hold differs from what the owner says, and all are copied.
        """
        resource = f"/cluster/backup/shards/{entry.id}"
        pending = path.with_name(path.name + PENDING)
        tries = 0
        while True:
            tries += 1
            try:
                opened = self._link.ask("POST", resource, OpenedShard, {"prefer": self._owners.get(entry.id, 0)})
            except Refused as error:
                if (error.status, error.error_code) != (404, NotFound.code) or self._options.scope.shard:
                    raise
                self._say(f"shard {entry.id} was dropped meanwhile; left out")
                return None
            try:
                record = self._copy_shard(entry, opened, pending, path.name)
                self._verify(record, pending)
            except (CorruptData, ConnectionFailed, BadAnswer, Refused) as error:
                fsio.remove_tree(pending)
                if tries == _TRIES or (isinstance(error, Refused) and error.status not in (404, 503, 504)):
                    raise
                self._say(f"copying shard {entry.id} again: {error.message.splitlines()[0]}")
                self._held = {one: file for one, file in self._held.items() if one.shard != entry.id}
            else:
                break
        if pending.exists():
            pending.rename(path)
            fsio.fsync_dir(path.parent)
        if not opened.clean:
            self._say(
                f"shard {entry.id}: no majority of its owners answers; data node {opened.owner} was copied as it is"
            )
        return record

    def _copy_shard(self, entry: ShardEntry, opened: OpenedShard, pending: Path, name: str) -> ShardRecord:
        place: dict[str, object] = {"owner": opened.owner, "token": opened.token}
        try:
            files = [self._copy_file(entry, opened, index, pending, name) for index, _ in enumerate(opened.files)]
        finally:
            self._let_go(f"/cluster/backup/shards/{entry.id}", place)
        return ShardRecord(
            entry.id,
            entry.database,
            entry.policy,
            entry.start_ns,
            entry.end_ns,
            opened.owner,
            opened.uuid,
            opened.clean,
            files,
            opened.tombstones,
            opened.digests,
        )

    def _let_go(self, resource: str, place: dict[str, object]) -> None:
        """End the hold on the owner's files; where that fails it ends by itself."""
        try:
            self._link.tell("DELETE", resource, place)
        except (ConnectionFailed, BadAnswer, Refused) as error:
            self._say(f"the owner keeps files for another minute: {error.message.splitlines()[0]}")

    def _copy_file(self, entry: ShardEntry, opened: OpenedShard, index: int, pending: Path, name: str) -> FileRecord:
        file = opened.files[index]
        known = self._held.get(_Identity(opened.uuid, entry.id, *_listed(file)))
        if known is not None:
            # Checked once the owner's files are let go: its hold ends while nothing is fetched for minutes.
            return known
        since_ns = self._options.since_ns
        if since_ns is not None and file.modified_ns < since_ns:
            return FileRecord(file.measurement, file.name, "", file.size_bytes, file.rows, "", file.modified_ns)
        relative = f"{escape_name(file.measurement)}/{file.name}"
        fsio.make_dirs((pending / relative).parent, mode=0o700)
        parameters = {"owner": opened.owner, "token": opened.token}
        sha256 = self._fetch(f"/cluster/backup/shards/{entry.id}/files/{index}", parameters, file, pending / relative)
        self._copied_files += 1
        self._copied_bytes += file.size_bytes
        return FileRecord(
            file.measurement,
            file.name,
            f"{name}/{relative}",
            file.size_bytes,
            file.rows,
            sha256,
            file.modified_ns,
        )

    def _fetch(self, resource: str, parameters: dict[str, object], file: ListedFile, path: Path) -> str:
        """Write an owner's file to ``path``, durably; returns its SHA-256."""
        digest = hashlib.sha256()
        with naming(path), path.open("wb") as target:

            def take(piece: bytes) -> None:
                digest.update(piece)
                target.write(piece)
                time.sleep(self._rate.wait_s(len(piece), time.monotonic()))

            self._link.fetch(resource, parameters, file.size_bytes, take)
            target.flush()
            os.fsync(target.fileno())
        fsio.fsync_dir(path.parent)
        return digest.hexdigest()

    # --- checks

    def _verify(self, record: ShardRecord, pending: Path) -> None:
        """Read back what was copied, now or earlier, and compare what all files hold with what the owner said.

        Raises CorruptData.
        """
        begin = pending.name.removesuffix(PENDING) + "/"
        fresh = [file for file in record.files if file.path.startswith(begin)]
        for file in record.files:
            if file.path and not file.path.startswith(begin):
                self._directory.check(file)
        for file in fresh:
            path = _below(pending, file)
            self._directory.check(file, path=path)
            rows = pq.read_metadata(path).num_rows
            if rows != file.rows:
                raise CorruptData(f"{path} has {rows} rows, its owner says {file.rows}")
        if not record.whole:
            return
        paths = {file.path: _below(pending, file) for file in fresh}
        with opened_shard(self._directory.path, record, paths) as replica:
            found = grid_digests(replica.digests())
        if record.digests is None:
            self._say(f"shard {record.id} is being written to; its files are checked, but not compared with its owner")
        elif wrong := differing(record.digests, found):
            raise CorruptData(
                f"the copied files of shard {record.id} do not hold the points that data node {record.owner} says: "
                f"measurement {wrong[0]} differs" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            )

    def _report(self, shards: list[ShardRecord], gone: list[int]) -> None:
        files = [file for shard in shards for file in shard.files if file.path]
        rows, size_bytes = sum(file.rows for file in files), sum(file.size_bytes for file in files)
        self._say(
            f"verified {len(shards)} shards: {len(files)} files, {rows} rows, {size_bytes} bytes; copied now "
            f"{self._copied_files} files, {self._copied_bytes} bytes"
        )
        missing = [file for shard in shards for file in shard.files if not file.path]
        if missing:
            self._say(
                f"{len(missing)} files with {sum(file.rows for file in missing)} rows were written before the time of "
                f"-since and are not in {self._options.path}: restore an earlier backup first"
            )
        if gone:
            names = ", ".join(self._directory.manifest_path(number).name for number in gone)
            self._say(f"removed older backups but the newest {self._options.keep}: {names}")
        self._say("backup complete")


def _identity(shard: ShardRecord, file: FileRecord) -> _Identity:
    return _Identity(shard.uuid, shard.id, *_listed(file))


def _listed(file: FileRecord | ListedFile) -> tuple[str, str, int, int, int]:
    return file.measurement, file.name, file.size_bytes, file.rows, file.modified_ns


def _below(pending: Path, file: FileRecord) -> Path:
    """Where a file is as long as its directory has the name of one that is not finished."""
    return pending / file.path.split("/", 1)[1]
