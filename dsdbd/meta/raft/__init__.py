"""The Raft room: it orders bytes for a state machine, durably, on a changing set of voters.

Only this room touches pysyncobj. ``library`` is its door, ``core`` the guarded node, ``journal`` and ``snapshot`` what
is on disk, ``handshake``, ``frames``, ``connection`` and ``peers`` what is on the wire, ``node`` the public face.
"""

from dsdbd.meta.raft.api import PREAMBLE, NotCommitted, PeerStatus, RaftStatus, RaftTimings, StateMachine
from dsdbd.meta.raft.node import RaftNode

__all__ = [
    "PREAMBLE",
    "NotCommitted",
    "PeerStatus",
    "RaftNode",
    "RaftStatus",
    "RaftTimings",
    "StateMachine",
]
