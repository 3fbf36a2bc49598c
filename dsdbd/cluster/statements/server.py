"""SHOW STATS and SHOW DIAGNOSTICS: what this node says about itself, one table per module."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from dsdbd.cluster.statements.context import table_rows
from dsdbd.meta.rows import duration_text
from dsdbd.model.times import format_rfc3339nano
from dsdbd.version import VERSION

if TYPE_CHECKING:
    from dsdbd.cluster.statements.context import StatementContext
    from dsdbd.query import SeriesRows


def show_stats(context: StatementContext, module: str | None) -> list[SeriesRows]:
    """Counters of this node since it started; ``module`` limits the answer to one table."""
    writes = context.writes.stats
    tables: dict[str, dict[str, object]] = {
        "write": {
            "pointReq": writes.point_req,
            "pointReqLocal": writes.point_req_local,
            "pointReqRemote": writes.point_req_remote,
            "req": writes.req,
            "writeError": writes.write_error,
            "writeOk": writes.write_ok,
            "writePartial": writes.write_partial,
            "writeTimeout": writes.write_timeout,
        }
    }
    tables["queryExecutor"] = dict(context.node.queries.stats())
    tables |= {name: dict(counters) for name, counters in context.node.service_stats.items()}
    raft = context.node.raft
    if raft is not None:
        status = raft.status()
        tables["raft"] = {
            "appliedIndex": status.applied_index,
            "commitIndex": status.commit_index,
            "fsyncs": status.fsyncs,
            "journalBytes": status.journal_bytes,
            "term": status.term,
        }
    if context.node.store is not None:
        stats = context.node.store.stats()
        tables["storage"] = {name: value for name, value in sorted(stats.items()) if isinstance(value, int | float)}
    found = _tables(tables, module)
    if module in (None, "subscriber"):
        place = next((place for place, rows in enumerate(found) if rows.name == "subscriber"), -1) + 1
        found[place:place] = [
            replace(table_rows("subscriber", tuple(counters), [tuple(counters.values())]), tags=tags)
            for tags, counters in context.node.destination_stats()
        ]
    return found


def show_diagnostics(context: StatementContext, module: str | None) -> list[SeriesRows]:
    """Facts about this node; ``module`` limits the answer to one table."""
    node = context.node
    uptime_s = (context.now_ns - node.started_ns) // 10**9
    cluster: dict[str, object] = {
        "clusterID": node.cluster_id,
        "leader": node.metadata.leader(),
        "metadataIndex": node.metadata.state.index,
        "tcpAddr": node.addresses.tcp,
    }
    tables: dict[str, dict[str, object]] = {
        "build": {"Branch": "", "Build Time": "", "Commit": "", "Version": VERSION},
        "cluster": cluster,
        "network": {"hostname": socket.gethostname()},
        "runtime": {
            "GOARCH": platform.machine(),
            "GOMAXPROCS": os.cpu_count() or 1,
            "GOOS": platform.system().lower(),
            "version": f"python{platform.python_version()}",
        },
        "system": {
            "PID": os.getpid(),
            "currentTime": format_rfc3339nano(context.now_ns),
            "started": format_rfc3339nano(node.started_ns),
            "uptime": duration_text(uptime_s * 10**9),
        },
    }
    return _tables(tables, module)


def _tables(tables: dict[str, dict[str, object]], module: str | None) -> list[SeriesRows]:
    return [
        table_rows(name, tuple(values), [tuple(values.values())])
        for name, values in sorted(tables.items())
        if module in (None, name)
    ]
