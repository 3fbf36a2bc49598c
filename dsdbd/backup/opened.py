"""The files of a backup as a shard of the storage engine: the same code reads them that reads a node's own."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsdbd.backup.directory import naming
from dsdbd.errors import CorruptData
from dsdbd.storage import ShardKey, StoreSettings
from dsdbd.storage.merging import segment_name
from dsdbd.storage.names import escape_name
from dsdbd.storage.replica import Replica
from dsdbd.storage.shard import Shard
from dsdbd.storage.shard_files import TOMBSTONES_FILE
from dsdbd.storage.tombstones import decode_tombstones, encode_tombstones

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dsdbd.cluster.archive import ShardRecord

_SETTINGS = StoreSettings(read_cache_bytes=64 << 20)


@contextlib.contextmanager
def opened_shard(
    directory: Path, record: ShardRecord, elsewhere: Mapping[str, Path] | None = None
) -> Iterator[Replica]:
    """The files of a shard that are below ``directory``, together with its deletions, for reading.

    ``elsewhere``: where a file is that is not in its place yet, by the path of its record.

    The engine works on links in a directory of its own, so nothing it does changes the backup; the files get new
    numbers, because those of several nodes may meet. Raises CorruptData, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="dsdb-backup-") as scratch:
        root = Path(scratch)
        numbers: dict[str, int] = {}
        for file in record.files:
            if file.path:
                number = numbers[file.measurement] = numbers.get(file.measurement, 0) + 1
                link = root / escape_name(file.measurement) / segment_name(number, number)
                link.parent.mkdir(exist_ok=True)
                link.symlink_to((elsewhere or {}).get(file.path, directory / file.path).resolve())
        tombstones = [
            replace(one, files=frozenset((at, at) for at in range(1, numbers.get(one.measurement, 0) + 1)))
            for one in decode_tombstones(bytes(record.tombstones))
        ]
        with naming(root):
            (root / TOMBSTONES_FILE).write_bytes(encode_tombstones(tombstones))
        notes: list[str] = []
        key = ShardKey(record.database, record.policy, record.id)
        shard = Shard(key, root, _SETTINGS, notes.append)
        shard.load()
        if notes:
            raise CorruptData(f"a file of shard {record.id} cannot be read: {notes[0]}")
        yield Replica(shard, record.start_ns, record.end_ns)
        if notes:
            raise CorruptData(f"a file of shard {record.id} is damaged: {notes[0]}")
