"""Loading the daemon's libraries leaves the process as it was."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dsdbd.services.subscriber import _tls

_PROGRAM = """
import gc, json, os, sys
before = dict(os.environ)
import dsdbd.main
print(json.dumps({"gc": gc.isenabled(), "environ": dict(os.environ) == before, "rich": "rich" in sys.modules}))
import rich
"""


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"SSL_CERT_FILE": "/nowhere/own.pem"}])
def test_nothing_of_it_is_left_behind(own: dict[str, str]) -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("SSL_CERT_")} | own
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environ, capture_output=True, timeout=120, check=False)
    assert json.loads(done.stdout) == {"gc": True, "environ": True, "rich": False}
    # Where it is installed, whoever wants it can have it.
    assert done.returncode == 0 or b"No module named 'rich'" in done.stderr


def test_subscriptions_trust_whom_the_system_trusts() -> None:
    context = _tls(SimpleNamespace(insecure_skip_verify=False, ca_certs=None))  # type: ignore[arg-type]
    assert isinstance(context, ssl.SSLContext) and context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert context.cert_store_stats() == ssl.create_default_context().cert_store_stats()
