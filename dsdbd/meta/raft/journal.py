"""The durable Raft log: an append-only file with a barrier that is passed before every promise.

It has the methods the library calls on a journal (their names are the library's). Appending only writes; ``sync`` makes
everything written durable, once for all writers waiting. After a failed fsync nothing is known about the file, so every
later call fails too and the node stops.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, overload

from dsdbd import fsio
from dsdbd.errors import CorruptData
from dsdbd.meta.raft import records
from dsdbd.meta.raft.records import LogEntry, RecordType, Replay

_BEFORE_THE_FIRST: Final = LogEntry(b"", 0, 0)


class Journal:
    """One node's log, term and vote in the file ``path``.

    Made with ``first_members`` when the file does not exist; otherwise the file's own base list counts.
    Raises CorruptData when the file is damaged, OSError when it cannot be read or written.
    """

    def __init__(
        self, path: Path, *, first_members: Sequence[str], sync_file: Callable[[int], None] = os.fdatasync
    ) -> None:
        self.path = path
        self._sync_file = sync_file
        self._failure: OSError | None = None
        self.fsyncs = 0
        self.compactions = 0
        existed = path.exists()
        if existed:
            state = self._load()
        else:
            state = Replay(salt=int.from_bytes(os.urandom(4)), members=tuple(first_members))
            fsio.write_atomic(path, records.encode_journal(state))
        self._salt = state.salt
        self.base_members = state.members
        self._entries = state.entries
        self._term, self._vote = state.term, state.vote
        self._commit_index = self._commit_written = state.commit_index
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size
        # What was read may so far exist only in the page cache of a process that was killed.
        self._unsynced = existed
        self.synced_bytes = 0 if existed else self.size_bytes

    def _load(self) -> Replay:
        data = self.path.read_bytes()
        try:
            state = records.replay(data)
        except CorruptData as error:
            raise CorruptData(f"the Raft journal {self.path} is damaged: {error.message}") from None
        if state.valid_bytes < len(data):
            # A crash before the sync of these bytes; nothing was ever promised about them.
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, state.valid_bytes)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return state

    def _append(self, kind: RecordType, payload: bytes) -> None:
        data = records.encode_record(kind, payload, offset=self.size_bytes, synced=self.synced_bytes, salt=self._salt)
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, "short write", str(self.path))
        except OSError:
            # Never leave half a record in front of the next one.
            os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes += len(data)
        self._unsynced = True

    def sync(self) -> None:
        """Make everything appended durable; raises OSError, and from then on always the same one."""
        if self._failure is not None:
            raise self._failure
        if not self._unsynced:
            return
        try:
            self._sync_file(self._descriptor)
        except OSError as error:
            # The kernel may have dropped the pages and will report success next time: never try again.
            self._failure = error
            raise
        self.fsyncs += 1
        self._unsynced = False
        self.synced_bytes = self.size_bytes

    # --- what this room reads

    @property
    def has_unsynced(self) -> bool:
        """Whether something was appended that is not durable yet."""
        return self._unsynced

    @property
    def last(self) -> LogEntry:
        """The newest entry; one before the first when the log is empty, as a failed snapshot may leave it."""
        return self._entries[-1] if self._entries else _BEFORE_THE_FIRST

    @property
    def first_index(self) -> int:
        """Index of the oldest entry kept."""
        return self._entries[0].log_index

    def at(self, index: int) -> LogEntry | None:
        """Return the entry at log ``index``, or None when the log does not hold it."""
        position = index - self._entries[0].log_index if self._entries else -1
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def after(self, index: int) -> Iterator[LogEntry]:
        """Yield the entries behind log ``index``, newest first."""
        for entry in reversed(self._entries):
            if entry.log_index <= index:
                return
            yield entry

    def close(self) -> None:
        """Sync and close the file; idempotent. Raises OSError when the last sync fails."""
        if self._descriptor < 0:
            return
        try:
            if self._failure is None:
                self.sync()
                # Only a hint, for which a full disk is no fault: with it a node stopped in order knows at its start
                # which entries are settled.
                with contextlib.suppress(OSError):
                    self.onOneSecondTimer()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def abandon(self) -> None:
        """Close the file without a sync: the start has failed and nothing new was promised."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # --- what the library calls

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        entry = LogEntry(bytes(command), idx, term)
        self._append(RecordType.ENTRY, records.entry_payload(entry))
        self._entries.append(entry)

    def clear(self) -> None:
        """Empty the log; a snapshot takes its place."""
        self._append(RecordType.CLEAR, b"")
        self._entries = []

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802  the library's name
        """Keep the first ``position`` entries."""
        self._append(RecordType.TRUNCATE, records.count_payload(position))
        del self._entries[position:]

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802  the library's name
        """Forget the first ``position`` entries: a snapshot that is already durable holds them.

        The library may ask for more than there is; the last two entries always stay, because it reads them.
        A crash before the rename leaves the long file, which the next start aligns with the snapshot.
        """
        if not 0 < position <= len(self._entries) - 2:
            return
        kept = self._entries[position:]
        self.sync()
        state = Replay(
            salt=int.from_bytes(os.urandom(4)),
            entries=kept,
            term=self._term,
            vote=self._vote,
            commit_index=self._commit_index,
            members=self.base_members,
        )
        fsio.write_atomic(self.path, records.encode_journal(state))
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._salt, self._entries = state.salt, kept
        self._commit_written = self._commit_index
        self.size_bytes = self.synced_bytes = os.fstat(self._descriptor).st_size
        self._unsynced = False
        self.compactions += 1

    def setCurrentTerm(self, term: int, vote: str | None) -> None:  # noqa: N802  the library's name
        """Store term and vote durably; only then they count."""
        if (term, vote) == (self._term, self._vote):
            return
        self._append(RecordType.VOTE, records.vote_payload(term, vote))
        self.sync()
        self._term, self._vote = term, vote

    def getCurrentTerm(self) -> int:  # noqa: N802  the library's name
        """Return the stored term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802  the library's name
        """Return the candidate voted for in the stored term."""
        return self._vote

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802  the library's name
        """Remember the commit index; it reaches the file within a second."""
        self._commit_index = index

    def getRaftCommitIndex(self) -> int:  # noqa: N802  the library's name
        """Return the stored commit index, never beyond the log."""
        return min(self._commit_index, self._entries[-1].log_index) if self._entries else 1

    def onOneSecondTimer(self) -> None:  # noqa: N802  the library's name
        """Write the commit index if it moved; a hint that needs no sync of its own."""
        if self._commit_index != self._commit_written:
            unsynced = self._unsynced
            self._append(RecordType.COMMIT, records.count_payload(self._commit_index))
            self._unsynced = unsynced
            self._commit_written = self._commit_index

    def _destroy(self) -> None:
        self.close()
