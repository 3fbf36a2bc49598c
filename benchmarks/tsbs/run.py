"""The phases of a run: what is measured of one system, one after the other."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tsbs.client import BadAnswer
from benchmarks.tsbs.compare import difference_of_answers, difference_of_points
from benchmarks.tsbs.generator import ValueKind, Workload
from benchmarks.tsbs.queries import KINDS, queries
from benchmarks.tsbs.systems import SYSTEMS, ServerFailed, System
from benchmarks.tsbs.worker import Worker, WorkerFailed

if TYPE_CHECKING:
    from pathlib import Path

PHASES = ("ingest", "queries", "restart", "under-load", "mixed", "one-point", "disk")
VALUE_KINDS: tuple[ValueKind, ...] = ("float", "decimal", "int")
FAILURES = (ServerFailed, WorkerFailed, BadAnswer, OSError)
_MIXED_TICKS = 360
_LOADED_WARM_UP_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What to measure. ``budget_s`` bounds the repetitions of one kind of query, of which there are at least three.

    ``quiet_s`` replaces the time without a change after which each system's files count as final.
    """

    systems: tuple[str, ...]
    workload: Workload
    phases: tuple[str, ...] = PHASES
    batch_rows: int = 5_000
    connections: int = 2
    mixed_rows: int = 1_000
    one_point_requests: int = 20_000
    one_point_connections: int = 64
    runs: int = 20
    budget_s: float = 2.0
    disk_values: tuple[ValueKind, ...] = VALUE_KINDS
    quiet_s: float | None = None


@dataclass
class Run:
    """Figures by system, and the answers that are compared at the end."""

    plan: Plan
    root: Path
    worker: Worker
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    answers: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def measure(self) -> None:
        """Measure every system."""
        plan = self.plan
        say("making the data")
        made = self.worker.make("cpu", "cpu", plan.workload, plan.batch_rows)
        say(f"{made['rows']} rows, {made['size_bytes'] / 1e6:.0f} MB of line protocol")
        for name in plan.systems:
            self.figures[name] = {}
            self._guard(name, self._main)
        if {"mixed", "one-point"} & set(plan.phases):
            ticks = max(1, min(_MIXED_TICKS, plan.workload.ticks))
            self.worker.make("mixed", "devops", replace(plan.workload, ticks=ticks), plan.mixed_rows)
            for name in plan.systems:
                self._guard(name, self._small_writes)
            self.worker.drop("mixed")
        self.worker.drop("cpu")
        if "disk" in plan.phases:
            for values in plan.disk_values:
                if values != plan.workload.values:
                    self.worker.make(values, "cpu", replace(plan.workload, values=values), plan.batch_rows)
                    for name in plan.systems:
                        self._guard(name, self._disk, values)
                    self.worker.drop(values)

    def _guard(self, name: str, phase: Any, *arguments: Any) -> None:
        """Run a phase on a fresh server; what fails is noted, and the next one goes on."""
        directory = self.root / f"{name}-{phase.__name__.strip('_')}{''.join(f'-{word}' for word in arguments)}"
        system = SYSTEMS[name](directory)
        system.quiet_s = system.quiet_s if self.plan.quiet_s is None else self.plan.quiet_s
        try:
            with system:
                system.create_database()
                phase(system, self.figures[name], *arguments)
        except FAILURES as error:
            self.note(f"{name}: {type(error).__name__}: {error}; the end of its log: {system.log_end()}")
        shutil.rmtree(directory)

    def note(self, failure: str) -> None:
        """Keep a failure for the report, and say it now."""
        self.failures.append(failure)
        say(f"FAILED {failure}")

    def _main(self, system: System, figures: dict[str, Any]) -> None:
        """Ingest, the questions hot, after a restart and under load: all on the same data."""
        plan = self.plan
        figures["ingest"] = self._ingest(system, "cpu")
        figures["disk"] = {plan.workload.values: figures["ingest"]["bytes_per_value"]}
        latencies = figures["queries"] = {kind: {} for kind in KINDS}
        if "queries" in plan.phases:
            self._hot(system, latencies)
        used = system.usage()
        figures["memory"] = {"rss_bytes": used.rss_bytes, "peak_rss_bytes": used.peak_rss_bytes}
        if "restart" in plan.phases:
            figures["restart"] = {"stop_s": system.stop(), "start_s": system.start()}
            for kind in KINDS:
                self._ask(system, kind, latencies, "cold", seed=1, runs=1)
        if "under-load" in plan.phases:
            self._under_load(system, figures, latencies)

    def _ingest(self, system: System, name: str) -> dict[str, Any]:
        """Send all bodies of one name, then wait until they are written out and merged."""
        before_s = system.usage().cpu_s
        loaded = self.worker.load(name, system.write_target(), self.plan.connections)
        written_s = system.usage().cpu_s
        figures = _rates(loaded, written_s - before_s)
        figures["settle_s"] = system.settle()
        figures["settled_cpu_us_per_row"] = (system.usage().cpu_s - before_s) * 1e6 / loaded["rows"]
        figures["bytes_per_value"] = system.data_bytes() / loaded["values"]
        say(
            f"{system.name}: {name}: {figures['rows_per_s']:,.0f} rows/s, "
            f"{figures['server_cpu_us_per_row']:.1f} µs a row, settled after {figures['settle_s']:.0f} s, "
            f"{figures['bytes_per_value']:.2f} bytes a value"
        )
        return figures

    def _hot(self, system: System, latencies: dict[str, dict[str, Any]]) -> None:
        with system.connect() as connection:
            for kind in KINDS:
                try:
                    self.answers[system.name, kind] = system.ask(connection, queries(kind, self.plan.workload, 1)[0])
                except ServerFailed as error:
                    self.note(str(error))
        for kind in KINDS:
            if (system.name, kind) in self.answers:
                self._ask(system, kind, latencies, "hot", seed=3, runs=self.plan.runs)

    def _ask(
        self, system: System, kind: str, latencies: dict[str, dict[str, Any]], column: str, seed: int, runs: int
    ) -> None:
        """Ask one kind of question ``runs`` times, or at least three times while ``budget_s`` lasts."""
        taken_ms: list[float] = []
        began_cpu_s = system.usage().cpu_s
        try:
            with system.connect() as connection:
                began_s = time.perf_counter()
                for query in queries(kind, self.plan.workload, runs, seed):
                    asked_s = time.perf_counter()
                    system.ask(connection, query)
                    taken_ms.append((time.perf_counter() - asked_s) * 1e3)
                    if len(taken_ms) >= 3 and time.perf_counter() - began_s > self.plan.budget_s:
                        break
        except FAILURES as error:
            self.note(f"{column}: {error}")
            return
        latencies[kind][column] = {
            "p50_ms": float(np.percentile(taken_ms, 50)),
            "p95_ms": float(np.percentile(taken_ms, 95)),
            "runs": len(taken_ms),
            "server_cpu_ms": (system.usage().cpu_s - began_cpu_s) * 1e3 / len(taken_ms),
        }

    def _under_load(self, system: System, figures: dict[str, Any], latencies: dict[str, dict[str, Any]]) -> None:
        """The same questions while rows of later times come in at half the measured speed."""
        rate = figures["ingest"]["rows_per_s"] / 2
        self.worker.begin("cpu", system.write_target(), self.plan.connections, rate)
        try:
            time.sleep(_LOADED_WARM_UP_S)  # the load is the point, not an event that could be waited for
            for kind in KINDS:
                self._ask(system, kind, latencies, "loaded", seed=2, runs=self.plan.runs)
        finally:
            loaded = self.worker.end()
        figures["under-load"] = {"wanted_rows_per_s": rate, **_rates(loaded, 0.0)}
        say(f"{system.name}: under load: {loaded['rows'] / loaded['elapsed_s']:,.0f} rows/s of {rate:,.0f} wanted")

    def _small_writes(self, system: System, figures: dict[str, Any]) -> None:
        """The mix of agents' bodies, and requests of one line."""
        plan = self.plan
        if "mixed" in plan.phases:
            figures["mixed"] = self._ingest(system, "mixed")
        if "one-point" in plan.phases:
            before_s = system.usage().cpu_s
            loaded = self.worker.one_by_one(
                "cpu", system.write_target(), plan.one_point_connections, plan.one_point_requests
            )
            figures["one-point"] = _rates(loaded, system.usage().cpu_s - before_s)
            say(f"{system.name}: one-point: {figures['one-point']['rows_per_s']:,.0f} requests/s")

    def _disk(self, system: System, figures: dict[str, Any], values: str) -> None:
        figures[f"ingest-{values}"] = self._ingest(system, values)
        figures["disk"][values] = figures[f"ingest-{values}"]["bytes_per_value"]

    def compared(self) -> dict[str, dict[str, str]]:
        """By kind of query and pair of systems: ``equal``, or where the answers differ first."""
        found: dict[str, dict[str, str]] = {}
        base, *others = sorted(self.plan.systems, key=("influxdb", "dsdb", "victoria-metrics").index)
        for kind in KINDS if "queries" in self.plan.phases else ():
            query = queries(kind, self.plan.workload, 1)[0]
            found[kind] = {}
            for other in others:
                left, right = self.answers.get((base, kind)), self.answers.get((other, kind))
                if left is None or right is None:
                    verdict = "no answer"
                elif other == "victoria-metrics":
                    verdict = difference_of_points(query, left, right) or "equal"
                else:
                    verdict = difference_of_answers(left, right) or "equal"
                found[kind][f"{base} and {other}"] = verdict
        return found


def _rates(loaded: dict[str, Any], server_cpu_s: float) -> dict[str, Any]:
    rows = max(1, loaded["rows"])
    return {
        **loaded,
        "rows_per_s": loaded["rows"] / loaded["elapsed_s"],
        "values_per_s": loaded["values"] / loaded["elapsed_s"],
        "server_cpu_us_per_row": server_cpu_s * 1e6 / rows,
        "client_cpu_us_per_row": loaded["client_cpu_s"] * 1e6 / rows,
    }


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
