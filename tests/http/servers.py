"""One dsdbd and one influxd of Debian for the dialogues, with authentication off or on."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cluster.daemons import free_port, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_CONFIG = """reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "127.0.0.1:{http}"
log-enabled = false
auth-enabled = {auth}
[monitor]
store-enabled = false
"""


def dsdbd_settings(*, auth: bool) -> Mapping[str, Sequence[str]]:
    return {"http": [f"auth-enabled = {str(auth).lower()}", "log-enabled = false"]}


@contextmanager
def influxd_server(directory: Path, *, auth: bool = False) -> Iterator[str]:
    """The address of an influxd that answers."""
    port = free_port()
    config = directory / "influxdb.conf"
    config.write_text(_CONFIG.format(directory=directory, http=port, rpc=free_port(), auth=str(auth).lower()))
    with (directory / "influxd.log").open("wb") as log:
        process = subprocess.Popen(["influxd", "-config", str(config)], stdout=log, stderr=subprocess.STDOUT)
    address = f"127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, (directory / "influxd.log").read_text()
        try:
            return request("GET", f"http://{address}/ping", timeout_s=2).status == 204
        except OSError:
            return False

    try:
        wait_until(answers, "influxd answers", 60)
        yield address
    finally:
        process.kill()
        process.wait()
