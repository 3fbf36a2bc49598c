"""Loading the libraries of the daemon without what it never uses of them; ``main`` imports this before all others.

A start is mostly loading, and a node that was killed is missed by the others for so long. Two libraries do by far the
most at their import, for things of which the daemon has its own or none:

- aiohttp makes two TLS contexts for requests to other servers, each with all certificate authorities that the system
  trusts. Nodes talk to each other without TLS, and subscriptions make a context of their own when they need one. Those
  of aiohttp know no authority here, so that a request that relied on them would be refused.
- structlog loads rich, where that is installed, for tracebacks in colours.

Garbage is not looked for meanwhile: what is loaded stays, and is looked at again and again.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _load_aiohttp() -> None:
    before = {name: os.environ[name] for name in _AUTHORITIES if name in os.environ}
    os.environ.update(dict.fromkeys(_AUTHORITIES, os.devnull))
    try:
        importlib.import_module("aiohttp")
    finally:
        for name in _AUTHORITIES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _load_structlog() -> None:
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]


def done() -> None:
    """Look for garbage again, once all is loaded."""
    if _looked_for_garbage:
        gc.enable()


_looked_for_garbage = gc.isenabled()
gc.disable()
_load_aiohttp()
_load_structlog()
