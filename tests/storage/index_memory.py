"""Memory and time of a series index: ``python -m tests.storage.index_memory 1000000`` prints one JSON object.

Series have the ten tags of a TSBS host; memory is what the process grew by. Times are wall-clock seconds and tell
about an idle machine only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dsdbd.model.predicate import EVERY_SERIES, TagEquals, TagMatches
from dsdbd.storage.index import SeriesIndex

REGIONS = [b"us-east-1", b"us-west-1", b"us-west-2", b"eu-west-1", b"eu-central-1", b"sa-east-1"]
BATCH = 50_000


def host_key(number: int) -> bytes:
    """Key of one host; its values but the name are spread by a multiplicative hash."""
    spread = number * 2654435761 & 0xFFFFFFFF
    region = REGIONS[spread % 6]
    return b"cpu,arch=%s,datacenter=%s%s,hostname=host_%d,os=%s,rack=%d,region=%s,service=%d,service_environment=%s" % (
        (b"x64", b"x86")[spread >> 3 & 1],
        region,
        (b"a", b"b", b"c", b"d")[spread >> 5 & 3],
        number,
        (b"Ubuntu16.10", b"Ubuntu16.04LTS")[spread >> 7 & 1],
        spread >> 9 & 63,
        region,
        spread >> 15 & 15,
        (b"production", b"staging", b"test", b"qa")[spread >> 19 & 3],
    ) + b",service_version=%d,team=%s" % (spread >> 21 & 1, (b"SF", b"NYC", b"LON", b"CHI")[spread >> 22 & 3])


def resident_bytes() -> int:
    """Memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status names no VmRSS")


def measure(count: int) -> dict[str, float]:
    """Fill an index with ``count`` hosts and look around in it."""
    report: dict[str, float] = {"series": count}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        report[name] = report.get(name, 0.0) + time.perf_counter() - start
        return result

    before = resident_bytes()
    index = SeriesIndex()
    for start in range(0, count, BATCH):
        keys = [host_key(number) for number in range(start, min(start + BATCH, count))]
        timed("add_s", lambda keys=keys: index.numbers(keys))
    del keys
    report["stated_bytes_per_series"] = index.size_bytes() / count
    report["resident_bytes_per_series"] = (resident_bytes() - before) / count
    known = [host_key(number) for number in range(0, count, max(1, count // 5_000))]
    timed("look_up_5000_uncached_s", lambda: index.numbers(known))
    timed("look_up_5000_cached_s", lambda: index.numbers(known))
    timed("select_one_s", lambda: index.select(TagEquals("hostname", f"host_{count // 2}")))
    timed("select_region_s", lambda: index.select(TagEquals("region", "us-west-1")))
    timed("select_regex_s", lambda: index.select(TagMatches("hostname", "^host_1.*7$")))
    everything = timed("select_all_s", lambda: index.select(EVERY_SERIES))
    timed("tag_values_s", lambda: index.subset("cpu", everything).tags["hostname"].distinct())
    timed("group_by_region_s", lambda: np.bincount(index.subset("cpu", everything).tags["region"].codes))
    timed("in_key_order_s", lambda: index.in_key_order(everything))
    report["resident_bytes_per_series_after_queries"] = (resident_bytes() - before) / count
    columns = dict(index.subset("cpu", everything).tags)
    timed("from_columns_s", lambda: SeriesIndex().numbers_of_columns("cpu", columns))
    assert len(index) == count
    return {name: round(value, 5) for name, value in report.items()}


if __name__ == "__main__":
    print(json.dumps(measure(int(float(sys.argv[1])))))
