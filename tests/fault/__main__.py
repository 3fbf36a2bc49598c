"""``python -m tests.fault --minutes 40 --seed 7``: a long campaign, and its report."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.fault import sandbox
from tests.fault.campaign import parse
from tests.fault.report import load_report, render


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
    # Checks and starts come on top of the time that was asked for.
    code = sandbox.run(
        "tests.fault.campaign", [*sys.argv[1:], "--work", str(work)], work, 60 * (3 * arguments.minutes + 15)
    )
    print(render(load_report(work), work, time.monotonic() - begun_s))
    return code


if __name__ == "__main__":
    sys.exit(main())
