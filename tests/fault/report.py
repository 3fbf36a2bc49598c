"""One page about a campaign: seed, faults, figures and what the checkers say."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.fault.history import OK, read


def load_report(work: Path) -> dict[str, Any]:
    """What a campaign left in its directory; with the end of its output where it left nothing."""
    path = work / "report.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    output = work / "output"
    return {"rounds": [], "void": output.read_text()[-4000:] if output.exists() else "it did not start"}


def acknowledged(report: dict[str, Any]) -> int:
    """Points acknowledged at quorum or all in all rounds."""
    return sum(one["verdicts"]["lost"]["acknowledged"] for one in report["rounds"])


def faults(report: dict[str, Any]) -> int:
    """Faults of all rounds."""
    return sum(one["faults"] for one in report["rounds"])


def problems(report: dict[str, Any]) -> list[str]:
    """Sentences of all checkers, by round."""
    found = [f"void: {report['void']}"] if "void" in report else []
    for one in report["rounds"]:
        for name, verdict in one["verdicts"].items():
            found += [f"round {one['round']}: {name}: {sentence}" for sentence in verdict["problems"]]
    return found


def caught(report: dict[str, Any]) -> set[str]:
    """Names of the checkers that found something."""
    return {name for one in report["rounds"] for name, verdict in one["verdicts"].items() if not verdict["ok"]}


def render(report: dict[str, Any], work: Path, took_s: float) -> str:
    """The page."""
    rounds = report["rounds"]
    kinds: Counter[str] = Counter()
    for one in rounds:
        kinds.update(one["kinds"])
    worst_s = max((one["verdicts"]["unavailable"]["worst_s"] for one in rounds), default=0.0)
    total: Counter[str] = Counter()
    for one in rounds:
        total["lost"] += one["verdicts"]["lost"]["lost"]
        total["missing"] += one["verdicts"]["lost"]["missing"]
        total["diverged"] += one["verdicts"]["diverged"]["different"]
        total["registers"] += one["verdicts"]["not linearizable"]["keys"]
        total["operations"] += one["verdicts"]["not linearizable"]["operations"]
    lines = [
        f"seed {report.get('seed')}, {report.get('nodes')} nodes, {len(rounds)} rounds, {took_s / 60:.1f} minutes",
        f"faults {faults(report)}: " + ", ".join(f"{kind} {number}" for kind, number in kinds.most_common()),
        f"points acknowledged at quorum or all: {acknowledged(report):,}",
        f"lost {total['lost']}, missing at an owner {total['missing']}, values that differ {total['diverged']}",
        f"registers {total['registers']}, operations on them {total['operations']}",
        f"worst unavailability with a majority whole: {worst_s:.1f} s",
        "settled after the heal: " + ", ".join(_settled(one) for one in rounds),
        *_health(work, len(rounds)),
        *_requests(work, len(rounds)),
        *(f"PROBLEM {sentence}" for sentence in problems(report)),
        f"histories, logs and report.json: {work}",
    ]
    return "\n".join(lines)


def _settled(one: dict[str, Any]) -> str:
    return f"{one['settled_s']} s" if one["settled"] else f"not within {one['settled_s']} s ({one['unsettled'][:300]})"


def _health(work: Path, rounds: int) -> list[str]:
    """How long faults took to be seen in another node's verdict, and to be gone from it."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    cleared: defaultdict[str, list[float]] = defaultdict(list)
    shown: Counter[str] = Counter()
    for number in range(rounds):
        for record in read(work / f"history{number}.jsonl"):
            if record["kind"] == "health":
                shown[record["name"]] += 1
                if record["seen_s"] is not None:
                    seen[record["name"]].append(record["seen_s"])
                if record["cleared_s"] is not None:
                    cleared[record["name"]].append(record["cleared_s"])
    return ["in /health of others, median (worst): kind, seen of all, seen after, cleared after"] + [
        f"  {name}: {len(seen[name])} of {count}, {_spread(seen[name])}, {_spread(cleared[name])}"
        for name, count in sorted(shown.items())
    ]


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} s ({max(values):.1f} s)" if values else "-"


def _requests(work: Path, rounds: int) -> list[str]:
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(rounds):
        for record in read(work / f"history{number}.jsonl"):
            if "outcome" in record:
                outcomes[record["kind"], record["outcome"]] += 1
    kinds = sorted({kind for kind, _ in outcomes})
    return ["requests: kind, ok, refused, unknown"] + [
        f"  {kind}: {outcomes[kind, OK]}, {outcomes[kind, 'refused']}, {outcomes[kind, 'unknown']}" for kind in kinds
    ]
