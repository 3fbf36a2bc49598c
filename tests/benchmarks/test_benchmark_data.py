"""The data of the benchmark: deterministic, valid line protocol, within its bounds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tsbs.bodies import Body, cut, moved
from benchmarks.tsbs.devops import MEASUREMENTS, devops_bodies
from benchmarks.tsbs.generator import CPU_FIELDS, ValueKind, Workload, cpu_bodies, series_bodies, walks
from dsdbd.model.line_protocol import parse_lines
from dsdbd.model.types import FieldType

TAGS = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
]

workloads = st.builds(
    Workload,
    hosts=st.integers(1, 5),
    ticks=st.integers(1, 7),
    interval_s=st.integers(1, 3600),
    values=st.sampled_from(["float", "decimal", "int"]),
    seed=st.integers(0, 2**32),
)


def lines_of(bodies: list[Body]) -> list[str]:
    return b"".join(bytes(body.data) for body in bodies).decode().splitlines()


def parts(line: str) -> tuple[str, dict[str, str], dict[str, str], int]:
    """Measurement, tags, fields and time of a line without escapes and quotes."""
    key, fields, time_ns = line.split(" ")
    name, *tags = key.split(",")
    return name, dict(tag.split("=") for tag in tags), dict(one.split("=") for one in fields.split(",")), int(time_ns)


@given(workload=workloads, rows=st.integers(1, 12))
def test_cpu_bodies_hold_a_row_of_every_host_at_every_tick(workload: Workload, rows: int) -> None:
    bodies = list(cpu_bodies(workload, rows))
    assert [body.rows for body in bodies[:-1]] == [rows] * (len(bodies) - 1)
    assert sum(body.rows for body in bodies) == workload.rows
    assert sum(body.values for body in bodies) == workload.rows * len(CPU_FIELDS)
    found = [parts(line) for line in lines_of(bodies)]
    assert [(time_ns, tags["hostname"]) for _, tags, _, time_ns in found] == [
        (workload.start_ns + tick * workload.interval_s * 10**9, f"host_{host}")
        for tick in range(workload.ticks)
        for host in range(workload.hosts)
    ]
    assert {name for name, *_ in found} == {"cpu"}
    assert all(list(tags) == TAGS for _, tags, _, _ in found)
    assert all(tuple(fields) == CPU_FIELDS for _, _, fields, _ in found)


def is_value(kind: ValueKind, text: str) -> bool:
    """Whether a text is a number between 0 and 100 of the kind."""
    number = float(text.removesuffix("i"))
    whole = text.endswith("i")
    return 0 <= number <= 100 and whole == (kind == "int") and (kind != "decimal" or round(number, 2) == number)


@given(workload=workloads)
def test_values_are_of_their_kind(workload: Workload) -> None:
    texts = [text for line in lines_of(list(cpu_bodies(workload, 5))) for text in parts(line)[2].values()]
    assert [text for text in texts if not is_value(workload.values, text)] == []


@given(workload=workloads, rows=st.integers(1, 9))
def test_the_same_workload_gives_the_same_bytes(workload: Workload, rows: int) -> None:
    assert [bytes(body.data) for body in cpu_bodies(workload, rows)] == [
        bytes(body.data) for body in cpu_bodies(workload, rows)
    ]


def test_the_size_of_mixed_bodies_does_not_change_their_lines() -> None:
    workload = Workload(4, 50)
    assert lines_of(list(devops_bodies(workload, 9))) == lines_of(list(devops_bodies(workload, 100)))


def test_another_seed_gives_other_values() -> None:
    first, second = (lines_of(list(cpu_bodies(Workload(2, 3, seed=seed), 9))) for seed in (1, 2))
    assert first != second


def test_full_precision_is_kept() -> None:
    workload = Workload(3, 50)
    written = [[float(text) for text in parts(line)[2].values()] for line in lines_of(list(cpu_bodies(workload, 20)))]
    assert np.array_equal(np.array(written), np.concatenate(list(walks(workload))))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = Workload(3, 20)
    whole = lines_of(list(cpu_bodies(workload, 7)))
    monkeypatch.setattr("benchmarks.tsbs.generator._CHUNK_ROWS", 8)
    assert lines_of(list(cpu_bodies(workload, 7))) == whole


def test_walks_take_small_steps() -> None:
    values = np.stack(list(walks(Workload(20, 200))))
    steps = np.abs(np.diff(values, axis=0))
    assert 0 <= values.min() <= values.max() <= 100
    assert 0.5 < steps.mean() < 1.0


def test_a_mixed_body_holds_all_measurements_of_each_host() -> None:
    bodies = list(devops_bodies(Workload(4, 30), 20))
    assert {body.rows for body in bodies} == {18}
    names = [line.partition(",")[0] for line in lines_of(bodies)]
    assert names == [measurement.name for measurement in MEASUREMENTS] * (4 * 30)
    hosts = [line.partition("hostname=")[2].partition(",")[0] for line in lines_of(bodies[:2])]
    assert hosts == [f"host_{number}" for number in range(4) for _ in MEASUREMENTS]


def test_the_daemons_parser_reads_every_value_of_the_mix() -> None:
    bodies = list(devops_bodies(Workload(10, 60), 1_000))
    text = b"".join(bytes(body.data) for body in bodies)
    parsed = parse_lines(text, precision="ns", default_time_ns=0)
    assert (parsed.error_count, parsed.conflict_count, parsed.rows) == (0, 0, 10 * 60 * len(MEASUREMENTS))
    columns = {(points.measurement, name): column for points in parsed.points for name, column in points.fields.items()}
    present = {key: len(column) if column.valid is None else int(column.valid.sum()) for key, column in columns.items()}
    assert sum(present.values()) == sum(body.values for body in bodies)
    assert {column.type for column in columns.values()} == set(FieldType)
    assert 0 < present["postgresl", "last_error"] < 30


@given(
    rows=st.lists(st.integers(10**18, 2**62), min_size=1, max_size=30),
    by_ns=st.integers(0, 10**18),
    size=st.integers(1, 40),
)
def test_moved_lines_differ_in_their_times_only(rows: list[int], by_ns: int, size: int) -> None:
    lines = pa.array([f"m,number={number} value={time_ns}i {time_ns}\n" for number, time_ns in enumerate(rows)])
    later = [f"m,number={number} value={time_ns}i {time_ns + by_ns}" for number, time_ns in enumerate(rows)]
    bodies = list(cut(lines, np.ones(len(rows), np.int64), size))
    assert lines_of([moved(body, by_ns) for body in bodies]) == later
    assert lines_of(bodies) == [line.strip() for line in lines.to_pylist()]


def test_a_time_of_twenty_digits_is_refused() -> None:
    body = next(cut(pa.array([f"m value=1 {10**18}\n"]), np.ones(1, np.int64), 1))
    with pytest.raises(ValueError, match="19 digits"):
        moved(body, 9 * 10**18)


def test_series_are_all_different() -> None:
    bodies = list(series_bodies(Workload(2_500, 2, 60), 1_000))
    found = [parts(line) for line in lines_of(bodies)]
    assert len({tags["id"] for _, tags, _, _ in found}) == 2_500
    assert len({tags["kind"] for _, tags, _, _ in found}) == 1_000
    assert len({(tags["id"], time_ns) for _, tags, _, time_ns in found}) == len(found) == 5_000
    assert [body.rows for body in bodies] == [1_000, 1_000, 500] * 2


def test_the_small_benchmark_has_rows_of_high_cpu() -> None:
    """Of ``host_3``, whom ``high-cpu-1`` asks for: a comparison of empty answers would show nothing."""
    user = np.stack(list(walks(Workload(4, 720, seed=5))))[:, :, CPU_FIELDS.index("usage_user")]
    assert (user[:, 3] > 90).sum() > 100
