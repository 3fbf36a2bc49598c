"""Readiness messages and the pid file."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from dsdbd.errors import StartError
from dsdbd.notify import READY, STOPPING, PidFile, notify, status

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_message_reaches_the_manager(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path if kind == "path" else "\0" + path)
        manager.settimeout(5)
        environ = {"NOTIFY_SOCKET": path if kind == "path" else "@" + path}
        assert notify(f"{READY}\n{status('waits for µs')}", environ)
        assert manager.recv(4096) == "READY=1\nSTATUS=waits for µs".encode()
        assert notify(STOPPING, environ)
        assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize(
    "address", ["", "@", "/", "relative", "/nonexistent/socket", "@nobody-listens", "/" + "x" * 200]
)
def test_nobody_listening_is_no_error(address: str) -> None:
    assert notify(READY, {"NOTIFY_SOCKET": address}) is False


def test_no_manager_at_all() -> None:
    assert notify(READY, {}) is False


def test_a_manager_that_does_not_read_never_blocks(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        assert not all(notify(READY, environ) for _ in range(100_000))


def test_a_status_is_one_line() -> None:
    assert status("waits\nREADY=1\r\n for  join") == "STATUS=waits READY=1 for join"


def test_pid_file_lives_as_long_as_its_block(tmp_path: Path) -> None:
    path = tmp_path / "run" / "deep" / "dsdb.pid"
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


def test_pid_file_is_removed_when_the_daemon_fails(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.pid"
    with pytest.raises(RuntimeError), PidFile(path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_live_holder_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.pid"
    with PidFile(path):
        with pytest.raises(StartError, match=f"process id {os.getpid()} holds the pid file {path}") as caught:
            PidFile(path).__enter__()
        assert caught.value.exit_code == 1
        assert path.read_text() == f"{os.getpid()}\n"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", ["1\n", "", "garbage", f"{os.getpid()}\n"], ids=["alive", "empty", "garbage", "own"]
)
def test_a_file_nobody_holds_is_taken_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dsdb.pid"
    path.write_text(content)
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_file_somebody_replaced_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.pid"
    with PidFile(path):
        path.unlink()
        path.write_text("other\n")
    assert path.read_text() == "other\n"


def test_the_lock_ends_with_a_killed_daemon(tmp_path: Path) -> None:
    path = tmp_path / "dsdb.pid"
    code = (
        "import signal, sys; from pathlib import Path; from dsdbd.notify import PidFile\n"
        "with PidFile(Path(sys.argv[1])):\n    print('held', flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "held\n"
        with pytest.raises(StartError, match=str(daemon.pid)):
            PidFile(path).__enter__()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(timeout=10)
    assert path.read_text() == f"{daemon.pid}\n"
    with PidFile(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot write the pid file .*/file/dsdb\.pid: "):
        PidFile(tmp_path / "file" / "dsdb.pid").__enter__()


def _contend(path: str, rounds: int) -> int:
    """Take the file over and over; return how often it was held, failing if two hold it at once."""
    taken = 0
    for _ in range(rounds):
        try:
            with PidFile(Path(path)):
                guard = Path(path + ".guard")
                guard.touch(exist_ok=False)
                guard.unlink()
                taken += 1
        except StartError:
            pass
        if taken % 3 == 0:
            # A file as a crash leaves it: there, with nobody holding it.
            with contextlib.suppress(FileExistsError):
                Path(path).touch(exist_ok=False)
    return taken


@pytest.mark.slow
def test_two_starts_at_once_never_both_succeed(tmp_path: Path) -> None:
    # Processes, because the lock belongs to an open file and its owner's id names the temporary file.
    with get_context("spawn").Pool(3) as pool:
        results = pool.starmap(_contend, [(str(tmp_path / "dsdb.pid"), 300)] * 3)
    assert sum(results) > 0
