"""The clustering guide, followed to the letter on one machine: three names, three services, one cluster."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.packaging.machine import answers, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packaging.machine import InstalledPackage

HOSTS = Path("/etc/hosts")
NODES = {"dsdb": "influx1", "dsdb-influx2": "influx2", "dsdb-influx3": "influx3"}
BLOCK = """\
name: data_nodes
----------------
id\thttp_addr\ttcp_addr
2\tinflux1:8088\tinflux1:8088
{data}
name: meta_nodes
----------------
id\thttp_addr\ttcp_addr
1\tinflux1:8091\tinflux1:8088
{meta}
"""


@pytest.fixture
def names() -> Iterator[None]:
    """influx1 to influx3 as names of this machine's loopback addresses."""
    before = HOSTS.read_text()
    lines = "".join(f"127.0.1.{number} influx{number}\n" for number in (1, 2, 3))
    HOSTS.write_text(before.rstrip("\n") + "\n" + lines)
    yield
    HOSTS.write_text(before)


def configure(name: str, host: str) -> None:
    """Edit the three addresses of the guide in the packaged file; nodes on one machine also need directories."""
    edits = {
        ("[meta]", "bind-address"): f"{host}:8088",
        ("[meta]", "http-bind-address"): f"{host}:8091",
        ("[http]", "bind-address"): f"{host}:8088",
    }
    lines, section = [], ""
    for line in Path("/etc/dsdb/dsdb.conf.guide").read_text().splitlines():
        section = line if line.startswith("[") else section
        value = edits.pop((section, line.split(" = ")[0]), None)
        lines.append(line if value is None else f'{line.split(" = ")[0]} = "{value}"')
    assert not edits, edits
    text = "\n".join(lines) + "\n"
    if name != "dsdb":
        text = text.replace("/var/lib/dsdb/", f"/var/lib/dsdb/{name}/")
    path = Path(f"/etc/dsdb/{name}.conf")
    path.write_text(text)
    shutil.chown(path, "root", "dsdb")
    path.chmod(0o640)


def shown(host: str) -> str:
    """What the shell prints for SHOW SERVERS on one node."""
    return run("dsdb", "-host", host, "-execute", "SHOW SERVERS").stdout


def ids(block: str) -> list[int]:
    return [int(line.split("\t")[0]) for line in block.splitlines() if re.match(r"\d+\t", line)]


@pytest.mark.usefixtures("names")
def test_the_clustering_guide(installed_package: InstalledPackage) -> None:
    shutil.copy("/etc/dsdb/dsdb.conf", "/etc/dsdb/dsdb.conf.guide")
    for name, host in NODES.items():
        if name != "dsdb":
            installed_package.add_node(name)
            Path(f"/etc/default/{name}").write_text('INFLUXD_OPTS="-join influx1:8091"\n')
        configure(name, host)

    installed_package.service("start", "dsdb")
    wait_until(lambda: answers("http://influx1:8088/ready"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: installed_package.service("start", name), list(NODES)[1:]))
    for host in ("influx2", "influx3"):
        wait_until(lambda host=host: answers(f"http://{host}:8088/ready"))

    wait_until(lambda: len(ids(shown("influx1"))) == 6)
    blocks = {host: shown(host) for host in NODES.values()}
    assert len(set(blocks.values())) == 1, blocks
    block = blocks["influx1"]
    rows = re.findall(r"^(\d+)\t(influx[23]:80\d\d)\t(influx[23]:8088)$", block, flags=re.MULTILINE)
    data = "".join("\t".join(row) + "\n" for row in rows if row[1].endswith(":8088"))
    meta = "".join("\t".join(row) + "\n" for row in rows if row[1].endswith(":8091"))
    assert block == BLOCK.format(data=data, meta=meta.rstrip("\n") + "\n"), block
    assert sorted(ids(block)) == [1, 2, 3, 4, 5, 6]

    if shutil.which("influx"):
        for host in NODES.values():
            theirs = run("influx", "-host", host, "-port", "8088", "-execute", "SHOW SERVERS").stdout
            assert [line.split() for line in theirs.splitlines() if re.match(r"\d", line)] == [
                line.split() for line in block.splitlines() if re.match(r"\d", line)
            ]

    points = "m,host=a v=1 1000000000\nm,host=b v=2 2000000000\n"
    run("dsdb", "-host", "influx2", "-execute", "CREATE DATABASE guide")
    run("curl", "-sSf", "-XPOST", "http://influx3:8088/write?db=guide&consistency=all", "--data-binary", points)
    for verb in ("stop", "start"):
        for name in NODES:
            installed_package.service(verb, name)
    for host in NODES.values():
        wait_until(lambda host=host: answers(f"http://{host}:8088/ready"))
        answer = run(
            "dsdb", "-host", host, "-database", "guide", "-execute", "SELECT v FROM m", "-format", "csv"
        ).stdout
        assert answer.splitlines()[1:] == ["m,1000000000,1", "m,2000000000,2"], answer
        assert shown(host) == block
