"""One page about a campaign: seed, faults, figures and what the checkers say."""

from __future__ import annotations

import json
from collections import Counter
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
        *(f"kinds that this machine cannot do: {', '.join(report['unable'])}" for _ in [0] if report.get("unable")),
        f"points acknowledged at quorum or all: {acknowledged(report):,}",
        f"lost {total['lost']}, missing at an owner {total['missing']}, values that differ {total['diverged']}",
        f"registers {total['registers']}, operations on them {total['operations']}",
        f"worst unavailability with a majority whole: {worst_s:.1f} s",
        "settled after the heal: " + ", ".join(_settled(one) for one in rounds),
        *_health(rounds),
        *_requests(work, len(rounds)),
        *(f"PROBLEM {sentence}" for sentence in problems(report)),
        f"histories, logs and report.json: {work}",
    ]
    return "\n".join(lines)


def _settled(one: dict[str, Any]) -> str:
    return f"{one['settled_s']} s" if one["settled"] else f"not within {one['settled_s']} s ({one['unsettled'][:300]})"


def _health(rounds: list[dict[str, Any]]) -> list[str]:
    """How long faults took to be named, and to be named no more, by kind and kind of page."""
    total: dict[str, dict[str, Any]] = {}
    for one in rounds:
        for name, row in one["verdicts"].get("health", {}).get("faults", {}).items():
            known = total.setdefault(name, {})
            for column, value in row.items():
                known[column] = known[column] + value if column in known else value
    lines = ["health: kind and page: judged (late, staying), seen after and cleared after, median (worst); not judged"]
    for name, row in sorted(total.items()):
        figures = f"{row['judged']} ({row['late']}, {row['stays']})"
        spreads = f"{_spread(row['seen'])}, {_spread(row['cleared'])}"
        lines.append(f"  {name}: {figures}, {spreads}; {row['unjudged']} overlapped, {row['short']} too short")
    return lines


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
