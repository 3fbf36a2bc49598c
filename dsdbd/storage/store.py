"""The store of one node: every shard it owns, the log in front of them, and the threads that serve both."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dsdbd import fsio
from dsdbd.errors import (
    DiskFull,
    DSDBError,
    OutcomeUnknown,
    Overloaded,
    ShardUnavailable,
    StorageCorrupt,
    StorageFull,
)
from dsdbd.limits import LATE_BATCH_NS
from dsdbd.model.columns import Batch, encode_batch
from dsdbd.storage.cache import ColumnCache
from dsdbd.storage.compactor import Compactor
from dsdbd.storage.deleting import deleted_in_files
from dsdbd.storage.flusher import Flusher
from dsdbd.storage.forgetting import Forgetter
from dsdbd.storage.log_mark import open_marks
from dsdbd.storage.names import escape_name
from dsdbd.storage.opener import Opener
from dsdbd.storage.replay import replay_log
from dsdbd.storage.replica import Replica
from dsdbd.storage.settings import ShardKey, StoreSettings
from dsdbd.storage.shard import Shard
from dsdbd.storage.shard_files import found_shards, remove_empty_parents
from dsdbd.storage.tombstones import Tombstone
from dsdbd.storage.waiting import Waiting
from dsdbd.storage.wal import LOOK_FOR_SPACE_S, LogWriter, is_disk_full, log_files, remove_before
from dsdbd.storage.wal_format import Kind, Record

_MAX_PROBLEMS = 100
"""Sentences kept for problems(); when more happen the oldest go, they are in the daemon's log as well."""
_CATCH_UP_S = 0.05
"""How long a replay rests while it waits for heads to be written out."""


class Store:
    """Shards by id. Every method may be called from any thread."""

    def __init__(
        self,
        *,
        data_dir: Path,
        wal_dir: Path,
        settings: StoreSettings | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
        on_problem: Callable[[str], None] = lambda _: None,
        on_damaged: Callable[[int], None] = lambda _: None,
        late_ns: Callable[[], int] = lambda: LATE_BATCH_NS,
        settled: Callable[[int], int] | None = None,
    ) -> None:
        """Nothing is touched before ``open``; ``late_ns`` says how long after its version a batch may arrive.

        ``settled`` gives, by shard id, the version up to which every owner has the same: of greater ones deletions are
        not forgotten. None: there is no other owner to wait for.
        ``on_fatal`` is called once, from a thread of the store, when the log cannot be trusted any more and the process
        should stop; ``on_problem`` with each sentence that problems() also shows; ``on_damaged``, from any
        thread, with the id of each shard that has lost rows to a damaged file.
        """
        self._data_dir = data_dir
        self._wal_dir = wal_dir
        self._settings = settings or StoreSettings()
        self._on_fatal = on_fatal
        self._on_problem, self._on_damaged = on_problem, on_damaged
        self._lock = threading.Lock()
        self._shards: dict[int, Shard] = {}
        self._problems: deque[str] = deque(maxlen=_MAX_PROBLEMS)
        self._trim_failure = ""
        self._fatal: BaseException | None = None
        self._queue: deque[Waiting] = deque()
        self._queue_bytes = 0
        self._work = threading.Condition(threading.Lock())
        self._closing = False
        self._roll_due = False
        self._trim_due = False
        self._log: LogWriter | None = None
        self._log_id = ""
        self._threads: list[threading.Thread] = []
        self._cache = ColumnCache(self._settings.read_cache_bytes)
        self._compactor = Compactor(self.shards, self._settings)
        self._flusher = Flusher(self.shards, self._settings, data_dir, self._compactor, self._after_flushing)
        self._opener = Opener(self.shards, self._cache, data_dir)
        self._forgetter = Forgetter(self.shards, wal_dir, late_ns, settled)
        self._counts = {"writes": 0, "rows": 0, "groups": 0, "overloaded": 0, "disk_full": 0}

    # --- life

    def open(self, progress: Callable[[str], None]) -> None:
        """Find the shards, replay the log, start the threads.

        Raises StorageFull when the directories cannot be created for lack of space, StorageCorrupt when the disk
        cannot be read; damaged files are set aside and named in problems().
        """
        try:
            fsio.make_dirs(self._data_dir)
            fsio.make_dirs(self._wal_dir)
            for key, directory in found_shards(self._data_dir, self._directory, self._note):
                self._shards[key.shard_id] = self._make_shard(key, directory)
            progress(f"{len(self._shards)} shards found in {self._data_dir}")
            newest = max((number for number, _ in log_files(self._wal_dir)), default=0)
            self._log_id = open_marks(self._wal_dir, newest, self.shards())
            # Heads that grow too big during the replay are written out beside it.
            self._start_thread("dsdb-flush", self._flusher.run)
            self._start_thread("dsdb-merge", self._compactor.run)
            replayed = replay_log(
                self._wal_dir, self._shard_for, wait=self._wait_for_memory, note=self._note, progress=progress
            )
        except OSError as error:
            self.close()
            if is_disk_full(error):
                raise StorageFull(f"storage cannot start: no space for {self._data_dir} or {self._wal_dir}") from error
            raise StorageCorrupt(
                f"storage cannot start: {error}; check the disk under {self._data_dir} and {self._wal_dir}"
            ) from error
        self._log = LogWriter(self._wal_dir, replayed.newest, self._settings.wal_segment_bytes)
        self._start_thread("dsdb-log", self._log_loop)
        self._start_thread("dsdb-open", self._opener.run)
        if replayed.rows or replayed.skipped:
            # They may all be in segments already, then the files they came from can go.
            self._trim_due = True
            self._flusher.wake()

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _wait_for_memory(self) -> None:
        """Let the thread that writes out catch up; where it cannot, the rows stay in memory and in the log."""
        self._flusher.count()
        while self._flusher.head_bytes > self._settings.head_hard_bytes and not self._flusher.failures:
            time.sleep(_CATCH_UP_S)
            self._flusher.count()

    def close(self, write_out_s: float = 0.0) -> None:
        """Finish what is queued and stop the threads; rows in memory stay in the log and come back at the next open.

        ``write_out_s``: time for writing them to segments instead, so that the next open finds an empty log. What is
        begun then is finished.
        """
        with self._work:
            self._closing = True
            self._work.notify_all()
        self._flusher.stop()
        self._compactor.stop()
        self._opener.stop()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._opener.remember()
        if self._log is not None:
            if write_out_s > 0 and self._fatal is None:
                self._write_out(self._log, time.monotonic() + write_out_s)
            self._log.close()

    def _write_out(self, log: LogWriter, deadline_s: float) -> None:
        """Leave as little in the log as there is time for. A crash anywhere leaves the log, or what replaces it."""
        for shard in sorted(self.shards(), key=lambda shard: -shard.head_bytes):
            if time.monotonic() < deadline_s:
                self._flusher.write_out(shard)
        try:
            if self._all_written():
                log.roll()
            self._trim_log()
        except (OSError, DiskFull) as error:
            self._note(f"log files in {self._wal_dir} are left for the next start: {error}")

    # --- writing

    def submit(self, key: ShardKey, batch: Batch, encoded: bytes | None = None) -> Future[None]:
        """Queue a batch for a shard, which is created when it does not exist; ``encoded``: the batch's bytes, if known.

        The future is done when the batch is on stable storage and visible to scans. It fails with DiskFull,
        FieldTypeConflict (nothing was stored) or OutcomeUnknown. Raises Overloaded, ShardUnavailable at once.
        """
        payload = encode_batch(batch) if encoded is None else encoded
        try:
            self._shard_for(key).load()
        except OSError as error:
            raise ShardUnavailable(f"shard {key.shard_id} cannot be read: {error}; check the disk") from error
        return self._enqueue(Waiting(Record(Kind.WRITE, key, payload), batch, Future()))

    def delete(self, key: ShardKey, tombstones: Sequence[Tombstone]) -> None:
        """Delete points of a shard; on return that is on stable storage and no scan shows them. Blocks.

        The shard's own file is enough for that. The record tells a replay from where on fields may have other types.
        Raises Overloaded, DiskFull, ShardUnavailable or OutcomeUnknown; the call may be repeated.
        """
        self.delete_all([(key, tombstones)])

    def delete_all(self, wanted: Sequence[tuple[ShardKey, Sequence[Tombstone]]]) -> None:
        """Delete points of several shards one after another; their records share a sync of the log. As ``delete``."""
        done: list[Waiting] = []
        try:
            for record, names in deleted_in_files(wanted, self._shard_for):
                done.append(Waiting(record, None, Future(), names))
        finally:
            # Also where a later shard failed: what its file says is done.
            for future in [self._enqueue(one) for one in done]:
                future.result()

    def _enqueue(self, waiting: Waiting) -> Future[None]:
        size = len(waiting.record.payload)
        with self._work:
            if self._fatal is not None or self._closing or self._log is None:
                why = f"its log failed: {self._fatal}" if self._fatal is not None else "it is not open"
                raise ShardUnavailable(f"storage does not take writes: {why}")
            waits = self._queue_bytes + size > self._settings.queue_max_bytes and self._queue
            full = waits or self._flusher.head_bytes + self._queue_bytes > self._settings.head_hard_bytes
            if waiting.batch is not None and full:
                self._counts["overloaded"] += 1
                reason = next(iter(self._failures()), "the disk does not keep up with the writes")
                raise Overloaded(f"storage holds as many unwritten points as it may: {reason}; retry later")
            self._queue.append(waiting)
            self._queue_bytes += size
            self._work.notify()
        return waiting.done

    def _log_loop(self) -> None:
        group: list[Waiting] | None = []
        try:
            while (group := self._next_group()) is not None:
                self._roll_log()
                if group:
                    self._commit(group)
                elif self._log is not None:
                    self._log.look_for_space()
        except BaseException as error:
            # Whatever it is: nobody may wait for ever on a dead thread.
            self._fail(error, group or [])

    def _next_group(self) -> list[Waiting] | None:
        """The records that share the next fdatasync, none after a while; None when the store is closing as well."""
        with self._work:
            if not self._queue and not self._closing and not self._roll_due:
                self._work.wait(LOOK_FOR_SPACE_S)
            if not self._queue and self._closing:
                return None
            group: list[Waiting] = []
            size = 0
            while self._queue and size < self._settings.group_max_bytes:
                group.append(self._queue.popleft())
                size += len(group[-1].record.payload)
            self._queue_bytes -= size
        return [waiting for waiting in group if waiting.done.set_running_or_notify_cancel()]

    def _roll_log(self) -> None:
        """Begin a log file when somebody found that all rows of the others are in segments."""
        if not self._roll_due:
            return
        self._roll_due = False
        assert self._log is not None, "the thread starts after the log"
        try:
            self._log.roll()
        except (OSError, DiskFull) as error:
            self._trim_failure = f"no log file can be begun in {self._wal_dir}: {error}"
            return
        self._trim_due = True
        self._flusher.wake()

    def _commit(self, group: list[Waiting]) -> None:
        """Log a group, make it visible, tell its callers; in this order."""
        accepted: list[Waiting] = []
        for waiting in group:
            try:
                if waiting.batch is not None:
                    self._shard_for(waiting.record.key).check_types(waiting.batch)
                accepted.append(waiting)
            except DSDBError as error:
                waiting.done.set_exception(error)
        if not accepted:
            return
        assert self._log is not None, "the thread starts after the log"
        try:
            sequence = self._log.append([waiting.record for waiting in accepted])
        except DiskFull as error:
            self._counts["disk_full"] += 1
            for waiting in accepted:
                waiting.done.set_exception(error)
            return
        except OSError as error:
            self._fail(error, accepted)
            return
        for waiting, end in zip(accepted, self._log.ends, strict=True):
            self._apply(waiting, sequence, end)
        self._counts["groups"] += 1
        for waiting in accepted:
            waiting.done.set_result(None)
        self._flusher.count_if_old()

    def _apply(self, waiting: Waiting, sequence: int, end: int) -> None:
        if waiting.deleted:
            self._shard_for(waiting.record.key).settle(waiting.deleted)
            return
        if waiting.batch is None:
            with self._lock:
                self._shards.pop(waiting.record.key.shard_id, None)
            self._flusher.forget(waiting.record.key.shard_id)
            self._compactor.forget(waiting.record.key.shard_id)
            return
        self._shard_for(waiting.record.key).insert(waiting.batch, sequence, time.monotonic(), end)
        self._counts["writes"] += 1
        self._counts["rows"] += len(waiting.batch)

    def _fail(self, error: BaseException, group: list[Waiting]) -> None:
        """Stop taking writes for good: after a failed fsync nobody knows what the disk holds."""
        with self._work:
            self._fatal = error
            waiting = [*group, *self._queue]
            self._queue.clear()
            self._queue_bytes = 0
        self._note(f"write-ahead log in {self._wal_dir} failed: {error}; the node must be restarted")
        for one in waiting:
            if not one.done.done():
                one.done.set_exception(OutcomeUnknown(f"write-ahead log failed: {error}; the points may be stored"))
        if self._on_fatal is not None:
            self._on_fatal(error)

    # --- shards

    def _directory(self, key: ShardKey) -> Path:
        return self._data_dir / escape_name(key.database) / escape_name(key.policy) / str(key.shard_id)

    def _make_shard(self, key: ShardKey, directory: Path) -> Shard:
        shard = Shard(key, directory, self._settings, self._note, self._cache, self._on_damaged)
        shard.log_id = self._log_id
        return shard

    def _shard_for(self, key: ShardKey) -> Shard:
        with self._lock:
            shard = self._shards.get(key.shard_id)
            if shard is None:
                shard = self._shards[key.shard_id] = self._make_shard(key, self._directory(key))
            elif shard.key != key:
                raise ShardUnavailable(
                    f"shard {key.shard_id} belongs to {shard.key.database!r}.{shard.key.policy!r} here, not to "
                    f"{key.database!r}.{key.policy!r}"
                )
            return shard

    def shard(self, shard_id: int) -> Shard | None:
        """The shard with this id, if the node holds anything of it."""
        with self._lock:
            return self._shards.get(shard_id)

    def make_replica(self, key: ShardKey, start_ns: int, end_ns: int) -> Replica:
        """A shard, which is created when it does not exist, as a replica; the times are those of its shard group."""
        return Replica(self._shard_for(key), start_ns, end_ns, self._compactor.wake)

    def shards(self) -> list[Shard]:
        """Every shard the node holds."""
        with self._lock:
            return list(self._shards.values())

    def retain(self, live: Callable[[ShardKey], bool]) -> int:
        """Remove every shard whose key is not live, files and log records; returns how many.

        The files go first, then a DROP record makes the shard's older log records void, then the shard is forgotten. A
        crash in between leaves a shard with rows from the log only, which the next call removes. Raises OSError,
        DiskFull, ShardUnavailable; the call may be repeated.
        """
        doomed = [shard for shard in self.shards() if not live(shard.key)]
        for shard in doomed:
            shard.remove_files()
            remove_empty_parents(shard.directory, self._data_dir)
            self._enqueue(Waiting(Record(Kind.DROP, shard.key, b""), None, Future())).result()
        if doomed:
            self._flusher.count()
            self._trim_log()
        return len(doomed)

    # --- writing out

    def flush(self, shard_id: int | None = None) -> None:
        """Write the rows in memory of one shard, or of all, to segments. Raises OSError."""
        for shard in self.shards():
            if shard_id is None or shard.shard_id == shard_id:
                self._flusher.flush(shard)
        self._flusher.count()
        self._trim_log()

    def _after_flushing(self, looked_at: int) -> None:
        """Have log files go that nothing needs any more, and shards forget deletions."""
        try:
            if looked_at or self._trim_due:
                self._trim_due = False
                self._ask_to_roll()
                self._trim_log()
                self._trim_failure = ""
            self._forgetter.look()
        except Exception as error:  # the thread goes on, else nothing is written out any more
            self._trim_failure = f"old log files or deletions cannot be removed in {self._wal_dir}: {error}"

    def _all_written(self) -> bool:
        """Whether no row is in memory only."""
        return all(shard.oldest_wal() is None for shard in self.shards())

    def _ask_to_roll(self) -> None:
        """Have the newest log file closed when nothing needs it: else a start after a quiet time would replay it."""
        if self._log is not None and not self._log.fresh and self._all_written():
            with self._work:
                self._roll_due = True
                self._work.notify_all()

    def _trim_log(self) -> None:
        """Delete log files all of whose records are in segments or dropped."""
        if self._log is None:
            return
        # Read before the heads: what is logged and not yet in a head is in this file or a later one.
        newest = self._log.sequence
        needed = [oldest for shard in self.shards() if (oldest := shard.oldest_wal()) is not None]
        remove_before(self._wal_dir, min([newest, *needed]))

    # --- telling

    def _note(self, problem: str) -> None:
        self._problems.append(problem)
        self._on_problem(problem)

    def problems(self) -> list[str]:
        """What an operator should know: files set aside, a full disk, a failed log."""
        return [*self._problems, *self.log_problems(), *self._failures()]

    def log_problems(self) -> list[str]:
        """Why points cannot be stored now; empty when they can."""
        return [] if self._log is None else self._log.problems()

    def _failures(self) -> list[str]:
        """Why rows or log files stay longer than they should; shards that fail alike say it once."""
        failures = [*dict.fromkeys([*self._flusher.failures.values(), *self._compactor.failures.values()])]
        return [*failures[:_MAX_PROBLEMS], *([self._trim_failure] if self._trim_failure else [])]

    def stats(self) -> dict[str, Any]:
        """Counters since open, sizes now, and the counts of each shard by id."""
        files = [path for _, path in log_files(self._wal_dir)]
        shards = {shard.shard_id: shard.stats() for shard in self.shards()}
        return {
            **self._counts,
            **self._flusher.counts,
            **self._compactor.counts,
            **self._cache.stats(),
            "queue_bytes": self._queue_bytes,
            "wal_files": len(files),
            "head_bytes": sum(one["head_bytes"] for one in shards.values()),
            "shards": shards,
        }
