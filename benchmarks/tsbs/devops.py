"""The devops mix: nine measurements as agents send them, with integers, strings, booleans and sparse fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.tsbs.bodies import Body, cut
from benchmarks.tsbs.generator import CPU_FIELDS, Workload, host_tags, tick_chunks, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FieldKind = Literal["counter", "gauge", "percent", "text", "flag"]


@dataclass(frozen=True)
class Field:
    """One field; ``share`` is the part of the rows that carry it, ``texts`` its values where it is a string."""

    name: str
    kind: FieldKind
    share: float = 1.0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One measurement; ``tags`` come after the ten of the host."""

    name: str
    fields: tuple[Field, ...]
    tags: str = ""


def _all(kind: FieldKind, names: str) -> tuple[Field, ...]:
    return tuple(Field(name, kind) for name in names.split())


MEASUREMENTS = (
    Measurement("cpu", _all("percent", " ".join(CPU_FIELDS))),
    Measurement(
        "diskio",
        _all("counter", "reads writes read_bytes write_bytes read_time write_time io_time"),
        ",serial=694-511-162",
    ),
    Measurement(
        "disk",
        (
            *_all("gauge", "total free used inodes_total inodes_free inodes_used"),
            Field("used_percent", "percent"),
            Field("mode", "text", texts=("rw", "ro")),
        ),
        ",path=/dev/sda1,fstype=ext4",
    ),
    Measurement(
        "kernel",
        (
            *_all("counter", "boot_time interrupts context_switches processes_forked disk_pages_in disk_pages_out"),
            Field("command_line", "text", 0.05, ("root=/dev/sda1 ro quiet", 'console="ttyS0" mem=4096M,low')),
        ),
    ),
    Measurement(
        "mem",
        (
            *_all("gauge", "total available used free cached buffered"),
            *_all("percent", "used_percent available_percent buffered_percent"),
            Field("swap_in", "gauge", 0.1),
        ),
    ),
    Measurement(
        "net",
        _all("counter", "bytes_sent bytes_recv packets_sent packets_recv err_in err_out drop_in drop_out"),
        ",interface=eth0",
    ),
    Measurement(
        "nginx",
        (
            *_all("counter", "accepts handled requests"),
            *_all("gauge", "active reading waiting writing"),
            Field("version", "text", texts=("1.9.15", "1.10.2")),
        ),
        ",port=12552,server=nginx_0",
    ),
    Measurement(
        "postgresl",
        (
            *_all("gauge", "numbackends temp_files temp_bytes"),
            *_all("counter", "xact_commit xact_rollback blks_read blks_hit tup_returned tup_fetched tup_inserted"),
            *_all("counter", "tup_updated tup_deleted conflicts deadlocks blk_read_time blk_write_time"),
            Field("last_error", "text", 0.01, ("could not connect: timeout", "duplicate key value", "deadlock")),
        ),
    ),
    Measurement(
        "redis",
        (
            *_all("counter", "uptime_in_seconds total_connections_received expired_keys evicted_keys keyspace_hits"),
            *_all("counter", "keyspace_misses sync_full sync_partial_ok sync_partial_err master_repl_offset"),
            *_all("gauge", "instantaneous_ops_per_sec instantaneous_input_kbps instantaneous_output_kbps"),
            *_all("gauge", "connected_clients used_memory used_memory_rss used_memory_peak used_memory_lua"),
            *_all("gauge", "rdb_changes_since_last_save pubsub_channels pubsub_patterns latest_fork_usec"),
            *_all("gauge", "connected_slaves repl_backlog_active repl_backlog_size repl_backlog_histlen"),
            *_all("percent", "mem_fragmentation_ratio used_cpu_sys used_cpu_user used_cpu_sys_children"),
            Field("used_cpu_user_children", "percent"),
            Field("role", "text", texts=("master", "slave")),
            Field("loading", "flag"),
        ),
        ",port=6379,server=redis_0",
    ),
)


def _field_texts(column: Field, ticks: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """The values of one field as line protocol has them; ``ticks`` has shape (rows,)."""
    rows = len(ticks)
    if column.kind == "percent":
        return pa.array(np.round(rng.uniform(0, 100, rows), 4)).cast(pa.string())
    if column.kind == "text":
        quoted = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in column.texts]
        return pa.array(quoted).take(pa.array(rng.integers(len(quoted), size=rows)))
    if column.kind == "flag":
        return pa.array(["true", "false"]).take(pa.array(rng.integers(2, size=rows)))
    counter = column.kind == "counter"
    whole = ticks * 1_000 + rng.integers(0, 1_000, rows) if counter else rng.integers(0, 2**33, rows)
    return pc.binary_join_element_wise(pa.array(whole).cast(pa.string()), "i", "")


def _lines(
    measurement: Measurement, tags: Sequence[str], workload: Workload, ticks: range, rng: np.random.Generator
) -> tuple[pa.Array, np.ndarray]:
    """The lines of one measurement by (tick, host), and how many values each has."""
    hosts = np.tile(np.arange(workload.hosts), len(ticks))
    tick_of_row = np.repeat(np.arange(ticks.start, ticks.stop, dtype=np.int64), workload.hosts)
    prefixes = pa.array([f"{measurement.name},{text}{measurement.tags} " for text in tags])
    pieces: list[pa.Array | str] = [prefixes.take(pa.array(hosts))]
    counts = np.zeros(len(hosts), np.int64)
    for number, column in enumerate(measurement.fields):
        texts = _field_texts(column, tick_of_row, rng)
        there = rng.random(len(hosts)) < column.share
        named = pc.binary_join_element_wise(f"{',' if number else ''}{column.name}=", texts, "")
        pieces.append(pc.if_else(pa.array(there), named, ""))
        counts += there
    return pc.binary_join_element_wise(*pieces, " ", times(workload, ticks), "\n", ""), counts


def devops_bodies(workload: Workload, rows: int) -> Iterator[Body]:
    """Yield bodies of about ``rows`` lines: all nine measurements of one host, then those of the next, tick by tick."""
    tags = host_tags(workload.hosts, workload.seed)
    rng = np.random.default_rng([workload.seed, 3])
    kinds = len(MEASUREMENTS)
    whole_hosts = max(1, rows // kinds) * kinds
    for ticks in tick_chunks(workload):
        parts = [_lines(measurement, tags, workload, ticks, rng) for measurement in MEASUREMENTS]
        number = workload.hosts * len(ticks)
        order = (np.arange(kinds)[None, :] * number + np.arange(number)[:, None]).ravel()
        lines = pa.concat_arrays([part[0] for part in parts]).take(pa.array(order))
        yield from cut(lines, np.concatenate([part[1] for part in parts])[order], whole_hosts)
