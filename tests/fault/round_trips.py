"""How long a connection and an answer take between two nodes of a sandbox's network, with and without a delay."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.fault import sandbox
from tests.fault.netns import Network, address

_ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 9000))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)
"""
_ASK = """
import json, socket, sys, time
begun_s = time.monotonic()
with socket.create_connection((sys.argv[1], 9000), timeout=30) as connection:
    connected_s = time.monotonic()
    connection.sendall(b"x" * int(sys.argv[2]))
    left = int(sys.argv[2])
    while left:
        left -= len(connection.recv(1 << 16))
    answered_s = time.monotonic()
print(json.dumps([connected_s - begun_s, answered_s - connected_s]))
"""


def ask(network: Network, source: int, to: int, size_bytes: int = 1) -> list[float]:
    """Seconds of the connection and of the answer."""
    command = [*network.inside(source), sys.executable, "-I", "-S", "-c", _ASK, address(to), str(size_bytes)]
    return list(json.loads(sandbox.command(*command)))


def main() -> int:
    """Measure, inside the sandbox, and leave the figures in ``work/round_trips.json``; 3 where no delay can be made."""
    work = Path(sys.argv[1])
    sandbox.enter(work, 1 << 20)
    network = Network()
    network.open()
    if not network.can_delay():
        return 3
    for _ in range(3):
        network.add()
    servers = []
    for number in (1, 2, 3):
        server = subprocess.Popen(
            [*network.inside(number), sys.executable, "-I", "-S", "-c", _ECHO, address(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        servers.append(server)
    delay_ms = 150.0
    figures = {"delay_ms": delay_ms, "before": ask(network, 1, 2)}
    network.delay(2, delay_ms)
    figures |= {
        "to": ask(network, 1, 2),
        "from": ask(network, 2, 3),
        "beside": ask(network, 1, 3),
        "large": ask(network, 3, 2, 60_000),
    }
    network.cut({(3, 1)})
    figures["still"] = ask(network, 1, 2)
    begun_s = time.monotonic()
    network.hurry(2)
    figures |= {"after": ask(network, 1, 2), "ended_s": time.monotonic() - begun_s}
    for server in servers:
        server.kill()
        server.communicate()
    (work / "round_trips.json").write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
