"""Where each live shard belongs, by its number: an index made anew when the metadata changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsdbd.meta import views
from dsdbd.storage import ShardKey

if TYPE_CHECKING:
    from dsdbd.cluster.node import Node
    from dsdbd.meta.state import MetaState
    from dsdbd.meta.views import ShardPlace


def key_of(place: ShardPlace) -> ShardKey:
    """The key under which the store has a shard."""
    return ShardKey(place.database.name, place.policy.name, place.shard.id)


class ShardPlaces:
    """The shards of one node's metadata; use it on one thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._of: MetaState | None = None
        self._places: dict[int, ShardPlace] = {}

    def all(self) -> dict[int, ShardPlace]:
        """Every live shard; not to be changed."""
        state = self._node.metadata.state
        if self._of is not state:
            self._places = {place.shard.id: place for place in views.all_shards(state)}
            self._of = state
        return self._places

    def get(self, shard_id: int) -> ShardPlace | None:
        """The live shard of that number, or None."""
        return self.all().get(shard_id)
