"""``python -m tests.reference --seed 7 --count 5000``: the whole table and random statements beside an influxd.

Differences that are not meant are printed, random statements without the words that do not matter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.reference.generator import shrink, statements
from tests.reference.notation import tables
from tests.reference.pair import Pair, running_pair


def ask_tables(pair: Pair) -> int:
    """Ask every statement of the tables; returns how many differ."""
    asked = differences = 0
    for rule in tables():
        for statement in rule.statements:
            asked += 1
            if found := pair.difference(statement, **rule.parameters):
                differences += 1
                print(f"{rule.id}\n  {statement}\n    {found}", flush=True)
    print(f"tables: {asked} statements, {differences} differ", flush=True)
    return differences


def ask_random(pair: Pair, seed: int, count: int) -> int:
    """Ask random statements; returns how many differ."""
    differences = 0
    for statement in statements(seed, count):
        if pair.difference(statement):
            differences += 1
            short = shrink(statement, lambda text: bool(pair.difference(text)))
            print(f"{short}\n    {pair.difference(short)}", flush=True)
    print(f"seed {seed}: {count} statements, {differences} differ", flush=True)
    return differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, running_pair(Path(directory)) as pair:
        differences = ask_tables(pair) + ask_random(pair, arguments.seed, arguments.count)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
