"""python -m bench.meter [--only PART …] [--nodes]: how fast windows are metered and settled, and how true the meter is.

Prints the figures beside their goals, and the truth table; the same as JSON goes to the path in BENCH_JSON. Exit status
0 when all goals are met, 1 when one is missed or could not be measured, 2 for a wrong argument. Needs the Prometheus
that `make testbed` builds; `--nodes` needs root and real nodes, and takes a quarter of an hour more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.figures import Goal, Progress, Results, table, write
from bench.meter_nodes import GOAL_PPM as NODES_GOAL_PPM
from bench.meter_nodes import node_errors
from bench.meter_settling import LINES_PER_POD, PODS_PER_HOME, time_settling
from bench.meter_truth import truth_table
from bench.meter_window import time_window, typical
from testbed.errors import TestbedError
from testbed.interruption import Interruption
from testbed.workspace import workspace
from truth.classes import CLASSES
from truth.table import GOALS_PPM

Measure = Callable[[Path, Results, Progress], None]

SETTLED: Final = {"settle_1k_s": 1_000, "settle_3k_s": 3_000, "settle_10k_s": 10_000}
"""Figure → guest pods."""
GROWTH: Final = "settle_growth"
METERED: Final = "meter_200_s"
RSS: Final = "meter_extra_rss_mib"
NODES: Final = "node_error_ppm"
CONTAINERS: Final = 200
RUNS: Final = 2
MIB: Final = 2**20

TRUTH: Final = {name: f"error_ppm.homefed.{name}" for name in CLASSES}
"""Class → figure."""

GOALS: Final[dict[str, Goal]] = {
    goal.name: goal
    for goal in (
        Goal("settle_1k_s", 0.5, "1 000 guest pods × 8 lines settled on one core: decided, built, signed; s of CPU"),
        Goal("settle_3k_s", 1.5, "3 000 of them"),
        Goal("settle_10k_s", 5.0, "10 000 of them"),
        Goal(GROWTH, 1.25, "time per pod with 10 000 pods ÷ with 1 000: 1 is linear"),
        Goal(METERED, 1.0, "an hour of 200 containers: from Prometheus' answers to a signed report; s of CPU"),
        Goal(RSS, 60, "memory that this takes at its peak"),
        Goal(NODES, NODES_GOAL_PPM, "real nodes, restarts and an outage of ten minutes: against the workload's truth"),
    )
} | {
    key: Goal(key, GOALS_PPM[name], f"CPU of a day, class {name}: metered against the truth", inclusive=True)
    for name, key in TRUTH.items()
}


def measure_truth(folder: Path, results: Results, say: Progress) -> None:
    """Prints the table of all ways and scrape intervals, of which the figures are those at 30 s."""
    folder.mkdir(parents=True, exist_ok=True)
    found = truth_table(folder, say)
    print(found.text)
    for key in TRUTH.values():
        results.put(key, found.ppm[key])
    results.others |= {key: ppm for key, ppm in found.ppm.items() if key not in results.values}
    results.broken += found.missed


def measure_settling(_folder: Path, results: Results, say: Progress) -> None:
    """The fastest of RUNS each, since whatever else the machine does can only slow it down."""
    best: dict[str, float] = {}
    for name, pods in SETTLED.items():
        runs = [time_settling(pods) for _ in range(RUNS)]
        best[name] = min(run.settled for run in runs)
        results.put(
            name,
            best[name],
            runs=[round(run.settled, 3) for run in runs],
            homes=runs[0].homes,
            pods_per_home=PODS_PER_HOME,
            lines_per_pod=LINES_PER_POD,
            reports_verified_s=round(min(run.opened for run in runs), 3),
        )
        say(f"{name}: {best[name]:.3f} s; the reports' signatures and reading, not in it: {runs[0].opened:.3f} s")
    results.put(
        GROWTH, (best["settle_10k_s"] / SETTLED["settle_10k_s"]) / (best["settle_1k_s"] / SETTLED["settle_1k_s"])
    )


def measure_metering(folder: Path, results: Results, say: Progress) -> None:
    """Medians of several processes."""
    runs = time_window(folder, CONTAINERS)
    found = typical(runs)
    details = {"runs": [round(run.cpu_s, 3) for run in runs], "wall_s": round(found.wall_s, 3), "lines": found.lines}
    results.put(METERED, found.cpu_s, **details, report_bytes=found.report_bytes)
    results.put(RSS, found.rss_bytes / MIB, runs=[round(run.rss_bytes / MIB, 1) for run in runs])
    say(f"{METERED}: {found.cpu_s:.3f} s of CPU, {found.wall_s:.3f} s with Prometheus; {found.rss_bytes / MIB:.1f} MiB")


def measure_nodes(folder: Path, results: Results, say: Progress) -> None:
    errors = node_errors(folder, say)
    results.put(NODES, max(errors.values()), error_ppm=errors)


PARTS: Final[dict[str, tuple[Measure, tuple[str, ...]]]] = {
    "truth": (measure_truth, tuple(TRUTH.values())),
    "settling": (measure_settling, (*SETTLED, GROWTH)),
    "metering": (measure_metering, (METERED, RSS)),
    "nodes": (measure_nodes, (NODES,)),
}
"""Part → what measures it, and its figures."""
USUAL: Final = tuple(part for part in PARTS if part != "nodes")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.meter", description="The meter's figures and their goals.")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--nodes", action="store_true", help="real nodes too: root, and a quarter of an hour")
    options = parser.parse_args(argv)
    wanted = options.only or [*USUAL, *(["nodes"] if options.nodes else [])]
    interruption = Interruption().listen()
    results, say, failed = Results(GOALS), Progress(), False
    with workspace() as folder:
        for part in wanted:
            interruption.check()
            try:
                PARTS[part][0](folder / part, results, say)
            except TestbedError as error:
                failed = True  # the other figures are worth having
                say(f"{part}: {error}")
    figures = [name for part in wanted for name in PARTS[part][1]]
    print(table(results.values, figures, GOALS))
    if path := os.environ.get("BENCH_JSON"):
        write(results.document(figures), Path(path))
    return 1 if failed or results.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
