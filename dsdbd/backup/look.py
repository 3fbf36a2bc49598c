"""Looking at a directory of backups without a cluster: what there is, and whether it is as it was written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dsdbd.backup.directory import BackupDirectory
from dsdbd.backup.opened import opened_shard
from dsdbd.cluster.archive import Scope, chosen_shards, differing, grid_digests
from dsdbd.errors import CorruptData, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsdbd.backup.flags import RestoreOptions
    from dsdbd.cluster.archive import Digests, Manifest, ShardRecord
    from dsdbd.storage.replica import Replica


def chosen(options: RestoreOptions, say: Callable[[str], None]) -> tuple[BackupDirectory, int, Manifest]:
    """The backup that a command line names, the newest one where it names none; what it is is said.

    Raises NotFound, CorruptData.
    """
    directory = BackupDirectory(options.path)
    number = directory.newest() if options.number is None else options.number
    manifest = directory.read(number)
    say(f"Using metastore snapshot: {directory.manifest_path(number)}")
    if options.number is None and manifest.scope != Scope():
        older = next((one for one in reversed(directory.numbers()) if _is_everything(directory, one)), None)
        hint = (
            ""
            if older is None
            else f"; the newest of everything is {directory.manifest_path(older).name}, -number {older}"
        )
        say(f"{directory.manifest_path(number).name} is a backup of {scope_text(manifest.scope)} only{hint}")
    return directory, number, manifest


def _is_everything(directory: BackupDirectory, number: int) -> bool:
    try:
        return directory.read(number).scope == Scope()
    except (CorruptData, NotFound):
        return False


def list_backups(options: RestoreOptions, show: Callable[[str], None]) -> None:
    """Show one line for each backup. Raises NotFound where there is none, CorruptData."""
    directory = BackupDirectory(options.path)
    directory.newest()
    for number in directory.numbers():
        show(f"{directory.manifest_path(number).name}  {described(directory.read(number))}")


def verify_backup(options: RestoreOptions, say: Callable[[str], None]) -> None:
    """Read a backup, or a part of it, as a restore would. Raises NotFound, CorruptData, OSError."""
    directory, _, manifest = chosen(options, say)
    shards = chosen_shards(manifest, options.scope)
    check_files(directory, shards, "")
    for shard in shards:
        with opened_shard(directory.path, shard) as replica:
            held_digests(replica, shard)
    files = [file for shard in shards for file in shard.files if file.path]
    left_out = sum(1 for shard in shards for file in shard.files if not file.path)
    say(
        f"verified {len(shards)} shards: {len(files)} files, {sum(file.rows for file in files)} rows are as they were "
        "written" + (f"; {left_out} files are not in this backup, because of -since" if left_out else "")
    )


def check_files(directory: BackupDirectory, shards: Sequence[ShardRecord], outcome: str) -> None:
    """Read every file. Raises CorruptData with all that are missing or damaged, and ``outcome`` below them."""
    wrong: list[str] = []
    for shard in shards:
        for file in shard.files:
            if file.path:
                try:
                    directory.check(file)
                except CorruptData as error:
                    wrong.append(error.message)
    if wrong:
        raise CorruptData("\n".join([*wrong, *([outcome] if outcome else [])]))


def held_digests(replica: Replica, shard: ShardRecord) -> Digests:
    """What the files of a shard hold. Raises CorruptData where they do not hold what they held at their owner."""
    digests = grid_digests(replica.digests())
    if shard.whole and shard.digests is not None and (wrong := differing(shard.digests, digests)):
        raise CorruptData(
            f"the files of shard {shard.id} do not hold what they held when they were copied: measurement "
            f"{wrong[0]} differs"
        )
    return digests


def described(manifest: Manifest) -> str:
    """A backup in one line: when, of what, how much."""
    files = [file for shard in manifest.shards for file in shard.files]
    taken = datetime.fromtimestamp(manifest.taken_ns // 10**9, UTC)
    left_out = sum(1 for file in files if not file.path)
    return (
        f"{taken:%Y-%m-%dT%H:%M:%SZ}  {scope_text(manifest.scope)}: {len(manifest.shards)} shards, {len(files)} files, "
        f"{sum(file.rows for file in files)} rows, {sum(file.size_bytes for file in files)} bytes"
        + (f"; without {left_out} files of before -since" if left_out else "")
        + ("; metadata of one node" if manifest.stale else "")
    )


def scope_text(scope: Scope) -> str:
    """What of a cluster is meant, in words."""
    if not scope.database:
        return f"shard {scope.shard}" if scope.shard else "everything"
    name = scope.database + (f".{scope.retention}" if scope.retention else "")
    return f"shard {scope.shard} of {name}" if scope.shard else name
