"""A directory with backups: ``meta.NN`` for each, and directories with the segment files of shards.

``meta.NN`` is written last. Whatever a backup that was broken off leaves has its number or ends in ``.pending``, and
the next backup removes it. So does what is left of an old backup that was being removed, ``meta.NN.pending``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from typing import TYPE_CHECKING

from dsdb_cli.errors import ShellError
from dsdbd import fsio
from dsdbd.backup.keeping import named_paths, outdated
from dsdbd.cluster.archive import decode_manifest, encode_manifest, number_of
from dsdbd.errors import CorruptData, NotFound
from dsdbd.storage.names import escape_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dsdbd.cluster.archive import FileRecord, Manifest, ShardEntry, ShardRecord

PENDING = ".pending"
_SHARD_DIRECTORY = re.compile(r".+\.[0-9]{5,20}\.([0-9]{2,6})(\.pending)?")
_PIECE_BYTES = 1 << 20


class BackupDirectory:
    """The backups below ``path``. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def numbers(self) -> list[int]:
        """Numbers of the backups, oldest first."""
        if not self.path.is_dir():
            return []
        found = (number_of(entry.name) for entry in self.path.iterdir())
        return sorted(number for number in found if number is not None)

    def manifest_path(self, number: int) -> Path:
        """The file ``meta.NN``."""
        return self.path / f"meta.{number:02d}"

    def read(self, number: int) -> Manifest:
        """The manifest of a backup. Raises NotFound, CorruptData."""
        return self._read(self.manifest_path(number))

    def _read(self, path: Path) -> Manifest:
        try:
            return decode_manifest(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no backup {path}") from None
        except CorruptData as error:
            raise CorruptData(f"{path} is not the manifest of a backup: {error.message}") from error

    def newest(self) -> int:
        """The number of the newest backup. Raises NotFound."""
        numbers = self.numbers()
        if not numbers:
            raise NotFound(f"{self.path} holds no backup: there is no file meta.00")
        return numbers[-1]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, and keep others from writing a backup to it. Raises ShellError where one does.

        The lock ends with the process, however that ends.
        """
        fsio.make_dirs(self.path, mode=0o700)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ShellError(f"another backup is being written to {self.path}; wait for it to end") from None
        try:
            yield
        finally:
            os.close(fd)

    def begin(self) -> int:
        """Remove what a backup that was broken off left, and return the number of the next one. Raises CorruptData."""
        self._remove_pending()
        numbers = self.numbers()
        number = numbers[-1] + 1 if numbers else 0
        for entry in self.path.iterdir():
            found = _SHARD_DIRECTORY.fullmatch(entry.name)
            if found is not None and entry.is_dir() and (found[2] or int(found[1]) >= number):
                fsio.remove_tree(entry)
        return number

    def shard_directory(self, shard: ShardEntry | ShardRecord, number: int) -> str:
        """The name of the directory that holds what backup ``number`` copied of a shard."""
        database, policy = escape_name(shard.database), escape_name(shard.policy)
        return f"{database[:100]}.{policy[:100]}.{shard.id:05d}.{number:02d}"

    def finish(self, number: int, manifest: Manifest) -> None:
        """Make the backup one; durable on return. It holds hashes of passwords, so only its owner may read it."""
        path = self.manifest_path(number)
        with naming(path):
            fsio.write_atomic(path, encode_manifest(manifest), mode=0o600)

    def keep(self, most: int) -> list[int]:
        """Remove the backups that are older than the newest ``most`` of the newest one's scope; returns their numbers.

        Files that another backup names stay. A crash leaves manifests with another name, which are no backups any
        more; the next backup removes the rest of their files. Raises CorruptData where a manifest cannot be read, and
        nothing is removed then.
        """
        gone = outdated({number: self.read(number) for number in self.numbers()}, most)
        for number in gone:
            path = self.manifest_path(number)
            path.rename(path.with_name(path.name + PENDING))
        fsio.fsync_dir(self.path)
        self._remove_pending()
        return gone

    def _remove_pending(self) -> None:
        """Remove files that only backups name whose manifests are pending, then these manifests."""
        pending = sorted(self.path.glob(f"meta.*{PENDING}"))
        if not pending:
            return
        kept = named_paths(self.read(number) for number in self.numbers())
        for manifest in pending:
            for name in named_paths([self._read(manifest)]) - kept:
                path = self.path / name
                if ".." in path.parts or _SHARD_DIRECTORY.fullmatch(name.split("/")[0]) is None:
                    continue
                path.unlink(missing_ok=True)
                for directory in (path.parent, path.parent.parent):
                    # It holds other files; or it is gone already.
                    with contextlib.suppress(OSError):
                        directory.rmdir()
            manifest.unlink(missing_ok=True)

    def discard(self, number: int) -> None:
        """Remove what a backup that is not finished has copied, first of all its manifest if that is there already.

        A crash in between leaves files without a manifest, never a manifest without its files.
        """
        self.manifest_path(number).unlink(missing_ok=True)
        fsio.fsync_dir(self.path)
        for entry in self.path.iterdir():
            found = _SHARD_DIRECTORY.fullmatch(entry.name)
            if found is not None and int(found[1]) == number:
                fsio.remove_tree(entry)

    def check(self, file: FileRecord, *, path: Path | None = None) -> None:
        """Read a file from end to end, at ``path`` while it is not in its place yet.

        Raises CorruptData where it is missing, or not the one of the manifest.
        """
        path = self.path / file.path if path is None else path
        try:
            size_bytes, sha256 = checksum(path)
        except FileNotFoundError:
            raise CorruptData(f"{path} is missing, though the backup's manifest names it") from None
        if (size_bytes, sha256) != (file.size_bytes, file.sha256):
            raise CorruptData(
                f"{path} is damaged: it has {size_bytes} bytes and the SHA-256 {sha256}, by the manifest "
                f"{file.size_bytes} bytes and {file.sha256}"
            )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError of the block the name of the file, which that of a full disk does not have."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file as it is on the disk. Raises OSError."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        # What was just written must be read back, not taken from memory, as far as the system follows.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
    return size_bytes, digest.hexdigest()
