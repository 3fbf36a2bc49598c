"""The cpu-only data set: one measurement, ten tags, ten fields that walk randomly between 0 and 100.

Everything is a function of the ``Workload``: the same one gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.tsbs.bodies import Body, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

ValueKind = Literal["float", "decimal", "int"]
"""``float``: all digits of a double; ``decimal``: a double of two decimals; ``int``: an integer."""

START_NS = 1_451_606_400_000_000_000
"""2016-01-01T00:00:00Z, the first time of the data."""

CPU_FIELDS = (
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
)
_ZONES = {
    "us-east-1": "abce",
    "us-west-1": "ab",
    "us-west-2": "abc",
    "eu-west-1": "abc",
    "eu-central-1": "ab",
    "ap-southeast-1": "ab",
    "ap-southeast-2": "ab",
    "ap-northeast-1": "ac",
    "sa-east-1": "abc",
}
_CHUNK_ROWS = 100_000
"""Rows of one pass over the columns: some 40 MB of text, far from the 2 GB an Arrow string array can hold."""


@dataclass(frozen=True)
class Workload:
    """Which data. ``ticks`` intervals of ``interval_s`` seconds, one row of each host at each."""

    hosts: int
    ticks: int
    interval_s: int = 10
    values: ValueKind = "float"
    start_ns: int = START_NS
    seed: int = 123

    @property
    def end_ns(self) -> int:
        """The first time after the data."""
        return self.start_ns + self.ticks * self.interval_s * 10**9

    @property
    def rows(self) -> int:
        """Rows of the cpu measurement."""
        return self.hosts * self.ticks


def host_names(hosts: int) -> list[str]:
    """``host_0`` and so on."""
    return [f"host_{number}" for number in range(hosts)]


def host_tags(hosts: int, seed: int) -> list[str]:
    """The ten tags of each host as line protocol has them, without the comma in front."""
    rng = np.random.default_rng([seed, 1])
    regions = list(_ZONES)

    def one(name: str) -> str:
        region = regions[rng.integers(len(regions))]
        tags = {
            "hostname": name,
            "region": region,
            "datacenter": region + _ZONES[region][rng.integers(len(_ZONES[region]))],
            "rack": rng.integers(100),
            "os": ("Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10")[rng.integers(3)],
            "arch": ("x64", "x86")[rng.integers(2)],
            "team": ("SF", "NYC", "LON", "CHI")[rng.integers(4)],
            "service": rng.integers(20),
            "service_version": rng.integers(2),
            "service_environment": ("production", "staging", "test")[rng.integers(3)],
        }
        return ",".join(f"{key}={value}" for key, value in tags.items())

    return [one(name) for name in host_names(hosts)]


def walks(workload: Workload) -> Iterator[np.ndarray]:
    """Yield each tick's values, float64, shape (hosts, 10): steps of a normal distribution, held within 0 and 100."""
    rng = np.random.default_rng([workload.seed, 2])
    state = rng.uniform(0, 100, (workload.hosts, len(CPU_FIELDS)))
    for _ in range(workload.ticks):
        yield state.copy()
        state = np.clip(state + rng.normal(0, 1, state.shape), 0, 100)


def tick_chunks(workload: Workload) -> Iterator[range]:
    """Cut the ticks into ranges of at most about 100,000 rows."""
    step = max(1, _CHUNK_ROWS // workload.hosts)
    for low in range(0, workload.ticks, step):
        yield range(low, min(low + step, workload.ticks))


def times(workload: Workload, ticks: range) -> pa.Array:
    """Nanoseconds as text, one for each row of (tick, host)."""
    times_ns = workload.start_ns + np.arange(ticks.start, ticks.stop, dtype=np.int64) * workload.interval_s * 10**9
    return pa.array(np.repeat(times_ns, workload.hosts)).cast(pa.string())


def number_texts(values: np.ndarray, kind: ValueKind) -> pa.Array:
    """Values as line protocol has them, but for the ``i`` after an integer."""
    if kind == "int":
        return pa.array(np.rint(values).astype(np.int64)).cast(pa.string())
    return pa.array(np.round(values, 2) if kind == "decimal" else values).cast(pa.string())


def cpu_bodies(workload: Workload, rows: int) -> Iterator[Body]:
    """Yield the bodies of ``rows`` lines, ordered by time, then host."""
    prefixes = pa.array([f"cpu,{tags} " for tags in host_tags(workload.hosts, workload.seed)])
    suffix = "i" if workload.values == "int" else ""
    steps = walks(workload)
    left: list[pa.Array] = []
    for ticks in tick_chunks(workload):
        values = np.concatenate([next(steps) for _ in ticks])
        pieces: list[pa.Array | str] = [prefixes.take(pa.array(np.tile(np.arange(workload.hosts), len(ticks))))]
        for number, name in enumerate(CPU_FIELDS):
            pieces += [f"{',' if number else ''}{name}=", number_texts(values[:, number], workload.values), suffix]
        lines = pc.binary_join_element_wise(*pieces, " ", times(workload, ticks), "\n", "")
        whole = pa.concat_arrays([*left, lines])
        done = len(whole) // rows * rows
        yield from cut(whole.slice(0, done), np.full(done, len(CPU_FIELDS)), rows)
        left = [whole.slice(done)]
    rest = pa.concat_arrays(left)
    yield from cut(rest, np.full(len(rest), len(CPU_FIELDS)), rows)


def series_bodies(workload: Workload, rows: int) -> Iterator[Body]:
    """Yield bodies of the measurement ``sensor``: ``workload.hosts`` series of one field at each tick.

    ``id`` is another one in every series, ``kind`` has 1,000 values, ``site`` ten; the value is number % 97 + tick.
    """
    step = max(1, _CHUNK_ROWS // rows) * rows
    for tick in range(workload.ticks):
        suffix = f" {workload.start_ns + tick * workload.interval_s * 10**9}\n"
        for low in range(0, workload.hosts, step):
            numbers = np.arange(low, min(low + step, workload.hosts), dtype=np.int64)
            texts = [pa.array(column).cast(pa.string()) for column in (numbers, numbers % 1000, numbers % 10)]
            values = pa.array((numbers % 97 + tick).astype(np.float64)).cast(pa.string())
            lines = pc.binary_join_element_wise(
                "sensor,id=s", texts[0], ",kind=k", texts[1], ",site=t", texts[2], " value=", values, suffix, ""
            )
            yield from cut(lines, np.ones(len(lines), np.int64), rows)
