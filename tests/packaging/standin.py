"""A small daemon for the tests of the init script: the real pid file and readiness message, and nothing behind them.

It takes the daemon's flags, and ``-mode`` for what it does wrong. ``-say TEXT`` writes a line to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsdbd.notify import READY, PidFile, notify


def serve(mode: str, report: Path) -> None:
    """Block until SIGTERM, after telling whoever waits."""
    stop_signals = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    facts = {"argv": sys.argv[1:], "setting": os.environ.get("DSDB_TEST_SETTING")}
    report.write_text(json.dumps(facts))
    if mode != "silent":
        notify(READY, os.environ)
    while True:
        signal.sigwait(stop_signals)
        if mode != "stubborn":
            return


def main() -> int:
    """Run as the given mode says."""
    arguments = sys.argv[1:]
    if arguments == ["version"]:
        print("DSDB v0")
        return 0

    def flag(name: str, default: str = "") -> str:
        return arguments[arguments.index(name) + 1] if name in arguments else default

    if "-say" in arguments:
        print(flag("-say"), file=sys.stderr)
    if flag("-mode") == "die":
        print("the configuration has a problem", file=sys.stderr)
        return 2
    pid_path = Path(flag("-pidfile"))
    with PidFile(pid_path):
        serve(flag("-mode", "ready"), pid_path.with_suffix(".json"))
    if flag("-mode") == "lingers":
        # The pid file is gone, the process is not yet.
        time.sleep(0.5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
