"""What a demo cluster consists of: ports, configuration files, words on the screen. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdb_cli.errors import UsageError
from dsdb_cli.results import Response

HOST = "127.0.0.1"
DEFAULT_BASE_PORT = 8088
PORT_STEP = 100
META_PORT_OFFSET = 3
MAX_NODES = 9
"""More processes than this teach nothing on one machine."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: ``port`` serves HTTP and Raft, ``meta_port`` is where others join."""

    number: int
    port: int
    meta_port: int
    directory: Path

    @property
    def address(self) -> str:
        """``host:port`` of the public API."""
        return f"{HOST}:{self.port}"

    @property
    def meta_address(self) -> str:
        """``host:port`` of the metadata's HTTP API."""
        return f"{HOST}:{self.meta_port}"

    @property
    def log_path(self) -> Path:
        """Where the daemon's output goes."""
        return self.directory / "dsdbd.log"

    @property
    def config_path(self) -> Path:
        """The node's configuration file."""
        return self.directory / "dsdb.conf"


def plan_ports(
    count: int, base_port: int | None, is_free: Callable[[int], bool], free_port: Callable[[], int]
) -> list[tuple[int, int]]:
    """(port, meta port) of each node: 8088 and 8091, 8188 and 8191, … as far as they are free, else any free ones.

    With a ``base_port`` given the row begins there, and a taken port raises UsageError.
    """
    base = base_port if base_port is not None else DEFAULT_BASE_PORT
    wanted = [(base + PORT_STEP * index, base + PORT_STEP * index + META_PORT_OFFSET) for index in range(count)]
    if base < 1 or wanted[-1][1] > 65535:
        raise UsageError(f"-base-port {base} leaves no room for {count} nodes: ports go from 1 to 65535")
    pairs = []
    for pair in wanted:
        taken = [port for port in pair if not is_free(port)]
        if taken and base_port is not None:
            raise UsageError(f"port {taken[0]} is in use: choose another -base-port, or none to take free ports")
        pairs.append((free_port(), free_port()) if taken else pair)
    return pairs


def config_text(plan: NodePlan) -> str:
    """The node's configuration file."""

    def directory(name: str) -> str:
        path = str(plan.directory / name)
        return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return f"""\
# Node {plan.number} of a demo cluster.
bind-address = "{plan.address}"

[meta]
dir = {directory("meta")}
bind-address = "{plan.address}"
http-bind-address = "{plan.meta_address}"

[data]
dir = {directory("data")}
wal-dir = {directory("wal")}

[hinted-handoff]
dir = {directory("hh")}

[http]
bind-address = "{plan.address}"
alias-bind-address = ""

[admin]
enabled = false
"""


def daemon_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the daemons: without variables that would override every node's configuration alike."""
    prefixes = ("DSDB_", "INFLUXDB_")
    return {
        name: value for name, value in environ.items() if not name.startswith(prefixes) or name.startswith("DSDB_LOG_")
    }


def missing_servers(response: Response, count: int) -> str | None:
    """What SHOW SERVERS still lacks before ``count`` nodes are all there; None when nothing."""
    error = response.first_error()
    if error is not None:
        return error
    rows = {series.name: len(series.values) for result in response.results for series in result.series}
    data, meta = rows.get("data_nodes", 0), rows.get("meta_nodes", 0)
    if data >= count and meta >= count:
        return None
    return f"SHOW SERVERS lists {data} data nodes and {meta} meta nodes of {count}"


def welcome_lines(plans: Sequence[NodePlan], process_ids: Sequence[int], keep: bool) -> list[str]:
    """What the user sees once the cluster runs."""
    rows = [("node", "http", "join address", "process", "log")]
    rows += [
        (str(plan.number), plan.address, plan.meta_address, str(pid), str(plan.log_path))
        for plan, pid in zip(plans, process_ids, strict=True)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"A cluster of {len(plans)} nodes is running.", ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    first, last = plans[0], plans[-1]
    lines += [
        "",
        "Things to try, from another terminal:",
        f"  dsdb -port {first.port}",
        f"  dsdb -port {first.port} -execute 'CREATE DATABASE demo'",
        f"  curl -i -XPOST 'http://{first.address}/write?db=demo' --data-binary 'cpu,host=a value=0.64'",
        f"  dsdb -port {last.port} -database demo -execute 'SELECT * FROM cpu'",  # noqa: S608 - words on a screen
        f"  dsdb -port {last.port} -execute 'SHOW SERVERS'",
        f"  dsdb status -port {first.port}",
    ]
    if len(plans) > 1:
        lines.append(f"  kill -9 {process_ids[-1]}    # and see what status says")
    data = "keeps its data" if keep else "removes its data"
    return [*lines, "", f"Ctrl-C ends the cluster and {data}."]
