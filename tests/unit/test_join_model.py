"""The rule that forms a cluster, in a world of nodes that start, die, restart and answer late: one founder, always."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from dsdbd.meta.join import (
    Answer,
    Conflict,
    Found,
    Hello,
    Join,
    Myself,
    Silence,
    Wait,
    decide,
    heard_by,
    to_ask,
)
from tests.examples import examples


@dataclass
class Machine:
    """One node: what its disk keeps, and what its process knows."""

    number: int
    join: tuple[str, ...]
    can_found: bool
    up: bool = False
    cluster: str = ""
    boots: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    heard: frozenset[str] = frozenset()
    asked: tuple[str, ...] = ()
    kept_uuid: str = ""

    @property
    def address(self) -> str:
        return f"10.0.0.{self.number}:8091"

    @property
    def uuid(self) -> str:
        # Only a stored identity keeps the uuid over a restart.
        return self.kept_uuid or f"uuid-{self.number}-{self.boots}"

    @property
    def me(self) -> Myself:
        return Myself(self.uuid, self.address, self.join, self.can_found)

    def start(self) -> None:
        self.up, self.boots = True, self.boots + 1
        self.answers, self.heard, self.asked = {}, frozenset(), self.join

    def store(self, cluster: str) -> None:
        self.kept_uuid, self.cluster = self.uuid, cluster


class World:
    """All machines; every address also has an alias that leads to the same place."""

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.founders: list[int] = []
        self.places = {m.address: m for m in machines} | {f"alias{m.number}:8091": m for m in machines}

    def ask(self, machine: Machine, address: str) -> None:
        """One answer arrives; others of the same round may be older."""
        if machine.up and not machine.cluster:
            machine.answers[address] = self.answer(address)

    def answer(self, address: str) -> Answer:
        there = self.places.get(address)
        if there is None or not there.up:
            return Silence("connection refused")
        return Hello(there.uuid, there.address, there.cluster, there.join, there.heard, there.can_found)

    def judge(self, machine: Machine) -> None:
        """Decide on the answers of a round that is complete, as the daemon does."""
        if not machine.up or machine.cluster or any(address not in machine.answers for address in machine.asked):
            return
        answers = {address: machine.answers[address] for address in machine.asked}
        machine.heard = heard_by(machine.me, answers)
        match decide(machine.me, answers):
            case Found():
                machine.store(f"cluster-of-{machine.number}")
                self.founders.append(machine.number)
            case Join(addresses, cluster_id):
                there = self.places[addresses[0]]
                if there.up and there.cluster == cluster_id:
                    machine.store(cluster_id)
            case Wait():
                machine.asked = to_ask(machine.me, answers)
                machine.answers = {a: answers[a] for a in machine.asked if a in answers}
            case Conflict(reason):
                raise AssertionError(reason)


def reached(machines: list[Machine], first: int) -> frozenset[int]:
    """The machines to which the lists lead from one, itself included."""
    numbers, todo = {first}, [first]
    while todo:
        for address in machines[todo.pop()].join:
            number = int("".join(c for c in address.split(":")[0].split(".")[-1] if c.isdigit()))
            if number not in numbers:
                numbers.add(number)
                todo.append(number)
    return frozenset(numbers)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    count = draw(st.integers(1, 5))
    machines = []
    for number in range(count):
        others = draw(st.lists(st.integers(0, count - 1), max_size=count, unique=True))
        join = tuple(f"alias{n}:8091" if draw(st.booleans()) else f"10.0.0.{n}:8091" for n in others)
        machines.append(Machine(number, join, can_found=draw(st.integers(0, 4)) > 0))
    # Two groups of lists that lead to different ends are two clusters by the operator's own words.
    core = frozenset.intersection(*(reached(machines, machine.number) for machine in machines))
    assume(core)
    ends = frozenset(n for n in core if reached(machines, n) == core)
    assume(ends == core and any(machines[n].can_found for n in core))
    return World(machines)


@settings(max_examples=examples(150), deadline=None)
@given(world=worlds(), data=st.data())
def test_one_founder_whatever_happens_and_one_cluster_when_all_are_up(world: World, data: st.DataObject) -> None:
    machines = world.machines
    for _ in range(data.draw(st.integers(0, 80), "steps")):
        machine = machines[data.draw(st.integers(0, len(machines) - 1), "machine")]
        match data.draw(st.integers(0, 9), "what"):
            case 0:
                machine.start()
            case 1:
                machine.up = False
            case 2 | 3 | 4:
                if machine.asked:
                    world.ask(machine, data.draw(st.sampled_from(machine.asked), "address"))
            case 5 | 6:
                for address in machine.asked:
                    world.ask(machine, address)
            case _:
                world.judge(machine)
        assert len(world.founders) <= 1, world.founders
    event(f"{len(machines)} nodes, founded early: {bool(world.founders)}")
    for machine in machines:
        if not machine.up:
            machine.start()
    for _ in range(4 * len(machines) + 4):
        for machine in machines:
            for address in machine.asked:
                world.ask(machine, address)
            world.judge(machine)
    assert len(world.founders) == 1, [(m.number, m.join, m.answers) for m in machines]
    assert {machine.cluster for machine in machines} == {f"cluster-of-{world.founders[0]}"}


@given(world=worlds(), data=st.data())
def test_nobody_founds_while_a_listed_node_is_silent(world: World, data: st.DataObject) -> None:
    silent = data.draw(st.sampled_from(world.machines))
    for machine in world.machines:
        if machine is not silent:
            machine.start()
    for _ in range(20):
        for machine in world.machines:
            for address in machine.asked:
                world.ask(machine, address)
            world.judge(machine)
    for machine in world.machines:
        if machine.cluster:
            assert silent.number not in reached(world.machines, world.founders[0])


def test_an_address_that_left_every_list_is_not_waited_for() -> None:
    me = Myself("a", "a:1", ("b:1",))
    wrong = {"b:1": Hello("b", "b:1", "", ("typo:1",)), "typo:1": Silence("the name does not resolve")}
    assert "typo:1" in to_ask(me, wrong)
    mended = {"b:1": Hello("b2", "b:1", "", ("a:1",), frozenset({"a", "b2"})), "typo:1": Silence("no such name")}
    assert to_ask(me, mended) == ("b:1",)
    answers = {address: mended[address] for address in to_ask(me, mended)}
    assert decide(me, answers) == Found()


def test_every_member_that_answers_is_named_in_the_order_of_the_list() -> None:
    me = Myself("z", "z:1", ("dead:1", "a:1", "b:1"))
    answers: dict[str, Answer] = {
        "dead:1": Silence("connection refused"),
        "a:1": Hello("a", "a:1", "c1"),
        "b:1": Hello("b", "b:1", "c1"),
    }
    assert decide(me, answers) == Join(("a:1", "b:1"), "c1")


def test_a_list_that_leads_to_two_clusters_is_refused_with_both_named() -> None:
    me = Myself("z", "z:1", ("a:1", "b:1"))
    found = decide(me, {"a:1": Hello("a", "a:1", "c1"), "b:1": Hello("b", "b:1", "c2")})
    assert isinstance(found, Conflict)
    for word in ("c1", "c2", "a:1", "b:1", "join"):
        assert word in found.reason
