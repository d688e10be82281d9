"""Errors over a day, of our meter and of the usual ways, and the goals of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homefed.core.meter_limits import KIB_SECOND
from testbed.binaries import Binaries
from testbed.metrics import prometheus
from truth.classes import CLASSES, SINGLE_SOURCE, Case
from truth.meters import CPU_WAYS, MEMORY_WAYS, Amounts, asking, metered
from truth.scraping import scraped

OURS: Final = "homefed"
SPLITS: Final = (3600, 21_600, 300)
"""24 × 1 h, 4 × 6 h, 288 × 5 min."""
GOAL_SCRAPE_S: Final = 30
GOALS_PPM: Final = {name: 10_000 if name in ("resets", "short") else 1_000 for name in CLASSES}
SCALE: Final = {"cpu": ("mcores", 1), "memory": ("held", KIB_SECOND), "network-receive": ("rate", 1)}
"""Resource → its name in the truth, and how much of that is a unit."""

Errors = dict[str, dict[str, float]]
"""Way → class → signed error in millionths."""


@dataclass(frozen=True)
class Day:
    """One day at one scrape interval. `splits`: our amounts by length of the windows."""

    scrape_s: int
    cpu: Errors
    memory: Errors
    network: Errors
    splits: Mapping[int, Amounts]

    def apart(self) -> dict[str, int]:
        """Class of a single source → the largest difference between any two ways to cut the day, of any resource."""
        return {
            name: max(
                abs(one[name][resource] - other[name][resource])
                for resource in SCALE
                for one in self.splits.values()
                for other in self.splits.values()
            )
            for name in SINGLE_SOURCE
        }

    def missed(self) -> list[str]:
        """What our meter misses of its goals, in words; they are of a scrape every 30 s, but that of the splits."""
        errors = self.cpu[OURS] if self.scrape_s == GOAL_SCRAPE_S else {}
        found = [
            f"{name}: {ppm:.0f} ppm, goal {GOALS_PPM[name]}"
            for name, ppm in errors.items()
            if abs(ppm) > GOALS_PPM[name]
        ]
        return found + [f"{name}: windows differ by {units} units" for name, units in self.apart().items() if units]


def measure_day(binaries: Binaries, folder: Path, cases: Sequence[Case], scrape_s: int, *, seed: int) -> Day:
    """Load the day into a Prometheus, and let everybody measure it. `folder` must not exist."""
    folder.mkdir(parents=True)
    with prometheus(binaries, folder, scraped(cases, scrape_s, seed=seed)) as url:
        ask = asking(url)
        splits = {length: metered(url, cases, window_s=length, scrape_s=scrape_s) for length in SPLITS}
        cpu = {way: {case.name: 1e6 * found(ask, case) for case in cases} for way, found in CPU_WAYS.items()}
        memory = {
            way: {case.name: found(ask, case) * 1000 / KIB_SECOND for case in cases}
            for way, found in MEMORY_WAYS.items()
        }
    ours = splits[SPLITS[0]]
    return Day(
        scrape_s,
        cpu=_errors(cases, "cpu", {OURS: _of(ours, "cpu"), **cpu}),
        memory=_errors(cases, "memory", {OURS: _of(ours, "memory"), **memory}),
        network=_errors(cases, "network-receive", {OURS: _of(ours, "network-receive")}),
        splits=splits,
    )


def _of(amounts: Amounts, resource: str) -> dict[str, float]:
    return {name: float(found[resource]) for name, found in amounts.items()}


def _errors(cases: Sequence[Case], resource: str, ways: Mapping[str, Mapping[str, float]]) -> Errors:
    name, per_unit = SCALE[resource]
    truths = {case.name: case.truth(name) / per_unit for case in cases}
    return {
        way: {key: 1e6 * (found[key] - truth) / truth for key, truth in truths.items()} for way, found in ways.items()
    }


def text(days: Sequence[Day]) -> str:
    """Errors in percent: class by way, for each interval; then how far the windows of any cut lie apart."""
    parts = []
    for day in days:
        for title, errors in (("CPU", day.cpu), ("memory", day.memory), ("network received", day.network)):
            parts += [f"{title}, error over the day, scraped every {day.scrape_s} s", _rows(errors), ""]
        apart = max(day.apart().values())
        parts += [f"24 × 1 h, 4 × 6 h and 288 × 5 min differ by {apart} µ-units at most (single source)", ""]
    return "\n".join(parts)


def _rows(errors: Errors) -> str:
    lines = [f"{'':8}" + "".join(f"{way:>18}" for way in errors)]
    for name in CLASSES:
        lines.append(f"{name:8}" + "".join(f"{ppm[name] / 10_000:>+17.3f}%" for ppm in errors.values()))
    return "\n".join(lines)
