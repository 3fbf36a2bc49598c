"""A place of its own for a campaign: namespaces for network, mounts and processes that vanish with its first process.

The campaign is run anew by ``unshare`` as process 1 of a process namespace. Whatever happens to it, the kernel ends its
daemons, unmounts its file systems and removes its interfaces; nothing outside is touched, nothing is left behind.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The source tree whose daemon and harness run."""
_PROGRAMS = (
    "ip",
    "iptables",
    "iptables-restore",
    "nsenter",
    "unshare",
    "mount",
    "umount",
    "mkfs.ext4",
    "fsfreeze",
    "cp",
)
_LEAVE_S = 30.0
END_FILE = "end"
"""A file of this name in a campaign's directory asks it to end early, with its checks and its report."""
_MS_PRIVATE_REC = 0x44000


def missing() -> str:
    """Why no campaign can run on this machine; empty when one can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, for namespaces and loop mounts"
    absent = [name for name in _PROGRAMS if program(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: iproute2, iptables, util-linux, mount, e2fsprogs)"
    tried = subprocess.run(
        _unshare(["sh", "-c", "ip link add fault0 type bridge && iptables -A INPUT -s 10.77.0.9 -j DROP"]),
        capture_output=True,
        timeout=20,
        check=False,
    )
    if tried.returncode != 0:
        return "namespaces are refused here: " + tried.stderr.decode(errors="replace").strip()
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


def program(name: str) -> str | None:
    """Where a program is, also where only root's path has it."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _unshare(command: list[str]) -> list[str]:
    flags = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]
    return [program("unshare") or "unshare", *flags, "--kill-child=SIGTERM", "--", *command]


def run(module: str, arguments: list[str], work: Path, timeout_s: float) -> int:
    """Run a module of the harness in a sandbox; its output goes to ``work/output``. Returns its exit code.

    One that takes too long is told to leave and its file systems are thawed, as a frozen one would hold its processes.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("DSDB_", "INFLUXDB_"))}
    environ["PYTHONPATH"] = str(ROOT)
    # Each start of a daemon would compile all of its modules.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    environ["PATH"] = environ.get("PATH", "") + ":/usr/sbin:/sbin"
    with (work / "output").open("ab") as output:
        process = subprocess.Popen(
            _unshare([sys.executable, "-m", module, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            cwd=work,
            # What a terminal sends to all that runs in it would reach the daemons, too.
            start_new_session=True,
        )
        try:
            return process.wait(timeout_s)
        except BaseException:
            _end(process, work)
            raise


def _end(process: subprocess.Popen[bytes], work: Path) -> None:
    """End a sandbox: politely, so that it heals its faults; then by force, thawed from outside."""
    inner = _child(process.pid)
    if inner:
        os.kill(inner, signal.SIGTERM)
        deadline_s = time.monotonic() + _LEAVE_S
        while process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.1)
    if process.poll() is None and inner:
        for mounted in sorted(work.glob("node*/disk")):
            inside = f"/proc/{inner}/root{mounted}"
            subprocess.run([program("fsfreeze") or "fsfreeze", "-u", inside], capture_output=True, check=False)
        os.kill(inner, signal.SIGKILL)
    process.wait()


def _child(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(text[0]) if text else 0


def enter(work: Path, disk_bytes: int) -> None:
    """Called inside: memory file systems for the namespaces' names and for the nodes' disks, and SIGTERM as an exit."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.getpid() != 1:
        raise RuntimeError("run the campaign through tests.fault.sandbox.run, or python -m tests.fault")
    # unshare has done it; twice does no harm, and without it mounts would be seen outside.
    if libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None) != 0:
        raise OSError(ctypes.get_errno(), "the mounts cannot be made private")
    command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/netns").mkdir()
    (work / "images").mkdir(exist_ok=True)
    command("mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(work / "images"))
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(143)


def command(*arguments: str, data: str | None = None) -> str:
    """Run a program of the system that must succeed; its output. Raises RuntimeError with what it said."""
    done = subprocess.run(list(arguments), input=data, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout
