"""The library's Raft with its unsafe parts guarded from outside. Every method runs on the Raft thread.

``RaftCore`` overrides private methods of pysyncobj 0.3.17, by their mangled names; each override says which fault
of the library it mends. tests/sim runs this class under thousands of crashes, power cuts and partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from dsdbd.errors import CorruptData, DSDBError
from dsdbd.meta.raft import library
from dsdbd.meta.raft.api import RaftTimings, StateMachine
from dsdbd.meta.raft.faults import DISK_FULL, ApplyFailed, RaftStopped, is_disk_full, storage_error
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.library import ENTRY_COMMAND, ENTRY_MEMBERSHIP, FAIL_REASON, LEADER, Node, TCPNode, monotonic_s
from dsdbd.meta.raft.membership import Change, encode_change, parse_change, recover
from dsdbd.meta.raft.messages import Message, drop_known_entries
from dsdbd.meta.raft.prevote import PreVote, Step
from dsdbd.meta.raft.records import count_payload
from dsdbd.meta.raft.snapshot import SnapshotHeader, SnapshotStore
from dsdbd.meta.raft.view import LONG_AGO_S, CoreView

log = logging.getLogger(__name__)

COMPACT_ENTRIES: Final = 5000
CHUNK_BYTES: Final = 1 << 20
ROOM_CHECK_PERIOD_S: Final = 1.0
TELL_COMMIT_S: Final = 0.001
"""How long a commit may wait for the next append to carry it, before the followers are told by a message of its own."""
NEVER_S: Final = float("inf")

Callback = Callable[[Any, int], None]


class RaftCore(CoreView):
    """One node. ``transport`` is a peers.PeerTransport, or the simulation's; ``has_room`` tells whether the disk has.

    Raises CorruptData or OSError when journal and snapshot cannot be brought together.
    """

    def __init__(
        self,
        self_address: str,
        data_dir: Path,
        machine: StateMachine,
        transport: Any,
        *,
        journal: Journal,
        timings: RaftTimings,
        has_room: Callable[[], bool],
        compact_entries: int = COMPACT_ENTRIES,
        snapshot_in_background: bool = True,
    ) -> None:
        self.self_address = self_address
        self.machine = machine
        self.timings = timings
        self.journal = journal
        self.fatal: DSDBError | None = None
        self.on_role: Callable[[int, int], None] | None = None
        self._network: Any = transport
        self._has_room, self._room, self._room_checked_s = has_room, True, LONG_AGO_S
        self._ack_snapshot: int | None = None
        self._sent_mark = self._told_commit = self._forwarded_index = 0
        self.tell_commit_at_s = NEVER_S
        self._leader_contact_s, self._started_s = LONG_AGO_S, monotonic_s()
        self._prevote = PreVote(self_address, timings.election_timeout_s)
        self._told_removed = False
        self._load_complete = False
        self._compacted_bytes = journal.size_bytes
        self._compactions = journal.compactions
        self.store = SnapshotStore(
            data_dir / "raft.snap", self, chunk_bytes=CHUNK_BYTES, in_background=snapshot_in_background
        )
        stored = self.store.read()
        recovery = recover(self_address, journal.base_members, stored[0] if stored else None, journal[:])
        journal.deleteEntriesTo(recovery.drop_entries)
        self.is_voter = self_address in recovery.members
        self._removal_index = recovery.removal_index
        configuration = library.make_configuration(timings, compact_entries=compact_entries, chunk_bytes=CHUNK_BYTES)
        configuration.journalFile = journal
        configuration.fullDumpFile = str(self.store.path)
        configuration.onStateChanged = self._role_changed
        others = [TCPNode(member) for member in recovery.members if member != self_address]
        transport.attach(self, others)
        self._starting = True
        self.voters: tuple[str, ...] = ()
        super().__init__(TCPNode(self_address), others, configuration, transport=transport)
        self._SyncObj__serializer = self.store
        self._publish_voters()
        if recovery.members == {self_address}:
            # Nobody to wait for: a single node leads at once.
            self._SyncObj__raftElectionDeadline = 0

    # --- commands

    def submit(self, command: bytes, callback: Callback) -> None:
        """Queue a command; the empty one is a barrier, answered with its u64 index without asking the machine."""
        if self.is_leader and not self._disk_has_room():
            callback(None, DISK_FULL)
            return
        self._applyCommand(command, callback, ENTRY_COMMAND)

    def change_members(self, change: Change, callback: Callback) -> None:
        """Queue a membership change."""
        self._applyCommand(encode_change(change), callback, ENTRY_MEMBERSHIP)

    def forget(self, callback: Callback) -> None:
        """Stop waiting for a forwarded command whose answer was lost; the library would keep it for ever."""
        waiting = self._SyncObj__commandsWaitingReply
        for request_id in [key for key, value in waiting.items() if value is callback]:
            del waiting[request_id]

    def not_sent(self, request_id: int) -> None:
        """Fail a forwarded command that never left this node."""
        callback = self._SyncObj__commandsWaitingReply.pop(request_id, None)
        if callback is not None:
            callback(None, FAIL_REASON.MISSING_LEADER)

    def _disk_has_room(self) -> bool:
        now_s = monotonic_s()
        if now_s - self._room_checked_s >= ROOM_CHECK_PERIOD_S:
            self._room, self._room_checked_s = self._has_room(), now_s
        return self._room

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:  # noqa: N802
        """Apply a committed entry. The library retries a raising command for ever, which would end all service."""
        if command[0] != ENTRY_COMMAND:
            # Membership acts where it is appended; the library's code versions are never used.
            return None
        index = self.raftLastApplied + 1
        if len(command) == 1:
            return count_payload(index)
        try:
            return self.machine.apply(index, command[1:])
        except Exception as error:
            log.exception("the state machine raised on the command at index %d; the command has no effect", index)
            return ApplyFailed(index, error)

    # --- snapshots

    def dump_state(self) -> bytes:
        """Return the state machine's state, for the snapshot store."""
        return self.machine.dump()

    def load_state(self, state: bytes) -> None:
        """Replace the state machine's state, for the snapshot store."""
        self.machine.load(state)

    def wants_snapshot(self, header: SnapshotHeader) -> bool:
        """Tell whether a snapshot from the leader replaces the log (Raft, section 7).

        The library always throws the log away, and with it entries this node has acknowledged. When the log already
        holds the snapshot's last entry it is kept, and acknowledged exactly up to that entry.
        """
        entry = header.entry
        held = self.journal.at(entry.log_index)
        self._ack_snapshot = None
        if (held is not None and held.term == entry.term) or entry.log_index <= self.raftLastApplied:
            self._ack_snapshot = entry.log_index + 1
            self._SyncObj__raftCommitIndex = max(self.raftCommitIndex, entry.log_index)
            return False
        return True

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        """Load the stored snapshot. The library swallows every failure and acknowledges; here a failure is the end."""
        if clearJournal and self._ack_snapshot is not None:
            return
        self._load_complete = False
        super()._SyncObj__loadDumpFile(clearJournal)
        if not self._load_complete:
            self._die(storage_error("the Raft snapshot could not be loaded", CorruptData("see the log for the reason")))
        if not self._starting:
            voted, self.is_voter = self.is_voter, self.self_address in self.store.voters
            # The entry that took the vote away may be gone from every log: the snapshot says it as well.
            self._told_removed = not self.is_voter and (voted or self._told_removed)
            self._publish_voters()
        applied = self.raftLastApplied
        self._SyncObj__raftCommitIndex = max(self.raftCommitIndex, applied)
        waiting = self._SyncObj__commandsWaitingCommit
        self._fail_waiting([index for index in waiting if index <= applied])

    def _SyncObj__onSetCodeVersion(self, version: int) -> None:  # noqa: N802
        """Note that loading a snapshot reached its last statement."""
        self._load_complete = True
        super()._SyncObj__onSetCodeVersion(version)

    # --- membership

    def _SyncObj__updateClusterConfiguration(self, nodes: list[Node]) -> None:  # noqa: N802
        """Take the voters of a snapshot; at the start the newer ones of the log count instead."""
        if not self._starting:
            super()._SyncObj__updateClusterConfiguration(nodes)

    def _SyncObj__changeCluster(self, request: list[Any]) -> bool:  # noqa: N802
        """Accept a change as leader. The library's check for one change at a time is dead code: two majorities."""
        if any(parse_change(entry.command) for entry in self.journal.after(self.raftCommitIndex)):
            return False
        if self._SyncObj__noopIDx is None:
            return False
        return bool(super()._SyncObj__changeCluster(request))

    def _SyncObj__doChangeCluster(self, request: list[Any], reverse: bool = False) -> bool:  # noqa: N802
        """Let a change take effect, or undo it when its entry is rolled back."""
        operation, address = request[0], request[1]
        if address != self.self_address:
            changed = bool(super()._SyncObj__doChangeCluster((operation, address), reverse))
            self._publish_voters()
            return changed
        if self.is_leader:
            # A leader is removed only after it has handed over.
            return False
        self.is_voter = (operation == "add") != reverse
        self._told_removed = False
        self._removal_index = None
        if not self.is_voter:
            self._removal_index = next(
                (e.log_index for e in self.journal.after(0) if parse_change(e.command) == Change("rem", address)), None
            )
        self._publish_voters()
        log.info("%s now %s", self.self_address, "votes" if self.is_voter else "has no vote")
        return False

    def told_not_a_member(self) -> None:
        """Note that the leader says this node is not a member."""
        self._told_removed = True

    def has_open_change(self) -> bool:
        """Tell whether a membership entry is not committed yet."""
        return any(parse_change(entry.command) for entry in self.journal.after(self.raftCommitIndex))

    # --- elections

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """Decide whether to campaign; the library asks exactly when the election timer has fired."""
        if not self.is_voter:
            return False
        others = self._SyncObj__otherNodes
        if not others:
            return True
        if not self._disk_has_room():
            return False
        self._lose_leader()
        self._prevote.transferring = self._prevote.transferring or bool(self._SyncObj__transferInProgress)
        step = self._prevote.poll(monotonic_s(), self._SyncObj__generateRaftTimeout() / 2)
        if step is Step.ASK:
            last = self.journal.last
            question = {"type": "prevote", "last_log_index": last.log_index, "last_log_term": last.term}
            for node in list(others):
                self._network.send(node, {**question, "round": self._prevote.round})
        return step is Step.CAMPAIGN

    def _lose_leader(self) -> None:
        """Forget a silent leader: the library would keep forwarding commands to it."""
        if self._SyncObj__raftLeader is not None:
            self._SyncObj__raftLeader = None
            self._SyncObj__onLeaderChanged()

    def peer_lost(self, node: Node) -> None:
        """Note that the connection to ``node`` ended; when it led, campaign soon instead of after a full timeout.

        Only a majority that lost its leader can elect another: the others refuse while they hear it.
        """
        if self.is_leader or self._SyncObj__raftLeader != node:
            return
        self._lose_leader()
        self._leader_contact_s = LONG_AGO_S
        spread_s = self._SyncObj__generateRaftTimeout() - self.timings.election_timeout_s
        soon_s = monotonic_s() + 0.05 * self.timings.election_timeout_s + 0.45 * spread_s
        self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, soon_s)

    def _step_down(self, term: int) -> None:
        log.info("%s saw the newer term %d and steps down", self.self_address, term)
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(library.FOLLOWER)
        self._lose_leader()

    def _role_changed(self, old: int, new: int) -> None:
        if old == LEADER and new != LEADER:
            self._SyncObj__raftElectionDeadline = monotonic_s() + self._SyncObj__generateRaftTimeout()
            self._fail_waiting(list(self._SyncObj__commandsWaitingCommit))
            self.tell_commit_at_s = NEVER_S
        if new == LEADER:
            self._network.dismiss_provisional()
        self._prevote.reset()
        if new != library.CANDIDATE:
            self._prevote.transferring = False
        if self.on_role is not None:
            self.on_role(old, new)

    def _fail_waiting(self, indexes: list[int]) -> None:
        """Answer callers the library would leave hanging: whether their command commits is not known here."""
        for index in indexes:
            for _, callback in self._SyncObj__commandsWaitingCommit.pop(index):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    # --- messages

    def outgoing(self, message: Message) -> Message | None:
        """Prepare a message for sending; None when it must not leave.

        The barrier: nothing that promises what is in the log, or a vote, leaves before that is on stable storage.
        """
        if self.fatal is not None:
            return None
        kind = message["type"]
        if kind in ("next_node_idx", "request_vote", "response_vote"):
            self._sync()
        message = dict(message)
        if kind == "apply_command_response":
            # Its proposer waits on another node, until that one hears of the commit.
            self._forwarded_index = message.get("log_idx", self._forwarded_index)
        if kind == "next_node_idx" and message["success"] and self._ack_snapshot is not None:
            message["next_node_idx"], self._ack_snapshot = self._ack_snapshot, None
        # The library's acknowledgements carry no term, so that a late one of an older term would count.
        message["rt"] = self.raftCurrentTerm
        if kind == "request_vote" and self._prevote.transferring:
            message["transfer"] = True
        return message

    def incoming(self, node: Node, message: Message) -> bool:
        """Judge a checked message; True lets the library see it."""
        if self.fatal is not None:
            return False
        match message["type"]:
            case "prevote":
                self._answer_prevote(node, message)
                return False
            case "prevote_ok":
                if node in self._SyncObj__otherNodes and not self.is_leader:
                    self._prevote.grant(node.id, message["round"], len(self.voters), monotonic_s())
                return False
            case "request_vote":
                # A node that hears its leader keeps it (thesis 4.2.3). It votes whatever it believes of membership.
                return bool(message.get("transfer")) or not self._leader_alive()
            case "response_vote":
                return node in self._SyncObj__otherNodes
            case "append_entries":
                return self._admit_append(node, message)
            case "next_node_idx":
                if message["rt"] > self.raftCurrentTerm:
                    self._step_down(message["rt"])
                    return False
                if message["rt"] == self.raftCurrentTerm and node in self._SyncObj__raftMatchIndex:
                    self._take_acknowledgement(node, message)
                return False
            case "apply_command":
                if self.is_leader and not self._disk_has_room():
                    answer = {"type": "apply_command_response", "request_id": message["request_id"]}
                    self._network.send(node, {**answer, "error": DISK_FULL})
                    return False
        return True

    def _answer_prevote(self, node: Node, message: Message) -> None:
        last = self.journal.last
        theirs, mine = (message["last_log_term"], message["last_log_index"]), (last.term, last.log_index)
        willing = theirs > mine or (theirs == mine and self._prevote.yields_to(node.id, monotonic_s()))
        if willing and not self._leader_alive():
            self._network.send(node, {"type": "prevote_ok", "round": message["round"]})

    def _admit_append(self, node: Node, message: Message) -> bool:
        if message["term"] < self.raftCurrentTerm:
            # The library says nothing, and the stale leader never learns that it is one.
            refusal = {"type": "next_node_idx", "next_node_idx": 0, "reset": False, "success": False}
            self._network.send(node, refusal)
            return False
        self._leader_contact_s = monotonic_s()
        if "prevLogIdx" not in message:
            # A piece of a snapshot says nothing about this log, yet the library would commit the log's unverified tail.
            message["commit_index"] = min(message["commit_index"], self.raftCommitIndex)
            return True
        if message["entries"] and not self._disk_has_room():
            # Without room the message is a heartbeat: the leader is followed, nothing is promised.
            message["entries"] = []
        if drop_known_entries(message, self._term_at):
            self._acknowledge_known(node, message)
            return False
        return True

    def _term_at(self, index: int) -> int | None:
        entry = self.journal.at(index)
        return None if entry is None else entry.term

    def _acknowledge_known(self, node: Node, message: Message) -> None:
        """Follow the leader of an append that brings nothing new, and keep what the log holds behind it.

        The library sees it as a message about no entry at all; the commit index goes as far as the log is verified.
        """
        verified = message["prevLogIdx"]
        kept = {key: message[key] for key in ("type", "term", "rt")}
        commit_index = min(message["commit_index"], verified)
        self._SyncObj__onMessageReceived(node, {**kept, "commit_index": commit_index, "serialized": None})
        answer = {"type": "next_node_idx", "next_node_idx": verified + 1, "reset": False, "success": True}
        self._network.send(node, answer)

    def _take_acknowledgement(self, node: Node, message: Message) -> None:
        """Let the leader's library see an acknowledgement without sending again what is already on its way."""
        next_index = self._SyncObj__raftNextIndex
        sent = next_index.get(node, 0)
        self._SyncObj__onMessageReceived(node, message)
        if message["success"] and not message["reset"] and node in next_index:
            next_index[node] = max(next_index[node], sent)

    # --- the tick

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803
        """Advance everything that is due; raises RaftStopped after a fatal fault."""
        if self.fatal is not None:
            raise RaftStopped
        if self.is_leader and self._majority_answers(self.timings.leader_lease_s):
            self._append_and_send()
        # The leader counts itself in the library's tick, so its log is durable before that.
        self._sync()
        self._bound_journal()
        super()._onTick(timeToWait)
        self._starting = False
        if self.is_leader and self.raftCommitIndex != self._told_commit:
            self._plan_to_tell()
        if self._SyncObj__raftState != library.CANDIDATE and not self._SyncObj__transferInProgress:
            self._prevote.transferring = False

    def _append_and_send(self) -> None:
        """Append what was proposed since the last tick and send it, one message for all of it.

        The followers write it while this node does (thesis 10.2.1): an append promises nothing about the sender's own
        log. A crash between the two leaves entries that others hold and that this node gets back from the next leader.
        """
        try:
            self._checkCommandsToApply()
        except OSError as error:
            # What was appended before is sound; without heartbeats a full disk would cost the lead as well.
            self.storage_failed(error)
            if self.fatal is not None:
                raise RaftStopped from error
        if self.journal.last.log_index != self._sent_mark or self.tell_commit_at_s <= monotonic_s():
            self._SyncObj__sendAppendEntries()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """Send every peer what it lacks, and note what they are told with it."""
        self._sent_mark, self._told_commit = self.journal.last.log_index, self.raftCommitIndex
        self.tell_commit_at_s = NEVER_S
        super()._SyncObj__sendAppendEntries()

    def _plan_to_tell(self) -> None:
        """Have followers told of a commit: at once when a proposer waits there, else with the next append, or soon."""
        if self._forwarded_index > self._told_commit:
            self._SyncObj__sendAppendEntries()
        elif self.tell_commit_at_s == NEVER_S:
            self.tell_commit_at_s = monotonic_s() + TELL_COMMIT_S

    def _bound_journal(self) -> None:
        """Compact by size too: five thousand large commands would be more than a gigabyte."""
        if self.journal.compactions != self._compactions:
            self._compactions, self._compacted_bytes = self.journal.compactions, self.journal.size_bytes
        elif self.journal.size_bytes - self._compacted_bytes > library.JOURNAL_GROWTH_BYTES:
            self.forceLogCompaction()

    def _SyncObj__deleteEntriesTo(self, index: int) -> None:  # noqa: N802
        """Truncate the log behind a snapshot; without room it stays long, which is harmless."""
        try:
            super()._SyncObj__deleteEntriesTo(index)
        except OSError as error:
            if not is_disk_full(error):
                raise
            log.error("the Raft journal %s could not be compacted: %s; it stays long", self.journal.path, error)

    def _sync(self) -> None:
        try:
            self.journal.sync()
        except OSError as error:
            self._die(storage_error(f"the Raft journal {self.journal.path} could not be synced", error))

    def _SyncObj__setCurrentTerm(self, term: int, vote: str | None) -> None:  # noqa: N802
        """Store term and vote; a node that cannot must not take part, or it could vote twice."""
        try:
            super()._SyncObj__setCurrentTerm(term, vote)
        except OSError as error:
            self._die(storage_error(f"the vote could not be stored in the Raft journal {self.journal.path}", error))

    def storage_failed(self, error: OSError) -> None:
        """Judge a failed write of the log: a full disk may get room again, anything else ends the node."""
        if is_disk_full(error):
            self._room, self._room_checked_s = False, monotonic_s()
            log.error("no room for the Raft journal %s: %s", self.journal.path, error)
        elif self.fatal is None:
            self.fatal = storage_error(f"the Raft journal {self.journal.path} could not be written", error)

    def _die(self, error: DSDBError) -> NoReturn:
        self.fatal = error
        raise RaftStopped(error.message)
