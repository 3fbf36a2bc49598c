"""Many series: what they cost to write, to hold, to open again and to ask, beside other systems.

    python -m benchmarks.cardinality [--series 1000000] [--points 3] [--systems dsdb,influxdb,victoria-metrics]

Each system gets the same rows: first one of every series, then the other points of each. After the last it is killed
with kill -9 at once (VictoriaMetrics when it has written everything out), started again, left alone until it has
written everything out, stopped and started once more, and asked. Prints a table, writes cardinality-SERIES.json, .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tsbs.__main__ import machine, present
from benchmarks.tsbs.compare import VICTORIA_TOLERANCE, difference, difference_of_answers
from benchmarks.tsbs.generator import START_NS, Workload
from benchmarks.tsbs.report import Line, markdown, table
from benchmarks.tsbs.run import FAILURES, say
from benchmarks.tsbs.systems import SYSTEMS, InfluxApi, System
from benchmarks.tsbs.worker import Worker

if TYPE_CHECKING:
    from benchmarks.tsbs.client import Connection

_BATCH_ROWS = 5_000
_CONNECTIONS = 2
_INTERVAL_S = 60
_HOT_RUNS = 3
_KINDS = 1_000
"""Values of the tag ``kind``."""


@dataclass(frozen=True)
class Question:
    """One question in both languages; the second is path and parameters, empty where it cannot be asked."""

    name: str
    influxql: str
    prometheus: tuple[str, dict[str, str]] | None


def questions(series: int, points: int) -> list[Question]:
    """What is asked of every system."""
    end_ms = START_NS // 10**6 + points * _INTERVAL_S * 1000 - 1
    span_s = points * _INTERVAL_S

    def instant(expression: str) -> tuple[str, dict[str, str]]:
        return "/api/v1/query", {"query": expression, "time": f"{end_ms / 1000:.3f}", "nocache": "1"}

    def label(name: str, match: str) -> tuple[str, dict[str, str]]:
        bounds = {"start": str(START_NS // 10**9), "end": f"{end_ms / 1000:.3f}"}
        return f"/api/v1/label/{name}/values", {"match[]": match, **bounds}

    one = f"s{series // 2}"
    return [
        Question(
            "tag values, 1,000 of them", 'SHOW TAG VALUES FROM sensor WITH KEY = "kind"', label("kind", "sensor_value")
        ),
        Question(
            "tag values of a thousandth of the series",
            "SHOW TAG VALUES FROM sensor WITH KEY = id WHERE \"kind\" = 'k7'",
            label("id", 'sensor_value{kind="k7"}'),
        ),
        Question(
            "tag values, one of each series", "SHOW TAG VALUES FROM sensor WITH KEY = id", label("id", "sensor_value")
        ),
        Question(
            "one series",
            f"SELECT max(value) FROM sensor WHERE id = '{one}' GROUP BY \"kind\"",
            instant(f'max(max_over_time(sensor_value{{id="{one}"}}[{span_s}s])) by (kind)'),
        ),
        Question(
            "series of one of 1,000 values",
            'SELECT max(value) FROM sensor WHERE "kind" = \'k7\' GROUP BY "kind"',
            instant(f'max(max_over_time(sensor_value{{kind="k7"}}[{span_s}s])) by (kind)'),
        ),
        Question(
            "series by regular expression",
            'SELECT max(value) FROM sensor WHERE id =~ /^s[0-9]*77$/ GROUP BY "kind"',
            instant(f'max(max_over_time(sensor_value{{id=~"s[0-9]*77"}}[{span_s}s])) by (kind)'),
        ),
        Question(
            "all series by a tag of 1,000 values",
            'SELECT mean(value) FROM sensor GROUP BY "kind"',
            instant(f"avg(avg_over_time(sensor_value[{span_s}s])) by (kind)"),
        ),
        Question(
            "count of all", "SELECT count(value) FROM sensor", instant(f"sum(count_over_time(sensor_value[{span_s}s]))")
        ),
    ]


def ask(system: System, connection: Connection, question: Question) -> bytes | None:
    """The answer, None where the system cannot be asked that."""
    if isinstance(system, InfluxApi):
        return system.ask_path(connection, system.influxql_path(question.influxql), question.name)
    if question.prometheus is None:
        return None
    path, parameters = question.prometheus
    return system.ask_path(connection, f"{path}?{urllib.parse.urlencode(parameters)}", question.name)


def plain(answer: bytes) -> Any:
    """What an answer of either kind says: a list of tag values, or numbers by the value of ``kind``."""
    document = json.loads(answer)
    if "results" not in document:
        data = document["data"]
        if isinstance(data, list):
            return sorted(data)
        return {one["metric"].get("kind", ""): float(one["value"][1]) for one in data["result"]}
    series = document["results"][0].get("series", [])
    if series and series[0]["columns"] == ["key", "value"]:
        return sorted(row[1] for row in series[0]["values"])
    return {one.get("tags", {}).get("kind", ""): float(one["values"][0][1]) for one in series}


def measure(
    system: System, worker: Worker, series: int, points: int, answers: dict[tuple[str, str], bytes]
) -> dict[str, float]:
    """Every figure of one system."""
    found: dict[str, float] = {}

    def keep(name: str, value: float) -> None:
        found[name] = value
        say(f"{system.name}: {name}: {value:,.4g}")

    empty_bytes = system.usage().rss_bytes
    for name in ("new", "known"):
        before_s = system.usage().cpu_s
        loaded = worker.load(name, system.write_target(), _CONNECTIONS)
        keep(f"write, {name} series, rows/s", loaded["rows"] / loaded["elapsed_s"])
        keep(f"write, {name} series, server CPU, µs a row", (system.usage().cpu_s - before_s) * 1e6 / loaded["rows"])
    used = system.usage()
    keep("memory after writing, bytes", used.rss_bytes)
    keep("memory after writing, bytes a series", (used.rss_bytes - empty_bytes) / series)
    keep("memory while writing, highest, bytes", used.peak_rss_bytes)
    if not system.durable:
        system.settle()  # it would lose rows, and then answer about fewer
    system.kill()
    keep("start after kill -9, s", system.start())
    keep("written out and merged after, s", system.settle())
    keep("disk, bytes a series", system.data_bytes() / series)
    keep("stop, s", system.stop())
    keep("start after a stop, s", system.start())
    keep("memory after the start, bytes", system.usage().rss_bytes)
    with system.connect() as connection:
        for question in questions(series, points):
            taken_ms = []
            for _ in range(1 + _HOT_RUNS):
                began_s = time.perf_counter()
                answer = ask(system, connection, question)
                taken_ms.append((time.perf_counter() - began_s) * 1e3)
            if answer is not None:
                answers[system.name, question.name] = answer
                keep(f"{question.name}: first, ms", taken_ms[0])
                keep(f"{question.name}: again, ms", sorted(taken_ms[1:])[_HOT_RUNS // 2])
    used = system.usage()
    keep("memory after the questions, bytes", used.rss_bytes)
    keep("memory after the questions, bytes a series", (used.rss_bytes - empty_bytes) / series)
    keep("memory with the questions, highest, bytes", used.peak_rss_bytes)
    return found


def compare(systems: tuple[str, ...], names: list[str], answers: dict[tuple[str, str], bytes]) -> list[str]:
    """Where answers differ from those of the first system that gave one."""
    found = []
    for name in names:
        given = [system for system in systems if (system, name) in answers]
        for other in given[1:]:
            left, right = answers[given[0], name], answers[other, name]
            both_influx = all(issubclass(SYSTEMS[system], InfluxApi) for system in (given[0], other))
            verdict = (
                difference_of_answers(left, right)
                if both_influx
                else difference(plain(left), plain(right), VICTORIA_TOLERANCE)
            )
            if verdict is not None:
                found.append(f"{name}: {given[0]} and {other} differ: {verdict}")
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--points", type=int, default=3, help="of each series, at least 2")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="names, separated by commas")
    parser.add_argument("--quiet-s", type=float, help="time without a change after which files are final")
    parser.add_argument("--out", type=Path, default=Path("var/bench"), help="where the results are written")
    parser.add_argument("--work", type=Path, default=None, help="where the servers keep their files")
    options = parser.parse_args()
    systems = present(options.systems)
    where = machine()
    failures: list[str] = []
    figures: dict[str, dict[str, float]] = {}
    answers: dict[tuple[str, str], bytes] = {}
    with tempfile.TemporaryDirectory(prefix="cardinality-", dir=options.work) as directory, Worker() as worker:
        first = Workload(options.series, 1, _INTERVAL_S)
        worker.make("new", "series", first, _BATCH_ROWS)
        rest = Workload(options.series, max(1, options.points - 1), _INTERVAL_S, start_ns=first.end_ns)
        worker.make("known", "series", rest, _BATCH_ROWS)
        for name in systems:
            system = SYSTEMS[name](Path(directory) / name)
            system.quiet_s = system.quiet_s if options.quiet_s is None else options.quiet_s
            try:
                with system:
                    system.create_database()
                    figures[name] = measure(system, worker, options.series, rest.ticks + 1, answers)
            except FAILURES as error:
                failures.append(f"{name}: {type(error).__name__}: {error}; the end of its log: {system.log_end()}")
                say(f"FAILED {failures[-1]}")
    names = [question.name for question in questions(options.series, rest.ticks + 1)]
    failures += compare(systems, names, answers)
    every = dict.fromkeys(name for one in figures.values() for name in one)
    lines = [Line(name, {system: one[name] for system, one in figures.items() if name in one}) for name in every]
    title = f"{options.series:,} series, {rest.ticks + 1} points each; {where['date']}"
    text = f"{title}\n\n{markdown(table(systems, lines))}" + "".join(f"\n- FAILED {failure}" for failure in failures)
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"machine": where, "title": title, "figures": figures, "failures": failures}
    (options.out / f"cardinality-{options.series}.json").write_text(json.dumps(document, indent=1))
    (options.out / f"cardinality-{options.series}.md").write_text(text)
    sys.stdout.write(text + "\n")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
