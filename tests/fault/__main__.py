"""``python -m tests.fault --minutes 40 --seed 7``: a long campaign, and its report."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.fault import sandbox
from tests.fault.campaign import parse
from tests.fault.report import load_report, render


def end_politely(work: Path) -> None:
    """The first SIGINT or SIGTERM ends the round that runs, checks it and reports; a second one ends at once."""
    end = work / sandbox.END_FILE
    end.unlink(missing_ok=True)

    def ask(_number: int, _frame: object) -> None:
        if end.exists():
            raise KeyboardInterrupt
        end.touch()
        print("no more faults: the round that runs is checked; once more to end at once", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)


def main() -> int:
    """Run a campaign in a sandbox and print its report; 0 when every checker is content."""
    why = sandbox.missing()
    if why:
        print(f"no campaign can run: {why}", file=sys.stderr)
        return 2
    arguments = parse(sys.argv[1:])
    work = Path(arguments.work or tempfile.mkdtemp(prefix="dsdb-fault-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    begun_s = time.monotonic()
    end_politely(work)
    # Checks and starts come on top of the time that was asked for.
    try:
        code = sandbox.run(
            "tests.fault.campaign", [*sys.argv[1:], "--work", str(work)], work, 60 * (3 * arguments.minutes + 15)
        )
    except KeyboardInterrupt:
        code = 130
    print(render(load_report(work), work, time.monotonic() - begun_s))
    return code


if __name__ == "__main__":
    sys.exit(main())
