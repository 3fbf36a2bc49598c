"""The loader as a process of its own, so that it neither disturbs nor is disturbed by the one that asks queries.

It reads one JSON object a line from its standard input and writes one a line to its output; ``Worker`` is the other
end. Bodies stay in its memory under a name until they are dropped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.tsbs.devops import devops_bodies
from benchmarks.tsbs.generator import Workload, cpu_bodies, series_bodies
from benchmarks.tsbs.loader import Load, Target, endless, load_one_by_one, one_point_requests

if TYPE_CHECKING:
    from benchmarks.tsbs.bodies import Body


class _Commands:
    """What the process can be asked; every method gives an object for JSON."""

    def __init__(self) -> None:
        self._bodies: dict[str, list[Body]] = {}
        self._workloads: dict[str, Workload] = {}
        self._load: Load | None = None

    def make(self, name: str, data: str, workload: dict[str, Any], rows: int) -> dict[str, Any]:
        """Make bodies of ``rows`` lines, of ``data`` cpu, devops or series."""
        self._workloads[name] = Workload(**workload)
        maker = {"cpu": cpu_bodies, "devops": devops_bodies, "series": series_bodies}[data]
        bodies = self._bodies[name] = list(maker(self._workloads[name], rows))
        return {
            "rows": sum(body.rows for body in bodies),
            "values": sum(body.values for body in bodies),
            "size_bytes": sum(len(body.data) for body in bodies),
        }

    def drop(self, name: str) -> dict[str, Any]:
        """Forget bodies."""
        del self._bodies[name]
        return {}

    def load(self, name: str, target: dict[str, Any], connections: int) -> dict[str, Any]:
        """Send all bodies of one name."""
        return Load(Target(**target), iter(self._bodies[name]), connections).wait().figures()

    def one_by_one(self, name: str, target: dict[str, Any], connections: int, count: int) -> dict[str, Any]:
        """Send the first lines of one name, each as a request."""
        where = Target(**target)
        requests = one_point_requests(iter(self._bodies[name]), count, where)
        return load_one_by_one(where, requests, connections).figures()

    def begin(self, name: str, target: dict[str, Any], connections: int, rate: float) -> dict[str, Any]:
        """Send bodies at ``rate`` rows a second, again and again with later times, until ``end``."""
        workload = self._workloads[name]
        bodies = endless(self._bodies[name], workload.end_ns - workload.start_ns)
        self._load = Load(Target(**target), bodies, connections, rate)
        return {}

    def end(self) -> dict[str, Any]:
        """Stop what ``begin`` began."""
        assert self._load is not None
        return self._load.stop().figures()


class WorkerFailed(Exception):
    """The loader could not do what it was asked; the text is its reason."""


class Worker:
    """The loader's process; used as a context."""

    def __enter__(self) -> Worker:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tsbs.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"{command}: the loader ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{command}: {answer['error']}")
        return dict(answer)

    def make(self, name: str, data: str, workload: Workload, rows: int) -> dict[str, Any]:
        """See _Commands.make."""
        return self._ask("make", name=name, data=data, workload=asdict(workload), rows=rows)

    def drop(self, name: str) -> None:
        """Forget bodies."""
        self._ask("drop", name=name)

    def load(self, name: str, target: Target, connections: int) -> dict[str, Any]:
        """Send all bodies of one name and give the figures of Loaded."""
        return self._ask("load", name=name, target=asdict(target), connections=connections)

    def one_by_one(self, name: str, target: Target, connections: int, count: int) -> dict[str, Any]:
        """Send single lines and give the figures of Loaded."""
        return self._ask("one_by_one", name=name, target=asdict(target), connections=connections, count=count)

    def begin(self, name: str, target: Target, connections: int, rate: float) -> None:
        """Begin to send at a rate."""
        self._ask("begin", name=name, target=asdict(target), connections=connections, rate=rate)

    def end(self) -> dict[str, Any]:
        """Stop that, and give the figures of Loaded."""
        return self._ask("end")


def main() -> None:
    """Answer commands until the input ends."""
    commands = _Commands()
    for line in sys.stdin.buffer:
        name, arguments = json.loads(line)
        try:
            answer = getattr(commands, name)(**arguments)
        except Exception as error:  # reported to the process that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
