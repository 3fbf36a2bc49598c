"""Programs that need not load their libraries: a process that has them divides itself for each start.

Loading takes a daemon about a second of processor time, running it afterwards a hundredth of that, and the tests start
hundreds. So a process that has imported ``dsdbd.main``, and done nothing else, forks for each of them; the child takes
over command line, environment, directory and standard output and error, and goes on as the installed program does. The
same serves programs of the tests that are killed again and again.
A daemon whose interpreter is to be told something (``PYTHONPATH``, ``LD_PRELOAD``) is started from its program instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import itertools
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DSDBD = Path(sys.executable).parent / "dsdbd"
PRELOADED = 2
"""Nodes take turns: those of one process share the seed of Python's hashes, and the order of a set must not matter."""
_FOR_THE_LOADER = ("PYTHON", "LD_")
_MAX_REQUEST_BYTES = 200_000
_ANSWER_TIMEOUT_S = 60.0


class ForkedProcess:
    """What tests need of ``subprocess.Popen``, for a child of another process, which tells its exit code."""

    def __init__(self, arguments: Sequence[str], told: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._told = told
        self._lock = threading.Lock()
        told.settimeout(_ANSWER_TIMEOUT_S)
        try:
            self.pid = self._number()
        except BaseException:
            told.close()
            raise

    def _number(self) -> int:
        message = self._told.recv(64)
        assert message, "the process that starts programs for the tests is gone"
        return int(message)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal; ``subprocess.TimeoutExpired`` when it runs on. Any thread may ask."""
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._told, select.POLLIN)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            with self._lock:
                if self.returncode is None:
                    self.returncode = self._number()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code of a process that has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        # Only here, where no other thread waits on it any more.
        self._told.close()


@dataclass
class _Preloaded:
    """A process that has imported a module and divides itself, and the line to it."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def start(cls, module: str) -> _Preloaded:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, module, str(theirs.fileno())]
            process = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        started = cls(process, ours)
        atexit.register(started.end)
        return started

    def end(self) -> None:
        self.control.close()
        self.process.wait()


_preloaded: dict[tuple[str, int], _Preloaded] = {}
_turns = itertools.count()


def start_dsdbd(
    arguments: Sequence[str], environ: Mapping[str, str], output: BinaryIO, *, installed: bool = False
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start a daemon that reads nothing and says all to ``output``; ``installed``: in any case from its program."""
    command = [str(DSDBD), *arguments]
    differs = {name for name in {*environ, *os.environ} if environ.get(name) != os.environ.get(name)}
    if installed or any(name.startswith(_FOR_THE_LOADER) for name in differs):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)
    preloaded = _preloaded_with("dsdbd.main", next(_turns) % PRELOADED)
    return _fork(preloaded, command, environ, output.fileno(), output.fileno())


def start_module(
    module: str, arguments: Sequence[str], output: BinaryIO, errors: BinaryIO | None = None
) -> ForkedProcess:
    """Start ``module.main()`` with these arguments; without ``errors`` it shares the standard error of the tests."""
    told = 2 if errors is None else errors.fileno()
    return _fork(_preloaded_with(module, 0), [module, *arguments], os.environ, output.fileno(), told)


def _fork(
    preloaded: _Preloaded, command: Sequence[str], environ: Mapping[str, str], output: int, errors: int
) -> ForkedProcess:
    request = json.dumps({"command": command, "environ": dict(environ), "directory": str(Path.cwd())}).encode()
    assert len(request) < _MAX_REQUEST_BYTES
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(preloaded.control, [request], [theirs.fileno(), output, errors])
    return ForkedProcess(command, ours)


def _preloaded_with(module: str, turn: int) -> _Preloaded:
    """The process for a module; started when it is first needed, or has ended for want of something to import."""
    known = _preloaded.get((module, turn))
    if known is not None and known.process.poll() is None:
        return known
    if known is not None:
        known.end()
    started = _preloaded[module, turn] = _Preloaded.start(module)
    return started


# --- in the process that has loaded everything


def _serve(control: socket.socket) -> None:
    """Fork for each request and tell of each end; returns in the children, which then become daemons.

    Ends with the tests: their end of ``control`` closes with their process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                pid, tests = children.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                _tell(tests, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                tests.close()
                continue
            request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 3)
            if not request:
                os._exit(0)
            tests, (output, errors) = socket.socket(fileno=descriptors[0]), descriptors[1:]
            if (pid := os.fork()) == 0:
                selector.close()
                for open_one in (control, tests, *(line for _, line in children.values())):
                    open_one.close()
                for descriptor in children:
                    os.close(descriptor)
                _become(json.loads(request), output, errors)
                return
            os.close(output)
            os.close(errors)
            watch = os.pidfd_open(pid)
            children[watch] = (pid, tests)
            selector.register(watch, selectors.EVENT_READ)
            _tell(tests, pid)


def _tell(tests: socket.socket, number: int) -> None:
    """Say a number, unless the test that would hear it has ended."""
    with contextlib.suppress(OSError):
        tests.send(str(number).encode())


def _become(request: dict, output: int, errors: int) -> None:
    """Take over what a new process is given."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    os.chdir(request["directory"])
    sys.argv = request["command"]


if __name__ == "__main__":
    _, _name, _line = sys.argv
    _program = importlib.import_module(_name)
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(_line)))
    sys.exit(_program.main())
