"""What nodes hold, in numbers: asked as one node asks another, by signed requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from dsdbd.cluster import signing
from dsdbd.cluster.repair_messages import SUMMARIES_PATH, SummariesAnswer, SummariesRequest
from tests.cluster.daemons import request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.cluster.daemons import Answer, Daemon


def ask(daemon: Daemon, method: str, path: str, body: bytes = b"") -> Answer:
    """The answer to a request between nodes; on loopback the secret is empty."""
    cluster_id = json.loads((daemon.root / "meta" / "node.json").read_bytes())["cluster_id"]
    headers = {
        signing.CLUSTER_HEADER: cluster_id,
        signing.SENDER_HEADER: "a test",
        signing.SIGNATURE_HEADER: signing.sign(
            b"", method=method, path_qs=path, cluster_id=cluster_id, sender="a test", body=body
        ),
    }
    return request(method, f"http://{daemon.address}{path}", body or None, headers)


def signed(daemon: Daemon, method: str, path: str, body: bytes = b"") -> bytes:
    """The body of such an answer, which must be good."""
    answer = ask(daemon, method, path, body)
    assert answer.status == 200, answer.body
    slow = "kept-alive" in str(answer.headers.get("Content-Type", ""))
    return answer.body.lstrip(b"\0").removeprefix(b"\1") if slow else answer.body


def shards(daemon: Daemon, database: str) -> list[int]:
    """Numbers of a database's shards."""
    return sorted(row[0] for row in daemon.rows("SHOW SHARDS") if row[1] == database)


def summaries(daemon: Daemon, shard_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """By shard what a node holds: a number of its values, and one of its deletions."""
    body = msgspec.msgpack.encode(SummariesRequest(0, 0, [(one, 0) for one in shard_ids]))
    answer = msgspec.msgpack.decode(signed(daemon, "POST", SUMMARIES_PATH, body), type=SummariesAnswer)
    return {one.shard_id: (one.total, one.tombstones) for one in answer.summaries}


def are_equal(daemons: Iterable[Daemon], database: str) -> bool:
    """Whether all nodes hold the same of every shard of a database; each is an owner of each."""
    nodes = list(daemons)
    wanted = shards(nodes[0], database)
    try:
        found = [summaries(node, wanted) for node in nodes]
    except (OSError, AssertionError):
        return False
    return bool(wanted) and all(one == found[0] and len(one) == len(wanted) for one in found)
