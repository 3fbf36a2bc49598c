"""What repair decides: what to compare next, which parts to pull, who holds what. Pure.

Two copies of a shard are compared by digests of their values (``model.digest``) and of their deletions. Each node pulls
what it lacks; that the other one pulls as well makes both equal.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsdbd.storage.tombstones import Tombstone, encode_tombstones

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from dsdbd.model.digest import Grid

MASK = (1 << 64) - 1
EVERYTHING = (1 << 63) - 1
"""Greater than any version."""
COST_SHARE = 200
"""A comparison that took a second is not repeated for so many. With three copies a node makes digests of one for two
others and is asked by both, which takes two percent of a processor then."""
PAIRS_PER_S = 100
"""Where a node has more pairs of copies than this times the interval, each is compared less often."""
_SOON_COST_SHARE = 10
_SOON_TURNS = 3
"""The same for the first looks after a difference was found."""
HANDOFF_TURNS = 10
"""How often a difference is left to the writes that its holder keeps for this node, while these do not get less."""
_MOST_HANDOFF_TURNS = 600
SOON_S = 1.0
"""The next look at what could not be compared, or is being delivered; it doubles up to the interval."""
_KNOWN_CELLS = 100_000

Pair = tuple[int, int]
"""A shard's number and that of another owner's node."""


# --- deletions


def identity(tombstone: Tombstone) -> int:
    """A number of a deletion that is the same on all nodes."""
    raw = encode_tombstones([replace(tombstone, files=frozenset())])
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def tombstone_sum(tombstones: Iterable[Tombstone]) -> int:
    """A number of a set of deletions; 0 where there are none."""
    return sum(map(identity, tombstones)) & MASK


def lacking(
    own: Sequence[Tombstone], theirs: Iterable[Tombstone], horizon: int, *, rows_differ: bool
) -> list[Tombstone]:
    """The deletions that this node must take over.

    Those of versions below ``horizon`` meet no row that is still on its way. They may have been forgotten here, for
    every owner had them; they are needed only where rows differ.
    """
    return [
        one for one in theirs if (rows_differ or one.version >= horizon) and not any(mine.covers(one) for mine in own)
    ]


# --- values


def summary_of(grids: Mapping[str, Grid]) -> int:
    """One number for all measurements of a shard; 0 where there are no values."""
    return sum(grid.total for grid in grids.values() if len(grid.places)) & MASK


def totals_of(grids: Mapping[str, Grid]) -> dict[str, int]:
    """The total of each measurement that has values."""
    return {name: grid.total for name, grid in grids.items() if len(grid.places)}


def differing(own: Grid | None, theirs: Grid) -> npt.NDArray[np.uint16]:
    """The cells in which the other node has something, and not just what this one has."""
    if own is None:
        return theirs.places
    differ: npt.NDArray[np.bool_] = theirs.sums != own.cells[theirs.places]
    return theirs.places[differ]


class KnownCells:
    """Cells that were pulled whole and still differ, because this node has more: they are not pulled again.

    That is so until one of the two changes. Bounded: what is forgotten is pulled once more.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, str], dict[int, Pair]] = {}
        self._count = 0

    def fresh(self, pair: Pair, measurement: str, own: Grid | None, theirs: Grid) -> npt.NDArray[np.uint16]:
        """The differing cells but for those."""
        places = differing(own, theirs)
        known = self._known.get((*pair, measurement))
        if not known or own is None:
            return places
        mine, other = own.cells, theirs.cells
        keep = [known.get(place) != (int(mine[place]), int(other[place])) for place in places.tolist()]
        return places[np.array(keep, dtype=np.bool_)]

    def pulled(self, pair: Pair, measurement: str, own: Grid | None, theirs: Grid) -> None:
        """All cells of the other node's grid were pulled; ``own`` is what this node has now."""
        self.forget(pair, measurement)
        if own is None:
            return
        mine, other = own.cells, theirs.cells
        known = {place: (int(mine[place]), int(other[place])) for place in differing(own, theirs).tolist()}
        if self._count + len(known) > _KNOWN_CELLS:
            self._known.clear()
            self._count = 0
        if known:
            self._known[(*pair, measurement)] = known
            self._count += len(known)

    def forget(self, pair: Pair, measurement: str) -> None:
        """Let go of what is known of a measurement."""
        self._count -= len(self._known.pop((*pair, measurement), ()))


def enough(owners: Sequence[int]) -> int:
    """How many owners beside one are a majority with it."""
    return len(owners) // 2


# --- what to compare, and what is known of it


@dataclass(slots=True)
class _State:
    """What this node knows of its copy of a shard beside that of another owner.

    ``whole``: it held all of the other one's values when it last compared, and has no reason to doubt it. ``equal``:
    the other one held no more and no less. ``doubts``: how often there was reason to; ``doubtful``: one was not settled
    since by a comparison that left nothing out; ``hurried``: the next one is not to wait. ``failures``: comparisons in
    a row that did not end so. ``held``: deletions of this node that the other one had. ``kept_bytes``: of writes that
    it was about to deliver, at the last look that left a difference to them (one of ``left_to_handoff``, and of
    ``idle_turns`` since they got less).
    """

    due_s: float
    whole: bool = False
    equal: bool = False
    doubts: int = 0
    doubtful: bool = True
    hurried: bool = False
    failures: int = 0
    left_to_handoff: int = 0
    idle_turns: int = 0
    kept_bytes: int = 0
    held: frozenset[int] = field(default_factory=frozenset)


class Outcome(NamedTuple):
    """What came of a comparison; ``took_s``: processor time, ``held`` as in the state.

    ``doubts``: as the ledger had them before it began. ``bounded``: values that had just been written were left out.
    """

    whole: bool
    equal: bool
    took_s: float
    held: frozenset[int]
    doubts: int = 0
    bounded: bool = False


class Ledger:
    """Which pairs of copies are compared when, and what came of it. Times are seconds of a monotonic clock."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._states: dict[Pair, _State] = {}
        self._others: dict[int, tuple[int, ...]] = {}
        self._begun = False

    def know(self, others: Mapping[int, Sequence[int]], now_s: float) -> None:
        """Take note of the shards of this node, each with its other owners; the first time with newest metadata."""
        wanted = [(shard, node) for shard, nodes in others.items() for node in nodes]
        for pair in wanted:
            if pair not in self._states:
                # Copies that came to be while this node was there began equal: empty, or by a move.
                self._states[pair] = _State(now_s, whole=self._begun, doubtful=not self._begun)
        # Other threads ask meanwhile: what they find here has its states.
        self._others = {shard: tuple(nodes) for shard, nodes in others.items()}
        for pair in self._states.keys() - set(wanted):
            del self._states[pair]
        self._begun = True

    def due(self, now_s: float) -> dict[int, list[int]]:
        """Other nodes with the shards to compare with them now."""
        found: dict[int, list[int]] = {}
        for (shard, node), state in self._states.items():
            if state.due_s <= now_s:
                found.setdefault(node, []).append(shard)
        return found

    def wake(self, now_s: float, *, shards: Collection[int] | None = None, node: int | None = None) -> None:
        """Compare at once: these shards or all, with one node or all. There is reason to doubt what is known."""
        for (shard, other), state in self._states.items():
            if (shards is None or shard in shards) and node in (None, other):
                state.due_s = now_s
                state.failures = state.left_to_handoff = state.idle_turns = 0
                state.hurried = True
                self._doubt(state)

    def refused(self, shard: int, now_s: float) -> None:
        """Doubt a copy that did not take what others may have taken; it is compared before long."""
        for other in self._others.get(shard, ()):
            state = self._states.get((shard, other))
            if state is not None:
                if state.whole:
                    state.due_s = min(state.due_s, now_s + self._pause_s(state))
                self._doubt(state)

    @staticmethod
    def _doubt(state: _State) -> None:
        state.whole = state.equal = False
        state.doubts += 1
        state.doubtful = True

    def doubts(self, pair: Pair) -> int:
        """For the outcome of a comparison that begins now."""
        state = self._states.get(pair)
        return 0 if state is None else state.doubts

    def is_doubtful(self, pair: Pair) -> bool:
        """Whether the next comparison must leave nothing out: what was lost may have been written just before."""
        state = self._states.get(pair)
        return state is None or state.doubtful

    def compared(self, pair: Pair, outcome: Outcome, now_s: float) -> None:
        """A comparison came to its end. It says nothing of what there is reason to doubt since it began."""
        state = self._states.get(pair)
        if state is None:
            return
        hurried, state.hurried = state.hurried, False
        if outcome.doubts != state.doubts:
            if not hurried:
                self.failed(pair, now_s)
            return
        state.doubtful = state.doubtful and outcome.bounded
        state.whole, state.equal, state.held = outcome.whole and not state.doubtful, outcome.equal, outcome.held
        state.left_to_handoff = state.idle_turns = 0
        # What is not equal waits for the other one to pull; then it is looked at once more.
        interval_s = max(self._interval_s, len(self._states) / PAIRS_PER_S)
        wait_s = interval_s if outcome.equal else self._pause_s(state)
        share = COST_SHARE if outcome.equal or state.failures >= _SOON_TURNS else _SOON_COST_SHARE
        state.failures = 0 if outcome.equal else state.failures + 1
        state.due_s = now_s + max(wait_s, share * outcome.took_s)
        if outcome.equal:
            # Many share a request.
            grain_s = self._interval_s / 10
            state.due_s = math.floor(state.due_s / grain_s) * grain_s

    def failed(self, pair: Pair, now_s: float) -> None:
        """A comparison could not be made, or not come to its end."""
        state = self._states.get(pair)
        if state is not None:
            state.due_s = now_s + self._pause_s(state)
            state.failures += 1

    def _pause_s(self, state: _State) -> float:
        return min(self._interval_s, SOON_S * 2.0 ** min(state.failures, 10))

    def differs(self, pair: Pair) -> None:
        """A difference was found: this copy may lack something."""
        state = self._states.get(pair)
        if state is not None:
            state.whole = state.equal = False

    def leave_to_handoff(self, pair: Pair, kept_bytes: int, now_s: float) -> bool:
        """Whether a difference is left, for a while, to the writes that the other node is about to deliver."""
        state = self._states.get(pair)
        if state is None or not kept_bytes:
            return False
        state.idle_turns = 0 if kept_bytes < state.kept_bytes else state.idle_turns + 1
        state.kept_bytes = kept_bytes
        state.left_to_handoff += 1
        if state.idle_turns > HANDOFF_TURNS or state.left_to_handoff > _MOST_HANDOFF_TURNS:
            return False
        state.due_s = now_s + SOON_S
        return True

    def next_s(self) -> float | None:
        """When the next comparison is due; None while there is nothing to compare."""
        return min((state.due_s for state in self._states.values()), default=None)

    def is_clean(self, shard: int) -> bool:
        """Whether this node holds all that a majority of the owners, itself among them, held when last compared.

        Any thread may call it.
        """
        others = self._others.get(shard)
        if others is None:
            return self._begun  # it has just come to be
        states = [self._states.get((shard, node)) for node in others]
        whole = sum(state.whole for state in states if state is not None)
        return whole >= enough((0, *others))

    def all_clean(self) -> bool:
        """Whether that is so for every shard of this node."""
        return all(map(self.is_clean, self._others))

    def unequal(self) -> int:
        """How many pairs are not known to be equal."""
        return sum(not state.equal for state in self._states.values())

    def settled(self, shard: int, known: Iterable[Tombstone]) -> int:
        """The version up to which every other owner is known to have the deletions of this node's copy; 0 for none.

        Any thread may call it.
        """
        others = self._others.get(shard)
        if others is None:
            return 0
        states = [self._states.get((shard, node)) for node in others]
        if any(state is None for state in states):
            return 0
        held = [state.held for state in states if state is not None]
        open_ones = [one.version for one in known if not all(identity(one) in each for each in held)]
        return min(open_ones, default=EVERYTHING + 1) - 1
