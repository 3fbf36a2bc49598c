"""Fifty data nodes over weeks, simulated: joins, failures, replacements, drains, rebalances; groups come and go.

The metadata (``apply``), the placement, the planners and the decisions of the leader's jobs are those of the daemon.
Simulated are time, failures and how long a copy takes. ``python -m tests.sim.fifty --seeds N`` runs many seeds and
prints what was seen.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from dataclasses import dataclass, field

from dsdbd.meta import balance, views
from dsdbd.meta import commands as c
from dsdbd.meta.apply import apply
from dsdbd.meta.commands import Command, Envelope, Result, decode_result, encode_envelope
from dsdbd.meta.state import MetaState, Shard, encode_state
from dsdbd.services import copies, groups

NODES = 50
MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
TICK_NS = 20 * MINUTE_NS
GRACE_NS = 40 * MINUTE_NS
AT_ONCE = 2
QUIET_DAYS = 12
RATE_BYTES_PER_S = 100e6
CAP = 3
POLICIES = (("metrics", 3, DAY_NS, 14 * DAY_NS), ("events", 2, 2 * DAY_NS, 20 * DAY_NS))
GIB = 1 << 30
WITHIN = 0.10
"""How far a node may be from the mean load after a rebalance."""


class BrokenInvariantError(AssertionError):
    """What must always hold did not; the text says the seed and the time."""


@dataclass
class Figures:
    """What one run saw."""

    ticks: int = 0
    joins: int = 0
    losses: int = 0
    outages: int = 0
    drains: int = 0
    rebalances: int = 0
    dry_runs: int = 0
    refused: int = 0
    copied: int = 0
    copied_bytes: int = 0
    unbalanced: float = 0.0
    """Greatest distance of a node from the mean, as a part of it, after a rebalance."""
    restore_ns: int = 0
    """Longest time from the loss of a node until others had copies of all its shards; the grace is in it."""
    shards: int = 0
    metadata_bytes_per_shard: float = 0.0
    plan_s: float = 0.0


@dataclass
class Machine:
    """A data node as the simulation sees it."""

    up: bool = True
    down_since_ns: int = 0
    back_ns: int | None = None
    """When it is up again; None: never, its disk is lost."""
    held: set[int] = field(default_factory=set)
    """Shards of which the disk has all points."""
    free_ns: list[int] = field(default_factory=lambda: [0] * AT_ONCE)
    """When each of its slots for copies is free."""


class World:
    """One run."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.state = MetaState()
        self.now_ns = 1_700_000_000 * 10**9
        self.machines: dict[int, Machine] = {}
        self.sizes: dict[int, int] = {}
        self.figures = Figures()
        self._names = 0
        self._checked: object = None
        self._lost_ns: dict[int, int] = {}
        for name, replica_n, group_ns, duration_ns in POLICIES:
            self.must(c.CreateDatabase(name, c.PolicySpec("p", duration_ns, replica_n, group_ns)))
        self.must(c.CreateDatabase("automatic"))
        for _ in range(nodes):
            self.join()

    # --- the metadata

    def give(self, command: Command) -> Result:
        """Apply one command as every node of a cluster does."""
        index = self.state.index + 1
        envelope = encode_envelope(Envelope(f"r{index}", self.now_ns, command))
        self.state, answer = apply(self.state, index, envelope)
        result = decode_result(answer)
        if isinstance(command, c.CreateShardGroups) and isinstance(result.value, c.ShardGroupsAre):
            for shard in (shard for group in result.value.groups for shard in group.shards):
                if shard.id not in self.sizes:
                    self.sizes[shard.id] = self.rng.randint(GIB // 2, GIB)
                    for owner in shard.owners:
                        self.machines[owner].held.add(shard.id)
        return result

    def must(self, command: Command) -> Result:
        """Apply a command that must not be refused."""
        result = self.give(command)
        self.check(result.ok, f"{command} was refused: {result.error}")
        return result

    def check(self, holds: bool, what: str) -> None:
        """Raise BrokenInvariantError with the seed and the time."""
        if not holds:
            day = (self.now_ns / 10**9 - 1_700_000_000) / 86_400
            raise BrokenInvariantError(f"seed {self.seed}, day {day:.2f}: {what}")

    @property
    def down(self) -> set[int]:
        """Data nodes that do not answer."""
        return {node_id for node_id, machine in self.machines.items() if not machine.up}

    @property
    def gone(self) -> frozenset[int]:
        """Data nodes that have not answered for longer than the grace."""
        return frozenset(
            node_id
            for node_id, machine in self.machines.items()
            if not machine.up and self.now_ns - machine.down_since_ns >= GRACE_NS
        )

    @property
    def serving(self) -> list[int]:
        """Data nodes that are up and here to stay."""
        return [node.id for node in self.state.data_nodes if self.machines[node.id].up and not node.draining]

    # --- time

    def tick(self, step_ns: int = TICK_NS) -> None:
        """Let one interval pass: what is back, what is copied, what the leader does; then check."""
        self.now_ns += step_ns
        self.figures.ticks += 1
        for machine in self.machines.values():
            if not machine.up and machine.back_ns is not None and machine.back_ns <= self.now_ns:
                machine.up = True
        self._groups()
        self._copy()
        self._lead()
        self._copy()
        self._drop_drained()
        self._check()

    def _groups(self) -> None:
        avoid = tuple(sorted(self.down))
        for database in list(self.state.databases.values()):
            for policy in database.policies.values():
                if views.group_for_time(policy, self.now_ns) is None:
                    self.must(c.CreateShardGroups(database.name, policy.name, (self.now_ns,), avoid))
        for command in list(groups.successors(self.state, self.now_ns, 2 * HOUR_NS, avoid)):
            self.must(command)
        for group, command in list(groups.expired(self.state, self.now_ns)):
            self.must(command)
            for shard in group.shards:
                self.sizes.pop(shard.id)
        prune = groups.forgettable(self.state, self.now_ns)
        if prune is not None:
            self.must(prune)

    def _copy(self) -> None:
        """Every node works on the copies the metadata orders, as many at a time as it may."""
        incoming: dict[int, list[int]] = defaultdict(list)
        places = {}
        for place in views.all_shards(self.state):
            for arrival in place.shard.incoming:
                incoming[arrival.node].append(place.shard.id)
                places[place.shard.id] = place.shard
        for node_id, machine in self.machines.items():
            if machine.up:
                self._copy_at(node_id, machine, [places[shard_id] for shard_id in incoming[node_id]])

    def _copy_at(self, node_id: int, machine: Machine, wanted: list[Shard]) -> None:
        """Copy what a node gets done until now, one shard after the other in each of its slots."""
        machine.free_ns = [max(free_ns, self.now_ns - TICK_NS) for free_ns in machine.free_ns]
        for shard in wanted:
            slot = machine.free_ns.index(min(machine.free_ns))
            sources = [o for o in shard.owners if self.machines[o].up and shard.id in self.machines[o].held]
            if machine.free_ns[slot] >= self.now_ns or not sources:
                continue
            took_s = self.sizes[shard.id] / (RATE_BYTES_PER_S / AT_ONCE) * self.rng.uniform(1, 3)
            machine.free_ns[slot] += int(took_s * 1e9)
            machine.held.add(shard.id)
            self.must(c.CompleteMove(shard.id, node_id))
            self.figures.copied += 1
            self.figures.copied_bytes += self.sizes[shard.id]

    def _lead(self) -> None:
        """What ``services.replication`` does at each look."""
        raised = copies.raise_due(self.state, CAP)
        if raised is not None:
            self.must(raised)
            self.check(copies.raise_due(self.state, CAP) is None, "a number of copies stays behind")
        gone = self.gone
        for node_id in copies.dead_receivers(self.state, gone):
            self.must(c.CancelMoves(node_id=node_id))
        if copies.copies_missing(self.state, gone):
            plan = self.plan(balance.plan_restore, gone)
            ordered = plan.first(copies.room_for_moves(self.state, self.down))
            self.check(not plan.refusals, "; ".join(plan.refusals))
            self.begin(ordered)

    def _drop_drained(self) -> None:
        for node in self.state.data_nodes:
            if node.draining and not views.shards_owned(self.state, node.id):
                self.must(c.DropDataNode(node.id))
                del self.machines[node.id]

    # --- what happens to the cluster

    def join(self) -> int:
        """A new node registers; it gets shards when something gives it any."""
        name = f"n{self._names}"
        self._names += 1
        value = self.must(c.CreateDataNode(name, f"{name}:1", f"{name}:2")).value
        assert isinstance(value, c.NodeIs)
        self.machines[value.id] = Machine()
        self.figures.joins += 1
        return value.id

    def add(self) -> None:
        """``dsdb node add``."""
        node_id = self.join()
        plan = self.plan(balance.plan_add, node_id)
        self.check({move.node_id for move in plan.moves} <= {node_id}, "adding a node moved shards between others")
        self.begin(plan)

    def fail(self, *, for_ever: bool) -> None:
        """A node fails: for a while, which may be longer than the grace, or for ever."""
        node_id = self.rng.choice(self.serving)
        machine = self.machines[node_id]
        machine.up, machine.down_since_ns = False, self.now_ns
        machine.back_ns = None if for_ever else self.now_ns + self.rng.randint(5, 400) * MINUTE_NS
        if for_ever:
            machine.held.clear()
            self.figures.losses += 1
            self._lost_ns[node_id] = self.now_ns
        else:
            self.figures.outages += 1

    def replace_lost(self) -> bool:
        """``dsdb node replace`` for a node that is lost; False when there is none."""
        lost = [node_id for node_id, machine in self.machines.items() if not machine.up and machine.back_ns is None]
        if not lost:
            return False
        new = self.join()
        plan = self.plan(balance.plan_replace, lost[0], new)
        self.check(not plan.refusals, "; ".join(plan.refusals))
        self.must(c.SetDraining(lost[0], draining=True))
        self.begin(plan)
        return True

    def drain(self) -> None:
        """``dsdb node drain``, and removal once it is empty."""
        node_id = self.rng.choice(self.serving)
        plan = self.plan(balance.plan_drain, node_id)
        self.check(not plan.refusals, "; ".join(plan.refusals))
        self.must(c.SetDraining(node_id, draining=True))
        self.begin(plan)
        self.figures.drains += 1

    def rebalance(self) -> None:
        """``dsdb node rebalance``, waited for; then the load must be even and nothing left to move."""
        for _ in range(5):
            plan = self.plan(balance.plan_rebalance)
            if not plan.moves:
                break
            self.begin(plan)
            self.settle()
        self.figures.rebalances += 1
        sizes, numbers = self.loads()
        for load, one in ((sizes, GIB), (numbers, 1)):
            mean = sum(load.values()) / len(load)
            apart = max(abs(value - mean) for value in load.values())
            self.figures.unbalanced = max(self.figures.unbalanced, apart / mean)
            self.check(
                apart <= max(WITHIN * mean, one), f"after a rebalance a node is {apart / mean:.1%} from the mean"
            )

    def dry_runs(self) -> None:
        """Plans with some nodes assumed to be down are refused exactly when a copy could not be made."""
        assumed = {
            *self.down,
            *self.rng.sample(self.serving, self.rng.randint(0, max(0, min(6, len(self.serving) - 4)))),
        }
        node_id = self.rng.choice(self.serving)
        held = [place.shard for place in views.shards_owned(self.state, node_id)]
        staying = [shard for shard in held if all(arrival.replaces != node_id for arrival in shard.incoming)]
        lost = [shard.id for shard in staying if assumed >= {*shard.owners}]
        before = self.state
        plan = balance.plan_drain(self.state, self.sizes, assumed, node_id)
        self.check(bool(lost) == bool(plan.refusals), f"shards {lost}, refused: {plan.refusals}")
        self.check(not (plan.moves and plan.refusals), "a refused plan has moves")
        self.check(all(str(shard_id) in plan.refusals[0] for shard_id in lost[:10]), f"{lost} not in {plan.refusals}")
        self.check(self.state is before, "a dry run changed the metadata")
        self.figures.dry_runs += 1
        self.figures.refused += bool(plan.refusals)

    # --- helpers

    def plan(self, planner, *arguments) -> balance.Plan:
        """A plan for the cluster as it is, timed."""
        start_s = time.perf_counter()
        plan = planner(self.state, self.sizes, self.down, *arguments)
        self.figures.plan_s = max(self.figures.plan_s, time.perf_counter() - start_s)
        return plan

    def begin(self, plan: balance.Plan) -> None:
        """Order what a plan says."""
        for command in plan.commands():
            self.must(command)
        for shard_id, owner in plan.removals:
            self.must(c.RemoveShardOwner(shard_id, owner))

    def moves(self) -> int:
        """Copies under way."""
        return sum(len(place.shard.incoming) for place in views.all_shards(self.state))

    def settle(self) -> None:
        """Let time pass until no copy is under way or missing and every failure is over or given up."""
        for _ in range(2_000):
            self.tick()
            waiting = self.down - self.gone
            if not waiting and not self.moves() and not copies.copies_missing(self.state, self.gone):
                return
        self.check(False, "the cluster does not come to rest")

    def loads(self) -> tuple[dict[int, int], dict[int, int]]:
        """Bytes and number of copies of each node that is up."""
        sizes, numbers = dict.fromkeys(self.serving, 0), dict.fromkeys(self.serving, 0)
        for place in views.all_shards(self.state):
            for owner in place.shard.owners:
                if owner in sizes:
                    sizes[owner] += self.sizes[place.shard.id]
                    numbers[owner] += 1
        return sizes, numbers

    def _check(self) -> None:
        seen = (self.state.databases, self.state.data_nodes, tuple(sorted(self.down)))
        if seen == self._checked:
            return
        self._checked = seen
        owning = {owner for place in views.all_shards(self.state) for owner in place.shard.owners}
        for node_id in self._lost_ns.keys() - owning:
            self.figures.restore_ns = max(self.figures.restore_ns, self.now_ns - self._lost_ns.pop(node_id))
        up = {node_id: machine.held for node_id, machine in self.machines.items() if machine.up}
        for live, place in enumerate(views.all_shards(self.state), 1):
            shard = place.shard
            serving = [owner for owner in shard.owners if owner in up]
            if not serving or not all(shard.id in up[owner] for owner in serving):
                self.check(False, f"{shard} has no copy that is up, or an owner without its points")
            if len({*views.writers(shard)}) < len(views.writers(shard)):
                self.check(False, f"{shard} has a node twice")
            self.figures.shards = max(self.figures.shards, live)
        if self.figures.ticks % 20 == 0:
            per_shard = len(encode_state(self.state)) / max(1, self.figures.shards)
            self.figures.metadata_bytes_per_shard = max(self.figures.metadata_bytes_per_shard, per_shard)


def run(seed: int, steps: int) -> Figures:
    """One run: weeks of quiet growth, then ``steps`` things that happen, each while the one before may be under way."""
    world = World(seed, NODES)
    for _ in range(QUIET_DAYS * 12):
        world.tick(2 * HOUR_NS)
    rng = world.rng
    for _ in range(steps):
        kind = rng.choice(["add", "outage", "outage", "loss", "loss", "drain", "rebalance", "dry"])
        # Two copies bear one failure: the next waits until nothing lacks a copy because of the last.
        if kind in ("outage", "loss") and (world.down or copies.copies_missing(world.state, world.down)):
            kind = "dry"
        if kind == "add" and len(world.serving) < NODES + 5:
            world.add()
        elif kind in ("outage", "loss"):
            world.fail(for_ever=kind == "loss")
        elif kind == "drain" and len(world.serving) > NODES - 5 and not world.moves():
            world.drain()
        elif kind == "rebalance":
            world.settle()
            while world.replace_lost():
                world.settle()
            world.rebalance()
        for _ in range(3):
            world.dry_runs()
        for _ in range(rng.randint(1, 8)):
            world.tick()
    world.settle()
    world.rebalance()
    return world.figures


def main() -> None:
    """Run seeds and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --first")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60, help="things that happen in a run")
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        start_s = time.perf_counter()
        print(f"seed {seed}: {run(seed, options.steps)}, {time.perf_counter() - start_s:.1f} s")


if __name__ == "__main__":
    main()
