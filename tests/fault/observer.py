"""What every node says of itself and of the others, all the time: /health, /ready and what ``dsdb status`` prints.

Written down as facts, and only where they change. Which fault a fact is about is judged afterwards (check_health.py).
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.fault.history import History
from tests.fault.node import HTTP_PORT, FaultNode

LOOK_S = 0.2
_STATUS_S = 0.4
_TIMEOUT_S = 1.5
"""A page that takes longer is none: its node is silent. The picture of the cluster waits longer for others."""
_STATUS_TIMEOUT_S = 4.0
_CHANGING = re.compile(r"\d+(\.\d+)?(?=s\b| bytes)")
SILENT = "silent"


def facts_of(page: str, document: dict[str, Any]) -> list[str]:
    """What a page says is wrong: ``check: sentence`` of /health, the reason of /ready, and of the picture of the
    cluster ``down: address`` for nodes and all problems. Numbers that change by themselves are left out."""
    match page:
        case "health":
            found = [f"{one['name']}: {one['message']}" for one in document.get("checks", [])]
        case "ready":
            found = [] if document.get("status") == "ready" else [f"not ready: {document.get('message', '')}"]
        case _:
            found = [f"down: {one['tcp_addr']}" for one in document.get("nodes", []) if one["state"] != "up"]
            found += document.get("problems", [])
    return sorted({_CHANGING.sub("N", one) for one in found})


class Observer:
    """Two threads for each node, over kept connections, until ``stop``; ``nodes`` may come and go meanwhile."""

    def __init__(self, nodes: Sequence[FaultNode], history: History) -> None:
        self._nodes = nodes
        self._history = history
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        known: set[int] = set()
        while not self._ending.wait(LOOK_S):
            for node in tuple(self._nodes):
                if node.number not in known:
                    known.add(node.number)
                    self._begin(node)

    def _begin(self, node: FaultNode) -> None:
        for pages, pause_s in (
            ({"health": "/health", "ready": "/ready"}, LOOK_S),
            ({"status": "/cluster/status"}, _STATUS_S),
        ):
            thread = threading.Thread(target=self._look, args=(node, pages, pause_s), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join()
        for thread in self._threads:
            thread.join()

    def _look(self, node: FaultNode, pages: dict[str, str], pause_s: float) -> None:
        timeout_s = _STATUS_TIMEOUT_S if "status" in pages else _TIMEOUT_S
        connection = http.client.HTTPConnection(node.host, HTTP_PORT, timeout=timeout_s)
        last: dict[str, list[str]] = {}
        while not self._ending.wait(pause_s) and node in self._nodes:
            for page, path in pages.items():
                asked_s = time.monotonic()
                facts = self._ask(node, connection, page, path)
                if facts != last.get(page):
                    last[page] = facts
                    self._history.add("page", node=node.number, page=page, asked=round(asked_s, 3), facts=facts)
        connection.close()

    @staticmethod
    def _ask(node: FaultNode, connection: http.client.HTTPConnection, page: str, path: str) -> list[str]:
        if not node.alive or node.paused:
            connection.close()
            return [SILENT]
        try:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                document = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException):
            connection.close()
            return [SILENT]
        return facts_of(page, document)
