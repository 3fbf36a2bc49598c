"""``python -m tests.reference --seed 7 --count 5000``: random statements beside an influxd, what differs shortened."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.reference.generator import shrink, statements
from tests.reference.pair import running_pair


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    differences = 0
    with tempfile.TemporaryDirectory() as directory, running_pair(Path(directory)) as pair:
        for statement in statements(arguments.seed, arguments.count):
            if pair.difference(statement):
                differences += 1
                short = shrink(statement, lambda text: bool(pair.difference(text)))
                print(f"{short}\n    {pair.difference(short)}", flush=True)
    print(f"seed {arguments.seed}: {arguments.count} statements, {differences} differ")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
