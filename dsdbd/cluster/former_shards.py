"""Whether a node holds files of shards that others own by now, so that the owners know what deletions it may lack.

A former owner, or a node whose copy was called off half-way, may have been away while points were deleted, and gives
what it holds to an owner when it is back. An owner that had forgotten the deletion by then would take deleted points
for lost ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.meta import views

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import MetaState

UNKNOWN = -1
"""Instead of an index: the node holds something of others, or has not said."""
_LOOK_S = 1.0


class FormerShards:
    """What this node says of itself; use it on the event loop."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._elsewhere_of: MetaState | None = None
        self._elsewhere: frozenset[int] = frozenset()
        self._said = UNKNOWN
        self._next_look_s = float("-inf")

    def clear_index(self) -> int:
        """The index of metadata by which this node held nothing of live shards of others, a second ago at most.

        UNKNOWN while it holds such, or its storage is not open. What comes to be such later does so by metadata of a
        greater index.
        """
        node, now_s = self._node, self._node.clock.monotonic_s()
        if now_s < self._next_look_s:
            return self._said
        self._next_look_s = now_s + _LOOK_S
        state, self._said = node.metadata.state, UNKNOWN
        if node.store is None or node.data_id is None:
            return UNKNOWN
        if self._elsewhere_of is not state:
            own = node.data_id
            self._elsewhere = frozenset(
                place.shard.id for place in views.all_shards(state) if own not in views.writers(place.shard)
            )
            self._elsewhere_of = state
        if self._elsewhere.isdisjoint(shard.shard_id for shard in node.store.shards()):
            self._said = state.index
        return self._said


def may_forget(data_nodes: Collection[int], clear: Mapping[int, int], since_index: int) -> bool:
    """Whether nobody but the owners of shards can hold a point that a forgotten deletion had hidden.

    ``data_nodes``: all others that are registered; ``clear``: for those that answer now what ``clear_index`` said
    there; ``since_index``: of the metadata by which the owners became who they are.
    """
    return all(clear.get(node_id, UNKNOWN) >= since_index for node_id in data_nodes)
