"""Small questions about points of another node are passed on to it: a client sees what the general way sends."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import META_ONLY, Cluster, wait_until
from tests.http.test_http_front import GENERAL, answers, connect, plain
from tests.http.test_http_small_queries import ROUNDS, START_S, STATEMENTS, ask, at, is_short, message

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.daemons import Daemon

pytestmark = pytest.mark.slow
SMALL = f"SELECT max(v) FROM cpu WHERE host = 'h1' AND time >= '{at(540)}' AND time < '{at(900)}' GROUP BY time(1m)"
FORMS: list[dict[str, str]] = [{}, {"epoch": "ns", "rp": "other"}]


def lines() -> str:
    return "\n".join(
        f"cpu,host=h{host},region=r{host % 2} v={second * 0.1 + host},n={second}i,"
        f's="t{second % 3}",b={second % 20 == 0} {(START_S + second) * 1_000_000_000}'
        for host in range(4)
        for second in range(0, 600, 10)
    )


@pytest.fixture(scope="module")
def nodes(owner_and_other: tuple[Daemon, Daemon]) -> tuple[Daemon, Daemon]:
    """The owner of all points, and a node that owns nothing."""
    owner, _ = owner_and_other
    owner.query("CREATE DATABASE small")
    owner.query("CREATE RETENTION POLICY other ON small DURATION INF REPLICATION 1")
    assert owner.write(lines(), db="small").status == 204
    assert owner.write(f"cpu,host=h1 v=7 {START_S}", db="small", rp="other", precision="s").status == 204
    return owner_and_other


def passed_on(owner: Daemon) -> int:
    """How many small questions of other nodes a node was asked."""
    return owner.served("/internal/read/small")


def wait_short(node: Daemon, text: str) -> None:
    wait_until(lambda: is_short(ask(node, message(text), ROUNDS)[-1]), "the short way", 60)


@pytest.mark.parametrize("text", STATEMENTS)
def test_an_answer_is_that_of_the_library(nodes: tuple[Daemon, Daemon], text: str) -> None:
    owner, other = nodes
    for form in FORMS:
        if "now()" in text and form:
            continue
        general = ask(other, message(text, headers=GENERAL, **form))[0]
        assert plain(general) == plain(ask(owner, message(text, headers=GENERAL, **form))[0])
        for answer in ask(other, message(text, headers={}, **form), ROUNDS):
            assert plain(answer) == plain(general)


@pytest.mark.parametrize("text", STATEMENTS[:9:2])
def test_statements_that_come_again_are_passed_on(nodes: tuple[Daemon, Daemon], text: str) -> None:
    owner, other = nodes
    wait_short(other, text)
    before = passed_on(owner)
    assert all(map(is_short, ask(other, message(text), 5)))
    assert passed_on(owner) == before + 5


def test_other_times_and_tags_are_those_asked_for(nodes: tuple[Daemon, Daemon]) -> None:
    _, other = nodes
    wait_short(other, SMALL)
    for host in ("h0", "h3", "nobody", "a b&c"):
        for low in (0, 77, 590, 950):
            text = SMALL.replace("h1", host).replace(at(540), at(low))
            (general,) = ask(other, message(text, headers=GENERAL))
            assert plain(ask(other, message(text))[0]) == plain(general)


def test_what_changes_is_seen_at_once(nodes: tuple[Daemon, Daemon]) -> None:
    owner, other = nodes

    def columns() -> object:
        return [json.loads(body)["results"][0]["series"][0]["columns"] for _, body in ask(other, message(text), 3)][-1]

    text = f"SELECT * FROM grown WHERE time >= '{at(0)}'"
    for turn, fields in enumerate(("a=1", "b=1", "c=1i"), 1):
        assert owner.write(f"grown {fields} {START_S + turn}", db="small", precision="s").status == 204
        assert columns() == ["time", "a", "b", "c"][: turn + 1]
    other.query("CREATE DATABASE brief")
    assert other.write("m v=1 1", db="brief").status == 204
    assert all(b'"series"' in body for _, body in ask(other, message("SELECT v FROM m", db="brief"), ROUNDS))
    other.query("DROP DATABASE brief")
    assert all(b"database not found" in body for _, body in ask(other, message("SELECT v FROM m", db="brief"), 2))


def test_requests_behind_one_that_is_passed_on_wait_for_it(nodes: tuple[Daemon, Daemon]) -> None:
    _, other = nodes
    wait_short(other, SMALL)
    later = SMALL.replace("h1", "h2")
    expected = [ask(other, message(text))[0][1] for text in (SMALL, later)]
    with connect(other) as sock:
        sock.sendall(message(SMALL) + message(later) + message(SMALL, headers=GENERAL) + message(later))
        assert [body for _, body in answers(sock, 4)] == expected * 2
    with connect(other) as sock:
        sock.sendall(message(SMALL))  # nobody waits for this one
    assert ask(other, message(SMALL))[0][1] == expected[0]


def test_an_owner_that_stands_still_does_not_keep_an_answer_back(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    try:
        owners = made.grow(3)
        other = made.add(join=[owners[0].meta_address], settings=META_ONLY).start()
        owners[0].query("CREATE DATABASE small WITH REPLICATION 3")
        assert owners[0].write(lines(), db="small", consistency="all").status == 204
        wait_short(other, SMALL)
        expected = ask(other, message(SMALL))[0][1]
        counts = [passed_on(owner) for owner in owners]
        (asked,) = (owner for owner, count in zip(owners, counts, strict=True) if count)
        assert asked.process is not None
        os.kill(asked.process.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                assert ask(other, message(SMALL))[0][1] == expected
            wait_short(other, SMALL)
        finally:
            os.kill(asked.process.pid, signal.SIGCONT)
        assert ask(other, message(SMALL))[0][1] == expected
    finally:
        made.close()
