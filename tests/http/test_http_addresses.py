"""Which address answers what: the alias of the API, and an API that is served over TLS."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.cluster.daemons import Daemon, free_port, request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "node")
    yield made
    made.kill()


def accepts(host: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex((host, port)) == 0


def test_an_alias_without_a_host_is_on_the_host_of_the_api(daemon: Daemon) -> None:
    port = free_port()
    # An empty alias in the file is "off"; the variable, which counts more, turns it on.
    daemon.environ = {"DSDB_HTTP_ALIAS_BIND_ADDRESS": f":{port}"}
    daemon.start()
    assert request("GET", f"http://127.0.0.1:{port}/ping").status == 204
    assert not accepts("127.0.0.2", port)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_clients_must_use_tls_where_it_is_on_and_nodes_still_join(daemon: Daemon, tmp_path: Path) -> None:
    pem = tmp_path / "both.pem"
    key = tmp_path / "key.pem"
    request_words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *request_words.split(), "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True
    )
    pem.write_bytes(pem.read_bytes() + key.read_bytes())
    daemon.settings = {"http": ["https-enabled = true", f'https-certificate = "{pem}"']}
    daemon.start(wait=False)
    context = ssl.create_default_context(cafile=str(pem))

    def answered() -> dict[str, str] | None:
        try:
            with urllib.request.urlopen(f"https://{daemon.address}/ready", context=context, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    assert wait_until(answered, "an answer over TLS", 60)["status"] == "ready"
    refused = daemon.get("/query", q="SHOW DATABASES")
    assert refused.status == 400
    assert refused.json["error"] == "Client sent an HTTP request to an HTTPS server."
    other = Daemon(tmp_path / "other", join=[daemon.meta_address])
    try:
        other.start()
        assert len(other.servers()["meta_nodes"]) == 2
    finally:
        other.kill()
