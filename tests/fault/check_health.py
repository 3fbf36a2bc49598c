"""Health tells the truth: whether each fault is named where it should be, how soon, and how soon no longer.

A page counts for a fault by what it names, the node that is hit or the part of it, not by being bad in some way. Pages
of nodes that another fault hits meanwhile, and faults whose verdict stood already when they began, are not judged.
After the heal a sentence does not count that is as well about a node that another fault hits, or has hit a moment ago,
such as that the one does not reach the other: it stands as long as that fault does, whose own verdict is judged, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.fault.netns import address
from tests.fault.observer import SILENT
from tests.fault.verdict import Verdict

PAGES = ("health", "ready", "status")
_STOPPED = frozenset({"kill", "kill_leader", "pause", "pause_leader", "power_cut"})
_CUT = frozenset({"isolate", "isolate_leader", "one_way", "bridge"})
_SLOW = frozenset({"loss", "delay"})
_DISK = frozenset({"disk_full", "disk_stall"})
_UNREADY = _STOPPED | _DISK | {"isolate", "isolate_leader"}
"""While these last, requests should not be sent to the victim."""
JUDGED = _STOPPED | _CUT | _SLOW | _DISK | {"clock"}
_HARMLESS = frozenset({"join", "drain", "clock"})
"""No node is out of reach because of them."""
_SETTLED_S = 0.5
"""For so long after it is ready again a node that was hit is no witness of others."""
_LATER_S = 5.0
"""For so long after a fault its own verdict may stand."""
_LONGEST_S = 20.0
_PATH = re.compile(r"/\S+")
_NOT_COPIED = re.compile(r".*cannot be copied to this node yet: ")


class Sight(NamedTuple):
    """One fault on one kind of page. ``seen_s``: None where it never was; ``why_not``: why it is not judged."""

    kind: str
    page: str
    begun: float
    seen_s: float | None = None
    cleared_s: float | None = None
    length_s: float = 0.0
    why_not: str = ""
    shown: str = ""
    """What stood last; it stood when the looking ended, ``cleared_s`` after the heal at the earliest."""


@dataclass(frozen=True)
class _Look:
    t: float
    facts: tuple[str, ...]


class _Looks:
    """What a page of a node said when."""

    def __init__(self) -> None:
        self.looks: list[_Look] = []

    def between(self, begin_s: float, end_s: float) -> list[_Look]:
        """What it said in this time; what it had said last before counts as said at its beginning."""
        before = [one for one in self.looks if one.t <= begin_s]
        first = [_Look(begin_s, before[-1].facts)] if before else []
        return first + [one for one in self.looks if begin_s < one.t <= end_s]


def shows(fault: dict[str, Any], node: int, page: str, facts: Iterable[str], whole: Iterable[int]) -> str:
    """The fact on a page of ``node`` that names a fault; empty where none does. ``whole``: nodes of no other fault."""
    victims = set(fault["nodes"])
    ends = set(fault["touched"]) - victims or set(whole) - victims
    naming = _Naming(
        fault["name"], node in victims, _addresses(victims), _addresses(ends if node in victims else victims)
    )
    return next((fact for fact in facts if _names(naming, page, fact)), "")


class _Naming(NamedTuple):
    kind: str
    is_victim: bool
    victims: tuple[str, ...]
    far: tuple[str, ...]
    """The other ends of the links between the node that speaks and the fault."""


def _addresses(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{address(number)}:" for number in sorted(numbers))


def _names(naming: _Naming, page: str, fact: str) -> bool:
    kind, is_victim, victims, far = naming
    name = fact.partition(": ")[0]
    # Who takes the copy says so and is whole; what stands in the way is named behind it.
    fact = _NOT_COPIED.sub("", fact)
    if page == "ready":
        return is_victim
    if fact == SILENT:
        # A daemon that ends because of its disk can say no more.
        return is_victim and kind in _DISK
    of_victim = any(one in fact for one in victims)
    is_down = page == "status" and name == "down" and of_victim
    if kind in _DISK:
        own = (is_victim and name in ("disk", "storage")) if page == "health" else of_victim and _of_disk(fact)
        return own or is_down
    if kind == "clock":
        # Versions that a wrong clock brought are ahead until that time has come, long after it is right again.
        return "clock" in fact and "versions of writes" not in fact and (is_victim or of_victim or page == "status")
    if "clock" in fact or _of_disk(fact) or _of_writes(fact):
        return False
    if kind in _STOPPED:
        # A way that loses or delays packets is said of another fault's link, of which the victim is the far end.
        return not is_victim and (is_down or (of_victim and "packets" not in fact and "slow" not in fact))
    return (is_victim and name == "partition") or any(one in fact for one in far)


def _of_disk(fact: str) -> bool:
    words = _PATH.sub("", fact)
    return "disk" in words or "space" in words


def _of_writes(fact: str) -> bool:
    """What follows from a fault and stays until it is made good; the node's address before it is the speaker's."""
    return "kept for" in fact or "lacks points" in fact


def _left_of(fault: dict[str, Any], others: list[dict[str, Any]], look: _Look) -> tuple[str, ...]:
    """The facts of a look; after the heal without those of others: they name a node, or may have taken the leader."""
    if look.t <= fault["healed"]:
        return look.facts
    under_way = [
        one for one in others if one["name"] not in _HARMLESS and one["begun"] <= look.t < _over_s(one) + _LATER_S
    ]
    ends = _addresses({node for one in under_way for node in one["touched"]} - set(fault["touched"]))
    return tuple(
        fact
        for fact in look.facts
        if not any(one in fact for one in ends) and not (under_way and "have no leader" in fact)
    )


def sights(history: Iterable[dict[str, Any]], nodes: Iterable[int]) -> list[Sight]:
    """How each fault of a history came to light on each kind of page. ``nodes``: the members at its beginning."""
    records = list(history)
    faults = sorted((one for one in records if one["kind"] == "fault"), key=lambda one: one["begun"])
    looks: dict[tuple[int, str], _Looks] = {}
    for record in records:
        if record["kind"] == "page":
            key = (record["node"], record["page"])
            looks.setdefault(key, _Looks()).looks.append(_Look(record["t"], tuple(record["facts"])))
    found = []
    for fault in faults:
        if fault["name"] in JUDGED:
            members = _members(records, nodes, fault["begun"])
            others = [one for one in faults if one is not fault]
            found += [
                _sight(fault, others, page, looks, members)
                for page in PAGES
                if page != "ready" or fault["name"] in _UNREADY
            ]
    return found


def _members(records: list[dict[str, Any]], nodes: Iterable[int], t: float) -> list[int]:
    found = set(nodes)
    for one in records:
        if one["kind"] == "member" and one["t"] <= t:
            (found.add if one["there"] else found.discard)(one["node"])
    return sorted(found)


def _sight(
    fault: dict[str, Any],
    others: list[dict[str, Any]],
    page: str,
    looks: dict[tuple[int, str], _Looks],
    nodes: list[int],
) -> Sight:
    kind, touched = fault["name"], fault["touched"]
    begun_s, healed_s = fault["struck"], fault["healed"]
    made = Sight(kind, page, begun_s, length_s=round(healed_s - begun_s, 2))
    mine = [one for one in others if set(one["touched"]) & set(touched)]
    end_s = min([healed_s + _LONGEST_S, *(one["begun"] for one in mine if one["begun"] > fault["begun"])])
    if any(one["begun"] <= fault["begun"] < one["healed"] for one in mine) or end_s < healed_s:
        return made._replace(why_not="another fault of the same node")
    whole = [node for node in nodes if not _is_busy(node, touched, others, fault["begun"], healed_s)]
    if page == "ready" and len(whole) < len(nodes):
        return made._replace(why_not="another fault may take the leader away")
    witnesses = [node for node in _pages_of(fault, page, nodes) if (node, page) in looks and node in whole]
    if not set(witnesses) - set(fault["nodes"]) and page != "ready" and kind not in _DISK:
        return made._replace(why_not="no other node is whole")
    if not witnesses:
        return made._replace(why_not="no node is whole")
    anywhere = page == "ready" or bool(set(fault["nodes"]) & set(witnesses) and kind in _CUT | _SLOW)
    views = []
    for node in witnesses:
        after = [one for one in others if one["begun"] > healed_s and (anywhere or node in one["touched"])]
        until_s = min([end_s, *(one["begun"] for one in after)])
        said = [
            (look.t, shows(fault, node, page, _left_of(fault, others, look), whole))
            for look in looks[node, page].between(fault["begun"], until_s)
        ]
        if said and said[0][1] and said[0][0] <= fault["begun"]:
            continue
        views.append(_view(said, begun_s, healed_s, until_s))
    return _together(made, views) if views else made._replace(why_not="shown before")


class _View(NamedTuple):
    seen_s: float
    cleared_s: float
    shown: str


def _view(said: list[tuple[float, str]], begun_s: float, healed_s: float, until_s: float) -> _View | None:
    """What one page said of a fault; None where it said nothing."""
    bad = [number for number, (_, fact) in enumerate(said) if fact]
    if not bad:
        return None
    seen_s = max(0.0, said[bad[0]][0] - begun_s)
    if bad[-1] + 1 < len(said):
        return _View(seen_s, max(0.0, said[bad[-1] + 1][0] - healed_s), "")
    return _View(seen_s, until_s - healed_s, said[bad[-1]][1])


def _together(made: Sight, views: list[_View | None]) -> Sight:
    """Every witness has to see it, but of a clock or a slow link one is enough; and all have to forget it."""
    known = [one for one in views if one is not None]
    one_is_enough = made.kind in _SLOW | {"clock"}
    if not known or (len(known) < len(views) and not one_is_enough):
        return made
    last = max(known, key=lambda one: one.cleared_s)
    return made._replace(
        seen_s=round((min if one_is_enough else max)(one.seen_s for one in known), 2),
        cleared_s=round(last.cleared_s, 2),
        shown=last.shown,
    )


def _pages_of(fault: dict[str, Any], page: str, nodes: list[int]) -> list[int]:
    """The nodes whose pages have to name a fault."""
    kind, victims = fault["name"], fault["nodes"]
    if page == "ready" or (kind in _DISK and page == "health"):
        return list(victims)
    if kind in _STOPPED | _DISK:
        return [node for node in nodes if node not in victims]
    return list(fault["touched"]) if kind == "bridge" and page == "health" else nodes


def _is_busy(node: int, touched: list[int], others: list[dict[str, Any]], begun_s: float, healed_s: float) -> bool:
    """Whether another fault hits a node while it is to say something about this one."""
    return node not in touched and any(
        node in one["touched"] and one["begun"] < healed_s and _over_s(one) > begun_s for one in others
    )


def _over_s(fault: dict[str, Any]) -> float:
    return float(fault["healed"] + fault.get("ready_s", 0.0) + _SETTLED_S)


def check_health(history: list[dict[str, Any]], nodes: Iterable[int], seen_s: float, cleared_s: float) -> Verdict:
    """Each fault that lasts is named within ``seen_s``, and within ``cleared_s`` after its heal no longer."""
    verdict = Verdict("health")
    rows: dict[str, dict[str, list[float]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for one in sights(history, nodes):
        name = f"{one.kind} {one.page}"
        spread = rows.setdefault(name, {"seen": [], "cleared": []})
        count = counts.setdefault(name, dict.fromkeys(("judged", "short", "unjudged", "late", "stays"), 0))
        if one.why_not:
            count["unjudged"] += 1
            continue
        where = f"{one.kind} at {one.begun:.3f} for {one.length_s:g} s on /{one.page}"
        is_late = one.seen_s is None or one.seen_s > seen_s
        # What was over before it had to be named need not be; when it is, it has to be forgotten in time.
        is_short = is_late and one.length_s < seen_s
        count["short" if is_short else "judged"] += 1
        if is_late and not is_short:
            count["late"] += 1
            seen = "never" if one.seen_s is None else f"after {one.seen_s:g} s"
            verdict.problems.append(f"{where}: seen {seen}")
        if one.seen_s is None or one.cleared_s is None:
            continue
        if not is_short:
            spread["seen"].append(one.seen_s)
        if one.shown and one.cleared_s <= cleared_s:
            continue
        spread["cleared"].append(one.cleared_s)
        if one.cleared_s > cleared_s:
            count["stays"] += 1
            still = f", and still {one.shown[:120]!r}" if one.shown else ""
            verdict.problems.append(f"{where}: cleared after {one.cleared_s:g} s{still}")
    verdict.figures = {"faults": {name: {**counts[name], **rows[name]} for name in sorted(rows)}}
    return verdict
