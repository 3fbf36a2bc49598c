"""Proof that a node-to-node request comes from a holder of the cluster secret: HMAC-SHA256 over what is asked.

The signature covers method, path with query, cluster id, sender and body, so none of them can be changed on the way.
A recorded request can be sent again; that is harmless, because every node-to-node request is idempotent: points are
rewritten with equal values, metadata commands carry a request id, joins carry the node's uuid.
"""

from __future__ import annotations

import hashlib
import hmac

CLUSTER_HEADER = "X-DSDB-Cluster"
SENDER_HEADER = "X-DSDB-Node"
SIGNATURE_HEADER = "X-DSDB-Signature"


def sign(secret: bytes, *, method: str, path_qs: str, cluster_id: str, sender: str, body: bytes) -> str:
    """Hex signature of one request; ``path_qs`` is the raw path with its query string."""
    digest = hashlib.sha256(body).hexdigest()
    text = "\n".join(("dsdb-node-1", method, path_qs, cluster_id, sender, digest))
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def is_valid(
    signature: str, secret: bytes, *, method: str, path_qs: str, cluster_id: str, sender: str, body: bytes
) -> bool:
    """Whether ``signature`` is that of the request, compared in constant time."""
    expected = sign(secret, method=method, path_qs=path_qs, cluster_id=cluster_id, sender=sender, body=body)
    return hmac.compare_digest(signature.encode(), expected.encode())
