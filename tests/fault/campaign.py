"""One campaign, run inside the sandbox: rounds of load and faults, each followed by all checks."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fault import sandbox
from tests.fault.check_health import check_health
from tests.fault.check_meta import check_declared, check_registers
from tests.fault.check_points import (
    check_deleted,
    check_equal,
    check_invented,
    check_lost,
    check_superseded,
)
from tests.fault.check_service import (
    check_alive,
    check_available,
    check_bounded,
    check_counters,
    check_last,
)
from tests.fault.cluster import FaultCluster, Sampler
from tests.fault.history import History, read
from tests.fault.load import Load
from tests.fault.nemesis import Nemesis
from tests.fault.observer import Observer
from tests.fault.points import DAY_NS
from tests.fault.schedule import KINDS, schedule
from tests.fault.verdict import Verdict

_COPIES = 3
_DISK_BYTES = 768 << 20
_IMAGES_BYTES = 8 << 30
_MEMORY_BYTES = 1 << 30
_FILES = 1_000
_WARM_UP_POINTS = 1_000
_WARM_UP_S = 120.0
_LONGEST_ROUND_S = 480.0
_APART_S = 3.0
"""Between a write and one that is said to replace it, while versions may be ahead of all clocks: in a round that sets
clocks and in the next."""
_DISK_FULL_CODE = 10
"""A daemon that ended because its disk was full is one that did as documented."""


class Campaign:
    """Nodes, the history and the verdicts of every round."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work = Path(arguments.work)
        self._versions_ahead = False
        self.cluster = FaultCluster(self.work, _DISK_BYTES, arguments.broken)
        self.report: dict[str, Any] = {"seed": arguments.seed, "nodes": arguments.nodes, "rounds": []}

    def run(self) -> None:
        """All rounds; the report is complete after each."""
        arguments = self.arguments
        self.cluster.grow(arguments.nodes)
        able = {"clock": self.cluster.clocks_can_be_set, "delay": self.cluster.network.can_delay()}
        able["drain"] = arguments.nodes > _COPIES
        kinds = [kind for kind in arguments.kinds if able.get(kind, True)]
        self.report["unable"] = [kind for kind in arguments.kinds if kind not in kinds]
        end_s = time.monotonic() + arguments.minutes * 60
        number = 0
        while True:
            # Clocks are set in every third round only: what a later write replaces is certain at once in the others.
            chosen = [kind for kind in kinds if kind != "clock" or number % 3 == arguments.clock_round]
            faults = schedule(arguments.seed + number, chosen)
            left_s = end_s - time.monotonic()
            length_s = min(arguments.round_s, left_s)

            def strike(nemesis: Nemesis, faults: Any = faults, length_s: float = length_s) -> None:
                nemesis.run(faults, time.monotonic() + length_s, arguments.most, self._is_ending)

            verdicts = self.round(number, strike)
            number += 1
            self.write_report()
            if any(not verdict.ok for verdict in verdicts) and not arguments.go_on:
                return
            if arguments.once or self._is_ending() or end_s - time.monotonic() < arguments.round_s / 2:
                return
            self.cluster.start()
            self.cluster.execute(f"DROP DATABASE f{number - 1}")

    def _is_ending(self) -> bool:
        """Whether somebody wants the campaign to end, with the checks of what has been and a report."""
        return (self.work / sandbox.END_FILE).exists()

    def round(self, number: int, strike: Callable[[Nemesis], None]) -> list[Verdict]:
        """Load, faults, heal, stop, check. The nodes are stopped on return."""
        cluster, database = self.cluster, f"f{number}"
        base_ns = (time.time_ns() // DAY_NS - 4) * DAY_NS
        copies = min(_COPIES, len(cluster.nodes))
        cluster.execute(
            f"CREATE DATABASE {database} WITH DURATION INF REPLICATION {copies} SHARD DURATION 1d NAME autogen"
        )
        path = self.work / f"history{number}.jsonl"
        history = History(path)
        members = [node.number for node in cluster.nodes]
        nemesis = Nemesis(cluster.nodes, cluster.network, history, cluster.grow)
        load = Load(
            cluster.nodes,
            history,
            database,
            base_ns,
            self.arguments.seed + number,
            points_s=self.arguments.points_s,
        )
        sampler, observer = Sampler(cluster, history), Observer(cluster.nodes, history)
        try:
            load.start()
            sampler.start()
            observer.start()
            self._warm_up(load)
            begun_s = time.monotonic()
            strike(nemesis)
            longest_s = begun_s + _LONGEST_ROUND_S
            while load.acknowledged < self.arguments.least_points and time.monotonic() < longest_s:
                if self._is_ending():
                    break
                time.sleep(0.2)
        finally:
            load.stop()
            cluster.network.heal()
            sampler.stop()
        nemesis.revive()
        healed_s = time.monotonic()
        # The time in which owners have to be equal again, without anything being done.
        problems = cluster.settle(database, healed_s + self.arguments.settle_s)
        settled_s = time.monotonic() - healed_s
        observer.stop()
        each = cluster.last_operations(history, database, base_ns)
        owners, databases = cluster.owners(database), cluster.databases()
        cluster.stop(history)
        history.close()
        verdicts = self._check(number, list(read(path)), load, owners, databases, each, nemesis, members)
        self.report["rounds"].append(
            {
                "round": number,
                "length_s": round(healed_s - begun_s, 1),
                "settled": not problems,
                "settled_s": round(settled_s, 1),
                "unsettled": problems,
                "faults": nemesis.faults,
                "kinds": nemesis.kinds,
                "clock_set": nemesis.clock_stepped,
                "verdicts": {one.name: {"ok": one.ok, "problems": one.problems, **one.figures} for one in verdicts},
            }
        )
        return verdicts

    @staticmethod
    def _warm_up(load: Load) -> None:
        """Wait until points are acknowledged: a run without load before its first fault proves nothing."""
        deadline_s = time.monotonic() + _WARM_UP_S
        while time.monotonic() < deadline_s:
            if load.acknowledged > _WARM_UP_POINTS:
                return
            time.sleep(0.05)
        raise RuntimeError("the healthy cluster does not take the load: the run is void")

    def _check(
        self,
        number: int,
        history: list[dict[str, Any]],
        load: Load,
        owners: dict[int, list[int]],
        databases: dict[int, list[str]],
        each: int,
        nemesis: Nemesis,
        members: list[int],
    ) -> list[Verdict]:
        cluster = self.cluster
        contents = cluster.contents(load.database)
        numbers = [node.number for node in cluster.nodes]
        verdicts = [
            check_lost(history, contents, everywhere=len(numbers) <= _COPIES),
            check_equal(contents, owners),
            check_invented(load.base_ns, load.issued, load.shared_issued, contents),
            check_registers(history),
            check_declared(history, databases),
            check_available(history, members, self.arguments.unavailable_s),
            check_counters(history),
            check_health(history, members, self.arguments.seen_s, self.arguments.cleared_s),
            check_bounded(history, _MEMORY_BYTES, _FILES),
            check_last(history, numbers, each),
            check_alive(history, frozenset({_DISK_FULL_CODE})),
        ]
        apart_s = _APART_S if nemesis.clock_stepped or self._versions_ahead else 0.0
        self._versions_ahead = nemesis.clock_stepped
        return [*verdicts, check_superseded(history, contents, apart_s=apart_s), check_deleted(history, contents)]

    def write_report(self) -> None:
        """The report so far, as JSON."""
        (self.work / "report.json").write_text(json.dumps(self.report, indent=1))

    def close(self) -> None:
        """Nothing is left frozen or running."""
        for node in self.cluster.nodes:
            node.disk.thaw()
        for node in self.cluster.nodes:
            if node.alive:
                node.kill()
        if self.arguments.keep:
            for node in self.cluster.nodes:
                shutil.copytree(node.disk.mount_point, node.root / "kept", dirs_exist_ok=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line of a campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, without the checks after the last round")
    parser.add_argument("--seed", type=int, default=1, help="chooses the faults")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--round-s", type=float, default=240.0, help="seconds of load and faults between two checks")
    parser.add_argument("--points-s", type=float, default=3000.0, help="points that are wished to be written a second")
    parser.add_argument("--most", type=int, default=1 << 30, help="faults of a round, at most")
    parser.add_argument("--least-points", type=int, default=0, help="go on with the load until so many are written")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), help="kinds of faults")
    parser.add_argument("--clock-round", type=int, default=2, help="which of three rounds sets clocks: 0, 1 or 2")
    parser.add_argument(
        "--unavailable-s", type=float, default=5.0, help="longest time without writes, a majority being up"
    )
    parser.add_argument("--seen-s", type=float, default=2.0, help="longest time until a fault is named")
    parser.add_argument("--cleared-s", type=float, default=5.0, help="longest time until it is named no more")
    parser.add_argument("--broken", default="", help="run a broken build of tests/fault/broken.py")
    parser.add_argument("--scenario", default="", help="a scenario of tests/fault/scenarios.py instead of a schedule")
    parser.add_argument("--work", default="", help="directory for histories, logs and the report")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' disks in the work directory")
    parser.add_argument("--settle-s", type=float, default=30.0, help="time from the heal until owners must be equal")
    parser.add_argument("--once", action="store_true", help="one round only")
    parser.add_argument("--go-on", action="store_true", help="go on after a round with a problem")
    return parser.parse_args(arguments)


def main() -> int:
    """Run inside the sandbox: 0 when all is well, 1 when a checker found something, 2 when the run is void."""
    arguments = parse(sys.argv[1:])
    sandbox.enter(Path(arguments.work), _IMAGES_BYTES)
    campaign = Campaign(arguments)
    try:
        if arguments.scenario:
            from tests.fault.scenarios import SCENARIOS

            campaign.cluster.grow(arguments.nodes)
            campaign.round(0, SCENARIOS[arguments.scenario])
        else:
            campaign.run()
    except Exception:
        campaign.report["void"] = traceback.format_exc()
        traceback.print_exc()
    finally:
        campaign.write_report()
        campaign.close()
    if "void" in campaign.report:
        return 2
    bad = any(not one["ok"] for done in campaign.report["rounds"] for one in done["verdicts"].values())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
