"""The figures of a run as a picture."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tsbs.queries import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RATES = (
    ("cpu-only\nrows/s", "ingest"),
    ("integers\nrows/s", "ingest-int"),
    ("mixed\nrows/s", "mixed"),
    ("one-point\nrequests/s", "one-point"),
)
_DISK = ("float", "decimal", "int")


def plot(figures: dict[str, dict[str, Any]], title: str, path: Path) -> str | None:
    """Write a PNG, or give the reason why there is none."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture: matplotlib is not installed"
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    systems = list(figures)
    figure, axes = pyplot.subplots(3, 1, figsize=(12, 13), height_ratios=(2, 3, 1.4), layout="constrained")
    rates = [[figures[name].get(key, {}).get("rows_per_s", np.nan) for _, key in _RATES] for name in systems]
    _bars(axes[0], systems, [label for label, _ in _RATES], rates)
    axes[0].set_title("writing, more is better")
    latencies = [
        [figures[name].get("queries", {}).get(kind, {}).get("hot", {}).get("p50_ms", np.nan) for kind in KINDS]
        for name in systems
    ]
    _bars(axes[1], systems, KINDS, latencies)
    if not np.isnan(np.array(latencies, dtype=np.float64)).all():
        # Without a measured query there is nothing to find a scale for.
        axes[1].set_yscale("log")
    axes[1].set_ylabel("ms")
    pyplot.setp(axes[1].get_xticklabels(), rotation=25, ha="right", rotation_mode="anchor")
    axes[1].set_title("queries, median, less is better")
    sizes = [[figures[name].get("disk", {}).get(kind, np.nan) for kind in _DISK] for name in systems]
    _bars(axes[2], systems, _DISK, sizes)
    axes[2].set_title("bytes per value on disk, less is better")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return None


def _bars(axis: Any, systems: Sequence[str], labels: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    width = 0.8 / len(systems)
    for number, (name, heights) in enumerate(zip(systems, values, strict=True)):
        axis.bar(np.arange(len(labels)) + (number - (len(systems) - 1) / 2) * width, heights, width, label=name)
    axis.set_xticks(range(len(labels)), labels)
    axis.legend()
    axis.grid(axis="y", alpha=0.3)
