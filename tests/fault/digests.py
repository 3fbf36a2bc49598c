"""What running nodes say their copies add up to: digests, asked as another node would ask."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dsdbd.cluster import signing
from dsdbd.cluster.repair_messages import SUMMARIES_PATH, SummariesAnswer, SummariesRequest
from tests.fault.node import HTTP_PORT, FaultNode

_SENDER = "0" * 32


def totals(node: FaultNode, secret_file: Path, shards: Sequence[int], timeout_s: float = 10.0) -> dict[int, int]:
    """A node's digest of each of these shards; 0 for an empty copy. Raises OSError."""
    cluster_id = str(json.loads(node.request("GET", "/cluster/status", timeout_s=timeout_s)[1])["cluster_id"])
    body = msgspec.msgpack.encode(SummariesRequest(0, 0, [(shard, 0) for shard in shards]))
    secret = secret_file.read_bytes().strip()
    signature = signing.sign(
        secret, method="POST", path_qs=SUMMARIES_PATH, cluster_id=cluster_id, sender=_SENDER, body=body
    )
    headers = {
        signing.CLUSTER_HEADER: cluster_id,
        signing.SENDER_HEADER: _SENDER,
        signing.SIGNATURE_HEADER: signature,
        "Content-Type": "application/octet-stream",
    }
    asked = urllib.request.Request(f"http://{node.host}:{HTTP_PORT}{SUMMARIES_PATH}", body, headers, method="POST")
    with urllib.request.urlopen(asked, timeout=timeout_s) as answer:
        content = answer.read()
    if answer.headers.get_content_type() == "application/x-dsdb-kept-alive":
        # Signs of life, a tag, and the answer.
        content = content.lstrip(b"\0")[1:]
    found = {one.shard_id: one.total for one in msgspec.msgpack.decode(content, type=SummariesAnswer).summaries}
    return {shard: found.get(shard, 0) for shard in shards}


def differing(nodes: Sequence[FaultNode], secret_file: Path, owners: Mapping[int, Sequence[int]]) -> list[int]:
    """Shards whose owners do not give the same digest. Raises OSError."""
    held = {
        node.number: totals(node, secret_file, [shard for shard, numbers in owners.items() if node.number in numbers])
        for node in nodes
    }
    return [shard for shard, numbers in owners.items() if len({held[number][shard] for number in numbers}) > 1]
