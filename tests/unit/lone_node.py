"""One node with its real parts and no listener: data node 1 of a cluster whose other nodes are not registered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsdbd.clock import SystemClock
from dsdbd.cluster.formation import Addresses, Progress
from dsdbd.cluster.node import Node
from dsdbd.cluster.peers import PeerClient
from dsdbd.config import load_config
from dsdbd.meta.identity import Identity, Phase
from dsdbd.meta.state import Database, DataNode, MetaState, RetentionPolicy, Shard, ShardGroup
from dsdbd.meta.store import Metadata

CLUSTER, UUID = "c" * 32, "1" * 32
END_NS = 10_000
"""The shards hold the times before it."""


def state_of(*shards: Shard, index: int = 1, data_nodes: tuple[DataNode, ...] = ()) -> MetaState:
    """Metadata with these shards of database ``d``, policy ``p``, and with these other nodes."""
    group = ShardGroup(1, 0, END_NS, shards)
    policy = RetentionPolicy("p", 0, END_NS, 3, (group,))
    return MetaState(
        CLUSTER,
        index,
        data_nodes=(DataNode(1, UUID, "a:1", "a:2"), *data_nodes),
        databases={"d": Database("d", "p", {"p": policy})},
    )


def lone_node(directory: Path, state: MetaState, **handoff: Any) -> Node:
    """The node, without store, handoff and repair; ``handoff``: settings of that section. Call it on an event loop."""
    config = load_config(None, {}, base=str(directory))
    config = replace(config, hinted_handoff=replace(config.hinted_handoff, **handoff))
    clock = SystemClock()
    metadata = Metadata(clock)
    metadata.state = state
    return Node(
        config=config,
        clock=clock,
        uuid=UUID,
        addresses=Addresses("a:2", "", "a:1"),
        secret=b"s" * 32,
        join=(),
        peers=PeerClient(b"s" * 32, lambda: (CLUSTER, UUID)),
        metadata=metadata,
        progress=Progress(),
        started_ns=clock.now_ns(),
        fatal=asyncio.get_running_loop().create_future(),
        identity=Identity(UUID, CLUSTER, "a:2", Phase.MEMBER, data_id=1),
    )
