"""The shell on a pseudo-terminal: editing, history, completion, leaving."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.debian]

DEADLINE_S = 15.0
_FORWARD = re.compile(r"\x1b\[(\d*)C")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x08]")
CTRL_C, CTRL_D, TAB, UP = "\x03", "\x04", "\t", "\x1b[A"


class Terminal:
    """A process on a terminal; ``screen`` is everything it printed, without control sequences."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dsdb_cli.main", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._raw = b""
        self._seen = 0

    @property
    def screen(self) -> str:
        text = self._raw.decode("utf-8", errors="replace")
        return _CONTROL.sub("", _FORWARD.sub(lambda move: " " * int(move.group(1) or 1), text))

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        if b"\x1b[6n" in data:
            # The line editor asks where the cursor is, as it would ask any terminal.
            os.write(self._master, b"\x1b[40;1R")
        self._raw += data
        return bool(data)

    def expect(self, text: str) -> str:
        """Wait for ``text`` after what was expected before; returns the screen up to its end."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            screen = self.screen
            place = screen.find(text, self._seen)
            if place >= 0:
                before = screen[self._seen : place]
                self._seen = place + len(text)
                return before
            assert time.monotonic() < deadline_s, f"{text!r} did not appear in {screen[self._seen :]!r}"
            assert self._read(0.2) or text in self.screen[self._seen :], f"ended before {text!r}: {self.screen!r}"

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect_reading(self) -> None:
        """Wait until the process sleeps: Ctrl-C between a plain prompt and its read is noticed after the read only."""
        deadline_s = time.monotonic() + DEADLINE_S
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline_s, self.screen
            time.sleep(0.01)

    def wait(self) -> int:
        deadline_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.screen
            self._read(0.05)
        while self._read(0):
            if not select.select([self._master], [], [], 0)[0]:
                break
        return self.process.returncode

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


def _take_terminal() -> None:
    # A test run started in the background may have been told to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(influxd: Any, shell_environment: dict[str, str]) -> Iterator[Any]:
    opened: list[Terminal] = []

    def start(*words: str, term: str = "xterm") -> Terminal:
        shell = Terminal(
            ["-host", "127.0.0.1", "-port", str(influxd.port), *words], {**shell_environment, "TERM": term}
        )
        opened.append(shell)
        return shell

    yield start
    for shell in opened:
        shell.close()


def history_path(shell_environment: dict[str, str]) -> Path:
    return Path(shell_environment["HOME"]) / ".dsdb_history"


def test_a_dialogue(terminal: Any, influxd: Any, database: str, shell_environment: dict[str, str]) -> None:
    shell = terminal()
    shell.expect(f"Connected to http://127.0.0.1:{influxd.port} version 1.6.7")
    shell.expect("DSDB shell 0.")
    shell.expect("> ")
    shell.send(f"use {database}\r")
    shell.expect(f"Using database {database}")
    shell.expect("> ")
    shell.send("insert cpu v=1 7\r")
    shell.expect("> ")
    shell.send("SELECT v FROM cpu\r")
    shell.expect("name: cpu\n---------\ntime\tv\n7\t1\n\n")
    shell.expect("> ")
    shell.send("CREATE USER todd WITH PASSWORD 'geheim'\r")
    shell.expect("> ")
    shell.send("SELECT mistake" + CTRL_C)
    shell.expect("> ")
    shell.send("history\r")
    shell.expect(f"use {database}\ninsert cpu v=1 7\nSELECT v FROM cpu\nhistory\n")
    shell.expect("> ")
    shell.send(CTRL_D)
    assert shell.wait() == 0
    path = history_path(shell_environment)
    assert path.read_text() == f"use {database}\ninsert cpu v=1 7\nSELECT v FROM cpu\nhistory\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_password_is_not_even_under_the_up_key(terminal: Any, database: str) -> None:
    shell = terminal()
    shell.expect("> ")
    shell.send("settings\r")
    shell.expect("Write Consistency\tany\n\n")
    shell.expect("> ")
    shell.send("SET PASSWORD FOR nobody = 'geheim'\r")
    shell.expect("ERR: user not found")
    shell.expect("> ")
    shell.send(UP + "\r")
    shell.expect("Write Consistency\tany\n\n")


def test_completion_of_a_database(terminal: Any, database: str) -> None:
    shell = terminal()
    shell.expect("> ")
    shell.send(f"use {database[:-3]}{TAB}")
    shell.expect(database[-3:])
    shell.send("\r")
    shell.expect(f"Using database {database}")


def test_a_paste_of_many_lines_runs_all_of_them(terminal: Any, database: str) -> None:
    shell = terminal("-database", database)
    shell.expect("> ")
    shell.send("\x1b[200~insert cpu v=1 7\ninsert cpu v=2 8\nSELECT v\nFROM cpu\nSHOW MEASUREMENTS\x1b[201~\r")
    shell.expect("name: cpu\n---------\ntime\tv\n7\t1\n8\t2\n\n")
    shell.expect("name: measurements\n")


def test_exit_and_auth_prompts(terminal: Any) -> None:
    shell = terminal()
    shell.expect("> ")
    shell.send("auth\r")
    shell.expect("username: ")
    shell.send("todd\r")
    shell.expect("password: ")
    shell.send("geheim\r")
    shell.expect("> ")
    shell.send("settings\r")
    shell.expect("Username\t\ttodd\n")
    shell.expect("> ")
    shell.send("exit\r")
    assert shell.wait() == 0
    assert "geheim" not in shell.screen


def test_password_flag_asks(terminal: Any) -> None:
    shell = terminal("-username", "todd", "-password", "", "-execute", "settings")
    shell.expect("password: ")
    shell.send("x\r")
    shell.expect("Username\t\ttodd\n")
    assert shell.wait() == 0


def test_an_error_is_shown_once_on_a_terminal(terminal: Any) -> None:
    shell = terminal("-execute", "SELECT nonsense")
    assert shell.wait() == 1
    assert shell.screen.count("error parsing query") == 1


def test_a_dumb_terminal(terminal: Any, shell_environment: dict[str, str]) -> None:
    shell = terminal(term="dumb")
    shell.expect("> ")
    shell.send("pretty\r")
    shell.expect("Pretty print enabled")
    shell.expect("> ")
    shell.expect_reading()
    shell.send("pre" + CTRL_C)
    shell.expect("> ")
    shell.send(CTRL_D)
    assert shell.wait() == 0
    assert history_path(shell_environment).read_text() == "pretty\n"


def test_ctrl_c_ends_the_wait_for_an_answer(terminal: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        shell = terminal("-port", str(listener.getsockname()[1]))
        with listener.accept()[0] as connection:
            connection.settimeout(DEADLINE_S)
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.6.7\r\n\r\n")
            shell.expect("> ")
            shell.send("SHOW DATABASES\r")
            assert connection.recv(65536).startswith(b"POST /query")
            shell.send(CTRL_C)
            shell.expect("Interrupted; the server may still be running the statement.")
            shell.expect("> ")
            shell.send("exit\r")
            assert shell.wait() == 0
            while connection.recv(65536):
                pass
