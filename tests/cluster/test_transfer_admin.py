"""The pages that move shards, on one node: who may use them, and what they refuse."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Answer, Cluster, Daemon, request

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow]
ADMIN, PLAIN = ("root", "secret"), ("plain", "secret")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One node with authentication, an administrator and a user."""
    made = Cluster(tmp_path_factory.mktemp("admin"))
    daemon = made.add(settings={"http": ["auth-enabled = true"]}).start()
    daemon.query("CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
    daemon.query("CREATE USER plain WITH PASSWORD 'secret'", u="root", p="secret")
    yield daemon
    made.close()


def ask(
    node: Daemon, method: str, path: str, body: bytes | None = None, user: tuple[str, str] | None = ADMIN
) -> Answer:
    headers = {}
    if user is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
    return request(method, node.url(path), body, headers)


def order(asked: Daemon, path: str, what: dict[str, object]) -> Answer:
    return ask(asked, "POST", path, json.dumps(what).encode())


@pytest.mark.parametrize("path", ["/cluster/nodes", "/cluster/moves", "/cluster/plan", "/cluster/apply"])
def test_only_administrators_may(node: Daemon, path: str) -> None:
    method, body = ("GET", None) if path in ("/cluster/nodes", "/cluster/moves") else ("POST", b'{"op": "rebalance"}')
    assert ask(node, method, path, body, None).status == 401
    refused = ask(node, method, path, body, PLAIN)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    assert ask(node, method, path, body).status == 200


def test_orders_that_cannot_be_read_change_nothing(node: Daemon) -> None:
    for body in (b"", b"[]", b'{"op": 1}', b'{"op": "drain", "node": 2, "force": true}', b"\xff"):
        answer = ask(node, "POST", "/cluster/apply", body)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), body
    assert order(node, "/cluster/apply", {"op": "drian", "node": 2}).status == 400
    assert order(node, "/cluster/apply", {"op": "drain", "node": 77}).status == 404
    assert ask(node, "POST", "/cluster/plan", b" " * 5000).status == 413
    assert [one["state"] for one in ask(node, "GET", "/cluster/nodes").json["nodes"]] == ["up"]


def test_the_only_node_stays(node: Daemon) -> None:
    orders: list[dict[str, object]]
    orders = [{"op": "drain", "node": 2}, {"op": "remove", "node": 1}, {"op": "replace", "node": 2, "to": 2}]
    for what in orders:
        plan = order(node, "/cluster/plan", what)
        assert (plan.status, plan.json["moves"]) == (200, [])
        assert plan.json["refusals"], what
        both = [{"role": "data", "id": 2}, {"role": "meta", "id": 1}]
        assert (plan.json["leaves"], plan.json["votes_left"]) == (([], 1) if what["op"] == "drain" else (both, 0))
        applied = order(node, "/cluster/apply", what)
        assert (applied.status, applied.json["code"]) == (409, "membership_refused")
    for op in ("add", "rebalance", "cancel"):
        assert order(node, "/cluster/apply", {"op": op, "node": 2}).json["done"] is True
    (row,) = ask(node, "GET", "/cluster/nodes").json["nodes"]
    assert (row["meta_id"], row["data_id"], row["state"], row["draining"]) == (1, 2, "up", False)
