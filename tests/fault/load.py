"""The load: threads that write, overwrite, delete, change metadata, read and probe, each over all nodes."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fault.history import OK, REFUSED, UNKNOWN, History
from tests.fault.node import HTTP_PORT, FaultNode
from tests.fault.points import doomed_lines, shared_lines, unique_lines

_TIMEOUT_S = 4.0
_PROBE_S = 0.2
_KEY_OPS = 150
"""Operations on one register before the next is used."""


class Client:
    """Kept connections to every node, for one thread."""

    def __init__(self, nodes: Sequence[FaultNode], timeout_s: float = _TIMEOUT_S) -> None:
        self._nodes = nodes
        self._hosts: dict[int, str] = {}
        self._timeout_s = timeout_s
        self._open: dict[int, http.client.HTTPConnection] = {}

    def ask(self, number: int, method: str, path: str, body: bytes, **params: str) -> tuple[str, int, bytes]:
        """Outcome, status and body. Only a connection that could not be made proves that nothing happened."""
        connection = self._open.pop(number, None)
        fresh = connection is None
        if connection is None:
            connection = http.client.HTTPConnection(self._host(number), HTTP_PORT, timeout=self._timeout_s)
        try:
            if fresh:
                try:
                    connection.connect()
                except OSError as error:
                    connection.close()
                    return REFUSED, 0, str(error).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"} if path == "/query" else {}
            connection.request(method, path + "?" + urllib.parse.urlencode(params), body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return UNKNOWN, 0, str(error).encode()
        if answer.will_close:
            connection.close()
        else:
            self._open[number] = connection
        return _outcome(answer.status), answer.status, content

    def _host(self, number: int) -> str:
        """The host of a node, also of one that has come or gone meanwhile."""
        if number not in self._hosts:
            self._hosts |= {node.number: node.host for node in self._nodes}
        return self._hosts[number]

    def statement(self, number: int, statement: str, **params: str) -> tuple[str, bytes]:
        """Outcome of one statement, and the answer. Errors inside an answer of status 200 count."""
        body = urllib.parse.urlencode({"q": statement, **params}).encode()
        outcome, status, content = self.ask(number, "POST", "/query", body)
        if status == 0:
            return outcome, content
        with contextlib.suppress(ValueError, KeyError, IndexError):
            document = json.loads(content)
            failed = document.get("error") or document["results"][0].get("error")
            if failed:
                # What a statement's error means is told by its text only: nothing is taken for certain.
                return UNKNOWN, content
        return outcome, content

    def close(self) -> None:
        """Close what is open."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()


def _outcome(status: int) -> str:
    if status in (200, 204):
        return OK
    return REFUSED if status in (400, 401, 403, 404, 413, 503) else UNKNOWN


@dataclass
class Load:
    """All threads of one round. ``points_s``: wished points of ``unique`` a second, over all writers."""

    nodes: Sequence[FaultNode]
    history: History
    database: str
    base_ns: int
    seed: int
    writers: int = 4
    rows: int = 300
    points_s: float = 3000.0

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self.issued: dict[int, int] = {}
        self.shared_issued: dict[int, int] = {}
        self._acknowledged: dict[int, int] = {}

    @property
    def acknowledged(self) -> int:
        """Points of ``unique`` acknowledged so far, at whatever level."""
        return sum(self._acknowledged.values())

    def start(self) -> None:
        """Start the threads."""
        jobs = [(self._write, number) for number in range(self.writers)]
        jobs += [(self._overwrite, 100 + number) for number in range(3)]
        jobs += [(self._probe, node.number) for node in self.nodes]
        jobs += [(self._register, number) for number in range(3)]
        jobs += [(self._delete, 200), (self._declare, 201), (self._read, 202)]
        for job, number in jobs:
            name = f"{job.__name__}{number}"
            thread = threading.Thread(target=self._run, args=(job, number), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads, each after its last request."""
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                raise RuntimeError(f"the load thread {thread.name} does not end")
        if self._error is not None:
            raise RuntimeError("a load thread ended before its time: the run is void") from self._error

    def _run(self, job: Callable[[int], None], number: int) -> None:
        try:
            job(number)
        except BaseException as error:
            self._error = error
            raise

    def _random(self, number: int) -> random.Random:
        return random.Random(self.seed * 1000 + number)

    def _numbers(self) -> list[int]:
        return [node.number for node in self.nodes]

    def _write(self, writer: int) -> None:
        chance, client = self._random(writer), Client(self.nodes)
        pause_s = self.rows * self.writers / self.points_s
        first = 0
        while not self._ending.is_set():
            begun_s = time.monotonic()
            lines = unique_lines(self.base_ns, writer, first, self.rows)
            level = chance.choices(["quorum", "all", "one", "any"], [80, 10, 5, 5])[0]
            self.issued[writer] = first + self.rows
            for attempt in range(30):
                node = chance.choice(self._numbers())
                if attempt > 2:
                    level = "quorum"
                outcome = self._send(client, node, lines, level, kind="write", writer=writer, first=first)
                if outcome == OK:
                    self._acknowledged[writer] = self._acknowledged.get(writer, 0) + self.rows
                if outcome == OK or self._ending.is_set():
                    break
                self._ending.wait(0.1 + 0.1 * min(attempt, 10))
            first += self.rows
            self._ending.wait(max(0.0, begun_s + pause_s - time.monotonic()))
        client.close()

    def _send(self, client: Client, node: int, lines: bytes, level: str, **what: object) -> str:
        begun_s = time.monotonic()
        params = {"db": self.database, "consistency": level}
        outcome, status, content = client.ask(node, "POST", "/write", lines, **params)
        rows = lines.count(b"\n") + 1
        why = {} if outcome == OK else {"status": status, "why": content[:160].decode(errors="replace")}
        self.history.add(
            **what,
            node=node,
            level=level,
            rows=rows,
            begun=round(begun_s, 4),
            outcome=outcome,
            **why,  # type: ignore[arg-type]
        )
        return outcome

    def _overwrite(self, writer: int) -> None:
        chance, client = self._random(writer), Client(self.nodes)
        first, rows = 0, 20
        while not self._ending.is_set():
            lines = shared_lines(self.base_ns, writer, first, rows)
            self.shared_issued[writer] = first + rows
            for attempt in range(10):
                node = chance.choice(self._numbers())
                outcome = self._send(client, node, lines, "quorum", kind="shared", writer=writer, first=first)
                if outcome == OK or self._ending.is_set():
                    break
                self._ending.wait(0.1 + 0.1 * attempt)
            first += rows
            self._ending.wait(chance.uniform(0.02, 0.2))
        client.close()

    def _probe(self, node: int) -> None:
        """Small writes at quorum all the time tell when the cluster takes writes; they end with a node that leaves."""
        client, number = Client(self.nodes, timeout_s=1.5), 0
        while not self._ending.is_set() and node in self._numbers():
            number += 1
            line = f"probe,node=n{node} value={number}i {self.base_ns + number * 1000}".encode()
            self._send(client, node, line, "quorum", kind="probe")
            self._ending.wait(_PROBE_S)
        client.close()

    def _delete(self, number: int) -> None:
        chance, client, series = self._random(number), Client(self.nodes), 0
        while not self._ending.is_set():
            series += 1
            lines = doomed_lines(self.base_ns, series, 30)
            sent = self._send(client, chance.choice(self._numbers()), lines, "quorum", kind="doom", series=series)
            # One that may still arrive later may be newer than its deletion: it is left alone.
            while sent == OK and not self._ending.is_set():
                begun_s = time.monotonic()
                node = chance.choice(self._numbers())
                text = f"DELETE FROM doomed WHERE s = 'd{series}'"
                outcome, content = client.statement(node, text, db=self.database)
                why = {} if outcome == OK else {"why": content[:160].decode(errors="replace")}
                self.history.add("delete", series=series, node=node, begun=round(begun_s, 4), outcome=outcome, **why)
                if outcome == OK:
                    break
                self._ending.wait(0.3)
            self._ending.wait(chance.uniform(0.3, 1.0))
        client.close()

    def _register(self, number: int) -> None:
        """Registers made of the durations of retention policies: three clients read and change one, then the next."""
        chance, client = self._random(300 + number), Client(self.nodes)
        done, key = 0, -1
        while not self._ending.is_set():
            wanted = done * 3 // _KEY_OPS
            name = f"{self.database}r{wanted}"
            node = chance.choice(self._numbers())
            if wanted != key:
                if client.statement(node, f"CREATE DATABASE {name}")[0] == OK:
                    key = wanted
                self._ending.wait(0.05)
                continue
            done += 1
            begun_s = time.monotonic()
            if chance.random() < 0.4:
                hours = 1_000 + done * 3 + number
                text = f"ALTER RETENTION POLICY autogen ON {name} DURATION {hours}h"
                outcome, _ = client.statement(node, text)
                operation, value = "write", hours
            else:
                text = f"SHOW RETENTION POLICIES ON {name}"
                outcome, content = client.statement(node, text, consistency="linearizable")
                operation, value = "read", _duration_h(content) if outcome == OK else -1
            self.history.add(
                "register", key=name, op=operation, value=value, node=node, begun=round(begun_s, 4), outcome=outcome
            )
            self._ending.wait(chance.uniform(0.05, 0.25))
        client.close()

    def _declare(self, number: int) -> None:
        """Databases that come, and of which every second goes again."""
        chance, client, made = self._random(number), Client(self.nodes), 0
        while not self._ending.is_set():
            made += 1
            name = f"{self.database}s{made}"
            for statement, operation in ((f"CREATE DATABASE {name}", "create"), (f"DROP DATABASE {name}", "drop")):
                if operation == "drop" and made % 2:
                    continue
                node = chance.choice(self._numbers())
                outcome, _ = client.statement(node, statement)
                self.history.add("declare", name=name, op=operation, node=node, outcome=outcome)
            self._ending.wait(chance.uniform(0.4, 0.8))
        client.close()

    def _read(self, number: int) -> None:
        chance, client = self._random(number), Client(self.nodes)
        while not self._ending.is_set():
            node, writer = chance.choice(self._numbers()), chance.randrange(self.writers)
            begun_s = time.monotonic()
            text = f"SELECT last(value) FROM unique WHERE writer = 'w{writer}' AND s = '{chance.randrange(10)}'"
            outcome, content = client.statement(node, text, db=self.database, epoch="ns")
            issued = self.issued.get(writer, 0)
            value = _single(content) if outcome == OK else None
            invented = value is not None and (value >> 40 != writer or value & ((1 << 40) - 1) >= issued)
            why = {} if outcome == OK else {"why": content[:160].decode(errors="replace")}
            self.history.add(
                "read", node=node, begun=round(begun_s, 4), outcome=outcome, invented=value if invented else None, **why
            )
            self._ending.wait(chance.uniform(0.1, 0.4))
        client.close()


def _single(content: bytes) -> int | None:
    try:
        return int(json.loads(content)["results"][0]["series"][0]["values"][0][1])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _duration_h(content: bytes) -> int:
    """Hours of a policy's duration; 0 for one without end."""
    series = json.loads(content)["results"][0]["series"][0]
    text = str(dict(zip(series["columns"], series["values"][0], strict=True))["duration"])
    hours, unit, _ = text.partition("h")
    return int(hours) if unit else 0
