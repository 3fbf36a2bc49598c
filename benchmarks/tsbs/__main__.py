"""Compare this daemon with InfluxDB and VictoriaMetrics: data and questions of the Time Series Benchmark Suite.

    python -m benchmarks.tsbs [--systems dsdb,influxdb,victoria-metrics] [--scale 100] [--hours 24] [--out DIR]

Without one of the phases (--ingest, --queries, --restart, --under-load, --mixed, --one-point, --disk) all are run.
Prints a table and writes tsbs.json, tsbs.md and tsbs.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.tsbs.generator import Workload
from benchmarks.tsbs.plot import plot
from benchmarks.tsbs.report import comparison, lines, markdown, table
from benchmarks.tsbs.run import PHASES, VALUE_KINDS, Plan, Run, say
from benchmarks.tsbs.systems import SYSTEMS
from benchmarks.tsbs.worker import Worker


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="names, separated by commas")
    parser.add_argument("--scale", type=int, default=100, help="number of hosts")
    parser.add_argument("--hours", type=float, default=24.0, help="time that the data covers")
    parser.add_argument("--interval-s", type=int, default=10, help="seconds between two rows of a host")
    parser.add_argument("--values", choices=VALUE_KINDS, default="float", help="of the rows that are asked")
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--runs", type=int, default=20, help="repetitions of a kind of query")
    parser.add_argument("--budget-s", type=float, default=2.0, help="time for the repetitions of a kind of query")
    parser.add_argument("--requests", type=int, default=20_000, help="of one point each")
    parser.add_argument("--quiet-s", type=float, help="time without a change after which files are final")
    parser.add_argument("--out", type=Path, default=Path("var/bench"), help="where the results are written")
    parser.add_argument("--work", type=Path, default=None, help="where the servers keep their files")
    for phase in PHASES:
        parser.add_argument(f"--{phase}", action="append_const", const=phase, dest="phases", help="run this phase")
    return parser.parse_args()


def present(names: str) -> tuple[str, ...]:
    """The systems that can be run here; says which cannot, and ends where a name is strange or none is left."""
    chosen = names.split(",")
    if strange := set(chosen) - set(SYSTEMS):
        sys.exit(f"no system is called {sorted(strange)[0]}; there are {', '.join(SYSTEMS)}")
    missing = {name: reason for name in chosen if (reason := SYSTEMS[name].missing())}
    for reason in missing.values():
        say(f"LEFT OUT: {reason}")
    found = tuple(name for name in chosen if name not in missing)
    return found or sys.exit("none of the systems is installed")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def main() -> None:
    """Measure, compare, print and write."""
    asked = options()
    ticks = max(1, round(asked.hours * 3600 / asked.interval_s))
    plan = Plan(
        systems=present(asked.systems),
        workload=Workload(asked.scale, ticks, asked.interval_s, asked.values, seed=asked.seed),
        phases=tuple(asked.phases or PHASES),
        one_point_requests=asked.requests,
        runs=asked.runs,
        budget_s=asked.budget_s,
        quiet_s=asked.quiet_s,
    )
    where = machine()
    say(f"load average before: {where['load_average']:.1f} on {where['processors']} processors")
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tsbs-", dir=asked.work) as directory, Worker() as worker:
        run = Run(plan, Path(directory), worker)
        run.measure()
        compared = run.compared()
    title = (
        f"{asked.scale} hosts, {asked.hours:g} h, a row each {asked.interval_s} s, {asked.values} values; "
        f"{where['processors']} processors, load average {where['load_average']:.1f} before, {where['date']}"
    )
    text = f"{title}\n\n{markdown(table(plan.systems, lines(run.figures)))}\n{comparison(compared, run.failures)}"
    document = {"machine": where, "title": title, "figures": run.figures, "answers": compared, "failures": run.failures}
    (asked.out / "tsbs.json").write_text(json.dumps(document, indent=1))
    (asked.out / "tsbs.md").write_text(text)
    if reason := plot(run.figures, title, asked.out / "tsbs.png"):
        say(reason)
    sys.stdout.write(text)
    differs = any(verdict != "equal" for verdicts in compared.values() for verdict in verdicts.values())
    sys.exit(1 if differs or run.failures else 0)


if __name__ == "__main__":
    main()
