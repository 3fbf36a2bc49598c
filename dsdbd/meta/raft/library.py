"""The only door to pysyncobj: its names, its configuration, and the replacement of its pickles.

pysyncobj 0.3.17 unpickles whatever reaches it, so importing this module replaces every serialisation function it uses
by MessagePack and its own ``pickle`` by an object that refuses. tests/raft/test_library.py fails when a file of the
library, or a private name that this room overrides, changes.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final, NoReturn

import pysyncobj.journal as _journal
import pysyncobj.pickle as _pickle
import pysyncobj.syncobj as _syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.config import SERIALIZER_STATE
from pysyncobj.node import Node, TCPNode
from pysyncobj.transport import Transport

from dsdbd import limits
from dsdbd.meta.raft import codec
from dsdbd.meta.raft.api import RaftTimings

__all__ = [
    "CANDIDATE",
    "ENTRY_COMMAND",
    "ENTRY_MEMBERSHIP",
    "FAIL_REASON",
    "FOLLOWER",
    "LEADER",
    "SERIALIZER_STATE",
    "Node",
    "SyncObj",
    "TCPNode",
    "Transport",
    "fail_reason_name",
    "make_configuration",
    "monotonic_s",
]

FOLLOWER: Final = 0
CANDIDATE: Final = 1
LEADER: Final = 2

JOURNAL_GROWTH_BYTES: Final = limits.MAX_RAFT_JOURNAL_BYTES

ENTRY_COMMAND: Final = 0
ENTRY_MEMBERSHIP: Final = 2
"""First byte of a log entry; 1 is the no-op of a new leader, 3 (code versions) is never used."""

_FAIL_NAMES: Final = {value: name for name, value in vars(FAIL_REASON).items() if isinstance(value, int)}


def monotonic_s() -> float:
    """Return the library's clock, so that this room and the library always see the same time."""
    return float(_syncobj.monotonicTime())


def fail_reason_name(reason: int) -> str:
    """Name of one of the library's failure codes, such as ``MISSING_LEADER``."""
    return str(_FAIL_NAMES.get(reason, f"UNKNOWN_{reason}"))


def make_configuration(timings: RaftTimings, *, compact_entries: int, chunk_bytes: int) -> Any:
    """Build the library's configuration: no thread, no fork, no password, no code versions of its own."""
    timings.validate()
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        dynamicMembershipChange=True,
        useFork=False,
        commandsWaitLeader=False,
        commandsQueueSize=limits.MAX_RAFT_PROPOSALS,
        appendEntriesPeriod=timings.append_period_s,
        raftMinTimeout=timings.election_timeout_s,
        raftMaxTimeout=2 * timings.election_timeout_s,
        leaderFallbackTimeout=timings.leader_lease_s,
        connectionTimeout=timings.dead_after_s,
        appendEntriesBatchSizeBytes=1 << 20,
        logCompactionBatchSize=chunk_bytes,
        logCompactionMinEntries=compact_entries,
        logCompactionMinTime=3600,
        logCompactionSplit=False,
        password=None,
    )


def _dumps(obj: object, _protocol: int | None = None) -> bytes:
    return codec.encode(obj)


def _dump(obj: object, file: BinaryIO, _protocol: int | None = None) -> None:
    file.write(codec.encode(obj))


def _load(file: BinaryIO) -> Any:
    return codec.decode(file.read())


class _Forbidden:
    """Stands where the library keeps the standard pickle module: a missed use is loud, never silent."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"pysyncobj reached for pickle.{name}; DSDB never pickles")


class _NoPoller:
    """The library's own sockets are never used, so its poll system call is saved on every tick."""

    def poll(self, _timeout_s: float) -> None:
        """Wait for nothing."""


def _install() -> None:
    """Replace what the library calls by name; a name bound by ``from … import`` is replaced where it was bound."""
    for name, function in (("dumps", _dumps), ("loads", codec.decode), ("dump", _dump), ("load", _load)):
        setattr(_pickle, name, function)
    _pickle.pickle = _Forbidden()
    _journal.dumps, _journal.loads = _dumps, codec.decode
    # The configuration's journalFile carries a journal object instead of a path.
    _syncobj.createJournal = lambda journal: journal
    _syncobj.createPoller = lambda _kind: _NoPoller()


_install()
