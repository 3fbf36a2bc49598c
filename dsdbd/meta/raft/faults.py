"""Faults of the Raft room: which of them end the node, and how they are told."""

from __future__ import annotations

import errno
from typing import Final

from dsdbd.errors import DSDBError, StorageCorrupt, StorageFull

DISK_FULL: Final = 100
"""Failure code of our own, beside the library's: the leader has no room for another entry."""

_DISK_FULL_ERRNO: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class RaftStopped(Exception):
    """The node met a fault after which it must not go on; ``RaftCore.fatal`` says which."""


class ApplyFailed:
    """Stands for the answer of a command on which the state machine raised."""

    def __init__(self, index: int, error: Exception) -> None:
        self.index = index
        self.error = error


def is_disk_full(error: Exception) -> bool:
    """Tell whether space, or a quota, ran out."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNO


def storage_error(what: str, error: Exception) -> DSDBError:
    """Turn a fault of journal or snapshot into the error that ends the daemon."""
    if is_disk_full(error):
        return StorageFull(f"{what}: the disk is full; free space and start again")
    return StorageCorrupt(f"{what}: {error}; remove this node from the cluster, empty its directory and join it again")
