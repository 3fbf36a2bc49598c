"""The pinned library is the one whose private parts are overridden, and none of its pickles is left."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import pysyncobj
import pysyncobj.journal
import pysyncobj.node
import pysyncobj.pickle
import pysyncobj.serializer
import pysyncobj.syncobj
import pysyncobj.transport
import pytest

import dsdbd.meta.raft.core as core_module
import dsdbd.meta.raft.view as view_module
from dsdbd.meta.raft import RaftTimings, codec, library
from dsdbd.meta.raft.core import RaftCore
from dsdbd.meta.raft.journal import Journal
from dsdbd.meta.raft.messages import check_message, drop_known_entries
from dsdbd.meta.raft.snapshot import SnapshotStore

DIGESTS = {
    pysyncobj.syncobj: "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    pysyncobj.journal: "9cf1eaf6acc704581a4cf7d3de330a404403913107adc91c929778b7e3f35edf",
    pysyncobj.pickle: "e9327780738065cec5d600484b936c91e7c13875206cb584d5ff7f5d0dc9c474",
    pysyncobj.transport: "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
    pysyncobj.serializer: "4d39fde2f15000ad8f507ec229ebd4f6a86371b6f84d4dc1439a9cccd52857ee",
    pysyncobj.node: "e4a3f027cd8291f558334bb9c977e952f6b6989e7e1fa1588d3005ef0b990e2c",
}


@pytest.mark.parametrize("module", DIGESTS, ids=lambda module: module.__name__)
def test_the_library_is_byte_for_byte_the_reviewed_one(module):
    assert hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest() == DIGESTS[module]


def test_every_overridden_method_exists():
    own = [name for name, value in vars(RaftCore).items() if callable(value)]
    overridden = [name for name in own if name.startswith("_SyncObj__")]
    assert len(overridden) >= 9
    for name in [*overridden, "_onTick"]:
        assert callable(getattr(pysyncobj.SyncObj, name)), name


def test_every_private_name_used_exists():
    texts = [Path(module.__file__).read_text() for module in (core_module, view_module)]
    used = set(re.findall(r"_SyncObj(__\w+)", "".join(texts)))
    source = Path(pysyncobj.syncobj.__file__).read_text()
    assert len(used) > 15
    assert [name for name in used if not re.search(rf"self\.{name}\b|def {name}\b", source)] == []


def test_journal_and_snapshot_store_have_the_methods_the_library_calls():
    for method in vars(pysyncobj.journal.MemoryJournal):
        if not method.startswith("_MemoryJournal") and callable(getattr(pysyncobj.journal.MemoryJournal, method)):
            assert hasattr(Journal, method) or method == "flush", method
    for method in ("checkSerializing", "serialize", "deserialize", "getTransmissionData", "setTransmissionData"):
        assert hasattr(SnapshotStore, method)
        assert hasattr(pysyncobj.serializer.Serializer, method)


def test_nothing_is_unpickled():
    class Exploit:
        def __reduce__(self):
            return (Path.touch, (Path("/tmp/never"),))

    payload = pickle.dumps(Exploit(), protocol=2)
    for loads in (pysyncobj.pickle.loads, pysyncobj.journal.loads, codec.decode):
        with pytest.raises(ValueError, match="not a Raft message"):
            loads(payload)
    with pytest.raises(RuntimeError, match="never pickles"):
        pysyncobj.pickle.pickle.loads(payload)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {"type": "add"},
        {"type": "append_entries", "term": 10**9},
        {"type": "append_entries", "term": 1, "commit_index": 1, "rt": 1, "transmission": "start", "data": b""},
        {
            "type": "append_entries", "term": 1, "commit_index": 1, "rt": 1,
            "prevLogIdx": 1, "prevLogTerm": 0, "entries": [[b"\x00a", 3, 1]],
        },
        {
            "type": "append_entries", "term": 1, "commit_index": 1, "rt": 1,
            "prevLogIdx": 1, "prevLogTerm": 0, "entries": [[b"\x02junk", 2, 1]],
        },
        {"type": "apply_command", "command": b"\x03\x05", "request_id": 1, "rt": 1},
        {"type": "apply_command", "command": b"\x00" * (1 << 20), "request_id": 1, "rt": 1},
        {"type": "apply_command", "command": b"", "request_id": 1, "rt": 1},
        {"type": "next_node_idx", "next_node_idx": "1", "reset": False, "success": True, "rt": 1},
        {"type": "apply_command_response", "request_id": 1, "rt": 1},
    ],
)  # fmt: skip
def test_messages_the_library_could_not_take_are_refused(message):
    with pytest.raises(ValueError):
        check_message(message)


@pytest.mark.parametrize(
    "timings",
    [
        RaftTimings(append_period_s=0),
        RaftTimings(election_timeout_s=0.3),
        RaftTimings(leader_lease_s=1.0),
        RaftTimings(leader_lease_s=0.05),
    ],
)
def test_timings_that_allow_two_leaders_are_refused(timings):
    with pytest.raises(ValueError, match="must"):
        timings.validate()
    RaftTimings().validate()
    library.make_configuration(RaftTimings(), compact_entries=10, chunk_bytes=1).validate()


def append(previous: int, previous_term: int, *terms: int) -> dict:
    entries = [[b"\x00x", previous + offset, term] for offset, term in enumerate(terms, 1)]
    return {"prevLogIdx": previous, "prevLogTerm": previous_term, "entries": entries}


@pytest.mark.parametrize(
    ("message", "left", "goes_on"),
    [
        (append(3, 1, 2, 2), (3, 1, [4, 5]), False),  # all new
        (append(1, 1, 1, 1, 2), (3, 1, [4]), False),  # overlap, then new
        (append(1, 1, 1, 1), (3, 1, []), False),  # a repetition up to the end
        (append(1, 1, 1), (2, 1, []), True),  # a repetition; what is behind stays
        (append(1, 1), (1, 1, []), True),  # an old heartbeat
        (append(1, 1, 1, 2), (2, 1, [3]), False),  # a conflict: what is behind must go
        (append(2, 7, 2), (2, 7, [3]), False),  # another previous entry: the library refuses it
        (append(9, 1, 1), (9, 1, [10]), False),  # beyond the log: the library refuses it
    ],
)
def test_only_conflicting_entries_are_replaced(message, left, goes_on):
    log = {1: 1, 2: 1, 3: 1}
    assert drop_known_entries(message, log.get) is goes_on
    assert (message["prevLogIdx"], message["prevLogTerm"], [entry[1] for entry in message["entries"]]) == left
