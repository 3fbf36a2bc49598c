"""A write has one of four outcomes, and each keeps its promise: the rows of the table in the HTTP reference."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from dsdbd import errors
from dsdbd.cluster.acks import outcome_of
from tests.cluster.daemons import Cluster, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.daemons import Answer, Daemon

DEADLINE_S = 60.0


def every_error() -> list[type[errors.DSDBError]]:
    def below(root: type[errors.DSDBError]) -> list[type[errors.DSDBError]]:
        return [root] + [found for child in root.__subclasses__() for found in below(child)]

    # Whatever else a process has loaded has classes of its own, made of more than a sentence.
    return [
        found
        for found in below(errors.DSDBError)
        if not issubclass(found, errors.StartError) and found.__module__ == errors.__name__
    ]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_whatever_goes_wrong_is_one_of_four_outcomes(kind: type[errors.DSDBError]) -> None:
    outcome = outcome_of(kind("why"))
    assert outcome.http_status in (400, 401, 403, 404, 413, 503, 504)
    assert "why" in outcome.message
    if outcome.http_status == 503:
        assert isinstance(outcome, errors.Unavailable)
    if issubclass(kind, errors.MembershipRefused):
        assert outcome.http_status == 503, "another node may store it"
    if kind.http_status == 500:
        assert isinstance(outcome, errors.OutcomeUnknown)


def test_a_defect_leaves_the_outcome_open() -> None:
    outcome = outcome_of(ZeroDivisionError("secret detail"))
    assert isinstance(outcome, errors.OutcomeUnknown)
    assert "secret" not in outcome.message
    assert "harmless" in outcome.message


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Three nodes; the first leads the writing."""
    made = Cluster(tmp_path_factory.mktemp("outcomes"))
    settings = {"cluster": ['write-timeout = "3s"'], "http": ["max-body-size = 100000"]}
    try:
        found = made.grow(3, settings=settings)
        found[0].query("CREATE DATABASE d WITH REPLICATION 3")
        found[0].query("CREATE DATABASE lone WITH REPLICATION 1")
        assert found[0].write("m,host=a v=1 1", db="d", consistency="all").status == 204
        lines = "\n".join(f"m,host=h{number} v=1 1" for number in range(60))
        assert found[0].write(lines, db="lone", consistency="all").status == 204
        yield found
    finally:
        made.close()


def code(answer: Answer) -> str:
    """The stable code of an error, which the body and the header agree on."""
    assert answer.json["code"] == answer.headers["X-DSDB-Error-Code"]
    return str(answer.json["code"])


def stored(node: Daemon, database: str = "d") -> set[str]:
    return {row[1] for row in node.rows("SELECT host, v FROM m", db=database)}


@pytest.mark.slow
def test_stored(nodes: list[Daemon]) -> None:
    for level in ("any", "one", "quorum", "all", ""):
        answer = nodes[1].write(f"m,host=ok{level} v=1 1", db="d", consistency=level)
        assert answer.status == 204
        wait_until(lambda level=level: f"ok{level}" in stored(nodes[1]), "the point is there", DEADLINE_S)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "params", "status", "name"),
    [
        ("m,host=bad", {"db": "d"}, 400, "unparsable_points"),
        ("m,host=bad v=1 1", {"db": "nothing"}, 404, "not_found"),
        ("m,host=bad v=1 1", {"db": "d", "rp": "nothing"}, 404, "not_found"),
        ("m,host=bad v=1 1", {}, 400, "invalid_request"),
        ("m,host=bad v=1 1", {"db": "d", "precision": "year"}, 400, "invalid_request"),
        ("m,host=bad v=1 1", {"db": "d", "consistency": "most"}, 400, "invalid_request"),
        ('m,host=bad v="text" 1', {"db": "d"}, 400, "partial_write"),
        ("m,host=bad v=1 1\n" * 10_000, {"db": "d"}, 413, "body_too_large"),
    ],
)
def test_never_retry(nodes: list[Daemon], body: str, params: dict[str, str], status: int, name: str) -> None:
    answer = nodes[0].write(body, **params)
    assert (answer.status, code(answer)) == (status, name)
    assert "Retry-After" not in answer.headers
    assert "bad" not in stored(nodes[0])


@pytest.mark.slow
def test_good_lines_of_a_partial_write_are_stored(nodes: list[Daemon]) -> None:
    answer = nodes[0].write("m,host=good v=1 1\nm,host=worse\n", db="d", consistency="all")
    assert (answer.status, code(answer)) == (400, "partial_write")
    assert {"good"} <= stored(nodes[0])
    assert "worse" not in stored(nodes[0])


@pytest.mark.slow
def test_nothing_stored_and_retry(nodes: list[Daemon]) -> None:
    """No owner is there, or no leader for a new field: 503, and the same request succeeds when it is."""
    first, second, third = nodes
    third.kill()
    lines = [f"m,host=h{number} v=2 2" for number in range(60)]
    try:
        answers = {line: first.write(line, db="lone") for line in lines}
        failed = [line for line, answer in answers.items() if answer.status != 204]
        assert failed, "a third of the series is of the node that is gone"
        assert {(answers[line].status, code(answers[line])) for line in failed} == {(503, "shard_unavailable")}
        assert all(int(answers[line].headers["Retry-After"]) >= 1 for line in failed)
        second.kill()
        wait_until(lambda: first.get("/ready").status == 503, "no majority", DEADLINE_S)
        refused = first.write("m,host=new fresh=1 1", db="d", timeout_s=DEADLINE_S)
        assert (refused.status, code(refused)) == (503, "no_leader"), refused
        assert "Retry-After" in refused.headers
    finally:
        for node in (second, third):
            if node.process is None:
                node.start(wait=False)
        for node in (second, third):
            node.wait_ready()
    wait_until(lambda: all(first.write(line, db="lone").status == 204 for line in failed), "they are back", DEADLINE_S)
    wait_until(lambda: first.write("m,host=new fresh=1 1", db="d").status == 204, "a leader", DEADLINE_S)


@pytest.mark.slow
def test_unknown_and_a_retry_is_harmless(nodes: list[Daemon]) -> None:
    """An owner hangs in the midst: all owners cannot confirm; when it runs again the repetition is the same point."""
    first, _, third = nodes
    wait_until(lambda: first.status()["status"] == "pass", "a whole cluster", DEADLINE_S)
    line = "m,host=unknown v=1 7"
    assert third.process is not None
    os.kill(third.process.pid, signal.SIGSTOP)
    try:
        answer = first.write(line, db="d", consistency="all", timeout_s=DEADLINE_S)
        assert (answer.status, code(answer)) == (504, "outcome_unknown")
        assert "2 of 3 owners" in answer.json["error"]
        assert first.write(line, db="d", consistency="quorum", timeout_s=DEADLINE_S).status == 204
    finally:
        os.kill(third.process.pid, signal.SIGCONT)
    wait_until(lambda: first.write(line, db="d", consistency="all").status == 204, "all owners", DEADLINE_S)
    for node in nodes:
        assert node.rows("SELECT v FROM m WHERE host = 'unknown'", db="d") == [["1970-01-01T00:00:00.000000007Z", 1]]
