"""How late a write may still arrive, so that no deletion is forgotten while a write that it hides may come.

Every node may keep writes for others, as long as its own settings say. So each tells the others how long that is, and
what counts is the longest. While one has not said, nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd import limits
from dsdbd.storage.handoff_queue import FILE_AGE_S

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node

UNTOLD_S = -1.0
"""Instead of a time: the node has not said."""
NEVER_NS = 1 << 62
"""A write of any age may arrive."""
_MARGIN_S = 3600.0
"""For what is on its way longer than it should be: a paused process, a clock that is behind."""


def kept_for_s(node: Node) -> float:
    """How long after its version this node may deliver a write that it keeps for another one; 0 where it keeps none."""
    settings = node.config.hinted_handoff
    if not settings.enabled:
        return 0.0
    # A record may be older than the newest one of its file, and a file stays until the next look.
    return settings.max_age_s + FILE_AGE_S + settings.purge_interval_s + _MARGIN_S


def late_ns(node: Node) -> int:
    """How long after its version a batch may still arrive at this node. Any thread may call it."""
    state = node.metadata.state
    others = {one.uuid for one in state.data_nodes} | {one.uuid for one in state.meta_nodes}
    others.discard(node.uuid)
    if not others:
        return limits.LATE_BATCH_NS
    others_s = 0.0 if node.detector is None else node.detector.kept_for_s(others)
    if others_s == UNTOLD_S:
        return NEVER_NS
    return max(limits.LATE_BATCH_NS, int(max(others_s, kept_for_s(node)) * 1e9))
