"""Which copies of shards should move where: plans for adding, draining, replacing and balancing nodes. Pure.

A plan looks at where copies will be once all moves under way are complete. It never puts two copies of a shard on one
node and never gives one to a node that is down or draining.

Balance has two measures, bytes and numbers of shards. What a plan lowers with every move is the sum, over nodes and
measures, of the square of load / mean load; so a move for the bytes may cost a little evenness of numbers, never more
than it brings, and the greedy search ends.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dsdbd.limits import MAX_MOVES_PER_COMMAND, RESTORES_PER_NODE
from dsdbd.meta import views
from dsdbd.meta.commands import BeginMoves, ShardMove
from dsdbd.meta.refusals import shard_list

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from dsdbd.meta.state import MetaState

TOLERANCE = 0.05
"""Nodes within a twentieth of the mean load count as balanced: moving more would cost more than it brings."""
_LEAST_GAIN = 1e-9
"""What a move must bring at least, so that rounding does not move a copy back and forth."""


_BYTES, _COPIES = 0, 1
_MEASURES = (_BYTES, _COPIES)


class Plan(NamedTuple):
    """What to do; nothing where something is refused, except for plans that say so."""

    moves: tuple[ShardMove, ...] = ()
    """Copies to order with BeginMoves, biggest first for each receiver."""
    sizes: tuple[int, ...] = ()
    """Bytes that each of the moves copies, as far as known."""
    removals: tuple[tuple[int, int], ...] = ()
    """Shard and owner for RemoveShardOwner: copies beyond what the policy asks for, given up without a copy."""
    refusals: tuple[str, ...] = ()
    """Sentences for the user: why not, which shards, and what to do."""

    @property
    def size_bytes(self) -> int:
        """Bytes that are copied in all."""
        return sum(self.sizes)

    def duration_s(self, rate_bytes_per_s: float) -> float:
        """Seconds until the node that receives most has it, when each receives at that rate."""
        received: Counter[int] = Counter()
        for move, size_bytes in zip(self.moves, self.sizes, strict=True):
            received[move.node_id] += size_bytes
        return max(received.values(), default=0) / rate_bytes_per_s

    def first(self, count: int) -> Plan:
        """The plan with at most ``count`` of its moves; the rest is found again by a later plan."""
        return self._replace(moves=self.moves[:count], sizes=self.sizes[:count])

    def commands(self) -> Iterator[BeginMoves]:
        """The moves as commands of bounded size."""
        for start in range(0, len(self.moves), MAX_MOVES_PER_COMMAND):
            yield BeginMoves(self.moves[start : start + MAX_MOVES_PER_COMMAND])


class _Item:
    """One live shard: who has or will have a copy, and what moving one costs."""

    def __init__(self, place: views.ShardPlace, size_bytes: int) -> None:
        shard = place.shard
        replaced = {arrival.replaces for arrival in shard.incoming}
        self.id = shard.id
        self.group_id = place.group.id
        self.policy = f"{place.database.name}.{place.policy.name}"
        self.replica_n = place.policy.replica_n
        self.size_bytes = size_bytes
        self.owners = shard.owners
        self.staying = [owner for owner in shard.owners if owner not in replaced]
        """Owners that are not being replaced: the copies a plan may move."""
        self.taken = {*views.writers(shard)}
        """Nodes that cannot receive a copy, because they have one or are taking one."""
        self.arriving = [arrival.node for arrival in shard.incoming]

    @property
    def amounts(self) -> tuple[int, int]:
        """What a copy adds to the bytes and to the number of copies of a node."""
        return self.size_bytes, 1

    @property
    def copies(self) -> int:
        """How many copies there will be after the moves that are known."""
        return len(self.staying) + len(self.arriving)


class _Board:
    """The cluster as it will be, changed move by move while a plan is made."""

    def __init__(self, state: MetaState, sizes: Mapping[int, int], down: Collection[int]) -> None:
        self.nodes = {node.id for node in state.data_nodes}
        self.draining = {node.id for node in state.data_nodes if node.draining}
        self.down = self.nodes & {*down}
        self.taking = sorted(self.nodes - self.draining - self.down)
        self.items = {place.shard.id: _Item(place, sizes.get(place.shard.id, 0)) for place in views.all_shards(state)}
        self.load = (dict.fromkeys(self.nodes, 0), dict.fromkeys(self.nodes, 0))
        """Bytes and number of copies on each node."""
        self.held: dict[int, dict[int, _Item]] = {node_id: {} for node_id in self.nodes}
        self.in_group: Counter[tuple[int, int]] = Counter()
        self.pending: Counter[int] = Counter()
        """Copies that each node is taking."""
        for item in self.items.values():
            self.pending.update(item.arriving)
            for node_id in item.staying:
                self.held[node_id][item.id] = item
            for node_id in (*item.staying, *item.arriving):
                self._count(node_id, item, 1)
        takers = max(1, len(self.taking))
        self.mean = tuple(max(1e-9, sum(load[node_id] for node_id in self.taking) / takers) for load in self.load)
        self.moves: list[ShardMove] = []
        self.removals: list[tuple[int, int]] = []

    def _count(self, node_id: int, item: _Item, sign: int) -> None:
        for load, amount in zip(self.load, item.amounts, strict=True):
            load[node_id] += sign * amount
        self.in_group[node_id, item.group_id] += sign

    def fullness(self, node_id: int) -> float:
        """Bytes and number of copies of a node, each in parts of the mean."""
        return sum(load[node_id] / mean for load, mean in zip(self.load, self.mean, strict=True))

    def gain(self, item: _Item, donor: int, receiver: int) -> float:
        """By how much a move lowers the sum of squares, halved; negative where it raises it."""
        return sum(
            amount / mean * ((load[donor] - load[receiver] - amount) / mean)
            for load, mean, amount in zip(self.load, self.mean, item.amounts, strict=True)
        )

    def is_lost(self, item: _Item) -> bool:
        """Whether no owner could give a copy now."""
        return self.down.issuperset(item.owners)

    def can_spare(self, item: _Item, owner: int) -> bool:
        """Whether another owner that stays is up."""
        return any(other != owner and other not in self.down for other in item.staying)

    def move(self, item: _Item, receiver: int, replaces: int = 0) -> None:
        """Note a move and what it changes."""
        if replaces:
            self._leave(item, replaces)
        item.taken.add(receiver)
        item.arriving.append(receiver)
        self.pending[receiver] += 1
        self._count(receiver, item, 1)
        self.moves.append(ShardMove(item.id, receiver, replaces))

    def remove(self, item: _Item, owner: int) -> None:
        """Note that an owner gives its copy up."""
        self._leave(item, owner)
        self.removals.append((item.id, owner))

    def _leave(self, item: _Item, owner: int) -> None:
        item.staying.remove(owner)
        del self.held[owner][item.id]
        self._count(owner, item, -1)

    def receiver(self, item: _Item, among: Iterable[int], *, in_rounds: bool = False) -> int | None:
        """The emptiest node that can take a copy; of equals the one with the fewest shards of the group.

        ``in_rounds``: a node gets further copies only when all others have as many under way, so that an empty node
        does not make them all, one after the other.
        """
        able = (node_id for node_id in among if node_id not in item.taken)
        return min(
            able,
            key=lambda node_id: (
                self.pending[node_id] // RESTORES_PER_NODE if in_rounds else 0,
                self.fullness(node_id),
                self.in_group[node_id, item.group_id],
                node_id,
            ),
            default=None,
        )

    def heaviest_first(self, items: Iterable[_Item]) -> list[_Item]:
        return sorted(items, key=lambda item: (-item.size_bytes, item.id))

    def plan(self, refusals: Iterable[str] = ()) -> Plan:
        return Plan(
            tuple(self.moves),
            tuple(self.items[move.shard_id].size_bytes for move in self.moves),
            tuple(self.removals),
            tuple(refusals),
        )


def plan_add(state: MetaState, sizes: Mapping[int, int], down: Collection[int], node_id: int) -> Plan:
    """Give a node its share, taken from the nodes that have most.

    ``sizes``: bytes of one copy by shard; ``down``: data nodes that do not answer. The same for all plans.
    """
    board = _Board(state, sizes, down)
    if refusal := _cannot_take(board, node_id):
        return Plan(refusals=(refusal,))
    for measure in _MEASURES:
        load, mean = board.load[measure], board.mean[measure]
        while load[node_id] < mean:
            donors = sorted((other for other in board.taking if load[other] > mean), key=lambda other: -load[other])
            if not any(_lighten(board, measure, donor, node_id) for donor in donors):
                break
    return board.plan()


def plan_drain(state: MetaState, sizes: Mapping[int, int], down: Collection[int], node_id: int) -> Plan:
    """Move every copy of a node to others, so that it can be removed; whether it is marked as draining or not."""
    board = _Board(state, sizes, down)
    if node_id not in board.nodes:
        return Plan(refusals=(_unknown(node_id),))
    receivers = [other for other in board.taking if other != node_id]
    return _empty(board, node_id, receivers, receivers)


def plan_replace(state: MetaState, sizes: Mapping[int, int], down: Collection[int], old: int, new: int) -> Plan:
    """Move every copy of a node, which may be down, to another; what that one has already goes to any other node."""
    board = _Board(state, sizes, down)
    if old not in board.nodes:
        return Plan(refusals=(_unknown(old),))
    if old == new:
        return Plan(refusals=(f"data node {old} cannot replace itself",))
    if refusal := _cannot_take(board, new):
        return Plan(refusals=(refusal,))
    return _empty(board, old, [new], [other for other in board.taking if other != old])


def plan_rebalance(state: MetaState, sizes: Mapping[int, int], down: Collection[int]) -> Plan:
    """Even the load of the nodes that are up and not draining; no move where they are within a twentieth."""
    board = _Board(state, sizes, down)
    while any(_even(board, measure) for measure in _MEASURES):
        pass
    return board.plan()


def plan_restore(state: MetaState, sizes: Mapping[int, int], down: Collection[int], gone: Collection[int] = ()) -> Plan:
    """Bring every shard the copies its policy asks for, on nodes that are there to stay.

    Owners in ``gone`` (down for so long that nobody waits for them) and draining ones are replaced; where they are more
    than the policy asks for, draining ones give their copies up. Where too few nodes can take copies, as many as can be
    are made. The refusals name shards that are passed over because no owner could give a copy; the rest is planned.
    """
    board = _Board(state, sizes, {*down, *gone})
    leaving = board.draining | (board.nodes & {*gone})
    lost: list[int] = []
    for item in board.heaviest_first(board.items.values()):
        bad = sorted(owner for owner in item.staying if owner in leaving)
        good = sum(1 for node_id in (*item.staying, *item.arriving) if node_id not in leaving)
        if good >= item.replica_n and not bad:
            continue
        if board.is_lost(item):
            lost.append(item.id)
            continue
        for _ in range(item.replica_n - good):
            receiver = board.receiver(item, board.taking, in_rounds=True)
            if receiver is None:
                break
            board.move(item, receiver, bad.pop(0) if bad else 0)
            good += 1
        if good >= item.replica_n:
            for owner in bad:
                if owner in board.draining and board.can_spare(item, owner):
                    board.remove(item, owner)
    return board.plan([_all_owners_down(lost)] if lost else [])


def _empty(board: _Board, node_id: int, preferred: list[int], receivers: list[int]) -> Plan:
    """Move what a node holds to ``preferred`` nodes, else to any of ``receivers``."""
    lost: list[int] = []
    crowded: dict[str, list[int]] = {}
    for item in board.heaviest_first(board.held[node_id].values()):
        if board.is_lost(item):
            lost.append(item.id)
        elif item.copies > item.replica_n and board.can_spare(item, node_id):
            board.remove(item, node_id)
        elif (receiver := board.receiver(item, preferred) or board.receiver(item, receivers)) is not None:
            board.move(item, receiver, node_id)
        else:
            crowded.setdefault(item.policy, []).append(item.id)
    refusals = []
    if lost:
        given_up = (
            f"; if none of them comes back, DROP DATA SERVER {node_id} FORCE gives the points of its only copies up"
        )
        refusals.append(_all_owners_down(lost) + given_up)
    refusals += [_crowded(board, policy, shard_ids, receivers) for policy, shard_ids in crowded.items()]
    return Plan(refusals=tuple(refusals)) if refusals else board.plan()


def _crowded(board: _Board, policy: str, shard_ids: list[int], receivers: list[int]) -> str:
    """Why no node can take a copy of some shards, and what to do."""
    listed = shard_list(sorted(shard_ids))
    copies = max(board.items[shard_id].copies for shard_id in shard_ids)
    if len(receivers) >= copies:
        return (
            f"shards {listed} of {policy} are on their way between other nodes, so that no node can take a copy of "
            "them now: give the order again when these moves are done"
        )
    silent, draining = sorted(board.down), sorted(board.draining - board.down)
    others = [f"data node {node_id}, which does not answer" for node_id in silent]
    others += [f"data node {node_id}, which drains" for node_id in draining]
    aside = f" (not counting {', '.join(others)})" if others else ""
    ways = ["start the silent one"] if silent else []
    ways += [f"end a drain (dsdb node cancel {draining[0]})"] if draining else []
    left = f"{len(receivers)} data node{'' if len(receivers) == 1 else 's'}"
    return (
        f"retention policy {policy} would have fewer copies than now: {left} would be left{aside} for {copies} copies "
        f"of shards {listed}; {', '.join([*ways, 'add a node'])}, or lower its REPLICATION, first"
    )


def _even(board: _Board, measure: int) -> bool:
    """Move copies until every node is near the mean of one measure, or nothing helps; whether any was moved."""
    load, mean = board.load[measure], board.mean[measure]
    low, high = mean * (1 - TOLERANCE), mean * (1 + TOLERANCE)
    moved = False
    while True:
        ordered = sorted(board.taking, key=lambda node_id: (load[node_id], node_id))
        pairs = (
            (donor, receiver)
            for donor in reversed(ordered)
            for receiver in ordered
            if load[donor] > mean > load[receiver] and (load[donor] > high or load[receiver] < low)
        )
        if not any(_lighten(board, measure, donor, receiver) for donor, receiver in pairs):
            return moved
        moved = True


def _lighten(board: _Board, measure: int, donor: int, receiver: int) -> bool:
    """Move the copy from a donor to a receiver that fits best; False when none would help."""
    load, mean = board.load[measure], board.mean[measure]
    fitting = min(load[donor] - mean, mean - load[receiver])
    best: tuple[bool, int, int, int] | None = None
    for item in board.held[donor].values():
        if receiver in item.taken or board.is_lost(item) or board.gain(item, donor, receiver) < _LEAST_GAIN:
            continue
        # For bytes the biggest that overshoots neither node, else the smallest: no more copies and bytes than needed.
        big = measure == _BYTES and item.size_bytes <= fitting
        size_bytes = -item.size_bytes if big else item.size_bytes
        rank = (not big, size_bytes, board.in_group[receiver, item.group_id], item.id)
        if best is None or rank < best:
            best = rank
    if best is None:
        return False
    board.move(board.items[best[-1]], receiver, donor)
    return True


def _cannot_take(board: _Board, node_id: int) -> str:
    """Why a node can receive nothing; empty when it can."""
    if node_id not in board.nodes:
        return _unknown(node_id)
    if node_id in board.down:
        return f"data node {node_id} does not answer: start it first"
    if node_id in board.draining:
        return f"data node {node_id} is draining: it takes no shards"
    return ""


def _unknown(node_id: int) -> str:
    return f"there is no data node {node_id}"


def _all_owners_down(shard_ids: list[int]) -> str:
    return (
        f"every owner of shards {shard_list(shard_ids)} is down, so no copy can be made and the last one would be "
        "lost: start an owner first"
    )
