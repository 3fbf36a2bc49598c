"""The list of running queries, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dsdbd.cluster.running import RunningQueries, RunningQuery
from dsdbd.cluster.statements.queries import find_host
from dsdbd.errors import RequestError
from dsdbd.meta.state import DataNode, MetaNode, MetaState
from dsdbd.query import QueryCancelled


class Listing(RuleBasedStateMachine):
    """Any order of beginning, ending, killing and timing out keeps list and counters right."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = RunningQueries()
        self.running: dict[int, RunningQuery] = {}
        self.reasons: dict[int, list[str]] = {}
        self.ended: list[RunningQuery] = []
        self.refused = 0
        self.begun = 0

    @rule(most=st.integers(0, 4))
    def begin(self, most: int) -> None:
        reasons: list[str] = []
        if most and len(self.running) >= most:
            with pytest.raises(QueryCancelled) as refusal:
                self.queries.begin(lambda: "q", "d", 0.0, reasons.append, most=most)
            assert refusal.value.message == f"max-concurrent-queries limit exceeded({len(self.running)}, {most})"
            self.refused += 1
            return
        query = self.queries.begin(lambda: "q", "d", 0.0, reasons.append, most=most)
        self.begun += 1
        assert query.qid == self.begun
        self.running[query.qid] = query
        self.reasons[query.qid] = reasons

    @rule(qid=st.integers(0, 12))
    def kill(self, qid: int) -> None:
        if qid not in self.running:
            with pytest.raises(RequestError, match=f"no such query id: {qid}"):
                self.queries.kill(qid)
        elif self.reasons[qid]:
            with pytest.raises(RequestError, match="already killed"):
                self.queries.kill(qid)
        else:
            self.queries.kill(qid)
            assert self.reasons[qid] == ["query interrupted"]

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.running:
            query = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
            self.queries.end(query, 1.0)
            self.queries.end(query, 2.0)
            self.ended.append(query)

    @rule(data=st.data())
    def time_out(self, data: st.DataObject) -> None:
        """The timer of a query may fire after its end."""
        every = [*self.running.values(), *self.ended]
        if every:
            query = data.draw(st.sampled_from(every))
            before = list(self.reasons[query.qid])
            self.queries.time_out(query)
            if before or query in self.ended:
                assert self.reasons[query.qid] == before
            else:
                assert self.reasons[query.qid] == ["query-timeout limit exceeded"]

    @invariant()
    def list_and_counters_agree(self) -> None:
        shown = {row[0]: row[4] for row in self.queries.rows(0.0)}
        assert shown == {qid: "killed" if self.reasons[qid] else "running" for qid in self.running}
        stats = self.queries.stats()
        assert stats["queriesActive"] == len(self.running)
        assert stats["queriesExecuted"] == self.begun
        assert stats["queriesFinished"] == len(self.ended)
        assert stats["queriesRefused"] == self.refused
        assert stats["queryDurationNs"] == len(self.ended) * 10**9
        said = [reason for reasons in self.reasons.values() for reason in reasons]
        assert stats["queriesKilled"] == said.count("query interrupted")
        assert stats["queriesTimedOut"] == said.count("query-timeout limit exceeded")


TestListing = Listing.TestCase


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (0.0, "0s"),
        (89.4e-6, "89µs"),
        (0.3055, "305ms"),
        (1.999, "1s"),
        (65.0, "1m5s"),
        (3725.9, "1h2m5s"),
        (-1.0, "0s"),
    ],
)
def test_an_age_is_cut_to_its_greatest_unit(age_s: float, text: str) -> None:
    queries = RunningQueries()
    queries.begin(lambda: "q", "d", 100.0, lambda _: None)
    assert queries.rows(100.0 + age_s)[0][3] == text


NODES = MetaState(
    meta_nodes=(MetaNode(1, "a", "one:8091", "one:8088"), MetaNode(3, "b", "two:8091", "two:8088")),
    data_nodes=(DataNode(2, "a", "one:8080", "one:8088"), DataNode(4, "c", "two:8180", "two:8188")),
)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("one", "one:8088"),
        ("one:8088", "one:8088"),
        ("one:8080", "one:8088"),
        ("one:8091", "one:8088"),
        ("two:8188", "two:8188"),
    ],
)
def test_a_host_is_found_by_any_of_its_addresses(host: str, address: str) -> None:
    assert find_host(NODES, host) == address


@pytest.mark.parametrize(
    ("host", "why"),
    [("two", "several nodes.*two:8088, two:8188"), ("three", "no node.*one:8088, two:8088, two:8188"), ("", "no node")],
)
def test_a_host_must_be_one_node(host: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        find_host(NODES, host)


@given(st.text(max_size=30))
def test_any_name_of_a_host_gets_an_answer(host: str) -> None:
    try:
        assert find_host(NODES, host) in ("one:8088", "two:8088", "two:8188")
    except RequestError as error:
        assert "node" in error.message
