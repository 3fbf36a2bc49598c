"""What the package tests do to the machine: run its programs, ask its daemons, and clean up."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path("/usr/bin/dsdbd"), Path("/usr/bin/dsdb")
TRACES = [Path(path) for path in ("/etc/dsdb", "/var/lib/dsdb", "/var/log/dsdb", "/run/dsdb", "/etc/init.d/dsdb")]


def run(*command: str | Path, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a program of the system as an administrator would: no input, a plain environment, answers in English."""
    environ = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    result = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environ, timeout=timeout_s
    )
    if check:
        assert result.returncode == 0, f"{command} ended with {result.returncode}: {result.stdout}{result.stderr}"
    return result


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Ask until ``condition`` holds; fail after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true in {timeout_s} s"
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers a GET of ``url`` with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return 200 <= answer.status < 300
    except (urllib.error.URLError, OSError):
        return False


def daemon_pids() -> list[int]:
    """Process ids of every installed daemon that runs now."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(PROGRAMS[0]).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@dataclass
class InstalledPackage:
    """The package on this machine."""

    deb: Path
    install_output: str

    def install(self) -> str:
        """Install the package again; return what dpkg printed."""
        result = run("dpkg", "--install", "--force-confold", self.deb)
        return result.stdout + result.stderr

    def service(self, verb: str, name: str = "dsdb", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``service NAME VERB``."""
        return run("service", name, verb, check=check)

    def pid(self, name: str = "dsdb") -> int:
        """Process id of the running node ``name``."""
        return int(Path(f"/run/dsdb/{name}.pid").read_text())

    def add_node(self, name: str) -> None:
        """Make the service ``name`` beside the first one; its settings are /etc/default/NAME."""
        Path(f"/etc/init.d/{name}").symlink_to("dsdb")


def clean(had_account: bool) -> None:
    """Stop, purge and forget; also what a failed test left half-way."""
    if Path("/etc/init.d/dsdb").exists():
        for script in Path("/etc/init.d").glob("dsdb*"):
            run(script, "stop", check=False)
    run("dpkg", "--purge", "--force-all", "dsdb", check=False)
    for pid in daemon_pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in (*Path("/etc/init.d").glob("dsdb-*"), *Path("/etc/default").glob("dsdb-*")):
        path.unlink()
    for path in TRACES:
        shutil.rmtree(path, ignore_errors=True)
    if not had_account:
        with contextlib.suppress(KeyError):
            pwd.getpwnam("dsdb")
            wait_until(lambda: run("userdel", "dsdb", check=False).returncode in (0, 6))
