"""The fifteen questions, in InfluxQL as the suite asks them and in PromQL where the same numbers can be had.

Windows begin at whole minutes or hours, so that an answer does not depend on how a system cuts the first and the last
interval.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks.tsbs.generator import CPU_FIELDS, Workload, host_names

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = (
    "single-groupby-1-1-1",
    "single-groupby-1-1-12",
    "single-groupby-1-8-1",
    "single-groupby-5-1-1",
    "single-groupby-5-1-12",
    "single-groupby-5-8-1",
    "cpu-max-all-1",
    "cpu-max-all-8",
    "double-groupby-1",
    "double-groupby-5",
    "double-groupby-all",
    "high-cpu-all",
    "high-cpu-1",
    "lastpoint",
    "groupby-orderby-limit",
)
_MINUTE_S = 60
_HOUR_S = 3600


@dataclass(frozen=True)
class PromQuery:
    """A question to ``/api/v1/query_range``, or to ``/api/v1/query`` where ``step_s`` is None.

    ``shift_ms`` is added to a time of its answer to get the time of the same number in the answer to the InfluxQL.
    """

    expression: str
    start_ms: int
    end_ms: int
    step_s: int | None
    shift_ms: int


@dataclass(frozen=True)
class Query:
    """One question. ``fields`` are those of the answer's columns after the time, in order, where it has no names."""

    kind: str
    influxql: str
    promql: PromQuery
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Window:
    """Whole seconds since 1970, the end excluded."""

    start_s: int
    end_s: int

    @property
    def condition(self) -> str:
        """As InfluxQL has it."""
        return f"time >= '{_rfc3339(self.start_s)}' and time < '{_rfc3339(self.end_s)}'"


def _rfc3339(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _window(rng: random.Random, workload: Workload, length_s: int, unit_s: int) -> Window:
    """A window of that length, or of all the data where that is shorter, that begins at a whole ``unit_s``."""
    first_s, end_s = workload.start_ns // 10**9, workload.end_ns // 10**9
    length_s = min(length_s, end_s - first_s)
    start_s = first_s + rng.randrange((end_s - first_s - length_s) // unit_s + 1) * unit_s
    return Window(start_s, start_s + length_s)


def _hosts_condition(hosts: Sequence[str]) -> str:
    return "(" + " or ".join(f"hostname = '{host}'" for host in hosts) + ")"


def _selector(fields: Sequence[str], hosts: Sequence[str] = ()) -> str:
    names = f'__name__=~"cpu_({"|".join(fields)})"' if len(fields) > 1 else f'__name__="cpu_{fields[0]}"'
    return "{" + names + (f', hostname=~"{"|".join(hosts)}"' if hosts else "") + "}"


def _aligned(expression: str, window: Window, step_s: int) -> PromQuery:
    """Windows [t, t + step) are asked at their last millisecond, because a range in PromQL excludes its begin."""
    return PromQuery(
        expression, (window.start_s + step_s) * 1000 - 1, window.end_s * 1000 - 1, step_s, 1 - step_s * 1000
    )


def _single_groupby(kind: str, workload: Workload, rng: random.Random) -> Query:
    fields_number, hosts_number, hours = (int(word) for word in kind.split("-")[2:])
    hosts = rng.sample(host_names(workload.hosts), min(hosts_number, workload.hosts))
    window = _window(rng, workload, hours * _HOUR_S, _MINUTE_S)
    return _maxima(kind, CPU_FIELDS[:fields_number], hosts, window, "1m")


def _cpu_max_all(kind: str, workload: Workload, rng: random.Random) -> Query:
    hosts = rng.sample(host_names(workload.hosts), min(int(kind.rpartition("-")[2]), workload.hosts))
    window = _window(rng, workload, 8 * _HOUR_S, _HOUR_S)
    return _maxima(kind, CPU_FIELDS, hosts, window, "1h", separator=",")


def _maxima(
    kind: str, fields: tuple[str, ...], hosts: Sequence[str], window: Window, step: str, *, separator: str = ", "
) -> Query:
    """The highest value of each field in every ``step``; ``separator``: as the suite writes its columns."""
    selected = separator.join(f"max({name})" for name in fields)
    step_s = {"1m": _MINUTE_S, "1h": _HOUR_S}[step]
    return Query(
        kind,
        f"SELECT {selected} from cpu where {_hosts_condition(hosts)} and {window.condition} group by time({step})",
        _aligned(f"max(max_over_time({_selector(fields, hosts)}[{step}])) by (__name__)", window, step_s),
        fields,
    )


def _double_groupby(kind: str, workload: Workload, rng: random.Random) -> Query:
    last = kind.rpartition("-")[2]
    fields = CPU_FIELDS if last == "all" else CPU_FIELDS[: int(last)]
    window = _window(rng, workload, 12 * _HOUR_S, _HOUR_S)
    selected = ", ".join(f"mean({name})" for name in fields)
    return Query(
        kind,
        f"SELECT {selected} from cpu where {window.condition} group by time(1h),hostname",
        _aligned(f"avg(avg_over_time({_selector(fields)}[1h])) by (__name__, hostname)", window, _HOUR_S),
        fields,
    )


def _high_cpu(kind: str, workload: Workload, rng: random.Random) -> Query:
    hosts = [] if kind.endswith("all") else [rng.choice(host_names(workload.hosts))]
    window = _window(rng, workload, 12 * _HOUR_S, _HOUR_S)
    chosen = f" and {_hosts_condition(hosts)}" if hosts else ""
    high = f"{_selector(CPU_FIELDS, hosts)} and on(hostname) ({_selector(CPU_FIELDS[:1], hosts)} > 90)"
    return Query(
        kind,
        f"SELECT * from cpu where usage_user > 90.0{chosen} and {window.condition}",
        PromQuery(high, window.start_s * 1000, window.end_s * 1000 - 1, workload.interval_s, 0),
        (),
    )


def _lastpoint(kind: str, workload: Workload, rng: random.Random) -> Query:
    del rng
    end_ms = workload.end_ns // 10**6
    span_s = (workload.end_ns - workload.start_ns) // 10**9
    return Query(
        kind,
        'SELECT * from cpu group by "hostname" order by time desc limit 1',
        PromQuery(f"last_over_time({_selector(CPU_FIELDS)}[{span_s}s])", 0, end_ms - 1, None, 0),
        (),
    )


def _orderby_limit(kind: str, workload: Workload, rng: random.Random) -> Query:
    window = _window(rng, workload, _HOUR_S, _MINUTE_S)
    last = Window(max(window.start_s, window.end_s - 5 * _MINUTE_S), window.end_s)
    return Query(
        kind,
        f"SELECT max(usage_user) from cpu where time < '{_rfc3339(window.end_s)}' "
        "group by time(1m) order by time desc limit 5",
        _aligned("max(max_over_time(cpu_usage_user[1m])) by (__name__)", last, _MINUTE_S),
        CPU_FIELDS[:1],
    )


_MAKERS = {
    "single": _single_groupby,
    "cpu": _cpu_max_all,
    "double": _double_groupby,
    "high": _high_cpu,
    "lastpoint": _lastpoint,
    "groupby": _orderby_limit,
}


def queries(kind: str, workload: Workload, count: int, seed: int = 0) -> list[Query]:
    """``count`` questions of one kind with hosts and windows chosen by the seed; raises KeyError for a strange kind."""
    rng = random.Random(f"{kind} {seed}")
    return [_MAKERS[kind.partition("-")[0]](kind, workload, rng) for _ in range(count)]
